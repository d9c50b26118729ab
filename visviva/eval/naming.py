"""Names for the breaks of a track: what an event (`visviva.eval.events`) means where only gravity and contact move an object.

A contact may turn an object and take its speed, and hold a swing for a while; nothing gives it speed. Thresholds are ours.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from visviva.eval.breaks import Break
from visviva.eval.events import REACH, Event, doubt, explain
from visviva.eval.finding import Finding
from visviva.eval.kind import Motion
from visviva.eval.track import Track

MOST = 30
"""Breaks that are looked at, the strongest first."""
CERTAIN = 8.0
"""By how much an event must lower the BIC."""
CURVED = 7.0
"""Standard errors of a break that speaks against a swing; weaker ones may be its curvature."""
SAME = 0.06
"""Relative change of speed that is none."""
BACKWARDS = "as a film played backwards does"


def named_breaks(track: Track, breaks: Sequence[Break], motion: Motion, frozen: list[tuple[int, int]]) -> list[Finding]:
    """Return what the breaks of a track say against it; those within ``frozen`` stretches of frames are left out.

    Example::

        [f.sentence for f in named_breaks(track, motion.flight.breaks, motion, [])]
    """
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
        return change(*event.pulls, strength, k)
    if event.model in ("shift", "any") and not _within_the_gap(track, event, step):
        return _displaced(track, event, strength, step) or _speed(event, strength, k, swings)
    if event.model == "any" and not swings and _far(event, step) > 3 * _least(track):
        return change(*event.pulls, strength, k) or _speed(event, strength, k, swings)
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
        return change(*event.pulls, strength, k) if event.model == "any" else None
    if swings and after < before:
        return struck
    words = f"at frame {k} the motion's speed changes by a factor of {after / max(before, 1e-9):.2f} without contact"
    return Finding("changes speed", strength, k, words)


def change(before: NDArray, after: NDArray, strength: float, k: int) -> Finding | None:
    """Name a change of acceleration at frame k; None if it is small."""
    size = max(float(np.linalg.norm(before)), float(np.linalg.norm(after)))
    if float(np.linalg.norm(after - before)) < 0.3 * size:
        return None
    if min(np.linalg.norm(before), np.linalg.norm(after)) < 0.25 * size:
        when = "stops accelerating" if np.linalg.norm(after) < np.linalg.norm(before) else "begins to accelerate"
        return Finding("floats", strength, k, f"the object {when} at frame {k} without contact")
    return Finding("is pushed", strength, k, f"at frame {k} its acceleration changes without contact")
