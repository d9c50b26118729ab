"""Physics-IQ (arXiv 2501.09038): where, when and how much things move in a generated continuation, against two real takes.

A model continues a real scene for five seconds; take 1 is what really happened, take 2 the same experiment filmed again, so
that a model is asked for no more than physics repeats. Per clip four numbers from binary motion masks and frames at a quarter
of the size:

    spatiotemporal IoU = mean_t |m1_t & m2_t| / |m1_t | m2_t|     (1 where both are empty)
    spatial IoU        = IoU of any_t m
    weighted spatial   = sum min(w1, w2) / sum max(w1, w2),  w = mean_t m    (1 if both are empty)
    MSE                = mean squared difference of the frames in [0, 1]

and, with the same numbers between the two takes ("physical variance", var),

    score = 100 clip( (ST/ST_var + S/S_var + WS/WS_var) / 3 - (MSE - MSE_var), 0, 1 )

A copy of take 2 scores 100, and so does a copy of take 1. Agrees with the published code (google-deepmind/physics-IQ-benchmark)
on golden numbers to all digits, masks compared without a codec; that code stores masks as lossy video, ``codec=True`` does so
too. OpenCV works frame by frame here because the running background is sequential and its fixed-point blur is part of the
definition; it runs on the CPU.

Not shift-tolerant; a camera that moves fills every mask; a still clip keeps the ST of frames in which nothing moves.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from visviva.errors import InputError
from visviva.eval.benchmarks.result import as_bytes, as_image

VERSION = "1 (published code of 2025-02-19)"
SECONDS = 5
METRICS = ("spatiotemporal", "spatial", "weighted", "mse")
DIGITS = {"spatiotemporal": 4, "spatial": 5, "weighted": 4, "mse": 4}
"""Decimals that the published code rounds the physical variances to."""


def motion_masks(frames: Tensor, threshold: int = 10) -> Bool[Tensor, "T H W"]:
    """Return where the clip differs from its running background, per frame; the first mask is empty.

    Grey, 5x5 Gaussian, background <- 0.7 background + 0.3 grey (*before* the difference), |grey - background| > threshold,
    opening and closing with 5x5 ones. The update first makes the threshold on the raw change about 14.3 grey levels, and a
    moving edge leaves a trail that fades.

    Args:
        frames: (T, 3, H, W), uint8 or float in [0, 1].
        threshold: grey levels.
    """
    return torch.from_numpy(np.stack(list(_moving(frames, threshold))))


def _moving(frames: Tensor, threshold: int = 10) -> Iterator[NDArray[np.bool_]]:
    """Yield the motion mask of each frame in turn (clips of full resolution are large)."""
    kernel = np.ones((5, 5), np.uint8)
    background: NDArray[np.float64] | None = None
    for frame in frames:
        grey = cv2.GaussianBlur(cv2.cvtColor(as_image(frame), cv2.COLOR_RGB2GRAY), (5, 5), 0)
        if background is None:
            background = grey.astype(np.float64)
            yield np.zeros(grey.shape, bool)
            continue
        cv2.accumulateWeighted(grey, background, 0.3)
        apart = cv2.absdiff(grey, cv2.convertScaleAbs(background))
        moving = cv2.threshold(apart, threshold, 255, cv2.THRESH_BINARY)[1]
        opened = cv2.morphologyEx(moving, cv2.MORPH_OPEN, kernel)
        yield cv2.morphologyEx(opened, cv2.MORPH_CLOSE, kernel) > 0


def round_trip(masks: Bool[Tensor, "T H W"], fps: float) -> Tensor:
    """Return the masks as grey levels (T, H, W), uint8, after the mp4v file that the published code keeps them in.

    OpenCV's writer, not ours: its choice of bit rate is what is being repeated. Odd sizes lose a row or a column there.
    """
    height, width = masks.shape[1] - masks.shape[1] % 2, masks.shape[2] - masks.shape[2] % 2
    images = masks[:, :height, :width].to(torch.uint8).mul(255).numpy()
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "masks.mp4")
        code = cv2.VideoWriter_fourcc(*"mp4v")  # type: ignore[attr-defined]
        writer = cv2.VideoWriter(path, code, fps, (width, height), isColor=False)
        for image in images:
            writer.write(image)
        writer.release()
        reader = cv2.VideoCapture(path)
        decoded = [reader.read()[1] for _ in images]
        reader.release()
    if any(image is None for image in decoded):
        raise InputError("this OpenCV cannot write and read mp4v video; compare masks without the codec")
    return torch.from_numpy(np.stack([image[..., 0] for image in decoded]))


def resampled(frames: Tensor, fps: float, new_fps: float, seconds: float = SECONDS) -> Tensor:
    """Return the first seconds of a reference clip at another frame rate, uint8, by blending the two nearest frames.

    Output j of N' takes position j (N - 1) / (N' - 1), and blends are truncated to bytes, as published. A clip that has the
    rate already is cut, not blended.
    """
    images = frames if frames.dtype == torch.uint8 else torch.from_numpy(as_bytes(frames)).permute(0, 3, 1, 2)
    if round(fps) == round(new_fps):
        return images[: round(new_fps * seconds)]
    images = images[: int(seconds * fps)]
    count = int(seconds * new_fps)
    if count < 2 or len(images) < 2:
        raise InputError(f"{len(images)} frames at {fps:g}/s cannot be brought to {new_fps:g}/s; give at least two of each")
    blended = torch.empty(count, *images.shape[1:], dtype=torch.uint8)
    for j in range(count):  # frame by frame: clips of full resolution are large
        place = j * (len(images) - 1) / (count - 1)
        low, share = int(place), place - int(place)
        high = min(low + 1, len(images) - 1)
        blended[j] = ((1 - share) * images[low].float() + share * images[high].float()).to(torch.uint8)
    return blended


@dataclass(frozen=True)
class Take:
    """One clip as it is compared: masks (T, h, w), bool, and frames (T, 3, h, w), uint8, at a quarter of the size."""

    masks: Tensor
    frames: Tensor

    @property
    def area(self) -> float:
        """Mean share of pixels in the motion masks; 0 for a still clip."""
        return float(self.masks.float().mean())


def take(frames: Tensor, fps: float, size: tuple[int, int] | None = None, *, codec: bool = False) -> Take:
    """Return a clip's motion masks and frames, resized (OpenCV bilinear, no antialiasing) to (height, width).

    Args:
        frames: (T, 3, H, W) at full resolution, uint8 or float in [0, 1]; the first five seconds.
        size: what to compare at; None: a quarter of the clip's own size, as for take 1.
        codec: pass the masks through lossy mp4v as the published pipeline does.
    """
    height, width = (frames.shape[2] // 4, frames.shape[3] // 4) if size is None else size
    if min(height, width) < 1:
        raise InputError(f"a clip of {tuple(frames.shape[2:])} pixels has no quarter; give at least 4x4")
    masks = round_trip(motion_masks(frames), fps).numpy() if codec else (m.astype(np.uint8) * 255 for m in _moving(frames))
    small = np.stack([cv2.resize(mask, (width, height)) for mask in masks]) > 127
    pictures = np.stack([cv2.resize(as_image(frame), (width, height)) for frame in frames])
    return Take(torch.from_numpy(small), torch.from_numpy(pictures).permute(0, 3, 1, 2))


@dataclass(frozen=True)
class Agreement:
    """How two takes agree: per-frame ``spatiotemporal`` IoU and ``mse`` (T,), and the clip's two spatial IoUs."""

    spatiotemporal: NDArray[np.float64]
    mse: NDArray[np.float64]
    spatial: float
    weighted: float

    def numbers(self) -> dict[str, float]:
        """Return the clip's four numbers."""
        means = {"spatiotemporal": float(self.spatiotemporal.mean()), "mse": float(self.mse.mean())}
        return means | {"spatial": self.spatial, "weighted": self.weighted}


def agreement(one: Take, two: Take) -> Agreement:
    """Compare two clips of equal size and length.

    Example::

        agreement(take(real, 24.0), take(generated, 24.0, (h // 4, w // 4))).numbers()
    """
    if one.masks.shape != two.masks.shape:
        raise InputError(
            f"clips of (frames, height, width) {tuple(one.masks.shape)} and {tuple(two.masks.shape)} cannot be compared; "
            "bring both to one frame rate, five seconds and one size first"
        )
    weights = torch.stack([one.masks.double().mean(0), two.masks.double().mean(0)])
    pairs = zip(one.frames.split(8), two.frames.split(8), strict=True)
    squared = torch.cat([(a.float() / 255 - b.float() / 255).square().flatten(1).double().mean(1) for a, b in pairs])
    return Agreement(
        iou(one.masks, two.masks).numpy(),
        squared.numpy(),
        float(iou(one.masks.any(0)[None], two.masks.any(0)[None])),
        float(weights.amin(0).sum() / weights.amax(0).sum()) if bool(weights.any()) else 1.0,
    )


def iou(one: Bool[Tensor, "T h w"], two: Bool[Tensor, "S h w"]) -> Float[Tensor, " T"]:
    """Return intersection over union per frame; 1 where both are empty."""
    union = (one | two).flatten(1).sum(1).double()
    both = (one & two).flatten(1).sum(1).double()
    return torch.where(union > 0, both / union.clamp(min=1), 1.0)


@dataclass(frozen=True)
class View:
    """One generated clip's comparison: with take 1 (``clip``) and of both takes (``takes``)."""

    scenario: str
    view: str
    clip: Agreement
    takes: Agreement


@dataclass(frozen=True)
class Totals:
    """The benchmark's totals: the score [0-100], the means of the four metrics and their physical variances."""

    score: NDArray[np.float64]
    means: dict[str, NDArray[np.float64]]
    variances: dict[str, NDArray[np.float64]]


def totals(views: Sequence[View], weights: NDArray | None = None, *, rounded: bool = True) -> Totals:
    """Aggregate as published: ST and MSE per scenario over its views' frames, then over scenarios; S and WS per view over
    scenarios, then over views; variances per view over all frames, then over views.

    Args:
        views: all comparisons.
        weights: how often each scenario enters, (resamples, scenarios), in order of first appearance; None: once. The score
            then has one value per resample.
        rounded: round per-frame values to 4 decimals, variances to 4 (5 for S) and the score to 2, as the published code does.
    """
    scenarios, names = list(dict.fromkeys(v.scenario for v in views)), sorted({v.view for v in views})
    if not views:
        raise InputError("there is no clip to score")
    weights = np.ones((1, len(scenarios))) if weights is None else weights
    place = [(scenarios.index(v.scenario), names.index(v.view)) for v in views]
    means, variances = {}, {}
    for metric in METRICS:
        framewise = metric in ("spatiotemporal", "mse")
        clip, takes = (
            _sums([getattr(v, kind) for v in views], place, metric, weights.shape[1], len(names), rounded)
            for kind in ("clip", "takes")
        )
        if framewise:
            scenario = clip.total.sum(1) / clip.count.sum(1)
            means[metric] = weights @ scenario / weights.sum(1)
        else:
            means[metric] = _over_views(clip, weights)
        variance = _over_views(takes, weights)
        variances[metric] = np.round(variance, DIGITS[metric]) if rounded else variance
    ious = ("spatiotemporal", "spatial", "weighted")
    ratios = [means[m] / np.where(variances[m] > 0, variances[m], np.nan) for m in ious]  # takes that never agree: no bar
    score = 100 * np.clip(np.sum(ratios, axis=0) / 3 - (means["mse"] - variances["mse"]), 0, 1)
    return Totals(np.round(score, 2) if rounded else score, means, variances)


@dataclass(frozen=True)
class _Sums:
    """Sums of a metric and the number of values in them, (scenarios, views)."""

    total: NDArray[np.float64]
    count: NDArray[np.float64]


def _sums(
    parts: Sequence[Agreement], place: Sequence[tuple[int, int]], metric: str, rows: int, columns: int, rounded: bool
) -> _Sums:
    total, count = np.zeros((rows, columns)), np.zeros((rows, columns))
    for part, cell in zip(parts, place, strict=True):
        values = np.atleast_1d(getattr(part, metric))
        framewise = metric in ("spatiotemporal", "mse")
        total[cell] += (np.round(values, 4) if rounded and framewise else values).sum()
        count[cell] += len(values)
    return _Sums(total, count)


def _over_views(sums: _Sums, weights: NDArray) -> NDArray:
    """Return per resample the mean over views of each view's mean over all its values; views without any are left out."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nanmean((weights @ sums.total) / (weights @ sums.count), axis=1)
