"""The table of NewtonBench scores: one row per primitive and split, with intervals clustered by scene."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from visviva.eval.clip_score import UNITS, ClipScore
from visviva.eval.score import finite, known_mean
from visviva.eval.statistics import Interval, bootstrap_mean


@dataclass(frozen=True)
class Row:
    """One line of the table: a group of clips, their counts, the interval of each metric's mean, and the plain as-coded
    means."""

    primitive: str
    split: str
    asked: int
    failed: int
    lost: float
    motion: float
    penalised: dict[str, Interval]
    as_coded: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary."""
        return finite(asdict(self))


def table(scores: Sequence[ClipScore], *, resamples: int = 2000, seed: int = 0, level: float = 0.95) -> list[Row]:
    """Return one row per primitive and split, one per split over all primitives, clustered by scene.

    Failed clips are in the means with their penalties, except those whose truth cannot be read either (`unscored_clip`);
    ``Row.asked`` and ``Row.failed`` count all of them.
    """
    splits = list(dict.fromkeys(s.split for s in scores))
    primitives = list(dict.fromkeys(s.primitive for s in scores))
    groups = [(p, q) for q in splits for p in [*primitives, *(["all"] if len(primitives) > 1 else [])]]
    rows = []
    for primitive, split in groups:
        chosen = [s for s in scores if s.split == split and primitive in (s.primitive, "all")]
        if chosen:
            rows.append(_row(primitive, split, chosen, resamples, seed, level))
    return rows


def _row(primitive: str, split: str, scores: list[ClipScore], resamples: int, seed: int, level: float) -> Row:
    penalised = {}
    for metric in UNITS:
        known = [s for s in scores if math.isfinite(s.penalised[metric].value)]
        if known:
            values = [s.penalised[metric].value for s in known]
            scenes = [s.scene for s in known]
            penalised[metric] = bootstrap_mean(values, scenes, resamples=resamples, seed=seed, level=level)
    return Row(
        primitive,
        split,
        len(scores),
        sum(bool(s.failure) for s in scores),
        known_mean([s.lost for s in scores]),
        known_mean([s.motion for s in scores]),
        penalised,
        {m: known_mean([s.as_coded[m].value for s in scores]) for m in UNITS},
    )
