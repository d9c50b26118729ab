"""The motion of a pendulum as it is seen, fitted to positions: model, priors and search of `visviva.eval.pendulum`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visviva.eval.ballistics import ROLL_PRIOR, correlation_time
from visviva.eval.track import Track, Unmeasurable

SHORTENED = 0.1
"""Standard deviation of the logarithm of the foreshortening."""
LARGEST_MISFIT = 0.02
"""Largest residual of a pendulum, relative to the extent of its path."""


@dataclass(frozen=True)
class SwingFit:
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
    def of(cls, track: Track, arcs: list[NDArray[np.int64]], near: SwingFit | None = None) -> SwingFit:
        """Fit the arcs, started from the best of a few pivots, or near an earlier fit."""
        swing = Swing(track, arcs)
        if near is None:
            starts = [swing.start(*guess) for guess in swing.pivots()]
        else:
            starts = [swing.start(near.pivot, near.arm, near.rate)]
        x = _searched(swing, starts)
        left = swing.residuals(x)
        covariance = _covariance(swing, x, left)
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

    @property
    def residual(self) -> float:
        """Return the root mean square distance from the fit [px]."""
        return _root_mean_square(self.residuals)


def _searched(swing: Swing, starts: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the parameters of the least squares, from the best start; from the others too while the fit misses the path."""
    from scipy.optimize import least_squares

    first, *others = sorted(starts, key=lambda s: float((swing.off(s) ** 2).sum()))
    found: Any = least_squares(swing.off, first, swing.slope, x_scale="jac", max_nfev=60)
    for start in others:
        if _root_mean_square(swing.residuals(found.x)) < LARGEST_MISFIT * float(np.ptp(swing.p, 0).max()):
            break
        tried = least_squares(swing.off, start, swing.slope, x_scale="jac", max_nfev=60)
        found = min(found, tried, key=lambda fit: float(fit.cost))
    return found.x


def _covariance(swing: Swing, x: NDArray[np.float64], left: NDArray[np.float64]) -> NDArray:
    """Return the covariance of the parameters with autocorrelated residuals; refuse a path that does not determine them."""
    spread = float((left**2).sum()) / max(2 * len(left) - len(x), 1) / swing.noise**2
    inflation = max(spread, 1.0) * correlation_time(left)
    slope = swing.slope(x)
    covariance = np.linalg.pinv(slope.T @ slope) * inflation
    if not (covariance[3, 3] > 0 and covariance[5, 5] > 0):
        raise Unmeasurable("the path is no swing: its arm and its rate are not determined by it")
    return covariance


def _root_mean_square(residuals: NDArray[np.float64]) -> float:
    return float(np.sqrt((residuals**2).sum(1).mean()))


class Swing:
    """The model of `SwingFit`: parameters (p_x, p_y, log l, log W, f, c, d, log s, then angle and rate at each arc's start)."""

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
        """Return the angle in every frame, (m, n), by Hermite interpolation between the steps."""
        angle, rate = self._integrated(x)
        parts = []
        for n, t in enumerate(self.t):
            i = np.minimum((t / self.h).astype(int), self.steps - 1)
            u = t / self.h - i
            one, two = angle[:, n][:, i], angle[:, n][:, i + 1]
            slow, fast = rate[:, n][:, i] * self.h, rate[:, n][:, i + 1] * self.h
            parts.append(
                (1 + 2 * u) * (1 - u) ** 2 * one + u * (1 - u) ** 2 * slow + u**2 * (3 - 2 * u) * two + u**2 * (u - 1) * fast
            )
        return np.concatenate(parts, axis=1)

    def _integrated(self, x: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return angles and rates after each step of half a frame, by Runge-Kutta, (m, arcs, steps + 1)."""
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
        return np.stack(path, axis=-1), np.stack(rates, axis=-1)


def _bounded(x: NDArray) -> NDArray[np.float64]:
    """Keep a search that runs away within numbers that can be integrated."""
    kept = x.copy()
    kept[:, 2], kept[:, 3], kept[:, 7] = np.clip(x[:, 2], -1, 12), np.clip(x[:, 3], -5, 7), np.clip(x[:, 7], -1, 1)
    kept[:, 5:7] = np.clip(x[:, 5:7], -50, 50)
    return kept
