"""Friction from an object that slides or rolls along a straight path: down or up a ramp, or to rest on a level surface.

Along the path (u down the slope, angle alpha) a sliding object has ``a = g (sin alpha - m cos alpha sign(v))``. So

    downhill   m = tan alpha - a / (g cos alpha)            uphill   m = a / (g cos alpha) - tan alpha
    level      m = |a| / g                                   up, then down   m = tan alpha (r - 1) / (r + 1),  r = a_up / a_down

The last one needs no scale; the others need metres per pixel. The angle is the one given, or the path's inclination in the
image, which takes a camera held level (3 degrees, as a standard error). A path within 5 degrees of the image's horizontal is
taken to lie on a level surface unless an angle is given, and the result says so. One acceleration is fitted, or two that meet
where the speed is zero (a start from rest, a turn, a stop), whichever the data want (difference of BIC above 10). A centre
alone does not tell sliding from rolling: ``a / (g sin alpha)`` is printed beside m; a solid ball that rolls has 5/7, a cylinder
2/3, a hollow ball 3/5.

Budget of m, absolute standard errors in quadrature: ``tracking`` (autocorrelated residuals), ``scale``, ``timing``, ``angle``,
``parts`` (the spread between the halves of the motion). Textbook mechanics; budget and model choice are ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visviva.eval.breaks import Break, eased, find_breaks
from visviva.eval.budget import half_width
from visviva.eval.friction import Angle, Friction
from visviva.eval.gravity import Scale
from visviva.eval.line import LEVEL, Line
from visviva.eval.slide import SlideFit
from visviva.eval.track import Track, Unmeasurable

__all__ = ["LEVEL", "Angle", "Line", "Ramp", "measure_ramp"]


@dataclass(frozen=True)
class Ramp:
    """Motion along a straight path, and the friction coefficient where it can be told.

    Attributes:
        accelerations: along the path, downhill positive [px/s^2], one, or two before and after ``turn`` (a frame, else None);
            sigmas: their standard errors.
        phase: ``down``, ``up``, ``up and down``, ``stops``, ``starts``, in words of the motion.
        angle: of the surface. friction, low, high: m and its interval at ``level``; NaN where ``reason`` says why not.
        budget: part -> absolute standard error of m. rolling: a / (g sin alpha); NaN on a level surface or without a scale.
        frames, fitted (n, 2) [px], residual [px], extent [px], breaks: as of a flight.
    """

    accelerations: tuple[float, ...]
    sigmas: tuple[float, ...]
    turn: int | None
    phase: str
    angle: Angle
    friction: float
    low: float
    high: float
    level: float
    budget: dict[str, float]
    rolling: float
    reason: str
    frames: NDArray[np.int64] = field(repr=False)
    fitted: NDArray[np.float64] = field(repr=False)
    residual: float
    extent: float
    breaks: list[Break]
    direction: tuple[float, float]

    @property
    def sentence(self) -> str:
        """Return the result in words."""
        a = " and then ".join(f"{x:.0f}" for x in self.accelerations)
        first, last = self.frames[[0, -1]]
        path = f"straight motion ({self.phase}) over frames {first} to {last} with {a} px/s^2 along the path"
        if self.reason:
            return f"{path[0].upper()}{path[1:]}; friction cannot be measured, because {self.reason}."
        rolls = f" If it rolls: a/(g sin) = {self.rolling:.2f} (5/7 is a solid ball's)." if 0.4 < self.rolling < 1.05 else ""
        return (
            f"If it slides, the friction coefficient is {self.friction:.3f}, {self.level:.0%} interval {self.low:.3f} to "
            f"{self.high:.3f} (most of it comes from {max(self.budget, key=lambda k: self.budget[k])}); {path}, "
            f"{self.angle.source}.{rolls}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary."""
        return {
            "accelerations_px": list(self.accelerations),
            "sigmas_px": list(self.sigmas),
            "turn_frame": self.turn,
            "phase": self.phase,
            "angle_deg": self.angle.__dict__,
            "friction": {"value": self.friction, "low": self.low, "high": self.high, "unit": "1"},
            "level": self.level,
            "budget_standard_errors": self.budget,
            "rolling_share": self.rolling,
            "reason": self.reason,
            "frames": [int(self.frames[0]), int(self.frames[-1])],
            "fit_residual_px": self.residual,
            "extent_px": self.extent,
            "sentence": self.sentence,
        }


def measure_ramp(
    track: Track, scale: Scale | None = None, angle: Angle | None = None, timing_error: float = 0.005, level: float = 0.95
) -> Ramp:
    """Measure acceleration along a straight path, and friction as far as scale and angle let it be told (module docstring).

    Errors: `Unmeasurable`, in one sentence: not straight, too short, no acceleration, or not a constant one.

    Example::

        measure_ramp(track, Scale(0.002, 0.02, "given"), Angle(20.0, 0.5, "with the angle as given")).friction
    """
    breaks = find_breaks(track.positions, track.times, track.sigma)
    line = Line.of(track, breaks)
    _check_line(line, track.sigma)
    fit = SlideFit.of(track.times[line.frames], track.positions[line.frames] @ line.direction, track.sigma)
    fit.check(line.extent, track.sigma)
    turned = eased(track.positions, track.times, track.sigma, breaks)
    if turned:
        raise Unmeasurable(f"the object does not slide freely: {turned}")
    angle = angle or Angle.seen(line)
    friction = Friction.of(fit, scale, angle, timing_error)
    wide = half_width(friction.budget.values(), level)
    _check_slower(friction, wide, angle)
    return _ramp(track, line, fit, breaks, friction, angle, (wide, level))


def _check_line(line: Line, sigma: float) -> None:
    if len(line.frames) < 8:
        raise Unmeasurable(
            f"the longest undisturbed stretch of motion has {len(line.frames)} frames; friction takes at least 8"
        )
    if not line.straight(sigma):
        raise Unmeasurable("the object does not move along a straight line, as it would on a ramp")


def _check_slower(friction: Friction, wide: float, angle: Angle) -> None:
    """Refuse friction below zero."""
    if friction.value + wide < 0:
        more = "speeds up, which friction cannot do" if angle.degrees < 1 else "gains more than gravity gives on that slope"
        raise Unmeasurable(
            f"the object {more} ({angle.source}), so it is moved by something else; check scale, angle and time scale"
        )


def _ramp(
    track: Track,
    line: Line,
    fit: SlideFit,
    breaks: list[Break],
    friction: Friction,
    angle: Angle,
    interval: tuple[float, float],
) -> Ramp:
    """Put the result together; ``interval``: half the width of the interval, and its level."""
    across = track.positions[line.frames] - np.outer(fit.way, line.direction)
    turn = None if fit.turn is None else int(line.frames[np.argmin(np.abs(fit.times - fit.turn))])
    wide, level = interval
    return Ramp(
        accelerations=fit.a,
        sigmas=fit.sigmas,
        turn=turn,
        phase=fit.phase,
        angle=angle,
        friction=friction.value,
        low=friction.value - wide,
        high=friction.value + wide,
        level=level,
        budget=friction.budget,
        rolling=friction.rolling,
        reason=friction.reason,
        frames=line.frames,
        fitted=across.mean(0) + np.outer(fit.way - fit.left, line.direction),
        residual=fit.residual,
        extent=line.extent,
        breaks=breaks,
        direction=(float(line.direction[0]), float(line.direction[1])),
    )
