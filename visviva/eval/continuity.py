"""What a clip shows besides the path of its object: cuts, a background that turns into another one, a second object like it,
and nothing at all where the object should be.

A recording of one experiment is one shot before one scene, and things in it come from somewhere. Thresholds are ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

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
TURN = 0.02
"""Change of the image's median colour (each channel's share of their sum) from one frame to the next that a cut makes: twice as
much between the ends of a clip is another background. White balance moves it by less than 0.005."""
LEAST_FRAMES = 5
"""Frames that a second object must be seen in."""
PLAIN = 30.0
"""Difference from the background [grey values] by which an object would show where it is not."""
SLOW = 0.6
"""Way in a frame [widths] up to which something that hides an object would hide a part of it first."""


def find_cut(frames: UInt8[Tensor, "T 3 h w"]) -> int | None:
    """Return the last frame before the clip cuts to another scene, None if it does not.

    A cut changes most of the image for good, many times as much as any other step; a flash does not last.

    Example::

        find_cut(reduced(video.frames))
    """
    count = len(frames)
    if count < 6:
        return None
    small = np.stack([cv2.resize(f.permute(1, 2, 0).numpy(), (96, 64), interpolation=cv2.INTER_AREA) for f in frames])
    flat, tints = [_levelled(image) for image in small], [_tint(image) for image in small]
    cut = _lasting(flat, _share, CUT)
    return _lasting(tints, _turn, TURN) if cut is None else cut


def _lasting(states: list[NDArray], apart: Callable[[NDArray, NDArray], float], least: float) -> int | None:
    """Return the frame before the largest step if it is large, many times as large as the others, and not undone soon."""
    steps = np.array([apart(one, two) for one, two in pairwise(states)])
    k = int(np.argmax(steps))
    usual = float(np.quantile(np.delete(steps, k), 0.95))
    stays = apart(states[max(0, k - 2)], states[min(len(states) - 1, k + 3)]) > 0.8 * least
    return k if steps[k] > max(least, 4 * usual) and stays else None


def changed_background(frames: NDArray[np.uint8]) -> float:
    """Return the share of pixels that differ between the medians of the first and the last third of a stabilised clip
    (T, h, w, 3); all do where its colour is another one."""
    third = max(1, len(frames) // 3)
    picked = max(1, third // 12)
    first, last = np.median(frames[:third:picked], axis=0), np.median(frames[-third::picked], axis=0)
    return 1.0 if _turn(_tint(first), _tint(last)) > 2 * TURN else _share(_levelled(first), _levelled(last))


def _levelled(image: NDArray) -> NDArray[np.float32]:
    """Return an image blurred against noise, each channel with its own median taken off."""
    blurred = cv2.GaussianBlur(image.astype(np.float32), (0, 0), 1.5)
    return blurred - np.median(blurred, axis=(0, 1))


def _tint(image: NDArray) -> NDArray[np.float64]:
    """Return each channel's share of the median colour (h, w, 3), of a black image a third."""
    level = np.median(image, axis=(0, 1)) + 4.0
    return np.asarray(level / level.sum())


def _turn(one: NDArray, two: NDArray) -> float:
    return float(np.abs(two - one).max())


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


def settled(frames: NDArray[np.uint8], found: list[list[Blob]], path: list[Blob]) -> tuple[int, int] | None:
    """Return the first and last frame of a second object like the followed one that comes out of nothing, or goes into it, and
    is there for so long that it is part of the background.

    What differs from the background is then the place while it is empty: a region of about the object's size that stays where
    it is, begins or ends inside the clip, and where the *background* looks like the object and the frame does not. It is not
    the object itself, which is elsewhere all the time.
    """
    direction, threshold = told_by_colour(frames, path)
    size = math.sqrt(float(np.median([b.area for b in path])))
    chains: list[list[Blob]] = []
    for blob in (b for blobs in found for b in blobs if 0.4 < b.area / size**2 < 2.5):
        if all(math.hypot(blob.x - own.x, blob.y - own.y) > 1.5 * size for own in path):
            _linked(chains, blob, 0.3 * size)
    first, last = path[0].frame, path[-1].frame
    for chain in sorted((c for c in chains if len(c) >= LEAST_FRAMES), key=len, reverse=True):
        begins, ends = chain[0].frame > first + 2, chain[-1].frame < last - 2
        if begins == ends or not _empty(frames, chain[len(chain) // 2], direction, threshold):
            continue
        return (chain[-1].frame + 1, len(frames) - 1) if ends else (0, chain[0].frame - 1)
    return None


def _empty(frames: NDArray[np.uint8], blob: Blob, direction: NDArray, threshold: float) -> bool:
    """Whether the background looks like the object at a region, and the frame itself does not."""
    reach = 2 + math.ceil(math.sqrt(blob.area / math.pi))
    there, corner = _around(frames, (blob.x, blob.y), reach)
    moved = Blob(blob.frame, blob.x - corner[0], blob.y - corner[1], blob.area)
    median = np.median(there[:: max(1, len(there) // 40)], axis=0).astype(np.uint8)
    seen = _looks_alike(there[blob.frame], moved, direction, threshold)
    return not seen and _looks_alike(median, moved, direction, threshold)


def _around(frames: NDArray[np.uint8], place: tuple[float, float], reach: float) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Return the pixels of all frames within ``reach`` of a place, and their corner (x, y)."""
    height, width = frames.shape[1:3]
    x0, x1 = max(0, int(place[0] - reach)), min(width, int(place[0] + reach) + 1)
    y0, y1 = max(0, int(place[1] - reach)), min(height, int(place[1] + reach) + 1)
    return frames[:, y0:y1, x0:x1], (x0, y0)


def gone(frames: NDArray[np.uint8], path: list[Blob]) -> list[tuple[int, int]]:
    """Return the frames (before, after) between which a whole object, followed on both sides, is not there at all.

    All along its way only the background is seen, although the object would show before it by `PLAIN` grey values; it is whole
    right before and right after, inside the image, and too slow (`SLOW`) for something to hide it within one frame.

    Example::

        gone(frames, followed(frames, path))
    """
    if len(path) < 8:
        return []
    area = float(np.median([b.area for b in path]))
    return [
        (a.frame, b.frame)
        for i, (a, b) in enumerate(pairwise(path))
        if b.frame > a.frame + 1 and _whole(path[max(0, i - 1) : i + 3], area, frames.shape) and _nothing(frames, a, b)
    ]


def _whole(near: list[Blob], area: float, shape: tuple[int, ...]) -> bool:
    """Whether regions have the object's usual area, away from the border, and follow each other slowly."""
    radius = math.sqrt(area / math.pi)
    inside = all(min(b.x, shape[2] - b.x, b.y, shape[1] - b.y) > radius + 3 for b in near)
    slow = all(math.hypot(b.x - a.x, b.y - a.y) < SLOW * 2 * radius * (b.frame - a.frame) for a, b in pairwise(near))
    return inside and slow and all(0.7 < b.area / area < 1.4 for b in near)


def _nothing(frames: NDArray[np.uint8], a: Blob, b: Blob) -> bool:
    """Whether only the background is seen along the way from one region to the next."""
    radius = max(1.0, 0.5 * math.sqrt(a.area / math.pi))
    core = np.concatenate([_disc(_around(frames[c.frame][None], (c.x, c.y), radius)[0][0]) for c in (a, b)])
    colour = np.median(core, axis=0)
    for k in range(a.frame + 1, b.frame):
        share = (k - a.frame) / (b.frame - a.frame)
        there, _ = _around(frames, (a.x + share * (b.x - a.x), a.y + share * (b.y - a.y)), radius)
        behind = np.median(there[:: max(1, len(there) // 40)].astype(np.float32), axis=0)
        would = float(np.median(_disc(np.abs(behind - colour)).max(-1)))
        does = float(np.median(_disc(np.abs(there[k] - behind)).max(-1)))
        if would < PLAIN or does > 0.25 * would:
            return False
    return True


def _disc(image: NDArray) -> NDArray:
    """Return the pixels of an image within the circle that it holds, (n, 3)."""
    height, width = image.shape[:2]
    ys, xs = np.ogrid[:height, :width]
    inside = ((xs - (width - 1) / 2) / max(width / 2, 1)) ** 2 + ((ys - (height - 1) / 2) / max(height / 2, 1)) ** 2 <= 1
    return image[inside]


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
