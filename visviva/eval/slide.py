"""Acceleration along the straight line of `visviva.eval.ramp`: one, or two that meet where the speed is zero."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visviva.eval.ballistics import correlation_time
from visviva.eval.track import Unmeasurable


@dataclass(frozen=True)
class SlideFit:
    """One or two accelerations along a line.

    Attributes:
        times, way: seconds since the first frame and place along the line [px], (n,).
        a, sigmas: accelerations and their standard errors [px/s^2]. turn: time of zero speed between two [s]; None for one.
        speed: of a single one, half way in time [px/s]. left: residuals (n,) [px].
    """

    times: NDArray[np.float64]
    way: NDArray[np.float64]
    a: tuple[float, ...]
    sigmas: tuple[float, ...]
    turn: float | None
    speed: float
    left: NDArray[np.float64]

    @classmethod
    def of(cls, times: NDArray, way: NDArray, sigma: float) -> SlideFit:
        """Fit both models and keep the one that the data want."""
        t = times - times[0]
        one = np.stack([t**2 / 2, np.ones_like(t), t], axis=1)
        turn, two = _best_turn(t, way)
        turns = _better(one, two, way, sigma)
        solution, errors, left = _solved(two if turns else one, way, sigma)
        count = 2 if turns else 1
        return cls(
            t,
            way,
            tuple(float(x) for x in solution[:count]),
            tuple(float(x) for x in errors[:count]),
            turn if turns else None,
            0.0 if turns else float(solution[2] + solution[0] * t[-1] / 2),
            left,
        )

    @property
    def residual(self) -> float:
        """Return the root mean square residual [px]."""
        return float(np.sqrt((self.left**2).mean()))

    @property
    def phase(self) -> str:
        """Return the motion in words: ``down``, ``up``, ``up and down``, ``stops`` or ``starts``."""
        if len(self.a) == 1:
            return self._heading()
        largest = max(abs(a) for a in self.a)
        small = [abs(a) < 0.05 * largest or abs(a) < 3 * e for a, e in zip(self.a, self.sigmas, strict=True)]
        if small[1]:
            return "stops"
        return "starts" if small[0] else "up and down"

    def _heading(self) -> str:
        gained = self.a[0] * self.times[-1]
        first = self.speed - gained / 2
        ahead, back = max(first, first + gained), min(first, first + gained)
        if ahead > 0.2 * -back and -back > 0.2 * ahead:
            return "up and down"
        return "down" if ahead > -back else "up"

    @property
    def halves(self) -> tuple[float, float]:
        """Return the accelerations of the first and the second half [px/s^2]."""
        first, second = (
            np.polyfit(self.times[h], self.way[h], 2)[0] * 2 for h in np.array_split(np.arange(len(self.times)), 2)
        )
        return first, second

    @property
    def unsteady(self) -> float:
        """Return the relative standard error of the acceleration from its spread over the halves of a single phase."""
        if self.turn is not None or len(self.times) < 16:
            return 0.0
        first, second = self.halves
        return float(abs(first - second) / 4 / abs(self.a[0]))

    def check(self, extent: float, sigma: float) -> None:
        """Refuse motion without acceleration, or with one that is not constant.

        Errors: `Unmeasurable`, in one sentence.
        """
        size, span = max(abs(a) for a in self.a), float(self.times[-1])
        if size * span**2 / 8 < 8 * max(sigma, 0.1) or size < 4 * max(self.sigmas):
            raise Unmeasurable(
                "the object moves at constant velocity along a straight line: there is no acceleration to measure"
            )
        if self.residual > 0.01 * extent and self.residual > 2.5 * sigma:
            raise Unmeasurable(
                f"the object moves along a straight line, but not with one constant acceleration (the fit misses by "
                f"{self.residual / extent:.1%} of the path, as an eased animation or a hand would)"
            )
        if self.turn is None:
            self._check_halves(size, span, sigma)
        elif self.a[0] * self.a[1] < 0 and min(map(abs, self.a)) > max(0.1 * size, 3 * min(self.sigmas)):
            raise Unmeasurable("the object stops and moves on as nothing on a ramp does: its acceleration changes sign at rest")

    def _check_halves(self, size: float, span: float, sigma: float) -> None:
        first, second = self.halves
        chance = math.sqrt(720 / (len(self.times) / 2)) * max(sigma, self.residual) / (span / 2) ** 2
        if abs(first - second) > max(0.35 * size, 5 * chance):
            raise Unmeasurable(
                f"the object moves along a straight line, but its acceleration changes from {first:.0f} to "
                f"{second:.0f} px/s^2 (an eased animation or a hand would do that)"
            )


def _best_turn(t: NDArray, way: NDArray) -> tuple[float, NDArray]:
    """Return the time of zero speed that fits best, of four per frame, and the design of two accelerations that meet there."""
    turns = np.linspace(t[2], t[-3], 4 * len(t))
    designs = [np.stack([np.minimum(t - x, 0) ** 2 / 2, np.maximum(t - x, 0) ** 2 / 2, np.ones_like(t)], axis=1) for x in turns]
    best = int(np.argmin([_squares(design, way) for design in designs]))
    return float(turns[best]), designs[best]


def _better(one: NDArray, two: NDArray, way: NDArray, sigma: float) -> bool:
    """Return whether the data want two accelerations: a difference of BIC above 10."""
    n, floor = len(way), len(way) * sigma**2
    gain = n * math.log(max(_squares(one, way), floor) / max(_squares(two, way), floor)) - math.log(n)
    return gain > 10


def _squares(design: NDArray, way: NDArray) -> float:
    return float(((way - design @ np.linalg.lstsq(design, way, rcond=None)[0]) ** 2).sum())


def _solved(design: NDArray, way: NDArray, sigma: float) -> tuple[NDArray, NDArray, NDArray]:
    """Return the solution, its standard errors with autocorrelated residuals, and the residuals."""
    solution = np.linalg.lstsq(design, way, rcond=None)[0]
    left = way - design @ solution
    variance = max(float((left**2).sum()) / max(len(way) - 4, 1), sigma**2) * correlation_time(left[:, None])
    return solution, np.sqrt(np.diag(np.linalg.inv(design.T @ design)) * variance), left
