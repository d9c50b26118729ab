"""Readers of motion files: dialects, round trips, units and axes found and said, bad files refused; real files."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import torch
from people import joints

from visviva.data.motions import read_motion
from visviva.data.motions.amass import OFFSETS
from visviva.data.motions.amass import PARENTS as SMPL
from visviva.data.motions.anatomy import parts
from visviva.data.motions.arrays import write_npz
from visviva.data.motions.axes import Reading, mirrored, stature, upright
from visviva.data.motions.bvh import about, write_bvh, zxy
from visviva.data.motions.c3d import open_c3d, reals
from visviva.data.motions.forces import read_forces
from visviva.data.motions.humanml3d import NAMES, PARENTS, features
from visviva.data.motions.motion import HumanMotion, filled, forward_kinematics
from visviva.data.motions.plausible import jumps
from visviva.errors import InputError

ARM = """HIERARCHY
ROOT Hips
{{
  OFFSET 0 0 0
  CHANNELS 6 Xposition Yposition Zposition {order}
  JOINT LeftUpLeg {{ OFFSET 0 -0.1 0 CHANNELS {inner}
    JOINT LeftLeg {{ OFFSET 0 -0.4 0 CHANNELS 3 Zrotation Xrotation Yrotation
      JOINT LeftFoot {{ OFFSET 0 -0.42 0 CHANNELS 3 Zrotation Xrotation Yrotation End Site {{ OFFSET 0 0 0.1 }} }} }} }}
  JOINT Head {{ OFFSET 0 0.7 0 CHANNELS 3 Xrotation Yrotation Zrotation }}
}}
MOTION
{frames}
"""
ROTATIONS = "3 Zrotation Xrotation Yrotation"


def bvh(
    tmp_path, values, order="Zrotation Xrotation Yrotation", inner=ROTATIONS, time="Frame Time: 0.05", scale=None, count=None
):
    rows = "\n".join("\t".join(f"{x:g}" for x in row) for row in values)
    said = "\n".join(line for line in (f"Frames: {len(values) if count is None else count}", time, rows) if line)
    path = tmp_path / "some.bvh"
    path.write_text(ARM.format(order=order, inner=inner, frames=said))
    return path


def walk(count=4, width=18):
    values = np.zeros((count, width))
    values[:, 1] = 0.92
    values[:, 2] = 0.05 * np.arange(count)
    return values


def person(frames=24, seed=1, fps=20.0):
    points = joints(frames, seed).float() @ upright("y").T
    return HumanMotion(points, NAMES, PARENTS, fps)


class TestBVH:
    @pytest.mark.parametrize(
        "order", ["Xrotation Yrotation Zrotation", "Yrotation Zrotation Xrotation", "Zrotation Xrotation Yrotation"]
    )
    def test_any_order_of_rotations(self, tmp_path, order):
        values = walk()
        values[:, 3:6] = (10, 20, 15)
        motion = read_motion(bvh(tmp_path, values, order))
        turn = torch.eye(3)
        for word, angle in zip(order.split(), (10, 20, 15), strict=True):
            turn = turn @ about("XYZ".index(word[0]), torch.deg2rad(torch.tensor(float(angle))))
        head = motion.joint("Head") - motion.joint("Hips")
        wanted = upright("y") @ turn @ torch.tensor([0.0, 0.7, 0.0])
        assert torch.allclose(head, wanted.expand_as(head), atol=1e-5)
        assert motion.fps == pytest.approx(20)
        assert motion.names[-2] == "LeftFoot_end"

    def test_position_channels_instead_of_the_offset_or_added_to_it(self, tmp_path):
        inner = "6 Xposition Yposition Zposition Zrotation Xrotation Yrotation"
        for y, said in ((-0.1, "taken instead of"), (0.0, "added to")):
            values = walk(width=21)
            values[:, 7] = y
            motion = read_motion(bvh(tmp_path, values, inner=inner))
            assert any(said in note for note in motion.notes)
            assert torch.allclose((motion.joint("LeftUpLeg") - motion.joint("Hips"))[:, 2], torch.full((4,), -0.1), atol=1e-6)

    @pytest.mark.parametrize(
        ("factor", "unit"), [(1, "m"), (100, "cm"), (1000, "mm"), (1 / 0.0254, "inch"), (1 / 0.056444, "cmu")]
    )
    def test_units_are_found_and_said(self, tmp_path, factor, unit):
        path = tmp_path / "scaled.bvh"
        motion = person()
        write_bvh(path, motion.noted(positions=motion.positions * factor))
        again = read_motion(path)
        assert any(note.startswith(f"units: {unit},") for note in again.notes)
        order = [again.names.index(name) for name in NAMES]
        assert torch.allclose(again.positions[:, order], motion.positions, atol=1e-5)

    def test_written_and_read_again(self, tmp_path):
        turns = about(0, torch.linspace(0, 1, 5)[:, None] * torch.randn(24)) @ about(2, torch.randn(5, 24) * 0.3)
        offsets = OFFSETS.expand(5, -1, -1).clone()
        offsets[:, 0] = torch.tensor([0.3, 0.2, 1.0])
        turns[:, 0] = upright("y") @ turns[:, 0]
        names = tuple(f"j{k}" for k in range(24))
        motion = HumanMotion(forward_kinematics(turns, offsets, SMPL)[0], names, SMPL, 25.0, rotations=turns, rest=OFFSETS)
        again = read_motion(write_bvh(tmp_path / "a.bvh", motion), Reading(units="m", up="z", hand="right"))
        order = [again.names.index(name) for name in names]
        assert torch.allclose(again.positions[:, order], motion.positions, atol=2e-5)
        assert torch.allclose(again.rotations[:, order], motion.rotations, atol=1e-4)

    def test_joints_without_rotations_are_written_as_positions(self, tmp_path):
        motion = person()
        again = read_motion(write_bvh(tmp_path / "a.bvh", motion))
        order = [again.names.index(name) for name in NAMES]
        assert torch.allclose(again.positions[:, order], motion.positions, atol=1e-5)

    def test_angles_of_rotations(self):
        angles = torch.rand(50, 3, dtype=torch.float64) * 3 - 1.5
        turns = about(2, angles[:, 0]) @ about(0, angles[:, 1]) @ about(1, angles[:, 2])
        z, x, y = zxy(turns).unbind(-1)
        assert torch.allclose(about(2, z) @ about(0, x) @ about(1, y), turns, atol=1e-9)

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda t: t.replace("Frame Time: 0.05", "Frame Time: 0"), "frame time is 0.0; give the frame rate"),
            (lambda t: t.replace("Frame Time: 0.05\n", ""), "frame time is missing"),
            (lambda t: t.replace("Frames: 4", "Frames: 9"), "cut short or damaged"),
            (lambda t: t.replace("Frames: 4", "Frames: 3"), r"more frames than it states: 'Frames: 3'.* \(4 frames\)"),
            (lambda t: t.replace("Frames: 4", "Frames: 3") + "7\n", r"more frames than .* \(4 frames and 1 number more\)"),
            (lambda t: t.replace("0.92", "nan"), "not finite"),
            (lambda t: t.replace("0.92", "abc"), "'abc' is no number"),
            (lambda t: t[: t.index("MOTION")], "no MOTION section"),
            (lambda t: t.replace("}\nMOTION", "}\nROOT Second { OFFSET 0 0 0 CHANNELS 0 }\nMOTION"), "several roots"),
            (lambda t: t.replace("}\nMOTION", "\nMOTION"), "do not close"),
            (lambda t: t.replace("Zrotation", "Wrotation"), "Wrotation"),
            (lambda t: t.replace("Frames: 4", "Frames: 1").rsplit("\n", 4)[0], "a motion of 1 frame does not move"),
            (lambda t: t.replace("Frames: 4", "Frames: 0").rsplit("\n", 5)[0], "a motion of 0 frames"),
        ],
    )
    def test_bad_files_are_refused(self, tmp_path, change, said):
        path = bvh(tmp_path, walk())
        path.write_text(change(path.read_text()))
        with pytest.raises(InputError, match=said) as error:
            read_motion(path)
        assert "\n" not in str(error.value)

    def test_a_given_frame_rate_mends_a_missing_one(self, tmp_path):
        motion = read_motion(bvh(tmp_path, walk(), time=""), Reading(fps=50.0))
        assert motion.fps == 50
        assert not any(note.startswith("frame rate") for note in motion.notes)


@pytest.mark.parametrize("kind", ["bvh", "trc", "c3d", "npz", "ours", "amass", "features"])
def test_a_given_frame_rate_that_overrules_the_files_own_is_said(tmp_path, kind):
    path, own = overruled(tmp_path, kind)
    motion = read_motion(path, Reading(fps=30.0))
    assert motion.fps == 30
    whose = "HumanML3D's features have" if kind == "features" else "the file says"
    assert f"frame rate: 30 frames/s, as given; {whose} {own:g}" in motion.notes
    same = read_motion(path, Reading(fps=own * 1.0005))
    assert not any("the file says" in note or "features have" in note for note in same.notes)


def overruled(tmp_path, kind):
    """A file and its own frame rate."""
    path = tmp_path / {"features": "a.npy", "c3d": "a.c3d"}.get(kind, "a.npz")
    if kind == "bvh":
        return bvh(tmp_path, walk()), 20
    if kind == "trc":
        return trc(tmp_path, list(TestMarkers.ROWS)), 100
    if kind == "c3d":
        path.write_bytes(c3d(np.arange(24.0).reshape(4, 2, 3) * 40, -1.0, hidden=(2, 1)))
        return path, 50
    if kind == "npz":
        np.savez(path, positions=person().positions.numpy(), fps=120.0, names=NAMES, parents=PARENTS)
    elif kind == "ours":
        write_npz(path, person(fps=120.0))
    elif kind == "amass":
        amass_file(path, np.zeros((5, 156)))
    else:
        np.save(path, features(joints(24).float()).numpy())
    return path, 20 if kind == "features" else 120


def amass_file(path, poses, trans=(0.0, 0, 0.9)):
    poses = np.array(poses, np.float32)
    poses[:, 0] += np.pi / 2  # the body's y up is the world's z
    np.savez(path, poses=poses, trans=np.broadcast_to(trans, (len(poses), 3)), mocap_framerate=120.0)
    return path


@pytest.mark.parametrize("kind", ["bvh", "trc"])
def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path, kind):
    path = bvh(tmp_path, walk()) if kind == "bvh" else trc(tmp_path, list(TestMarkers.ROWS))
    plain = read_motion(path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert torch.equal(read_motion(path).positions, plain.positions)


class TestWorld:
    @pytest.mark.parametrize("up", ["x", "y", "z", "-y", "-z"])
    def test_the_up_axis_is_found(self, tmp_path, up):
        motion = person()
        np.savez(tmp_path / "a.npz", positions=(motion.positions @ upright(up)).numpy(), fps=20.0, names=NAMES, parents=PARENTS)
        again = read_motion(tmp_path / "a.npz")
        assert torch.allclose(again.positions, motion.positions, atol=1e-5)
        assert any(note.startswith(f"up axis: {up}") for note in again.notes)

    def test_who_crawls_does_not_stand(self, tmp_path):
        motion = person()
        prone = motion.positions @ about(0, torch.tensor(torch.pi / 2)).T  # on the belly, the head towards -y
        prone = prone - torch.linspace(0, 1.5, 24)[:, None, None] * torch.tensor([0.0, 1.0, 0.0])
        np.savez(tmp_path / "a.npz", positions=(prone @ upright("y")).numpy(), fps=20.0, names=NAMES, parents=PARENTS)
        again = read_motion(tmp_path / "a.npz")
        assert any("up axis: y, as usual" in note for note in again.notes)
        assert torch.allclose(again.positions, prone, atol=1e-5)

    def test_left_handed_axes_are_refused_and_mirrored_on_request(self, tmp_path):
        motion = person()
        assert mirrored(motion.positions, NAMES) > 0.7
        np.savez(tmp_path / "a.npz", positions=(motion.positions * torch.tensor([-1.0, 1, 1])).numpy(), fps=20.0, names=NAMES)
        with pytest.raises(InputError, match="left-handed"):
            read_motion(tmp_path / "a.npz", Reading(up="z"))
        again = read_motion(tmp_path / "a.npz", Reading(up="z", hand="left"))
        assert torch.allclose(again.positions, motion.positions, atol=1e-6)

    def test_mirroring_a_right_handed_file_is_said_to_contradict_its_names(self, tmp_path):
        motion = person()
        for side, contradicts in ((1.0, True), (-1.0, False)):
            points = motion.positions * torch.tensor([side, 1, 1])
            np.savez(tmp_path / "a.npz", positions=points.numpy(), fps=20.0, names=NAMES)
            again = read_motion(tmp_path / "a.npz", Reading(up="z", hand="left"))
            assert "axes: left-handed, as given; mirrored" in again.notes
            assert any("names contradict the way the toes point" in note for note in again.notes) == contradicts

    def test_a_size_that_no_one_has_is_said_where_units_are_given(self, tmp_path):
        tall, _ = stature(person().positions, NAMES)
        np.savez(tmp_path / "a.npz", positions=person().positions.numpy() * 18, fps=20.0, names=NAMES)
        small = read_motion(tmp_path / "a.npz", Reading(units="inch"))
        assert f"units: inch, as given; the body then measures {tall * 18 * 0.0254:.3g} m" in small.notes
        np.savez(tmp_path / "a.npz", positions=person().positions.numpy() * 100, fps=20.0, names=NAMES)
        assert "units: cm, as given" in read_motion(tmp_path / "a.npz", Reading(units="cm")).notes

    def test_a_given_up_axis_that_the_body_does_not_stand_along_is_said(self, tmp_path):
        motion = person()
        np.savez(tmp_path / "a.npz", positions=(motion.positions @ upright("y")).numpy(), fps=20.0, names=NAMES)
        assert "up axis: y, as given" in read_motion(tmp_path / "a.npz", Reading(up="y")).notes
        for up in ("z", "-y"):
            notes = read_motion(tmp_path / "a.npz", Reading(up=up, hand="right")).notes
            assert any(note.startswith(f"up axis: {up}, as given; but the body stands along y") for note in notes)

    @pytest.mark.parametrize("axes", ["zup", "any"])
    def test_a_leap_within_one_frame_is_said(self, tmp_path, axes):
        points = person().positions.clone()
        points[10:, :, 0] += 30
        points[15:, :, 0] -= 30
        np.savez(tmp_path / "a.npz", positions=points.numpy(), fps=20.0, names=NAMES, parents=PARENTS, axes=axes)
        (said,) = [note for note in read_motion(tmp_path / "a.npz").notes if note.startswith("jumps")]
        assert "moves 30 m from frame 9 to 10 and 1 time more" in said
        np.savez(tmp_path / "a.npz", positions=person().positions.numpy(), fps=20.0, names=NAMES, parents=PARENTS, axes=axes)
        assert not any("jumps" in note for note in read_motion(tmp_path / "a.npz").notes)

    def test_mixed_units_are_refused(self, tmp_path):
        points = person().positions.clone()
        some = points.clone()
        some[10:] *= 1000
        np.savez(tmp_path / "a.npz", positions=some.numpy(), fps=20.0, names=NAMES)
        with pytest.raises(InputError, match="units are mixed"):
            read_motion(tmp_path / "a.npz")
        moved = points + 1000 * (points[:, :1] - points[:1, :1])
        np.savez(tmp_path / "b.npz", positions=moved.numpy(), fps=20.0, names=NAMES)
        with pytest.raises(InputError, match="translation is in another unit"):
            read_motion(tmp_path / "b.npz")
        with pytest.raises(InputError, match="--units m"):
            read_motion(tmp_path / "b.npz", Reading(units="mm"))

    def test_joint_words_of_many_dialects(self):
        for names in (
            "Hips LeftUpLeg LeftLeg LeftFoot LeftToeBase",
            "mixamorig:Hips mixamorig:LeftUpLeg mixamorig:LeftLeg mixamorig:LeftFoot mixamorig:LeftToeBase",
            "pelvis left_hip left_knee left_ankle left_foot",
            "hip lThigh lShin lFoot lToe",
            "Pelvis L_Hip L_Knee L_Ankle L_Foot",
            "SACR LHJC LKNE LANK LTOE",
        ):
            words = names.split()
            assert [parts(words).get(f"left_{p}") for p in ("hip", "knee", "ankle", "toe")] == [1, 2, 3, 4], names


class TestArrays:
    def test_npz_keeps_everything(self, tmp_path):
        motion = person().noted(contacts=torch.rand(24, 4) > 0.5, contact_joints=(7, 10, 8, 11), floor=0.02)
        again = read_motion(write_npz(tmp_path / "a.npz", motion))
        assert torch.equal(again.positions, motion.positions)
        assert torch.equal(again.contacts, motion.contacts)
        assert (again.names, again.parents, again.fps, again.floor) == (NAMES, PARENTS, 20.0, pytest.approx(0.02))

    def test_amass(self, tmp_path):
        poses = np.zeros((5, 156), np.float32)
        poses[:, :3] = (np.pi / 2, 0, 0)  # the body's y up is the world's z
        np.savez(
            tmp_path / "a.npz", poses=poses, trans=np.tile([1.0, 2, 0.9], (5, 1)), betas=np.ones(16), mocap_framerate=120.0
        )
        motion = read_motion(tmp_path / "a.npz")
        assert motion.fps == 120
        assert motion.names[22] == "left_hand"
        wanted = torch.tensor([1.0, 2, 0.9]) + OFFSETS[1] @ upright("y").T
        assert torch.allclose(motion.joint("left_hip")[0], wanted, atol=1e-5)
        assert any("betas are not used" in note for note in motion.notes)

    def test_poses_in_degrees_are_refused(self, tmp_path):
        poses = np.random.default_rng(0).normal(size=(5, 156)) * 0.5
        read_motion(amass_file(tmp_path / "a.npz", poses))
        poses[:, :6] = 30.0  # the root and one joint wind
        read_motion(amass_file(tmp_path / "a.npz", poses))
        with pytest.raises(InputError, match=r"a\.npz: .* look like degrees: write radians"):
            read_motion(amass_file(tmp_path / "a.npz", np.rad2deg(poses)))

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (np.zeros((5, 22, 2)), "no motion"),
            (np.zeros((0, 263)), "0 frames"),
            (np.zeros((2, 5, 22, 3)), "a batch"),
            (np.zeros((5, 66)), "SMPL poses"),
            (np.zeros((0, 22, 3)), "0 frames"),
            (np.ones((1, 22, 3)), "1 frame does not move"),
            (np.full((5, 22, 3), np.nan), "not finite"),
            (np.zeros((5, 22, 3)), "one point"),
            (np.zeros((5, 19, 3)), "19 joints of an unknown layout.*17, HumanML3D's 22, SMPL's 24.*names and parents.*--fps"),
            (np.ones((5, 24, 3)), "--fps"),
            (np.array([["a"]]), "not numbers"),
            (np.array([{}]), "allow_pickle=False"),
        ],
    )
    def test_bad_arrays_are_refused(self, tmp_path, content, said):
        np.save(tmp_path / "a.npy", content)
        with pytest.raises(InputError, match=said):
            read_motion(tmp_path / "a.npy")

    def test_unknown_layouts_are_refused_with_and_without_a_frame_rate(self, tmp_path):
        points = np.random.default_rng(0).normal(size=(5, 19, 3))
        np.save(tmp_path / "a.npy", points)
        with pytest.raises(InputError, match=r"a\.npy: 19 joints of an unknown layout.*names and parents$"):
            read_motion(tmp_path / "a.npy", Reading(fps=30))
        for further, said in (({}, "give the frame rate"), ({"fps": 30.0}, "names and parents$")):
            np.savez(tmp_path / "b.npz", positions=points, **further)
            with pytest.raises(InputError, match=f"19 joints of an unknown layout.*{said}"):
                read_motion(tmp_path / "b.npz")

    def test_bad_files_are_refused(self, tmp_path):
        path = tmp_path / "a.npz"
        cases = [
            (b"", "empty"),
            (b"\x80\x04.", "pickle"),
            (b"hello", "no known motion format"),
            (b"PK\x03\x04broken", "readable"),
            (b"\x93NUMPY\x01\x00v\x00{'descr'", "readable"),
        ]
        for content, said in cases:
            path.write_bytes(content)
            with pytest.raises(InputError, match=said):
                read_motion(path)
        with pytest.raises(InputError, match="no such file"):
            read_motion(tmp_path / "none.bvh")
        np.savez(path, poses=np.zeros((4, 10)), trans=np.zeros((4, 3)))
        with pytest.raises(InputError, match="156"):
            read_motion(path)
        np.savez_compressed(path, positions=np.zeros((1 << 27) + 1))
        with pytest.raises(InputError, match="unpacks to"):
            read_motion(path)


def trc(tmp_path, rows, units="mm", frames=None, names=("L_knee", "L_ankle")):
    head = ["PathFileType\t4\t(X/Y/Z)\ta.trc", "DataRate\tCameraRate\tNumFrames\tNumMarkers\tUnits"]
    head += [
        f"100\t100\t{frames or len(rows)}\t{len(names)}\t{units}",
        "Frame#\tTime\t" + "\t\t\t".join(names) + "\t\t",
        "\t\tX1\tY1\tZ1",
        "",
    ]
    path = tmp_path / "a.trc"
    path.write_text("\n".join(head + rows) + "\n")
    return path


class TestMarkers:
    ROWS = ("1\t0.00\t0\t500\t0\t0\t80\t0", "2\t0.01\t10\t500\t0\t\t\t", "3\t0.02\t20\t500\t0\t20\t80\t0")

    def test_trc_with_a_hidden_marker(self, tmp_path):
        motion = read_motion(trc(tmp_path, list(self.ROWS)))
        assert motion.kind == "markers"
        assert not motion.bones
        assert motion.fps == 100
        assert motion.visible.tolist() == [[True, True], [True, False], [True, True]]
        assert torch.allclose(motion.joint("L_ankle")[1], torch.tensor([0.01, 0.0, 0.08])), "interpolated"
        assert any("hidden at times" in note for note in motion.notes)

    def test_bad_trc(self, tmp_path):
        for rows, further, said in (
            (self.ROWS, {"frames": 9}, "header says 9 frames"),
            (self.ROWS, {"units": "parsec"}, "unknown units 'parsec'"),
            (self.ROWS[::-1], {}, "times do not rise"),
            (("1\t0\tx\t0\t0\t1\t1\t1",), {}, "no number"),
            (self.ROWS, {"names": ("a", "b", "c", "d")}, "numbers, 14 are wanted|never|NaN|cut"),
        ):
            if "names" in further:
                continue
            with pytest.raises(InputError, match=said):
                read_motion(trc(tmp_path, list(rows), **further))

    def test_frames_without_markers_at_the_ends_are_cut(self, tmp_path):
        rows = ["0\t-0.01\t\t\t\t\t\t", *self.ROWS, "4\t0.03\t\t\t\t\t\t"]
        motion = read_motion(trc(tmp_path, rows))
        assert len(motion) == 3
        assert motion.notes[0] == "frames 1 to 3 of 5 are kept: in the others most markers are hidden"

    def test_gaps_are_filled_in_time(self):
        points, seen = (
            torch.arange(6.0)[:, None, None].expand(6, 1, 3).clone(),
            torch.tensor([0, 1, 0, 0, 1, 0]).bool()[:, None],
        )
        found = filled(torch.where(seen[..., None], points, torch.nan).nan_to_num(), seen)
        assert found[:, 0, 0].tolist() == [1, 1, 2, 3, 4, 4]

    def test_vax_reals(self):
        value = np.array([1.5, -0.0625, 3.25e4], np.float32)
        words = (value * 4).view("<u2").reshape(-1, 2)[:, ::-1].copy()
        assert reals(words.tobytes(), 85).tolist() == value.tolist()
        assert reals(value.astype(">f4").tobytes(), 86).tolist() == value.tolist()

    @pytest.mark.parametrize("scale", [0.1, -1.0])
    def test_c3d_integers_and_reals(self, tmp_path, scale):
        path = tmp_path / "a.c3d"
        points = np.arange(24).reshape(4, 2, 3) * 10.0
        path.write_bytes(c3d(points, scale, hidden=(2, 1)))
        file = open_c3d(path)
        assert file.rate == 50
        assert file.labels == ["LKNE", "LANK"]
        assert np.isnan(file.points[2, 1]).all()
        seen = np.isfinite(file.points)
        assert np.allclose(file.points[seen], points[seen], atol=1e-6)
        path.write_bytes(path.read_bytes()[:1540])
        with pytest.raises(InputError, match="cut short"):
            open_c3d(path)


PLATE = np.array([[0.6, 0.4, 0], [0, 0.4, 0], [0, 0, 0], [0.6, 0, 0]]) * 1000
"""Corners [mm] of a plate whose x and y are the world's."""
FORCE, POINT = np.array([30.0, -20, 700]), np.array([0.1, -0.05])


def plate_channels(kind, origin):
    """What a plate shows for FORCE at POINT [m] from its centre, sensors at ``origin`` below: channels in N and N mm."""
    at = np.array([*POINT, 0.0]) * 1000
    if kind == 1:
        return np.array([*FORCE, *at[:2], 0.0])
    if kind == 3:  # four sensors at (+-a, +-b), a0 below: loads shared so that force and moment come out
        a, b, below = origin
        x, y, z = FORCE
        moment = np.cross(at + np.array([0, 0, below]), FORCE)  # about the centre of the sensors
        sums = np.array([[1, 1, 1, 1], [b, b, -b, -b], [-a, a, a, -a], [1, -1, 1, -1]])
        verticals = np.linalg.solve(sums, [z, moment[0], moment[1], 0])
        twist = moment[2] / (2 * b)
        return np.array([x / 2 - twist, x / 2 + twist, y / 2, y / 2, *verticals])
    return np.array([*FORCE, *np.cross(at + origin, FORCE)])


@pytest.mark.parametrize("kind", [1, 2, 3, 4])
@pytest.mark.parametrize("sign", [1, -1])
def test_force_plates_give_the_force_on_the_body_and_where(tmp_path, kind, sign):
    origin = np.array([250.0, 150, -40]) if kind == 3 else np.array([3.0, -2, -40])
    channels = plate_channels(kind, origin)
    matrix = None
    if kind == 4:
        matrix = np.diag([2.0, 2, 10, 500, 500, 200]) + 0.01
        channels = np.linalg.solve(matrix, channels)
    points = np.zeros((4, 2, 3))
    points[:, 0], points[:, 1] = (0, 0, 500), (0, 0, 80)
    flip = np.where(np.isin(np.arange(len(channels)), (3, 4)) & (kind == 1), 1, sign)  # a place has no sign
    path = tmp_path / "a.c3d"
    path.write_bytes(c3d(points, -1.0, hidden=(3, 0), plate=(kind, channels * flip, origin, matrix)))
    motion = read_motion(path)
    (plate,) = motion.plates
    assert plate.fps == 100
    assert torch.allclose(plate.force, torch.from_numpy(FORCE).float().expand(8, 3), atol=1e-2)
    wanted = torch.tensor([0.3 + POINT[0], 0.2 + POINT[1], 0.0]).float()
    assert torch.allclose(plate.centre, wanted.expand(8, 3), atol=1e-4)
    assert any("those on the plates" in note for note in motion.notes) == (sign < 0)


def c3d(points, scale, hidden, plate=None):
    """The bytes of a small Intel C3D file, with a force plate (type, channels, origin, matrix) sampled twice per frame."""
    frames, count = points.shape[:2]

    def parameter(group, name, kind, shape, body):
        inner = struct.pack("bB", kind, len(shape)) + bytes(shape) + body + b"\0"
        return struct.pack("bb", len(name), group) + name + struct.pack("<h", len(inner) + 2) + inner

    text = parameter(1, b"LABELS", -1, (4, 2), b"LKNELANK") + parameter(1, b"UNITS", -1, (2,), b"mm")
    numbers = parameter(1, b"SCALE", 4, (), struct.pack("<f", scale)) + parameter(1, b"RATE", 4, (), struct.pack("<f", 50))
    group = struct.pack("bb", 5, -1) + b"POINT" + struct.pack("<hB", 3, 0)
    channels = () if plate is None else plate[1]
    if plate is not None:
        kind, _, origin, matrix = plate
        used = len(channels)

        def reals(values):
            return np.asarray(values).astype("<f4").tobytes(order="F")

        def words(*values):
            return struct.pack(f"<{len(values)}h", *values)

        group += struct.pack("bb", 6, -2) + b"ANALOG" + struct.pack("<hB", 3, 0)
        group += struct.pack("bb", 14, -3) + b"FORCE_PLATFORM" + struct.pack("<hB", 3, 0)
        numbers += parameter(2, b"USED", 2, (), words(used)) + parameter(2, b"GEN_SCALE", 4, (), struct.pack("<f", 1))
        numbers += parameter(2, b"SCALE", 4, (used,), reals([2.0] * used)) + parameter(
            2, b"OFFSET", 2, (used,), words(*[5] * used)
        )
        numbers += parameter(3, b"USED", 2, (), words(1)) + parameter(3, b"TYPE", 2, (1,), words(kind))
        numbers += parameter(3, b"CHANNEL", 2, (used, 1), words(*range(1, used + 1)))
        numbers += parameter(3, b"CORNERS", 4, (3, 4, 1), np.asarray(PLATE).astype("<f4").tobytes())
        numbers += parameter(3, b"ORIGIN", 4, (3, 1), reals(origin))
        numbers += b"" if matrix is None else parameter(3, b"CAL_MATRIX", 4, (6, 6, 1), matrix.T.astype("<f4").tobytes())
    size = 1024
    section = (bytes([0, 0, 2, 84]) + group + text + numbers).ljust(size, b"\0")
    head = struct.pack("<BBHHHHHfHHf", 2, 0x50, count, 2 * len(channels), 1, frames, 0, scale, 4, 2, 50.0).ljust(512, b"\0")
    body = np.zeros((frames, count, 4))
    body[..., :3] = points / (scale if scale > 0 else 1)
    body[hidden][3] = -1
    table = np.concatenate((body.reshape(frames, -1), np.tile(np.asarray(channels) / 2 + 5, (frames, 2))), axis=1)
    return head + section + (table.round() if scale > 0 else table).astype("<i2" if scale > 0 else "<f4").tobytes()


@pytest.mark.parametrize("kind", ["bvh", "trc", "c3d", "npy", "npz"])
def test_damaged_files_are_refused_or_read_but_never_crash(kind, tmp_path):
    """Bytes lost, changed or doubled: an `InputError` of one line, or a motion."""
    motion = person(8)
    if kind == "bvh":
        path = write_bvh(tmp_path / "a.bvh", motion)
    elif kind == "npz":
        path = write_npz(tmp_path / "a.npz", motion)
    elif kind == "npy":
        path = tmp_path / "a.npy"
        np.save(path, motion.positions.numpy())
    elif kind == "c3d":
        path = tmp_path / "a.c3d"
        path.write_bytes(c3d(np.arange(24.0).reshape(4, 2, 3) * 40, -1.0, hidden=(2, 1)))
    else:
        path = trc(tmp_path, list(TestMarkers.ROWS))
    whole, chance = path.read_bytes(), np.random.default_rng(0)
    told = []
    for trial in range(60):
        damaged = bytearray(whole)
        at = int(chance.integers(len(whole)))
        if trial % 3 == 0:
            damaged = damaged[:at]
        elif trial % 3 == 1:
            for place in chance.integers(min(len(whole), 3000), size=5):
                damaged[place] = int(chance.integers(256))
        else:
            damaged[at:at] = damaged[at : at + 50]
        path.write_bytes(damaged)
        try:
            assert bool(read_motion(path).positions.isfinite().all())
        except InputError as error:
            told.append(str(error))
    assert len(told) > 20
    assert not [sentence for sentence in told if "\n" in sentence]


@pytest.mark.real
class TestReal:
    @pytest.mark.parametrize(
        ("name", "frames", "fps", "said"),
        [
            ("ad_jumping.bvh", 654, 119.88, "up axis: z, because"),
            ("ad_zombie.bvh", 779, 30.0, "scaled to 1.70 m"),
            ("cmu_01_01.bvh", 2752, 120.0, "units: cmu"),
            ("dme_demo_3d_1_raw.bvh", 48, 30.0, "units: cmu"),
            ("s4_DJ1.trc", 269, 100.0, "units: m"),
            ("bmc_Gait.c3d", 194, 100.0, "frames 133 to 326 of 487"),
            ("humanml3d_012314_joints.npy", 170, 20.0, "HumanML3D"),
            ("humanml3d_012314_vecs.npy", 170, 20.0, "263 features"),
        ],
    )
    def test_files_are_people(self, real, name, frames, fps, said):
        motion = read_motion(real / "motion" / name)
        assert len(motion) == frames
        assert motion.fps == pytest.approx(fps, rel=1e-3)
        assert any(said in note for note in motion.notes)
        heights = motion.positions[..., 2]
        assert 1.2 < float((heights.amax(1) - heights.amin(1)).median()) < 2.0, "a person stands"

    def test_rotations_give_the_joints(self, real, tmp_path):
        motion = read_motion(real / "motion" / "dme_demo_3d_2_raw.bvh")
        offsets = motion.rest.expand(len(motion), -1, -1).clone()
        offsets[:, 0] = motion.positions[:, 0]
        assert torch.allclose(forward_kinematics(motion.rotations, offsets, motion.parents)[0], motion.positions, atol=1e-5)
        again = read_motion(write_bvh(tmp_path / "a.bvh", motion))
        assert again.names == motion.names
        assert torch.allclose(again.positions, motion.positions, atol=1e-5)

    def test_the_walk_has_left_and_right_exchanged(self, real):
        path = real / "motion" / "bmc_walk1.trc"
        with pytest.raises(InputError, match="left is right"):
            read_motion(path)
        assert len(read_motion(path, Reading(hand="right"))) == 364

    def test_force_plates(self, real):
        plates = read_motion(real / "motion" / "bmc_Gait.c3d").plates
        assert len(plates) == 2
        assert all(plate.fps == 1000 for plate in plates)
        for plate in plates:
            assert 600 < float(plate.force[:, 2].max()) < 1000
            assert float(plate.force[:, 2].min()) > -20
            low, high = plate.corners.amin(0), plate.corners.amax(0)
            loaded = plate.centre[plate.force[:, 2] > 100]
            assert bool(((loaded[:, :2] >= low[:2] - 0.02) & (loaded[:, :2] <= high[:2] + 0.02)).all()), "on the plate"
        walk = read_forces(real / "motion" / "bmc_walk1.forces")
        assert len(walk) == 7
        assert len(walk[0].force) == 1092
        assert 600 < float(sum(plate.force[:, 2] for plate in walk).max()) < 1500


@pytest.mark.parametrize("axes", [{}, {"axes": "zup"}])
def test_bodies_beyond_single_precision_are_refused(axes, tmp_path):
    """A millimetre is the least that shows: at 1000 km single precision knows 6 cm."""
    people = forward_kinematics(torch.eye(3).expand(4, 24, 3, 3), OFFSETS.expand(4, -1, -1), SMPL)[0].numpy()[:, :22]
    names = {"names": np.array(NAMES), "parents": np.array(PARENTS)}
    np.savez(tmp_path / "far.npz", positions=people + np.array([1e6, 0, 0]), fps=20.0, **names, **axes)
    with pytest.raises(InputError, match=r"1e\+06 m from the origin; beyond 10000 m"):
        read_motion(tmp_path / "far.npz")


@pytest.mark.parametrize("rate", ["unknown", []])
def test_frame_rates_that_are_no_numbers_are_none(rate, tmp_path):
    np.savez(tmp_path / "a.npz", positions=joints(6).numpy(), names=np.array(NAMES), parents=np.array(PARENTS), fps=rate)
    assert read_motion(tmp_path / "a.npz", Reading(fps=20.0)).fps == 20
    with pytest.raises(InputError, match="holds no fps"):
        read_motion(tmp_path / "a.npz")


def test_motions_without_frames_are_told_in_every_format(tmp_path):
    names = {"names": np.array(NAMES), "parents": np.array(PARENTS), "fps": 20.0}
    for axes in ({}, {"axes": "zup"}):
        np.savez(tmp_path / "a.npz", positions=np.zeros((0, 22, 3), np.float32), **names, **axes)
        with pytest.raises(InputError, match="a motion of 0 frames"):
            read_motion(tmp_path / "a.npz")


def test_a_leap_from_a_rest_pose_is_left_to_who_cuts_it():
    still = joints(8)
    assert jumps(still, 20.0) == []
    away = still.clone()
    away[0] += 30.0
    assert jumps(away, 20.0) == []
    spliced = still.clone()
    spliced[4:] += 100.0
    assert "from frame 3 to 4, faster" in jumps(spliced, 20.0)[0]


def test_the_format_knows_which_way_is_up(tmp_path):
    """HumanML3D's features have y up, also of who lies: nothing is wrong then."""
    lying = joints(30)[..., [0, 2, 1]]
    np.save(tmp_path / "a.npy", features(lying.float()).numpy())
    assert "up axis: y, by the format" in read_motion(tmp_path / "a.npy").notes
