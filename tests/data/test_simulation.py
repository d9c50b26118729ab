"""Simulated clips: accelerations of the closed form, exact truth, equal bytes for equal settings."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_scenes import motion_by_caption, stated

from visviva.data.clip import Clip
from visviva.data.scenes import PRIMITIVES, dynamics, render, sample_scene, simulate, truth, world
from visviva.data.scenes.caption import caption
from visviva.data.scenes.scene import GRAVITY, Scene
from visviva.errors import InputError

FPS, FRAMES = 32.0, 17
TIME = np.arange(FRAMES) / FPS


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    return simulate(n=20, seed=3)


def batch(primitive: str, split: str, count: int) -> list[Scene]:
    scenes = [sample_scene(primitive, 11, i, split=split, objects=1) for i in range(count)]
    assert len({world.layout(s) for s in scenes}) == 1
    return scenes


def moved(scenes: list[Scene]) -> dynamics.Motion:
    return dynamics.move(scenes, FRAMES, FPS, world.build(scenes))


def fitted(position: np.ndarray, direction: np.ndarray, window: slice) -> float:
    """Acceleration along a direction by a quadratic fit [m/s^2]."""
    along = (position[window].astype(np.float64) - position[0]) @ direction
    return float(np.polyfit(TIME[window], along, 2)[0] * 2)


@pytest.mark.parametrize("split", ["id", "ood"])
@pytest.mark.parametrize("primitive", PRIMITIVES[:3])
def test_flight_has_the_acceleration_of_gravity(primitive: str, split: str) -> None:
    scenes = batch(primitive, split, 24)
    motion = moved(scenes)
    for i, scene in enumerate(scenes):
        position = motion.position[i, :, 0]
        assert fitted(position, np.array([0, 0, -1.0]), slice(None)) == pytest.approx(GRAVITY, rel=1e-3)
        assert fitted(position, np.array([1.0, 0, 0]), slice(None)) == pytest.approx(0, abs=1e-2)
        start, velocity = np.array(scene.bodies[0].position), np.array(scene.bodies[0].velocity)
        exact = start + velocity * TIME[:, None] - 0.5 * GRAVITY * TIME[:, None] ** 2 * [0, 0, 1]
        assert np.abs(position - exact).max() < 1e-4


@pytest.mark.parametrize("split", ["id", "ood"])
@pytest.mark.parametrize("primitive", PRIMITIVES[3:])
def test_a_box_on_a_ramp_has_the_acceleration_of_coulomb_friction(primitive: str, split: str) -> None:
    scenes = batch(primitive, split, 48)
    motion = moved(scenes)
    for i, scene in enumerate(scenes):
        slope, mu = scene.ramp.slope, scene.friction
        down = np.array([scene.ramp.side * math.cos(slope), 0, -math.sin(slope)])
        braking, falling = (GRAVITY * (math.sin(slope) + k * mu * math.cos(slope)) for k in (1, -1))
        turn = scene.numbers.get("speed", 0.0) / braking
        last = min(FRAMES, int(turn * FPS) + 1)
        position = motion.position[i, :, 0]
        if primitive == "ramp_up":
            assert fitted(position, down, slice(0, last)) == pytest.approx(braking, rel=0.01), scene.name
        after = FRAMES - math.ceil(turn * FPS)
        if after >= 9:
            assert fitted(position, down, slice(FRAMES - after, None)) == pytest.approx(falling, rel=0.01), scene.name
        assert np.abs(position[:, 1]).max() < 2e-3  # stays in the plane of motion
        normal = np.array([scene.ramp.side * math.sin(slope), 0, math.cos(slope)])
        assert np.abs((position - position[0]) @ normal).max() < 5e-3  # stays on the ramp
        assert np.abs(position[0] - scene.bodies[0].position).max() < 5e-3  # starts where it was put


def test_no_body_spins_in_flight(clips: list[Clip]) -> None:
    for clip in clips:
        if not clip.meta["primitive"].startswith("ramp"):
            assert clip.states["angular_velocity"].abs().max() < 1e-4


def test_the_clip_carries_all_its_truth(clips: list[Clip]) -> None:
    for k, clip in enumerate(clips):
        n = clip.masks.shape[1]
        assert clip.frames.shape == (17, 3, 64, 64)
        assert clip.frames.dtype == torch.float32
        assert 0 <= clip.frames.min() < clip.frames.max() <= 1
        assert clip.masks.shape == (17, n, 64, 64)
        assert clip.flow.shape == (16, 2, 64, 64)
        assert clip.depth.shape == (17, 64, 64)
        assert clip.trajectory.shape == (17, n, 2)
        assert clip.states["quaternion"].shape == (17, n, 4)
        assert clip.metres_per_pixel.shape == (n,)
        assert clip.visible.all()
        assert clip.meta["primitive"] == PRIMITIVES[k % 5]


def test_masks_follow_the_trajectory(clips: list[Clip]) -> None:
    ys, xs = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    for clip in clips:
        mask = clip.masks.float()
        area = mask.sum((-1, -2))
        assert area.min() >= 60
        centroid = torch.stack([(mask * xs).sum((-1, -2)) / area, (mask * ys).sum((-1, -2)) / area], dim=-1)
        assert (centroid - clip.trajectory).norm(dim=-1).max() < 0.7


def test_objects_stand_out_and_are_textured(clips: list[Clip]) -> None:
    for clip in clips:
        first, seen = clip.frames[0], clip.masks[0]
        around = torch.nn.functional.max_pool2d(seen.any(0).float()[None, None], 5, 1, 2)[0, 0].bool() & ~seen.any(0)
        for mask in seen:
            inside = first[:, mask]
            assert inside.std(dim=1).max() > 0.07  # texture
            assert (inside[:, :, None] - first[:, around].mean(1)[:, None, None]).abs().amax(0).mean() > 0.1  # contrast


def test_flow_reprojects_the_surface_exactly(clips: list[Clip]) -> None:
    """Independent of the code under test: rigid motion from the stored states, projection by similar triangles."""
    for clip in clips[:10]:
        scene = sample_scene(clip.meta["primitive"], 3, int(clip.meta["scene"].split("-")[-1]))
        for t in (0, 7, 15):
            points = truth.unproject(clip.depth[t].numpy(), scene.camera)
            for k in range(clip.masks.shape[1]):
                here = clip.masks[t, k].numpy()
                turn = [rotation(clip.states["quaternion"][s, k]) for s in (t, t + 1)]
                place = [clip.states["position"][s, k].double().numpy() for s in (t, t + 1)]
                local = (points[here] - place[0]) @ turn[0]
                target = truth.project(local @ turn[1].T + place[1], scene.camera, 64, 64)
                y, x = np.nonzero(here)
                found = clip.flow[t].numpy()[:, here].T + np.stack([x, y], axis=1)
                assert np.abs(found - target).max() < 1e-3


def rotation(q: torch.Tensor) -> np.ndarray:
    w, x, y, z = q.double().numpy() / np.linalg.norm(q.double().numpy())
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + 2 * w * cross + 2 * cross @ cross


def warped(frame: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
    h, w = frame.shape[-2:]
    grid = torch.stack(torch.meshgrid(torch.arange(float(h)), torch.arange(float(w)), indexing="ij")[::-1], dim=-1)
    where = (grid + flow.permute(1, 2, 0) + 0.5) / torch.tensor([w, h]) * 2 - 1
    return torch.nn.functional.grid_sample(frame[None], where[None], align_corners=False)[0]


def test_flow_brings_the_next_frame_onto_this_one() -> None:
    ratios = []
    for clip in simulate(n=5, seed=4, height=128, width=128):
        for t in range(0, 16, 3):
            inner = -torch.nn.functional.max_pool2d(-clip.masks[t].any(0).float()[None], 5, 1, 2)[0] > 0
            here = inner & clip.flow_valid[t]
            moved_back = (warped(clip.frames[t + 1], clip.flow[t]) - clip.frames[t])[:, here].abs().mean()
            unmoved = (clip.frames[t + 1] - clip.frames[t])[:, here].abs().mean()
            ratios.append(float(moved_back / unmoved.clamp(min=0.02)))
    assert np.median(ratios) < 0.15
    assert max(ratios) < 0.6


def test_flow_is_valid_where_the_surface_stays_visible(clips: list[Clip]) -> None:
    for clip in clips:
        objects = clip.masks.any(1)
        assert clip.flow_valid[objects[:-1]].float().mean() > 0.97
        covered = ~objects[:-1] & objects[1:]  # background that an object hides in the next frame
        assert not clip.flow_valid[covered].any()
        assert (clip.flow.abs().sum(1)[~objects[:-1]] == 0).all()  # camera and background stand still


def test_constant_acceleration_in_space_is_constant_in_pixels(clips: list[Clip]) -> None:
    for clip in clips:
        if clip.meta["primitive"].startswith("ramp"):
            continue
        second = clip.trajectory[2:] - 2 * clip.trajectory[1:-1] + clip.trajectory[:-2]
        acceleration = second.double() * clip.fps**2 * clip.metres_per_pixel[:, None]
        assert (acceleration - torch.tensor([0.0, GRAVITY])).abs().max() < 0.02


def test_caption_and_first_frame_determine_the_motion(clips: list[Clip]) -> None:
    for clip in clips:
        v, a = motion_by_caption(clip.caption)
        turn = v @ v / abs(v @ a) if clip.meta["primitive"] == "ramp_up" else np.inf
        scale = 64 / stated(clip.caption)["view"]
        for t in range(FRAMES):
            if TIME[t] <= turn:
                step = (v * TIME[t] + 0.5 * a * TIME[t] ** 2) * scale * [1, -1]
                found = (clip.trajectory[t] - clip.trajectory[0]).numpy()
                assert np.abs(found - step).max() < 0.15, clip.caption


def test_equal_conditions_have_equal_truth() -> None:
    scenes = batch("horizontal_throw", "id", 160)
    motion = moved(scenes)
    groups: dict[str, list[int]] = {}
    for i, scene in enumerate(scenes):
        groups.setdefault(caption(scene).split(", ", 1)[1].split(", view")[0], []).append(i)  # speed and direction
    repeated = [group for group in groups.values() if len(group) > 1]
    assert len(repeated) > 10
    for group in repeated:
        paths = motion.position[group, :, 0] - motion.position[group, :1, 0]
        assert np.abs(paths - paths[:1]).max() < 1e-4


def test_the_reversal_is_found_and_masked() -> None:
    turned = 0
    for clip in simulate("ramp_up", n=16, seed=2, flow=False):
        speed = clip.states["velocity"][:, 0].norm(dim=-1)
        n = stated(clip.caption)
        slope = math.radians(n["slope"])
        turn = n["speed"] / (GRAVITY * (math.sin(slope) + n["friction"] * math.cos(slope)))
        if turn > 0.5:
            assert clip.contact_times == ()
            assert not clip.contact.any()
            continue
        turned += 1
        assert len(clip.contact_times) == 1
        assert clip.contact_times[0] == pytest.approx(turn, abs=1.5 / FPS)
        assert clip.contact[int(speed.argmin())]
        assert 1 <= int(clip.contact.sum()) <= 2
    assert turned >= 4


@pytest.mark.parametrize(("frames", "fps"), [(9, 32.0), (33, 32.0), (25, 24.0)])
def test_other_durations_keep_the_objects_in_view(frames: int, fps: float) -> None:
    for clip in simulate(n=5, seed=6, frames=frames, fps=fps, flow=False):
        assert clip.visible.all()
        edge = clip.masks[..., [0, -1], :].any() or clip.masks[..., :, [0, -1]].any()
        assert not edge
        if clip.meta["primitive"] == "free_fall":
            second = clip.trajectory[2:] - 2 * clip.trajectory[1:-1] + clip.trajectory[:-2]
            assert torch.allclose(second[..., 1] * fps**2 * clip.metres_per_pixel, torch.tensor(GRAVITY), rtol=5e-3)


def test_wide_pictures(clips: list[Clip]) -> None:
    wide = simulate("parabolic_throw", n=3, seed=3, height=48, width=96, flow=False)
    assert wide[0].frames.shape == (17, 3, 48, 96)
    assert all(c.visible.all() for c in wide)


def test_a_clip_does_not_depend_on_its_company(clips: list[Clip]) -> None:
    few = simulate(n=6, seed=3)
    for a, b in zip(few, clips, strict=False):
        assert a.caption == b.caption
        assert torch.equal(a.frames, b.frames)
        assert torch.equal(a.flow, b.flow)
        assert all(torch.equal(a.states[k], b.states[k]) for k in a.states)


def test_drawing_only_what_moves_changes_no_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    for primitive in ("parabolic_throw", "ramp_up"):
        scenes = batch(primitive, "ood", 6)
        model = world.build(scenes)
        motion = dynamics.move(scenes, FRAMES, FPS, model)
        tiled = render.render(scenes, motion, 64, 64, model)
        monkeypatch.setattr(render, "GRID", 1)
        whole = render.render(scenes, motion, 64, 64, model)
        monkeypatch.undo()
        for name in ("frames", "depth", "label"):
            assert np.array_equal(getattr(tiled, name), getattr(whole, name))


SCRIPT = """
import sys
from visviva.data.scenes import simulate
for i, clip in enumerate(simulate(n=5, seed=8)):
    clip.write(sys.argv[1], f"{i}")
"""


def test_another_process_writes_the_same_bytes(tmp_path: Path) -> None:
    environment = {**os.environ, "MALLOC_PERTURB_": "85", "PYTHONHASHSEED": "1"}
    subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path / "other")], env=environment, capture_output=True, check=True)
    for i, clip in enumerate(simulate(n=5, seed=8)):
        clip.write(tmp_path / "own", f"{i}")
    names = sorted(path.name for path in (tmp_path / "own").iterdir())
    assert len(names) == 10
    for name in names:
        assert (tmp_path / "own" / name).read_bytes() == (tmp_path / "other" / name).read_bytes(), name


def test_bad_arguments_get_one_sentence() -> None:
    with pytest.raises(InputError, match="unknown primitive 'fall'"):
        simulate("fall", n=1)
    with pytest.raises(InputError, match="frames >= 2"):
        simulate(n=1, frames=1)
    with pytest.raises(InputError, match="unknown renderer"):
        simulate(n=1, renderer="povray")
    with pytest.raises(InputError, match="one layout"):
        world.build([sample_scene("ramp_up", 0, 0), sample_scene("free_fall", 0, 0)])


@pytest.mark.gpu
def test_a_gpu_makes_the_same_scenes() -> None:
    import warp as wp

    if not wp.is_cuda_available():
        pytest.skip("no CUDA device")
    for a, b in zip(simulate(n=10, seed=3, device="cuda:0"), simulate(n=10, seed=3), strict=True):
        assert a.caption == b.caption
        assert (a.trajectory - b.trajectory).abs().max() < 0.2
        assert (a.frames - b.frames).abs().mean() < 0.01
        assert (a.masks != b.masks).float().mean() < 0.005


def test_simulating_from_python_prints_nothing_of_the_kernels() -> None:
    code = "import warp as w; from visviva.data.scenes import simulate; simulate('free_fall', 1); print(w.config.log_level)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = [line for line in done.stdout.splitlines() if "CUDA" not in line]  # that there is no driver is a warning
    assert lines == ["20"], done.stdout  # and the caller's level is as before
