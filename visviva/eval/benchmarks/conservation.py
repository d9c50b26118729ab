"""Conservation scores after Morpheus (arXiv 2504.02918): does a tracked object follow its law, and keep what it must.

**A reconstruction.** Morpheus names a dynamical score, a physical invariance score and a discard rate without publishing
formulas; its values must not be compared with ours, and ours are not "the Morpheus score". Ours need no reference clip:

- *discarded*, with the reason, if the object is found in fewer than 60 % of the frames from its first sighting on, if its area
  varies by more than 50 %, if a second object of similar area stands beside it in more than 20 % of the frames, or if its path
  extends over less than 5 % of the image height: frozen, vanishing and doubled objects are not scored but counted;
- *dynamical*: R^2 in [0, 1] of the governing law. Free flight: one constant acceleration per axis, 0 for an object that does
  not fall (it drifts along a line, or upwards). Pendulum: theta'' = -k sin(theta) - b theta' about a fitted circle's pivot,
  local polynomials for derivatives, 0 where nothing restores (k <= 0);
- *invariance*: mean over invariants I of exp(-2 sd(I) / scale). Free flight: horizontal velocity, where the path is not just
  vertical (scale: root mean square speed), and energy per mass v^2/2 + g h with the fitted g (scale: standard deviation of
  v^2/2, that is what exchanges). Pendulum: radius (scale: its mean times the swing) and energy, the fitted damping's losses
  added back (scale: as in flight).

Both are unchanged by image scale, translation and playback speed. Higher is better.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from visviva.errors import InputError

VERSION = "1"
KINDS = ("free_flight", "pendulum")
FLIGHTS = ("free_flight", "free_fall", "horizontal_throw", "parabolic_throw", "falling", "projectile")
"""Words for free flight that rows of data sets use."""
LEAST = 8
"""Frames with the object that the scores need; gaps between them are neither filled nor counted."""


@dataclass(frozen=True)
class Conservation:
    """The scores of one track; ``discarded`` says why there are none, and is empty otherwise.

    Attributes:
        dynamical: R^2 of the governing law; invariance: mean of ``invariants``, each in [0, 1].
        extent: diagonal of the path's bounding box over the image height, the motion amount.
        used: frames used, of ``asked``.
    """

    dynamical: float = math.nan
    invariance: float = math.nan
    invariants: dict[str, float] = field(default_factory=dict)
    discarded: str = ""
    extent: float = 0.0
    used: int = 0
    asked: int = 0


def conservation(
    kind: str,
    positions: NDArray[np.float64],
    times: NDArray[np.float64],
    height: float,
    *,
    areas: NDArray[np.float64] | None = None,
    doubled: NDArray[np.bool_] | None = None,
) -> Conservation:
    """Score a track.

    Args:
        kind: ``free_flight`` or ``pendulum``.
        positions: centroids (x, y) [px], y down, (T, 2); NaN where the object was not found.
        times: (T,) [s]; height: of the image [px].
        areas: the object's area (T,), NaN where not found; doubled: frames with a second object of similar area.

    Example::

        conservation("free_flight", track.positions, track.times, 720).invariance
    """
    if kind not in KINDS:
        raise InputError(f"no experiment {kind!r}; there are {', '.join(KINDS)}")
    if len(positions) != len(times):
        raise InputError(f"{len(positions)} positions but {len(times)} times; give one time per frame")
    seen: NDArray[np.bool_] = np.isfinite(positions).all(axis=1)  # type: ignore[assignment]
    extent = float(np.linalg.norm(np.ptp(positions[seen], axis=0)) / height) if seen.any() else 0.0
    reason = discarded(seen, extent, areas, doubled)
    if not reason and seen.sum() < LEAST:
        reason = f"the object is seen in {seen.sum()} frames only; {LEAST} are needed"
    if reason:
        return Conservation(discarded=reason, extent=extent, asked=len(seen))
    path, clock = positions[seen] / height, (times[seen] - times[0]) / (times[-1] - times[0])
    law, invariants = (flight if kind == "free_flight" else pendulum)(path, clock)
    return Conservation(law, float(np.mean(list(invariants.values()))), invariants, "", extent, int(seen.sum()), len(seen))


def discarded(seen: NDArray[np.bool_], extent: float, areas: NDArray | None = None, doubled: NDArray | None = None) -> str:
    """Return why a track cannot be scored; empty if it can."""
    if not seen.any():
        return "no object is found"
    share = seen[int(np.argmax(seen)) :].mean()
    if share < 0.6:
        return f"the object is found in {share:.0%} of the frames after it appears"
    known = np.array([]) if areas is None else areas[np.isfinite(areas)]
    if len(known) and known.std() > 0.5 * known.mean():
        return f"the object's area varies by {known.std() / known.mean():.0%}"
    if doubled is not None and doubled.mean() > 0.2:
        return f"a second object of similar size stands in {doubled.mean():.0%} of the frames"
    if extent < 0.05:
        return f"the object stays still: its path extends over {extent:.1%} of the image height"
    return ""


def flight(path: NDArray, times: NDArray) -> tuple[float, dict[str, float]]:
    """Return R^2 of a constant acceleration and the invariants of free flight."""
    design = np.stack([np.ones_like(times), times, times**2 / 2], axis=1)
    fitted, *_ = np.linalg.lstsq(design, path, rcond=None)
    velocity = derivative(path, times, 1, len(path) / 3, 3)
    kinetic = (velocity**2).sum(1) / 2
    gravity = fitted[2, 1]
    width, length = np.ptp(path[:, 0]), float(np.linalg.norm(np.ptp(path, axis=0)))
    falls = gravity * (times[-1] - times[0]) ** 2 / 8 > 0.02 * length  # by the path's bend, against its length
    energy = kinetic - gravity * path[:, 1]  # y points down: height is -y
    invariants = {"energy": kept(energy, kinetic.std()) if falls else 0.0}
    if width > 0.1 * length:
        invariants["horizontal velocity"] = kept(velocity[:, 0], math.sqrt(2 * kinetic.mean()))
    return (r_squared(path, design @ fitted) if falls else 0.0), invariants


def pendulum(path: NDArray, times: NDArray) -> tuple[float, dict[str, float]]:
    """Return R^2 of a damped pendulum and its invariants."""
    pivot = circle(path)
    arm = path - pivot
    radius = np.linalg.norm(arm, axis=1)
    angle = np.unwrap(np.arctan2(arm[:, 0], arm[:, 1]))  # 0: hanging down
    third = 2 * len(angle) / crossings(angle - angle.mean()) / 3  # of a period
    rate, bend = (derivative(angle, times, order, third, 5) for order in (1, 2))
    design = np.stack([-np.sin(angle), -rate], axis=1)
    (stiffness, damping), *_ = np.linalg.lstsq(design, bend, rcond=None)
    kinetic = rate**2 / 2
    lost = np.concatenate([[0.0], np.cumsum((rate[1:] ** 2 + rate[:-1] ** 2) / 2 * np.diff(times))]) * damping
    energy = kinetic + stiffness * (1 - np.cos(angle)) + lost
    swing = radius.mean() * max(float(np.ptp(angle)), 1e-12)
    swings = stiffness > 0
    invariants = {"radius": kept(radius, swing), "energy": kept(energy, kinetic.std()) if swings else 0.0}
    return (r_squared(bend, design @ [stiffness, damping]) if swings else 0.0), invariants


def derivative(values: NDArray, times: NDArray, order: int, reach: float, degree: int) -> NDArray:
    """Return a derivative by Savitzky-Golay: at each time that of the polynomial through the nearest ``reach`` values.

    Times may have gaps; windows at the ends are one-sided.
    """
    count = len(times)
    window = min(count, int(max(degree + 2, reach)) // 2 * 2 + 1)
    start = np.clip(np.arange(count) - window // 2, 0, count - window)
    near = start[:, None] + np.arange(window)
    scale = (times[-1] - times[0]) * window / count
    powers = ((times[near] - times[:, None]) / scale)[..., None] ** np.arange(degree + 1)
    weights = np.linalg.pinv(powers)[:, order] * math.factorial(order) / scale**order
    return np.einsum("tw,tw...->t...", weights, values[near])


def crossings(angle: NDArray) -> int:
    """Return how often a swing passes its middle, at least 1; trembling near the middle does not count."""
    clear = angle[np.abs(angle) > 0.5 * angle.std()]
    return max(1, int((np.diff(np.sign(clear)) != 0).sum()))


def circle(path: NDArray) -> NDArray:
    """Return the centre of the circle nearest to the points: algebraic fit, then Gauss-Newton on the distances."""
    middle = path.mean(0)
    x = path - middle
    size = np.abs(x).max()
    x = x / size
    design = np.concatenate([2 * x, np.ones((len(x), 1))], axis=1)
    found, *_ = np.linalg.lstsq(design, (x**2).sum(1), rcond=None)
    centre, radius = found[:2], math.sqrt(max(found[2] + found[:2] @ found[:2], 1e-12))
    for _ in range(20):
        arm = x - centre
        distance = np.linalg.norm(arm, axis=1)
        slope = np.concatenate([-arm / distance[:, None], -np.ones((len(x), 1))], axis=1)
        step, *_ = np.linalg.lstsq(slope, radius - distance, rcond=None)
        centre, radius = centre + step[:2], radius + step[2]
    return centre * size + middle


def kept(values: NDArray, scale: float) -> float:
    """Return ``exp(-2 sd / scale)``: 1 for a quantity that stays as it is; 0 where there is no scale to compare with."""
    return math.exp(-2 * float(values.std()) / scale) if scale > 0 else 0.0


def r_squared(values: NDArray, fitted: NDArray) -> float:
    """Return the share of the variance that a fit explains, in [0, 1]."""
    total = float(((values - values.mean(0)) ** 2).sum())
    return max(0.0, 1 - float(((values - fitted) ** 2).sum()) / total) if total > 0 else 0.0
