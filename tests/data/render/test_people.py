"""Skeletons, segments and skins as figures: they lie where joints, masses and the body model's own vertices are."""

from __future__ import annotations

import math

import pytest
import torch
from test_camera import walk

from visviva.data.bodies import body_of, configurations, read_smpl, write_test_model
from visviva.data.motions.motion import HumanMotion
from visviva.data.render import Camera, render, segments, skeleton, skinned, view
from visviva.data.render.people import COLOURS
from visviva.errors import InputError
from visviva.physics.bodies import mesh_inertia
from visviva.physics.dynamics import place

SIZE = (96, 96)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "smpl.npz"
    write_test_model(path)
    return read_smpl(path)


@pytest.mark.parametrize("name", ["front", "side"])
def test_every_joint_that_is_seen_lies_inside_what_is_drawn_of_it(name):
    motion = walk(frames=3)
    figure = skeleton(motion)
    camera = view(motion, name, SIZE, figure).over(3)
    found = render(figure, camera, SIZE)
    pixels, depth = camera.project(motion.positions, SIZE)
    column, row = pixels.long().unbind(-1)
    frame = torch.arange(3)[:, None]
    assert bool(found.mask[frame, 0, row, column].all())
    gap = depth - found.depth[frame, row, column]  # of a joint behind the surface that is seen: none lies before it
    assert float(gap.min()) > 0.0
    seen = [(k, found.names.index(motion.names[k])) for k in range(1, 24)]
    own = sum(int((found.label[:, row[0, k] - 1 : row[0, k] + 2, column[0, k] - 1 : column[0, k] + 2] == part)[0].any())
              for k, part in seen)  # fmt: skip
    assert own >= 10  # the others are hidden by their neighbours


def test_left_is_blue_and_on_the_right_of_a_picture_from_the_front():
    motion = walk(frames=2)
    figure = skeleton(motion)
    found = render(figure, view(motion, "front", SIZE, figure), SIZE)
    left = torch.stack([found.masks[:, k] for k, name in enumerate(found.names) if name.startswith("left")]).any(0)
    right = torch.stack([found.masks[:, k] for k, name in enumerate(found.names) if name.startswith("right")]).any(0)
    centre = [float(side[0].nonzero()[:, 1].float().mean()) for side in (left, right)]
    assert centre[0] > centre[1] + 8
    blue = found.frames.movedim(1, -1)[left].mean(0)
    assert float(blue[2]) > 1.5 * float(blue[0])
    assert figure.colours[figure.faces[figure.part == found.names.index("left_knee")][0, 0]].tolist() == pytest.approx(
        COLOURS["left"]
    )


def test_markers_are_balls_and_thickness_scales():
    motion = walk(frames=2)
    markers = HumanMotion(motion.positions, motion.names, (-1,) * 24, 20.0, kind="markers")
    figure = skeleton(markers)
    assert figure.names == motion.names
    corners = figure.vertices.unflatten(1, (24, -1))
    radius = (corners - motion.positions[:, :, None]).norm(dim=-1)
    assert 0.01 < float(radius.min()) <= float(radius.max()) < 0.03
    wide = []
    for thickness in (0.3, 1.0):
        body = skeleton(motion, thickness)
        skull = body.vertices[0, body.faces[body.part == body.names.index("skull")].unique()]
        wide.append(skull.amax(0) - skull.amin(0))
    assert torch.allclose(wide[0], 0.3 * wide[1], atol=1e-5)
    assert 0.17 < float(wide[1][2]) < 0.22
    with pytest.raises(InputError, match="a thickness of 0"):
        skeleton(motion, 0.0)


def test_segments_have_the_inertia_of_their_body():
    """Each ellipsoid filled with its link's mass, integrated over its triangles, has the link's inertia and centre."""
    motion = walk(frames=2)
    body = body_of(motion, mass=70.0)
    q = configurations(motion, body)
    figure = segments(body, q)
    placed = place(body, q)
    assert len(figure.names) == 16
    for part, name in enumerate(figure.names):
        link = body.names.index(name)
        faces = figure.faces[figure.part == part]
        used = faces.unique()
        local = torch.searchsorted(used, faces)
        points = (figure.vertices[1, used] - placed.position[1, link]) @ placed.rotation[1, link]
        mass, com, inertia = mesh_inertia(
            points, local, torch.ones(len(used), 1).double(), torch.zeros(1, 3).double(), (-1,), (name,), density=1.0
        )
        assert torch.allclose(com[0], body.com[link], atol=1e-3)
        assert torch.allclose(inertia[0] / mass[0], body.inertia[link] / body.mass[link], rtol=0.03, atol=2e-5)


def test_segments_refuse_another_bodys_configurations():
    motion = walk(frames=2)
    body = body_of(motion, mass=70.0)
    with pytest.raises(InputError, match=r"\(frames, \d+\) is wanted for this body"):
        segments(body, torch.zeros(2, 5))


@pytest.mark.parity
def test_skins_are_those_of_the_smplx_package_with_the_pelvis_where_the_motion_has_it(model):
    pytest.importorskip("smplx")
    motion = walk(frames=3, towards=0.5)
    betas = torch.tensor([0.5, -1.0])
    figure = skinned(model, motion, betas)
    module = model.smplx(num_betas=2, batch_size=3)
    turns = motion.rotations
    out = module(
        betas=betas.expand(3, 2), global_orient=turns[:, :1], body_pose=turns[:, 1:], transl=motion.positions[:, 0],
        pose2rot=False,
    )  # fmt: skip
    moved = figure.vertices - figure.vertices.mean(1, keepdim=True)
    theirs = out.vertices.detach()
    assert torch.allclose(moved, theirs - theirs.mean(1, keepdim=True), atol=1e-5)
    joints = model.regressor @ figure.vertices[0]
    assert float((joints[0] - motion.positions[0, 0]).norm()) < 0.02


def test_joints_alone_move_the_skin_too(model):
    motion = walk(frames=3, towards=0.5)
    bare = HumanMotion(motion.positions[:, :22], motion.names[:22], motion.parents[:22], 20.0)
    one, other = skinned(model, motion), skinned(model, bare)
    assert float((one.vertices - other.vertices).norm(dim=-1).mean()) < 0.01
    lowest = skinned(model, bare).ground()
    assert lowest == pytest.approx(float(one.vertices[..., 2].min()), abs=0.02)


def test_motions_that_no_model_can_follow_are_refused(model):
    motion = walk(frames=2)
    other = HumanMotion(motion.positions[:, :5], motion.names[:5], motion.parents[:5], 20.0, source="five.bvh")
    with pytest.raises(InputError, match=r"five.bvh has 5 joints that are not SMPL's .* draw its skeleton"):
        skinned(model, other)


def test_a_skin_in_a_picture_stands_on_the_floor(model):
    motion = walk(frames=1 + 1)
    figure = skinned(model, motion)
    camera = Camera.look_at(torch.tensor([4.5, 0.0, 1.0]), torch.tensor([0.0, 0.0, 0.9]), math.radians(35))
    found = render(figure, camera, SIZE)
    rows = found.mask[0, 0].any(1).nonzero()[:, 0]
    top, bottom = (camera.project(torch.tensor([[[0.0, 0.0, z]]]), SIZE)[0][0, 0, 1] for z in
                   (float(figure.vertices[0, :, 2].max()), 0.0))  # fmt: skip
    assert float(rows.min()) == pytest.approx(float(top), abs=4)
    assert float(rows.max()) == pytest.approx(float(bottom), abs=6)
