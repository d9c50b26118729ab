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

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visviva.eval.ballistics import correlation_time
from visviva.eval.breaks import Break, eased, find_breaks, flights
from visviva.eval.gravity import Scale
from visviva.eval.pendulum import GRAVITY
from visviva.eval.track import Track, Unmeasurable

LEVEL = 5.0
"""Inclination up to which a path is taken to lie on a level surface [deg]."""
UNKNOWN_ANGLE = 3.0
"""Standard error of an angle that is read in the image [deg]."""
LEVEL_ERROR = 0.5
"""Standard error of a surface that is taken to be level [deg]."""


@dataclass(frozen=True)
class Angle:
    """Inclination of the surface and its standard error [deg], and where it comes from."""

    degrees: float
    error: float
    source: str


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


@dataclass(frozen=True)
class Line:
    """The straight line through the farthest stretch of a track: frames, unit direction (down, or along the motion),
    inclination from the horizontal [deg], root mean square distance from it [px], and the path's extent [px]."""

    frames: NDArray[np.int64]
    direction: NDArray[np.float64]
    inclination: float
    off: float
    extent: float

    @classmethod
    def of(cls, track: Track, breaks: list[Break]) -> Line:
        """Fit the line by principal axes."""
        frames = max(flights(track.positions, breaks), key=lambda s: float(np.linalg.norm(np.ptp(track.positions[s], axis=0))))
        p = track.positions[frames]
        axes = np.linalg.svd(p - p.mean(0), full_matrices=False)
        u, n = axes[2][0], len(frames)
        inclination = math.degrees(math.atan2(abs(u[1]), abs(u[0])))
        forward = float((p[n // 2 :].mean(0) - p[: n // 2].mean(0)) @ u) if inclination < LEVEL else u[1]
        return cls(frames, u if forward >= 0 else -u, inclination, float(axes[1][1]) / math.sqrt(n), float(np.ptp(p @ u)))

    def straight(self, sigma: float) -> bool:
        """Whether the path is straight: within 1 % of its extent, or within the tracking noise."""
        return self.off < max(0.01 * self.extent, 2.5 * sigma)


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
    if len(line.frames) < 8:
        raise Unmeasurable(
            f"the longest undisturbed stretch of motion has {len(line.frames)} frames; friction takes at least 8"
        )
    if not line.straight(track.sigma):
        raise Unmeasurable("the object does not move along a straight line, as it would on a ramp")
    t, s = track.times[line.frames], track.positions[line.frames] @ line.direction
    fit = _Fit.of(t - t[0], s, track.sigma)
    _check(fit, t - t[0], s, line, track.sigma)
    turned = eased(track.positions, track.times, track.sigma, breaks)
    if turned:
        raise Unmeasurable(f"the object does not slide freely: {turned}")
    angle = angle or _seen_angle(line)
    phase = _phase(fit, t - t[0])
    m, budget, rolling, reason = _friction(fit, phase, scale, angle, timing_error, _parts(fit, t - t[0], s))
    z, wide = _quantile(level), math.sqrt(sum(e**2 for e in budget.values()))
    if m + z * wide < 0:
        more = "speeds up, which friction cannot do" if angle.degrees < 1 else "gains more than gravity gives on that slope"
        raise Unmeasurable(
            f"the object {more} ({angle.source}), so it is moved by something else; check scale, angle and time scale"
        )
    across = track.positions[line.frames] - np.outer(s, line.direction)
    turn = None if fit.turn is None else int(line.frames[np.argmin(np.abs(t - t[0] - fit.turn))])
    return Ramp(
        fit.a,
        fit.sigmas,
        turn,
        phase,
        angle,
        m,
        m - z * wide,
        m + z * wide,
        level,
        budget,
        rolling,
        reason,
        line.frames,
        across.mean(0) + np.outer(s - fit.left, line.direction),
        float(np.sqrt((fit.left**2).mean())),
        line.extent,
        breaks,
        (float(line.direction[0]), float(line.direction[1])),
    )


def _seen_angle(line: Line) -> Angle:
    if line.inclination < LEVEL:
        return Angle(0.0, LEVEL_ERROR, f"on a surface taken to be level ({line.inclination:.1f} degrees in the image)")
    return Angle(
        line.inclination, UNKNOWN_ANGLE, f"at {line.inclination:.1f} degrees as seen in the image, if the camera was level"
    )


@dataclass(frozen=True)
class _Fit:
    """One or two accelerations along a line: a, standard errors, time of zero speed between them or None, residuals (n,)."""

    a: tuple[float, ...]
    sigmas: tuple[float, ...]
    turn: float | None
    speed: float
    left: NDArray[np.float64]

    @classmethod
    def of(cls, t: NDArray, s: NDArray, sigma: float) -> _Fit:
        """Fit both models and keep the one that the data want."""
        one = np.stack([t**2 / 2, np.ones_like(t), t], axis=1)
        turns = np.linspace(t[2], t[-3], 4 * len(t))
        two = [np.stack([np.minimum(t - x, 0) ** 2 / 2, np.maximum(t - x, 0) ** 2 / 2, np.ones_like(t)], axis=1) for x in turns]
        errors = [float(((s - d @ np.linalg.lstsq(d, s, rcond=None)[0]) ** 2).sum()) for d in two]
        best, n, floor = int(np.argmin(errors)), len(t), len(t) * sigma**2
        single = float(((s - one @ np.linalg.lstsq(one, s, rcond=None)[0]) ** 2).sum())
        wanted = n * math.log(max(single, floor) / max(errors[best], floor)) - math.log(n) > 10
        design = two[best] if wanted else one
        solution = np.linalg.lstsq(design, s, rcond=None)[0]
        left = s - design @ solution
        variance = max(float((left**2).sum()) / max(n - 4, 1), sigma**2) * correlation_time(left[:, None])
        errors_of = np.sqrt(np.diag(np.linalg.inv(design.T @ design)) * variance)
        count = 2 if wanted else 1
        speed = 0.0 if wanted else float(solution[2] + solution[0] * t[-1] / 2)
        return cls(
            tuple(float(x) for x in solution[:count]),
            tuple(float(x) for x in errors_of[:count]),
            float(turns[best]) if wanted else None,
            speed,
            left,
        )


def _check(fit: _Fit, t: NDArray, s: NDArray, line: Line, sigma: float) -> None:
    size, span = max(abs(a) for a in fit.a), float(t[-1] - t[0])
    if size * span**2 / 8 < 8 * max(sigma, 0.1) or size < 4 * max(fit.sigmas):
        raise Unmeasurable("the object moves at constant velocity along a straight line: there is no acceleration to measure")
    residual = float(np.sqrt((fit.left**2).mean()))
    if residual > 0.01 * line.extent and residual > 2.5 * sigma:
        raise Unmeasurable(
            f"the object moves along a straight line, but not with one constant acceleration (the fit misses by "
            f"{residual / line.extent:.1%} of the path, as an eased animation or a hand would)"
        )
    if fit.turn is None:
        halves = [np.polyfit(t[h], s[h], 2)[0] * 2 for h in np.array_split(np.arange(len(t)), 2)]
        chance = math.sqrt(720 / (len(t) / 2)) * max(sigma, residual) / (span / 2) ** 2
        if abs(halves[0] - halves[1]) > max(0.35 * size, 5 * chance):
            raise Unmeasurable(
                f"the object moves along a straight line, but its acceleration changes from {halves[0]:.0f} to "
                f"{halves[1]:.0f} px/s^2 (an eased animation or a hand would do that)"
            )
    elif fit.a[0] * fit.a[1] < 0 and min(map(abs, fit.a)) > max(0.1 * size, 3 * min(fit.sigmas)):
        raise Unmeasurable("the object stops and moves on as nothing on a ramp does: its acceleration changes sign at rest")


def _phase(fit: _Fit, t: NDArray) -> str:
    if len(fit.a) == 1:
        v0 = fit.speed - fit.a[0] * t[-1] / 2
        ahead, back = max(v0, v0 + fit.a[0] * t[-1]), min(v0, v0 + fit.a[0] * t[-1])
        if ahead > 0.2 * -back and -back > 0.2 * ahead:
            return "up and down"
        return "down" if ahead > -back else "up"
    small = [abs(a) < 0.05 * max(abs(x) for x in fit.a) or abs(a) < 3 * e for a, e in zip(fit.a, fit.sigmas, strict=True)]
    if small[1]:
        return "stops"
    return "starts" if small[0] else "up and down"


def _friction(
    fit: _Fit, phase: str, scale: Scale | None, angle: Angle, timing_error: float, parts: float
) -> tuple[float, dict[str, float], float, str]:
    """Return m, its budget, a / (g sin alpha), and why m cannot be told (empty if it can)."""
    alpha = math.radians(angle.degrees)
    nothing: tuple[float, dict[str, float], float] = (math.nan, {}, math.nan)
    both = phase == "up and down" and len(fit.a) == 2
    if scale is None and not both:
        return *nothing, "there is no scale (give metres_per_pixel or object_size), and it does not both rise and fall"
    if phase == "up and down" and angle.degrees < 1:
        return *nothing, "it turns back on a level surface, which friction does not do; give the ramp's angle"
    metres = 1.0 if scale is None else scale.metres_per_pixel

    def value(a: tuple[float, ...], tilt: float, unit: float) -> float:
        if both:
            return math.tan(tilt) * (a[0] - a[1]) / (a[0] + a[1])
        down = a[1] if phase == "starts" else a[0]
        uphill = phase == "up" or (phase == "stops" and a[0] > 0 and angle.degrees >= 1)
        along = down * unit / (GRAVITY[0] * math.cos(tilt))
        return along - math.tan(tilt) if uphill else math.tan(tilt) - along

    m = value(fit.a, alpha, metres)
    tracking = [
        value(tuple(a + e * (i == j) for j, a in enumerate(fit.a)), alpha, metres) - m for i, e in enumerate(fit.sigmas)
    ]
    unit = 0.0 if both or scale is None else value(fit.a, alpha, metres * (1 + scale.relative_error)) - m
    timing = 0.0 if both else value(fit.a, alpha, metres * (1 + 2 * timing_error)) - m
    tilted = value(fit.a, alpha + math.radians(angle.error), metres) - m
    budget = {"tracking": math.hypot(*tracking), "scale": abs(unit), "timing": abs(timing), "angle": abs(tilted)}
    budget["parts"] = 0.0 if both else abs(value(tuple(a * (1 + parts) for a in fit.a), alpha, metres) - m)
    steep = GRAVITY[0] * math.sin(alpha)
    rolling = math.nan if scale is None or angle.degrees < 1 else max(fit.a, key=abs) * metres / steep
    if both and scale is not None:
        rolling = (fit.a[0] + fit.a[1]) / 2 * metres / steep
    return m, budget, rolling, ""


def _parts(fit: _Fit, t: NDArray, s: NDArray) -> float:
    """Return the relative standard error of the acceleration from its spread over the halves of a single phase."""
    if fit.turn is not None or len(t) < 16:
        return 0.0
    halves = [np.polyfit(t[h], s[h], 2)[0] * 2 for h in np.array_split(np.arange(len(t)), 2)]
    return float(abs(halves[0] - halves[1]) / 4 / abs(fit.a[0]))


def _quantile(level: float) -> float:
    from scipy.stats import norm

    return float(norm.ppf((1 + level) / 2))
