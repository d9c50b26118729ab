"""Figures of recordings without ground truth: what was tracked, the fit, what it leaves, and where the motion breaks.

Drawing functions as in `visviva.eval.plots`: ``rendered(flight(track, measured, None), 10, 2)`` returns PNGs for light and dark
pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visviva.eval.breaks import Break, jump_strength
from visviva.eval.curves import Curves
from visviva.eval.flight import Flight
from visviva.eval.gravity import Gravity
from visviva.eval.pendulum import Pendulum
from visviva.eval.plots import Draw, Look
from visviva.eval.ramp import Ramp
from visviva.eval.track import Track


def flight(track: Track, measured: Flight, gravity: Gravity | None) -> Draw:
    """Return the figure of a real recording: path and fit, height, residual over frames, and where the motion breaks."""

    def draw(figure: Any, look: Look) -> None:
        path, height, residual, local = figure.subplots(1, 4, width_ratios=[0.9, 1.2, 1.2, 1.2])
        seen, frames = track.seen, measured.frames
        others = np.setdiff1d(np.flatnonzero(seen), frames)
        fitted = gravity.fitted if gravity is not None else measured.fitted
        for axes, x, y in (
            (path, track.positions[:, 0], track.positions[:, 1]),
            (height, track.times, track.positions[:, 1]),
        ):
            if len(others):
                axes.plot(x[others], y[others], ".", ms=3, color=look.truth, label="not in the fit")
            axes.plot(x[frames], y[frames], ".", ms=4, color=look.run, label="tracked")
        path.plot(*fitted.T, color=look.other, lw=1.2, label="fit")
        height.plot(track.times[frames], fitted[:, 1], color=look.other, lw=1.2, label="fit")
        path.set(title="path in the image", aspect="equal", xticks=[], yticks=[])
        _square(path)
        height.set(title="place over time [px from the top]", xlabel="s")
        height.invert_yaxis()
        height.legend(loc="best")
        off = track.positions[frames] - fitted
        residual.plot(frames, off[:, 0], color=look.truth, lw=1.2, label="x")
        residual.plot(frames, off[:, 1], color=look.run, lw=1.4, label="y")
        residual.set(title="tracked minus fit [px]", xlabel="frame")
        residual.legend(loc="best")
        jumps = [j for j in jump_strength(track.positions, track.times, track.sigma) if j is not None]
        local.plot([j.frame + 0.5 for j in jumps], [j.strength for j in jumps], color=look.run, lw=1.3)
        local.axhline(5, color=look.trouble, lw=0.9, ls="--")
        for broken in measured.breaks:
            local.annotate(
                f"{broken.frame}|{broken.frame + 1}", (broken.frame + 0.5, broken.strength), color=look.trouble, fontsize=7.5
            )
        local.set(title="jump of motion [standard errors]", xlabel="frame", ylim=(0, None))

    return draw


def _square(axes: Any) -> None:
    """Show what is drawn with a margin, square and y down: a vertical path would be a hair line otherwise."""
    (x0, x1), (y0, y1) = axes.get_xlim(), axes.get_ylim()
    half = max(abs(x1 - x0), abs(y1 - y0)) / 2
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    axes.set(xlim=(x - half, x + half), ylim=(y + half, y - half))


def curves(track: Track, drawn: Curves, breaks: Sequence[Break]) -> Draw:
    """Return position, velocity, acceleration, energy and momentum per mass over time with 95 % bands, and the jumps."""

    def draw(figure: Any, look: Look) -> None:
        (place, speed, push), (energy, momentum, jump) = figure.subplots(2, 3, sharex=True)
        unit, t = drawn.unit, drawn.times
        for axes, values, sigma, title in (
            (place, drawn.position - drawn.position[track.seen][0], drawn.sigmas[0], f"displacement [{unit}]"),
            (speed, drawn.velocity, drawn.sigmas[1], f"velocity [{unit}/s]"),
            (push, drawn.acceleration, drawn.sigmas[2], f"acceleration [{unit}/s²]"),
            (momentum, drawn.velocity, drawn.sigmas[1], f"momentum per mass [{unit}/s]"),
        ):
            for a, (name, colour) in enumerate((("x", look.truth), ("y, down", look.run))):
                _band(axes, t, values[:, a], sigma, colour, name)
            axes.set(title=title)
            _sane(axes, values)
        for (value, sigma), name, colour in (
            (drawn.kinetic, "kinetic", look.other),
            (drawn.potential, "potential", look.truth),
            (drawn.energy, "sum", look.run),
        ):
            if np.isfinite(value).any():
                _band(energy, t, value, sigma, colour, name)
        energy.set(title=f"energy per mass [{unit}²/s²]", xlabel="s")
        momentum.set(xlabel="s")
        strengths = [j for j in jump_strength(track.positions, track.times, track.sigma) if j is not None]
        jump.plot(
            [(t[j.frame] + t[j.frame + 1]) / 2 for j in strengths], [j.strength for j in strengths], color=look.run, lw=1.2
        )
        jump.axhline(5, color=look.trouble, lw=0.9, ls="--")
        jump.set(title="jump of motion [standard errors]", xlabel="s", ylim=(0, None))
        for axes in (place, speed, push, energy, momentum, jump):
            for broken in breaks:
                axes.axvline((t[broken.frame] + t[broken.frame + 1]) / 2, color=look.trouble, lw=0.7, alpha=0.6)
        place.legend(loc="best")
        energy.legend(loc="best")

    return draw


def _band(axes: Any, t: NDArray, value: NDArray, sigma: NDArray, colour: str, name: str) -> None:
    axes.fill_between(t, value - 1.96 * sigma, value + 1.96 * sigma, color=colour, alpha=0.22, lw=0)
    axes.plot(t, value, color=colour, lw=1.3, label=name)


def _sane(axes: Any, values: NDArray) -> None:
    """Show the middle 96 % of the values with a margin: the ends of a smoothed derivative are wide."""
    known = values[np.isfinite(values)]
    if len(known):
        low, high = np.quantile(known, [0.02, 0.98])
        margin = 0.25 * max(high - low, 1e-9)
        axes.set_ylim(low - margin, high + margin)


def timeline(
    frames: NDArray[np.uint8], strength: NDArray[np.float64], law: NDArray[np.float64], breaks: Sequence[Break], shown: int = 9
) -> Draw:
    """Return the clip as a strip of pictures over what the laws leave in each frame, breaks marked.

    Args:
        frames: (T, h, w, 3). strength: jump of motion after each frame [standard errors], (T,). law: residual of constant
            acceleration in the optical flow (T,), NaN where not read.
    """

    def draw(figure: Any, look: Look) -> None:
        count, (height, width) = len(frames), frames.shape[1:3]
        strip, rows = figure.subplots(2, 1, height_ratios=[3.2, 1], sharex=True)
        wide = count / shown
        tall = wide * height / width
        for k in range(shown):
            at = min(count - 1, int((k + 0.5) * wide))
            strip.imshow(frames[at], extent=(k * wide + 0.04 * wide, (k + 1) * wide - 0.04 * wide, 0, tall), aspect="auto")
            strip.text(k * wide + 0.08 * wide, 0.03 * tall, str(at), color="white", fontsize=6.5)
        strip.set(xlim=(0, count), ylim=(0, tall), yticks=[])
        strip.grid(visible=False)
        strip.spines[["left", "bottom"]].set_visible(False)
        flowing = law / np.nanquantile(law, 0.98) if np.isfinite(law).any() and np.nanmax(law) > 0 else np.full(count, np.nan)
        for row, values in enumerate((flowing, strength / 10)):
            shade = np.clip(np.nan_to_num(values), 0, 1)
            rows.bar(np.arange(count) + 0.5, 0.8, 1.0, bottom=row + 0.1, color=[_mixed(look, s) for s in shade], lw=0)
        for broken in breaks:
            rows.axvline(broken.frame + 1, color=look.trouble, lw=1.0)
        for broken in list(breaks)[:4]:
            rows.annotate(f"{broken.frame}|{broken.frame + 1}", (broken.frame + 1, 2.02), color=look.trouble, fontsize=7)
        rows.set(yticks=[0.5, 1.5], ylim=(0, 2.3), xlabel="frame")
        rows.set_yticklabels(["optical flow", "track"])
        rows.grid(visible=False)

    return draw


def _mixed(look: Look, share: float) -> tuple[float, float, float]:
    """Return a colour between the page's faint one and trouble."""
    low, high = (np.array([int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)]) for c in (look.faint, look.trouble))
    mixed = low + (high - low) * share
    return float(mixed[0]), float(mixed[1]), float(mixed[2])


def swing(track: Track, measured: Pendulum) -> Draw:
    """Return the figure of a pendulum: path with the fitted pivot, and the fit and its residual over time."""

    def draw(figure: Any, look: Look) -> None:
        path, side, residual = figure.subplots(1, 3, width_ratios=[0.8, 1.4, 1.4])
        frames, off = measured.frames, track.positions[measured.frames] - measured.fitted
        path.plot(*track.positions.T, ".", ms=3, color=look.truth)
        path.plot(*measured.fitted.T, ".", ms=3, color=look.other)
        path.plot(*measured.pivot, "+", ms=9, color=look.trouble)
        path.set(title="path and pivot", aspect="equal", xticks=[], yticks=[])
        _square(path)
        side.plot(track.times, track.positions[:, 0], ".", ms=3, color=look.truth, label="tracked")
        for first, last in measured.arcs:
            inside = (frames >= first) & (frames <= last)
            side.plot(track.times[frames[inside]], measured.fitted[inside, 0], color=look.other, lw=1.4)
        side.set(title="across [px]; amber: fitted pendulum", xlabel="s")
        residual.plot(frames, off[:, 0], ".", ms=3, color=look.truth, label="x")
        residual.plot(frames, off[:, 1], ".", ms=3, color=look.run, label="y")
        residual.set(title="tracked minus fit [px]", xlabel="frame")
        residual.legend(loc="best")

    return draw


def slide(track: Track, measured: Ramp) -> Draw:
    """Return the figure of a straight motion: path, way along it with the fit, and the fit's residual."""

    def draw(figure: Any, look: Look) -> None:
        path, along, residual = figure.subplots(1, 3, width_ratios=[0.8, 1.4, 1.4])
        u = np.array(measured.direction)
        frames = measured.frames
        way, fitted = track.positions @ u, measured.fitted @ u
        path.plot(*track.positions.T, ".", ms=3, color=look.truth)
        path.plot(*track.positions[frames].T, ".", ms=4, color=look.run)
        path.set(title="path in the image", aspect="equal", xticks=[], yticks=[])
        _square(path)
        along.plot(track.times, way, ".", ms=3, color=look.truth)
        along.plot(track.times[frames], fitted, color=look.other, lw=1.4)
        along.set(title="way along the path [px]; amber: fit", xlabel="s")
        residual.plot(frames, way[frames] - fitted, color=look.run, lw=1.2)
        residual.set(title="along the path, tracked minus fit [px]", xlabel="frame")

    return draw


def budget(gravity: Gravity) -> Draw:
    """Return the error budget as bars and g of every window beside the interval."""

    def draw(figure: Any, look: Look) -> None:
        bars, values = figure.subplots(1, 2, width_ratios=[1.1, 1])
        parts = sorted(gravity.budget.items(), key=lambda item: item[1])
        bars.barh([name for name, _ in parts], [100 * error for _, error in parts], color=look.run, height=0.6)
        bars.set(title="what the uncertainty is made of [% of g, standard errors]")
        bars.grid(axis="y", visible=False)
        names = [f"frames {w.first}-{w.last}" for w in gravity.windows]
        rows = np.arange(len(names), 0, -1)
        values.axvspan(gravity.low, gravity.high, color=look.run, alpha=0.15, lw=0)
        values.axvline(gravity.value, color=look.run, lw=1.4)
        values.axvline(9.81, color=look.trouble, lw=1, ls="--")
        values.plot([w.gravity for w in gravity.windows], rows, "o", color=look.run, label="with drag and shutter")
        values.plot([w.plain for w in gravity.windows], rows, "s", color=look.other, mfc="none", label="plain parabola")
        values.plot([gravity.plain], [0], "s", color=look.other, mfc="none")
        values.plot([gravity.value], [0], "o", color=look.run)
        values.set(yticks=[*rows, 0], ylim=(-0.6, len(names) + 1.1), title="g by part of the flight [m/s²]; dashed: 9.81")
        values.set_yticklabels([*names, "whole flight"])
        values.legend(loc="upper left", ncols=2)
        values.grid(axis="y", visible=False)

    return draw
