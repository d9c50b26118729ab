"""How far an object's masks are from the true ones: centroid distance (two ways), Chamfer distance, intersection over union.

The three numbers of PISA (arXiv 2503.09595) as its published code computes them, and the Euclidean centroid distance, which
that code's "L2" is not: it takes the root of each squared coordinate, so it is a mean *absolute coordinate* error.

Convention: masks (T, H, W), bool; pixel (row, column) has its centre at y = row, x = column; y points down; all lengths are
divided by ``sqrt(2) H``, the diagonal of a square frame, as PISA does.
A frame in which either mask is empty has no centroid and no Chamfer distance. PISA drops such frames (a mean over the rest),
so a clip whose object vanishes can look better; every function here returns one value *per frame* with NaN where there is
none, and `visviva.eval.newtonbench` puts a finite penalty beside the mean that PISA would print.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from visviva.errors import InputError


def centroids(masks: Bool[Tensor, "T H W"]) -> Float[Tensor, "T 2"]:
    """Return the mean pixel position (x, y) of each mask [px], float64; NaN where the mask is empty."""
    height, width = masks.shape[-2:]
    weight = masks.double()
    area = weight.sum((1, 2))
    x = (weight.sum(1) @ torch.arange(width, dtype=torch.float64)) / area
    y = (weight.sum(2) @ torch.arange(height, dtype=torch.float64)) / area
    return torch.stack([x, y], dim=1)


def aligned(frames: int, fps: float, true_frames: int, true_fps: float) -> list[int]:
    """Return the reference frame paired with each predicted frame: ``int(k fps_true / fps)``, cut at the shorter clip.

    Rates come from timestamps, which some containers round to milliseconds: where the next frame is less than a millisecond
    (and a tenth of a frame) away it is the one, or equal rates of 24 and 24.004 would pair every frame with the one before.

    >>> aligned(4, 8.0, 16, 16.0), aligned(4, 24.004, 9, 24.0)
    ([0, 2, 4, 6], [0, 1, 2, 3])
    """
    if not (0 < fps < math.inf and 0 < true_fps < math.inf):
        raise InputError(f"frame rates must be positive and finite, not {fps} and {true_fps}")
    rounding = min(0.1, 1e-3 * true_fps)
    indices = [int(k * true_fps / fps + rounding) for k in range(frames)]
    return [i for i in indices if i < true_frames]


def l2_pisa(masks: Bool[Tensor, "T H W"], true: Bool[Tensor, "S h w"]) -> Float[Tensor, " T"]:
    """Return the mean absolute coordinate error of the centroid over ``sqrt(2) H`` per frame, as PISA codes "L2"."""
    _same_shape(masks, true)
    return (centroids(masks) - centroids(true)).abs().mean(1) / (math.sqrt(2) * masks.shape[1])


def l2_euclid(masks: Bool[Tensor, "T H W"], true: Bool[Tensor, "S h w"]) -> Float[Tensor, " T"]:
    """Return the Euclidean distance of the centroids over ``sqrt(2) H`` per frame: what "L2" says.

    Example::

        error = l2_euclid(masks, true)          # (T,), NaN where a mask is empty
        value, share = error.nanmean(), error.isfinite().float().mean()
    """
    _same_shape(masks, true)
    return torch.linalg.vector_norm(centroids(masks) - centroids(true), dim=1) / (math.sqrt(2) * masks.shape[1])


def chamfer(masks: Bool[Tensor, "T H W"], true: Bool[Tensor, "S h w"]) -> Float[Tensor, " T"]:
    """Return the sum of both mean nearest-pixel distances over ``sqrt(2) H`` per frame (a sum of directions, as PISA codes it).

    Nearest distances come from an exact Euclidean distance transform, so the cost does not depend on the object's size.
    """
    from scipy.ndimage import distance_transform_edt

    _same_shape(masks, true)
    values = torch.full((len(masks),), math.nan, dtype=torch.float64)
    for k, (a, b) in enumerate(zip(masks.numpy(), true.numpy(), strict=True)):
        if a.any() and b.any():
            there = distance_transform_edt(~b)[a].mean()
            back = distance_transform_edt(~a)[b].mean()
            values[k] = float(there + back)
    return values / (math.sqrt(2) * masks.shape[1])


def iou(masks: Bool[Tensor, "T H W"], true: Bool[Tensor, "S h w"]) -> Float[Tensor, " T"]:
    """Return intersection over union per frame; 1 where both masks are empty. Higher is better."""
    _same_shape(masks, true)
    union = (masks | true).sum((1, 2)).double()
    both = (masks & true).sum((1, 2)).double()
    return torch.where(union > 0, both / union.clamp(min=1), 1.0)


def _same_shape(masks: Tensor, true: Tensor) -> None:
    if masks.shape != true.shape:
        raise InputError(
            f"predicted masks {tuple(masks.shape)} and true masks {tuple(true.shape)} differ in shape (frames, height, width); "
            "pair frames with 'aligned' and resize the masks first"
        )
