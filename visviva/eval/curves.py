"""Velocity, acceleration, energy and momentum of a tracked object over time, each with its standard error.

Around every frame the positions within ``reach`` frames on either side, not across a break, are fitted by a cubic; its value
and first two derivatives there are position, velocity and acceleration. Their standard errors are those of the fit with the
track's noise, or the fit's own residual where that is larger. Under a rolling shutter every position counts at the moment at
which its row was exposed (`visviva.eval.flight.row_times`), and what not knowing the readout leaves is added to the standard
errors: half the difference of the same fits with the readout a standard error shorter and longer. Per unit of mass: kinetic
energy ``v^2 / 2``, potential energy ``-g . x`` with the measured gravity of the clip (zero at its first frame), momentum ``v``.
Units: pixels and seconds, or metres and seconds where there is a scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visviva.eval.breaks import Break
from visviva.eval.flight import row_times
from visviva.eval.track import Track

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Curves:
    """What an object does over time; NaN where it cannot be told.

    Attributes:
        times: when each position was exposed, (T,) [s]. position, velocity, acceleration: (T, 2). sigmas: of one coordinate of
            the three, (3, T).
        kinetic, potential, energy: (T,) per mass, each (value, standard error); potential and energy NaN without gravity.
        unit: ``m`` or ``px``.
    """

    times: Array
    position: Array
    velocity: Array
    acceleration: Array
    sigmas: Array
    kinetic: tuple[Array, Array]
    potential: tuple[Array, Array]
    energy: tuple[Array, Array]
    unit: str

    @classmethod
    def of(
        cls,
        track: Track,
        breaks: list[Break],
        pull: tuple[float, float] | None = None,
        metres: float | None = None,
        readout: tuple[float, float] = (0.0, 0.0),
    ) -> Curves:
        """Smooth a track; ``pull`` is gravity in the image [px/s^2], ``metres`` a pixel's size [m], ``readout`` that of a
        rolling shutter and its standard error, as shares of the frame time.

        Example::

            curves = Curves.of(track, flight.breaks, flight.acceleration, 1 / 591.4)
            curves.energy[0].max() - curves.energy[0].min()
        """
        unit = 1.0 if metres is None else metres
        times = _exposed(track, readout[0])
        states, sigmas = _local(track, times, breaks)
        if readout[1] > 0:
            early, late = (_local(track, _exposed(track, readout[0] + s * readout[1]), breaks)[0] for s in (-1, 1))
            sigmas = np.hypot(sigmas, np.abs(late - early).max(-1) / 2)
        position, velocity, acceleration = states * unit
        sigmas = sigmas * unit
        speed = np.linalg.norm(velocity, axis=1)
        kinetic = (speed**2 / 2, speed * sigmas[1])
        down = np.full(2, np.nan) if pull is None else np.array(pull) * unit
        start = position[track.seen][0]
        potential = (-(position - start) @ down, sigmas[0] * float(np.linalg.norm(down)))
        energy = (kinetic[0] + potential[0], np.hypot(kinetic[1], potential[1]))
        return cls(
            times,
            position,
            velocity,
            acceleration,
            sigmas,
            kinetic,
            potential,
            energy,
            "px" if metres is None else "m",
        )


def reach_of(times: Array) -> int:
    """Return how many frames on either side enter a fit: about a tenth of a second, 4 to 12."""
    return int(np.clip(round(0.1 / float(np.median(np.diff(times)))), 4, 12))


def _exposed(track: Track, readout: float) -> Array:
    """Return when each position was exposed, (T,) [s]; the frame's time where there is none."""
    times = track.times.copy()
    seen = np.flatnonzero(track.seen)
    times[seen] += readout * row_times(track, seen)[0]
    return times


def _local(track: Track, times: Array, breaks: list[Break]) -> tuple[Array, Array]:
    """Return position, velocity, acceleration (3, T, 2) [px, s] and the standard errors of one coordinate (3, T)."""
    count, reach = len(track.times), reach_of(track.times)
    states, sigmas = np.full((3, count, 2), np.nan), np.full((3, count), np.nan)
    part = np.searchsorted(np.sort([b.frame for b in breaks]), np.arange(count), side="left") if breaks else np.zeros(count)
    for k in np.flatnonzero(track.seen).tolist():
        near = np.arange(max(0, k - reach), min(count, k + reach + 1))
        near = near[track.seen[near] & (part[near] == part[k])]
        degree = min(3, len(near) - 2)
        if degree < 2:
            continue
        t = times[near] - times[k]
        design = t[:, None] ** np.arange(degree + 1) / np.array([1.0, 1.0, 2.0, 6.0])[: degree + 1]
        inverse = np.linalg.pinv(design.T @ design)
        solution = inverse @ design.T @ track.positions[near]
        left = track.positions[near] - design @ solution
        noise = max(track.sigma, float(np.sqrt((left**2).sum() / max(1, 2 * (len(near) - degree - 1)))))
        states[:, k], sigmas[:, k] = solution[:3], noise * np.sqrt(np.diag(inverse)[:3])
    return states, sigmas
