"""Slides with known friction: closed forms, phases, scale-free case, coverage; motions that only look ballistic are refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from drawn_films import film
from flown_tracks import EXACT, PIXELS_PER_METRE, flown

from visviva.eval.gravity import Scale
from visviva.eval.kind import Scales, likely_kind, measure_motion
from visviva.eval.ramp import Angle, measure_ramp
from visviva.eval.recording import Settings, measure_frames
from visviva.eval.track import Unmeasurable

G = 9.806


def along(s, degrees=0.0, noise=0.1, seed=0, fps=60.0):
    """A track that follows s [m] down a slope of the given angle."""
    track = flown(count=len(s), fps=fps, noise=noise, seed=seed)
    u = np.array([math.cos(math.radians(degrees)), math.sin(math.radians(degrees))])
    path = 100 + np.outer(s * PIXELS_PER_METRE, u)
    track.positions[:] = path + np.random.default_rng(seed).normal(0, noise, path.shape)
    return track


def slid(friction, degrees, v0, count=60, fps=60.0):
    """Distance down the slope [m] with sliding friction that turns with the velocity; at rest where friction holds it."""
    alpha, step, x, v, found = math.radians(degrees), 1e-4, 0.0, v0, []
    for _frame in range(count):
        found.append(x)
        for _ in range(round(1 / fps / step)):
            drive, hold = G * math.sin(alpha), friction * G * math.cos(alpha)
            a = drive - hold * np.sign(v) if v else max(0.0, abs(drive) - hold) * np.sign(drive)
            new = v + step * a
            v = 0.0 if v * new < 0 else new
            x += step * v
    return np.array(found)


def exactly(degrees, error=0.2):
    return Angle(degrees, error, "as given")


@pytest.mark.parametrize(
    ("friction", "degrees", "v0", "phase"),
    [
        (0.2, 30, 0.0, "down"),
        (0.2, 30, 0.5, "down"),
        (0.15, 25, -3.0, "up and down"),
        (0.6, 15, -2.0, "up"),
        (0.3, 20, -3.2, "up"),
        (0.2, 0, 1.0, "stops"),
        (0.25, 0, 3.0, "down"),
    ],
)
def test_friction_is_found_in_every_phase(friction, degrees, v0, phase):
    count = 28 if friction == 0.3 else 60
    result = measure_ramp(along(slid(friction, degrees, v0, count), degrees), EXACT, exactly(degrees))
    assert result.phase == phase
    assert result.reason == ""
    assert result.friction == pytest.approx(friction, abs=0.02)
    assert result.low < friction < result.high


def test_up_and_down_needs_no_scale():
    result = measure_ramp(along(slid(0.15, 25, -3.0), 25), None, exactly(25))
    assert result.friction == pytest.approx(0.15, abs=0.01)
    assert result.budget["scale"] == 0
    one_way = measure_ramp(along(slid(0.2, 30, 0.0), 30), None, exactly(30))
    assert math.isnan(one_way.friction)
    assert "no scale" in one_way.reason
    assert "cannot be measured, because" in one_way.sentence


def test_a_ball_that_rolls_has_five_sevenths():
    t = np.arange(60) / 60
    result = measure_ramp(along(5 / 7 * G * math.sin(math.radians(20)) * t**2 / 2, 20), EXACT, exactly(20))
    assert result.rolling == pytest.approx(5 / 7, abs=0.01)
    assert "0.71" in result.sentence


def test_the_angle_is_read_in_the_image_or_the_surface_taken_to_be_level_and_both_are_said():
    seen = measure_ramp(along(slid(0.2, 30, 0.0), 30), EXACT)
    assert seen.angle.degrees == pytest.approx(30, abs=0.3)
    assert "if the camera was level" in seen.sentence
    assert seen.high - seen.low > 0.15  # three degrees of roll
    level = measure_ramp(along(slid(0.25, 0, 1.0), 2.0), EXACT)
    assert level.angle.degrees == 0
    assert "taken to be level" in level.sentence
    assert level.low < 0.25 < level.high


def test_the_interval_contains_the_truth_at_least_19_times_in_20():
    random, hits = np.random.default_rng(5), 0
    for trial in range(40):
        friction, degrees = random.uniform(0.05, 0.4), random.uniform(25, 40)
        scale = Scale((1 + 0.03 * random.normal()) / PIXELS_PER_METRE, 0.03, "simulated")
        angle = Angle(degrees + random.normal(0, 0.5), 0.5, "simulated")
        result = measure_ramp(along(slid(friction, degrees, 0.2), degrees, 0.4, trial), scale, angle)
        hits += result.low < friction < result.high
    assert hits >= 37


def eased(kind, count=50):
    u = np.linspace(0, 1, count)
    return {
        "pan": u,
        "in-out quadratic": np.where(u < 0.5, 2 * u**2, 1 - 2 * (1 - u) ** 2),
        "in-out cubic": np.where(u < 0.5, 4 * u**3, 1 - 4 * (1 - u) ** 3),
        "in-out sine": (1 - np.cos(np.pi * u)) / 2,
        "in cubic": u**3,
        "out cubic": 1 - (1 - u) ** 3,
        "smoothstep": u**2 * (3 - 2 * u),
    }[kind]


EASES = ["pan", "in-out quadratic", "in-out cubic", "in-out sine", "in cubic", "out cubic", "smoothstep"]


@pytest.mark.parametrize("kind", EASES)
@pytest.mark.parametrize("direction", [(0.0, 1.0), (0.0, -1.0), (1.0, 0.0), (0.8, 0.6)], ids=["down", "up", "across", "slope"])
def test_what_only_looks_ballistic_gives_neither_g_nor_friction(kind, direction):
    track = flown(count=50, noise=0.1)
    path = 500 + np.outer(400 * eased(kind), direction)
    track.positions[:] = path + np.random.default_rng(0).normal(0, 0.1, path.shape)
    motion = measure_motion(track, Scales(EXACT))
    assert motion.gravity is None
    assert motion.ramp is None or motion.ramp.reason
    assert motion.pendulum is None
    assert motion.reason
    assert "\n" not in motion.reason


def test_the_kind_is_recognised():
    assert likely_kind(along(slid(0.2, 30, 0.0), 30)) == "ramp"
    assert likely_kind(along(slid(0.25, 0, 1.0), 0)) == "ramp"
    assert likely_kind(flown()) == "fall"
    assert likely_kind(along(G * (np.arange(50) / 60) ** 2 / 2, 89)) == "fall"
    with pytest.raises(Unmeasurable, match="straight line"):
        measure_ramp(flown(), EXACT)


def test_a_drawn_slide_from_pixels_to_friction():
    s = slid(0.3, 0, 2.0, count=40, fps=40.0)
    path = np.stack([40 + 300 * s, np.full(40, 150.0)], axis=1)
    times = torch.arange(40, dtype=torch.float64) / 40
    shared = {"metres_per_pixel": 1 / 300, "scale_error": 0.01, "laws": False}
    result = measure_frames(film(path, size=(240, 320)), times, Settings(**shared, ramp_angle=0.0))
    assert result.kind == "ramp"
    assert result.ramp.low < 0.3 < result.ramp.high
    assert "as given" in result.sentence
    assert result.to_json()["ramp"]["friction"]["value"] == pytest.approx(0.3, abs=0.03)
    forced = measure_frames(film(path, size=(240, 320)), times, Settings(**shared, motion="fall"))
    assert forced.gravity is None
    assert forced.reason
