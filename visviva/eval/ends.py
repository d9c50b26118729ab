"""How the path of an object ends, or begins: with the clip, at the border, at rest, or somewhere where it cannot have gone."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from visviva.eval.blobs import Blob


def how_it_ends(frames: NDArray[np.uint8], path: list[Blob], further: list[Blob], step: int) -> str:
    """Return how a path ends (``step`` 1) or begins (-1), see `visviva.eval.track.Track.ends`.

    ``further``: the path as `followed` continued it.
    """
    ordered = path if step == 1 else path[::-1]
    end, before = ordered[-1], ordered[-6:]
    after = sorted((b for b in further if (b.frame - end.frame) * step > 0), key=lambda b: b.frame * step)
    if len(after) >= 5:
        return _resting(ordered, after)
    k = end.frame + step
    if not 0 <= k + step < len(frames):
        return "clip"
    span = max(1, abs(before[-1].frame - before[0].frame))
    vx, vy = (before[-1].x - before[0].x) / span, (before[-1].y - before[0].y) / span
    radius, speed = math.sqrt(end.area / math.pi), math.hypot(vx, vy)
    x, y, margin = end.x + 1.2 * vx, end.y + 1.2 * vy, 1.2 * radius + 2
    height, width = frames.shape[1:3]
    if min(x, width - x, y, height - y) < margin:
        if _seen_on(frames, end, step, 2 * speed + 4 * radius):
            return ""
        return "vanished" if _lost_inside(frames, ordered, step) else "border"
    there = _regions(frames, k, (end.x, end.y), 10 * speed + 6 * radius)
    again = _regions(frames, k + step, (end.x, end.y), 2 * radius)
    if speed > radius / 3 and _stays(there, end) and _stays(again, end):
        return "stopped"
    alike = [r for r in there if 0.2 * end.area < r[2] < 4 * end.area]
    for cx, cy, _ in sorted(alike, key=lambda r: math.hypot(r[0] - end.x - vx, r[1] - end.y - vy)):
        along = ((cx - end.x) * vx + (cy - end.y) * vy) / max(speed, 1e-9)
        across = abs((cx - end.x) * vy - (cy - end.y) * vx) / max(speed, 1e-9)
        if across < 0.3 * abs(along - speed) + radius:
            skipped = along / max(speed, 1e-9) - 1
            return f"skips {skipped:.1f} frames" if abs(skipped) > 0.5 else ""
        return "jumps"
    near = [r for r in there if r[2] > 0.25 * end.area and math.hypot(r[0] - x, r[1] - y) < 2 * speed + 3 * math.sqrt(r[2])]
    return "merged" if near else "vanished"


def _seen_on(frames: NDArray[np.uint8], end: Blob, step: int, reach: float) -> bool:
    """Whether something like the object is whole inside the image in both frames after its path, so that it did not leave."""
    height, width = frames.shape[1:3]
    radius = math.sqrt(end.area / math.pi)

    def whole(x: float, y: float, area: float) -> bool:
        return min(x, width - x, y, height - y) > radius + 2 and 0.5 < area / end.area < 2

    after = (end.frame + step, end.frame + 2 * step)
    return all(any(whole(*r) for r in _regions(frames, k, (end.x, end.y), reach)) for k in after)


def _lost_inside(frames: NDArray[np.uint8], ordered: list[Blob], step: int) -> bool:
    """Whether an object that moves towards the border is not there in a frame in which more than half of it should still show.

    Its place is that of a constant acceleration over its last three frames.
    """
    a, b, end = ordered[-3:]
    if abs(end.frame - a.frame) != 2:
        return False
    x, y = end.x + 2 * (end.x - b.x) - (b.x - a.x), end.y + 2 * (end.y - b.y) - (b.y - a.y)
    radius, (height, width) = math.sqrt(end.area / math.pi), frames.shape[1:3]
    if min(x, width - x, y, height - y) < 0.5 * radius:
        return False
    return not any(r[2] > 0.15 * end.area for r in _regions(frames, end.frame + step, (x, y), 2.5 * radius))


def _stays(regions: list[tuple[float, float, float]], end: Blob) -> bool:
    return any(math.hypot(x - end.x, y - end.y) < 0.2 * math.sqrt(end.area) and 0.3 < a / end.area < 3 for x, y, a in regions)


def _resting(ordered: list[Blob], after: list[Blob]) -> str:
    """Tell whether an object that is seen on after its path came to rest from one frame to the next, or gradually."""
    one, two = ordered[-7 if len(ordered) > 6 else 0], ordered[-3]
    speed = math.hypot(two.x - one.x, two.y - one.y) / max(1, abs(two.frame - one.frame))
    way = math.hypot(ordered[-1].x - ordered[0].x, ordered[-1].y - ordered[0].y)
    usual = way / max(1, abs(ordered[-1].frame - ordered[0].frame))
    drift = math.hypot(after[4].x - after[1].x, after[4].y - after[1].y) / max(1, abs(after[4].frame - after[1].frame))
    if drift > 0.2 * max(speed, usual):
        return ""
    return "stopped" if speed > 0.4 * usual and speed > 0.05 * math.sqrt(ordered[-1].area) else "rests"


def _regions(frames: NDArray[np.uint8], k: int, place: tuple[float, float], reach: float) -> list[tuple[float, float, float]]:
    """Return (x, y, area) of the regions within ``reach`` of a place that differ from the temporal median in frame k."""
    height, width = frames.shape[1:3]
    x0, x1 = max(0, int(place[0] - reach)), min(width, int(place[0] + reach) + 1)
    y0, y1 = max(0, int(place[1] - reach)), min(height, int(place[1] + reach) + 1)
    part = frames[:: max(1, len(frames) // 40), y0:y1, x0:x1].astype(np.float32)
    changed = np.abs(frames[k, y0:y1, x0:x1] - np.median(part, axis=0)).max(-1) > 25
    opened = cv2.morphologyEx(changed.astype(np.uint8), cv2.MORPH_OPEN, np.ones((2, 2), np.uint8))
    count, _, stats, centres = cv2.connectedComponentsWithStats(opened)
    return [(float(centres[i][0]) + x0, float(centres[i][1]) + y0, float(stats[i, cv2.CC_STAT_AREA])) for i in range(1, count)]
