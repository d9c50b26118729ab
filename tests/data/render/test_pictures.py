"""Pictures against geometry, of both backends through one interface: areas, depths, shadows, sides, edges, and each other."""

from __future__ import annotations

import importlib.util
import math

import pytest
import torch

from visviva.data.render import Camera, Figure, Stage, render, together
from visviva.data.render.solids import balls
from visviva.errors import InputError

SIZE = (60, 80)
MISSING = importlib.util.find_spec("pytorch3d") is None
PYTORCH3D = pytest.param("pytorch3d", marks=pytest.mark.skipif(MISSING, reason="pytorch3d is not installed"))
both = pytest.mark.parametrize("backend", ["warp", PYTORCH3D])


def ball(*centre: float, radius: float = 0.4, name: str = "ball", colour=(0.8, 0.3, 0.2)) -> Figure:
    return balls(torch.tensor([[centre]]), torch.tensor([radius]), torch.tensor([colour]), [name])


def from_ahead(height: float = 1.0, away: float = 5.0, to: tuple[float, float, float] = (0.0, 0.0, 1.0)) -> Camera:
    return Camera.look_at(torch.tensor([away, 0.0, height]), torch.tensor(to))


@both
def test_a_sphere_covers_the_area_that_a_pinhole_gives_it_and_its_front_is_a_radius_nearer(backend):
    camera, size = from_ahead(), (90, 90)
    found = render(ball(0.0, 0.0, 1.0), camera, size, Stage(None), backend)
    radius = camera.focal(size) * 0.4 / math.sqrt(5**2 - 0.4**2)
    assert int(found.mask.sum()) == pytest.approx(math.pi * radius**2, rel=0.02)
    assert float(found.depth[0, 45, 45]) == pytest.approx(4.6, abs=0.006)
    assert bool((found.depth.isfinite() == found.mask[:, 0]).all())
    rows, columns = found.mask[0, 0].nonzero().float().mean(0).tolist()
    assert (rows + 0.5, columns + 0.5) == (pytest.approx(45, abs=0.1), pytest.approx(45, abs=0.1))


@both
def test_what_is_projected_is_drawn_there_and_sides_are_not_exchanged(backend):
    """Three balls, at the left of who looks, at the right, and above; looked at from a place and direction of no symmetry."""
    places = {"left": (0.0, -1.0, 0.8), "right": (0.3, 1.0, 0.9), "above": (-0.4, 0.1, 1.9)}
    figure = together([ball(*place, radius=0.2, name=name) for name, place in places.items()])
    camera = Camera.look_at(torch.tensor([5.0, 0.7, 1.6]), torch.tensor([0.0, 0.1, 1.1]))
    found = render(figure, camera, SIZE, Stage(0.0), backend)
    pixels, depth = camera.project(torch.tensor([list(places.values())]), SIZE)
    for part in range(3):
        drawn = found.masks[0, part].nonzero().float() + 0.5
        u, v = pixels[0, part].tolist()
        assert float((drawn.mean(0).flip(0) - pixels[0, part]).norm()) < 0.5
        assert bool(found.masks[0, part, int(v), int(u)])
        assert float(found.depth[0, int(v), int(u)]) == pytest.approx(float(depth[0, part]) - 0.2, abs=0.03)
    assert found.names == ("left", "right", "above")
    assert float(pixels[0, 0, 0]) < 30 < 50 < float(pixels[0, 1, 0])
    assert float(pixels[0, 2, 1]) < 20


@both
def test_the_floor_lies_where_rays_meet_it_and_the_shadow_where_the_sun_throws_it(backend):
    camera = Camera.look_at(torch.tensor([4.0, 1.0, 3.0]), torch.tensor([0.0, 0.0, 0.3]))
    figure, sun = ball(0.0, 0.0, 1.0, radius=0.3), torch.tensor([0.5, 0.6, 1.0])
    found = render(figure, camera, SIZE, Stage(0.2, sun=tuple(sun.tolist())), backend)
    point = camera.position[:, None, None] + found.depth[..., None] * camera.rays(SIZE)
    floor = ~found.mask[:, 0] & found.depth.isfinite()
    assert int(floor.sum()) > 3000
    assert torch.allclose(point[floor][:, 2], torch.tensor(0.2), atol=1e-4)
    foot = torch.tensor([[0.0, 0.0, 1.0]]) - 0.8 * sun  # of the shadow of the centre, at a height of 0.2
    (u, v), lit = camera.project(foot[None], SIZE)[0][0, 0].tolist(), render(ball(0.0, 0.0, 50.0), camera, SIZE,
        Stage(0.2, sun=tuple(sun.tolist())), backend)  # fmt: skip
    darker = (lit.frames - found.frames).mean(1)[0] > 0.1
    darker &= floor[0]
    assert bool(darker[int(v), int(u)])
    rows, columns = darker.nonzero().float().mean(0).tolist()
    assert math.hypot(rows + 0.5 - v, columns + 0.5 - u) < 2.0
    assert 20 < int(darker.sum()) < 300


@both
def test_a_moving_camera_and_figure_are_drawn_frame_by_frame(backend):
    places = torch.tensor([[[0.0, 0.0, 1.0]], [[0.0, 0.8, 0.6]], [[0.5, -0.5, 0.7]]])
    figure = balls(places, torch.tensor([0.3]), torch.tensor([[0.2, 0.5, 0.8]]), ["ball"])
    eye = torch.tensor([[4.0, 0.0, 1.5], [4.0, 1.0, 2.0], [3.0, -2.0, 1.0]])
    camera, stage, small = Camera.look_at(eye, torch.tensor([0.0, 0.0, 0.7])), Stage(0.0, sun=(0.2, 0.3, 1.0)), (30, 40)
    whole = render(figure, camera, small, stage, backend)
    for t in range(3):
        one = render(figure.cut(t, t + 1), camera.cut(t, t + 1), small, stage, backend)
        assert torch.equal(whole.label[t : t + 1], one.label)
        assert torch.allclose(whole.depth[t : t + 1], one.depth)
        assert torch.allclose(whole.frames[t : t + 1], one.frames, atol=1e-5)


@both
def test_what_is_partly_behind_the_camera_or_under_the_floor_is_cut_there(backend):
    corners = torch.tensor([[-1.0, -50.0, 0.4], [-1.0, 50.0, 0.4], [60.0, 0.0, 0.4], [0.0, 0.0, -3.0]])
    figure = Figure.mesh(corners[None], torch.tensor([[0, 2, 1], [0, 1, 3]]))
    found = render(figure, from_ahead(), SIZE, Stage(0.0), backend)
    point = from_ahead().position[:, None, None] + found.depth[..., None] * from_ahead().rays(SIZE)
    below = found.mask[0, 0, -1]  # the lowest row looks down on the sheet, which goes on behind the camera
    assert bool(below.all())
    assert torch.allclose(point[0, -1, :, 2], torch.tensor(0.4), atol=1e-4)
    assert float(point[found.depth.isfinite()][:, 2].min()) > -1e-4


@pytest.mark.skipif(MISSING, reason="pytorch3d is not installed")
def test_both_backends_draw_the_same_picture():
    figure = together([ball(0.0, -0.5, 0.6), ball(0.4, 0.5, 1.2, name="other", colour=(0.1, 0.3, 0.9))])
    camera = Camera.look_at(torch.tensor([4.0, 1.0, 1.6]), torch.tensor([0.0, 0.0, 0.8]))
    one, other = (render(figure, camera, SIZE, backend=backend) for backend in ("warp", "pytorch3d"))
    same = one.label == other.label
    assert float(same.float().mean()) > 0.998
    assert torch.allclose(one.depth[same], other.depth[same], atol=1e-3)
    assert float((one.frames - other.frames).abs().mean()) < 1e-3


def test_edges_are_as_smooth_as_if_every_pixel_had_several_rays():
    """Light of a picture of twice the size, averaged; ball and shadow are black on white: nothing but edges."""
    figure, camera = ball(0.0, 0.0, 1.0, colour=(0.0, 0.0, 0.0)), from_ahead(height=2.0)
    white = (1.0, 1.0, 1.0)
    stage = Stage(0.0, light=white, dark=white, sky=white, sun=(0.4, -0.5, 1.0), strength=(1.0, 0.0), fade=1e6)
    found, once = (render(figure, camera, SIZE, stage, samples=n) for n in (2, 1))
    fine = render(figure, camera, (120, 160), stage, samples=1)
    sun = 1 / math.hypot(0.4, 0.5, 1.0)
    lit = torch.where(fine.frames > 0.5, torch.where(fine.depth[:, None].isfinite(), sun, 1.0), 0.0)
    mean = torch.nn.functional.avg_pool2d(lit, 2)
    light = torch.where(found.frames <= 0.04045, found.frames / 12.92, ((found.frames + 0.055) / 1.055) ** 2.4)
    plain = once.frames**2.2
    assert float((light - mean).abs().mean()) < 0.3 * float((plain - mean).abs().mean())
    assert torch.equal(found.label, once.label)
    assert torch.equal(found.depth, once.depth)


def test_frames_are_colours_and_what_is_empty_shows_the_sky():
    stage = Stage(None, sky=(0.2, 0.4, 0.6))
    found = render(ball(0.0, 9.0, 1.0), from_ahead(), (8, 8), stage)
    assert torch.allclose(found.frames, torch.tensor([0.2, 0.4, 0.6]).view(3, 1, 1).expand(1, 3, 8, 8), atol=1e-5)
    assert not bool(found.mask.any())
    found = render(ball(0.0, 0.0, 1.0), from_ahead(), (16, 16))
    assert (found.frames.dtype, tuple(found.frames.shape)) == (torch.float32, (1, 3, 16, 16))
    assert 0 <= float(found.frames.min()) < float(found.frames.max()) <= 1


def test_turning_the_world_about_the_vertical_changes_nothing_but_the_squares():
    figure, camera = together([ball(0.2, -0.5, 0.6), ball(0.4, 0.5, 1.2)]), from_ahead(height=1.7)
    c, s = math.cos(0.7), math.sin(0.7)
    turn = torch.tensor([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    turned = Figure(figure.vertices @ turn.T, figure.faces, figure.colours, figure.part, figure.names)
    moved = Camera(camera.position @ turn.T, camera.rotation @ turn.T, camera.field_of_view)
    plain = Stage(light=(0.7, 0.7, 0.7), dark=(0.7, 0.7, 0.7))
    one, other = render(figure, camera, SIZE, plain), render(turned, moved, SIZE, plain)
    assert float((one.label != other.label).float().mean()) < 0.002
    assert float((one.frames - other.frames).abs().mean()) < 5e-4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"backend": "warpp"}, "did you mean 'warp'"),
        ({"size": (0, 8)}, "1 to 4096 pixels"),
        ({"samples": 0}, "1 to 8 samples"),
        ({"stage": Stage(1.5)}, "in or under the floor at 1.5 m"),
        ({"camera": Camera(torch.zeros(2, 3), torch.eye(3).expand(2, 3, 3))}, "2 frames for 1 frames"),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence(change, said):
    with pytest.raises(InputError, match=said):
        render(**({"figure": ball(0.0, 0.0, 1.0), "camera": from_ahead(), "size": (8, 8)} | change))


@pytest.mark.skipif(not MISSING, reason="pytorch3d is installed")
def test_a_missing_backend_says_how_to_get_it():
    with pytest.raises(InputError, match=r"cannot be imported .* pip install --no-build-isolation"):
        render(ball(0.0, 0.0, 1.0), from_ahead(), (8, 8), backend="pytorch3d")


def test_stages_and_figures_that_are_none_are_refused():
    with pytest.raises(InputError, match="the sun is at"):
        Stage(sun=(1.0, 0.0, 0.0))
    with pytest.raises(InputError, match="squares of 0 m"):
        Stage(tile=0.0)
    with pytest.raises(InputError, match="the floor is at inf"):
        Stage(math.inf)
    triangle, face = torch.eye(3)[None].repeat(4, 1, 1), torch.tensor([[0, 1, 2]])
    triangle[2, 1, 0] = math.nan
    with pytest.raises(InputError, match="1 vertices of the mesh are not finite, the first is vertex 1 in frame 2"):
        Figure.mesh(triangle, face)
    with pytest.raises(InputError, match="faces name vertex 3"):
        Figure.mesh(torch.eye(3), face + 1)
    with pytest.raises(InputError, match=r"figures of \[1, 2\] frames"):
        together([ball(0.0, 0.0, 1.0), Figure.mesh(torch.eye(3)[None].repeat(2, 1, 1), face)])
