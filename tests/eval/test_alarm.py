"""Levels of laws: those of the shipped calibrations, and in what a clip differs from the clips that they speak of."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from drawn_films import film, parabola

from visviva.eval import report
from visviva.eval.alarm import Alarm, Conditions, told
from visviva.eval.laws import LawScore, read_laws
from visviva.eval.recording import Settings, measure_frames
from visviva.physics import calibration


@pytest.fixture(scope="module")
def throw():
    path, times = parabola(24, 30.0, (25.0, 175.0), (250.0, -270.0), 480.0)
    return film(path, radius=13.0), torch.from_numpy(times)


def test_the_level_is_the_alarm_of_the_law_as_it_is_estimated():
    alarm = Alarm.of("rigid_shape")
    assert alarm.level == calibration("rigid_shape")["variants"]["default"]["estimated"]["alarm"]["threshold"]
    assert (alarm.share, alarm.conditions.size, alarm.conditions.frames) == (0.98, 128, 17)
    object_form, material = (Alarm.of(f"constant_acceleration/{form}") for form in ("object", "material"))
    assert object_form.level < material.level
    assert Alarm.of("motion_floor") is None  # read with another floor than the calibrated one
    assert Alarm.of("no such law") is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, ""),
        ({"masks": None}, ""),
        ({"masks": False}, "without a known first one"),
        ({"size": 480}, "480 px, not 128"),
        ({"frames": 60}, "60 frames, not 17"),
        ({"fps": 120.0}, "120 frames/s, not 32"),
        ({"grain": 0.05}, "noise 0.050, not 0.010"),
    ],
)
def test_a_clip_unlike_the_calibrated_ones_is_beyond_them_and_its_value_no_verdict(change, said):
    alarm = Alarm.of("rigid_shape")
    beyond = alarm.beyond(replace(Conditions(128, 17, 32.0, 0.01, True), **change))
    assert said in beyond
    assert bool(said) == bool(beyond)
    answers = [told(value, alarm, beyond) for value in (0.5 * alarm.level, 2 * alarm.level)]
    assert answers == (["beyond its calibration"] * 2 if beyond else ["not above", "above"])
    assert told(1.0, None, "") == "not calibrated in this form"


@pytest.mark.parametrize("grain", [0.005, 0.02])
def test_the_noise_of_a_clip_is_seen(grain):
    random = np.random.default_rng(0)
    frames = torch.from_numpy(0.5 + random.normal(0, grain, (8, 3, 64, 64))).float()
    seen = Conditions.of(frames, 30.0)
    assert seen.grain == pytest.approx(grain, rel=0.05)
    assert (seen.size, seen.frames) == (64, 8)
    assert math.isnan(Conditions.of(frames[:1], 30.0).grain)


def test_a_recording_of_any_kind_is_beyond_the_calibration_of_laws_that_look_at_masks(throw, tmp_path):
    """Its masks were found: a sound throw may lie above a level, and the report must not let that look like a verdict."""
    result = measure_frames(*throw, Settings(), "throw")
    assert result.verdict.score == 1.0, result.verdict.sentence
    of_masks = [law for law in result.laws if law.valid and law.alarm is not None and "eulerian" not in law.law]
    assert len(of_masks) >= 4
    for law in of_masks:
        if law.law != "constant_acceleration/material":
            assert law.told == "beyond its calibration"
            assert "without a known first one" in law.beyond
        said = law.to_json()
        assert said["alarm"]["level"] == law.alarm.level
        assert said["told"] == law.told
    page = report.recordings(tmp_path / "r.html", [result]).read_text()
    assert page.count("<small>masks found") >= 3
    assert "perfect drawn clips" in page
    assert "the number is no verdict" in page


def test_a_clip_with_known_first_masks_like_the_calibrated_ones_is_judged_by_the_level():
    path, _ = parabola(17, 32.0, (30.0, 90.0), (100.0, -150.0), 300.0)
    frames = film(path, size=(128, 128), radius=9.0, noise=1.0).float() / 255
    ys, xs = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")
    masks = torch.stack([((xs - x) ** 2 + (ys - y) ** 2 <= 81)[None] for x, y in path.tolist()])
    scores = {s.law: s for s in read_laws(frames, 32.0, masks).scores}
    assert isinstance(scores["rigid_shape"], LawScore)
    assert scores["rigid_shape"].beyond == ""
    assert scores["rigid_shape"].told == "not above"
    assert scores["permanence"].told == "not above"
