"""Two runs on the same scenes: paired per clip, per primitive and split, with the average relative improvement."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import Any

from visviva.errors import InputError
from visviva.eval.newtonbench import FIVE, LOWER_IS_BETTER, ClipScore
from visviva.eval.run import Run
from visviva.eval.score import finite
from visviva.eval.statistics import Comparison, Interval, average_relative_improvement, paired_bootstrap

Pair = tuple[ClipScore, ClipScore]

KINEMATIC = ("velocity_rmse", "acceleration_rmse")
"""The metrics that standing still improves: less motion, less error of it."""
LITTLE, MUCH = 0.5, 0.8
"""Shares of the true path: a mean motion below the first is a loss in itself, one below the second if it fell significantly."""
NO_DIFFERENCE, NOT_CREDITED = "no significant difference", "not credited"


@dataclass(frozen=True)
class Group:
    """The comparison within one primitive and split (or all of them).

    Attributes:
        metrics: paired comparison per metric, on the penalised values.
        improvement: average relative improvement over the five metrics [1], positive is better, with its interval.
        motion: paired comparison of the share of the true path that the objects move (`ClipScore.motion`, at most 1 per clip),
            over the clips of which both runs tell it; None if there is none.
        unscored: further pairs that are left out, because the truth of one side could not be read.
    """

    primitive: str
    split: str
    pairs: int
    metrics: dict[str, Comparison]
    improvement: Interval
    motion: Comparison | None = None
    unscored: int = 0

    @property
    def motion_before(self) -> float:
        """Mean share of the true path that the objects move in the run before, NaN if unknown."""
        return math.nan if self.motion is None else self.motion.before.value

    @property
    def motion_after(self) -> float:
        """The same in the run after."""
        return math.nan if self.motion is None else self.motion.after.value

    @property
    def slowed(self) -> bool:
        """Whether the objects move markedly less than before.

        Their mean motion is below `LITTLE` and was above it (or twice as large), or it is below `MUCH` and fell significantly.
        """
        before, after = self.motion_before, self.motion_after
        if self.motion is None or not after < before:
            return False
        little = after < LITTLE and (before >= LITTLE or after < before / 2)
        return little or (after < MUCH and self.motion.difference.significant)

    @property
    def verdict(self) -> str:
        """Return ``better``, ``worse`` or ``no significant difference`` by the interval of the improvement; ``not credited``
        where it would be better but the objects have `slowed`."""
        if not self.improvement.significant:
            return NO_DIFFERENCE
        return self._credited("better" if self.improvement.value > 0 else "worse")

    @property
    def verdicts(self) -> dict[str, str]:
        """Return the verdict per metric; ``better`` in velocity or acceleration is ``not credited`` where objects `slowed`."""
        return {m: self._credited(c.verdict) if m in KINEMATIC else c.verdict for m, c in self.metrics.items()}

    def _credited(self, verdict: str) -> str:
        return NOT_CREDITED if verdict == "better" and self.slowed else verdict

    @property
    def sentence(self) -> str:
        """Return the group's result in words."""
        left = f" {self.unscored} pairs without readable truth are left out." if self.unscored else ""
        moved = f" {self.moved[0].upper()}{self.moved[1:]}." if self.slowed and self.verdict != NOT_CREDITED else ""
        return self._result + moved + left

    @property
    def moved(self) -> str:
        """How far the objects move, in words."""
        return f"objects move {self.motion_after:.0%} of the true path ({self.motion_before:.0%} before)"

    @property
    def _result(self) -> str:
        what = "all primitives" if self.primitive == "all" else self.primitive.replace("_", " ") or "all clips"
        where = f"{what}, {self.split.upper()}" if self.split else what
        gain = self.improvement
        if math.isnan(gain.low):
            return f"{where}: {gain.value:+.1%} on average over the five metrics; these clips give no interval."
        interval = f"({gain.level:.0%} interval {gain.low:+.1%} to {gain.high:+.1%})"
        told = f"{gain.value:+.1%} on average over the five metrics {interval}"
        if self.verdict == NOT_CREDITED:
            return f"{where}: {told}: not credited: {self.moved}."
        if self.verdict == NO_DIFFERENCE:
            return f"{where}: {told}: the difference is not significant."
        return f"{where}: {told}: significantly {self.verdict}."

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary."""
        verdicts = self.verdicts
        content = asdict(self) | {"metrics": {m: asdict(c) | {"verdict": verdicts[m]} for m, c in self.metrics.items()}}
        content |= {"motion_before": self.motion_before, "motion_after": self.motion_after, "slowed": self.slowed}
        return finite(content | {"verdict": self.verdict, "sentence": self.sentence})


def compare(before: Run, after: Run, *, resamples: int = 2000, seed: int = 0, level: float = 0.95) -> list[Group]:
    """Compare two runs, clips paired by scene (and training seed), scenes resampled together.

    The first groups are the splits over all primitives, then each primitive within each split. Where the clips of ``after``
    carry training seeds (`visviva.eval.run.merged`), seeds are resampled too. Clips of one run only are an error: a comparison
    on the scenes that happened to work in both is not one.

    Example::

        for group in compare(Run.read("runs/sft"), Run.read("runs/newton")):
            print(group.sentence)
    """
    pairs = paired(before, after)
    splits = list(dict.fromkeys(b.split for b, _ in pairs))
    primitives = list(dict.fromkeys(b.primitive for b, _ in pairs))
    groups = [("all", split) for split in splits]
    groups += [(p, split) for split in splits for p in primitives if len(primitives) > 1]
    chosen = [(p, s, [x for x in pairs if x[0].split == s and p in (x[0].primitive, "all")]) for p, s in groups]
    return [_group(p, s, members, resamples, seed, level) for p, s, members in chosen if any(map(_scored, members))]


def _scored(pair: Pair) -> bool:
    return all(any(math.isfinite(score.value) for score in clip.penalised.values()) for clip in pair)


def paired(before: Run, after: Run) -> list[Pair]:
    """Return the clips of both runs that show the same scene (the n-th sample of it, under the same training seed)."""
    first, second = _by_scene(before), _by_scene(after)
    seedless = all(c.seed is None for c in before.clips)
    pairs = []
    missing = []
    for (seed, scene, n), clip in second.items():
        partner = first.get((None if seedless else seed, scene, n))
        missing += [scene] if partner is None else []
        pairs += [(partner, clip)] if partner is not None else []
    wanted = {(None if seedless else seed, scene, n) for seed, scene, n in second}
    missing += [scene for seed, scene, n in first if (seed, scene, n) not in wanted]
    if missing:
        raise InputError(
            f"the runs {before.name!r} and {after.name!r} do not hold the same clips: {len(missing)} are in one only "
            f"(such as scene {missing[0]!r}); evaluate both on the same data set"
        )
    order = {id(clip): k for k, clip in enumerate(before.clips)}
    return sorted(pairs, key=lambda pair: order[id(pair[0])])


def _by_scene(run: Run) -> dict[tuple[int | None, str, int], ClipScore]:
    counts: dict[tuple[int | None, str], int] = defaultdict(int)
    found = {}
    for clip in run.clips:
        found[clip.seed, clip.scene, counts[clip.seed, clip.scene]] = clip
        counts[clip.seed, clip.scene] += 1
    return found


def _group(primitive: str, split: str, pairs: list[Pair], resamples: int, seed: int, level: float) -> Group:
    asked, pairs = len(pairs), [pair for pair in pairs if _scored(pair)]
    settings: dict[str, Any] = {"resamples": resamples, "seed": seed, "level": level}
    labels = _labels(pairs)
    before = {m: [b.penalised[m].value for b, _ in pairs] for m in FIVE}
    after = {m: [a.penalised[m].value for _, a in pairs] for m in FIVE}
    known = [m for m in FIVE if all(map(math.isfinite, before[m] + after[m]))]
    metrics = {
        m: paired_bootstrap(before[m], after[m], *labels, metric=m, lower_is_better=LOWER_IS_BETTER[m], **settings)
        for m in known
    }
    improvement = average_relative_improvement(
        {m: before[m] for m in known}, {m: after[m] for m in known}, LOWER_IS_BETTER, *labels, **settings
    )
    return Group(primitive, split, len(pairs), metrics, improvement, _motion(pairs, settings), asked - len(pairs))


def _labels(pairs: list[Pair]) -> tuple[list[str], list[int | None] | None]:
    """Return the scenes, and the training seeds where every clip of the second run has one."""
    seeds = [a.seed for _, a in pairs]
    return [b.scene for b, _ in pairs], seeds if None not in seeds else None


def _motion(pairs: list[Pair], settings: dict[str, Any]) -> Comparison | None:
    moving = [pair for pair in pairs if all(math.isfinite(clip.motion) for clip in pair)]
    if not moving:
        return None
    before, after = ([min(1.0, pair[k].motion) for pair in moving] for k in (0, 1))
    return paired_bootstrap(before, after, *_labels(moving), metric="motion", lower_is_better=False, **settings)
