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

from visviva.eval.ballistics import ROLL_PRIOR, correlation_time
from visviva.eval.breaks import Break, find_breaks, flights
from visviva.eval.track import Track, Unmeasurable

GRAVITY = (9.806, 0.015)
"""Gravity on the ground and its standard error where the place is not known [m/s^2]."""
SHORTENED = 0.1
"""Standard deviation of the logarithm of the foreshortening."""
MOST_ARCS = 6
MOST_FRAMES = 900
"""Frames of one arc that enter the fit."""
LARGEST_MISFIT = 0.02
"""Largest residual of a pendulum, relative to the extent of its path."""
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
    from scipy.stats import norm

    breaks = find_breaks(track.positions, track.times, track.sigma)
    arcs = _arcs(track, breaks)
    whole = _Fit.of(track, arcs)
    frames = np.concatenate(arcs)
    p = track.positions[frames]
    extent = float(np.linalg.norm(np.ptp(p, axis=0)))
    residual = float(np.sqrt((whole.residuals**2).sum(1).mean()))
    if residual > LARGEST_MISFIT * extent and residual > 2.5 * math.sqrt(2) * track.sigma:
        raise Unmeasurable(
            f"the object does not swing as a pendulum does: the model misses its path by {residual / extent:.1%} of its "
            f"extent, more than {LARGEST_MISFIT:.0%}"
        )
    budget = {
        "tracking": 2 * whole.sigma,
        "timing": 2 * timing_error,
        "gravity": GRAVITY[1] / GRAVITY[0],
        "parts": _spread(track, arcs, whole),
    }
    z = float(norm.ppf((1 + level) / 2))
    wide = z * math.sqrt(sum(e**2 for e in budget.values()))
    period, length = 2 * math.pi / whole.rate, GRAVITY[0] / whole.rate**2
    if not wide < WIDEST:
        raise Unmeasurable(
            f"the object may be a pendulum, but its period is known to +-{wide / 2:.0%} only; film more of a swing, or a "
            "larger one"
        )
    of_period = z * math.sqrt(budget["tracking"] ** 2 + budget["timing"] ** 2 + budget["parts"] ** 2) / 2
    spans = sum(float(track.times[a[-1]] - track.times[a[0]]) for a in arcs)
    return Pendulum(
        period,
        period * (1 - of_period),
        period * (1 + of_period),
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
        residual,
        extent,
        breaks,
    )


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


def _spread(track: Track, arcs: list[NDArray[np.int64]], whole: _Fit) -> float:
    """Return the standard error of L from two parts of the swing: the arcs in turn, or the halves of a single one.

    Parts that cannot be fitted by themselves say nothing, and count as nothing.
    """
    if len(arcs) > 1:
        parts = [arcs[::2], arcs[1::2]]
    else:
        middle = len(arcs[0]) // 2
        parts = [[arcs[0][:middle]], [arcs[0][middle:]]]
    fits = [_Fit.of(track, part, whole) for part in parts if sum(map(len, part)) >= 12]
    fits = [f for f in fits if f.sigma < 0.1]
    if len(fits) < 2:
        return 0.0
    apart = abs(2 * math.log(fits[0].rate / fits[1].rate))
    return apart / 2


@dataclass(frozen=True)
class _Fit:
    """One least-squares pendulum: W with relative standard error, pivot, arm, damping, roll, residuals (n, 2), angles (n,)."""

    rate: float
    sigma: float
    pivot: tuple[float, float]
    arm: float
    damping: tuple[float, float]
    roll: float
    residuals: NDArray[np.float64]
    angles: NDArray[np.float64]
    solution: NDArray[np.float64]

    @classmethod
    def of(cls, track: Track, arcs: list[NDArray[np.int64]], near: _Fit | None = None) -> _Fit:
        """Fit the arcs, started from the best of a few pivots, or near an earlier fit."""
        from scipy.optimize import least_squares

        swing = _Swing(track, arcs)
        if near is None:
            starts = [swing.start(*guess) for guess in swing.pivots()]
        else:
            starts = [swing.start(near.pivot, near.arm, near.rate)]
        first, *others = sorted(starts, key=lambda s: float((swing.off(s) ** 2).sum()))
        found: Any = least_squares(swing.off, first, swing.slope, x_scale="jac", max_nfev=60)
        for start in others:
            if float(np.sqrt((swing.residuals(found.x) ** 2).sum(1).mean())) < LARGEST_MISFIT * float(np.ptp(swing.p, 0).max()):
                break
            tried = least_squares(swing.off, start, swing.slope, x_scale="jac", max_nfev=60)
            found = min(found, tried, key=lambda fit: float(fit.cost))
        left = swing.residuals(found.x)
        n = len(left)
        spread = float((left**2).sum()) / max(2 * n - len(found.x), 1) / swing.noise**2
        inflation = max(spread, 1.0) * correlation_time(left)
        information = swing.slope(found.x)
        information = information.T @ information
        covariance = np.linalg.pinv(information) * inflation
        if not (covariance[3, 3] > 0 and covariance[5, 5] > 0):
            raise Unmeasurable("the path is no swing: its arm and its rate are not determined by it")
        x = found.x
        return cls(
            math.exp(x[3]),
            math.sqrt(covariance[3, 3]),
            (float(x[0]), float(x[1])),
            math.exp(x[2]),
            (float(x[5]), math.sqrt(covariance[5, 5])),
            float(x[4]),
            left,
            swing.angles(x),
            x,
        )


class _Swing:
    """The model of `_Fit`: parameters (p_x, p_y, log l, log W, f, c, d, log s, then angle and rate at each arc's start)."""

    def __init__(self, track: Track, arcs: list[NDArray[np.int64]]) -> None:
        self.arcs, self.noise = arcs, max(track.sigma, 0.05)
        self.p = track.positions[np.concatenate(arcs)]
        self.t = [track.times[a] - track.times[a[0]] for a in arcs]
        self.h = float(np.median(np.diff(track.times))) / 2
        self.steps = math.ceil(max(t[-1] for t in self.t) / self.h) + 1
        self.diagonal = math.hypot(*track.size)

    def pivots(self) -> list[tuple[tuple[float, float], float, float | None]]:
        """Return starting points: the circle through the path, and pivots above its middle at a few distances."""
        x, y = self.p[:, 0], self.p[:, 1]
        design = np.stack([x, y, np.ones_like(x)], axis=1)
        a, b, c = np.linalg.lstsq(design, x**2 + y**2, rcond=None)[0]
        size, lowest = float(np.ptp(self.p, axis=0).max()), float(np.quantile(y, 0.9))
        guesses = [((float(np.median(x)), lowest - far * size), far * size) for far in (1.0, 3.0, 10.0)]
        radius = math.sqrt(max(c + (a / 2) ** 2 + (b / 2) ** 2, 1.0))
        if b / 2 < lowest and radius < 20 * size:
            guesses.insert(0, ((float(a / 2), float(b / 2)), radius))
        return [(pivot, arm, None) for pivot, arm in guesses]

    def start(self, pivot: tuple[float, float], arm: float, rate: float | None) -> NDArray[np.float64]:
        """Return starting parameters: for given pivot, the best frequency of small swings, arc by arc."""
        theta = np.arctan2(self.p[:, 0] - pivot[0], self.p[:, 1] - pivot[1])
        ends = np.cumsum([len(a) for a in self.arcs])[:-1]
        parts = np.split(theta, ends)
        longest = max(t[-1] for t in self.t)
        rates = np.geomspace(2 * math.pi / (8 * longest), math.pi / (4 * self.h), 500) if rate is None else [rate]
        best = min((self._harmonic(w, parts) for w in rates), key=lambda found: found[0])
        return np.array([*pivot, math.log(arm), math.log(best[1]), 0.0, 0.0, 0.0, 0.0, *best[2]])

    def _harmonic(self, w: float, parts: list[NDArray]) -> tuple[float, float, list[float]]:
        total, starts = 0.0, []
        for t, theta in zip(self.t, parts, strict=True):
            basis = np.stack([np.cos(w * t), np.sin(w * t)], axis=1)
            solution = np.linalg.solve(basis.T @ basis + 1e-6 * len(t) * np.eye(2), basis.T @ theta)
            total += float(((theta - basis @ solution) ** 2).sum())
            starts += [float(solution[0]), float(solution[1] * w)]
        return total, w, starts

    def off(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return weighted residuals and priors, (2 n + 5,)."""
        return self._off(x[None])[0]

    def slope(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the derivative of `off` by central differences, all parameters in one integration."""
        step = 1e-6 * np.maximum(1.0, np.abs(x))
        both = self._off(np.concatenate([x + np.diag(step), x - np.diag(step)]))
        return ((both[: len(x)] - both[len(x) :]) / (2 * step[:, None])).T

    def residuals(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return measured minus fitted positions (n, 2) [px]."""
        return self.p - self._positions(_bounded(x[None]))[0]

    def angles(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the fitted angles (n,) [rad]."""
        return self._angles(x[None])[0]

    def _off(self, x: NDArray) -> NDArray[np.float64]:
        x = _bounded(x)
        left = (self._positions(x) - self.p) / self.noise
        rate = np.exp(x[:, 3])
        prior = [
            x[:, 4] / ROLL_PRIOR,
            (x[:, 2] - math.log(self.diagonal)) / 2.0,
            x[:, 5] / rate,
            x[:, 6] / 3.0,
            x[:, 7] / SHORTENED,
        ]
        return np.concatenate([left.reshape(len(x), -1), np.stack(prior, axis=1)], axis=1)

    def _positions(self, x: NDArray) -> NDArray[np.float64]:
        theta, arm, short = self._angles(x), np.exp(x[:, 2])[:, None], np.exp(x[:, 7])[:, None]
        return np.stack([x[:, :1] + short * arm * np.sin(theta), x[:, 1:2] + arm * np.cos(theta)], axis=2)

    def _angles(self, x: NDArray) -> NDArray[np.float64]:
        """Return the angle in every frame, (m, n): Runge-Kutta steps of half a frame, Hermite interpolation between them."""
        squared, roll, linear, quadratic = np.exp(2 * x[:, 3:4]), x[:, 4:5], x[:, 5:6], x[:, 6:7]

        def force(a: NDArray, v: NDArray) -> NDArray:
            return -squared * np.sin(a - roll) - 2 * linear * v - quadratic * np.abs(v) * v

        a, v, h = x[:, 8::2], x[:, 9::2], self.h
        path, rates = [a], [v]
        for _ in range(self.steps):
            k1 = force(a, v)
            k2 = force(a + h / 2 * v, v + h / 2 * k1)
            k3 = force(a + h / 2 * (v + h / 2 * k1), v + h / 2 * k2)
            k4 = force(a + h * (v + h / 2 * k2), v + h * k3)
            a, v = (
                np.clip(a + h * v + h**2 / 6 * (k1 + k2 + k3), -50, 50),
                np.clip(v + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), -1e4, 1e4),
            )
            path.append(a)
            rates.append(v)
        angle, rate = np.stack(path, axis=-1), np.stack(rates, axis=-1)
        parts = []
        for n, t in enumerate(self.t):
            i = np.minimum((t / h).astype(int), self.steps - 1)
            u = t / h - i
            one, two = angle[:, n][:, i], angle[:, n][:, i + 1]
            slow, fast = rate[:, n][:, i] * h, rate[:, n][:, i + 1] * h
            parts.append(
                (1 + 2 * u) * (1 - u) ** 2 * one + u * (1 - u) ** 2 * slow + u**2 * (3 - 2 * u) * two + u**2 * (u - 1) * fast
            )
        return np.concatenate(parts, axis=1)


def _bounded(x: NDArray) -> NDArray[np.float64]:
    """Keep a search that runs away within numbers that can be integrated."""
    kept = x.copy()
    kept[:, 2], kept[:, 3], kept[:, 7] = np.clip(x[:, 2], -1, 12), np.clip(x[:, 3], -5, 7), np.clip(x[:, 7], -1, 1)
    kept[:, 5:7] = np.clip(x[:, 5:7], -50, 50)
    return kept
