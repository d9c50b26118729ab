"""Why a clip scored as it did, in one or two sentences, from its tracks alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visviva.eval.newtonbench import ClipScore


@dataclass(frozen=True)
class Motion:
    """What a trajectory (T, 2) [px] does: fitted acceleration [px/s^2], mean velocity [px/s], path length [px]."""

    acceleration: NDArray[np.float64]
    velocity: NDArray[np.float64]
    length: float

    @classmethod
    def of(cls, track: NDArray[np.float64], times: NDArray[np.float64]) -> Motion | None:
        """Fit a parabola to the known positions; None with fewer than four of them."""
        known = np.isfinite(track[:, 0])
        if known.sum() < 4:
            return None
        t = times[known] - times[known].mean()
        design = np.stack([np.ones_like(t), t, t**2 / 2], axis=1)
        fit = np.linalg.lstsq(design, track[known], rcond=None)[0]
        return cls(fit[2], fit[1], float(np.linalg.norm(np.diff(track[known], axis=0), axis=1).sum()))


def tracks(score: ClipScore) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return predicted and true centroids (T, N, 2) [px], NaN where unknown, and the times (T,) [s]."""
    predicted = np.array(score.track, dtype=np.float64).reshape(score.frames, -1, 2)
    true = np.array(score.true_track, dtype=np.float64).reshape(score.frames, -1, 2)
    return predicted, true, np.arange(score.frames) / score.fps


def explain(score: ClipScore) -> str:
    """Return the reasons for a clip's scores: failure, loss of the object, drift, wrong acceleration, speed, shape.

    Example: ``explain(score_clip(masks, masks, 32.0))`` says that the object follows the true path.
    """
    if score.failure:
        return f"Not scored: {score.failure}."
    predicted, true, times = tracks(score)
    said = [s for n in range(true.shape[1]) for s in _object(predicted[:, n], true[:, n], times, score.height)[:2]]
    said = said[:3]
    if score.lost > 0:
        said.insert(0, f"the object cannot be found in {score.lost:.0%} of the frames")
    if not said:
        said = [f"the object follows the true path to within {score.penalised['l2'].value:.1%} of the image diagonal"]
    if score.penalised["iou"].value < 0.5:
        said.append(f"its shape or place overlaps the true one by only {score.penalised['iou'].value:.0%}")
    return (said[0][0].upper() + said[0][1:] + "".join(f"; {s}" for s in said[1:])) + "."


def _object(track: NDArray, true: NDArray, times: NDArray, height: int) -> list[str]:
    both = np.isfinite(track[:, 0]) & np.isfinite(true[:, 0])
    if both.sum() < 4:
        return []
    said = []
    off = np.where(both, np.linalg.norm(track - true, axis=1), np.nan)
    worst = int(np.nanargmax(off))
    if off[worst] > 0.04 * height:
        dx, dy = track[worst] - true[worst]
        side = ("below" if dy > 0 else "above") if abs(dy) > abs(dx) else ("right of" if dx > 0 else "left of")
        said.append(f"by frame {worst} it is {off[worst]:.1f} px {side} the true position")
    mine, truth = (
        Motion.of(np.where(both[:, None], track, np.nan), times),
        Motion.of(np.where(both[:, None], true, np.nan), times),
    )
    if mine is None or truth is None:
        return said
    size = float(np.linalg.norm(truth.acceleration))
    along = float(mine.acceleration @ truth.acceleration) / size**2 if size > 0 else math.nan
    noise = 0.5 * math.sqrt(720 / both.sum()) / max(float(times[both][-1] - times[both][0]), 1e-9) ** 2
    if size > noise and abs(along - 1) > max(0.15, 2 * noise / size):
        said.append(
            "it accelerates against the true direction" if along < 0 else f"its acceleration is {along:.0%} of the true one"
        )
    if truth.length > 0.03 * height and abs(mine.length / truth.length - 1) > 0.2:
        said.append(f"it covers {mine.length / truth.length:.0%} of the true distance")
    return said
