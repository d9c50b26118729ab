"""Gravity from a track: closed forms, drag, rolling shutter, coverage of the interval, error budget, refusals."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from drawn_films import film, parabola
from flown_tracks import EXACT, PIXELS_PER_METRE, flown

from visviva.errors import InputError
from visviva.eval.ballistics import correlation_time
from visviva.eval.flight import measure_flight
from visviva.eval.gravity import Scale, measure_gravity, scale_from_object
from visviva.eval.recording import Settings, measure_frames
from visviva.eval.track import Unmeasurable


def measured(track, scale=EXACT, **settings):
    return measure_gravity(track, measure_flight(track), scale, **settings)


def test_a_perfect_throw_gives_g_exactly():
    track = flown(noise=0.0)
    flight = measure_flight(track)
    assert flight.acceleration == pytest.approx((0, 9.81 * PIXELS_PER_METRE), abs=2.0)
    assert flight.ratio < 1e-4
    assert flight.breaks == []
    assert not flight.drifting
    assert measured(track).value == pytest.approx(9.81, rel=2e-3)


@pytest.mark.parametrize("drag", [0.02, 0.13])
@pytest.mark.parametrize("readout", [0.0, 0.6])
def test_drag_and_rolling_shutter_are_told_from_gravity(drag, readout):
    track = flown(drag=drag, readout=readout, noise=0.05, count=90, fps=90)
    result = measured(track)
    assert result.value == pytest.approx(9.81, rel=0.02)
    assert result.drag[0] == pytest.approx(drag, abs=0.05)
    assert result.readout[0] == pytest.approx(readout, abs=0.3)
    assert abs(result.plain - 9.81) > abs(result.value - 9.81) or abs(result.plain - 9.81) < 0.05


def test_a_rolled_camera_is_allowed_for():
    result = measured(flown(roll=math.radians(2)))
    assert result.low < 9.81 < result.high
    assert result.roll == pytest.approx(math.tan(math.radians(2)), abs=0.01)


def test_the_interval_contains_the_truth_at_least_19_times_in_20():
    """Priors of the simulation as the model states them; the interval is allowed to be wider, not narrower, than 95 %."""
    random, hits, halves = np.random.default_rng(7), 0, []
    for trial in range(60):
        scale_error = 0.02
        track = flown(
            drag=abs(random.normal(0, 0.1)), readout=random.uniform(0, 0.7), roll=random.normal(0, 0.03), noise=0.4, seed=trial
        )
        scale = Scale((1 + scale_error * random.normal()) / PIXELS_PER_METRE, scale_error, "simulated")
        result = measured(track, scale)
        hits += result.low <= 9.81 <= result.high
        halves.append(result.half_width)
    assert hits / 60 >= 0.92
    assert np.median(halves) < 0.08


def test_the_budget_adds_up_and_grows_with_what_is_not_known():
    track = flown()
    exact, rough = measured(track), measured(track, Scale(1 / PIXELS_PER_METRE, 0.03, "rough"))
    total = 1.959964 * math.sqrt(sum(e**2 for e in rough.budget.values()))
    assert rough.half_width == pytest.approx(total, rel=1e-6)
    assert rough.half_width > exact.half_width + 0.02
    assert measured(flown(noise=1.0)).budget["tracking"] > exact.budget["tracking"]
    assert measured(track, timing_error=0.02).budget["timing"] == pytest.approx(0.04)
    assert set(rough.budget) == {
        "scale",
        "tracking",
        "drag and roll",
        "rolling shutter",
        "timing",
        "depth",
        "pitch",
        "windows",
    }
    assert "most of it comes from scale" in rough.sentence
    assert len(rough.windows) == 3


def test_correlated_noise_counts_for_more_than_white_noise():
    random = np.random.default_rng(0)
    white = random.normal(size=(400, 2))
    smooth = np.array([np.convolve(white[:, a], np.ones(9) / 3, "same") for a in range(2)]).T
    assert correlation_time(white) < 1.6
    assert correlation_time(smooth) == pytest.approx(9, rel=0.35)


def test_slow_motion_scales_g_by_the_square():
    path, times = parabola(40, 40.0, (40, 210), (230, -330), 9.81 * 38)
    frames = film(path, size=(240, 320))
    shared = {"metres_per_pixel": 1 / 38, "scale_error": 0.01, "laws": False}
    true = measure_frames(frames, torch.from_numpy(times), Settings(**shared))
    slowed = measure_frames(frames, torch.from_numpy(times * 4), Settings(**shared, time_scale=0.25))
    wrong = measure_frames(frames, torch.from_numpy(times * 4), Settings(**shared))
    assert true.gravity.value == pytest.approx(9.81, rel=0.03)
    assert slowed.gravity.value == pytest.approx(true.gravity.value, rel=1e-6)
    assert wrong.gravity.value == pytest.approx(true.gravity.value / 16, rel=0.02)
    assert "check the scale and the time scale" in wrong.gravity.sentence
    assert slowed.fps == pytest.approx(40)


def test_the_scale_of_a_known_object():
    track = flown()
    scale = scale_from_object(track, np.arange(60), 0.06, 0.01)
    assert scale.metres_per_pixel == pytest.approx(0.06 / 30, rel=0.01)
    assert 0.01 < scale.relative_error < 0.04
    with pytest.raises(InputError, match="positive number of metres"):
        scale_from_object(track, np.arange(60), 0.0)


def test_the_flight_ends_at_a_break_and_what_follows_is_listed_not_pooled():
    track = flown(count=80, noise=0.05)
    track.positions[50:, 1] -= 150 * (track.times[50:] - track.times[49])
    flight = measure_flight(track)
    assert abs(flight.breaks[0].frame - 49) <= 1
    assert abs(flight.frames[-1] - 49) <= 1
    assert [(a >= 49, b) for a, b, _ in flight.others] == [(True, 79)]
    assert measure_gravity(track, flight, EXACT).value == pytest.approx(9.81, rel=0.02)


def test_a_displaced_frame_is_left_out_and_named():
    track = flown(noise=0.05)
    track.positions[25] += (4, 4)
    flight = measure_flight(track)
    assert flight.displaced == [25]
    assert 25 not in flight.frames


def swinging(count=60):
    track = flown(count=count)
    phase = 2 * np.pi * track.times / 0.8
    track.positions[:] = np.stack([600 + 300 * np.sin(phase), 300 + 60 * np.cos(2 * phase)], axis=1)
    return track


def sideways():
    track = flown(noise=0.05)
    track.positions[:] = track.positions[:, ::-1].copy()
    return track


@pytest.mark.parametrize(
    ("track", "words"),
    [
        (swinging(), "does not move with one constant acceleration"),
        (flown(gravity=0.0, velocity=(2.0, -1.0)), "too straight"),
        (sideways(), "degrees away from down"),
    ],
    ids=["pendulum", "straight", "sideways"],
)
def test_what_is_no_free_fall_says_why_in_one_sentence(track, words):
    with pytest.raises(Unmeasurable, match=words) as refusal:
        measured(track)
    assert "\n" not in str(refusal.value)


def test_few_frames_and_a_drifting_acceleration_are_refused():
    short = flown(count=60)
    short.positions[7:] = np.nan
    with pytest.raises(Unmeasurable, match="7 frames"):
        measure_flight(short)
    track = flown(noise=0.05, size=(720, 1280), velocity=(4.0, -4.5))
    jerk = 450 * (track.times - track.times.mean()) ** 3
    track.positions[:, 1] += jerk
    flight = measure_flight(track)
    assert flight.drifting
    assert "is not one constant acceleration" in flight.sentence
    with pytest.raises(Unmeasurable, match="disagree on g"):
        measure_gravity(track, flight, EXACT)


def test_motion_in_depth_enters_the_budget():
    track = flown(noise=0.05, velocity=(1.5, -2.0))
    growing = replace(track, width=track.width * np.exp(0.1 * track.times))
    assert measured(growing).budget["depth"] > measured(track).budget["depth"] + 0.005
