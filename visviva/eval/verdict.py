"""What speaks against a clip as a record of mechanics: what its track and its look (`visviva.eval.appearance`) say.

Findings, by name:

``vanishes`` the path ends, begins or is interrupted in the open where nothing is then to be seen; ``duplicates`` a second
object like it comes out of nothing; ``changes size``, ``changes look`` (colour or shape), ``background changes``; ``jumps``
position, otherwise than ``skips time``, along the path; ``freezes`` and goes on; ``changes speed`` along the motion; ``stops
dead``; ``floats`` acceleration goes away without contact; ``is pushed`` acceleration changes otherwise; ``is struck`` velocity
turns (a contact is no violation and counts little); ``jitters`` from frame to frame; ``wobbles`` about its path; ``runs
backwards`` it gains the energy that drag, damping, contact or friction should take; ``wrong rate`` gravity is not 9.81 m/s^2;
``no law`` fits; ``cuts`` to another scene; ``is lost`` for much of the clip, of which nothing is known.

Breaks are named by the simplest model of the frames around them (`visviva.eval.events`). Thresholds are ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from visviva.eval.appearance import appearance
from visviva.eval.ballistics import BallisticFit
from visviva.eval.breaks import Break
from visviva.eval.events import doubt
from visviva.eval.finding import WEIGHTS, Finding, Verdict
from visviva.eval.flight import row_times
from visviva.eval.kind import Motion
from visviva.eval.naming import BACKWARDS, change, named_breaks
from visviva.eval.pendulum import GRAVITY
from visviva.eval.ramp import LEVEL
from visviva.eval.track import Track

__all__ = ["WEIGHTS", "Finding", "Verdict", "judge"]


def judge(track: Track, motion: Motion, breaks: Sequence[Break]) -> Verdict:
    """Return what speaks against a tracked and measured clip.

    Example::

        motion = measure_motion(track, Scales())
        judge(track, motion, motion.flight.breaks).sentence
    """
    frozen = _freezes(track)
    shaken = _jitter(track, breaks) or ([] if frozen else _wobble(track, motion, breaks))
    found = [*_ends(track, motion.kind == "fall"), *appearance(track), *shaken, *_backwards(track, motion), *_rate(motion)]
    if not shaken or shaken[0].strength < 2:  # what jumps in every frame has no breaks of its own
        found += [f for f, _ in frozen]
        found += named_breaks(track, breaks, motion, [span for _, span in frozen])
    if motion.reason and motion.ramp is None and not any(f.cost > 0.5 for f in found):
        found += _slow_change(track) or [Finding("no law", 1.0, None, motion.reason)]
    untold = " ".join(filter(None, (_unfollowed(track), _untold(motion, found))))
    return Verdict(sorted(found, key=lambda f: -f.cost), untold)


def _unfollowed(track: Track) -> str:
    """Say in how many frames the object was followed, unless in nearly all."""
    seen, count = int(track.seen.sum()), len(track.times)
    return f"It was followed in {seen} of {count} frames; nothing is said of the others." if seen < 0.9 * count else ""


def _untold(motion: Motion, found: list[Finding]) -> str:
    """Say what a free flight without visible drag does not tell: the direction of time."""
    if motion.flight is None or motion.kind != "fall" or any(f.name in ("runs backwards", "is struck") for f in found):
        return ""
    return "A flight without visible drag looks the same played backwards, so the direction of time is not judged."


def _ends(track: Track, falls: bool) -> list[Finding]:
    seen = np.flatnonzero(track.seen)
    found: list[Finding] = []
    for late, (end, frame) in enumerate(zip(track.ends, (int(seen[0]), int(seen[-1])), strict=True)):
        words = "vanishes into nothing" if late else "appears out of nothing"
        if end == "vanished":
            found.append(Finding("vanishes", 1.0, frame, f"the object {words} at frame {frame}"))
        if end == "stopped" and late and not _slowed(track, frame):
            found.append(Finding("stops dead", 1.0, frame, f"the object stops dead at frame {frame}"))
        if end == "rests" and late and falls and not _lies(track, frame):
            found.append(Finding("floats", 1.0, frame, f"the object stays in mid-air from frame {frame} on"))
        if end.startswith("skips"):
            found.append(Finding("skips time", 1.0, frame, f"the clip {end} at frame {frame}"))
        if end == "jumps":
            found.append(Finding("jumps", 1.0, frame, f"the object jumps at frame {frame}, faster than it can be followed"))
    return found


def _slowed(track: Track, frame: int) -> bool:
    """Whether an object had nearly come to rest, as friction would make it, by the last frames of its path."""
    near = np.arange(max(0, frame - 6), frame + 1)
    near = near[track.seen[near]]
    step = np.linalg.norm(np.diff(track.positions[near], axis=0), axis=1) / np.diff(near)
    usual = np.linalg.norm(np.diff(track.positions[track.seen], axis=0), axis=1) / np.diff(np.flatnonzero(track.seen))
    falls = len(step) >= 4 and float(np.polyfit(np.arange(len(step)), step, 1)[0]) * len(step) < -0.3 * step[0]
    return bool(falls and step[-1] < 0.35 * float(np.median(usual)))


def _lies(track: Track, frame: int) -> bool:
    """Whether an object at rest is where it was lowest, as on a floor."""
    lowest = float(np.nanmax(track.positions[:, 1]))
    return lowest - float(track.positions[frame, 1]) < 0.5 * float(np.nanmedian(track.width))


def _jitter(track: Track, breaks: Sequence[Break]) -> list[Finding]:
    """Noise from third differences, those across a break left out."""
    third = np.abs(np.diff(track.positions, n=3, axis=0)).mean(1)
    for broken in breaks:
        third[max(0, broken.frame - 2) : broken.frame + 1] = np.nan
    third = third[np.isfinite(third)]
    sigma = float(np.median(third)) * math.sqrt(math.pi / 40) if len(third) >= 8 else track.sigma
    tolerated = max(0.6, 0.025 * float(np.nanmedian(track.width)))
    if not sigma > tolerated:
        return []
    return [Finding("jitters", sigma / tolerated, None, f"the object jitters by {sigma:.1f} px from frame to frame")]


def _wobble(track: Track, motion: Motion, breaks: Sequence[Break]) -> list[Finding]:
    """Find an oscillation about the path, from third differences at lags of several frames; not in a swing, which is one.

    Differences across a break with at most one other within 0.18 s, as a bounce has, are left out.
    """
    if motion.pendulum is not None:
        return []
    step, count = float(np.median(np.diff(track.times))), len(track.times)
    p, tolerated = track.positions, max(1.0, 0.06 * float(np.nanmedian(track.width)))
    size, apart = 0.0, 0.18 / step
    alone = [b.frame for b in breaks if sum(abs(b.frame - c.frame) <= apart for c in breaks) <= 2]
    for lag in range(2, min(round(0.11 / step), count // 8) + 1):
        third = np.abs(p[3 * lag :] - 3 * p[2 * lag : -lag] + 3 * p[lag : -2 * lag] - p[: -3 * lag]).max(1)
        for k in alone:
            third[max(0, k + 1 - 3 * lag) : k + 1] = np.nan
        third = third[np.isfinite(third)]
        if len(third) >= 8:
            size = max(size, float(np.quantile(third, 0.4)) / 5)
    if size <= tolerated:
        return []
    return [Finding("wobbles", size / tolerated, None, f"the object wobbles about its path by {size:.1f} px")]


def _freezes(track: Track) -> list[tuple[Finding, tuple[int, int]]]:
    """Find where the object stands still for a few frames between two frames in which it is fast."""
    seen = np.flatnonzero(track.seen)
    step = np.linalg.norm(np.diff(track.positions[seen], axis=0), axis=1) / np.diff(seen)
    step[np.diff(seen) > 3] = np.nan
    still, found, i = step < max(4 * doubt(track), 0.4), [], 0
    while i < len(step):
        end = i
        while end < len(step) and still[end]:
            end += 1
        first, last = int(seen[i]), int(seen[end])
        if last - first >= 2 and i > 0 and end < len(step):
            least = max(8 * doubt(track), 0.8, 4 * float(np.median(step[i:end])))
            if min(step[i - 1], step[end]) > least:
                words = f"the object freezes from frame {first} to {last} and goes on"
                found.append((Finding("freezes", (last - first) / 2, first, words), (first, last)))
        i = max(end, i + 1)
    return found


def _slow_change(track: Track) -> list[Finding]:
    """Find the one frame at which the acceleration of a whole path changes, too smoothly for a break, and name the change."""
    count = len(track.times)
    t, p = track.times - track.times[0], track.positions
    seen = np.flatnonzero(track.seen)
    found = []
    for k in range(int(seen[0]) + 5, int(seen[-1]) - 5, max(1, count // 60)):
        s = t[seen] - t[k]
        design = np.column_stack([np.ones_like(s), s, s**2 / 2, np.maximum(s, 0) ** 2 / 2])
        solution = np.linalg.lstsq(design, p[seen], rcond=None)[0]
        found.append((float(((p[seen] - design @ solution) ** 2).sum()) / max(1, len(seen) - 4), k, solution))
    if not found:
        return []
    error, k, solution = min(found, key=lambda m: m[0])
    extent = float(np.linalg.norm(np.ptp(p[seen], axis=0)))
    if math.sqrt(error) > 0.006 * extent:
        return []
    finding = change(solution[2], solution[2] + solution[3], 1.0, k)
    return [] if finding is None else [finding]


def _backwards(track: Track, motion: Motion) -> list[Finding]:
    """Whether the motion gains what drag should take: damping of a swing, friction of a level surface, or the drag of a
    flight."""
    words = f"it gains the energy that drag should take, {BACKWARDS}"
    if motion.pendulum is not None:
        damping, error = motion.pendulum.damping
        return [Finding("runs backwards", -damping / (3 * error), None, words)] if damping < -3 * error else []
    ramp = motion.ramp
    if ramp is not None and ramp.phase in ("down", "starts") and ramp.angle.degrees < LEVEL and max(ramp.accelerations) > 0:
        words = f"it gains speed on what looks like a level surface, {BACKWARDS}"
        return [Finding("runs backwards", 1.0, int(ramp.frames[0]), words)]
    if motion.flight is None or motion.flight.acceleration[1] <= 0:
        return []
    metres = GRAVITY[0] / motion.flight.acceleration[1]
    frames = motion.flight.frames
    t, p = track.times[frames] - track.times[frames].mean(), track.positions[frames] * metres
    offsets, least = row_times(track, frames)
    true = BallisticFit.of(t, p, track.sigma * metres, (offsets, least), drag=True)
    back = BallisticFit.of(-t[::-1], p[::-1], track.sigma * metres, (offsets[::-1], least), drag=True)
    better = float((true.residuals**2).sum() / max((back.residuals**2).sum(), 1e-30))
    if back.drag > 3 * back.drag_sigma and better > 1.5:
        return [Finding("runs backwards", better / 1.5, None, words)]
    return []


def _rate(motion: Motion) -> list[Finding]:
    gravity = motion.gravity
    if gravity is None or gravity.low <= GRAVITY[0] <= gravity.high:
        return []
    rate = math.sqrt(gravity.value / GRAVITY[0])
    off = abs(math.log(gravity.value / GRAVITY[0])) / max(gravity.half_width, 1e-3)
    words = f"it falls at {gravity.value:.1f} m/s^2, as if played {rate:.2f} times as fast (or the scale is wrong)"
    return [Finding("wrong rate", off, None, words)]
