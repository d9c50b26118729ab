"""VideoPhy-2 (arXiv 2503.06800): does a clip show what was asked (SA, 1-5), and is it physical (PC, 1-5), by a judge.

    joint = share of prompts whose clip has SA >= 4 and PC >= 4

Prompts with a column ``rule`` are also asked whether the rule is followed: 0 violated, 1 followed, 2 cannot be grounded; the
value is the share followed of those that could be grounded. Ratings are read strictly (`visviva.eval.benchmarks.judge.rating`);
an answer that cannot be read counts as 0, as published, and is counted in ``unread``. A prompt without a readable clip fails
the joint score, too. Of a prompt with several clips (PROMPT-0.mp4, PROMPT-1.mp4) each is judged and counts; intervals resample
prompts.

The published judge is VideoPhy-2-AutoEval, a 7B model with 32 frames and its own wording; questions here are in ours. Pass
its wording as ``questions`` (or as ``questions.json`` beside the prompts) to ask it as it was trained.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from visviva.data.prompts import read_prompts
from visviva.errors import InputError
from visviva.eval.benchmarks import suite
from visviva.eval.benchmarks.inputs import Inputs
from visviva.eval.benchmarks.judge import asked as answered
from visviva.eval.benchmarks.judge import rating, uniform
from visviva.eval.benchmarks.result import UNCALIBRATED, ClipRow, Missing, Result, frame_change, mean_score, motion_score
from visviva.eval.collection import Item

VERSION = "2"
STANDING = UNCALIBRATED
NEEDS = "--judge, and --prompts: a .csv or .jsonl with prompt or caption (and rule), or clips with captions"
FRAMES = 32
QUESTIONS = {
    "sa": 'The video was made from this text: "{caption}". How well does it show that? '
    "Answer with one digit from 1 (not at all) to 5 (completely).",
    "pc": "How well does what happens in the video agree with the laws of physics? "
    "Answer with one digit from 1 (it breaks them badly) to 5 (it obeys them).",
    "rule": 'Is this rule followed in the video: "{rule}"? Answer with one digit: 0 no, 1 yes, 2 it cannot be told.',
}


def run(inputs: Inputs, questions: Mapping[str, str] | None = None) -> Result:
    """Ask the judge about the clip of every prompt; without ``inputs.prompts``, about every clip by its own caption."""
    judge = suite.needed_judge(inputs)
    asked, wording = _prompts(inputs)
    wording = _worded({**wording, **(questions or {})})
    clips = suite.Clips(inputs.items())
    rows = [row for prompt in tqdm(asked, desc="videophy2") for row in _judged(prompt, clips, judge, wording)]
    return summary(rows, inputs.statistics, suite.judged_by(judge, "VideoPhy-2-AutoEval"))


def summary(rows: list[ClipRow], statistics: Mapping[str, Any], note: str = "") -> Result:
    """Return the result of rows with ``sa``, ``pc``, and where asked ``rule`` (0, 1, 2) and ``unread``."""
    filled = []
    for r in rows:
        n = dict(r.numbers)
        n["joint"] = float(n.get("sa", 0) >= 4 and n.get("pc", 0) >= 4)
        if "rule" in n:
            n |= {"rule_grounded": float(n["rule"] != 2), "rule_followed": n["rule"] if n["rule"] != 2 else math.nan}
        filled.append(ClipRow(r.key, r.scene, n, r.motion, r.failure, r.labels))
    told = {
        "joint": ("1", False, "share of clips with SA >= 4 and PC >= 4, a prompt without one counting as a failure"),
        "sa": ("1-5", False, "semantic adherence"),
        "pc": ("1-5", False, "physical commonsense"),
        "rule_followed": ("1", False, "share of rules followed, of those that can be grounded"),
        "rule_grounded": ("1", False, "share of rules that can be grounded"),
        "unread": ("answers", True, "answers per clip that could not be read; each counts as 0"),
    }
    present = {name for r in filled for name in r.numbers}
    scores = [
        mean_score(m, filled, unit, lower_is_better=lower, note=text, statistics=statistics)
        for m, (unit, lower, text) in told.items()
        if m in present
    ]
    skipped = {} if "rule_followed" in present else {"rule": "no prompt has a column 'rule'"}
    return Result(
        "videophy2", VERSION, STANDING, [*scores, motion_score(filled, statistics)], filled, skipped, [note] if note else []
    )


def _prompts(inputs: Inputs) -> tuple[list[dict[str, Any]], dict[str, str]]:
    if not inputs.prompts:
        captions = [{"caption": i.labels["caption"], "name": i.key} for i in inputs.items() if i.labels.get("caption")]
        if not captions:
            raise Missing(f"no prompts given, and no clip has a caption: {NEEDS}")
        return captions, {}
    path, wording = Path(inputs.prompts), {}
    if path.is_dir():
        tables = sorted(p for p in path.iterdir() if p.suffix in (".csv", ".jsonl"))
        if len(tables) != 1:
            raise InputError(f"{path}: holds {len(tables)} tables of prompts (.csv, .jsonl); name the one to use")
        if (path / "questions.json").is_file():
            wording = suite.rows(path / "questions.json")[0]
        path = tables[0]
    found = read_prompts(path, inputs.where, inputs.limit)
    names = ("videopath", "video_path", "file_name", "video_url")
    rows = [{"caption": p.caption, "rule": p.columns.get("rule", ""), "id": p.id} for p in found]
    for row, prompt in zip(rows, found, strict=True):
        row["name"] = next((Path(str(prompt.columns[n])).stem for n in names if n in prompt.columns), "")
    return rows, wording


def _worded(given: Mapping[str, str]) -> dict[str, str]:
    """Return the three questions, those given in their own words."""
    unknown = [t for t, words in given.items() if t not in QUESTIONS or not isinstance(words, str)]
    if unknown:
        raise InputError(
            f"VideoPhy-2 has no question {', '.join(map(repr, unknown))} in words; give texts for {', '.join(QUESTIONS)}"
        )
    return {**QUESTIONS, **given}


def _filled(question: str, row: Mapping[str, Any]) -> str:
    """Return a question with {caption} and {rule} filled in; other braces are text."""
    return re.sub(r"\{(caption|rule)\}", lambda found: str(row.get(found[1], "")), question)


def _judged(row: dict[str, Any], clips: suite.Clips, judge: Any, wording: Mapping[str, str]) -> list[ClipRow]:
    prompt = row.get("name") or row["caption"]
    items = clips.of(row.get("name", ""), row.get("id", ""), row["caption"])
    if not items:
        return [suite.absent(prompt, {}, caption=row["caption"])]
    return [_clip(item, prompt if len(items) == 1 else item.key, prompt, row, judge, wording) for item in items]


def _clip(item: Item, key: str, prompt: str, row: Mapping[str, Any], judge: Any, wording: Mapping[str, str]) -> ClipRow:
    try:
        clip = item.clip()
    except InputError as error:
        return ClipRow(key, prompt, {}, failure=str(error), labels={"caption": row["caption"]})
    frames = uniform(clip.frames, FRAMES)
    kinds = {"sa": range(1, 6), "pc": range(1, 6)} | ({"rule": range(3)} if row.get("rule") else {})
    answers = {t: answered(judge, frames, _filled(wording[t], row)) for t in kinds}
    read = {t: rating(answers[t], allowed) for t, allowed in kinds.items()}
    numbers = {t: float(v or 0) for t, v in read.items()} | {"unread": float(sum(v is None for v in read.values()))}
    return ClipRow(key, prompt, numbers, frame_change(clip.frames), labels={"caption": row["caption"], "answers": answers})
