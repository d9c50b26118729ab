"""The real recordings, end to end: what the reports say must agree with what is known of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from visviva.eval import report
from visviva.eval.ballistics import parabola
from visviva.eval.recording import Settings, measure_recording

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def folder(real):
    return real / "video"


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def projectile(folder):
    return measure_recording(folder / "bmc_projectile.mp4", Settings(metres_per_pixel=1 / 591.4))


@pytest.fixture(scope="module")
def tennis(folder):
    return measure_recording(folder / "tennis_throw_luca.mp4", Settings(object_size=0.067))


@pytest.fixture(scope="module")
def ball_up(folder):
    return measure_recording(folder / "ball_up_trflorian.mp4", Settings(laws=False))


@pytest.fixture(scope="module")
def pendulum(folder):
    return measure_recording(folder / "pendulum_necrosskull.mp4", Settings(laws=False))


def test_projectile_contains_9_81_within_ten_percent(projectile):
    gravity = projectile.gravity
    assert gravity.low < 9.81 < gravity.high
    assert gravity.half_width <= 0.10
    assert gravity.budget["windows"] > 0
    assert projectile.fps == pytest.approx(120.018, abs=1e-2)


def test_projectile_shows_its_timing_hiccup_as_a_local_residual(projectile):
    strongest = projectile.flight.breaks[0]
    assert strongest.frame in (104, 105)
    assert strongest.strength > 10
    flagged = projectile.to_json()["flight"]["frames_with_local_residual"]
    assert set(flagged) & {105, 106}
    assert len(flagged) <= 3
    assert int(projectile.flight.frames[-1]) <= 105
    assert projectile.flight.others[0][:2] == (105, 137)
    assert any("breaks" in note for note in projectile.notes)
    timeline = np.array(projectile.to_json()["timeline"]["jump_standard_errors"])
    assert int(timeline.argmax()) in (104, 105)
    assert np.delete(timeline, slice(101, 109)).max() < 5  # nowhere else
    assert [f.name for f in projectile.verdict.findings] == ["changes speed"]
    assert abs(projectile.verdict.findings[0].frame - 105) <= 4


def test_projectile_windows_disagree_as_the_hand_track_does_and_drag_explains_most_of_it(projectile, folder):
    """A parabola depends on the window, by hand and by tracker alike; the report prints the windows and counts their spread."""
    hand = np.genfromtxt(
        folder / "bmc_projectile_track.csv", delimiter=",", skip_header=2, encoding="utf-8-sig", usecols=(0, 1, 2)
    )
    times, track = projectile.track.times, projectile.track.positions
    for first, last, known in ((4, 70, 10.98), (4, 104, 10.39), (60, 104, 9.65)):
        part = slice(first, last + 1)
        by_hand = -parabola(times[part], hand[part, 1:])[0][1]
        ours = parabola(times[part], track[part] / 591.4)[0][1]
        assert by_hand == pytest.approx(known, abs=0.12)
        assert ours == pytest.approx(by_hand, abs=0.25)
    gravity = projectile.gravity
    plain = np.ptp([w.plain for w in gravity.windows])
    held = np.ptp([w.gravity for w in gravity.windows])
    assert plain > 1.0
    assert held < 0.5 * plain
    for window in gravity.windows:
        assert f"{window.plain:.2f}" in projectile.sentence


def test_projectile_camera_is_not_quite_fixed_and_is_compensated(projectile):
    assert projectile.track.camera.verdict == "compensated"
    assert projectile.track.sigma < 0.2
    assert projectile.track.seen.sum() > 125


def test_tennis_half_width_within_twelve_percent(tennis):
    gravity = tennis.gravity
    assert gravity.half_width <= 0.12
    assert gravity.low < 9.81 < gravity.high
    assert tennis.track.camera.verdict == "fixed"
    assert tennis.flight.ratio < 0.005
    assert any("Cut, not interpolated" in note for note in tennis.notes)
    width = 0.067 / gravity.scale.metres_per_pixel
    assert width == pytest.approx(56.5, rel=0.10)


def test_the_ball_thrown_up_is_measured_through_its_rolling_shutter_or_says_why(ball_up):
    """Hand in view, motion blur, no scale: a constant acceleration once the shutter is allowed for, and no g is claimed."""
    assert ball_up.gravity is None
    if not ball_up.reason:
        assert ball_up.flight.ratio < 0.005
        assert ball_up.flight.drift < 0.05
        assert any("rolling shutter" in note for note in ball_up.notes)
        plain = [
            parabola(ball_up.track.times[h], ball_up.track.positions[h])[0][1] for h in np.split(ball_up.flight.frames[:18], 2)
        ]
        assert abs(plain[1] - plain[0]) > 1000  # without the shutter the parts disagree [px/s^2]


def test_the_pendulum_gives_its_length_between_its_strikes_on_the_wall(pendulum):
    """Let go 30 degrees out it strikes the door frame at every swing, so its period is that of free arcs, not of the strikes.

    The thread is seen: it ends about 447 px above the resting ball, near (305, 84) of the middle frame. A ball of 40 mm (table
    tennis, as it looks) 34 px wide then makes the thread 0.52 m long; the interval of the period's length holds it.
    """
    measured = pendulum.pendulum
    assert pendulum.kind == "pendulum"
    assert pendulum.gravity is None
    assert pendulum.reason == ""
    assert measured.low < 0.52 < measured.high
    assert measured.half_width < 0.15
    assert measured.arm == pytest.approx(447, rel=0.12)
    assert measured.pivot[1] == pytest.approx(84, abs=50)
    assert len(measured.arcs) >= 4
    assert "between strikes" in pendulum.sentence
    assert pendulum.track.seen.mean() > 0.9
    strikes = [b.frame for b in measured.breaks if b.strength > 15]
    assert {18, 40, 61, 82, 103, 123} <= set(strikes)


def test_the_report_of_all_four(projectile, tennis, ball_up, pendulum, tmp_path):
    results = [projectile, tennis, ball_up, pendulum]
    page = report.recordings(tmp_path / "report.html", results)
    text = page.read_text()
    assert page.stat().st_size < 3e6
    assert "http" not in text
    assert "<script" not in text
    for result in results:
        assert result.name in text
        json.dumps(result.to_json(), allow_nan=False)
    assert text.count("<video") == 4
    assert "not measured" not in text
