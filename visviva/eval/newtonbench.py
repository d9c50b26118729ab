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
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn import functional

from visviva.errors import InputError
from visviva.eval import kinematics, trajectory
from visviva.eval.clip_score import FIVE, LOWER_IS_BETTER, NOTES, UNITS, ClipScore, mean_score
from visviva.eval.score import finite, known_mean
from visviva.eval.table import Row, table

__all__ = [
    "FIVE",
    "LOWER_IS_BETTER",
    "NOTES",
    "UNITS",
    "ClipScore",
    "Row",
    "failed_clip",
    "score_clip",
    "table",
    "unscored_clip",
]

Part = tuple[float, int, int]
"""A mean of a metric, over how many frames, of how many asked."""


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
    penalised = {m: mean_score(m, [o["penalised"][m] for o in objects], fps, true.shape[2]) for m in UNITS}
    as_coded = {m: mean_score(m, [o["as_coded"][m] for o in objects], fps, true.shape[2]) for m in UNITS}
    return ClipScore(
        key,
        scene or key,
        fps,
        true.shape[2],
        len(masks),
        penalised,
        as_coded,
        lost=known_mean([o["lost"] for o in objects]),
        motion=known_mean([o["motion"] for o in objects]),
        ratio=known_mean([o["ratio"] for o in objects]),
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
    nothing = {m: mean_score(m, [(math.nan, 0, 0)], math.nan, 0) for m in UNITS}
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
    truth, track = trajectory.centroids(true), trajectory.centroids(masks)
    visible, seen = true.flatten(1).any(1), masks.flatten(1).any(1)
    lost = visible & ~seen
    scores = _shape_scores(masks, true, truth, visible, lost) | _motion_scores(track, truth, times, visible, true.shape[1])
    path, true_path = (_path_length(p[visible & seen]) for p in (track, truth))
    return {
        "as_coded": {name: coded for name, (coded, _) in scores.items()},
        "penalised": {name: fined for name, (_, fined) in scores.items()},
        "lost": float(lost.sum() / visible.sum()),
        "motion": path / true_path if true_path > 0 else math.nan,
        "ratio": kinematics.quadratic_fit(track, times).ratio if int(seen.sum()) >= 4 else math.nan,
    }


def _shape_scores(masks: Tensor, true: Tensor, truth: Tensor, visible: Tensor, lost: Tensor) -> dict[str, tuple[Part, Part]]:
    """Return the metrics of single frames, as coded and penalised."""
    worst = _worst(true, truth)
    per_frame = {
        "l2": trajectory.l2_euclid(masks, true),
        "l2_pisa": trajectory.l2_pisa(masks, true),
        "chamfer": trajectory.chamfer(masks, true),
        "iou": trajectory.iou(masks, true),
    }
    scores = {}
    for name, values in per_frame.items():
        fined = _nanmean(torch.where(lost, worst[name], values)[visible])
        scores[name] = _nanmean(values if name == "iou" else values[visible]), fined
    return scores


def _motion_scores(track: Tensor, truth: Tensor, times: Tensor, visible: Tensor, height: int) -> dict[str, tuple[Part, Part]]:
    """Return the metrics of velocity and acceleration, as coded and penalised."""
    duration = float(times[-1] - times[0]) if len(times) > 1 else math.inf
    top = _top_speed(truth, times, height / duration)
    fps = (len(times) - 1) / duration
    scores = {}
    for name, errors, bound, order in _differences(track, truth, times, 2 * top, 2 * top * fps):
        known = torch.stack([visible[k : len(visible) - order + k] for k in range(order + 1)]).all(0)
        fined = torch.nan_to_num(errors, nan=bound).clamp(max=bound)[known]
        scores[name] = _rms(errors / height), _rms(fined / height)
    return scores


def _top_speed(truth: Tensor, times: Tensor, least: float) -> float:
    speed = torch.linalg.vector_norm(kinematics.velocities(truth, times), dim=1) if len(times) > 1 else times[:0]
    return max([least, *speed[speed.isfinite()].tolist()])


def _differences(track: Tensor, truth: Tensor, times: Tensor, top: float, jump: float) -> list[tuple[str, Tensor, float, int]]:
    empty = torch.zeros(0, dtype=torch.float64)
    velocity = kinematics.velocity_errors(track, truth, times) if len(times) > 1 else empty
    acceleration = kinematics.acceleration_errors(track, truth, times) if len(times) > 2 else empty
    return [("velocity_rmse", velocity, top, 1), ("acceleration_rmse", acceleration, jump, 2)]


def _worst(true: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """Return per frame the worst that a visible object could score: in the corner farthest from the truth, without overlap."""
    height, width = true.shape[1:]
    size = torch.tensor([width - 1, height - 1], dtype=torch.float64)
    corner = torch.maximum(truth, size - truth)
    rows, columns = torch.arange(height, dtype=torch.float64), torch.arange(width, dtype=torch.float64)
    far_y, far_x = torch.maximum(rows, height - 1 - rows), torch.maximum(columns, width - 1 - columns)
    distance = torch.hypot(far_y[:, None].expand(height, width), far_x[None].expand(height, width))
    farthest = torch.where(true, distance, 0.0).flatten(1).amax(1)
    diagonal = math.sqrt(2) * height
    return {
        "l2": torch.linalg.vector_norm(corner, dim=1) / diagonal,
        "l2_pisa": corner.mean(1) / diagonal,
        "chamfer": 2 * farthest / diagonal,
        "iou": torch.zeros(len(true), dtype=torch.float64),
    }


def _nanmean(values: Tensor) -> Part:
    known = values[values.isfinite()]
    return (float(known.mean()) if len(known) else math.nan), len(known), len(values)


def _rms(errors: Tensor) -> Part:
    return kinematics.rmse(errors), int(errors.isfinite().sum()), len(errors)


def _path_length(path: Tensor) -> float:
    return float(torch.linalg.vector_norm(path.diff(dim=0), dim=1).sum()) if len(path) > 1 else 0.0


def _nested(tracks: list[Tensor]) -> list[Any]:
    return finite(torch.stack(tracks, dim=1).tolist())
