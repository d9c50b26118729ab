"""The five metrics of a clip, the penalty for vanishing, the table, metrics.json, and comparisons of runs."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from visviva.errors import InputError
from visviva.eval.comparison import KINEMATIC, compare, paired
from visviva.eval.explanation import explain
from visviva.eval.newtonbench import FIVE, LOWER_IS_BETTER, UNITS, ClipScore, failed_clip, score_clip, table
from visviva.eval.run import Run, merged, write_json


def thrown(frames=12, size=48, side=8, gravity=0.5, start=(6, 30), velocity=(2.5, -4.0)):
    """Masks (T, 1, H, W) of a square on a parabola."""
    masks = torch.zeros(frames, 1, size, size, dtype=torch.bool)
    for t in range(frames):
        x = round(start[0] + velocity[0] * t)
        y = round(start[1] + velocity[1] * t + gravity * t * t / 2)
        masks[t, 0, max(y, 0) : max(y + side, 0), max(x, 0) : max(x + side, 0)] = True
    return masks


TRUE = thrown()


def values(score):
    return {m: score.penalised[m].value for m in UNITS}


def test_a_clip_against_itself_is_perfect_under_both_conventions():
    score = score_clip(TRUE, TRUE, 16.0, key="a")
    for metric in UNITS:
        perfect = 1.0 if metric == "iou" else 0.0
        assert score.penalised[metric].value == score.as_coded[metric].value == perfect
        assert score.penalised[metric].share == 1
    assert (score.lost, score.motion) == (0, 1)
    assert "follows the true path" in explain(score)


def test_scores_say_their_unit_direction_rate_and_length():
    score = score_clip(thrown(gravity=0.4), TRUE, 16.0)
    assert score.penalised["velocity_rmse"].unit == "H/s"
    assert score.penalised["velocity_rmse"].fps == 16
    assert score.penalised["velocity_rmse"].length == 48
    assert score.penalised["l2"].length == pytest.approx(48 * math.sqrt(2))
    assert score.penalised["l2"].fps is None
    assert [m for m in UNITS if not score.penalised[m].lower_is_better] == ["iou"]
    assert LOWER_IS_BETTER["chamfer"]


def test_without_lost_frames_and_outliers_the_conventions_agree():
    score = score_clip(thrown(gravity=0.4), TRUE, 16.0)
    for metric in UNITS:
        assert score.penalised[metric].value == pytest.approx(score.as_coded[metric].value)


@settings(max_examples=40, deadline=None)
@given(
    erased=st.sets(st.integers(0, 11), min_size=1),
    gravity=st.sampled_from([0.0, 0.3, 0.5, 1.2]),
    vx=st.sampled_from([-1.0, 0.0, 2.5, 3.0]),
)
def test_erasing_the_object_never_improves_any_metric(erased, gravity, vx):
    predicted = thrown(gravity=gravity, velocity=(vx, -4.0))
    vanished = predicted.clone()
    vanished[list(erased)] = False
    before, after = values(score_clip(predicted, TRUE, 16.0)), values(score_clip(vanished, TRUE, 16.0))
    for metric in UNITS:
        worse = after[metric] - before[metric] if LOWER_IS_BETTER[metric] else before[metric] - after[metric]
        assert worse >= -1e-12, metric


def test_as_coded_a_vanishing_object_wins_and_penalised_it_loses():
    drifting = thrown(gravity=1.5)
    vanishing = drifting.clone()
    vanishing[4:] = False  # it is gone before it strays
    seen, gone = score_clip(drifting, TRUE, 16.0), score_clip(vanishing, TRUE, 16.0)
    assert gone.as_coded["l2"].value < seen.as_coded["l2"].value
    assert gone.penalised["l2"].value > seen.penalised["l2"].value
    assert gone.lost == pytest.approx(8 / 12)
    assert gone.as_coded["l2"].share == pytest.approx(4 / 12)
    assert "cannot be found in 67%" in explain(gone)


def test_an_empty_clip_is_the_worst_of_all_and_finite():
    empty = score_clip(torch.zeros_like(TRUE), TRUE, 16.0)
    frozen = score_clip(TRUE[:1].expand_as(TRUE).clone(), TRUE, 16.0)
    noise = score_clip(torch.rand(TRUE.shape, generator=torch.Generator().manual_seed(0)) > 0.5, TRUE, 16.0)
    for metric in UNITS:
        for other in (frozen, noise):
            gap = empty.penalised[metric].value - other.penalised[metric].value
            assert math.isfinite(gap)
            assert gap > 0 if LOWER_IS_BETTER[metric] else gap < 0
    assert frozen.motion == 0
    assert all(math.isnan(empty.as_coded[m].value) for m in FIVE if m != "iou")


def test_frames_without_the_true_object_are_cut():
    true = TRUE.clone()
    true[8:] = False
    full, short = score_clip(thrown(gravity=0.3), true, 16.0), score_clip(thrown(gravity=0.3)[:8], true[:8], 16.0)
    for metric in ("l2", "chamfer"):
        assert full.penalised[metric].value == pytest.approx(short.penalised[metric].value)
    assert full.penalised["l2"].asked == 8


def test_several_objects_count_equally_and_keep_their_order():
    other = thrown(start=(30, 10), velocity=(-1.0, 1.0), gravity=0.1)
    true = torch.cat([TRUE, other], dim=1)
    assert values(score_clip(true, true, 16.0))["iou"] == 1
    swapped = score_clip(true.flip(1), true, 16.0)
    assert swapped.penalised["l2"].value > 0.1
    half = score_clip(torch.cat([TRUE, torch.zeros_like(other)], dim=1), true, 16.0)
    assert half.lost == 0.5
    assert half.penalised["iou"].value == 0.5


def test_other_frame_rates_and_sizes_are_paired():
    true = thrown(frames=24, gravity=0.125, velocity=(1.25, -2.0))
    twice = score_clip(true[::2], true, 16.0, 32.0)
    assert values(twice)["l2"] == 0
    assert twice.frames == 12
    small = thrown(size=48)[:, :, ::2, ::2]
    assert values(score_clip(small, TRUE, 16.0))["iou"] > 0.7
    with pytest.raises(InputError, match="aspect ratios differ"):
        score_clip(TRUE[..., :24], TRUE, 16.0)


@pytest.mark.parametrize(
    ("masks", "true", "words"),
    [
        (TRUE.expand(-1, 2, -1, -1), TRUE, "2 predicted objects but 1 true"),
        (TRUE, torch.zeros_like(TRUE), "no true object is visible"),
    ],
)
def test_bad_input_gets_one_sentence(masks, true, words):
    with pytest.raises(InputError, match=words):
        score_clip(masks, true, 16.0, key="clip-7")


def run(name, gravities, seed=None):
    clips = []
    for k, gravity in enumerate(gravities):
        primitive = ("free_fall", "ramp_up")[k % 2]
        shift = torch.roll(thrown(gravity=gravity), k % 5, 3)
        clips.append(
            score_clip(shift, torch.roll(TRUE, k % 5, 3), 16.0, key=str(k), scene=f"s{k}", primitive=primitive, split="id")
        )
    return Run(name, [replace(c, seed=seed) for c in clips])


def test_failed_clips_stay_in_the_denominator_with_their_reason():
    good = run("x", [0.5] * 6)
    broken = failed_clip(TRUE, 16.0, "x.mp4: cannot be decoded", key="6", scene="s6", primitive="free_fall", split="id")
    whole = Run("x", [*good.clips, broken])
    row = next(r for r in table(whole.clips) if r.primitive == "all")
    assert (row.asked, row.failed) == (7, 1)
    assert row.penalised["iou"].value == pytest.approx(6 / 7)
    assert row.as_coded["iou"] == pytest.approx(6 / 7)
    content = whole.to_json()
    assert content["counts"] == {"asked": 7, "failed": 1, "scored": 6, "scenes": 7}
    assert content["failures"] == {"6": "x.mp4: cannot be decoded"}
    assert explain(broken).startswith("Not scored: x.mp4")


def test_metrics_json_describes_itself_and_reads_back(tmp_path):
    before = run("base", [0.5, 0.8, 1.0, 0.2])
    write_json(tmp_path / "metrics.json", before.to_json())
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["metrics"]["iou"] == {
        "unit": "1",
        "lower_is_better": False,
        "definition": "intersection over union of the masks",
    }
    assert set(content["made_with"]["versions"]) >= {"visviva", "torch", "numpy"}
    assert "commit" in content["made_with"]
    again = Run.read(tmp_path)
    assert [values(c) for c in again.clips] == [values(c) for c in before.clips]
    assert again.clips[1].to_json() == before.clips[1].to_json()
    assert isinstance(again.clips[0], ClipScore)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "no metrics at"),
        ("{", "not readable as JSON"),
        ('{"a": 1}', "not a metrics file"),
        ('{"format": "visviva-metrics", "version": 99}', "newer visviva"),
        ('{"format": "visviva-metrics"}', "says no version"),
        ('{"format": "visviva-metrics", "version": 1}', "incomplete or damaged .*'name'"),
        (
            '{"format": "visviva-metrics", "version": 1, "name": "a", "about": {}, "clips": [{"key": 1}]}',
            "incomplete or damaged",
        ),
    ],
)
def test_unusable_metrics_files_get_one_sentence(tmp_path, text, words):
    if text is not None:
        (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(InputError, match=words):
        Run.read(tmp_path)


def test_comparison_pairs_by_scene_and_says_when_nothing_is_significant():
    before, after = run("base", [1.0, 0.9, 1.1, 1.2] * 4), run("tuned", [0.6, 0.6, 0.7, 0.7] * 4)
    shuffled = Run("tuned", after.clips[::-1])
    groups = compare(before, shuffled, resamples=500)
    assert [(g.primitive, g.pairs) for g in groups] == [("all", 16), ("free_fall", 8), ("ramp_up", 8)]
    assert groups[0].verdict == "better"
    assert groups[0].improvement.low > 0
    assert "significantly better" in groups[0].sentence
    same = compare(before, Run("copy", before.clips), resamples=500)[0]
    assert same.improvement.value == 0
    assert "not significant" in same.sentence
    worse = compare(shuffled, before, resamples=500)[0]
    assert worse.verdict == "worse"


def with_motion(source, motions):
    """The run with its clips' share of the true path set, and the small kinematic errors of a clip that stands still."""
    clips = []
    for clip, motion in zip(source.clips, motions, strict=True):
        scores = {m: s.with_(value=s.value * (0.1 if m in KINEMATIC else 1.0)) for m, s in clip.penalised.items()}
        clips.append(replace(clip, motion=motion, penalised=scores))
    return Run(source.name, clips)


@pytest.mark.parametrize(
    ("before", "after", "slowed"),
    [(1.0, 0.0, True), (0.95, 0.7, True), (0.4, 0.1, True), (1.0, 0.85, False), (0.6, 0.6, False), (1.4, 0.9, False)],
)
def test_a_run_that_stands_still_is_not_credited(before, after, slowed):
    base = run("base", [1.0, 0.9, 1.1, 1.2] * 4)
    jitter = [0.02 * (k % 3 - 1) for k in range(16)]
    still = with_motion(base, [max(0.0, after + x) for x in jitter])
    base = Run("base", [replace(clip, motion=before + x) for clip, x in zip(base.clips, jitter, strict=True)])
    group = compare(base, still, resamples=500)[0]
    assert group.motion_after == pytest.approx(after, abs=0.02)
    assert group.slowed == slowed
    assert group.verdict == group.to_json()["verdict"] == ("not credited" if slowed else "better")
    kinematic = {group.verdicts[m] for m in KINEMATIC} | {group.to_json()["metrics"][m]["verdict"] for m in KINEMATIC}
    assert kinematic == {group.verdict}
    assert (f"not credited: objects move {group.motion_after:.0%} of the true path" in group.sentence) == slowed
    assert ("significantly better" in group.sentence) == (not slowed)


def test_a_few_clips_that_race_do_not_hide_a_frozen_run():
    base = run("base", [1.0, 0.9, 1.1, 1.2] * 4)
    base = Run("base", [replace(clip, motion=1.0) for clip in base.clips])
    frozen = with_motion(base, [0.0] * 15 + [40.0])
    assert compare(base, frozen, resamples=500)[0].verdict == "not credited"
    few = compare(Run("base", base.clips[:1]), Run("frozen", frozen.clips[:1]))[0]
    assert "no interval. Objects move 0% of the true path" in few.sentence


def test_one_base_is_compared_with_several_training_seeds():
    base = run("base", [1.0, 0.9, 1.1, 1.2] * 3)
    seeds = merged("tuned", {s: run(f"t{s}", [g] * 12) for s, g in ((0, 0.6), (1, 0.62), (2, 0.58))})
    assert len(paired(base, seeds)) == 36
    group = compare(base, seeds, resamples=300)[0]
    assert group.pairs == 36
    assert group.improvement.low < group.improvement.value < group.improvement.high


def test_runs_of_different_scenes_are_refused():
    with pytest.raises(InputError, match="do not hold the same clips: 2 are in one only"):
        compare(run("a", [0.5] * 4), run("b", [0.5] * 6))
