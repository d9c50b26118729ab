"""Force adherence: an analytic renderer scores 1 everywhere; frozen, drifting and disobedient ones do not."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from visviva.data.clip import Clip
from visviva.data.dataset import write_rows
from visviva.data.video import write_video
from visviva.errors import InputError
from visviva.eval.benchmarks import Inputs, run
from visviva.eval.benchmarks.force import Trial, adherence
from visviva.eval.benchmarks.force_clips import carried, measured
from visviva.eval.collection import Item
from visviva.models.probes.dis import DIS
from visviva.physics.measurement import Measurement

COUNT, SIZE, FORCES = 8, 96, (0.0, 8.0, 16.0, 24.0, 32.0, 40.0)
STATISTICS = {"resamples": 200}


def path(angle, force, mass):
    """x0 + (F / 2m) u t^2, y down."""
    time = np.arange(COUNT)[:, None] / COUNT
    command = np.array([math.cos(math.radians(angle)), -math.sin(math.radians(angle))])
    return 48 + force / (2 * mass) * command * time**2


def trials(move=path):
    found = {}
    for angle in (0, 90, 215):
        for mass in (1.0, 2.0):
            for force in FORCES:
                d = np.diff(move(angle, force, mass)[[0, -1]], axis=0)[0]
                u = (math.cos(math.radians(angle)), -math.sin(math.radians(angle)))
                word = "light" if mass == 1 else "heavy"
                found[f"{angle} {mass} {force}"] = Trial((d[0], d[1]), u, force, SIZE, 0.0, f"s{angle}", word)
    return found


def test_newton_scores_one_everywhere():
    result = adherence(trials(), statistics=STATISTICS)
    for name in ("direction", "within_30", "response", "magnitude", "locality", "mass_order"):
        assert result[name].value == pytest.approx(1), name
    assert result["drift"].value == 0
    assert result["drift"].lower_is_better
    assert result.skipped == {}


def test_a_frozen_model_responds_to_nothing():
    result = adherence(trials(lambda a, f, m: np.full((COUNT, 2), 48.0)), statistics=STATISTICS)
    assert result["response"].value == 0
    assert math.isnan(result["direction"].value)
    assert result["direction"].used == 0
    assert result["magnitude"].value == 0
    assert result["drift"].value == 1
    assert result["mass_order"].value == 0


def test_a_model_that_always_moves_alike_drifts():
    result = adherence(trials(lambda a, f, m: path(0, 40, 1)), statistics=STATISTICS)
    assert result["response"].value == 1
    assert result["drift"].value == pytest.approx(1)
    assert result["magnitude"].value == 0
    assert result["direction"].value < 0.5


def test_a_model_that_obeys_backwards():
    result = adherence(trials(lambda a, f, m: path(a + 180, f, m)), statistics=STATISTICS)
    assert result["direction"].value == pytest.approx(-1)
    assert result["within_30"].value == 0


def test_what_a_set_cannot_tell_is_skipped_with_the_reason():
    result = adherence({"a": Trial((4.0, 0.0), (1.0, 0.0), 2.0, 96.0)})
    assert result["direction"].value == 1
    assert set(result.skipped) == {"magnitude", "drift", "mass_order"}
    assert "five magnitudes" in result.skipped["magnitude"]


def test_a_disc_is_carried_along():
    flow = torch.zeros(5, 2, 64, 64)
    flow[:, 0, :, 20:] = 2.0
    moved = carried(flow, (30.0, 30.0), 5.0)
    assert moved[-1].tolist() == [40, 30]
    assert carried(flow, (8.0, 30.0), 5.0)[-1].tolist() == [8, 30]


def draw(angle, force, mass):
    ys, xs = np.mgrid[:SIZE, :SIZE]
    wall = np.random.default_rng(0).uniform(60, 120, (SIZE, SIZE, 3))
    texture = np.random.default_rng(1).uniform(150, 250, (SIZE, SIZE, 3))
    frames = []
    for x, y in path(angle, force, mass):
        inside = np.clip(16.5 - np.hypot(xs - x, ys - y), 0, 1)[..., None]
        skin = np.roll(texture, (round(y) - 48, round(x) - 48), (0, 1))
        frames.append(wall * (1 - inside) + skin * inside)
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float() / 255


def test_drawn_clips_are_measured_by_flow(tmp_path):
    rows = []
    for angle, force in ((0, 30.0), (0, 0.0), (90, 30.0)):
        name = f"{angle}-{force:.0f}.mp4"
        write_video(tmp_path / name, draw(angle, force, 1.0), 8.0, crf=5)
        poke = {"force_angle": angle, "force_magnitude": force, "x": 48, "y": 48, "scene": f"s{angle}"}
        rows.append({"file_name": name, "caption": "", **poke})
    write_video(tmp_path / "no force.mp4", draw(0, 0.0, 1.0), 8.0)
    rows.append({"file_name": "no force.mp4", "caption": ""})
    write_rows(tmp_path / "metadata.jsonl", rows)
    result = run("force", Inputs([str(tmp_path)], statistics=STATISTICS))
    assert result["direction"].value > 0.95
    assert result["response"].value == 1
    assert result["locality"].value > 0.8
    assert result["drift"].value < 0.1
    clips = {r.key: r for r in result.clips}
    assert clips["0-30"].motion * SIZE == pytest.approx(15 * (7 / 8) ** 2, rel=0.15)
    assert "no force_angle" in clips["no force"].failure


def test_clips_without_commands_are_skipped(tmp_path):
    write_video(tmp_path / "a.mp4", draw(0, 10.0, 1.0), 8.0)
    assert "force_angle" in run("force", Inputs([str(tmp_path)])).skipped["all"]


def poked(**meta):
    """A clip in which the second of two objects moves 10 px to the right, and its true masks at half the size."""
    frames = torch.full((6, 3, SIZE, SIZE), 0.3)
    masks = torch.zeros(6, 2, SIZE // 2, SIZE // 2, dtype=torch.bool)
    masks[:, 0, 5:10, 5:10] = True
    frames[:, 0, 10:20, 10:20] = 0.9
    for k in range(6):
        frames[k, 2, 60:70, 40 + 2 * k : 50 + 2 * k] = 0.9
        masks[k, 1, 30:35, 20 + k : 25 + k] = True
    meta = {"force_angle": 0, "force_magnitude": 1.0} | meta
    clip = Clip(frames, 8.0, meta=meta)
    return Item("a", Path("a.mp4"), lambda: clip, lambda: Clip(frames, 8.0, masks=masks), {})


@pytest.mark.parametrize(("x", "y", "length"), [(15, 15, 0.0), (45, 65, 10.0), (40, 75, 10.0)])
def test_the_true_object_at_the_place_is_the_one_that_is_poked(x, y, length):
    trial = measured(poked(x=x, y=y), DIS())
    assert trial.length == pytest.approx(length, abs=0.3)
    assert trial.direction == (1, 0)


@pytest.mark.parametrize(
    ("meta", "words"),
    [
        ({}, "2 objects are there in the first true frame; say by x, y"),
        ({"x": 80, "y": 30}, "no true object is within 15 px"),
        ({"x": 5000, "y": 15}, "x = 5000; give a finite number from 0 to 95"),
        ({"x": float("nan"), "y": 15}, "give a finite number"),
        ({"x": 15, "y": 15, "force_angle": "left"}, "force_angle = 'left'; give a finite number$"),
        ({"x": 15, "y": 15, "force_angle": None}, "force_angle = None"),
        ({"x": 15, "y": 15, "force_magnitude": "nan"}, "give a finite number of 0 or more"),
        ({"x": 15, "y": 15, "force_magnitude": -1}, "force_magnitude = -1; give a finite number of 0 or more"),
    ],
)
def test_commands_and_places_that_cannot_be_are_refused(meta, words):
    with pytest.raises(InputError, match=words):
        measured(poked(**meta), DIS())


def test_the_flow_of_a_long_clip_is_measured_in_parts():
    seen = []

    class Parts:
        def __call__(self, frames, fps):
            seen.append(frames.shape[1])
            flow = torch.zeros(1, frames.shape[1] - 1, 2, SIZE, SIZE)
            flow[:, :, 0] = 0.5
            return Measurement(fps=fps, flow=flow)

    clip = Clip(torch.zeros(40, 3, SIZE, SIZE), 8.0, meta={"force_angle": 0, "force_magnitude": 1.0, "x": 30, "y": 30})
    trial = measured(Item("a", Path("a.mp4"), lambda: clip, None, {}), Parts())
    assert seen == [17, 17, 8]
    assert trial.displacement == pytest.approx((19.5, 0))
    assert trial.outside == pytest.approx(19.5)
