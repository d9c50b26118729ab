"""The camera: projection against closed forms and its own rays, what it refuses; views have the motion in the picture."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from visviva.data.motions.amass import NAMES, OFFSETS, PARENTS
from visviva.data.motions.motion import HumanMotion, forward_kinematics
from visviva.data.render import Camera, skeleton, view
from visviva.errors import InputError

SIZE = (120, 200)


def walk(frames: int = 24, speed: float = 1.5, towards: float = 0.0) -> HumanMotion:
    """A person who slides along, facing and moving into a direction of the ground."""
    turns = torch.eye(3).expand(frames, 24, 3, 3).clone()
    c, s = math.cos(towards), math.sin(towards)
    turns[:, 0] = torch.tensor([[-s, 0.0, c], [c, 0.0, s], [0.0, 1.0, 0.0]])  # columns: left, up, ahead
    offsets = OFFSETS.expand(frames, -1, -1).clone()
    along = speed * torch.arange(frames) / 20
    offsets[:, 0] = torch.stack((c * along, s * along, torch.full_like(along, 0.95)), -1)
    return HumanMotion(forward_kinematics(turns, offsets, PARENTS)[0], NAMES, PARENTS, 20.0, rotations=turns, rest=OFFSETS)


def test_a_point_on_the_axis_is_in_the_middle_and_one_aside_by_similar_triangles():
    camera = Camera.look_at(torch.tensor([5.0, 0.0, 1.0]), torch.tensor([0.0, 0.0, 1.0]), field_of_view=math.radians(60))
    pixels, depth = camera.project(torch.tensor([[[0.0, 0.0, 1.0], [0.0, 1.0, 1.0], [1.0, 0.0, 2.0]]]), SIZE)
    focal = 60 / math.tan(math.radians(30))
    want = [[100.0, 60.0], [100 + focal / 5, 60.0], [100.0, 60 - focal / 4]]  # +y is on the right of who looks along -x
    assert torch.allclose(pixels[0], torch.tensor(want), atol=1e-4)
    assert torch.allclose(depth[0], torch.tensor([5.0, 5.0, 4.0]))
    assert torch.allclose(camera.intrinsics(SIZE), torch.tensor([[focal, 0, 100], [0, focal, 60], [0, 0, 1]]))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=6, max_size=6), st.integers(0, 119), st.integers(0, 199), st.floats(0.3, 40))
def test_what_lies_on_a_pixels_ray_is_projected_onto_its_centre(numbers, row, column, depth):
    place, target = torch.tensor(numbers, dtype=torch.float64).view(2, 3)
    if float((target - place)[:2].norm()) < 0.2:
        target = target + torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    camera = Camera.look_at(place, target)
    point = camera.position + depth * camera.rays(SIZE)[:, row, column]
    pixels, found = camera.project(point[:, None], SIZE)
    assert torch.allclose(pixels[0, 0], torch.tensor([column + 0.5, row + 0.5], dtype=torch.float64), atol=1e-6)
    assert float(found) == pytest.approx(depth)


def test_projection_has_gradients():
    camera = Camera.look_at(torch.tensor([4.0, 1.0, 1.5]).double(), torch.zeros(3).double())
    points = torch.randn(1, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: camera.project(x, SIZE), points)


@pytest.mark.parametrize(
    ("place", "target", "said"),
    [((0.0, 0.0, 1.0), (0.0, 0.0, 1.0), "stands at its target"), ((0.0, 0.0, 3.0), (0.0, 0.0, 1.0), "straight up or down")],
)
def test_a_camera_that_looks_nowhere_is_refused(place, target, said):
    with pytest.raises(InputError, match=said):
        Camera.look_at(torch.tensor(place), torch.tensor(target))


def test_other_cameras_that_are_none_are_refused():
    eye = torch.eye(3)[None]
    with pytest.raises(InputError, match="not finite"):
        Camera(torch.full((1, 3), math.nan), eye)
    with pytest.raises(InputError, match="no right-handed frame"):
        Camera(torch.zeros(1, 3), -eye)
    with pytest.raises(InputError, match="field of view"):
        Camera(torch.zeros(1, 3), eye, 3.5)
    with pytest.raises(InputError, match=r"of 2 frames for 3 frames"):
        Camera(torch.zeros(2, 3), eye.expand(2, 3, 3)).over(3)


@pytest.mark.parametrize("towards", [0.0, 2.0])
@pytest.mark.parametrize("name", ["front", "side", "follow"])
def test_all_of_the_motion_is_in_the_picture_and_as_large_as_it_can_be(name, towards):
    motion = walk(towards=towards)
    figure = skeleton(motion)
    camera = view(motion, name, SIZE, figure).over(len(motion))
    pixels, depth = camera.project(figure.vertices, SIZE)
    share = (pixels / torch.tensor([SIZE[1], SIZE[0]]) - 0.5).abs()
    assert float(depth.min()) > 0.5
    assert 0.42 < float(share.max()) < 0.46  # 0.44 on a regular subset of the vertices


def test_who_walks_goes_right_in_the_side_view_comes_nearer_in_front_and_stays_where_he_is_when_followed():
    motion = walk(frames=40, towards=1.0)
    seen = {}
    for name in ("front", "side", "follow"):
        pixels, depth = view(motion, name, SIZE).over(40).project(motion.positions[:, :1], SIZE)
        seen[name] = pixels[-1, 0] - pixels[0, 0], float(depth[-1] - depth[0])
    assert float(seen["side"][0][0]) > 60
    assert seen["front"][1] < -2.5
    assert float(seen["follow"][0].abs().max()) < 1.0
    left, right = (view(motion, "front", SIZE).project(motion.positions[:1, k : k + 1], SIZE)[0][0, 0, 0] for k in (16, 17))
    assert float(left) > float(right) + 5  # his left shoulder is on our right


def test_an_unknown_view_is_refused():
    with pytest.raises(InputError, match="did you mean 'side'"):
        view(walk(), "sid")
