"""Where a track stops being one smooth motion: jumps of position or velocity between two frames, found and dated.

Around every gap between two frames, up to ``reach`` frames on either side are fitted per coordinate by a common cubic plus a
step in position and a step in velocity at the gap. The two steps are tested against the noise left by the fit (and not below
the track's own third-difference noise). A smooth motion, even a fast swing, needs no steps; a bounce, a hand letting go, a cut,
a dropped frame or a change of frame timing does. Flights are the stretches between breaks; laws of constant acceleration are
fitted inside them only.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

LEAST = 4
"""Fewest frames on either side of a gap for it to be tested."""


@dataclass(frozen=True)
class Break:
    """A jump between frames ``frame`` and ``frame + 1``.

    Attributes:
        frame: the last frame before it.
        shift: jump of position (x, y) [px].
        kick: jump of velocity (x, y) [px/s].
        strength: root of the chi-square of the four jumps per degree of freedom: how many standard errors large.
    """

    frame: int
    shift: tuple[float, float]
    kick: tuple[float, float]
    strength: float

    @property
    def sentence(self) -> str:
        """Return the break in words."""
        return (
            f"between frames {self.frame} and {self.frame + 1} the position jumps by ({self.shift[0]:+.1f}, "
            f"{self.shift[1]:+.1f}) px and the velocity by ({self.kick[0]:+.0f}, {self.kick[1]:+.0f}) px/s, "
            f"{self.strength:.0f} standard errors"
        )


def jump_strength(
    positions: NDArray[np.float64], times: NDArray[np.float64], sigma: float, reach: int = 8
) -> list[Break | None]:
    """Return the fitted jump at every gap k -> k+1, or None where fewer than four frames stand on either side.

    Args:
        positions: (T, 2) [px], NaN where unknown. times: (T,) [s]. sigma: noise of one coordinate [px], a lower bound.
    """
    return [_jump(positions, times, sigma, reach, k) for k in range(len(times) - 1)]


def find_breaks(
    positions: NDArray[np.float64], times: NDArray[np.float64], sigma: float, reach: int = 8, least: float = 5.0
) -> list[Break]:
    """Return the breaks stronger than ``least`` standard errors, the strongest first, none within four frames of another."""
    jumps = sorted((j for j in jump_strength(positions, times, sigma, reach) if j is not None), key=lambda j: -j.strength)
    chosen: list[Break] = []
    for jump in jumps:
        if jump.strength >= least and all(abs(jump.frame - other.frame) >= LEAST for other in chosen):
            chosen.append(jump)
    return chosen


def flights(positions: NDArray[np.float64], breaks: list[Break], longest_gap: int = 3) -> list[NDArray[np.int64]]:
    """Return the frames of each stretch between breaks (and between gaps longer than ``longest_gap`` frames), in order of
    time."""
    seen = np.flatnonzero(np.isfinite(positions[:, 0]))
    if not len(seen):
        return []
    part = np.searchsorted(np.sort([b.frame for b in breaks]), seen, side="left")
    cuts = 1 + np.flatnonzero((np.diff(seen) > longest_gap) | (np.diff(part) > 0))
    return [stretch for stretch in np.split(seen, cuts) if len(stretch)]


def eased(positions: NDArray[np.float64], times: NDArray[np.float64], sigma: float, breaks: list[Break]) -> str:
    """Return, in words, where a motion of one constant acceleration goes over into one of the opposite, without any jump.

    That is what an animation eased in and out does; a bounce jumps in velocity, and a hand does not push just as hard as
    gravity pulls. Empty if there is no such place.
    """
    stretches = [s for s in flights(positions, breaks) if len(s) >= 2 * LEAST]
    for one, two in pairwise(stretches):
        if two[0] - one[-1] > 3 * LEAST:
            continue
        middle = 0.5 * (times[one[-1]] + times[two[0]])
        (p, v, a), (q, w, b) = (_state(positions[s], times[s] - middle) for s in (one, two))
        extent = float(np.linalg.norm(np.ptp(positions[np.concatenate([one, two])], axis=0)))
        smooth = np.linalg.norm(w - v) < 0.15 * max(np.linalg.norm(v), np.linalg.norm(w))
        joined = np.linalg.norm(q - p) < max(0.02 * extent, 4 * sigma)
        sizes = float(np.linalg.norm(a)), float(np.linalg.norm(b))
        if smooth and joined and a @ b < -0.8 * sizes[0] * sizes[1] and 0.5 < sizes[0] / max(sizes[1], 1e-12) < 2:
            return (
                f"at frame {int(one[-1])} its acceleration turns from ({a[0]:.0f}, {a[1]:.0f}) to ({b[0]:.0f}, {b[1]:.0f}) "
                "px/s^2 without any jump, as an animation eased in and out does"
            )
    return ""


def _state(positions: NDArray, t: NDArray) -> NDArray[np.float64]:
    """Return position, velocity and acceleration at t = 0 of the parabola through the positions, (3, 2)."""
    design = np.stack([np.ones_like(t), t, t**2 / 2], axis=1)
    return np.linalg.lstsq(design, positions, rcond=None)[0]


def _jump(positions: NDArray, times: NDArray, sigma: float, reach: int, k: int) -> Break | None:
    window = np.arange(max(0, k - reach + 1), min(len(times), k + reach + 1))
    window = window[np.isfinite(positions[window, 0])]
    if (window <= k).sum() < LEAST or (window > k).sum() < LEAST:
        return None
    middle, span = 0.5 * (times[k] + times[k + 1]), times[window[-1]] - times[window[0]]
    t = (times[window] - middle) / span
    after = (window > k).astype(np.float64)
    design = np.stack([np.ones_like(t), t, t**2, t**3, after, after * t], axis=1)
    inverse = np.linalg.inv(design.T @ design)
    solution = inverse @ design.T @ positions[window]
    left = positions[window] - design @ solution
    noise = max(sigma, 0.05, float(np.sqrt((left**2).sum() / (2 * max(1, len(window) - 6)))))
    jumps = solution[4:]
    chi2 = np.trace(jumps.T @ np.linalg.inv(inverse[4:, 4:]) @ jumps) / noise**2
    shift, kick = jumps[0], jumps[1] / span
    return Break(k, (float(shift[0]), float(shift[1])), (float(kick[0]), float(kick[1])), float(np.sqrt(chi2 / 4)))


def local_residuals(positions: NDArray[np.float64], reach: int = 6) -> NDArray[np.float64]:
    """Return, per frame, how far its second difference is from that of its neighbours, (T, 2) [px]; NaN where unknown.

    ``x_{k+1} - 2 x_k + x_{k-1}`` minus the median of the same over the frames 2 to ``reach`` away: what constant acceleration
    leaves at one place. It shows a single displaced frame, a dropped frame and a kick, each in the frame where it happened.
    """
    second = np.full_like(positions, np.nan)
    second[1:-1] = positions[2:] - 2 * positions[1:-1] + positions[:-2]
    residual = np.full_like(positions, np.nan)
    for k in np.flatnonzero(np.isfinite(second[:, 0])):
        near = np.arange(max(0, int(k) - reach), min(len(second), int(k) + reach + 1))
        near = near[(np.abs(near - k) >= 2) & np.isfinite(second[near, 0])]
        if len(near) >= 4:
            residual[k] = second[k] - np.median(second[near], axis=0)
    return residual
