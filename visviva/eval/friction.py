"""The friction coefficient of a slide, and how well it is known: formulas and budget of `visviva.eval.ramp`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from visviva.eval.gravity import Scale
from visviva.eval.line import LEVEL, Line
from visviva.eval.pendulum import GRAVITY
from visviva.eval.slide import SlideFit

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

    @classmethod
    def seen(cls, line: Line) -> Angle:
        """Return the path's inclination in the image; zero for a path that is nearly level."""
        seen = f"{line.inclination:.1f} degrees"
        if line.inclination < LEVEL:
            return cls(0.0, LEVEL_ERROR, f"on a surface taken to be level ({seen} in the image)")
        return cls(line.inclination, UNKNOWN_ANGLE, f"at {seen} as seen in the image, if the camera was level")

    @property
    def level(self) -> bool:
        """Whether the surface is level."""
        return self.degrees < 1


@dataclass(frozen=True)
class Friction:
    """The friction coefficient m of a slide.

    Attributes:
        value: m; NaN where ``reason`` says why it cannot be told. budget: part -> absolute standard error of m.
        rolling: a / (g sin alpha); NaN on a level surface or without a scale.
    """

    value: float = math.nan
    budget: dict[str, float] = field(default_factory=dict)
    rolling: float = math.nan
    reason: str = ""

    @classmethod
    def of(cls, fit: SlideFit, scale: Scale | None, angle: Angle, timing_error: float) -> Friction:
        """Return m as far as scale and angle let it be told."""
        both = _rises_and_falls(fit.phase, fit.a)
        if scale is None and not both:
            return cls(reason="there is no scale (give metres_per_pixel or object_size), and it does not both rise and fall")
        if fit.phase == "up and down" and angle.level:
            return cls(reason="it turns back on a level surface, which friction does not do; give the ramp's angle")
        coefficient = partial(_coefficient, fit.phase, angle.level)
        alpha, metres = math.radians(angle.degrees), 1.0 if scale is None else scale.metres_per_pixel
        budget = _budget(coefficient, fit, (alpha, math.radians(angle.error)), (metres, _unsure(scale)), timing_error)
        rolling = math.nan if scale is None or angle.level else _rolling(fit, alpha, metres)
        return cls(coefficient(fit.a, alpha, metres), budget, rolling)


def _rises_and_falls(phase: str, a: tuple[float, ...]) -> bool:
    return phase == "up and down" and len(a) == 2


def _coefficient(phase: str, level: bool, a: tuple[float, ...], tilt: float, metres: float) -> float:
    """Return m by the formula of the phase; tilt [rad]."""
    if _rises_and_falls(phase, a):
        return math.tan(tilt) * (a[0] - a[1]) / (a[0] + a[1])
    down = a[1] if phase == "starts" else a[0]
    uphill = phase == "up" or (phase == "stops" and a[0] > 0 and not level)
    along = down * metres / (GRAVITY[0] * math.cos(tilt))
    return along - math.tan(tilt) if uphill else math.tan(tilt) - along


def _budget(
    m: Callable[[tuple[float, ...], float, float], float],
    fit: SlideFit,
    tilt: tuple[float, float],
    scale: tuple[float, float],
    timing_error: float,
) -> dict[str, float]:
    """Return how far m moves with each of its parts; tilt [rad] with its error, metres per pixel with its relative error."""
    a, (alpha, off), (metres, unsure) = fit.a, tilt, scale
    best = m(a, alpha, metres)
    tracking = [m(tuple(x + e * (i == j) for j, x in enumerate(a)), alpha, metres) - best for i, e in enumerate(fit.sigmas)]
    free = _rises_and_falls(fit.phase, a)  # of scale and clock, as only the ratio of two accelerations counts
    return {
        "tracking": math.hypot(*tracking),
        "scale": 0.0 if free else abs(m(a, alpha, metres * (1 + unsure)) - best),
        "timing": 0.0 if free else abs(m(a, alpha, metres * (1 + 2 * timing_error)) - best),
        "angle": abs(m(a, alpha + off, metres) - best),
        "parts": 0.0 if free else abs(m(tuple(x * (1 + fit.unsteady) for x in a), alpha, metres) - best),
    }


def _unsure(scale: Scale | None) -> float:
    return 0.0 if scale is None else scale.relative_error


def _rolling(fit: SlideFit, alpha: float, metres: float) -> float:
    """Return a / (g sin alpha), of the mean of both accelerations where it rises and falls."""
    steep = GRAVITY[0] * math.sin(alpha)
    if _rises_and_falls(fit.phase, fit.a):
        return (fit.a[0] + fit.a[1]) / 2 * metres / steep
    return max(fit.a, key=abs) * metres / steep
