"""What a benchmark returns: its own numbers with interval, direction and share used, the clips behind them, what was skipped.

Rules that every benchmark here keeps: numbers come per clip first, the mean over clips has a bootstrap interval over source
scenes; nothing is dropped silently (`Score.used` of `Score.asked`); beside every number that a frozen or empty clip could win
stands how much the clips move; a number whose input is missing is in ``skipped`` with the reason, not absent.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError
from visviva.eval.score import Score, finite
from visviva.eval.statistics import Interval, bootstrap_mean

EXACT = "exact"
"""Agrees with the published code on golden numbers."""
RECONSTRUCTION = "reconstruction"
"""The paper names the number without publishing its formula; the definition is ours."""
UNCALIBRATED = "uncalibrated"
"""The published procedure with another estimator in the place of its network: compare runs, not with published tables."""


class Missing(InputError):
    """An input that a benchmark needs was not given; the benchmark is skipped with this reason."""


@dataclass(frozen=True)
class ClipRow:
    """One clip's numbers.

    Attributes:
        key: its name; scene: the unit that the bootstrap resamples.
        numbers: by metric; NaN where it could not be taken.
        motion: how much the clip moves (`frame_change`, or what the benchmark's notes say).
        failure: why it has no numbers, or none but penalties; empty if it has.
        labels: whatever else tells it apart: view, category, prompt.
    """

    key: str
    scene: str
    numbers: dict[str, float] = field(default_factory=dict)
    motion: float = math.nan
    failure: str = ""
    labels: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """The outcome of one benchmark.

    Attributes:
        benchmark, version: its name, and the version of this definition of it; a change of any number changes the version.
        standing: `EXACT`, `RECONSTRUCTION` or `UNCALIBRATED`.
        scores: its own numbers, each with unit, direction, interval and share used.
        clips: the clips behind them.
        skipped: number (or ``"all"``) -> why it was not taken.
        notes: what a reader must know.
    """

    benchmark: str
    version: str
    standing: str
    scores: list[Score] = field(default_factory=list)
    clips: list[ClipRow] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __getitem__(self, name: str) -> Score:
        """Return the score of a name."""
        for score in self.scores:
            if score.name == name:
                return score
        known = ", ".join(s.name for s in self.scores) or "none"
        raise InputError(f"{self.benchmark} holds no number {name!r}; it has {known}, skipped are {self.skipped}")

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary; numbers that are not finite become None."""
        content = asdict(self) | {"scores": [s.to_json() for s in self.scores]}
        return finite(content)


def mean_score(
    name: str,
    rows: Sequence[ClipRow],
    unit: str,
    *,
    lower_is_better: bool,
    note: str = "",
    statistics: Mapping[str, Any] | None = None,
    within: tuple[float, float] = (-math.inf, math.inf),
    **attributes: Any,
) -> Score:
    """Return the mean of one number over the clips that have it, its interval over scenes, and how many had it.

    ``within``: the range of the number, which the interval does not leave.

    Example::

        mean_score("iou", rows, "1", lower_is_better=False)
    """
    known = [(r.numbers[name], r.scene) for r in rows if math.isfinite(r.numbers.get(name, math.nan))]
    score = Score(name, math.nan, unit, lower_is_better, len(known), len(rows), note=note, **attributes)
    if not known:
        return score
    interval = bootstrap_mean([v for v, _ in known], [s for _, s in known], **(statistics or {}))
    return with_interval(score, interval, within)


def with_interval(score: Score, interval: Interval, within: tuple[float, float] = (-math.inf, math.inf)) -> Score:
    """Return the score with the interval's value and bounds (none where the interval has none), which stay in the range."""
    kept = {"low": max(interval.low, within[0]), "high": min(interval.high, within[1])}
    bounds = {} if math.isnan(interval.low) else kept
    return score.with_(value=interval.value, **bounds)


def motion_score(rows: Sequence[ClipRow], statistics: Mapping[str, Any] | None = None) -> Score:
    """Return the motion amount that stands beside hackable numbers: the mean `frame_change` of the clips."""
    moving = [ClipRow(r.key, r.scene, {"motion": r.motion}) for r in rows]
    note = "mean absolute change between consecutive frames; near 0: frozen. Read it beside the numbers above"
    return mean_score("motion", moving, "grey levels", lower_is_better=False, note=note, statistics=statistics, within=(0, 255))


def frame_change(frames: Float[Tensor, "T 3 H W"]) -> float:
    """Return the mean absolute change between consecutive frames [grey levels of 255]: 0 for a frozen clip.

    Weight-free and cheap; noise moves it too, so it tells frozen clips apart, not good motion.
    """
    total = sum(float((b - a).abs().mean()) for a, b in pairwise(frames))
    return 255.0 * total / max(1, len(frames) - 1)


def as_bytes(frames: Tensor) -> np.ndarray:
    """Return frames (T, 3, H, W), float in [0, 1] or uint8, as uint8 RGB images (T, H, W, 3) for OpenCV."""
    return np.stack([as_image(frame) for frame in frames])


def as_image(frame: Tensor) -> np.ndarray:
    """Return one frame (3, H, W), float in [0, 1] or uint8, as a uint8 RGB image (H, W, 3) for OpenCV."""
    if frame.dtype != torch.uint8:
        if not bool(frame.isfinite().all()):
            raise InputError("the frames hold values that are not finite (NaN or infinity); they cannot be scored")
        frame = (frame.clamp(0, 1) * 255).round().to(torch.uint8)
    return np.ascontiguousarray(frame.cpu().permute(1, 2, 0).numpy())


def skipped(benchmark: str, version: str, standing: str, reason: str) -> Result:
    """Return the result of a benchmark that could not run."""
    return Result(benchmark, version, standing, skipped={"all": reason})


def failures(rows: Iterable[ClipRow]) -> dict[str, str]:
    """Return key -> reason of the clips that failed."""
    return {r.key: r.failure for r in rows if r.failure}
