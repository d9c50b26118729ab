"""The opacity of a tracked object, pixel by pixel at full resolution: its centroid, area, width and colour.

``pixel = alpha * object + (1 - alpha) * background`` is solved along the colour direction that best tells the object from the
backgrounds it crosses (Fisher's discriminant).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from visviva.eval.blobs import Blob


def image_of(frame: Tensor) -> NDArray[np.uint8]:
    """Return a frame (3, H, W) as an image (H, W, 3)."""
    return np.ascontiguousarray(frame.permute(1, 2, 0).numpy())


@dataclass(frozen=True)
class Crop:
    """A piece of a frame, the background as that frame saw it, and where its corner lies [px]."""

    image: NDArray[np.float32]
    background: NDArray[np.float32]
    x: int
    y: int


def crop_of(frame: Tensor, background: NDArray, transform: NDArray, blob: Blob, scale: float) -> Crop:
    """Cut the neighbourhood of a detection out of the raw frame and out of the background as that frame saw it."""
    height, width = frame.shape[1:]
    centre = transform[:, :2] @ np.array([(blob.x + 0.5) / scale - 0.5, (blob.y + 0.5) / scale - 0.5]) + transform[:, 2]
    half = int(1.5 * math.sqrt(blob.area) / scale + 6)
    x0, y0 = max(0, int(centre[0]) - half), max(0, int(centre[1]) - half)
    x1, y1 = min(width, int(centre[0]) + half + 1), min(height, int(centre[1]) + half + 1)
    shifted = transform.copy()
    shifted[:, 2] -= (x0, y0)
    behind = cv2.warpAffine(background, shifted, (max(1, x1 - x0), max(1, y1 - y0)), borderMode=cv2.BORDER_REPLICATE)
    return Crop(image_of(frame[:, y0:y1, x0:x1]).astype(np.float32), behind.astype(np.float32), x0, y0)


@dataclass(frozen=True)
class Colour:
    """The direction in colour space that best tells the object from the backgrounds along its path, and its value there."""

    direction: NDArray[np.float64]
    value: float
    contrast: float

    @classmethod
    def of(cls, crops: list[Crop]) -> Colour:
        """Learn the colour from all crops along a path."""
        cores, behind, contrasts = [], [], []
        for crop in crops:
            change = np.linalg.norm(crop.image - crop.background, axis=-1)
            core = change >= np.quantile(change, 0.95)
            cores.append(crop.image[core])
            behind.append(crop.background.reshape(-1, 3)[:: max(1, change.size // 200)])
            contrasts.append(float(change[core].mean()))
        clear = [c for c, contrast in zip(cores, contrasts, strict=True) if contrast >= np.median(contrasts)]
        inside, outside = np.concatenate(clear).astype(np.float64), np.concatenate(behind).astype(np.float64)
        scatter = np.cov(inside.T) + np.cov(outside.T) + 4.0**2 * np.eye(3)
        direction = np.linalg.solve(scatter, np.median(inside, axis=0) - outside.mean(0))
        value = float(np.quantile([np.quantile(crop.image @ direction, 0.97) for crop in crops], 0.75))
        return cls(direction, value, value - float(np.median(outside @ direction)))

    def opacity(self, crop: Crop) -> NDArray[np.float64]:
        """Return alpha per pixel in [0, 1]."""
        full = np.maximum(self.value - crop.background @ self.direction, 0.4 * self.contrast)
        return np.clip((crop.image - crop.background) @ self.direction / full, 0, 1)


Moments = tuple[tuple[float, float], float, tuple[float, float], NDArray, NDArray]


def opacity_moments(crop: Crop, colour: Colour) -> Moments | None:
    """Return centroid [px of the raw frame], opacity area, width and its softness, bounding box and core colour; None if
    invisible."""
    alpha = colour.opacity(crop)
    solid = (cv2.GaussianBlur(alpha, (0, 0), 1.0) > 0.15).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(solid)
    if count < 2:
        return None
    mass = np.bincount(labels.ravel(), alpha.ravel(), minlength=count)
    label = 1 + int(np.argmax(mass[1:]))
    near = cv2.dilate((labels == label).astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    weight = np.where(near, alpha, 0.0).astype(np.float64)
    total = float(weight.sum())
    if total < 4:
        return None
    ys, xs = np.mgrid[: weight.shape[0], : weight.shape[1]]
    x, y = float((weight * xs).sum() / total), float((weight * ys).sum() / total)
    left, top, w, h = stats[label, :4]
    box = np.array([left + crop.x, top + crop.y, w, h], dtype=np.float64)
    core = crop.image[weight >= 0.9 * weight.max()].mean(0).astype(np.float64)
    return (x + crop.x, y + crop.y), total, _width(weight), box, core


def core_colour(crop: Crop, least: float = 40.0) -> NDArray[np.float64]:
    """Return the colour of what differs most from the background in a crop, (3,); NaN where that is less than ``least``."""
    change = np.linalg.norm(crop.image - crop.background, axis=-1)
    core = change >= np.quantile(change, 0.95)
    return crop.image[core].mean(0).astype(np.float64) if change[core].mean() >= least else np.full(3, np.nan)


def _width(weight: NDArray) -> tuple[float, float]:
    """Return the widest chord across the longest axis, between 25 % and 50 % of the peak opacity, and half their difference
    [px]."""
    ys, xs = np.nonzero(weight)
    inside = weight[ys, xs]
    points = np.stack([xs, ys]) - np.average(np.stack([xs, ys]), axis=1, weights=inside)[:, None]
    along = np.linalg.eigh(np.cov(points, aweights=inside, ddof=0))[1][:, 1] @ points
    bins = np.round(along - along.min()).astype(int)
    peak = np.quantile(inside, 0.9)
    wide, narrow = (float(np.quantile(np.bincount(bins[inside > f * peak]), 0.9)) for f in (0.25, 0.5))
    return (wide + narrow) / 2, (wide - narrow) / 2
