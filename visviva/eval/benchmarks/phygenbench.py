"""PhyGenBench / PhyGenEval (arXiv 2410.05363): 160 prompts, 27 laws, three stages of questions of 0..3 each.

Stage 1, the key phenomenon: the frame that fits a retrieval text best, and two frames either side; per frame the likelihood r
of that text plus p = s+ / (s+ + s-) of a statement and its antonym; the value is the largest r + p ("Last Frame": s+ alone).
Stage 2, order: three yes/no questions on (first, key), (key, last) and (first, key, last). Stage 3, naturalness: which of four
descriptions fits. Then

    closed = round((s1 + s2 + s3) / 3)   open = the same with the open judge's s2, s3   final = floor((closed + open) / 2)
    value = mean(final) / 3

The aggregation reproduces the published per-prompt file (160 of 160 rows). The procedure is followed with one judge in the
place of five models (VQAScore, CLIP, GPT-4o, LLaVA, InternVideo2), in our wording: *uncalibrated*. With one judge, final
equals closed. A prompt without a readable clip counts as 0; of a prompt with several clips each counts, and intervals resample
prompts.
As published, stage 1 subtracts the retrieval likelihood of the *last* frame of the window, not of the best one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from visviva.errors import InputError
from visviva.eval.benchmarks import suite
from visviva.eval.benchmarks.inputs import Inputs, folder
from visviva.eval.benchmarks.judge import asked, rating, uniform, yes
from visviva.eval.benchmarks.result import UNCALIBRATED, ClipRow, Result, frame_change, mean_score, motion_score
from visviva.eval.collection import Item

VERSION = "2"
STANDING = UNCALIBRATED
NEEDS = "--judge, and --prompts: the suite's folder with single_question.json, multi_question.json and video_question.json"
SAMPLED, SHOWN = 32, 26
FILES = ("single_question.json", "multi_question.json", "video_question.json")
NUMBERS = ("final", "phenomenon", "order", "naturalness")
CATEGORIES = {
    "Force": "mechanics",
    "Light": "optics",
    "Heat": "thermal",
    "Physical Properties": "material",
    "Chemical Properties": "material",
}
ORDER = 'In this order, do these images show: "{text}"? Answer yes or no.'
NATURAL = """\
The video was made from the text "{caption}", which is about {law}. Which description fits it best?
0: {0}
1: {1}
2: {2}
3: {3}
Answer with the number only."""


def stage_one(values: Sequence[float], retrieval: float | None) -> int:
    """Return 0..3 from the values of one or two questions.

    One question: its value less the stored retrieval likelihood (None for a "Last Frame" question), cut at 1/4, 1/2, 3/4.
    Two: the sum, cut at 1, 1.5, 2.25.

    >>> stage_one([1.2], 0.6), stage_one([0.8], None), stage_one([1.5, 0.7], 0.9)
    (2, 3, 2)
    """
    total = sum(values)
    if len(values) == 1:
        total -= retrieval or 0.0
        return sum(total >= bound for bound in (0.25, 0.5, 0.75))
    return sum(total > bound for bound in (1.0, 1.5, 2.25))


def final(closed: tuple[int, int, int], opened: tuple[int, int, int] | None = None) -> int:
    """Return 0..3 of a clip from its three stages under the closed and the open judge (None: only one judge).

    >>> final((3, 0, 1), (3, 3, 0)), final((2, 1, 1))
    (1, 1)
    """
    one, two = (round(sum(stages) / 3) for stages in (closed, opened or closed))
    return (one + two) // 2


def run(inputs: Inputs, open_judge: Any = None) -> Result:
    """Ask the judge about the clip of every prompt: ``output_video_N.mp4`` (N from 1), or by caption."""
    judge = suite.needed_judge(inputs)
    prompts = _prompts(folder(inputs.needed("prompts", NEEDS), NEEDS))[: inputs.limit]
    clips = suite.Clips(inputs.items())
    asking = enumerate(tqdm(prompts, desc="phygenbench"), 1)
    rows = [row for k, prompt in asking for row in _judged(k, prompt, clips, judge, open_judge)]
    notes = [suite.judged_by(judge, "GPT-4o, LLaVA, InternVideo2 and VQAScore")]
    if not all("explicit_caption" in prompt for prompt in prompts):
        notes.append(
            "no explicit_prompts.json: the last question of stage 2 asks for the plain caption, not the published text"
        )
    if not hasattr(judge, "likelihood"):
        notes.append("this judge gives no likelihoods: yes counts as 1, no as 0, anything else as 1/2")
    return summary(rows, inputs.statistics, notes)


def summary(rows: Sequence[ClipRow], statistics: Mapping[str, Any], notes: Sequence[str] = ()) -> Result:
    """Return the result of rows with ``final`` and the stages, 0..3, and the label ``category``."""
    thirds = [ClipRow(r.key, r.scene, {k: v / 3 for k, v in r.numbers.items()}, r.motion, r.failure, r.labels) for r in rows]
    scores = [mean_score("final", thirds, "1", lower_is_better=False, note="mean of 0..3 over 3", statistics=statistics)]
    for name in dict.fromkeys(CATEGORIES.values()):
        some = [ClipRow(r.key, r.scene, {name: r.numbers["final"]}) for r in thirds if r.labels.get("category") == name]
        if some:
            scores.append(
                mean_score(name, some, "1", lower_is_better=False, note="final, this category", statistics=statistics)
            )
    for name, note in (("phenomenon", "stage 1"), ("order", "stage 2"), ("naturalness", "stage 3")):
        scores.append(mean_score(name, thirds, "1", lower_is_better=False, note=note, statistics=statistics))
    return Result("phygenbench", VERSION, STANDING, [*scores, motion_score(rows, statistics)], list(rows), {}, list(notes))


def _prompts(where: Path) -> list[dict[str, Any]]:
    single, multi, video = (suite.rows(where / name) for name in FILES)
    if not len(single) == len(multi) == len(video):
        raise InputError(f"{where}: the three question files hold {len(single)}, {len(multi)} and {len(video)} prompts")
    explicit = suite.rows(where / "explicit_prompts.json") if (where / "explicit_prompts.json").is_file() else single
    if len(explicit) != len(single):
        raise InputError(f"{where}: explicit_prompts.json holds {len(explicit)} prompts, the questions are of {len(single)}")
    together = list(zip(single, multi, video, explicit, strict=True))
    for number, parts in enumerate(together, 1):
        if len({part.get("caption") for part in parts if "caption" in part}) > 1:
            raise InputError(
                f"{where}, prompt {number}: the files have different captions; give files of one version of the suite"
            )
    return [_sound(a | b | c | d, f"{where}, prompt {k}") for k, (a, b, c, d) in enumerate(together, 1)]


def _sound(row: dict[str, Any], where: str) -> dict[str, Any]:
    """Return a prompt whose questions are all there.

    Raises:
        InputError: they are not; stage 1 has one question or two.
    """
    suite.texts(row, ["caption"], where)
    questions = row.get("singleimage_question")
    if not isinstance(questions, list) or len(questions) not in (1, 2):
        raise InputError(f"{where}: 'singleimage_question' must be a list of one or two questions; give the suite's own file")
    for question in questions:
        last = isinstance(question, dict) and question.get("Retrieval Prompt") == "Last Frame"
        suite.texts(question, ["Retrieval Prompt", "Statement", *([] if last else ["Antonym"])], f"{where}, stage 1")
    suite.texts(row.get("multiimage_question", {}), ["Retrieval Prompt", "Description1", "Description2"], f"{where}, stage 2")
    suite.texts(row.get("video_question", {}), [f"Description{k}" for k in range(1, 5)], f"{where}, stage 3")
    return row


def _judged(number: int, row: dict[str, Any], clips: suite.Clips, judge: Any, open_judge: Any) -> list[ClipRow]:
    labels = {"category": CATEGORIES.get(str(row.get("main_category")), "other"), "caption": row["caption"]}
    prompt = f"output_video_{number}"
    items = clips.of(prompt, row["caption"])
    if not items:
        return [suite.absent(prompt, dict.fromkeys(NUMBERS, 0.0), **labels)]
    keys = [prompt if len(items) == 1 else item.key for item in items]
    return [_clip(item, key, prompt, row, labels, (judge, open_judge)) for item, key in zip(items, keys, strict=True)]


def _clip(item: Item, key: str, prompt: str, row: dict[str, Any], labels: dict[str, Any], judges: tuple[Any, Any]) -> ClipRow:
    try:
        clip = item.clip()
    except InputError as error:
        return ClipRow(key, prompt, dict.fromkeys(NUMBERS, 0.0), failure=str(error), labels=labels)
    judge = judges[0]
    first = phenomenon(clip.frames, row["singleimage_question"], judge)
    stages = [(first, order(clip.frames, row, j), naturalness(clip.frames, row, j)) for j in judges if j is not None]
    value = final(stages[0], stages[1] if len(stages) > 1 else None)
    numbers = dict(zip(NUMBERS, (value, first, *stages[0][1:]), strict=True))
    return ClipRow(key, prompt, {k: float(v) for k, v in numbers.items()}, frame_change(clip.frames), labels=labels)


def phenomenon(frames: Tensor, questions: Sequence[Mapping[str, str]], judge: Any) -> int:
    """Return stage 1 of a clip."""
    sampled, values, stored = uniform(frames, SAMPLED), [], None
    for question in questions:
        text = question["Retrieval Prompt"]
        if text == "Last Frame":
            values.append(likelihood(judge, frames[-1:], question["Statement"]))
            continue
        fits = [likelihood(judge, f[None], text) for f in sampled]
        best = max(range(SAMPLED), key=fits.__getitem__)
        window = range(max(best - 2, 0), min(best + 3, SAMPLED))
        shares = [_share(judge, sampled[k : k + 1], question) for k in window]
        values.append(max(fits[k] + p for k, p in zip(window, shares, strict=True)))
        stored = fits[window[-1]]
    return stage_one(values, stored)


def _share(judge: Any, frame: Tensor, question: Mapping[str, str]) -> float:
    yes, no = (likelihood(judge, frame, question[name]) for name in ("Statement", "Antonym"))
    return yes / (yes + no) if yes + no > 0 else 0.5


def order(frames: Tensor, row: Mapping[str, Any], judge: Any) -> int:
    """Return stage 2 of a clip; with a retrieval text each question scores where retrieval + yes >= 1.5."""
    question = row["multiimage_question"]
    text = question["Retrieval Prompt"]
    told = (question["Description1"], question["Description2"], row.get("explicit_caption", row["caption"]))
    first, last = frames[:1], frames[-1:]
    if text == "Middle Frame":
        key = frames[len(frames) // 2][None]
        shown = (torch.cat([first, key]), torch.cat([key, last]), torch.cat([first, key, last]))
        return sum(_says_yes(judge, images, words) for images, words in zip(shown, told, strict=True))
    sampled = uniform(frames, SAMPLED)
    fits = [likelihood(judge, f[None], text) for f in sampled]
    best = max(range(SAMPLED), key=fits.__getitem__)
    before, after = range(max(best - 1, 0), best + 1), range(best, min(best + 2, SAMPLED))
    one = max(fits[k] + _says_yes(judge, torch.cat([first, sampled[k][None]]), told[0]) for k in before)
    two = max(fits[k] + _says_yes(judge, torch.cat([sampled[k][None], last]), told[1]) for k in after)
    three = fits[best] + _says_yes(judge, torch.cat([first, sampled[best][None], last]), told[2])
    return sum(score >= 1.5 for score in (one, two, three))


def naturalness(frames: Tensor, row: Mapping[str, Any], judge: Any) -> int:
    """Return stage 3 of a clip; an answer that cannot be read counts as 0."""
    levels = [row["video_question"][f"Description{k}"] for k in range(1, 5)]
    question = NATURAL.format(*levels, caption=row["caption"], law=row.get("physical_laws", "physics"))
    return rating(asked(judge, uniform(frames, SHOWN), question), range(4)) or 0


def _says_yes(judge: Any, images: Tensor, text: str) -> int:
    return int(yes(asked(judge, images, ORDER.format(text=text))) is True)


def likelihood(judge: Any, frames: Tensor, statement: str) -> float:
    """Return how likely the judge holds a statement about frames, in [0, 1]; 1, 0 or 1/2 from a judge that only answers."""
    if hasattr(judge, "likelihood"):
        return float(judge.likelihood(frames, statement))
    said = yes(asked(judge, frames, f'Do the images show this: "{statement}"? Answer yes or no.'))
    return 0.5 if said is None else float(said)
