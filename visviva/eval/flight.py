"""The longest undisturbed flight of a tracked object, and whether one constant acceleration explains it; in pixels.

A flight is a stretch of the track without breaks (`visviva.eval.breaks`). It is fitted by one parabola seen through a rolling
shutter (`visviva.eval.ballistics`, without drag, which needs a scale); a clip that does not fit is refused with the reason.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visviva.eval.ballistics import BallisticFit, half_error, halves_of, parabola
from visviva.eval.breaks import Break, eased, find_breaks, flights, local_residuals
from visviva.eval.track import Track, Unmeasurable

LEAST_FRAMES = 8
LARGEST_DRIFT = 0.1
"""Largest standard deviation of the acceleration between parts of a flight, relative to it, that still counts as constant."""


@dataclass(frozen=True)
class Flight:
    """One constant-acceleration flight in pixels, whether or not there is a scale.

    Attributes:
        frames: the frames of the flight. acceleration: (ax, ay) [px/s^2] of one parabola seen through a rolling shutter; sigma:
            its standard error with autocorrelated residuals [px/s^2]; readout: of the shutter, as a share of the frame time,
            and its standard error, by this fit without drag.
        halves: (ax, ay) of the first, middle and last half of the flight [px/s^2]; spread: their standard deviation; chance:
            the standard error that tracking noise alone gives each of them.
        fitted, residuals: (n, 2) [px]; residual: root mean square distance [px]; extent: diagonal of the path's box [px];
            ratio.
        breaks: where the track is not one smooth motion. displaced: frames left out because they alone stand off the path.
        others: the other flights of the clip, as (first, last, ay [px/s^2]); listed, not pooled.
        local: per clip frame, second difference against its neighbours, (T, 2) [px].
    """

    frames: NDArray[np.int64]
    acceleration: tuple[float, float]
    sigma: tuple[float, float]
    readout: tuple[float, float]
    halves: NDArray[np.float64]
    spread: tuple[float, float]
    chance: float
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
        """Whether the acceleration changes along the flight by too much to count as one, and by more than tracking noise."""
        return self.drift > LARGEST_DRIFT and float(np.linalg.norm(self.spread)) > 4 * self.chance

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
        known = f"to {self.drift:.1%} between its parts"
        if self.drift > LARGEST_DRIFT:
            known = f"as far as tracking noise lets it be known, to {self.drift:.0%}"
        return (
            f"{flight} is one constant acceleration of ({ax:.0f}, {ay:.0f}) px/s^2 {known} ({parts} px/s^2 vertically over the "
            f"first, middle and last half); a parabola fits its path to {self.ratio:.2%} of its extent"
        )

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary."""
        local = np.linalg.norm(self.local, axis=1)
        noise = 1.4826 * float(np.nanmedian(local)) if np.isfinite(local).any() else math.nan
        return {
            "first_frame": int(self.frames[0]),
            "last_frame": int(self.frames[-1]),
            "acceleration": {"value": self.acceleration, "sigma": self.sigma, "unit": "px/s^2"},
            "halves": self.halves.tolist(),
            "spread": self.spread,
            "readout_share_of_frame_time": {"value": self.readout[0], "sigma": self.readout[1], "drag": "left out"},
            "residual_px": self.residual,
            "extent_px": self.extent,
            "residual_ratio": self.ratio,
            "constant": not self.drifting,
            "displaced_frames": self.displaced,
            "breaks": [
                {
                    "frames": [b.frame, b.frame + 1],
                    "shift_px": b.shift,
                    "kick_px_per_s": b.kick,
                    "standard_errors": b.strength,
                    "sentence": b.sentence,
                }
                for b in self.breaks
            ],
            "other_flights": [{"first_frame": a, "last_frame": b, "vertical_acceleration": c} for a, b, c in self.others],
            "frames_with_local_residual": [int(k) for k in np.flatnonzero(np.nan_to_num(local) > 6 * noise)],
            "local_residual_px": [round(float(x), 3) if math.isfinite(x) else None for x in local],
        }


def measure_flight(track: Track, longest_ratio: float = 0.015) -> Flight:
    """Find the longest flight and check that one constant acceleration explains it.

    Errors: `Unmeasurable`, in one sentence, if the flight is too short, too straight, or not of constant acceleration.
    """
    breaks = find_breaks(track.positions, track.times, track.sigma)
    stretches = flights(track.positions, breaks)
    frames, displaced = _without_displaced(track, _longest(stretches))
    t, p = track.times[frames] - track.times[frames].mean(), track.positions[frames]
    fit = BallisticFit.of(t, p, track.sigma, row_times(track, frames), drag=False)
    extent = float(np.linalg.norm(p.max(0) - p.min(0)))
    halves = np.array([parabola(fit.times[h], p[h])[0] for h in halves_of(len(frames))])
    chance = half_error(fit.times, track.sigma)
    _check_curved(fit, float(t[-1] - t[0]), extent, track.sigma)
    _check_fits(fit, extent, track.sigma, longest_ratio)
    _check_steady(fit, halves, chance)
    turned = eased(track.positions, track.times, track.sigma, breaks)
    if turned:
        raise Unmeasurable(f"the object does not fall freely: {turned}")
    return Flight(
        frames,
        fit.acceleration,
        fit.sigma,
        (fit.readout, fit.readout_sigma),
        halves,
        tuple(halves.std(0, ddof=1).tolist()),
        chance,
        p - fit.residuals,
        fit.residuals,
        fit.residual,
        extent,
        fit.residual / extent,
        breaks,
        displaced,
        _others(track, stretches, frames),
        local_residuals(track.positions),
    )


def _longest(stretches: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    frames = max(stretches, key=len)
    if len(frames) < LEAST_FRAMES:
        raise Unmeasurable(
            f"the longest undisturbed stretch of motion has {len(frames)} frames; measuring an acceleration takes at least "
            f"{LEAST_FRAMES}"
        )
    return frames


def _check_curved(fit: BallisticFit, span: float, extent: float, sigma: float) -> None:
    if extent < 10 * sigma or fit.size * span**2 / 8 < 8 * max(sigma, 0.1):
        raise Unmeasurable("the path is too short or too straight: its curvature is not larger than the tracking noise")


def _check_fits(fit: BallisticFit, extent: float, sigma: float, longest_ratio: float) -> None:
    if fit.residual > longest_ratio * extent and fit.residual > 2.5 * math.sqrt(2) * sigma:
        raise Unmeasurable(
            f"the object does not move with one constant acceleration: a parabola misses its path by "
            f"{fit.residual / extent:.1%} of its extent, more than the {longest_ratio:.1%} of a free flight "
            "(a swing, a bounce, a roll or a hand would do that)"
        )


def _check_steady(fit: BallisticFit, halves: NDArray[np.float64], chance: float) -> None:
    worst = float(np.linalg.norm(halves - np.array(fit.acceleration), axis=1).max())
    if worst > 0.5 * fit.size and worst > 4 * chance:
        raise Unmeasurable(
            f"the object does not move with one constant acceleration: it changes by {worst / fit.size:.0%} between parts of "
            "the path (a swing, a bounce, a roll or a hand would do that)"
        )


def _others(track: Track, stretches: list[NDArray[np.int64]], frames: NDArray[np.int64]) -> list[tuple[int, int, float]]:
    """Return the other flights of the clip: first and last frame, and vertical acceleration by a plain parabola."""
    return [
        (int(f[0]), int(f[-1]), float(parabola(track.times[f], track.positions[f])[0][1]))
        for f in stretches
        if len(f) >= LEAST_FRAMES and f[0] not in frames and f[-1] not in frames
    ]


def row_times(track: Track, frames: NDArray[np.int64]) -> tuple[NDArray[np.float64], float]:
    """Return when each position is exposed for a readout of one frame time [s], (n,), and the least readout.

    The least readout is 0, in portrait -1: there the rows run along x, in an unknown direction.
    """
    width, height = track.size
    along, size = (1, height) if width >= height else (0, width)
    frame_time = float(np.median(np.diff(track.times)))
    return frame_time * (track.positions[frames, along] / size - 0.5), 0.0 if width >= height else -1.0


def _without_displaced(track: Track, frames: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[int]]:
    """Leave out frames that alone stand off their neighbours' parabola by six standard errors; at most a tenth, and twelve."""
    kept, displaced = frames, []
    for _ in range(min(len(frames) // 10, 12)):
        off = np.array([_off(track, kept, i) for i in range(len(kept))])
        floor = max(track.sigma, 1.4826 * float(np.median(off)), 0.1)
        worst = int(np.argmax(off))
        if off[worst] < 6 * floor:
            break
        displaced.append(int(kept[worst]))
        kept = np.delete(kept, worst)
    return kept, sorted(displaced)


def _off(track: Track, kept: NDArray[np.int64], i: int) -> float:
    """Return how far a frame is from the parabola through up to five neighbours on either side, in noise of one coordinate."""
    near = np.array([j for j in range(max(0, i - 5), min(len(kept), i + 6)) if j != i])
    t = track.times[kept] - track.times[kept[i]]
    design = np.stack([np.ones(len(near)), t[near], t[near] ** 2], axis=1)
    at = np.linalg.lstsq(design, track.positions[kept[near]], rcond=None)[0][0]
    unit = math.sqrt(1 + np.linalg.inv(design.T @ design)[0, 0])
    return float(np.linalg.norm(track.positions[kept[i]] - at)) / unit / math.sqrt(2)
