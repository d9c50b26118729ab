"""Sampled scenes: reproducible, within their ranges, nothing lands or leaves the view, captions that say it all."""

from __future__ import annotations

import functools
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from visviva.data.scenes.caption import caption
from visviva.data.scenes.primitives import PRIMITIVES, SPLITS, sample_scene
from visviva.data.scenes.ranges import AXIS, RANGES
from visviva.data.scenes.rotation import matrix, multiply
from visviva.data.scenes.scene import GRAVITY, Scene
from visviva.data.scenes.truth import project
from visviva.errors import InputError

NUMBER = r"([0-9.]+)"


def acceleration(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Closed-form initial velocity and acceleration (x, z) of a scene, before any reversal."""
    if scene.ramp is None:
        return np.array(scene.bodies[0].velocity)[[0, 2]], np.array([0.0, -GRAVITY])
    slope, mu = scene.ramp.slope, scene.friction
    down = np.array([scene.ramp.side * math.cos(slope), -math.sin(slope)])
    sign = 1 if scene.primitive == "ramp_up" else -1
    return np.array(scene.bodies[0].velocity)[[0, 2]], down * GRAVITY * (math.sin(slope) + sign * mu * math.cos(slope))


def path(scene: Scene, body: int, duration: float) -> np.ndarray:
    """Closed-form positions (65, 3) of a body of a scene without reversal."""
    time = np.linspace(0, duration, 65)[:, None]
    v, a = acceleration(scene)
    moved = v * time + 0.5 * a * time**2
    return np.array(scene.bodies[body].position) + np.stack([moved[:, 0], 0 * moved[:, 0], moved[:, 1]], axis=1)


@functools.cache
def many() -> list[Scene]:
    return [sample_scene(p, 7, i, split=s) for p in PRIMITIVES for s in SPLITS for i in range(25)]


def test_a_scene_depends_on_its_name_only() -> None:
    assert sample_scene("ramp_up", 3, 5) == sample_scene("ramp_up", 3, 5)
    different = {caption(sample_scene(p, s, i)) for p in PRIMITIVES for s in (0, 1) for i in range(5)}
    assert len(different) == 50


def test_stated_numbers_lie_in_their_ranges() -> None:
    field = {"speed": {"horizontal_throw": "throw_speed", "parabolic_throw": "parabolic_speed", "ramp_up": "ramp_speed"}}
    for scene in many():
        ranges = RANGES[scene.split]
        if "speed" in scene.numbers:
            name = field["speed"][scene.primitive]
            low, high = getattr(RANGES["id"] if name not in AXIS[scene.primitive] else ranges, name)
            assert low <= scene.numbers["speed"] <= high
        if scene.ramp is not None:
            assert ranges.friction[0] <= scene.friction <= ranges.friction[1]
            assert math.tan(scene.ramp.slope) >= 1.3 * scene.friction
            assert ranges.slope[0] <= scene.numbers["slope"] <= ranges.slope[1]
            assert all(body.shape == "box" for body in scene.bodies)
        if scene.primitive == "free_fall":
            assert all(ranges.height[0] <= b.position[2] <= ranges.height[1] for b in scene.bodies)


@pytest.mark.parametrize("primitive", PRIMITIVES)
def test_out_of_distribution_lies_beyond_the_training_range(primitive: str) -> None:
    for name in AXIS[primitive]:
        assert getattr(RANGES["ood"], name)[0] >= getattr(RANGES["id"], name)[1]


def test_nothing_lands_or_leaves_the_view() -> None:
    for scene in many():
        if scene.primitive == "ramp_up":
            continue  # turns round: the simulation tests look at its pixels
        for k, body in enumerate(scene.bodies):
            points, half = path(scene, k, 0.5), body.extent
            assert (points[:, 2] - half[2]).min() > 0, scene.name
            corners = np.concatenate([points + half * [sx, 0, sz] for sx in (-1, 1) for sz in (-1, 1)])
            pixels = project(corners, scene.camera, 64, 64)
            assert pixels.min() > 0, scene.name
            assert pixels.max() < 63, scene.name


def test_objects_are_at_least_eight_pixels_across_and_apart() -> None:
    for scene in many():
        for body in scene.bodies:
            across = 2 * {"ball": body.size[0], "box": min(body.size)}.get(body.shape, body.size[0])
            assert across / scene.camera.view * 64 >= 8, scene.name
        for a, b in zip(scene.bodies, scene.bodies[1:], strict=False):
            assert a.position[0] <= b.position[0]  # captions name them from left to right
            gap = np.abs(np.array(a.position) - np.array(b.position)) - a.extent - b.extent
            assert max(gap[0], gap[2]) > 0


def test_several_objects_occur_in_falls_and_throws() -> None:
    for primitive in PRIMITIVES[:3]:
        counts = {len(sample_scene(primitive, 0, i).bodies) for i in range(60)}
        assert counts == {1, 2, 3}
        assert {len(sample_scene(primitive, 0, i, objects=1).bodies) for i in range(20)} == {1}


def test_all_shapes_and_both_sides_occur() -> None:
    scenes = many()
    assert {b.shape for s in scenes for b in s.bodies} == {"ball", "box", "cylinder", "capsule"}
    assert {s.numbers.get("side") for s in scenes if s.primitive != "free_fall"} == {-1, 1}


@pytest.mark.parametrize("duration", [0.25, 1.0, 2.0])
def test_a_longer_clip_is_the_same_picture_under_froude_scaling(duration: float) -> None:
    for primitive in PRIMITIVES:
        scene = sample_scene(primitive, 0, 1, duration=duration)
        _, a = acceleration(scene)
        assert np.linalg.norm(a) <= GRAVITY + 1e-9  # g is never scaled
        fallen = 0.5 * GRAVITY * duration**2 / scene.camera.view
        assert 0.3 < fallen < 0.65  # the drop fills the same part of the view
        assert scene.camera.view == pytest.approx(2.4 * (duration / 0.5) ** 2, rel=0.35)


def stated(text: str) -> dict[str, float]:
    """What a caption says, as numbers."""
    found = {k: re.search(p, text) for k, p in {
        "view": rf"view {NUMBER} m", "speed": rf"speed {NUMBER} m/s", "angle": rf"angle {NUMBER} degrees",
        "slope": rf"ramp.*, {NUMBER} degrees", "friction": rf"friction {NUMBER}", "height": rf"height {NUMBER}",
    }.items()}  # fmt: skip
    return {k: float(m.group(1)) for k, m in found.items() if m} | {"side": -1.0 if "left" in text else 1.0}


def motion_by_caption(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Initial velocity and acceleration (x, z) that a caption determines, with nothing else known."""
    n = stated(text)
    if "fall of" in text:
        return np.zeros(2), np.array([0.0, -GRAVITY])
    if "throw" in text:
        angle = math.radians(n.get("angle", 0.0))
        return n["speed"] * np.array([n["side"] * math.cos(angle), math.sin(angle)]), np.array([0.0, -GRAVITY])
    slope, up = math.radians(n["slope"]), "up a ramp" in text
    along = np.array([n["side"] * math.cos(slope), math.sin(slope) if up else -math.sin(slope)])
    size = GRAVITY * (math.sin(slope) + (1 if up else -1) * n["friction"] * math.cos(slope))
    return (n["speed"] * along, -size * along) if up else (np.zeros(2), size * along)


def test_the_caption_determines_the_motion() -> None:
    for scene in many():
        v, a = motion_by_caption(caption(scene))
        true_v, true_a = acceleration(scene)
        assert np.allclose(v, true_v, atol=1e-9), caption(scene)
        assert np.allclose(a, true_a, atol=1e-9), caption(scene)
        assert stated(caption(scene))["view"] == pytest.approx(scene.camera.view, abs=1e-9)


def test_captions_are_short() -> None:
    assert max(len(re.findall(r"[a-z/]+|[0-9.]", caption(s))) for s in many()) <= 48


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=8, max_size=8))
def test_quaternions_compose_as_matrices(values: list[float]) -> None:
    a, b = np.array(values[:4]), np.array(values[4:])
    if min(np.linalg.norm(a), np.linalg.norm(b)) < 0.1:
        return
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    product = matrix(multiply(tuple(a), tuple(b)))
    assert np.allclose(product, matrix(tuple(a)) @ matrix(tuple(b)), atol=1e-9)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(InputError, match="did you mean 'free_fall'"):
        sample_scene("freefall", 0, 0)
    with pytest.raises(InputError, match="unknown split"):
        sample_scene("free_fall", 0, 0, split="test")
