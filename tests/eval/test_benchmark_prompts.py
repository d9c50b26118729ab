"""Which clips belong to a prompt, in any script and with several samples, and suite files and judges that are not sound."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from visviva.data.video import write_video
from visviva.errors import InputError
from visviva.eval.benchmarks import Inputs, run
from visviva.eval.benchmarks.suite import CUT, Clips
from visviva.eval.collection import Item

LONG = "a very long prompt about one thing after another " * 4
STATISTICS = {"resamples": 100}


def item(stem, caption=""):
    return Item(stem, Path(f"{stem}.mp4"), lambda: None, None, {"caption": caption})


def keys(clips, *names):
    return [found.key for found in clips.of(*names)]


def test_prompts_in_any_script_are_told_apart():
    japanese, hindi = Clips([item("球が落ちる"), item("杯が割れる")]), Clips([item("कि"), item("का")])
    assert keys(japanese, "杯が割れる。") == ["杯が割れる"]
    assert keys(japanese, "氷が溶ける") == []
    assert keys(hindi, "का") == ["का"]
    assert keys(Clips([item("fällt")]), "fa\u0308llt") == ["fällt"]  # as some file systems decompose it
    assert keys(Clips([item("!?")]), "...") == []


def test_a_clip_that_is_named_by_file_and_caption_is_there_once():
    assert keys(Clips([item("A ball falls", "A ball falls.")]), "A ball falls.") == ["A ball falls"]


def test_samples_belong_to_their_prompt_and_the_first_known_name_wins():
    clips = Clips([item("Ice melts-0"), item("Ice melts-1"), item("7", "A cup breaks.")])
    assert keys(clips, "Ice melts.") == ["Ice melts-0", "Ice melts-1"]
    assert keys(clips, "unknown", "7", "Ice melts") == ["7"]


def test_long_prompts_are_told_apart_and_cut_file_names_belong_to_what_they_begin():
    clips = Clips([item("a", LONG + "one"), item("b", LONG + "two")])
    assert (keys(clips, LONG + "two"), keys(clips, LONG + "three")) == (["b"], [])
    assert keys(Clips([item(LONG[: CUT + 5])]), LONG + "one") == [LONG[: CUT + 5]]
    assert keys(Clips([item(LONG[: CUT - 5])]), LONG + "one") == []


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Two samples of one prompt, dark and bright, and one of another."""
    folder = tmp_path_factory.mktemp("clips")
    for name, level in (("A ball falls-0", 0.2), ("A ball falls-1", 0.8), ("Ice melts", 0.8)):
        write_video(folder / f"{name}.mp4", torch.full((6, 3, 32, 32), level), 8.0, crf=0)
    return str(folder)


def bright(frames, question):
    """Likes bright clips, in the words of every suite."""
    good = float(frames.mean()) > 0.5
    return ("3" if good else "0") if "number only" in question else ("yes" if good else "no")


def phygen(folder, change=lambda single, multi, video: None):
    base = {"caption": "A ball falls.", "main_category": "Force"}
    single = [base | {"singleimage_question": [{"Retrieval Prompt": "Last Frame", "Statement": "it falls"}]}]
    multi = [{"multiimage_question": {"Retrieval Prompt": "Middle Frame", "Description1": "falls", "Description2": "falls"}}]
    video = [{"video_question": {f"Description{k}": "{braces}" for k in range(1, 5)}}]
    change(single, multi, video)
    folder.mkdir(exist_ok=True)
    for name, rows in (("single", single), ("multi", multi), ("video", video)):
        (folder / f"{name}_question.json").write_text(json.dumps(rows))
    return str(folder)


def vbench2(folder, row, others=None):
    folder.mkdir(exist_ok=True)
    (folder / "Mechanics.json").write_text(json.dumps([row]))
    if others is not None:
        (folder / "others.json").write_text(others)
    return str(folder)


def test_every_sample_of_a_prompt_counts_and_intervals_resample_prompts(clips, tmp_path):
    (tmp_path / "p.csv").write_text("caption\nA ball falls.\nIce melts.\nNobody made this.\n")
    asked = Inputs(
        [clips], prompts=str(tmp_path / "p.csv"), judge=lambda f, q: "5" if f.mean() > 0.5 else "1", statistics=STATISTICS
    )
    result = run("videophy2", asked)
    assert (result["joint"].value, result["joint"].asked) == (2 / 4, 4)
    assert [r.scene for r in result.clips] == ["A ball falls.", "A ball falls.", "Ice melts.", "Nobody made this."]
    result = run("phygenbench", Inputs([clips], prompts=phygen(tmp_path / "g"), judge=bright, statistics=STATISTICS))
    assert (result["final"].value, result["final"].asked) == (1 / 2, 2)
    assert any("no explicit_prompts.json" in note for note in result.notes)
    row = {"prompt_en": "A ball falls.", "auxiliary_info": ["Does it fall?"]}
    result = run("vbench2", Inputs([clips], prompts=vbench2(tmp_path / "v", row), judge=bright, statistics=STATISTICS))
    assert (result["Mechanics"].value, result["Mechanics"].asked) == (1 / 2, 2)
    assert len({r.scene for r in result.clips}) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s, m, v: s[0].pop("caption"), "prompt 1: needs the text caption"),
        (lambda s, m, v: s[0].pop("singleimage_question"), "list of one or two questions"),
        (lambda s, m, v: s[0].update(singleimage_question="except"), "list of one or two questions"),
        (lambda s, m, v: s[0].update(singleimage_question=["except"]), "stage 1: needs the texts"),
        (lambda s, m, v: s[0].update(singleimage_question=s[0]["singleimage_question"] * 3), "one or two"),
        (lambda s, m, v: s[0]["singleimage_question"][0].update({"Retrieval Prompt": "x"}), "needs the text Antonym"),
        (lambda s, m, v: m[0].update(multiimage_question="except"), "stage 2: needs the texts"),
        (lambda s, m, v: v[0]["video_question"].pop("Description4"), "stage 3: needs the text Description4"),
        (lambda s, m, v: v[0].update(caption="Another."), "different captions"),
    ],
)
def test_phygenbench_refuses_questions_that_are_not_sound(clips, tmp_path, change, words):
    with pytest.raises(InputError, match=words):
        run("phygenbench", Inputs([clips], prompts=phygen(tmp_path / "g", change), judge=bright))


@pytest.mark.parametrize(
    ("row", "others", "words"),
    [
        ({"prompt_en": "A ball falls."}, None, "must be a list of questions, not None"),
        ({"prompt_en": "A ball falls.", "auxiliary_info": "Does it?"}, None, "must be a list of questions, not 'Does it"),
        ({"prompt_en": "A ball falls.", "auxiliary_info": []}, None, "must be a list of questions"),
        ({"auxiliary_info": ["Does it?"]}, None, "needs the text prompt_en"),
        ({"prompt_en": "A ball falls.", "auxiliary_info": ["Does it?"]}, '{"Diversity": NaN}', "from 0 to 1, not"),
        ({"prompt_en": "A ball falls.", "auxiliary_info": ["Does it?"]}, '{"Diversity": 70}', "divide percentages by 100"),
    ],
)
def test_vbench2_refuses_questions_and_values_that_are_not_sound(clips, tmp_path, row, others, words):
    with pytest.raises(InputError, match=words):
        run("vbench2", Inputs([clips], prompts=vbench2(tmp_path / "v", row, others), judge=bright))


def test_videophy2_takes_braces_for_text_and_refuses_other_questions(clips, tmp_path):
    heard = []
    (tmp_path / "p.csv").write_text("caption\nIce melts.\n")
    (tmp_path / "questions.json").write_text('[{"sa": "One of {1-5} for {caption}?"}]')
    inputs = Inputs([clips], prompts=str(tmp_path), judge=lambda f, q: heard.append(q) or "4", statistics=STATISTICS)
    assert run("videophy2", inputs)["joint"].value == 1
    assert heard[0] == "One of {1-5} for Ice melts.?"
    (tmp_path / "questions.json").write_text('[{"semantics": "?"}]')
    with pytest.raises(InputError, match="no question 'semantics'"):
        run("videophy2", inputs)


@pytest.mark.parametrize("name", ["videophy2", "phygenbench", "vbench2"])
def test_a_judge_that_answers_with_no_text_is_named(clips, tmp_path, name):
    row = {"prompt_en": "Ice melts.", "auxiliary_info": ["Does it melt?"]}
    (tmp_path / "p.csv").write_text("caption\nIce melts.\n")
    prompts = {"videophy2": str(tmp_path / "p.csv"), "vbench2": vbench2(tmp_path / "v", row)}
    prompts["phygenbench"] = phygen(tmp_path / "g")
    with pytest.raises(InputError, match="answered 5; a judge must answer in words"):
        run(name, Inputs([clips], prompts=prompts[name], judge=lambda frames, question: 5))
