"""The path of a thrown object as a camera sees it: gravity, drag, and a rolling shutter, fitted with stated priors.

    x(s) = c0 + v0 s + g s^2 / 2 - k D(s),     D(s) = double integral of |v| v,     s = t + r (row - middle) / rows * frame time

g = (g_x, g_y), y down. The drag constant k [1/length] is rho C_d A / (2 m) of the object (about 0.13 1/m for a table-tennis
ball, 0.02 1/m for a tennis ball). r is the readout of a rolling shutter as a share of the frame time: rows lower in the image
are exposed later, which makes a falling object's acceleration seem to grow by 3 r v per image height. Rows run along the long
side of the sensor, so in a portrait clip the readout runs along x, in an unknown direction. D and s are computed from the fit
and updated, so every step is linear least squares.

What a clip cannot tell is given a prior instead of being ignored: k normal about 0 with standard deviation 0.15 1/m, not
negative; r about 0 with 0.5, within 0..1 (-1..1 in portrait); g_x, the camera's roll, zero within 3 degrees. The noise that
enters is the residual's standard deviation times the root of its integrated autocorrelation time, because the residuals of a
real track are smooth (lens, edges in the background), not independent. The fit of a thrown ball with drag is textbook; the
readout term and the priors are ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAG_PRIOR = 0.15
"""Standard deviation of the drag constant's prior [1/m]."""
ROLL_PRIOR = math.sin(math.radians(3))
"""Standard deviation of the camera's roll, as g_x / g_y."""
READOUT_PRIOR = 0.5
"""Standard deviation of the rolling shutter's readout, as a share of the frame time."""


@dataclass(frozen=True)
class BallisticFit:
    """c0, v0, g per axis, drag k and readout r of one flight, with priors; lengths in the unit of the positions, and seconds.

    Attributes:
        acceleration, sigma: g and its standard errors. sigmas: of g_y with k, r and roll known; with r known; with none known.
        drag, drag_sigma: k. readout, readout_sigma: r.
        times: exposure times s about their mean, (n,). basis: D(s), (n, 2). residuals: measured minus fitted, (n, 2).
    """

    acceleration: tuple[float, float]
    sigma: tuple[float, float]
    sigmas: tuple[float, float, float]
    drag: float
    drag_sigma: float
    readout: float
    readout_sigma: float
    times: NDArray[np.float64]
    basis: NDArray[np.float64]
    residuals: NDArray[np.float64]

    @property
    def residual(self) -> float:
        """Return the root mean square distance from the fit."""
        return float(np.sqrt((self.residuals**2).sum(1).mean()))

    @property
    def size(self) -> float:
        """Return the magnitude of the acceleration."""
        return float(np.linalg.norm(self.acceleration))

    @classmethod
    def of(
        cls, t: NDArray, p: NDArray, noise: float, rows: tuple[NDArray, float], drag: bool, iterations: int = 20
    ) -> BallisticFit:
        """Fit positions p (n, 2) at frame times t (n,), which have mean zero.

        Args:
            noise: standard error of one coordinate, a lower bound of what the residual shows.
            rows: when each position is exposed for a readout of one frame time (n,), and the least readout (0 or -1).
            drag: fit k (positions in metres) and hold the camera's roll near zero; otherwise k = 0 and g_x is free.
        """
        noise = max(noise, 1e-9) if math.isfinite(noise) else 1e-9
        row_times, least = rows
        solution = np.zeros(8)
        solution[:6] = np.linalg.lstsq(_base(t), p.T.reshape(-1), rcond=None)[0]
        variance, n = noise**2, len(t)
        for _ in range(iterations):
            s = t + solution[7] * row_times
            basis = _drag_basis(s, solution)
            design = _design(s, basis, row_times, solution)
            target = p.T.reshape(-1) + design[:, 7] * solution[7]
            prior = _prior(variance, solution, drag)
            solution = _bounded(design, target, prior, least, drag)
            residuals = (target - design @ solution).reshape(2, n).T
            spread = float((residuals**2).sum()) / max(2 * n - 8, 1)
            variance = max(spread, noise**2) * correlation_time(residuals)
        sigmas, full = _errors((design.T @ design + np.diag(prior)) / variance, drag)
        return cls(
            (float(solution[2]), float(solution[5])),
            (math.sqrt(full[2, 2]), sigmas[2]),
            sigmas,
            float(solution[6]),
            math.sqrt(full[6, 6]) if drag else 0.0,
            float(solution[7]),
            math.sqrt(full[-1, -1]),
            s,
            basis,
            residuals,
        )


def _design(s: NDArray, basis: NDArray, row_times: NDArray, solution: NDArray) -> NDArray[np.float64]:
    """Return what the positions are made of, (2 n, 8): c0, v0, g per axis, drag, readout (linear about the solution)."""
    velocity = np.stack([solution[3 * a + 1] + solution[3 * a + 2] * s for a in range(2)])
    return np.column_stack([_base(s), -basis.T.reshape(-1), (velocity * row_times).reshape(-1)])


def _prior(variance: float, solution: NDArray, drag: bool) -> NDArray[np.float64]:
    """Return the weights of the priors: roll (with drag only), drag, readout."""
    prior = np.zeros(8)
    if drag:
        prior[2] = variance / (ROLL_PRIOR * max(abs(solution[5]), 1e-9)) ** 2
    prior[6], prior[7] = variance / DRAG_PRIOR**2, variance / READOUT_PRIOR**2
    return prior


def _errors(information: NDArray, drag: bool) -> tuple[tuple[float, float, float], NDArray[np.float64]]:
    """Return the standard errors of g_y with k, r and roll known, with r known, with none known, and the last covariance."""
    groups = [[3, 4, 5], [0, 1, 2, 3, 4, 5, 6], list(range(8))] if drag else [[3, 4, 5], [3, 4, 5], [0, 1, 2, 3, 4, 5, 7]]
    covariances = [np.linalg.inv(information[np.ix_(g, g)]) for g in groups]
    known, shutter, full = (math.sqrt(c[g.index(5), g.index(5)]) for g, c in zip(groups, covariances, strict=True))
    return (known, shutter, full), covariances[2]


def _base(s: NDArray) -> NDArray[np.float64]:
    axis = np.stack([np.ones_like(s), s, s**2 / 2], axis=1)
    return np.block([[axis, np.zeros_like(axis)], [np.zeros_like(axis), axis]])


def _bounded(design: NDArray, target: NDArray, prior: NDArray, least: float, drag: bool) -> NDArray[np.float64]:
    """Solve the regularised normal equations with k >= 0 (or k = 0) and least <= r <= 1, fixing what meets its bound."""
    fixed = {} if drag else {6: 0.0}
    for _ in range(3):
        free = [i for i in range(8) if i not in fixed]
        held = np.zeros(8)
        for i, value in fixed.items():
            held[i] = value
        normal = design[:, free].T @ design[:, free] + np.diag(prior[free])
        solution = held
        solution[free] = np.linalg.solve(normal, design[:, free].T @ (target - design @ held))
        if 7 not in fixed and not least <= solution[7] <= 1:
            fixed[7] = float(np.clip(solution[7], least, 1))
        elif 6 not in fixed and solution[6] < 0:
            fixed[6] = 0.0
        else:
            break
    return solution


def _drag_basis(t: NDArray, solution: NDArray, steps: int = 400) -> NDArray[np.float64]:
    """Return the double time integral of |v| v at the given times, (n, 2), for the velocity of the current fit."""
    fine = np.linspace(t[0], t[-1], steps)
    velocity = np.stack([solution[3 * a + 1] + solution[3 * a + 2] * fine for a in range(2)], axis=1)
    for _ in range(2):
        force = np.linalg.norm(velocity, axis=1)[:, None] * velocity
        lost = _integral(force, fine)
        lost -= np.array([np.interp(0.0, fine, lost[:, a]) for a in range(2)])
        velocity = np.stack([solution[3 * a + 1] + solution[3 * a + 2] * fine for a in range(2)], axis=1) - solution[6] * lost
    force = np.linalg.norm(velocity, axis=1)[:, None] * velocity
    once = _integral(force, fine)
    once -= np.array([np.interp(0.0, fine, once[:, a]) for a in range(2)])
    twice = _integral(once, fine)
    twice -= np.array([np.interp(0.0, fine, twice[:, a]) for a in range(2)])
    return np.stack([np.interp(t, fine, twice[:, a]) for a in range(2)], axis=1)


def _integral(values: NDArray, t: NDArray) -> NDArray[np.float64]:
    steps = 0.5 * (values[1:] + values[:-1]) * np.diff(t)[:, None]
    return np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(steps, axis=0)])


def parabola(t: NDArray, p: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the plain least-squares acceleration (ax, ay) and the residuals (n, 2)."""
    s = t - t.mean()
    design = np.stack([np.ones_like(s), s, s**2 / 2], axis=1)
    solution = np.linalg.lstsq(design, p, rcond=None)[0]
    return solution[2], p - design @ solution


def halves_of(n: int) -> list[NDArray[np.int64]]:
    """Return the indices of the first, middle and last half of n samples (at least five samples each)."""
    half = max(5, (n + 1) // 2)
    return [np.arange(start, start + half) for start in (0, (n - half) // 2, n - half)]


def half_error(t: NDArray, sigma: float) -> float:
    """Return the standard error that independent noise sigma gives one component of a half flight's acceleration."""
    s = t[halves_of(len(t))[0]]
    design = np.stack([np.ones_like(s), s - s.mean(), (s - s.mean()) ** 2 / 2], axis=1)
    return sigma * math.sqrt(float(np.linalg.inv(design.T @ design)[2, 2]))


def correlation_time(residuals: NDArray) -> float:
    """Return the integrated autocorrelation time of the residuals [frames], at least 1: summed until it first drops below
    zero."""
    centred = residuals - residuals.mean(0)
    power = float((centred**2).sum())
    total = 1.0
    for lag in range(1, len(centred) // 2):
        rho = float((centred[lag:] * centred[:-lag]).sum()) / power if power > 0 else 0.0
        if rho <= 0:
            break
        total += 2 * rho
    return total
