"""What speaks against a clip as a record of mechanics, one finding at a time, and a score in [0, 1] to rank clips by.

Only the track is asked (`visviva.eval.track`), with what was measured of it. Findings, by name:

``vanishes`` the path ends, or begins, in the open where nothing is then to be seen; ``jumps`` position, across the motion;
``skips time`` position, along the motion, by part of a frame or more; ``changes speed`` along the motion; ``stops dead``;
``floats`` acceleration goes away without contact; ``is pushed`` acceleration changes otherwise; ``is struck`` velocity turns
(a bounce is no violation and counts little, one that gains speed counts); ``jitters`` from frame to frame; ``runs backwards``
it gains the energy that drag or damping should take; ``wrong rate`` gravity is not 9.81 m/s^2; ``no law`` fits.

The score is ``1 / (1 + sum of w (1 + 0.3 ln s))`` over the findings, w the weight of its kind and s >= 1 how many times it
exceeds what is tolerated. Names, weights and thresholds are ours; they are made to put a real recording before broken versions
of the same experiment, not to compare different experiments.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visviva.eval.ballistics import BallisticFit
from visviva.eval.breaks import Break
from visviva.eval.flight import row_times
from visviva.eval.kind import Motion
from visviva.eval.pendulum import GRAVITY
from visviva.eval.track import Track

WEIGHTS = {
    "vanishes": 2.5,
    "jumps": 2.0,
    "skips time": 1.5,
    "changes speed": 1.5,
    "stops dead": 2.0,
    "floats": 2.0,
    "is pushed": 1.0,
    "is struck": 0.1,
    "jitters": 2.0,
    "runs backwards": 1.5,
    "wrong rate": 1.5,
    "no law": 2.0,
}


CERTAIN = 7.0
"""Standard errors of a break that speaks against a swing; weaker ones may be its curvature."""
MOST = 30
"""Breaks that are looked at, the strongest first."""


@dataclass(frozen=True)
class Finding:
    """One thing that speaks against a clip: its name, how many times it exceeds what is tolerated, where, and in words."""

    name: str
    strength: float
    frame: int | None
    sentence: str

    @property
    def cost(self) -> float:
        """Return what it takes off the score."""
        return WEIGHTS[self.name] * (1 + 0.3 * math.log(max(self.strength, 1.0)))


@dataclass(frozen=True)
class Verdict:
    """All findings of a clip, the heaviest first."""

    findings: list[Finding]

    @property
    def score(self) -> float:
        """Return the score in [0, 1]; 1 if nothing was found."""
        return 1 / (1 + sum(f.cost for f in self.findings))

    @property
    def sentence(self) -> str:
        """Return in one sentence why the clip scored as it did."""
        if not self.findings:
            return "Scored 1.00: nothing was found that mechanics forbids."
        said = [f.sentence for f in self.findings[:3]]
        more = f"; and {len(self.findings) - 3} more" if len(self.findings) > 3 else ""
        return f"Scored {self.score:.2f}, because {'; '.join(said)}{more}."


def judge(track: Track, motion: Motion, breaks: Sequence[Break]) -> Verdict:
    """Return what speaks against a tracked and measured clip.

    Example::

        motion = measure_motion(track, Scales())
        judge(track, motion, motion.flight.breaks).sentence
    """
    jitter = _jitter(track, breaks)
    found = [*_ends(track, motion.kind == "fall"), *jitter, *_backwards(track, motion), *_rate(motion)]
    if not jitter or jitter[0].strength < 2:  # what jumps in every frame has no breaks of its own
        found += _breaks(track, breaks, motion.kind == "pendulum")
    if motion.reason and motion.ramp is None and not any(f.cost > 0.5 for f in found):
        found += _slow_change(track) or [Finding("no law", 1.0, None, motion.reason)]
    return Verdict(sorted(found, key=lambda f: -f.cost))


def _ends(track: Track, falls: bool) -> list[Finding]:
    seen = np.flatnonzero(track.seen)
    found: list[Finding] = []
    for end, frame, words in zip(
        track.ends, (int(seen[0]), int(seen[-1])), ("appears out of nothing", "vanishes into nothing"), strict=True
    ):
        if end == "vanished":
            found.append(Finding("vanishes", 1.0, frame, f"the object {words} at frame {frame}"))
        if end == "stopped":
            found.append(Finding("stops dead", 1.0, frame, f"the object stops dead at frame {frame}"))
        if end == "rests" and falls:
            found.append(Finding("floats", 1.0, frame, f"the object stays in mid-air from frame {frame} on"))
        if end.startswith("skips"):
            found.append(Finding("skips time", 1.0, frame, f"the clip {end} at frame {frame}"))
        if end == "jumps":
            found.append(Finding("jumps", 1.0, frame, f"the object jumps at frame {frame}, faster than it can be followed"))
    return found


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


def _breaks(track: Track, breaks: Sequence[Break], swings: bool, apart: int = 8) -> list[Finding]:
    found: list[Finding] = []
    for broken in sorted(breaks, key=lambda b: -b.strength)[:MOST]:
        if all(f.frame is None or abs(broken.frame - f.frame) >= apart for f in found):
            finding = _named(track, broken, swings)
            found += [finding] if finding is not None else []
    return found


def _named(track: Track, broken: Break, swings: bool, reach: int = 16) -> Finding | None:
    """Tell what happened at a break: the simplest model that explains the frames around it names it."""
    found = [f for k in range(broken.frame - 3, broken.frame + 4) if (f := _models(track, k, reach)) is not None]
    if not found:
        return None
    kink, jump = min(found, key=lambda f: f[0][1])[0], min(found, key=lambda f: f[1][1])[1]
    strength = broken.strength / 5
    if swings and broken.strength < CERTAIN:
        return None
    if kink[1] > 1.3 * jump[1]:
        return _jump(track, jump[0], strength, jump[2]) or _change(kink[0], strength, kink[2])
    return _change(kink[0], strength, kink[2])


def _change(solution: NDArray, strength: float, k: int) -> Finding | None:
    """Name a change of acceleration at frame k from its model (4, 2), see `_models`; None if it is small."""
    before, after = solution[2], solution[2] + solution[3]
    size = max(float(np.linalg.norm(before)), float(np.linalg.norm(after)))
    if float(np.linalg.norm(solution[3])) < 0.3 * size:
        return None
    if min(np.linalg.norm(before), np.linalg.norm(after)) < 0.35 * size:
        when = "stops accelerating" if np.linalg.norm(after) < np.linalg.norm(before) else "begins to accelerate"
        return Finding("floats", strength, k, f"the object {when} at frame {k} without contact")
    return Finding("is pushed", strength, k, f"at frame {k} its acceleration changes without contact")


def _slow_change(track: Track) -> list[Finding]:
    """Find the one frame at which the acceleration of a whole path changes, too smoothly for a break, and name the change."""
    count = len(track.times)
    found = [m for k in range(5, count - 6, max(1, count // 60)) if (m := _models(track, k, count)) is not None]
    if not found:
        return []
    solution, error, k = min((m[0] for m in found), key=lambda m: m[1])
    extent = float(np.linalg.norm(np.ptp(track.positions[track.seen], axis=0)))
    if math.sqrt(error) > 0.006 * extent:
        return []
    finding = _change(solution, 1.0, k)
    return [] if finding is None else [finding]


_Model = tuple[NDArray[np.float64], float, int]


def _models(track: Track, k: int, reach: int) -> tuple[_Model, _Model] | None:
    """Fit the frames around the gap after frame k by a change of acceleration alone, and by a jump of everything.

    Each model is (solution, mean square error per degree of freedom, k); the solutions' rows are position, velocity and
    acceleration before the gap, then the change of acceleration, or the changes of position, velocity and acceleration.
    """
    near = np.arange(max(0, k - reach), min(len(track.times), k + reach + 2))
    near = near[track.seen[near]]
    if (near <= k).sum() < 4 or (near > k).sum() < 4:
        return None
    t = track.times[near] - 0.5 * (track.times[k] + track.times[k + 1])
    step, frame_time = (near > k).astype(np.float64), track.times[k + 1] - track.times[k]
    smooth = [np.ones(len(near)), t, t**2 / 2]
    p = track.positions[near]
    late = [np.maximum(t - share * frame_time, 0) ** 2 / 2 for share in (-0.5, -0.25, 0.0, 0.25, 0.5)]  # within the gap
    kink = min((_solved([*smooth, x], p) for x in late), key=lambda found: found[1])
    return (*kink, k), (*_solved([*smooth, step, step * t, step * t**2 / 2], p), k)


def _jump(track: Track, jump: NDArray, strength: float, k: int) -> Finding | None:
    """Name a jump at frame k from its model (6, 2), see `_models`; None if the speed changes by less than 6 %."""
    velocity, shift, kick = jump[1], jump[3], jump[4]
    speed = max(float(np.linalg.norm(velocity)), 1e-9)
    frame_time = float(np.median(np.diff(track.times)))
    along, across = float(shift @ velocity) / speed, float(abs(shift[0] * velocity[1] - shift[1] * velocity[0])) / speed
    after = float(np.linalg.norm(velocity + kick))
    if across > max(6 * track.sigma, 0.3 * speed * frame_time) and across > 0.5 * abs(along):
        return Finding("jumps", strength, k, f"the object jumps by ({shift[0]:.0f}, {shift[1]:.0f}) px at frame {k}")
    if after < 0.2 * speed:
        return Finding("stops dead", strength, k, f"the object stops dead at frame {k}")
    turned = float(velocity @ (velocity + kick)) / (speed * max(after, 1e-9))
    if abs(along) > 0.4 * speed * frame_time and turned > 0.9 and 0.75 < after / speed < 1.33:
        frames = along / (speed * frame_time)
        what = f"skips {frames:.1f} frames" if frames > 0 else f"repeats {-frames:.1f} frames"
        return Finding("skips time", strength, k, f"the clip {what} at frame {k}")
    if turned > 0.9 and abs(after / speed - 1) < 0.06:
        return None
    if turned > 0.9:
        words = f"at frame {k} the motion's speed changes by a factor of {after / speed:.2f} without contact"
        return Finding("changes speed", strength, k, words)
    if after > 1.1 * speed:
        return Finding("is pushed", strength, k, f"at frame {k} the object turns and gains speed")
    return Finding("is struck", strength, k, f"the object strikes something at frame {k}")


def _solved(columns: list[NDArray], p: NDArray) -> tuple[NDArray, float]:
    design = np.stack(columns, axis=1)
    solution = np.linalg.lstsq(design, p, rcond=None)[0]
    return solution, float(((p - design @ solution) ** 2).sum()) / max(1, len(p) - len(columns))


def _backwards(track: Track, motion: Motion) -> list[Finding]:
    """Whether the motion gains what drag should take: damping of a swing, or a flight that fits better played backwards."""
    words = "it gains the energy that drag should take, as a film played backwards does"
    if motion.pendulum is not None:
        damping, error = motion.pendulum.damping
        return [Finding("runs backwards", -damping / (3 * error), None, words)] if damping < -3 * error else []
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
