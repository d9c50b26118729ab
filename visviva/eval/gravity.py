"""Gravity from a real clip: one free flight, a scale, and an interval that says where its width comes from.

The flight (`visviva.eval.flight`) is fitted in metres by gravity, drag and a rolling shutter (`visviva.eval.ballistics`).

Budget (standard errors relative to g, added in quadrature; the interval is +-1.96 of the sum at 95 %):
``scale`` as given or as measured; ``tracking`` noise with drag, shutter and roll known; ``drag and roll``, then ``rolling
shutter``, what not knowing them adds; ``timing``, twice the relative error of the frame clock; ``depth``, motion towards the
camera by the change of apparent width; ``pitch``, a camera nodding by up to 6 degrees; ``windows``, the standard deviation of g
over the first, middle and last half of the flight. Windows are printed, also fitted by a plain parabola, so that their
disagreement is seen. The budget is ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visviva.errors import InputError
from visviva.eval.ballistics import BallisticFit, half_error, halves_of, parabola
from visviva.eval.budget import half_width
from visviva.eval.flight import LARGEST_DRIFT, Flight, row_times
from visviva.eval.track import Track, Unmeasurable

PITCH = (1 - math.cos(math.radians(6))) / math.sqrt(3)
"""Standard error of the camera's pitch on g: uniform up to 6 degrees, cos 6 = 0.9945."""


@dataclass(frozen=True)
class Scale:
    """Metres per pixel at the object's depth, with its relative standard error and where it comes from."""

    metres_per_pixel: float
    relative_error: float
    source: str


@dataclass(frozen=True)
class Window:
    """Gravity from a part of the flight: frames first..last, with the flight's drag and shutter, and by a plain parabola
    [m/s^2]."""

    first: int
    last: int
    gravity: float
    plain: float


@dataclass(frozen=True)
class Gravity:
    """g [m/s^2] with its interval and error budget.

    Attributes:
        value, low, high: estimate and interval at ``level``. half_width: (high - low) / (2 value).
        budget: part -> standard error relative to g.
        drag: k and its standard error [1/m]. roll: g_x / g_y. readout: r and its standard error.
        plain: g of one parabola without drag over the whole flight [m/s^2].
        windows: first, middle and last half. scale: the scale used. flight: the flight in pixels.
        residual: root mean square distance from the drag fit [px]. fitted: (n, 2) fitted positions of the flight's frames [px].
    """

    value: float
    low: float
    high: float
    level: float
    budget: dict[str, float]
    drag: tuple[float, float]
    roll: float
    readout: tuple[float, float]
    plain: float
    windows: list[Window]
    scale: Scale
    flight: Flight
    residual: float
    fitted: NDArray[np.float64] = field(repr=False)

    @property
    def half_width(self) -> float:
        """Return the half-width of the interval relative to the estimate."""
        return (self.high - self.low) / (2 * self.value)

    @property
    def sentence(self) -> str:
        """Return the result in words, with the largest parts of its uncertainty and the disagreement between windows."""
        parts = sorted(self.budget.items(), key=lambda item: -item[1])[:2]
        largest = " and ".join(f"{name} ({error:.1%})" for name, error in parts)
        windows = ", ".join(f"{w.gravity:.2f}" for w in self.windows)
        plain = ", ".join(f"{w.plain:.2f}" for w in self.windows)
        outside = "" if self.low <= 9.81 <= self.high else " Standard gravity lies outside: check the scale and the time scale."
        return (
            f"g = {self.value:.2f} m/s^2, {self.level:.0%} interval {self.low:.2f} to {self.high:.2f} "
            f"(+-{self.half_width:.1%}); most of it comes from {largest}. The first, middle and last half of the flight give "
            f"{windows}; by plain parabolas {plain}.{outside}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary."""
        return {
            "gravity": self.value,
            "low": self.low,
            "high": self.high,
            "level": self.level,
            "unit": "m/s^2",
            "half_width_relative": self.half_width,
            "budget_relative_standard_errors": self.budget,
            "drag_per_metre": {"value": self.drag[0], "sigma": self.drag[1]},
            "roll": self.roll,
            "readout_share_of_frame_time": {"value": self.readout[0], "sigma": self.readout[1], "drag": "fitted"},
            "plain_parabola": self.plain,
            "windows": [w.__dict__ for w in self.windows],
            "scale": self.scale.__dict__,
            "frames": [int(self.flight.frames[0]), int(self.flight.frames[-1])],
            "fit_residual_px": self.residual,
            "sentence": self.sentence,
        }


def scale_from_object(track: Track, frames: NDArray[np.int64], size: float, relative_error: float = 0.015) -> Scale:
    """Return the scale from an object of known width (a ball's diameter) [m].

    Its apparent width is the median over the frames; its error joins the frame scatter, the softness of the edge (uniform
    between the 25 % and the 50 % contour) and the tolerance of the object itself (``relative_error``; a tennis ball is
    6.54-6.86 cm).
    """
    if not size > 0:
        raise InputError(f"the object's size must be a positive number of metres, not {size}")
    width, softness = float(np.nanmedian(track.width[frames])), float(np.nanmedian(track.softness[frames]))
    scatter = 1.4826 * float(np.nanmedian(np.abs(track.width[frames] - width))) * math.sqrt(math.pi / 2 / len(frames))
    error = math.hypot(scatter, softness / math.sqrt(3)) / width
    source = f"an object of {size:g} m, {width:.1f} px wide (edge +-{softness:.1f} px)"
    return Scale(size / width, math.hypot(error, relative_error), source)


def measure_gravity(
    track: Track, flight: Flight, scale: Scale, timing_error: float = 0.005, level: float = 0.95, steepest: float = 20.0
) -> Gravity:
    """Measure g from a flight (module docstring).

    Args:
        scale: metres per pixel at the object's depth.
        timing_error: relative standard error of the frame clock; 0.5 % covers frame rates printed to three digits.
        steepest: angle [deg] from the image's down direction beyond which the acceleration cannot be gravity alone.

    Errors: `Unmeasurable` if the acceleration does not point down.

    Example::

        flight = measure_flight(track)
        result = measure_gravity(track, flight, Scale(1 / 591.4, 0.03, "given"))
        result.low < 9.81 < result.high
    """
    _check_downwards(flight, steepest)
    t = track.times[flight.frames] - track.times[flight.frames].mean()
    p = track.positions[flight.frames] * scale.metres_per_pixel
    sigma = track.sigma * scale.metres_per_pixel
    fit = BallisticFit.of(t, p, sigma, row_times(track, flight.frames), drag=True)
    windows = _windows(flight.frames, t, p, fit)
    spread = _spread(windows, fit, track.sigma, scale)
    budget = _budget(track, flight, fit, scale, timing_error) | {"windows": spread / fit.acceleration[1]}
    g = fit.acceleration[1]
    wide = half_width(budget.values(), level) * g
    return Gravity(
        g,
        g - wide,
        g + wide,
        level,
        budget,
        (fit.drag, fit.drag_sigma),
        fit.acceleration[0] / g,
        (fit.readout, fit.readout_sigma),
        float(parabola(t, p)[0][1]),
        windows,
        scale,
        flight,
        fit.residual / scale.metres_per_pixel,
        (p - fit.residuals) / scale.metres_per_pixel,
    )


def _check_downwards(flight: Flight, steepest: float) -> None:
    ax, ay = flight.acceleration
    angle = math.degrees(math.atan2(abs(ax), ay))
    if angle > steepest:
        raise Unmeasurable(
            f"the acceleration points {angle:.0f} degrees away from down in the image, so it is not gravity alone"
        )


def _windows(frames: NDArray[np.int64], t: NDArray, p: NDArray, fit: BallisticFit) -> list[Window]:
    """Measure the first, middle and last half of a flight at times t [s] and places p [m]."""
    windows = []
    for half in halves_of(len(t)):
        held = float(parabola(fit.times[half], p[half] + fit.drag * fit.basis[half])[0][1])
        plain = float(parabola(t[half], p[half])[0][1])
        windows.append(Window(int(frames[half][0]), int(frames[half][-1]), held, plain))
    return windows


def _spread(windows: list[Window], fit: BallisticFit, sigma: float, scale: Scale) -> float:
    """Return the standard deviation of g between windows [m/s^2]; refuse one that noise does not explain."""
    spread = float(np.std([w.gravity for w in windows], ddof=1))
    if spread > LARGEST_DRIFT * fit.acceleration[1] and spread > 4 * half_error(fit.times, sigma) * scale.metres_per_pixel:
        parts = ", ".join(f"{w.gravity:.1f}" for w in windows)
        raise Unmeasurable(
            f"even with drag and a rolling shutter allowed for, the parts of the flight disagree on g ({parts} m/s^2 over the "
            "first, middle and last half), so no value is given (motion in depth or uneven frame times would do that)"
        )
    return spread


def _budget(track: Track, flight: Flight, fit: BallisticFit, scale: Scale, timing_error: float) -> dict[str, float]:
    """Return all parts but the windows, relative to g (module docstring)."""
    g = fit.acceleration[1]
    return {
        "scale": scale.relative_error,
        "tracking": fit.sigmas[0] / g,
        "drag and roll": math.sqrt(max(fit.sigmas[1] ** 2 - fit.sigmas[0] ** 2, 0)) / g,
        "rolling shutter": math.sqrt(max(fit.sigmas[2] ** 2 - fit.sigmas[1] ** 2, 0)) / g,
        "timing": 2 * timing_error,
        "depth": _depth(track, flight),
        "pitch": PITCH,
    }


def _depth(track: Track, flight: Flight) -> float:
    """Return the standard error from motion towards the camera: 2 s v / a, s the relative growth of the width per second."""
    t, width = track.times[flight.frames], track.width[flight.frames]
    known = np.isfinite(width)
    s = t[known] - t[known].mean()
    growth = float((s * np.log(width[known])).sum() / (s**2).sum())
    speed = abs(track.positions[flight.frames[-1], 1] - track.positions[flight.frames[0], 1]) / (t[-1] - t[0])
    return 2 * abs(growth) * speed / abs(flight.acceleration[1])
