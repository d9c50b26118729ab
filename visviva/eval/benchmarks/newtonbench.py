"""NewtonBench (arXiv 2512.00425): the five kinematic metrics of `visviva.eval.newtonbench` over a set of clips.

A reconstruction: the paper names the metrics and primitives, its code is not public (`visviva.eval.kinematics` says what is
ours). Masks come from following the true first-frame masks through the clip. All five are penalised, so that neither a clip
whose object vanishes nor one that cannot be read gains; ``motion`` stands beside velocity and acceleration, which a frozen clip
could otherwise win, and ``covered`` beside all: a clip is compared with its truth as far as it goes, as in PISA.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tqdm import tqdm

from visviva.data.arrays import read_arrays
from visviva.errors import InputError
from visviva.eval.benchmarks.inputs import Inputs, covered, covered_score, pair
from visviva.eval.benchmarks.result import RECONSTRUCTION, ClipRow, Missing, Result, mean_score
from visviva.eval.collection import Item
from visviva.eval.newtonbench import LOWER_IS_BETTER, NOTES, UNITS, ClipScore, failed_clip, score_clip, unscored_clip
from visviva.eval.score import Score

VERSION = "1"
STANDING = RECONSTRUCTION
NEEDS = "--reference: a data set with the true clips and their masks (or clips whose rows name their source)"


@dataclass(frozen=True)
class Scored:
    """A clip's scores, and the share of its truth that it covers; NaN where it could not be read."""

    score: ClipScore
    covered: float = math.nan


def run(inputs: Inputs) -> Result:
    """Score clips against their true clips, paired by scene."""
    scores = scored(inputs)
    rows = [row(s, {m: s.score.penalised[m].value for m in UNITS}) for s in scores]
    notes = ["a frame without the object counts as the worst a visible object could have done, and so does an unreadable clip"]
    return Result("newtonbench", VERSION, STANDING, means(list(UNITS), rows, inputs) + beside(rows, inputs), rows, {}, notes)


def means(metrics: Sequence[str], rows: Sequence[ClipRow], inputs: Inputs) -> list[Score]:
    """Return the mean of each metric over the clips that have it."""
    return [
        mean_score(
            m,
            rows,
            UNITS[m],
            lower_is_better=LOWER_IS_BETTER[m],
            note=NOTES[m],
            statistics=inputs.statistics,
            within=(0, 1 if m == "iou" else math.inf),
        )
        for m in metrics
    ]


def scored(inputs: Inputs) -> list[Scored]:
    """Return the scores of all clips that have a truth.

    Raises:
        Missing: none has.
    """
    items = [item for item in inputs.items(paired=True) if item.true is not None]
    if not items:
        raise Missing(f"no clip has a truth: {NEEDS}")
    return [score(item) for item in tqdm(items, desc="clips against truth")]


def score(item: Item) -> Scored:
    """Score one clip; one that cannot be read or compared keeps its place, with the penalties as far as its truth is known."""
    try:
        found = pair(item)
        scores = score_clip(found.masks, found.true_masks, found.clip.fps, found.true.fps, key=item.key, **item.labels)
        share = covered(len(found.masks), found.clip.fps, len(found.true_masks), found.true.fps)
        return Scored(scores, share)
    except InputError as error:
        return Scored(penalised(item, str(error)))


def penalised(item: Item, reason: str) -> ClipScore:
    """Return the scores of a clip that cannot be read: an empty clip's, from the truth's file of arrays."""
    try:
        arrays = None if item.arrays is None else read_arrays(item.arrays)
        if arrays is not None and "masks" in arrays.tensors:
            masks, fps = arrays.tensors["masks"], float(arrays.about["fps"])
            return failed_clip(masks, fps, reason, key=item.key, **item.labels)
    except InputError as error:
        reason = reason if str(error) == reason else f"{reason} (and {error})"
    return unscored_clip(reason, key=item.key, **item.labels)


def row(found: Scored, numbers: dict[str, float]) -> ClipRow:
    """Return a clip's row with what was lost, how much of the truth it covers and how far the object moved."""
    clip = found.score
    labels = {"primitive": clip.primitive, "split": clip.split}
    numbers = {**numbers, "lost": clip.lost, "covered": found.covered}
    return ClipRow(clip.key, clip.scene, numbers, clip.motion, clip.failure, labels)


def beside(clips: Sequence[ClipRow], inputs: Inputs) -> list[Score]:
    """Return what stands beside the metrics: share of lost frames, motion over the true motion, share of the truth covered."""
    rows = [ClipRow(c.key, c.scene, {**c.numbers, "motion": c.motion}) for c in clips]
    lost = "share of frames in which the truth shows the object and the clip does not"
    moved = "path length over the true one; 0: frozen. Read it beside velocity and acceleration"
    return [
        mean_score("lost", rows, "1", lower_is_better=True, note=lost, statistics=inputs.statistics, within=(0, 1)),
        mean_score("motion", rows, "1", lower_is_better=False, note=moved, statistics=inputs.statistics, within=(0, math.inf)),
        covered_score(rows, inputs.statistics),
    ]
