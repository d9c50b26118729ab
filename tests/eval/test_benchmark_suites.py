"""Prompt suites with a scripted judge: published aggregation, unread answers, missing clips, rules of gates and stages."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from visviva.data.dataset import write_rows
from visviva.data.video import write_video
from visviva.errors import InputError
from visviva.eval.benchmarks import Inputs, run
from visviva.eval.benchmarks.phygenbench import final, order, phenomenon, stage_one
from visviva.eval.benchmarks.vbench2 import GROUPS, diversity, multi_view, totals, verdict
from visviva.eval.benchmarks.videophy2 import run as videophy2

STATISTICS = {"resamples": 200}


def clip(folder, name, level):
    """A clip whose grey level is its name to the judge."""
    write_video(folder / name, torch.full((8, 3, 32, 32), level / 10), 8.0, crf=0)


def level(frames):
    return round(float(frames.mean()) * 10)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for k in (1, 2, 3):
        clip(folder, f"output_video_{k}.mp4", k)
    captions = {1: "A ball falls.", 2: "A cup breaks.", 3: "Ice melts."}
    rows = [{"file_name": f"output_video_{k}.mp4", "caption": text} for k, text in captions.items()]
    write_rows(folder / "metadata.jsonl", rows)
    return folder


def test_videophy2_counts_joint_rules_and_what_cannot_be_read(clips, tmp_path):
    table = tmp_path / "prompts.csv"
    lines = ["caption,rule", "A ball falls.,It speeds up", "A cup breaks.,", "Ice melts.,Water appears", "Nobody made this.,"]
    table.write_text("\n".join(lines) + "\n")
    said = {
        1: {"text": "5", "physics": "4. Good", "rule": "1"},
        2: {"text": "4", "physics": "3", "rule": ""},
        3: {"text": "5", "physics": "someone would say 5", "rule": "2"},
    }

    def judge(frames, question):
        assert frames.shape == (32, 3, 32, 32)
        kind = "rule" if "rule" in question else "physics" if "physics" in question else "text"
        return said[level(frames)][kind]

    result = run("videophy2", Inputs([str(clips)], prompts=str(table), judge=judge, statistics=STATISTICS))
    assert result["joint"].value == 1 / 4
    assert (result["joint"].used, result["joint"].asked) == (4, 4)
    assert result["sa"].value == pytest.approx((5 + 4 + 5) / 3)
    assert (result["sa"].used, result["sa"].asked) == (3, 4)
    assert result["pc"].value == pytest.approx((4 + 3 + 0) / 3)
    assert result["unread"].value == pytest.approx(1 / 3)
    assert (result["rule_followed"].value, result["rule_grounded"].value) == (1, 0.5)
    assert result.clips[3].failure == "no clip of this prompt"
    assert result["motion"].value < 0.2
    assert "judge" in result.notes[0]


def test_videophy2_asks_about_captions_where_no_prompts_are_given_and_in_given_words(clips):
    heard = []

    def judge(frames, question):
        heard.append(question)
        return "4"

    result = videophy2(Inputs([str(clips)], judge=judge, statistics=STATISTICS), {"pc": "Physical?", "sa": "Is it: {caption}"})
    assert result["joint"].value == 1
    assert heard[:2] == ["Is it: A ball falls.", "Physical?"]
    assert "no prompt has a column 'rule'" in result.skipped["rule"]


@pytest.mark.parametrize("name", ["videophy2", "phygenbench", "vbench2"])
def test_without_a_judge_or_prompts_the_suites_are_skipped(clips, name):
    assert "no judge given" in run(name, Inputs([str(clips)])).skipped["all"]
    if name != "videophy2":
        result = run(name, Inputs([str(clips)], judge=lambda f, q: "yes"))
        assert "no prompts given" in result.skipped["all"]


@given(st.lists(st.integers(0, 3), min_size=5, max_size=5))
def test_phygen_final_score_is_the_published_formula(stages):
    one, two_closed, three_closed, two_open, three_open = stages
    closed, opened = round((one + two_closed + three_closed) / 3), round((one + two_open + three_open) / 3)
    assert final((one, two_closed, three_closed), (one, two_open, three_open)) == (closed + opened) // 2
    assert final((one, two_closed, three_closed)) == closed


@pytest.mark.parametrize(
    ("values", "stored", "score"),
    [
        ([0.7], 0.5, 0),
        ([0.75], 0.5, 1),
        ([1.0], 0.5, 2),
        ([1.25], 0.5, 3),
        ([0.5], None, 2),
        ([0.5, 0.5], 0.4, 0),
        ([0.75, 0.75], 0.4, 1),
        ([1.25, 1.0], 0.4, 2),
        ([1.5, 1.0], 0.4, 3),
    ],
)
def test_phygen_bins(values, stored, score):
    assert stage_one(values, stored) == score


class Scripted:
    """Likelihood of a statement at a frame, by its grey level in 32nds; yes to what mentions 'good'."""

    def __init__(self, likely):
        self.likely = likely

    def likelihood(self, frames, statement):
        return self.likely(round(float(frames.mean()) * 31), statement)

    def __call__(self, frames, question):
        return "Yes" if "good" in question else "No"


RAMP = torch.arange(32.0).view(-1, 1, 1, 1).expand(-1, 3, 4, 4) / 31


def test_phygen_stage_one_takes_the_best_of_five_frames_and_subtracts_the_last():
    fits = {9: 0.5, 10: 0.9, 11: 0.7, 12: 0.3}

    def likely(k, statement):
        if statement == "seek":
            return fits.get(k, 0.1)
        return {"it": 0.6, "not": 0.2}[statement]

    question = {"Retrieval Prompt": "seek", "Statement": "it", "Antonym": "not"}
    # best value 0.9 + 0.75; stored: frame 12, 0.3 -> 1.35: 3
    assert phenomenon(RAMP, [question], Scripted(likely)) == 3
    fits[12] = 0.9 - 1e-6
    assert phenomenon(RAMP, [question], Scripted(likely)) == 3  # 0.75
    assert phenomenon(RAMP, [{**question, "Retrieval Prompt": "Last Frame"}], Scripted(likely)) == 2  # 0.6 alone


def test_phygen_stage_two_asks_three_times():
    row = {
        "caption": "good",
        "multiimage_question": {"Retrieval Prompt": "Middle Frame", "Description1": "good", "Description2": "bad"},
    }
    assert order(RAMP, row, Scripted(lambda k, s: 0.0)) == 2
    row["multiimage_question"]["Retrieval Prompt"] = "seek"
    assert order(RAMP, row, Scripted(lambda k, s: 0.6)) == 2
    assert order(RAMP, row, Scripted(lambda k, s: 0.4)) == 0


def phygen(folder):
    folder.mkdir()
    base = [
        {"caption": c, "physical_laws": "gravity", "main_category": m} for c, m in (("A ball falls.", "Force"), ("x", "Light"))
    ]
    single = {"singleimage_question": [{"Retrieval Prompt": "Last Frame", "Statement": "good", "Antonym": "bad"}]}
    multi = {"multiimage_question": {"Retrieval Prompt": "Middle Frame", "Description1": "good", "Description2": "good"}}
    video = {"video_question": {f"Description{k}": f"level {k}" for k in range(1, 5)}}
    for name, extra in (("single", single), ("multi", multi), ("video", video)):
        (folder / f"{name}_question.json").write_text(json.dumps([b | extra for b in base]))
    return folder


def test_phygenbench_runs_and_a_missing_clip_counts_as_nothing(clips, tmp_path):
    def judge(frames, question):
        return "2" if "number only" in question else "Yes" if "good" in question else "No"

    only = tmp_path / "one"
    clip(only, "output_video_1.mp4", 1)
    inputs = Inputs([str(only)], prompts=str(phygen(tmp_path / "suite")), judge=judge, statistics=STATISTICS)
    result = run("phygenbench", inputs)
    first = result.clips[0].numbers
    assert first == {"final": round((3 + 2 + 2) / 3), "phenomenon": 3, "order": 2, "naturalness": 2}
    assert result["final"].value == pytest.approx(2 / 3 / 2)
    assert (result["mechanics"].value, result["optics"].value) == (pytest.approx(2 / 3), 0)
    assert result.clips[1].failure == "no clip of this prompt"
    assert any("no likelihoods" in note for note in result.notes)
    (tmp_path / "suite/video_question.json").write_text("[{}]")
    with pytest.raises(InputError, match="hold 2, 2 and 1 prompts"):
        run("phygenbench", inputs)


@pytest.mark.parametrize(
    ("dimension", "answers", "value"),
    [
        ("Mechanics", ["Yes, it does"], 1),
        ("Mechanics", ["No"], 0),
        ("Material", ["yes", "no"], 0),
        ("Thermotics", ["no", "yes"], None),
        ("Thermotics", ["yes", "yes", "no"], 1),
        ("Motion Rationality", ["yes"] * 4, 1),
        ("Motion Rationality", ["yes", "no", "yes", "yes"], 0),
    ],
)
def test_vbench2_verdicts(dimension, answers, value):
    assert verdict(dimension, answers) == value


def test_vbench2_totals():
    every = {d: k / 18 for k, d in enumerate(d for g in GROUPS.values() for d in g)}
    assert len(every) == 18
    found, missing = totals(every)
    assert missing == {}
    assert found["Physics"] == pytest.approx((0 + 1 + 2 + 3) / 4 / 18)
    assert found["Total"] == pytest.approx(sum(found[g] for g in GROUPS) / 5)
    found, missing = totals({"Diversity": 0.5, "Composition": 0.7})
    assert found == {"Creativity": 0.6}
    assert set(missing) == {*GROUPS, "Total"} - {"Creativity"}
    with pytest.raises(InputError, match="no dimension Charm"):
        totals({"Charm": 1.0})
    assert multi_view(4.9, 700) is None
    assert multi_view(12.0, 375) == 0.5
    assert diversity(17.712, 0.017712) == 1
    assert diversity(17.712, 0.0) == pytest.approx(0.5)


def test_vbench2_gates_clips_and_skips_groups(clips, tmp_path):
    prompts = [
        ("A ball falls.", ["Is there a ball?", "Does it fall?"]),
        ("A cup breaks.", ["Is there a cup?", "Does it break?"]),
    ]
    prompts += [("Ice melts.", ["Does it melt?"]), ("Nothing.", ["Is it?"])]
    rows = [{"prompt_en": p, "dimension": "Mechanics", "auxiliary_info": q} for p, q in prompts]
    (tmp_path / "Mechanics.json").write_text(json.dumps(rows))
    (tmp_path / "others.json").write_text(json.dumps({"Diversity": 0.5, "Composition": 0.7}))

    def judge(frames, question):
        assert frames.shape[0] == 64
        return {1: "yes", 2: "no", 3: "I think not"}[level(frames)]

    result = run("vbench2", Inputs([str(clips)], prompts=str(tmp_path), judge=judge, statistics=STATISTICS))
    assert result["Mechanics"].value == 0.5
    assert (result["Mechanics"].used, result["Mechanics"].asked) == (2, 4)
    assert result["valid"].value == 0.5
    assert result["unread"].value == pytest.approx(1 / 3)
    assert result["Creativity"].value == pytest.approx(0.6)
    assert "no value of Thermotics, Material" in result.skipped["Physics"]
    assert "no Thermotics.json" in result.skipped["Thermotics"]
    assert math.isfinite(result["motion"].value)
