"""The length of a pendulum from the period of its swing: large angles, damping, and arcs between strikes against something.

The object moves on a circle about a pivot, ``x = p_x + s l sin(theta), y = p_y + l cos(theta)`` (y down), by

    theta'' = -W^2 sin(theta - f) - 2 c theta' - d |theta'| theta'

with W = 2 pi / T, T the period of small swings, c linear and d quadratic damping, f the camera's roll (normal, 3 degrees), s
the foreshortening of a swing that is not parallel to the image (log s normal, 0.1). All is fitted at once by least squares to
positions, integrated by Runge-Kutta steps of half a frame, so large angles need no series. A pendulum that strikes a wall
swings freely between the strikes (`visviva.eval.breaks`): such arcs share all but their own starts.

``L = g / W^2`` with g = 9.806 +- 0.015 m/s^2 (9.78 to 9.83 on Earth's surface): the distance from the pivot to
the centre of oscillation, for a ball of radius r on a thread ``l + 2 r^2 / (5 l)``. No scale is needed; with one, the arm is
checked against it. Budget, relative to L, as standard errors in quadrature: ``tracking`` (the fit's, with autocorrelated
residuals), ``timing`` (twice the clock's), ``gravity``, ``parts`` (the spread of L between two parts of the swing). Textbook
mechanics; the budget is ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visviva.eval.breaks import Break, find_breaks, flights
from visviva.eval.budget import half_width
from visviva.eval.swing import LARGEST_MISFIT, SwingFit
from visviva.eval.track import Track, Unmeasurable

GRAVITY = (9.806, 0.015)
"""Gravity on the ground and its standard error where the place is not known [m/s^2]."""
MOST_ARCS = 6
MOST_FRAMES = 900
"""Frames of one arc that enter the fit."""
WIDEST = 0.25
"""Widest interval of the length, relative to it, that is still a measurement."""


@dataclass(frozen=True)
class Pendulum:
    """Period and length of a pendulum with intervals at ``level``.

    Attributes:
        period, period_low, period_high: of small swings [s]. length, low, high: L [m]. budget: relative to L.
        arm: distance from pivot to object in the image [px]. pivot: (x, y) [px]. amplitude: largest angle seen [rad].
        damping: c and its standard error [1/s]; negative: the swing gains energy. roll: f [rad].
        arcs: the frames of each free arc. periods: how many periods are seen, all arcs together.
        frames: all fitted frames. fitted: (n, 2) [px]. residual: root mean square distance [px]. extent: of the path [px].
        breaks: strikes and other jumps.
    """

    period: float
    period_low: float
    period_high: float
    length: float
    low: float
    high: float
    level: float
    budget: dict[str, float]
    arm: float
    pivot: tuple[float, float]
    amplitude: float
    damping: tuple[float, float]
    roll: float
    arcs: list[tuple[int, int]]
    periods: float
    frames: NDArray[np.int64] = field(repr=False)
    fitted: NDArray[np.float64] = field(repr=False)
    residual: float
    extent: float
    breaks: list[Break]

    @property
    def half_width(self) -> float:
        """Return the half-width of the length's interval relative to it."""
        return (self.high - self.low) / (2 * self.length)

    @property
    def pull(self) -> tuple[float, float]:
        """Return gravity in the image, W^2 l along the fitted down direction [px/s^2]."""
        size = (2 * math.pi / self.period) ** 2 * self.arm
        return size * math.sin(self.roll), size * math.cos(self.roll)

    @property
    def sentence(self) -> str:
        """Return the result in words."""
        largest = max(self.budget.items(), key=lambda item: item[1])
        arcs = f" in {len(self.arcs)} free arcs between strikes" if len(self.arcs) > 1 else ""
        gains = self.damping[0] < -3 * self.damping[1]
        return (
            f"A pendulum of period {self.period:.3f} s for small swings ({self.level:.0%} interval {self.period_low:.3f} to "
            f"{self.period_high:.3f}), so its length is {self.length:.3f} m ({self.low:.3f} to {self.high:.3f}, "
            f"+-{self.half_width:.1%}; most of it comes from {largest[0]}); it swings by up to "
            f"{math.degrees(self.amplitude):.0f} degrees, {self.periods:.1f} periods are seen{arcs}, and the model fits to "
            f"{self.residual / self.extent:.2%} of the path."
            + (" Its swing gains energy, as in a film that is played backwards." if gains else "")
        )

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary."""
        return {
            "period": {"value": self.period, "low": self.period_low, "high": self.period_high, "unit": "s"},
            "length": {"value": self.length, "low": self.low, "high": self.high, "unit": "m"},
            "level": self.level,
            "half_width_relative": self.half_width,
            "budget_relative_standard_errors": self.budget,
            "arm_px": self.arm,
            "pivot_px": list(self.pivot),
            "amplitude_rad": self.amplitude,
            "damping_per_second": {"value": self.damping[0], "sigma": self.damping[1]},
            "arcs": [list(arc) for arc in self.arcs],
            "periods": self.periods,
            "fit_residual_px": self.residual,
            "extent_px": self.extent,
            "sentence": self.sentence,
        }


def measure_pendulum(track: Track, timing_error: float = 0.005, level: float = 0.95) -> Pendulum:
    """Measure the period and the length of a pendulum (module docstring).

    Errors: `Unmeasurable`, in one sentence: too little of a swing, no circular swing about a pivot above, or too uncertain.

    Example::

        result = measure_pendulum(track_object(video.frames, video.timestamps))
        result.low < 0.51 < result.high
    """
    breaks = find_breaks(track.positions, track.times, track.sigma)
    arcs = _arcs(track, breaks)
    whole = SwingFit.of(track, arcs)
    frames = np.concatenate(arcs)
    p = track.positions[frames]
    extent = float(np.linalg.norm(np.ptp(p, axis=0)))
    _check_fits(whole, extent, track.sigma)
    budget = _budget(track, arcs, whole, timing_error)
    wide, wide_period = _half_widths(budget, level)
    period, length = 2 * math.pi / whole.rate, GRAVITY[0] / whole.rate**2
    spans = sum(float(track.times[a[-1]] - track.times[a[0]]) for a in arcs)
    return Pendulum(
        period,
        period * (1 - wide_period),
        period * (1 + wide_period),
        length,
        length * (1 - wide),
        length * (1 + wide),
        level,
        budget,
        whole.arm,
        whole.pivot,
        float(np.abs(whole.angles - whole.roll).max()),
        whole.damping,
        whole.roll,
        [(int(a[0]), int(a[-1])) for a in arcs],
        spans / period,
        frames,
        p - whole.residuals,
        whole.residual,
        extent,
        breaks,
    )


def _check_fits(whole: SwingFit, extent: float, sigma: float) -> None:
    if whole.residual > LARGEST_MISFIT * extent and whole.residual > 2.5 * math.sqrt(2) * sigma:
        raise Unmeasurable(
            f"the object does not swing as a pendulum does: the model misses its path by {whole.residual / extent:.1%} of its "
            f"extent, more than {LARGEST_MISFIT:.0%}"
        )


def _budget(track: Track, arcs: list[NDArray[np.int64]], whole: SwingFit, timing_error: float) -> dict[str, float]:
    """Return the parts of the length's uncertainty, relative to it (module docstring)."""
    return {
        "tracking": 2 * whole.sigma,
        "timing": 2 * timing_error,
        "gravity": GRAVITY[1] / GRAVITY[0],
        "parts": _spread(track, arcs, whole),
    }


def _half_widths(budget: dict[str, float], level: float) -> tuple[float, float]:
    """Return half the widths of the intervals of length and period, relative to them; refuse what is no measurement."""
    wide = half_width(budget.values(), level)
    if not wide < WIDEST:
        raise Unmeasurable(
            f"the object may be a pendulum, but its period is known to +-{wide / 2:.0%} only; film more of a swing, or a "
            "larger one"
        )
    return wide, half_width([budget[part] for part in ("tracking", "timing", "parts")], level) / 2


def turns(track: Track) -> int:
    """Return how often an object turns back along the longest axis of its path within its longest stretch without breaks."""
    stretch = max(flights(track.positions, find_breaks(track.positions, track.times, track.sigma)), key=len)
    p = track.positions[stretch] - track.positions[stretch].mean(0)
    along = p @ np.linalg.svd(p, full_matrices=False)[2][0]
    least, count, peak, heading = max(6 * track.sigma, 0.02 * float(np.ptp(along))), 0, along[0], 0
    for x in along:
        if heading * (x - peak) > 0 or (heading == 0 and abs(x - peak) > least):
            heading, peak = heading or int(np.sign(x - peak)), x
        elif heading and abs(x - peak) > least:
            count, heading, peak = count + 1, -heading, x
    return count


def _arcs(track: Track, breaks: list[Break]) -> list[NDArray[np.int64]]:
    """Return the frames of the widest free arcs, in order of time, less the frame next to each strike."""
    struck = {b.frame for b in breaks} | {b.frame + 1 for b in breaks}
    stretches = [np.array([k for k in s if int(k) not in struck], dtype=np.int64) for s in flights(track.positions, breaks)]
    wide = [(float(np.linalg.norm(np.ptp(track.positions[s], axis=0))), s) for s in stretches if len(s) >= 8]
    wide = [(size, s) for size, s in sorted(wide, key=lambda item: -item[0]) if size > 15 * track.sigma][:MOST_ARCS]
    kept = sorted((s[:MOST_FRAMES] for size, s in wide if size > 0.2 * wide[0][0]), key=lambda s: int(s[0]))
    if sum(map(len, kept)) < 12:
        raise Unmeasurable("there is no swing of 12 frames without a break, which a pendulum takes to be measured")
    return kept


def _spread(track: Track, arcs: list[NDArray[np.int64]], whole: SwingFit) -> float:
    """Return the standard error of L from two parts of the swing: the arcs in turn, or the halves of a single one.

    Parts that cannot be fitted by themselves say nothing, and count as nothing.
    """
    if len(arcs) > 1:
        parts = [arcs[::2], arcs[1::2]]
    else:
        middle = len(arcs[0]) // 2
        parts = [[arcs[0][:middle]], [arcs[0][middle:]]]
    fits = [SwingFit.of(track, part, whole) for part in parts if sum(map(len, part)) >= 12]
    fits = [f for f in fits if f.sigma < 0.1]
    if len(fits) < 2:
        return 0.0
    apart = abs(2 * math.log(fits[0].rate / fits[1].rate))
    return apart / 2
