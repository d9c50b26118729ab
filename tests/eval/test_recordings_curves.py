"""Curves with error bands and verdicts on tracks whose motion is known: coverage, conserved energy, every break by its name."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from flown_tracks import EXACT, PIXELS_PER_METRE, flown
from test_pendulum import swung
from test_ramp import along, slid

from visviva.eval import plots, recording_plots
from visviva.eval.breaks import find_breaks
from visviva.eval.curves import Curves
from visviva.eval.kind import Scales, measure_motion
from visviva.eval.notes import flight_notes
from visviva.eval.recording import Recording
from visviva.eval.recording_report import figures
from visviva.eval.verdict import WEIGHTS, judge

PULL = (0.0, 9.81 * PIXELS_PER_METRE)


def test_bands_hold_the_true_velocity_and_acceleration_as_often_as_they_say():
    hits, count = np.zeros(2), 0
    for seed in range(8):
        track = flown(noise=0.3, seed=seed)
        curves = Curves.of(track, [], PULL)
        t = track.times - 0.02
        truth = np.stack([1.5 + 0 * t, -4.5 + 9.81 * (t + 0.02)], axis=1) * PIXELS_PER_METRE
        inside = np.abs(curves.velocity - truth) < 1.96 * curves.sigmas[1][:, None]
        pushed = np.abs(curves.acceleration - np.array(PULL)) < 1.96 * curves.sigmas[2][:, None]
        hits += inside.mean(), pushed.mean()
        count += 1
    assert (hits / count > 0.9).all(), hits / count


def test_energy_is_conserved_in_flight_and_lost_at_a_break():
    curves = Curves.of(flown(noise=0.05), [], PULL, 1 / PIXELS_PER_METRE)
    energy, sigma = curves.energy
    assert curves.unit == "m"
    inner = slice(5, -5)  # the ends of a smoothed derivative are wide, and their bands say so
    assert np.std(energy[inner]) < 2 * np.median(sigma[inner])
    assert np.ptp(curves.kinetic[0][inner]) > 100 * np.std(energy[inner])
    track = flown(noise=0.05)
    track.positions[31:, 1] += -1000.0 * (track.times[31:] - track.times[30])
    breaks = find_breaks(track.positions, track.times, track.sigma)
    lost = Curves.of(track, breaks, PULL, 1 / PIXELS_PER_METRE).energy[0]
    assert abs(np.nanmedian(lost[35:]) - np.nanmedian(lost[:28])) > 10 * np.nanstd(lost[:28])
    assert np.isnan(Curves.of(track, breaks).energy[0]).all()  # without gravity no potential, and it says so


@pytest.mark.parametrize("scale", [None, EXACT])
def test_curves_agree_with_the_fit_under_a_rolling_shutter(scale):
    """Over the frames' own times the acceleration seems to grow along the flight, and so does the energy."""
    track = flown(readout=0.9, noise=0.05, count=28, fps=30.0, velocity=(1.0, -5.0), size=(960, 720))
    motion = measure_motion(track, Scales(scale=scale))
    curves = Recording("throw", count=28, track=track, flight=motion.flight, gravity=motion.gravity).curves()
    metres = 1.0 if scale is None else scale.metres_per_pixel
    blind = Curves.of(track, [], motion.flight.acceleration, metres)
    inner, swing = slice(5, -5), np.ptp(curves.kinetic[0][5:-5])
    pushed = [c.acceleration[inner, 1] / metres / PULL[1] for c in (curves, blind)]
    grown = [np.polyfit(np.linspace(0, 1, 18), p, 1)[0] for p in pushed]
    assert abs(grown[0]) < 0.02
    assert abs(grown[1]) > 0.25
    assert np.ptp(curves.energy[0][inner]) < 0.02 * swing
    assert np.ptp(blind.energy[0][inner]) > 0.15 * swing
    assert (np.abs(pushed[0] - 1) < 1.96 * curves.sigmas[2][inner] / metres / PULL[1]).mean() > 0.85


def test_one_readout_is_named_and_the_other_called_what_it_is():
    track = flown(readout=0.9, drag=0.03, noise=0.05, count=28, fps=30.0, velocity=(1.0, -5.0), size=(960, 720))
    motion = measure_motion(track, Scales(scale=EXACT))
    notes = flight_notes(motion.flight, motion.gravity)
    said = next(note for note in notes if "rolling shutter" in note)
    assert f"{motion.gravity.readout[0]:.0%} +- {motion.gravity.readout[1]:.0%} of the frame time" in said
    assert f"{motion.flight.readout[0]:.0%} +- {motion.flight.readout[1]:.0%} if there is none" in said
    content = motion.flight.to_json()["readout_share_of_frame_time"], motion.gravity.to_json()["readout_share_of_frame_time"]
    assert [c["drag"] for c in content] == ["left out", "fitted"]
    without = flight_notes(motion.flight)
    assert any(f"{motion.flight.readout[0]:.0%} +-" in note and "drag" not in note for note in without)


def test_every_kind_of_motion_has_its_figure():
    for track, kind, names in (
        (flown(count=40), "fall", ["flight", "gravity"]),
        (swung(count=80), "pendulum", ["pendulum"]),
        (along(slid(0.2, 20.0, 0.0), 20.0), "ramp", ["ramp"]),
    ):
        motion = measure_motion(track, Scales(scale=EXACT), kind)
        measured = Recording("x", track=track, flight=motion.flight, gravity=motion.gravity)
        drawn = figures(replace(measured, pendulum=motion.pendulum, ramp=motion.ramp))
        assert list(drawn) == names
        for draw, width, height in drawn.values():
            assert plots.rendered(draw, width, height)[0][:4] == b"\x89PNG"


def verdict(track, **known):
    motion = measure_motion(track, Scales(**known))
    return judge(track, motion, find_breaks(track.positions, track.times, track.sigma))


def with_path(change):
    track = flown(noise=0.05, count=60)
    track.positions[:] = change(track.positions.copy(), track.times, np.arange(60))
    return track


def skipped(p, t, k):
    """Three frames left out from frame 30 on: the path that the throw takes, continued."""
    later = k >= 30
    q = p.copy()
    v = np.array([1.5, -4.5]) * PIXELS_PER_METRE
    s = t + np.where(later, 3 / 60, 0.0)
    q[:] = p + ((s - t) * v[0])[:, None] * np.array([1.0, 0.0])
    q[:, 1] = p[:, 1] + (s - t) * v[1] + 9.81 * PIXELS_PER_METRE * (s**2 - t**2) / 2
    return q


def stopped(p, t, k):
    return p[np.minimum(k, 45)]


def floated(p, t, k):
    v = (p[31] - p[29]) / 2
    return np.where((k > 30)[:, None], p[30] + (k - 30)[:, None] * v, p)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (skipped, "skips time"),
        (stopped, "stops dead"),
        (floated, "floats"),
        (lambda p, t, k: p + 40.0 * (k >= 30)[:, None] * np.array([-0.2, 1.0]), "jumps"),
        (lambda p, t, k: p + np.random.default_rng(0).normal(0, 3, p.shape), "jitters"),
    ],
)
def test_what_is_broken_is_named_and_costs(change, name):
    found = verdict(with_path(change))
    assert name in [f.name for f in found.findings], found.sentence
    assert found.score < 0.5 < verdict(flown(noise=0.05)).score
    assert found.sentence.count("\n") == 0
    assert found.findings[0].sentence in found.sentence


def test_a_true_throw_has_nothing_against_it_and_the_ends_of_a_path_count():
    track = flown(noise=0.05)
    assert verdict(track).score == 1.0
    assert "nothing was found" in verdict(track).sentence
    gone = verdict(replace(track, ends=("clip", "vanished")))
    assert [f.name for f in gone.findings] == ["vanishes"]
    assert gone.score == pytest.approx(1 / (1 + WEIGHTS["vanishes"]))
    for end, name in (("stopped", "stops dead"), ("jumps", "jumps"), ("skips 3.0 frames", "skips time")):
        assert [f.name for f in verdict(replace(track, ends=("clip", end))).findings] == [name]


def test_an_object_may_rest_where_it_is_lowest_and_before_it_is_let_go_but_not_in_mid_air():
    rising = flown(noise=0.05, count=28)  # ends at the top
    assert [f.name for f in verdict(replace(rising, ends=("clip", "rests"))).findings] == ["floats"]
    assert verdict(replace(rising, ends=("rests", "clip"))).findings == []
    assert verdict(replace(flown(noise=0.05), ends=("clip", "rests"))).findings == []


def test_a_flight_with_drag_played_backwards_and_a_wrong_rate_are_seen():
    track = flown(drag=0.13, noise=0.05, count=90, fps=90)
    assert "runs backwards" not in [f.name for f in verdict(track).findings]
    track.positions[:] = track.positions[::-1].copy()
    assert "runs backwards" in [f.name for f in verdict(track).findings]
    fast = verdict(flown(gravity=22.0, noise=0.05), scale=EXACT)
    assert [f.name for f in fast.findings] == ["wrong rate"]
    assert "1.50 times as fast" in fast.sentence


def test_a_pendulum_is_sound_and_strikes_cost_little():
    assert verdict(swung(count=80)).score == 1.0
    struck = verdict(swung(start=-0.6, wall=-0.03, count=80))
    assert struck.score > 0.55
    assert {f.name for f in struck.findings} <= {"is struck"}


def test_the_figures_are_drawn():
    track = flown(count=40)
    frames = np.zeros((40, 36, 64, 3), np.uint8)
    law = np.full(40, np.nan)
    for draw, size in (
        (recording_plots.curves(track, Curves.of(track, [], PULL), []), (6, 3)),
        (recording_plots.timeline(frames, np.zeros(40), law, [], 4), (6, 2)),
    ):
        light, dark = plots.rendered(draw, *size)
        assert light[:4] == dark[:4] == b"\x89PNG"
        assert light != dark


@pytest.mark.parametrize("kind", ["flight", "swing"])
def test_the_path_panel_is_square_and_shows_the_whole_path(kind):
    """A ball thrown straight up was a hair line before."""
    from matplotlib.figure import Figure

    track = flown(count=40, velocity=(0.0, -4.5)) if kind == "flight" else swung(count=80)
    motion = measure_motion(track, Scales(), "fall" if kind == "flight" else "pendulum")
    measured = motion.flight if kind == "flight" else motion.pendulum
    figure = Figure(figsize=(10, 2.5), layout="constrained")
    drawn = recording_plots.flight(track, measured, None) if kind == "flight" else recording_plots.swing(track, measured)
    drawn(figure, plots.LIGHT)
    path = figure.axes[0]
    (x0, x1), (bottom, top) = path.get_xlim(), path.get_ylim()
    assert x1 - x0 == pytest.approx(bottom - top)
    assert x0 < track.positions[track.seen, 0].min() < track.positions[track.seen, 0].max() < x1
    assert top < track.positions[track.seen, 1].min() < track.positions[track.seen, 1].max() < bottom
