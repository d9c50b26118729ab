"""Gravity from a real clip: one free flight, a scale, and an interval that says where its width comes from.

Model, in metres with y down, for the longest flight between breaks (`visviva.eval.breaks`):

    x(s) = c0 + v0 s + g s^2 / 2 - k D(s),     D(s) = double integral of |v| v,     s = t + r (row - middle) / rows * frame time

g = (g_x, g_y). The drag constant k [1/m] is rho C_d A / (2 m) of the object (about 0.13 for a table-tennis ball, 0.02 for a
tennis ball). r is the readout of a rolling shutter as a share of the frame time: rows lower in the image are exposed later,
which makes a falling object's acceleration seem to grow by 3 r v per image height. Rows run along the long side of the sensor,
so in a portrait clip the readout runs along x, in an unknown direction. D and s are computed from the fit and updated, so every
step is linear least squares. What the clip cannot tell is given a stated prior instead of being ignored: k normal about 0 with
standard deviation 0.15 1/m, not negative; r about 0 with 0.5, within 0..1 (-1..1 in portrait); g_x, the camera's roll, zero
within 3 degrees. The noise that enters is the residual's standard deviation times the root of its integrated autocorrelation
time, because the residuals of a real track are smooth (lens, edges in the background), not independent.

Budget (standard errors relative to g, added in quadrature; the interval is +-1.96 of the sum at 95 %):
``scale`` as given or as measured; ``tracking`` noise with k, r and g_x known; ``drag and roll``, then ``rolling shutter``, what
not knowing them adds; ``timing``, twice the relative error of the frame clock; ``depth``, motion towards the camera by the
change of apparent width; ``pitch``, a camera nodding by up to 6 degrees; ``windows``, the standard deviation of g over the
first, middle and last half of the flight. Windows are printed, also fitted by a plain parabola, so that their disagreement is
seen.

The laboratory method (fit of a thrown ball with drag) is textbook; the budget and the priors are ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visviva.errors import InputError
from visviva.eval.breaks import Break, find_breaks, flights, local_residuals
from visviva.eval.track import Track, Unmeasurable

LEAST_FRAMES = 8
LARGEST_DRIFT = 0.1
"""Largest standard deviation of the acceleration between parts of a flight, relative to it, that still counts as constant."""
DRAG_PRIOR = 0.15
"""Standard deviation of the drag constant's prior [1/m]."""
ROLL_PRIOR = math.sin(math.radians(3))
"""Standard deviation of the camera's roll, as g_x / g_y."""
READOUT_PRIOR = 0.5
"""Standard deviation of the rolling shutter's readout, as a share of the frame time."""
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
class Flight:
    """One constant-acceleration flight in pixels, whether or not there is a scale.

    Attributes:
        frames: the frames of the flight. acceleration: (ax, ay) [px/s^2] of one parabola seen through a rolling shutter; sigma:
            its standard error with autocorrelated residuals [px/s^2]; readout: of the shutter, as a share of the frame time.
        halves: (ax, ay) of the first, middle and last half of the flight [px/s^2]; spread: their standard deviation.
        fitted, residuals: (n, 2) [px]; residual: root mean square distance [px]; extent: diagonal of the path's box [px];
            ratio.
        breaks: where the track is not one smooth motion. displaced: frames left out because they alone stand off the path.
        others: the other flights of the clip, as (first, last, ay [px/s^2]); listed, not pooled.
        local: per clip frame, second difference against its neighbours, (T, 2) [px].
    """

    frames: NDArray[np.int64]
    acceleration: tuple[float, float]
    sigma: tuple[float, float]
    readout: float
    halves: NDArray[np.float64]
    spread: tuple[float, float]
    fitted: NDArray[np.float64]
    residuals: NDArray[np.float64]
    residual: float
    extent: float
    ratio: float
    breaks: list[Break]
    displaced: list[int]
    others: list[tuple[int, int, float]]
    local: NDArray[np.float64]

    @property
    def drift(self) -> float:
        """Return the standard deviation of the acceleration between parts of the flight, relative to the acceleration."""
        return float(np.linalg.norm(self.spread) / np.linalg.norm(self.acceleration))

    @property
    def drifting(self) -> bool:
        """Whether the acceleration changes too much along the flight to count as one."""
        return self.drift > LARGEST_DRIFT

    @property
    def sentence(self) -> str:
        """Return in words whether one constant acceleration explains the flight."""
        (ax, ay), (first, last) = self.acceleration, self.frames[[0, -1]]
        parts = ", ".join(f"{h[1]:.0f}" for h in self.halves)
        flight = f"the flight over frames {first} to {last}"
        if self.drifting:
            return (
                f"{flight} is not one constant acceleration: its vertical acceleration is {parts} px/s^2 over the first, "
                f"middle and last half (drag, motion in depth, or uneven frame times would do that)"
            )
        return (
            f"{flight} is one constant acceleration of ({ax:.0f}, {ay:.0f}) px/s^2 to {self.drift:.1%} between its parts "
            f"({parts} px/s^2 vertically over the first, middle and last half); a parabola fits its path to {self.ratio:.2%} "
            "of its extent"
        )


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
            "readout_share_of_frame_time": {"value": self.readout[0], "sigma": self.readout[1]},
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


def measure_flight(track: Track, longest_ratio: float = 0.015) -> Flight:
    """Find the longest flight and check that one constant acceleration explains it.

    Errors: `Unmeasurable`, in one sentence, if the flight is too short, too straight, or not of constant acceleration.
    """
    breaks = find_breaks(track.positions, track.times, track.sigma)
    stretches = flights(track.positions, breaks)
    frames = max(stretches, key=len)
    if len(frames) < LEAST_FRAMES:
        raise Unmeasurable(
            f"the longest undisturbed stretch of motion has {len(frames)} frames; measuring an acceleration takes at least "
            f"{LEAST_FRAMES}"
        )
    frames, displaced = _without_displaced(track, frames)
    t, p = track.times[frames] - track.times[frames].mean(), track.positions[frames]
    fit = _Fit.of(t, p, track.sigma, _row_times(track, frames), drag=False)
    whole, residual = np.array(fit.acceleration), float(np.sqrt((fit.residuals**2).sum(1).mean()))
    extent = float(np.linalg.norm(p.max(0) - p.min(0)))
    halves = np.array([_parabola(fit.times[h], p[h])[0] for h in _halves(len(frames))])
    size, span = float(np.linalg.norm(whole)), float(t[-1] - t[0])
    if extent < 10 * track.sigma or size * span**2 / 8 < 8 * max(track.sigma, 0.1):
        raise Unmeasurable("the path is too short or too straight: its curvature is not larger than the tracking noise")
    if residual > longest_ratio * extent:
        raise Unmeasurable(
            f"the object does not move with one constant acceleration: a parabola misses its path by {residual / extent:.1%} of "
            f"its extent, more than the {longest_ratio:.1%} of a free flight (a swing, a bounce, a roll or a hand would do that)"
        )
    worst = float(np.linalg.norm(halves - whole, axis=1).max())
    if worst > 0.5 * size:
        raise Unmeasurable(
            f"the object does not move with one constant acceleration: it changes by {worst / size:.0%} between parts of the "
            "path (a swing, a bounce, a roll or a hand would do that)"
        )
    others = [
        (int(f[0]), int(f[-1]), float(_parabola(track.times[f], track.positions[f])[0][1]))
        for f in stretches
        if len(f) >= LEAST_FRAMES and f[0] not in frames and f[-1] not in frames
    ]
    return Flight(
        frames,
        fit.acceleration,
        fit.sigma,
        fit.readout,
        halves,
        tuple(halves.std(0, ddof=1).tolist()),
        p - fit.residuals,
        fit.residuals,
        residual,
        extent,
        residual / extent,
        breaks,
        displaced,
        others,
        local_residuals(track.positions),
    )


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
    ax, ay = flight.acceleration
    angle = math.degrees(math.atan2(abs(ax), ay))
    if angle > steepest:
        raise Unmeasurable(
            f"the acceleration points {angle:.0f} degrees away from down in the image, so it is not gravity alone"
        )
    t = track.times[flight.frames] - track.times[flight.frames].mean()
    p = track.positions[flight.frames] * scale.metres_per_pixel
    fit = _Fit.of(t, p, track.sigma * scale.metres_per_pixel, _row_times(track, flight.frames), drag=True)
    windows = []
    for half in _halves(len(t)):
        held = float(_parabola(fit.times[half], p[half] + fit.drag * fit.basis[half])[0][1])
        plain = float(_parabola(t[half], p[half])[0][1])
        windows.append(Window(int(flight.frames[half][0]), int(flight.frames[half][-1]), held, plain))
    g, spread = fit.acceleration[1], float(np.std([w.gravity for w in windows], ddof=1))
    if spread > LARGEST_DRIFT * g:
        parts = ", ".join(f"{w.gravity:.1f}" for w in windows)
        raise Unmeasurable(
            f"even with drag and a rolling shutter allowed for, the parts of the flight disagree on g ({parts} m/s^2 over the "
            "first, middle and last half), so no value is given (motion in depth or uneven frame times would do that)"
        )
    budget = {
        "scale": scale.relative_error,
        "tracking": fit.sigmas[0] / g,
        "drag and roll": math.sqrt(max(fit.sigmas[1] ** 2 - fit.sigmas[0] ** 2, 0)) / g,
        "rolling shutter": math.sqrt(max(fit.sigmas[2] ** 2 - fit.sigmas[1] ** 2, 0)) / g,
        "timing": 2 * timing_error,
        "depth": _depth(track, flight),
        "pitch": PITCH,
        "windows": spread / g,
    }
    half_width = _quantile(level) * math.sqrt(sum(e**2 for e in budget.values())) * g
    return Gravity(
        g,
        g - half_width,
        g + half_width,
        level,
        budget,
        (fit.drag, fit.drag_sigma),
        fit.acceleration[0] / g,
        (fit.readout, fit.readout_sigma),
        float(_parabola(t, p)[0][1]),
        windows,
        scale,
        flight,
        float(np.sqrt((fit.residuals**2).sum(1).mean())) / scale.metres_per_pixel,
        (p - fit.residuals) / scale.metres_per_pixel,
    )


def _row_times(track: Track, frames: NDArray[np.int64]) -> tuple[NDArray[np.float64], float]:
    """Return when each position is exposed for a readout of one frame time [s], (n,), and the least readout (-1 in portrait,
    else 0)."""
    width, height = track.size
    along, size = (1, height) if width >= height else (0, width)
    frame_time = float(np.median(np.diff(track.times)))
    return frame_time * (track.positions[frames, along] / size - 0.5), 0.0 if width >= height else -1.0


@dataclass(frozen=True)
class _Fit:
    """c0, v0, g per axis, drag k and readout r of one flight, with priors; units of the given positions.

    ``sigmas``: standard error of g_y with k, r and roll known; with r known; with none known. ``times``: exposure times s about
    their mean. ``basis``: D(s).
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

    @classmethod
    def of(cls, t: NDArray, p: NDArray, noise: float, rows: tuple[NDArray, float], drag: bool, iterations: int = 20) -> _Fit:
        row_times, least = rows
        solution = np.zeros(8)
        solution[:6] = np.linalg.lstsq(_base(t), p.T.reshape(-1), rcond=None)[0]
        variance, n = noise**2, len(t)
        for _ in range(iterations):
            s = t + solution[7] * row_times
            basis = _drag_basis(s, solution)
            design = np.zeros((2 * n, 8))
            design[:, :6] = _base(s)
            design[:, 6] = -basis.T.reshape(-1)
            velocity = np.stack([solution[3 * a + 1] + solution[3 * a + 2] * s for a in range(2)])
            design[:, 7] = (velocity * row_times).reshape(-1)
            target = p.T.reshape(-1) + design[:, 7] * solution[7]
            prior = np.zeros(8)
            if drag:
                prior[2] = variance / (ROLL_PRIOR * max(abs(solution[5]), 1e-9)) ** 2
            prior[6], prior[7] = variance / DRAG_PRIOR**2, variance / READOUT_PRIOR**2
            solution = _bounded(design, target, prior, least, drag)
            residuals = (target - design @ solution).reshape(2, n).T
            spread = float((residuals**2).sum()) / max(2 * n - 8, 1)
            variance = max(spread, noise**2) * _autocorrelation(residuals)
        information = (design.T @ design + np.diag(prior)) / variance
        groups = [[3, 4, 5], [0, 1, 2, 3, 4, 5, 6], list(range(8))] if drag else [[3, 4, 5], [3, 4, 5], [0, 1, 2, 3, 4, 5, 7]]
        known, shutter, full = (np.linalg.inv(information[np.ix_(g, g)]) for g in groups)
        sigmas = [math.sqrt(c[groups[i].index(5)][groups[i].index(5)]) for i, c in enumerate((known, shutter, full))]
        return cls(
            (float(solution[2]), float(solution[5])),
            (math.sqrt(full[2, 2]), sigmas[2]),
            (sigmas[0], sigmas[1], sigmas[2]),
            float(solution[6]),
            math.sqrt(full[6, 6]) if drag else 0.0,
            float(solution[7]),
            math.sqrt(full[-1, -1]),
            s,
            basis,
            residuals,
        )


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


def _parabola(t: NDArray, p: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the plain least-squares acceleration (ax, ay) and the residuals (n, 2)."""
    s = t - t.mean()
    design = np.stack([np.ones_like(s), s, s**2 / 2], axis=1)
    solution = np.linalg.lstsq(design, p, rcond=None)[0]
    return solution[2], p - design @ solution


def _halves(n: int) -> list[NDArray[np.int64]]:
    """Return the indices of the first, middle and last half of n samples (at least five samples each)."""
    half = max(5, (n + 1) // 2)
    return [np.arange(start, start + half) for start in (0, (n - half) // 2, n - half)]


def _without_displaced(track: Track, frames: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[int]]:
    """Leave out frames that alone stand off their neighbours' parabola by more than six standard errors; at most a tenth of
    them."""
    kept, displaced = frames, []
    for _ in range(len(frames) // 10):
        off = np.zeros(len(kept))
        for i in range(len(kept)):
            near = np.array([j for j in range(max(0, i - 5), min(len(kept), i + 6)) if j != i])
            t = track.times[kept] - track.times[kept[i]]
            design = np.stack([np.ones(len(near)), t[near], t[near] ** 2], axis=1)
            at = np.linalg.lstsq(design, track.positions[kept[near]], rcond=None)[0][0]
            unit = math.sqrt(1 + np.linalg.inv(design.T @ design)[0, 0])
            off[i] = np.linalg.norm(track.positions[kept[i]] - at) / unit / math.sqrt(2)
        floor = max(track.sigma, 1.4826 * float(np.median(off)), 0.1)
        worst = int(np.argmax(off))
        if off[worst] < 6 * floor:
            break
        displaced.append(int(kept[worst]))
        kept = np.delete(kept, worst)
    return kept, sorted(displaced)


def _autocorrelation(residuals: NDArray) -> float:
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


def _depth(track: Track, flight: Flight) -> float:
    """Return the standard error from motion towards the camera: 2 s v / a, s the relative growth of the width per second."""
    t, width = track.times[flight.frames], track.width[flight.frames]
    known = np.isfinite(width)
    s = t[known] - t[known].mean()
    growth = float((s * np.log(width[known])).sum() / (s**2).sum())
    speed = abs(track.positions[flight.frames[-1], 1] - track.positions[flight.frames[0], 1]) / (t[-1] - t[0])
    return 2 * abs(growth) * speed / abs(flight.acceleration[1])


def _quantile(level: float) -> float:
    from scipy.stats import norm

    return float(norm.ppf((1 + level) / 2))
