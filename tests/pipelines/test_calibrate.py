"""Calibration: the AUC is a probability, tables are complete and repeatable, wrong input is named."""

import json

import pytest
import torch

from visviva.configs.calibrate import CalibrateRecipe
from visviva.errors import InputError
from visviva.eval.calibrate import VARIANTS, altered, read, scenes_of, variants
from visviva.eval.eyes import Eyes, photographed
from visviva.eval.probe_error import gate_disagreement, probe_error
from visviva.eval.reading import Reading, auc, interval, wilson
from visviva.eval.robustness import disturbed, h264, jpeg, noise_floor
from visviva.models.probes import DIS, LucasKanade, Oracle, PatchFeatures
from visviva.physics import LAWS, ConstantAcceleration, Gate, Measurement
from visviva.physics.kinematics import object_velocity
from visviva.physics.motions import KINDS, draw
from visviva.physics.sprites import random_sprites
from visviva.physics.violations import VIOLATIONS
from visviva.pipelines import calibrate


def test_auc_is_the_probability_that_a_violated_clip_lies_above_a_true_one():
    low, high = torch.tensor([0.0, 1.0, 2.0]), torch.tensor([3.0, 4.0])
    assert auc(low, high) == 1.0
    assert auc(high, low) == 0.0
    assert auc(low, low) == 0.5
    assert auc(torch.tensor([0.0, 2.0]), torch.tensor([1.0])) == 0.5


def test_a_reading_summarises_truth_and_violations():
    found = Reading(torch.arange(101.0) / 100, {"jitter": torch.full((101,), 2.0)}).summary(("jitter",))
    assert found["perfect"] == {"median": 0.5, "p95": 0.95, "max": 1.0}
    assert found["floor"] == 0.95
    told = {"auc": 1.0, "interval": [1.0, 1.0], "paired": 1.0, "median": 2.0, "declared": True}
    assert found["violations"]["jitter"] == told


def test_the_interval_of_an_auc_holds_it_and_narrows_with_more_clips():
    generator = torch.Generator().manual_seed(0)
    widths = []
    for count in (20, 320):
        truth, violated = torch.randn(count, generator=generator), torch.randn(count, generator=generator) + 1
        low, high = interval(truth, violated)
        assert low < auc(truth, violated) < high
        assert low < 0.76 < high  # the normal law's area at one standard deviation
        widths.append(high - low)
    assert widths[1] < 0.5 * widths[0]


def test_a_violation_is_compared_with_the_clips_that_it_applies_to():
    nan = float("nan")
    values = torch.tensor([5.0, 5.0, 0.0, 0.0]), {"wrong_g": torch.tensor([nan, nan, 1.0, 1.0])}
    found = Reading(*values, ("falls", "falls", "moves", "moves"), torch.tensor([True, True, True, False])).summary(
        ("wrong_g",)
    )
    assert found["violations"]["wrong_g"]["auc"] == 1.0
    assert found["applies"] == 0.75
    assert found["kinds"]["falls"] == {"clips": 2, "p95": 5.0, "auc": {}}
    assert found["kinds"]["moves"]["auc"] == {"wrong_g": 1.0}


def test_the_alarm_is_set_on_one_half_and_tried_on_the_other():
    truth = torch.arange(200.0)
    alarm = Reading(truth, {"jitter": torch.full((200,), 199.0)}).alarm(("jitter",))
    assert alarm["threshold"] == 196.0  # the first of the even numbers with 98 % of them at or below
    assert alarm["false_alarms"] == pytest.approx(2 / 100)
    assert alarm["interval"][0] < 0.02 < alarm["interval"][1]
    assert alarm["detected"] == {"jitter": 1.0}
    apart = Reading(truth, {"jitter": truth + 50}, perfect=torch.arange(100.0)).alarm(("jitter",))
    assert (apart["threshold"], apart["set_on"], apart["clips"]) == (98.0, 100, 200)
    assert apart["false_alarms"] == pytest.approx(101 / 200)
    assert apart["detected"] == {"jitter": pytest.approx(151 / 200, abs=1e-4)}
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)  # Wilson (1927), 95 %


def test_every_law_is_read_in_its_own_forms_and_on_scenes_that_can_be_drawn():
    assert set(VARIANTS) <= set(LAWS)
    for name in LAWS:
        for law in variants(name).values():
            assert isinstance(law, LAWS[name])
            assert set(scenes_of(law)) <= set(KINDS)


def test_the_error_of_a_probe_that_knows_is_zero_and_of_a_biased_one_its_bias():
    scene = random_sprites(4, seed=1)
    drawn = scene.render()
    assert probe_error([drawn], 32.0, Oracle(flow=drawn.flow)) == {"rms": 0.0, "median": 0.0, "bias": 0.0}
    assert probe_error([drawn], 32.0, Oracle(flow=1.1 * drawn.flow))["bias"] == pytest.approx(0.1, abs=1e-3)
    honest = gate_disagreement([drawn], 32.0, LucasKanade(), Gate(DIS()))
    assert 0 < honest["median"] < honest["p95"] < 0.3


def test_two_takes_of_one_scene_are_two_clips_of_eight_bits():
    frames = random_sprites(1, seed=1, frames=2).render().frames
    one, two = photographed(frames, 0), photographed(frames, 1)
    assert torch.equal(one, photographed(frames, 0))
    assert 0.003 < float((one - two).std()) < 0.03
    assert torch.allclose((one * 255).round(), one * 255, atol=1e-3)


def test_a_table_is_complete_repeatable_and_says_how_it_was_made(tmp_path):
    recipe = CalibrateRecipe(
        output=str(tmp_path / "one"), laws=["constant_acceleration", "motion_floor"], clips=4, batch=2, frames=9, size=40
    )
    folder = calibrate.run(recipe)
    assert sorted(path.name for path in folder.iterdir()) == ["constant_acceleration.json", "motion_floor.json"]
    table = json.loads((folder / "constant_acceleration.json").read_text())
    assert table["clips"] == 4
    assert table["command"].startswith("visviva calibrate calibration --laws constant_acceleration motion_floor --clips 4")
    assert table["source"]["scenes"] == "drawn"
    for variant in table["variants"].values():
        for side in ("true", "estimated"):
            assert set(variant[side]["violations"]) == {"jitter", "dead_stop", "float", "teleport"}  # of any of its forms
    floor = json.loads((folder / "motion_floor.json").read_text())["variants"]["half the reference"]
    assert set(floor["estimated"]["violations"]) == {"freeze", "empty"}
    assert table["variants"]["object"]["estimated"]["violations"]["jitter"]["auc"] == 1.0
    assert "constant_acceleration on 4 clips" in calibrate.summary(table)
    again = calibrate.run(recipe.model_copy(update={"output": str(tmp_path / "two")}))
    assert (again / "constant_acceleration.json").read_text() == (folder / "constant_acceleration.json").read_text()


def test_what_cannot_be_calibrated_is_named(tmp_path):
    with pytest.raises(InputError, match="did you mean 'motion_floor'"):
        calibrate.run(CalibrateRecipe(laws=["motion_flor"], output=str(tmp_path)))
    with pytest.raises(InputError, match="no features 'dino'"):
        calibrate.run(CalibrateRecipe(laws=["motion_floor"], output=str(tmp_path), clips=4, features="dino"))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made a folder"):
        calibrate.run(CalibrateRecipe(output=str(tmp_path / "file")))
    with pytest.raises(InputError, match="no dataset"):
        calibrate.run(CalibrateRecipe(output=str(tmp_path / "x"), dataset=str(tmp_path / "missing")))
    with pytest.raises(InputError, match="leave perfect or dataset out"):
        calibrate.run(CalibrateRecipe(output=str(tmp_path / "y"), dataset=str(tmp_path / "missing"), perfect=8))


def test_sweeps_extend_the_tables_that_are_there(tmp_path):
    recipe = CalibrateRecipe(output=str(tmp_path), laws=["rigid_shape"], clips=4, batch=4, perfect=4, frames=7, size=32)
    with pytest.raises(InputError, match="no table to extend"):
        calibrate.run(recipe.model_copy(update={"extend": True, "sweeps": 4}))
    plain = json.loads((calibrate.run(recipe) / "rigid_shape.json").read_text())
    assert plain["clips"] == 16
    assert plain["scenes"] == ["moves", "bounces", "collides", "spins"]
    assert set(plain["variants"]["default"]["estimated"]["kinds"]) == set(plain["scenes"])
    assert plain["variants"]["default"]["estimated"]["alarm"]["set_on"] == 16
    assert plain["variants"]["default"]["true"]["alarm"]["set_on"] == 8
    assert "robustness" not in plain
    calibrate.run(recipe.model_copy(update={"extend": True, "sweeps": 4}))
    swept = json.loads((tmp_path / "rigid_shape.json").read_text())
    found = swept.pop("robustness")
    assert swept == plain
    assert found["scenes"] == "moves"
    assert "--sweeps 4" in found["command"]
    assert list(found["noise"]) == ["0.05", "0.1", "0.25", "0.5", "1"]
    assert found["noise"]["1"]["p95"] > found["noise"]["0.05"]["p95"]
    assert set(found["resolution"]) == {"x0.5", "x1", "x2"}
    assert set(found["frame_rate"]) == {"x0.5", "x2"}
    assert set(found["compression"]) == {"jpeg 30", "h264 crf 23", "h264 crf 35"}
    assert found["resolution"]["x2"]["auc"]["size_drift"] == 1.0


def test_disturbed_measurements_are_off_by_what_they_say():
    scene = random_sprites(6, seed=1, frames=9, height=48, width=48)
    drawn = scene.render()
    measured = Measurement(fps=torch.full((6,), 32.0), flow=drawn.flow, masks=drawn.masks)
    off = disturbed(measured, 0.5)
    exact = measured.tracked()
    assert float((off.tracks.positions - exact.positions).std()) == pytest.approx(0.5, rel=0.2)
    assert bool((off.tracks.sigma >= 0.5).all())
    inside = (drawn.masks[:, :-1] > 0.9).float()
    slip = object_velocity(off.flow, inside)[0] - object_velocity(drawn.flow, inside)[0]
    assert float(slip.std()) == pytest.approx(0.5, rel=0.25)
    radius = (exact.area / torch.pi).sqrt()
    assert float(((off.tracks.spin - exact.spin) * radius[:, 1:]).std()) == pytest.approx(0.5, rel=0.25)
    assert torch.equal(disturbed(measured, 0.5).tracks.positions, off.tracks.positions)


def test_compression_spoils_frames_more_at_lower_quality():
    frames = random_sprites(1, seed=1, frames=4, height=48, width=48).render().frames
    clean = photographed(frames)
    for kind, levels in ((jpeg, (90, 20)), (h264, (18, 40))):
        fine, coarse = (float((kind(level)(frames, 0) - clean).abs().mean()) for level in levels)
        assert 0 < fine < coarse < 0.1, kind


def test_what_a_law_does_not_judge_is_told_from_what_it_calls_true():
    truth, broken = torch.tensor([0.0, 0.0, 0.0, 0.0]), torch.tensor([1.0, 1.0, 0.0, 0.0])
    valid, judged = torch.tensor([True, True, False, True]), torch.tensor([True, True, True, False])
    row = Reading(truth, {"float": broken}, valid=valid, judged={"float": judged}).summary(("float",))["violations"]["float"]
    assert (row["auc"], row["judged"], row["judged_auc"]) == (0.75, 0.5, 1.0)
    all_judged = Reading(truth, {"float": broken}, valid=valid | True, judged={"float": judged | True}).summary(("float",))
    assert "judged" not in all_judged["violations"]["float"]


def test_a_violation_that_changes_nothing_is_not_counted():
    scene = draw("moves", 4, seed=0, size=48, objects=1)
    path = scene.trajectory.clone()
    path[:2] = path[:2, :1]  # at rest
    scene = scene.with_(trajectory=path)
    assert altered(VIOLATIONS["dead_stop"](scene), scene).tolist() == [False, False, True, True]
    assert altered(VIOLATIONS["vanish"](scene), scene).all()
    assert altered(VIOLATIONS["noise"](scene), scene).all()
    exact, _ = read({"energy": ConstantAcceleration()}, [scene], 32.0)
    assert exact["energy"].violated["dead_stop"].isnan().tolist() == [True, True, False, False]


def test_a_violation_that_changes_no_clip_is_left_out():
    nothing = torch.full((4,), float("nan"))
    told = Reading(torch.rand(4), {"dead_stop": nothing, "vanish": torch.rand(4)}).summary(["dead_stop", "vanish"])
    assert list(told["violations"]) == ["vanish"]
    assert list(told["alarm"]["detected"]) == ["vanish"]


@pytest.mark.parametrize("name", ["motion_floor", "reference_flow", "trajectory_offset", "constant_acceleration"])
def test_under_small_errors_violated_clips_still_rank_above_true_ones(name):
    """Also for laws that compare: a violated clip that is its own reference violates nothing."""
    law = next(iter(variants(name).values()))
    scenes = [draw(kind, 4, seed=7, size=48) for kind in scenes_of(law)[:1]]
    found = noise_floor({name: law}, scenes, 32.0, Eyes(LucasKanade(), PatchFeatures()))[name]
    assert all(area == 1 for area in found["0.05"]["auc"].values()), found
