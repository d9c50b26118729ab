"""What speaks against a clip as a record of mechanics: what its track and its look (`visviva.eval.appearance`) say.

Findings, by name:

``vanishes`` the path ends, begins or is interrupted in the open where nothing is then to be seen; ``duplicates`` a second
object like it comes out of nothing; ``changes size``, ``changes look`` (colour or shape), ``background changes``; ``jumps``
position, otherwise than ``skips time``, along the path; ``freezes`` and goes on; ``changes speed`` along the motion; ``stops
dead``; ``floats`` acceleration goes away without contact; ``is pushed`` acceleration changes otherwise; ``is struck`` velocity
turns (a contact is no violation and counts little); ``jitters`` from frame to frame; ``wobbles`` about its path; ``runs
backwards`` it gains the energy that drag, damping, contact or friction should take; ``wrong rate`` gravity is not 9.81 m/s^2;
``no law`` fits; ``cuts`` to another scene.

Breaks are named by the simplest model of the frames around them (`visviva.eval.events`). Thresholds are ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from visviva.eval.appearance import appearance
from visviva.eval.ballistics import BallisticFit
from visviva.eval.breaks import Break
from visviva.eval.events import REACH, Event, doubt, explain
from visviva.eval.finding import WEIGHTS, Finding, Verdict
from visviva.eval.flight import row_times
from visviva.eval.kind import Motion
from visviva.eval.pendulum import GRAVITY
from visviva.eval.ramp import LEVEL
from visviva.eval.track import Track

__all__ = ["WEIGHTS", "Finding", "Verdict", "judge"]

MOST = 30
"""Breaks that are looked at, the strongest first."""
CERTAIN = 8.0
"""By how much an event must lower the BIC."""
CURVED = 7.0
"""Standard errors of a break that speaks against a swing; weaker ones may be its curvature."""
SAME = 0.06
"""Relative change of speed that is none."""
BACKWARDS = "as a film played backwards does"


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
        found += _breaks(track, breaks, motion, [span for _, span in frozen])
    if motion.reason and motion.ramp is None and not any(f.cost > 0.5 for f in found):
        found += _slow_change(track) or [Finding("no law", 1.0, None, motion.reason)]
    return Verdict(sorted(found, key=lambda f: -f.cost), _untold(motion, found))


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


def _breaks(track: Track, breaks: Sequence[Break], motion: Motion, frozen: list[tuple[int, int]]) -> list[Finding]:
    swings, events, reach = motion.kind == "pendulum", [], REACH
    if motion.pendulum is not None:  # an eighth of a period is a cubic
        reach = int(np.clip(motion.pendulum.period / 8 / float(np.median(np.diff(track.times))), 8, REACH))
    places = sorted(b.frame for b in breaks)
    for broken in sorted(breaks, key=lambda b: -b.strength)[:MOST]:
        if any(a - 4 <= broken.frame <= b + 4 for a, b in frozen) or (swings and broken.strength < CURVED):
            continue
        first = max((p + 1 for p in places if p < broken.frame - 2), default=0)
        last = min((p for p in places if p > broken.frame + 2), default=len(track.times) - 1)
        event = explain(track, broken.frame, first, last, swings, reach)
        if event is not None and event.gain > CERTAIN and _matters(track, event):
            events.append((event, broken.strength / 5))
    named = [f for e, strength in events if (f := _named(track, e, strength, swings)) is not None]
    if swings and any(f.name == "is struck" for f in named):  # what it strikes also holds it for a while
        named = [_contact(f) if "acceleration changes" in f.sentence else f for f in named]
    return _direction_of_time(named)


def _contact(found: Finding) -> Finding:
    return Finding("is struck", found.strength, found.frame, f"the object strikes something at frame {found.frame}")


def _direction_of_time(found: list[Finding]) -> list[Finding]:
    """Contacts that gain energy, and none that loses any, are those of a film played backwards."""
    gains = [f for f in found if f.name == "is pushed" and "gains speed" in f.sentence]
    if not gains or any(f.name == "is struck" for f in found):
        return found
    words = f"it leaves what it strikes faster than it came, {BACKWARDS} (frame {gains[0].frame})"
    return [*(f for f in found if f not in gains), Finding("runs backwards", gains[0].strength, gains[0].frame, words)]


def _matters(track: Track, event: Event) -> bool:
    """Whether an event moves the object, within five frames, by more than tracking over a textured background may."""
    step = float(np.median(np.diff(track.times)))
    moved = np.linalg.norm(event.shift) + 4 * step * np.linalg.norm(event.after - event.before)
    moved += _far(event, step)
    return bool(moved > max(6 * doubt(track), 0.08 * float(np.nanmedian(track.width)), 1.0))


def _named(track: Track, event: Event, strength: float, swings: bool) -> Finding | None:
    k, step = event.frame, float(np.median(np.diff(track.times)))
    if event.model == "skip":
        return _skipped(event.amount, strength, k)
    if event.model == "pull":
        return _change(*event.pulls, strength, k)
    if event.model in ("shift", "any") and not _within_the_gap(track, event, step):
        return _displaced(track, event, strength, step) or _speed(event, strength, k, swings)
    if event.model == "any" and not swings and _far(event, step) > 3 * _least(track):
        return _change(*event.pulls, strength, k) or _speed(event, strength, k, swings)
    return _speed(event, strength, k, swings)


def _displaced(track: Track, event: Event, strength: float, step: float) -> Finding | None:
    """Name a jump of place: what is on along the path is time, everything else is a jump; None if it is small."""
    k, far = event.frame, float(np.linalg.norm(event.shift))
    if far <= _least(track) + 0.3 * float(np.linalg.norm(event.before)) * step:
        return None
    tau = np.concatenate([np.arange(-6, -0.3, 0.05), np.arange(0.4, 20, 0.05)])[:, None] * step
    place = event.before * tau + event.pulls[0] * tau**2 / 2 - event.shift
    speed = event.before + event.pulls[0] * tau - event.after
    tolerated = 0.15 * far + _least(track), 0.15 * float(np.linalg.norm(event.after)) + _least(track) / (8 * step)
    off = np.hypot(np.linalg.norm(place, axis=1) / tolerated[0], np.linalg.norm(speed, axis=1) / tolerated[1])
    best = int(np.argmin(off))
    if off[best] < 1.4:
        return _skipped(float(tau[best, 0]) / step, strength, k)
    x, y = event.shift
    return Finding("jumps", strength, k, f"the object jumps by ({x:.0f}, {y:.0f}) px at frame {k}")


def _skipped(frames: float, strength: float, k: int) -> Finding:
    what = f"skips {frames:.1f} frames" if frames > 0 else f"repeats {-frames:.1f} frames"
    return Finding("skips time", strength, k, f"the clip {what} at frame {k}")


def _far(event: Event, step: float) -> float:
    """Return how far a change of acceleration carries an object in five frames [px]."""
    return float((5 * step) ** 2 / 2 * np.linalg.norm(event.pulls[1] - event.pulls[0]))


def _least(track: Track) -> float:
    """Return the least jump of place that counts [px]."""
    return max(4 * doubt(track), 0.1 * float(np.nanmedian(track.width)))


def _within_the_gap(track: Track, event: Event, step: float) -> bool:
    """Whether a jump of place is only that of a velocity which changed a little before or after the middle of the gap.

    An object that turns back at a contact may be cut in the frames around it: two and a half frames are allowed there.
    """
    kick = event.after - event.before
    most = (2.5 if event.before @ event.after < 0 else 0.8) * step
    delay = float(np.clip(-(event.shift @ kick) / max(float(kick @ kick), 1e-12), -most, most))
    return bool(np.linalg.norm(event.shift + delay * kick) < _least(track) + 0.1 * np.linalg.norm(event.shift))


def _speed(event: Event, strength: float, k: int, swings: bool) -> Finding | None:
    """Name a change of velocity: a contact turns an object or takes its speed; nothing gives it any."""
    before, after = float(np.linalg.norm(event.before)), float(np.linalg.norm(event.after))
    turned = float(event.before @ event.after) / max(before * after, 1e-9)
    struck = Finding("is struck", strength, k, f"the object strikes something at frame {k}")
    if after < 0.2 * before:
        return struck if swings else Finding("stops dead", strength, k, f"the object stops dead at frame {k}")
    if turned < 0.95:
        if after < 1.1 * before:
            return struck
        return Finding("is pushed", strength, k, f"at frame {k} the object turns and gains speed")
    if abs(after / max(before, 1e-9) - 1) < SAME:
        return _change(*event.pulls, strength, k) if event.model == "any" else None
    if swings and after < before:
        return struck
    words = f"at frame {k} the motion's speed changes by a factor of {after / max(before, 1e-9):.2f} without contact"
    return Finding("changes speed", strength, k, words)


def _change(before: NDArray, after: NDArray, strength: float, k: int) -> Finding | None:
    """Name a change of acceleration at frame k; None if it is small."""
    size = max(float(np.linalg.norm(before)), float(np.linalg.norm(after)))
    if float(np.linalg.norm(after - before)) < 0.3 * size:
        return None
    if min(np.linalg.norm(before), np.linalg.norm(after)) < 0.25 * size:
        when = "stops accelerating" if np.linalg.norm(after) < np.linalg.norm(before) else "begins to accelerate"
        return Finding("floats", strength, k, f"the object {when} at frame {k} without contact")
    return Finding("is pushed", strength, k, f"at frame {k} its acceleration changes without contact")


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
    finding = _change(solution[2], solution[2] + solution[3], 1.0, k)
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
