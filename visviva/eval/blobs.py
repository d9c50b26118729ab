"""Regions of a clip that differ from its background, the smoothest long path through them, and its continuation by colour.

`detections` finds regions against the temporal median; `smoothest_path` links them. An object that rests, or swings slowly, in
one place for most of the clip is part of that median and is found only while it is elsewhere: `followed` then learns its colour
from those frames and follows it, frame by frame in both directions, through the others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

SMOOTH, TURN, LEAP = 1.5, 3.0, 6.0
"""Cost of a change of velocity that is still smooth, and of any other; how many object sizes a link after one may reach."""


@dataclass(frozen=True)
class Blob:
    """One region of one frame [px of the working image]: its centre and its area."""

    frame: int
    x: float
    y: float
    area: float


def detections(frames: NDArray[np.uint8], most: int = 10) -> list[list[Blob]]:
    """Return the largest regions of each frame that differ from the temporal median by more than its noise."""
    sample = frames[:: max(1, len(frames) // 40)]
    background = np.median(sample, axis=0).astype(np.float32)
    spread = np.median(_largest(np.abs(sample - background)), axis=0)
    threshold = np.clip(6 * 1.48 * cv2.GaussianBlur(spread.astype(np.float32), (0, 0), 2), 14, 60)
    found = []
    for k, frame in enumerate(frames):
        changed = (_largest(np.abs(frame - background)) > threshold).astype(np.uint8)
        changed = cv2.morphologyEx(changed, cv2.MORPH_OPEN, np.ones((2, 2), np.uint8))
        changed = cv2.morphologyEx(changed, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
        count, _, stats, centres = cv2.connectedComponentsWithStats(changed)
        order = 1 + np.argsort(-stats[1:count, cv2.CC_STAT_AREA])[:most]
        least = max(6.0, 1e-4 * changed.size)
        areas = stats[:, cv2.CC_STAT_AREA]
        chosen = [i for i in order if least <= areas[i] < 0.25 * changed.size]
        found.append([Blob(k, float(centres[i][0]), float(centres[i][1]), float(areas[i])) for i in chosen])
    return found


def _largest(values: NDArray) -> NDArray[np.float32]:
    """Return the largest of three channels, (..., 3) to (...)."""
    return np.maximum(np.maximum(values[..., 0], values[..., 1]), values[..., 2])


def smoothest_path(found: list[list[Blob]], shape: tuple[int, ...]) -> list[Blob]:
    """Return the path that travels farthest with the smallest second differences, by dynamic programming over links.

    A link joins detections at most three frames apart. Two links that share a detection cost the squared change of velocity
    over a gate of 20 % of the speed plus 40 % of the object's size plus 1.5 px, per frame; where that is more than `SMOOTH`,
    the object may still have been struck, or a frame be missing, at the price of `TURN` frames of motion. Each link earns up
    to 1 by how far it moved compared with a quarter of its size, so flicker in one place earns nothing, times its size over
    the clip's largest regions, so that a long row of specks does not beat a ball.
    """
    largest = math.sqrt(np.quantile([max((b.area for b in blobs), default=1.0) for blobs in found], 0.95))
    reach = 0.2 * math.hypot(*shape)
    links: dict[tuple[int, int], list[tuple[float, int | None, tuple[int, int]]]] = {}
    best, last = 0.0, None
    for k in range(len(found)):
        for j, blob in enumerate(found[k]):
            arriving = []
            for gap in (1, 2, 3):
                for i, before in enumerate(found[k - gap] if k >= gap else []):
                    step = math.hypot(blob.x - before.x, blob.y - before.y)
                    if step < reach * gap and 1 / 3 < blob.area / before.area < 3:
                        value, via = _extend(found, links, before, blob, (k - gap, i), largest)
                        arriving.append((value, via, (k - gap, i)))
                        if value > best:
                            best, last = value, ((k, j), len(arriving) - 1)
            links[k, j] = arriving
    return _trace(found, links, last)


def _extend(
    found: list, links: dict, before: Blob, blob: Blob, node: tuple[int, int], largest: float
) -> tuple[float, int | None]:
    gap = blob.frame - before.frame
    vx, vy = (blob.x - before.x) / gap, (blob.y - before.y) / gap
    speed = math.hypot(vx, vy)
    size = math.sqrt(blob.area)
    share = min(1.0, size / largest)
    worth = share * (speed**2 / (speed**2 + (0.25 * size) ** 2) - 0.5 * (gap - 1))
    value, via = worth - share, None
    for n, (score, _, (f, i)) in enumerate(links.get(node, [])):
        earlier = found[f][i]
        h = before.frame - earlier.frame
        change = math.hypot(vx - (before.x - earlier.x) / h, vy - (before.y - earlier.y) / h)
        cost = (change / (1.5 + 0.2 * speed + 0.4 * size)) ** 2 + math.log(blob.area / before.area) ** 2
        if cost >= SMOOTH and 0.5 < blob.area / before.area < 2 and speed < LEAP * size:
            cost = TURN
        if cost <= TURN and score + worth - share * cost > value:
            value, via = score + worth - share * cost, n
    return value, via


def _trace(found: list, links: dict, last: tuple[tuple[int, int], int] | None) -> list[Blob]:
    path: list[Blob] = []
    node, arriving = last if last is not None else (None, None)
    while node is not None:
        path.append(found[node[0]][node[1]])
        if arriving is None:
            break
        _, via, previous = links[node][arriving]
        node, arriving = previous, via
    return path[::-1]


def followed(frames: NDArray[np.uint8], path: list[Blob], missing: int = 3) -> list[Blob]:
    """Return the path continued by colour in both directions, until the object is lost for more than ``missing`` frames.

    The colour direction is Fisher's discriminant between the object's core along the path and the rest of those frames. In each
    further frame the region of that colour nearest to where the object is expected, of a similar area, is taken.
    """
    direction, threshold = told_by_colour(frames, path)
    area = float(np.median([b.area for b in path]))
    further = list(path)
    for step in (1, -1):
        recent = path[-4:] if step == 1 else path[3::-1]
        lost, k = 0, recent[-1].frame + step
        while 0 <= k < len(frames) and lost <= missing:
            found = _nearest(frames[k], k, recent, area, direction, threshold)
            if found is not None:
                recent = [*recent[-3:], found]
                further.append(found)
            lost, k = 0 if found is not None else lost + 1, k + step
    return sorted(further, key=lambda b: b.frame)


def told_by_colour(frames: NDArray[np.uint8], path: list[Blob]) -> tuple[NDArray[np.float64], float]:
    """Return the colour direction that tells the object from the rest (Fisher's discriminant), and a threshold along it."""
    inside, outside = [], []
    height, width = frames.shape[1:3]
    for blob in path[:: max(1, len(path) // 12)]:
        image, radius = frames[blob.frame].astype(np.float64), max(1.0, math.sqrt(blob.area / math.pi))
        ys, xs = np.ogrid[:height, :width]
        distance = np.hypot(xs - blob.x, ys - blob.y)
        inside.append(image[distance <= max(1.0, 0.6 * radius)])
        rest = image[distance > 2.5 * radius]
        outside.append(rest[:: max(1, len(rest) // 3000)])
    own, other = np.concatenate(inside), np.concatenate(outside)
    scatter = np.cov(own.T) + np.cov(other.T) + 4.0**2 * np.eye(3)
    direction = np.linalg.solve(scatter, np.median(own, axis=0) - np.median(other, axis=0))
    return direction, float(0.5 * np.median(own @ direction) + 0.5 * np.quantile(other @ direction, 0.98))


def _nearest(
    frame: NDArray[np.uint8], k: int, recent: list[Blob], area: float, direction: NDArray, threshold: float
) -> Blob | None:
    """Return the region of the object's colour nearest to its expected place, None if there is none of a similar area."""
    last, first = recent[-1], recent[0]
    span = max(1, abs(last.frame - first.frame))
    vx, vy = (last.x - first.x) / span, (last.y - first.y) / span
    ahead = abs(k - last.frame)
    x, y = last.x + vx * ahead, last.y + vy * ahead
    reach = 1.5 * math.sqrt(area) + math.hypot(vx, vy) + 4
    height, width = frame.shape[:2]
    x0, x1 = max(0, int(x - reach)), min(width, int(x + reach) + 1)
    y0, y1 = max(0, int(y - reach)), min(height, int(y + reach) + 1)
    if x1 - x0 < 3 or y1 - y0 < 3:
        return None
    mask = (frame[y0:y1, x0:x1].astype(np.float64) @ direction > threshold).astype(np.uint8)
    count, _, stats, centres = cv2.connectedComponentsWithStats(mask)
    best, least = None, math.inf
    for i in range(1, count):
        found = float(stats[i, cv2.CC_STAT_AREA])
        cx, cy = float(centres[i][0]) + x0, float(centres[i][1]) + y0
        if area / 4 < found < 3 * area and math.hypot(cx - x, cy - y) < min(least, reach):
            best, least = Blob(k, cx, cy, max(found, 0.7 * area)), math.hypot(cx - x, cy - y)
    return best
