"""What one clip scored in the metrics of `visviva.eval.newtonbench`, under both conventions, with units and definitions."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from visviva.eval.score import Score, finite, known_mean

FIVE = ("l2", "chamfer", "iou", "velocity_rmse", "acceleration_rmse")
"""The five metrics that an average relative improvement is taken over."""

UNITS = {
    "l2": "image diagonals",
    "l2_pisa": "image diagonals",
    "chamfer": "image diagonals",
    "iou": "1",
    "velocity_rmse": "H/s",
    "acceleration_rmse": "H/s^2",
}

LOWER_IS_BETTER = {name: name != "iou" for name in UNITS}

NOTES = {
    "l2": "Euclidean centroid distance / (sqrt(2) H)",
    "l2_pisa": "mean absolute centroid coordinate error / (sqrt(2) H), as PISA codes its L2",
    "chamfer": "sum of both mean nearest-pixel distances / (sqrt(2) H)",
    "iou": "intersection over union of the masks",
    "velocity_rmse": "reconstruction: forward differences of mask centroids / H",
    "acceleration_rmse": "reconstruction: second differences of mask centroids / H",
}


@dataclass(frozen=True)
class ClipScore:
    """What one clip scored.

    Attributes:
        key: the clip's name; scene: its source scene (the unit that statistics resample).
        primitive, split, caption: from the data set; empty where unknown.
        seed: label of the training run the clip comes from (`visviva.eval.run.merged`); None for a single run.
        penalised, as_coded: the six metrics under the two conventions (module docstring).
        lost: share of frames in which the true object is visible and the predicted one is not, over objects.
        motion: length of the predicted path over the true one (0: frozen); printed beside the metrics a frozen clip could win.
        ratio: constant-acceleration residual of the predicted path over its extent (reference-free), NaN if not measurable.
        failure: why the clip could not be scored; empty if it was. Failed clips keep their place, with the full penalty.
        track, true_track: centroids per frame and object [px], (T, N, 2) nested lists with None, for pictures.
    """

    key: str
    scene: str
    fps: float
    height: int
    frames: int
    penalised: dict[str, Score]
    as_coded: dict[str, Score]
    primitive: str = ""
    split: str = ""
    caption: str = ""
    seed: int | None = None
    lost: float = 0.0
    motion: float = math.nan
    ratio: float = math.nan
    failure: str = ""
    track: list[Any] = field(default_factory=list, repr=False)
    true_track: list[Any] = field(default_factory=list, repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary (units and definitions are left to the head of metrics.json); `from_json` reads it back."""
        content = asdict(self)
        for group in ("penalised", "as_coded"):
            content[group] = {m: {"value": s.value, "used": s.used, "asked": s.asked} for m, s in getattr(self, group).items()}
        for name in ("track", "true_track"):
            content[name] = [
                [None if p is None or p[0] is None else [round(x, 3) for x in p] for p in f] for f in content[name]
            ]
        return finite(content)

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> ClipScore:
        """Rebuild a clip's scores from `to_json`; a missing number comes back as NaN."""
        content = dict(row)
        for group in ("penalised", "as_coded"):
            content[group] = {
                m: mean_score(m, [(number_of(s["value"]), s["used"], s["asked"])], number_of(row["fps"]), row["height"])
                for m, s in row[group].items()
            }
        for name in ("track", "true_track"):
            content[name] = [[[None, None] if p is None else p for p in frame] for frame in row[name]]
        for name in ("fps", "lost", "motion", "ratio"):
            content[name] = number_of(content.get(name))
        return cls(**content)


def mean_score(name: str, parts: list[tuple[float, int, int]], fps: float, height: int) -> Score:
    """Return the mean of a metric over parts, each a value (NaN: unknown) with its frames used and asked."""
    kinematic = name.endswith("_rmse")
    return Score(
        name,
        known_mean([value for value, _, _ in parts]),
        UNITS[name],
        LOWER_IS_BETTER[name],
        used=sum(used for _, used, _ in parts),
        asked=sum(asked for _, _, asked in parts),
        fps=fps if kinematic else None,
        length=None if name == "iou" else float(height) * (1.0 if kinematic else math.sqrt(2)),
        note=NOTES[name],
    )


def number_of(value: Any) -> float:
    """Return a number of JSON, where NaN is written as null."""
    return math.nan if value is None else float(value)
