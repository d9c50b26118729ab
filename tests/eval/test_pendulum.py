"""Pendulums of known length: small and large angles, damping, strikes, coverage, refusals; drawn ones through the tracker."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from drawn_films import film
from flown_tracks import flown

from visviva.eval.kind import Scales, likely_kind, measure_motion
from visviva.eval.pendulum import measure_pendulum, turns
from visviva.eval.recording import Settings, measure_frames
from visviva.eval.track import Unmeasurable

G = 9.806


def angles(times, length, start, linear=0.0, quadratic=0.0, wall=None):
    """The swing of a pendulum let go at an angle [rad], in steps of 0.2 ms; ``wall``: angle at which it is thrown back."""
    step, state, found, now = 2e-4, np.array([start, 0.0]), [], 0.0

    def slope(y):
        return np.array([y[1], -G / length * math.sin(y[0]) - 2 * linear * y[1] - quadratic * abs(y[1]) * y[1]])

    for t in times:
        while now < t - 1e-9:
            state = state + step * slope(state + step / 2 * slope(state))
            now += step
            if wall is not None and state[0] > wall and state[1] > 0:
                state = np.array([2 * wall - state[0], -0.75 * state[1]])
        found.append(state[0])
    return np.array(found)


def swung(length=0.5, start=0.3, count=120, fps=30.0, noise=0.2, arm=400.0, roll=0.0, seed=0, **options):
    """A track of a pendulum whose thread is ``arm`` pixels long."""
    track = flown(count=count, fps=fps, noise=noise, seed=seed, size=(900, 900))
    theta = angles(track.times - track.times[0], length, start, **options) + roll
    path = np.stack([450 + arm * np.sin(theta), 100 + arm * np.cos(theta)], axis=1)
    track.positions[:] = path + np.random.default_rng(seed).normal(0, noise, path.shape)
    return track


@pytest.mark.parametrize("start", [0.05, 0.3, 2.2])
def test_the_length_is_exact_at_every_angle(start):
    result = measure_pendulum(swung(start=start, noise=0.02))
    assert result.length == pytest.approx(0.5, rel=0.01)
    assert result.period == pytest.approx(2 * math.pi * math.sqrt(0.5 / G), rel=0.005)
    assert result.amplitude == pytest.approx(start, rel=0.1)
    assert result.low < 0.5 < result.high


def test_a_large_swing_is_slower_and_the_small_angle_formula_would_be_wrong():
    track = swung(start=1.2, noise=0.02)
    x = track.positions[:, 0] - 450
    crossings = track.times[1:][np.diff(np.sign(x)) != 0]
    naive = G * (2 * np.diff(crossings).mean() / (2 * math.pi)) ** 2
    assert naive > 0.5 * 1.15
    assert measure_pendulum(track).length == pytest.approx(0.5, rel=0.01)


def test_damping_is_measured_and_does_not_move_the_length():
    result = measure_pendulum(swung(linear=0.2, start=0.5))
    assert result.length == pytest.approx(0.5, rel=0.02)
    assert result.damping[0] == pytest.approx(0.2, abs=0.06)
    assert "gains energy" not in result.sentence
    assert measure_pendulum(swung(quadratic=0.3, start=0.6)).length == pytest.approx(0.5, rel=0.02)


def test_a_swing_played_backwards_gains_energy():
    track = swung(linear=0.3, start=0.5)
    track.positions[:] = track.positions[::-1].copy()
    result = measure_pendulum(track)
    assert result.damping[0] < 0
    assert "played backwards" in result.sentence


def test_a_pendulum_that_strikes_a_wall_is_measured_between_the_strikes():
    result = measure_pendulum(swung(start=-0.6, wall=-0.03, count=100))
    assert len(result.arcs) >= 2
    assert result.low < 0.5 < result.high
    assert result.half_width < 0.2
    assert "between strikes" in result.sentence


def test_the_interval_contains_the_truth_as_often_as_it_says():
    random, hits, halves = np.random.default_rng(3), 0, []
    for trial in range(10):
        length, start = random.uniform(0.2, 1.5), random.uniform(0.1, 1.0)
        options = {"roll": random.normal(0, 0.03), "linear": random.uniform(0, 0.2), "count": int(random.integers(50, 80))}
        result = measure_pendulum(swung(length, start, noise=0.4, seed=trial, **options))
        hits += result.low < length < result.high
        halves.append(result.half_width)
    assert hits >= 9
    assert np.median(halves) < 0.05


def test_it_is_recognised_and_can_be_forced():
    assert likely_kind(swung()) == "pendulum"
    assert turns(swung()) >= 2
    assert turns(flown()) == 1
    assert measure_motion(swung(), Scales()).kind == "pendulum"
    assert measure_motion(flown(), Scales()).kind == "fall"
    forced = measure_motion(flown(), Scales(), "pendulum")
    assert forced.pendulum is None
    assert "\n" not in forced.reason
    assert forced.reason


def test_what_is_no_pendulum_is_refused():
    up_and_down = flown(count=90)
    up_and_down.positions[:] = np.stack([np.full(90, 500.0), 400 + 150 * np.sin(6 * up_and_down.times)], axis=1)
    with pytest.raises(Unmeasurable, match="pendulum"):
        measure_pendulum(up_and_down)
    zigzag = flown(count=90)
    zigzag.positions[:] = np.stack([500 + 30 * np.abs((np.arange(90) % 30) - 15.0), np.full(90, 400.0)], axis=1)
    with pytest.raises(Unmeasurable):
        measure_pendulum(zigzag)
    with pytest.raises(Unmeasurable, match="pendulum"):
        measure_pendulum(swung(count=13, fps=120, start=0.05))


def drawn(count, length, start, linear):
    """Times and places of a swing in a film, its thread 180 pixels long."""
    times = np.arange(count) / 30
    theta = angles(times, length, start, linear=linear)
    return times, np.stack([160 + 180 * np.sin(theta), 20 + 180 * np.cos(theta)], axis=1)


def test_a_drawn_pendulum_from_pixels_to_metres():
    times, path = drawn(75, 0.6, 0.6, 0.1)
    result = measure_frames(film(path), torch.from_numpy(times), Settings(metres_per_pixel=0.6 / 180, laws=False))
    assert result.kind == "pendulum"
    assert result.pendulum.low < 0.6 < result.pendulum.high
    assert result.pendulum.half_width < 0.1
    assert result.gravity is None
    assert result.pendulum.arm == pytest.approx(180, rel=0.15)
    assert any("arm from pivot" in note for note in result.notes)
    assert result.to_json()["pendulum"]["length"]["unit"] == "m"


def test_a_ball_that_comes_to_rest_in_the_background_is_followed_there():
    """At rest for most of the clip it is part of the temporal median; it is found there by its colour."""
    times, path = drawn(120, 0.5, 0.7, 1.6)
    result = measure_frames(film(path), torch.from_numpy(times), Settings(laws=False))
    assert result.track.seen.mean() > 0.9
    off = result.track.positions - path
    assert np.nanmax(np.linalg.norm(off - np.nanmedian(off, axis=0), axis=1)) < 1.5
    assert result.pendulum.low < 0.5 < result.pendulum.high
