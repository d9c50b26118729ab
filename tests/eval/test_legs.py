"""Torques of legs from markers without names: a drawn walker whose torques are known, and a recorded one."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import roma
import torch

from visviva.errors import InputError
from visviva.eval.motion.legs import NAMES, legs
from visviva.physics.bodies.markers import rigid_groups
from visviva.physics.dynamics import place
from visviva.physics.kinematics import projection

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from stride import CLEAR, LATEST, LEFT, RIGHT, compared, delayed, late_by_root, recorded, recorded_root
from stride_model import explained, recording

REAL = Path(os.environ.get("VISVIVA_REAL", Path(__file__).parents[3] / "shared" / "real")) / "motion"
STRIDE, MODEL = "bioptim_gait_emg_grf_tau.npz", "wholebody_model.bioMod"
WIDTH, DEPTH = 0.25, 0.17
SPINES = torch.tensor([[0, 0.125, 0], [0, -0.125, 0], [-0.17, 0.05, 0], [-0.17, -0.05, 0]], dtype=torch.float64)


def walker(frames=100, turn=0.0):
    """Markers of a walker on the spot that faces ``turn`` [rad], in mixed order, and the seven links of each marker."""
    time = torch.arange(frames, dtype=torch.float64) / 100
    hip = torch.tensor([-0.24 * DEPTH - 0.0099, 0.33 * WIDTH + 0.0073, -0.30 * WIDTH - 0.0109], dtype=torch.float64)
    markers, links = [SPINES.expand(frames, 4, 3)], [0] * 4
    for side, (sign, phase) in enumerate(((1, 0.0), (-1, torch.pi))):
        wave = 2 * torch.pi * time + phase
        angles = [0.45 * wave.sin() + 0.15, -0.6 - 0.5 * (wave + 0.8).cos(), 0.45 + 0.45 * (wave + 0.4).cos()]
        angle, at = torch.zeros(frames, dtype=torch.float64), (hip * torch.tensor([1.0, sign, 1.0])).expand(frames, 3)
        shapes = (
            (0.42, [[0, 0.05, -0.1], [0.04, 0.06, -0.2], [0, 0.05, -0.41], [0, -0.05, -0.41]]),
            (0.40, [[0.03, 0.0, -0.1], [0.04, 0.03, -0.2], [0, 0.04, -0.39], [0, -0.04, -0.39]]),
            (0.0, [[-0.06, 0.0, -0.05], [0.14, 0.04, -0.06], [0.12, -0.05, -0.06], [0.07, 0.0, -0.02]]),
        )
        for level, (bend, (length, shape)) in enumerate(zip(angles, shapes, strict=True)):
            angle = angle + bend
            rotation = roma.rotvec_to_rotmat(-angle[:, None] * torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64))
            markers.append(at[:, None] + torch.tensor(shape, dtype=torch.float64) @ rotation.mT)
            links += [1 + 3 * side + level] * 4
            at = at + rotation @ torch.tensor([0.0, 0.0, -length], dtype=torch.float64)
    face = roma.rotvec_to_rotmat(torch.tensor([0.0, 0.0, turn], dtype=torch.float64))
    order = torch.randperm(len(links), generator=torch.Generator().manual_seed(1))
    whole = torch.cat(markers, 1) + torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    return (whole @ face.T)[:, order], torch.tensor(links)[order]


@pytest.mark.parametrize("turn", [0.0, 2.5])
def test_a_walker_is_found_whatever_way_he_faces(turn):
    markers, links = walker(turn=turn)
    found = legs(markers, 70.0)
    assert {name: sorted(group) for name, group in found.groups.items()} == {
        name: (links == k).nonzero()[:, 0].tolist() for k, name in enumerate(NAMES)
    }
    assert found.body.total_mass == pytest.approx(70)
    assert float((place(found.body, found.q).position[:, 1:] - found.joints).norm(dim=-1).max()) < 2e-3
    bones = (found.joints[:, [1, 2, 4, 5]] - found.joints[:, [0, 1, 3, 4]]).norm(dim=-1)
    assert torch.allclose(bones, torch.tensor([0.42, 0.40, 0.42, 0.40], dtype=torch.float64).expand_as(bones), atol=2e-3)


def test_a_force_turns_joints_by_its_lever():
    """Two forces differ by 100 N upwards, 0.1 m before the left ankle: torques differ by 100 N times the levers."""
    markers, _ = walker()
    found = legs(markers, 70.0)
    centre = torch.stack([found.joints[:, 2], found.joints[:, 5]], 1) + torch.tensor([0.1, 0.0, 0.0])
    force = torch.zeros_like(centre)
    one, frames = found.torques(100.0, force, centre)
    force[:, 0, 2] = 100.0
    other, _ = found.torques(100.0, force, centre)
    joint = found.joints[frames.start : frames.stop, :3, 0]
    lever = centre[frames.start : frames.stop, :1, 0] - joint
    assert torch.allclose((other - one)[:, 0], -100 * lever, atol=0.5)
    assert float((other - one)[:, 1].abs().max()) < 1e-9
    assert one.shape == (len(frames), 2, 3)
    assert 5 < float(one[:, :, 0].abs().max()) < 100, "swinging legs need some torque at the hips"


def test_what_has_no_legs_is_refused():
    markers, links = walker()
    with pytest.raises(InputError, match="pelvis and legs are seven"):
        legs(markers[:, links < 4], 70.0)
    with pytest.raises(InputError, match="for 100 frames"):
        legs(markers, 70.0).torques(100.0, torch.zeros(5, 2, 3), torch.zeros(5, 2, 3))


@pytest.mark.parametrize("frames", [0, 3])
def test_late_forces_are_seen_on_the_root(frames):
    """Torques made with forces of three frames before leave the difference on the root; on time nothing is clear."""
    rng = torch.Generator().manual_seed(0)
    rise = torch.randn(106, 2, 9, generator=rng, dtype=torch.float64).cumsum(0)
    total = rise[..., 8].sum(1)
    left = total - delayed(total, frames) + 0.1 * torch.randn(106, generator=rng, dtype=torch.float64)
    r = late_by_root(left, rise)
    assert (int(np.argmax(r)) if max(r) > CLEAR else 0) == frames


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason="no real recordings; set VISVIVA_REAL")
def test_a_recorded_stride_has_the_recorded_torques():
    """Each joint's r > .8 with forces as late as the root's row, which is not compared, says; no lag of everything does it."""
    markers, wrench, torque = recorded(REAL / STRIDE)
    found = legs(markers, mass=float(wrench[..., 8].sum(1).mean()) / 9.81)
    assert len(rigid_groups(markers)) == 10, "two arms, trunk with head, pelvis, two legs of three"
    says = late_by_root(recorded_root(REAL / STRIDE), wrench)
    frames = int(np.argmax(says))
    assert frames in (5, 6)
    assert says[frames] > 0.85
    late = compared(found, wrench, torque, frames)
    assert min(min(side) for side in late["r"]) > 0.83
    assert late["pooled_r"] > 0.88
    assert all(0.8 < slope < 1.2 for side in late["slope"] for slope in side)
    here = compared(found, wrench, torque, frames, centres_late=False)
    assert min(min(side) for side in here["r"]) > 0.8
    measured = compared(found, wrench, torque)
    assert 0.6 < measured["r"][0][1] < 0.7, "the left knee differs most where forces are not late"
    rivals = [compared(found, wrench, torque, all_late=d)["r"] for d in range(9)]
    assert all(min(row[0][:2] + row[1][:1]) < 0.8 for row in rivals), "a lag of everything does not explain it"


@pytest.mark.real
@pytest.mark.skipif(not (REAL / MODEL).is_file(), reason=f"no {MODEL} (bioptim/examples/models) beside the recordings")
def test_a_recorded_stride_has_the_torques_of_the_wrenches_that_made_them():
    """The stride's own model explains 18 rows by 12 unknowns; with wrenches found without the compared rows, r > .88."""
    markers, wrench, torque = recorded(REAL / STRIDE)
    found = legs(markers, mass=float(wrench[..., 8].sum(1).mean()) / 9.81)
    says, used = explained(recording(REAL / STRIDE, REAL / MODEL), wrench, [*LEFT, *RIGHT], LATEST)
    assert says["left_rms"]["of rows that see the feet"] < 0.1, "N m and N, of torques up to 170 N m"
    assert says["left_rms"]["of the others"] < 0.3
    assert max(says["left_of_compared_rows_rms"]) < 4
    assert max(range(LATEST + 1), key=lambda d: sum(says["vertical_r_by_delay"][d])) in (5, 6)
    assert min(says["vertical_r_by_delay"][5]) > 0.99
    off = says["centre_of_pressure_off_mm"]
    assert off["now"] < 12 < 40 < off["5 frames before"]
    same = compared(found, used, torque)
    assert min(min(side) for side in same["r"]) > 0.88
    assert same["pooled_r"] > 0.93


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason="no real recordings; set VISVIVA_REAL")
def test_the_recorded_forces_fit_the_markers_and_the_recorded_pelvis_does_not():
    """Plates are on time with the markers, at no delay; the recorded pelvis pitches ten times as far as its markers."""
    markers, wrench, _ = recorded(REAL / STRIDE)
    found = legs(markers, mass=64.6)
    share = {"thigh": 0.145, "shank": 0.046, "foot": 0.013}
    heavy = {name: share[name.split("_")[1]] for name in NAMES[1:]}
    centre = sum(weight * markers[:, found.groups[name]].mean(1) for name, weight in heavy.items())
    above = [k for k in range(75) if not any(k in found.groups[name] for name in heavy)]
    centre = centre + (1 - sum(heavy.values())) * markers[:, above].mean(1)
    gain = centre[:, 2].unfold(0, 11, 1) @ torch.as_tensor(projection(11, 2)[0][2])
    force = wrench[:, :, 8].sum(1)
    pairs = [torch.stack([gain[8:-8], force[13 + shift : 93 + shift]]) for shift in range(-8, 9)]
    r = [float(torch.corrcoef(pair)[0, 1]) for pair in pairs]
    assert r[8] > 0.95
    assert abs(r.index(max(r)) - 8) <= 1
    spines = markers[:, found.groups["pelvis"]][:, :4]
    line = spines[:, :2].mean(1) - spines[:, 2:].mean(1)
    pitch = torch.atan2(line[:, 2], line[:, :2].norm(dim=-1))
    said = torch.from_numpy(np.load(REAL / STRIDE, allow_pickle=False)["q_exp"][3])
    assert float(pitch.max() - pitch.min()) < 0.1
    assert float(said.max() - said.min()) > 0.4
