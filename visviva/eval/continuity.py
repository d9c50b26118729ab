"""What a clip shows besides the path of its object: cuts, a background that turns into another one, a second object like it.

A recording of one experiment is one shot before one scene, and things in it come from somewhere. Thresholds are ours.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor

from visviva.eval.blobs import Blob, told_by_colour

CUT = 0.4
"""Share of the image that changes from one frame to the next at a cut."""
STEP = 12.0
"""Change of a pixel [grey values] that counts, brightness and contrast of the whole image left out."""
LEAST_FRAMES = 5
"""Frames that a second object must be seen in."""


def find_cut(frames: UInt8[Tensor, "T 3 h w"]) -> int | None:
    """Return the last frame before the clip cuts to another scene, None if it does not.

    A cut changes most of the image for good, many times as much as any other step; a flash does not last.

    Example::

        find_cut(reduced(video.frames))
    """
    count = len(frames)
    if count < 6:
        return None
    small = np.stack(
        [_levelled(cv2.resize(f.permute(1, 2, 0).numpy(), (96, 64), interpolation=cv2.INTER_AREA)) for f in frames]
    )
    steps = np.array([_share(small[k], small[k + 1]) for k in range(count - 1)])
    k = int(np.argmax(steps))
    before, after = small[max(0, k - 2)], small[min(count - 1, k + 3)]
    usual = float(np.quantile(np.delete(steps, k), 0.95))
    return k if steps[k] > CUT and steps[k] > 4 * usual and _share(before, after) > 0.8 * CUT else None


def changed_background(frames: NDArray[np.uint8]) -> float:
    """Return the share of pixels that differ between the medians of the first and the last third of a stabilised clip
    (T, h, w, 3)."""
    third = max(1, len(frames) // 3)
    picked = max(1, third // 12)
    first, last = np.median(frames[:third:picked], axis=0), np.median(frames[-third::picked], axis=0)
    return _share(_levelled(first), _levelled(last))


def _levelled(image: NDArray) -> NDArray[np.float32]:
    """Return an image blurred against noise, each channel with its own median taken off."""
    blurred = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 1.5)
    return blurred - np.median(blurred, axis=(0, 1))


def _share(one: NDArray, two: NDArray) -> float:
    return float((np.abs(two - one).max(-1) > STEP).mean())


def double(frames: NDArray[np.uint8], found: list[list[Blob]], path: list[Blob]) -> tuple[int, int] | None:
    """Return the first and last frame in which a second object like the followed one is seen that came out of nothing.

    It has about the same size and colour, is seen in at least `LEAST_FRAMES` frames in a row (one may be missing), beside the
    object itself, and neither from the beginning nor from the image's border on.
    """
    direction, threshold = told_by_colour(frames, path)
    area, size = float(np.median([b.area for b in path])), math.sqrt(float(np.median([b.area for b in path])))
    here = {b.frame: b for b in path}
    chains: list[list[Blob]] = []
    for k, blobs in enumerate(found):
        own = here.get(k)
        if own is None:
            continue
        for blob in blobs:
            apart = math.hypot(blob.x - own.x, blob.y - own.y)
            if 0.4 < blob.area / area < 2.5 and apart > 1.5 * size and _looks_alike(frames[k], blob, direction, threshold):
                _linked(chains, blob, 2 * size)
    height, width = frames.shape[1:3]
    for chain in sorted(chains, key=len, reverse=True):
        x, y = chain[0].x, chain[0].y
        inside = min(x, width - x, y, height - y) > 1.5 * size
        if len(chain) >= LEAST_FRAMES and inside and chain[0].frame > path[0].frame + 2:
            return chain[0].frame, chain[-1].frame
    return None


def _linked(chains: list[list[Blob]], blob: Blob, reach: float) -> None:
    for chain in chains:
        gap = blob.frame - chain[-1].frame
        if 0 < gap <= 2 and math.hypot(blob.x - chain[-1].x, blob.y - chain[-1].y) < reach * gap:
            chain.append(blob)
            return
    chains.append([blob])


def _looks_alike(frame: NDArray[np.uint8], blob: Blob, direction: NDArray, threshold: float) -> bool:
    half = max(1, int(0.4 * math.sqrt(blob.area / math.pi)))
    x, y = int(blob.x), int(blob.y)
    core = frame[max(0, y - half) : y + half + 1, max(0, x - half) : x + half + 1].reshape(-1, 3).astype(np.float64)
    return bool(np.median(core @ direction) > threshold)
