"""VBench-2.0 (arXiv 2503.21755): yes/no questions of Mechanics, Thermotics, Material and Motion Rationality, and the totals.

Rules as published. Mechanics, Thermotics, Material: one question decides; with two, the first is a gate (no: the clip is left
out) and the second decides; a third is not read. Motion Rationality: every answer must be yes. An answer is yes if it contains
"yes"; answers that begin with neither yes nor no are counted in ``unread``. A dimension is the mean over its valid clips;
``valid`` is their share, because a model whose clips fail the gate is not punished by the published mean. Intervals resample
prompts: several clips of one prompt are not independent.

The other fourteen dimensions need detectors, trackers or other judges that are not here. `totals` aggregates them when given;
the groups that lack one are skipped with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from visviva.data.files import read_text
from visviva.errors import InputError
from visviva.eval.benchmarks import suite
from visviva.eval.benchmarks.inputs import Inputs, folder
from visviva.eval.benchmarks.judge import asked, uniform, yes
from visviva.eval.benchmarks.result import UNCALIBRATED, ClipRow, Missing, Result, frame_change, mean_score, motion_score
from visviva.eval.collection import Item
from visviva.eval.score import Score

VERSION = "2"
STANDING = UNCALIBRATED
NEEDS = "--judge, and --prompts: the suite's folder meta_info with Mechanics.json, Thermotics.json, ..."
FRAMES = 64
GATED, ALL = ("Mechanics", "Thermotics", "Material"), ("Motion Rationality",)
GROUPS = {
    "Physics": ("Mechanics", "Thermotics", "Material", "Multi-View Consistency"),
    "Commonsense": ("Motion Rationality", "Instance Preservation"),
    "Creativity": ("Diversity", "Composition"),
    "Human Fidelity": ("Human Anatomy", "Human Identity", "Human Clothes"),
    "Controllability": (
        "Dynamic Spatial Relationship",
        "Dynamic Attribute",
        "Motion Order Understanding",
        "Human Interaction",
        "Complex Landscape",
        "Complex Plot",
        "Camera Motion",
    ),
}
"""The eighteen dimensions by group; a group is the mean of its dimensions, the total the mean of the five groups."""
QUESTION = "These are {count} images taken evenly from a video of {seconds:.2f} s. Answer only yes or no.\n{question}"


def verdict(dimension: str, answers: Sequence[str]) -> int | None:
    """Return 1 or 0 for a clip from its answers, or None where its gate fails and it is left out.

    >>> verdict("Mechanics", ["yes", "no"]), verdict("Mechanics", ["no", "yes"]), verdict("Motion Rationality", ["yes", "yes"])
    (0, None, 1)
    """
    said = ["yes" in answer.lower() for answer in answers]
    if not said:
        raise InputError(f"{dimension}: a clip without an answer has no verdict; the prompt needs at least one question")
    if dimension in ALL:
        return int(all(said))
    if len(said) == 1:
        return int(said[0])
    return int(said[1]) if said[0] else None


def totals(dimensions: Mapping[str, float]) -> tuple[dict[str, float], dict[str, str]]:
    """Return the groups (and ``Total``) that the given dimensions, in [0, 1], make up, and why the others are missing.

    Example::

        scores, missing = totals({"Diversity": 0.5, "Composition": 0.7})   # {"Creativity": 0.6}
    """
    unknown = set(dimensions) - {d for group in GROUPS.values() for d in group}
    if unknown:
        raise InputError(
            f"VBench-2.0 has no dimension {', '.join(sorted(unknown))}; it has {', '.join(sum(GROUPS.values(), ()))}"
        )
    wrong = {d: v for d, v in dimensions.items() if not 0 <= v <= 1}
    if wrong:
        raise InputError(f"values of VBench-2.0 are shares from 0 to 1, not {wrong}; divide percentages by 100")
    found, missing = {}, {}
    for group, names in GROUPS.items():
        absent = [n for n in names if n not in dimensions]
        if absent:
            missing[group] = f"no value of {', '.join(absent)}"
        else:
            found[group] = sum(dimensions[n] for n in names) / len(names)
    if missing:
        missing["Total"] = f"needs all groups; without {', '.join(missing)}"
    else:
        found["Total"] = sum(found.values()) / len(GROUPS)
    return found, missing


def multi_view(flow: float, matches: float) -> float | None:
    """Return Multi-View Consistency of an orbiting clip from its flow [px, mean of the top 5 % at 854x480 and 8 fps] and the
    mean RANSAC inlier count; None (left out) where the flow is below 5."""
    return None if flow < 5 else min(flow, 10.0) / 10 * min(matches, 750.0) / 750


def diversity(content: float, style: float) -> float:
    """Return Diversity from mean pairwise L1 distances of VGG-19 features (``content``) and Gram matrices (``style``)."""
    return min(1.0, max(0.0, (content + 1000 * style) / 2 / 17.712))


def run(inputs: Inputs, others: Mapping[str, float] | None = None) -> Result:
    """Ask the judge about every clip of the question dimensions; ``others``: dimensions measured elsewhere, for the totals.

    ``others.json`` beside the questions is read for them, too: {"Diversity": 0.5, ...}.
    """
    judge = suite.needed_judge(inputs)
    where = folder(inputs.needed("prompts", NEEDS), NEEDS)
    clips, rows, skipped = suite.Clips(inputs.items()), [], {}
    for dimension in GATED + ALL:
        path = where / f"{dimension.replace(' ', '_')}.json"
        if not path.is_file():
            skipped[dimension] = f"no {path.name} in {str(where)!r}"
            continue
        prompts = [_sound(row, f"{path}, prompt {k}") for k, row in enumerate(suite.rows(path)[: inputs.limit], 1)]
        for prompt in tqdm(prompts, desc=dimension):
            rows += _judged(dimension, prompt, clips, judge)
    if not rows:
        raise Missing(f"no questions in {str(where)!r}: {NEEDS}")
    known = dict(others or {}) | _others(where)
    return summary(rows, known, skipped, inputs.statistics, suite.judged_by(judge, "LLaVA-Video-7B-Qwen2"))


def summary(
    rows: Sequence[ClipRow], others: Mapping[str, float], skipped: Mapping[str, str], statistics: Mapping[str, Any], note: str
) -> Result:
    """Return the result of rows that have a number named by their dimension (NaN or none: left out)."""
    names = [d for d in GATED + ALL if any(r.labels["dimension"] == d for r in rows)]
    scores, valid = [], []
    for dimension in names:
        some = [r for r in rows if r.labels["dimension"] == dimension]
        score = mean_score(dimension, some, "1", lower_is_better=False, note="valid clips", statistics=statistics)
        scores.append(score)
        valid += [ClipRow(r.key, r.scene, {"valid": float(dimension in r.numbers)}) for r in some]
    measured = {s.name: s.value for s in scores if s.used}
    found, missing = totals({**others, **measured})
    groups = [Score(g, v, "1", False, len(measured), len(names), note="mean of its dimensions") for g, v in found.items()]
    beside = [
        mean_score("valid", valid, "1", lower_is_better=False, note="share of clips that are scored", statistics=statistics)
    ]
    beside.append(mean_score("unread", rows, "answers", lower_is_better=True, note="answers per clip", statistics=statistics))
    beside.append(motion_score(rows, statistics))
    return Result("vbench2", VERSION, STANDING, scores + groups + beside, list(rows), {**skipped, **missing}, [note])


def _others(where: Path) -> dict[str, float]:
    path = where / "others.json"
    if not path.is_file():
        return {}
    try:
        found = {str(k): float(v) for k, v in json.loads(read_text(path)).items()}
    except (json.JSONDecodeError, AttributeError, TypeError, ValueError) as error:
        raise InputError(f'{path}: expected {{"Diversity": 0.5, ...}} ({error})') from error
    return found


def _sound(row: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Return a prompt that has a text and questions."""
    suite.texts(row, ["prompt_en"], where)
    questions = row.get("auxiliary_info")
    if not isinstance(questions, list) or not questions or not all(isinstance(q, str) and q.strip() for q in questions):
        raise InputError(f"{where}: 'auxiliary_info' must be a list of questions, not {questions!r}; give the suite's own file")
    return row


def _judged(dimension: str, prompt: Mapping[str, Any], clips: suite.Clips, judge: Any) -> list[ClipRow]:
    text, labels = prompt["prompt_en"], {"dimension": dimension}
    items = clips.of(text)
    if not items:
        return [suite.absent(text, {}, **labels)]
    return [_clip(item, text, prompt["auxiliary_info"], judge, labels) for item in items]


def _clip(item: Item, prompt: str, questions: Sequence[str], judge: Any, labels: dict[str, Any]) -> ClipRow:
    try:
        clip = item.clip()
    except InputError as error:
        return ClipRow(item.key, prompt, {}, failure=str(error), labels=labels)
    frames, seconds = uniform(clip.frames, FRAMES), len(clip.frames) / clip.fps
    answers = [asked(judge, frames, QUESTION.format(count=FRAMES, seconds=seconds, question=q)) for q in questions]
    value = verdict(labels["dimension"], answers)
    numbers = {"unread": float(sum(yes(a) is None for a in answers))}
    numbers |= {} if value is None else {labels["dimension"]: float(value)}
    return ClipRow(item.key, prompt, numbers, frame_change(clip.frames), labels={**labels, "answers": answers})
