"""The five NewtonBench metrics of a clip against its true clip, and their table per primitive and split.

Five numbers (arXiv 2512.00425 names them; the first three are PISA's, arXiv 2503.09595, the last two a reconstruction, see
`visviva.eval.kinematics`): centroid ``l2``, ``chamfer``, ``iou``, ``velocity_rmse``, ``acceleration_rmse``. Beside them
``l2_pisa``, the coordinate-wise variant that PISA's code prints as "L2".

Two conventions, both always reported:

- *as coded*: frames without a predicted object are dropped from the mean, as the published code does. A clip whose object
  vanishes is then judged on the frames where it still looked right.
- *penalised* (what tables and comparisons use): a frame in which the true object is visible and the predicted one is not
  counts as the worst thing a visible object could have done. For ``l2``: sitting in the image corner farthest from the truth.
  For
  ``chamfer``: twice the largest distance from a true pixel to its farthest corner. For ``iou``: 0. For the velocity: moving at
  the truth's top speed V in the wrong direction, error 2V; for the acceleration: such a reversal within one frame, 2V fps
  (V is at least one image height per clip duration). Visible errors are capped at the same bounds, so that
  *removing the predicted object from any frame never improves any of the five*.

Frames in which the *true* object is not visible are cut for both conventions. Several objects: mean over objects.

Not seen: whatever is no true object. The predicted masks follow the true first-frame masks, so a second ball that appears, a
background that changes or a hand that enters alters none of the five numbers as long as the tracked objects are found.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn import functional

from visviva.errors import InputError
from visviva.eval import kinematics, trajectory
from visviva.eval.score import Score, finite
from visviva.eval.statistics import Interval, bootstrap_mean

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
                m: _mean_score(m, [(_number(s["value"]), s["used"], s["asked"])], _number(row["fps"]), row["height"])
                for m, s in row[group].items()
            }
        for name in ("track", "true_track"):
            content[name] = [[[None, None] if p is None else p for p in frame] for frame in row[name]]
        for name in ("fps", "lost", "motion", "ratio"):
            content[name] = _number(content.get(name))
        return cls(**content)


def score_clip(
    masks: Bool[Tensor, "T N H W"],
    true: Bool[Tensor, "S M h w"],
    fps: float,
    true_fps: float | None = None,
    *,
    key: str = "",
    scene: str = "",
    **labels: Any,
) -> ClipScore:
    """Score predicted object masks against the true ones.

    Args:
        masks: predicted masks, one channel per object, in the order of the true ones.
        true: true masks; predicted frame k is paired with true frame ``int(k true_fps / fps)``, cut at the shorter clip.
            Predicted masks of another size are resized to the true one if the aspect ratio agrees.
        fps, true_fps: frame rates [1/s]; ``true_fps`` defaults to ``fps``.
        key, scene, labels: names kept with the result (`ClipScore`).

    Example::

        score = score_clip(track_masks(frames, clip.masks[0]), clip.masks, clip.fps, scene="0007")
        score.penalised["iou"].value
    """
    true_fps = fps if true_fps is None else true_fps
    masks, true = _comparable(masks, true, fps, true_fps)
    times = torch.arange(len(masks), dtype=torch.float64) / fps
    objects = [_score_object(masks[:, n], true[:, n], times) for n in range(true.shape[1]) if bool(true[:, n].any())]
    if not objects:
        raise InputError(
            f"clip {key!r}: no true object is visible in any of the {len(true)} paired frames; nothing can be scored"
        )
    penalised = {m: _mean_score(m, [o["penalised"][m] for o in objects], fps, true.shape[2]) for m in UNITS}
    as_coded = {m: _mean_score(m, [o["as_coded"][m] for o in objects], fps, true.shape[2]) for m in UNITS}
    return ClipScore(
        key,
        scene or key,
        fps,
        true.shape[2],
        len(masks),
        penalised,
        as_coded,
        lost=_mean([o["lost"] for o in objects]),
        motion=_mean([o["motion"] for o in objects]),
        ratio=_mean([o["ratio"] for o in objects]),
        track=_nested([trajectory.centroids(masks[:, n]) for n in range(masks.shape[1])]),
        true_track=_nested([trajectory.centroids(true[:, n]) for n in range(true.shape[1])]),
        **labels,
    )


def failed_clip(
    true: Bool[Tensor, "T N H W"], fps: float, reason: str, *, key: str, scene: str = "", **labels: Any
) -> ClipScore:
    """Return the scores of a clip that could not be read or generated: an empty clip's penalties, and the reason."""
    score = score_clip(torch.zeros_like(true), true, fps, key=key, scene=scene, **labels)
    return ClipScore(**{**score.__dict__, "failure": reason})


def unscored_clip(reason: str, *, key: str, scene: str = "", **labels: Any) -> ClipScore:
    """Return the place of a clip whose truth cannot be read, so that not even penalties are known: every number is NaN."""
    nothing = {m: _mean_score(m, [(math.nan, 0, 0)], math.nan, 0) for m in UNITS}
    return ClipScore(key, scene or key, math.nan, 0, 0, nothing, nothing, lost=math.nan, failure=reason, **labels)


def _comparable(masks: Tensor, true: Tensor, fps: float, true_fps: float) -> tuple[Tensor, Tensor]:
    if masks.shape[1] != true.shape[1]:
        raise InputError(
            f"{masks.shape[1]} predicted objects but {true.shape[1]} true ones; give one mask channel per true object"
        )
    (h, w), (height, width) = masks.shape[2:], true.shape[2:]
    if (h, w) != (height, width):
        if abs(h * width - w * height) > 0.02 * w * height:
            raise InputError(
                f"clip of {w}x{h} pixels cannot be compared with a true clip of {width}x{height}: the aspect ratios differ"
            )
        resized = functional.interpolate(masks.float(), size=(height, width), mode="area" if h > height else "nearest")
        masks = resized > 0.5
    pairs = trajectory.aligned(len(masks), fps, len(true), true_fps)
    return masks[: len(pairs)], true[pairs]


def _score_object(masks: Tensor, true: Tensor, times: Tensor) -> dict[str, Any]:
    height = true.shape[1]
    truth, track = trajectory.centroids(true), trajectory.centroids(masks)
    visible, seen = true.flatten(1).any(1), masks.flatten(1).any(1)
    lost = visible & ~seen
    corner, farthest = _worst(true, truth)
    diagonal = math.sqrt(2) * height
    coded, fined = {}, {}
    worst = {
        "l2": torch.linalg.vector_norm(corner, dim=1) / diagonal,
        "l2_pisa": corner.mean(1) / diagonal,
        "chamfer": 2 * farthest / diagonal,
        "iou": torch.zeros(len(true), dtype=torch.float64),
    }
    per_frame = {
        "l2": trajectory.l2_euclid(masks, true),
        "l2_pisa": trajectory.l2_pisa(masks, true),
        "chamfer": trajectory.chamfer(masks, true),
        "iou": trajectory.iou(masks, true),
    }
    for name, values in per_frame.items():
        coded[name] = _nanmean(values if name == "iou" else values[visible])
        fined[name] = _nanmean(torch.where(lost, worst[name], values)[visible])
    speed = torch.linalg.vector_norm(kinematics.velocities(truth, times), dim=1) if len(times) > 1 else times[:0]
    duration = float(times[-1] - times[0]) if len(times) > 1 else math.inf
    top = max([height / duration, *speed[speed.isfinite()].tolist()])
    fps = (len(times) - 1) / duration
    for name, errors, bound, order in _differences(track, truth, times, 2 * top, 2 * top * fps):
        known = torch.stack([visible[k : len(visible) - order + k] for k in range(order + 1)]).all(0)
        coded[name] = _rms(errors / height)
        fined[name] = _rms(torch.nan_to_num(errors, nan=bound).clamp(max=bound)[known] / height)
    path, true_path = (_path_length(p[visible & seen]) for p in (track, truth))
    return {
        "as_coded": coded,
        "penalised": fined,
        "lost": float(lost.sum() / visible.sum()),
        "motion": path / true_path if true_path > 0 else math.nan,
        "ratio": kinematics.quadratic_fit(track, times).ratio if int(seen.sum()) >= 4 else math.nan,
    }


def _differences(track: Tensor, truth: Tensor, times: Tensor, top: float, jump: float) -> list[tuple[str, Tensor, float, int]]:
    empty = torch.zeros(0, dtype=torch.float64)
    velocity = kinematics.velocity_errors(track, truth, times) if len(times) > 1 else empty
    acceleration = kinematics.acceleration_errors(track, truth, times) if len(times) > 2 else empty
    return [("velocity_rmse", velocity, top, 1), ("acceleration_rmse", acceleration, jump, 2)]


def _worst(true: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Return per frame the offset (|x|, |y|) to the image corner farthest from the true centroid, and the same for any true
    pixel."""
    height, width = true.shape[1:]
    size = torch.tensor([width - 1, height - 1], dtype=torch.float64)
    corner = torch.maximum(truth, size - truth)
    rows, columns = torch.arange(height, dtype=torch.float64), torch.arange(width, dtype=torch.float64)
    far_y, far_x = torch.maximum(rows, height - 1 - rows), torch.maximum(columns, width - 1 - columns)
    distance = torch.hypot(far_y[:, None].expand(height, width), far_x[None].expand(height, width))
    return corner, torch.where(true, distance, 0.0).flatten(1).amax(1)


def _nanmean(values: Tensor) -> tuple[float, int, int]:
    known = values[values.isfinite()]
    return (float(known.mean()) if len(known) else math.nan), len(known), len(values)


def _rms(errors: Tensor) -> tuple[float, int, int]:
    return kinematics.rmse(errors), int(errors.isfinite().sum()), len(errors)


def _mean_score(name: str, parts: list[tuple[float, int, int]], fps: float, height: int) -> Score:
    kinematic = name.endswith("_rmse")
    return Score(
        name,
        _mean([value for value, _, _ in parts]),
        UNITS[name],
        LOWER_IS_BETTER[name],
        used=sum(used for _, used, _ in parts),
        asked=sum(asked for _, _, asked in parts),
        fps=fps if kinematic else None,
        length=None if name == "iou" else float(height) * (1.0 if kinematic else math.sqrt(2)),
        note=NOTES[name],
    )


def _path_length(path: Tensor) -> float:
    return float(torch.linalg.vector_norm(path.diff(dim=0), dim=1).sum()) if len(path) > 1 else 0.0


def _mean(values: list[float]) -> float:
    known = [v for v in values if math.isfinite(v)]
    return sum(known) / len(known) if known else math.nan


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _nested(tracks: list[Tensor]) -> list[Any]:
    return finite(torch.stack(tracks, dim=1).tolist())


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
        _mean([s.lost for s in scores]),
        _mean([s.motion for s in scores]),
        penalised,
        {m: _mean([s.as_coded[m].value for s in scores]) for m in UNITS},
    )
