"""What happened where a track breaks: the simplest of a few models that explains the frames around it gives it its name.

Up to `REACH` frames on either side of the gap, not across another break, are fitted by one polynomial per coordinate
(parabolas or, as drag and swings ask for, cubics) that is changed at the gap in one of these ways:

``skip``  time goes on by tau more          ``rate``  time runs r times as fast        ``stop``  time stands still
``shift`` the place jumps                   ``kick``  the velocity jumps               ``pull``  the acceleration jumps
``any``   all three jump

The model with the least ``n log(rss / n) + p log n`` (BIC, n numbers, p parameters, rss not below the track's doubt) is taken,
over gaps within two frames of the break and moments within the gap. ``skip``, ``rate`` and ``stop`` keep the path and change
its timing, as an edited film does; ``kick`` is what a contact does. The approach is textbook model choice; the list is ours.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visviva.eval.track import Track

REACH = 14
"""Most frames on either side of a gap that are looked at."""
WITHIN = np.linspace(-0.5, 0.5, 21)
"""Moments within the gap [frame times] at which a change is tried; every tenth one for changes of rate, which are refined."""
SKIPS = (*np.arange(-6.0, -0.4, 0.5), *np.arange(0.5, 16.1, 0.5))
RATES = (0.15, 0.25, 0.35, 0.42, 0.5, 0.57, 0.65, 0.72, 0.8, 0.9, 1.1, 1.22, 1.35, 1.5, 1.7, 2.0, 2.4, 3.0)


@dataclass(frozen=True)
class Event:
    """What happened after frame ``frame``: the model, and what it says.

    Attributes:
        model: see the module. amount: frames skipped, or the factor of the rate; NaN for other models.
        shift: jump of place (x, y) [px]. before, after: velocities [px/s]. pulls: accelerations before and after [px/s^2].
        gain: by how much its BIC is below that of no event.
    """

    frame: int
    model: str
    amount: float
    shift: NDArray[np.float64]
    before: NDArray[np.float64]
    after: NDArray[np.float64]
    pulls: tuple[NDArray[np.float64], NDArray[np.float64]]
    gain: float


def doubt(track: Track) -> float:
    """Return how far a position may be off [px]: noise, and 1 % of the object's width for what it crosses."""
    width = float(np.nanmedian(track.width)) if np.isfinite(track.width).any() else 0.0
    return max(track.sigma, 0.01 * width, 0.05)


def explain(track: Track, frame: int, first: int, last: int, swings: bool = False, reach: int = REACH) -> Event | None:
    """Return the event that explains the frames first..last around the gap after ``frame``, None if too few were seen.

    Example::

        explain(track, 30, 0, len(track.times) - 1).model
    """
    found: list[tuple[float, Event]] = []
    for k in range(frame - 2, frame + 3):
        near = np.arange(max(first, frame - reach), min(last, frame + reach + 1) + 1)
        near = near[track.seen[near]]
        if (near <= k).sum() < 3 or (near > k).sum() < 3 or len(near) < 8:
            continue
        for degree in (3,) if swings else (2, 3) if len(near) >= 16 else (2,):
            found += _candidates(track, k, near, degree)
    if not found:
        return None
    none = min(score for score, event in found if event.model == "none")
    score, best = min(found, key=lambda f: (round(f[0], 3), float(np.linalg.norm(f[1].shift))))  # across cut frames several tie
    return Event(best.frame, best.model, best.amount, best.shift, best.before, best.after, best.pulls, none - score)


def _candidates(track: Track, k: int, near: NDArray, degree: int) -> list[tuple[float, Event]]:
    step = float(np.median(np.diff(track.times)))
    t = (track.times[near] - 0.5 * (track.times[k] + track.times[k + 1])) / step
    p, floor, n = track.positions[near], 2 * len(near) * doubt(track) ** 2, 2 * len(near)

    def solved(design: NDArray, extra: int) -> tuple[float, NDArray]:
        solution = np.linalg.lstsq(design, p, rcond=None)[0]
        left = float(((p - design @ solution) ** 2).sum())
        return n * math.log((left + floor) / n) + (2 * (degree + 1) + extra) * math.log(n), solution

    best: dict[str, tuple[float, NDArray, float, float]] = {}
    for model, amount, at, design, extra in _designs(t, near > k, degree):
        score, solution = solved(design, extra)
        if model not in best or score < best[model][0]:
            best[model] = (score, solution, amount, at)
    for model in ("skip", "rate"):
        for size in (0.25, 0.12, 0.06, 0.03, 0.015):
            _, _, amount, at = best[model]
            share = size if model == "skip" else 0.3 * size * amount
            for more, later in ((share, 0.0), (-share, 0.0), (0.0, size), (0.0, -size)):
                design = _timed(model, t, near > k, amount + more, float(np.clip(at + later, -0.6, 0.6)), degree)
                score, solution = solved(design, 2)
                if score < best[model][0]:
                    best[model] = (score, solution, amount + more, float(np.clip(at + later, -0.6, 0.6)))
    return [(b[0], _event(model, k, b[2], b[1], degree, step, b[3])) for model, b in best.items()]


def _designs(t: NDArray, later: NDArray, degree: int) -> Iterator[tuple[str, float, float, NDArray, int]]:
    """Yield (model, amount, moment, design, parameters more than a smooth motion has)."""
    yield "none", math.nan, 0.0, _powers(t, degree), 0
    for tau in SKIPS:
        yield "skip", tau, 0.0, _timed("skip", t, later, tau, 0.0, degree), 2
    for i, at in enumerate(WITHIN.tolist()):
        after = np.maximum(t - at, 0.0)
        for rate in RATES if i % 10 == 0 else ():
            yield "rate", rate, at, _timed("rate", t, later, rate, at, degree), 2
        yield "stop", 0.0, at, _powers(np.minimum(t, at), degree), 2
        yield "kick", math.nan, at, np.column_stack([_powers(t, degree), after]), 3
        yield "pull", math.nan, at, np.column_stack([_powers(t, degree), after**2 / 2]), 3
    yield "shift", math.nan, 0.0, np.column_stack([_powers(t, degree), later]), 3
    yield "any", math.nan, 0.0, np.column_stack([_powers(t, degree), later, later * t, later * t**2 / 2]), 7


def _timed(model: str, t: NDArray, later: NDArray, amount: float, at: float, degree: int) -> NDArray[np.float64]:
    """Return the design of a motion whose time skips by ``amount`` frames, or runs ``amount`` times as fast from ``at`` on."""
    return _powers(t + amount * later if model == "skip" else t + (amount - 1) * np.maximum(t - at, 0.0), degree)


def _powers(s: NDArray, degree: int) -> NDArray[np.float64]:
    return s[:, None] ** np.arange(degree + 1) / np.array([1.0, 1.0, 2.0, 6.0])[: degree + 1]


def _event(model: str, k: int, amount: float, x: NDArray, degree: int, step: float, at: float) -> Event:
    speed, pull = x[1], x[2]
    shift, after, later = np.zeros(2), speed, pull
    extra = x[degree + 1 :]
    if model == "skip":
        shift, after = speed * amount + pull * amount**2 / 2, speed + pull * amount
    elif model == "rate":
        after, later = speed * amount, pull * amount**2
    elif model == "stop":
        after, later = 0 * speed, 0 * pull
    elif model == "kick":
        speed = speed + pull * at
        after = speed + extra[0]
    elif model == "pull":
        later = pull + extra[0]
    elif model == "shift":
        shift = extra[0]
    elif model == "any":
        shift, after, later = extra[0], speed + extra[1], pull + extra[2]
    return Event(k, model, float(amount), shift, speed / step, after / step, (pull / step**2, later / step**2), 0.0)
