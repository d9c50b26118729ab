"""Figures of reports, each drawn twice, for light and for dark pages, as small palette PNGs.

One look for all: no frames, a light grid, the truth in grey, a run in blue, the run it is compared with in amber, trouble in
red. A figure is a function ``draw(figure, look)``; `rendered` calls it once per look.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visviva.eval.breaks import Break, jump_strength
from visviva.eval.comparison import Group
from visviva.eval.curves import Curves
from visviva.eval.explanation import tracks
from visviva.eval.flight import Flight
from visviva.eval.gravity import Gravity
from visviva.eval.newtonbench import FIVE, ClipScore
from visviva.eval.pendulum import Pendulum
from visviva.eval.ramp import Ramp
from visviva.eval.track import Track


@dataclass(frozen=True)
class Look:
    """Colours of one theme."""

    ink: str
    faint: str
    paper: str
    truth: str
    run: str
    other: str
    trouble: str


LIGHT = Look("#1f2430", "#d8dce3", "#ffffff", "#8a909c", "#2456d6", "#d98a00", "#d03a2f")
DARK = Look("#e6e8ee", "#3a404c", "#14171d", "#8f96a3", "#7aa2ff", "#f2b44b", "#ff7a6e")

Draw = Callable[[Any, Look], None]
METRIC = {
    "l2": "centroid distance",
    "chamfer": "Chamfer distance",
    "iou": "mask overlap (IoU)",
    "velocity_rmse": "velocity RMSE",
    "acceleration_rmse": "acceleration RMSE",
    "l2_pisa": "L2 as PISA codes it",
}


def rendered(draw: Draw, width: float, height: float, colours: int = 64) -> tuple[bytes, bytes]:
    """Return the figure as (light, dark) PNG bytes of few colours; width and height in inches at 120 dpi."""
    return _png(draw, LIGHT, width, height, colours), _png(draw, DARK, width, height, colours)


def _png(draw: Draw, look: Look, width: float, height: float, colours: int) -> bytes:
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    style = {
        "font.size": 8,
        "font.family": "DejaVu Sans",
        "axes.titlesize": 8.5,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.linewidth": 0.6,
        "lines.linewidth": 1.6,
        "legend.frameon": False,
        "legend.fontsize": 7.5,
        "grid.color": look.faint,
        "axes.edgecolor": look.faint,
        "figure.facecolor": look.paper,
        "axes.facecolor": look.paper,
    }
    inked = ("text.color", "axes.labelcolor", "axes.titlecolor", "xtick.labelcolor", "ytick.labelcolor")
    style |= dict.fromkeys(inked, look.ink)
    style |= {"xtick.color": look.faint, "ytick.color": look.faint}
    with mpl.rc_context(style):
        figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure, look)
        raw = io.BytesIO()
        figure.savefig(raw, format="png")
    small = io.BytesIO()
    Image.open(raw).convert("RGB").quantize(colours, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(
        small, "PNG", optimize=True
    )
    return small.getvalue()


def motion(scores: Sequence[tuple[str, ClipScore]]) -> Draw:
    """Return the figure of one clip under one or two runs: path, height over time, speed, error over frames.

    ``scores``: (name, score) of the same scene; the last one is the run in question, an earlier one is what it is compared
    with.
    """

    def draw(figure: Any, look: Look) -> None:
        path, height, speed, error = figure.subplots(1, 4, width_ratios=[1, 1.15, 1.15, 1.15])
        _, true, times = tracks(scores[-1][1])
        side = scores[-1][1].height
        for n in range(true.shape[1]):
            label = "true" if n == 0 else None
            path.plot(*true[:, n].T, color=look.truth, lw=3.5, alpha=0.55, solid_capstyle="round", label=label)
            height.plot(times, true[:, n, 1], color=look.truth, lw=3.5, alpha=0.55, label=label)
            speed.plot(_middle(times), _speed(true[:, n], times) / side, color=look.truth, lw=3.5, alpha=0.55, label=label)
        for (name, score), colour in zip(scores, [look.other, look.run][-len(scores) :], strict=True):
            track, _, at = tracks(score)
            for n in range(track.shape[1]):
                label = plain(name) if n == 0 else None
                style = {"color": colour, "marker": "o", "ms": 2.6, "lw": 1.0, "label": label}
                path.plot(*track[:, n].T, **style)
                height.plot(at, track[:, n, 1], **style)
                speed.plot(_middle(at), _speed(track[:, n], at) / side, **style)
                count = min(len(track), len(true))
                off = np.linalg.norm(track[:count, n] - true[:count, n], axis=1)
                error.plot(np.arange(count), off, color=colour, label=label)
                lost = np.flatnonzero(np.isfinite(true[:count, n, 0]) & ~np.isfinite(track[:count, n, 0]))
                if len(lost):
                    error.plot(lost, np.zeros(len(lost)), "x", color=look.trouble, ms=5)
        path.set(title="path in the image", aspect="equal", xticks=[], yticks=[])
        _framed(path, side)
        height.set(title="height over time [px]", xlabel="s")
        height.invert_yaxis()
        speed.set(title="speed [image heights/s]", xlabel="s", ylim=(0, None))
        error.set(title="distance from the truth [px]", xlabel="frame  (x: object lost)", ylim=(0, None))
        height.legend(loc="best")

    return draw


def _framed(axes: Any, side: float) -> None:
    """Show what is drawn with a margin, square, at least a quarter of the image, y down."""
    (x0, x1), (y0, y1) = axes.get_xlim(), axes.get_ylim()
    half = max(x1 - x0, y1 - y0, 0.25 * side) / 2
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    axes.set(xlim=(x - half, x + half), ylim=(y + half, y - half))


def plain(name: str) -> str:
    """Return a name that a figure can draw whatever it holds: no markup, no control characters, at most 40 characters."""
    kept = "".join(c for c in name if ord(c) >= 32 and c != "$").lstrip("_ ") or "clips"
    return kept if len(kept) <= 40 else kept[:39] + "…"


def _middle(times: NDArray) -> NDArray:
    return 0.5 * (times[1:] + times[:-1])


def _speed(track: NDArray, times: NDArray) -> NDArray:
    return np.linalg.norm(np.diff(track, axis=0), axis=1) / np.diff(times)


def evidence(values: NDArray) -> Draw:
    """Return the localiser's evidence over the frames (T,), 0 being its level of alarm; frames above are filled."""

    def draw(figure: Any, look: Look) -> None:
        axes = figure.subplots()
        known = np.isfinite(values)
        t, shown = np.arange(len(values))[known], values[known]
        axes.plot(t, shown, color=look.run, lw=1.5)
        axes.fill_between(t, 0, shown, where=shown > 0, color=look.trouble, alpha=0.5, interpolate=True)
        axes.axhline(0, color=look.ink, lw=1)
        axes.set(xlim=(0, len(values) - 1), xlabel="frame")
        axes.grid(axis="y", visible=False)

    return draw


def improvements(groups: Sequence[Group]) -> Draw:
    """Return the forest plot: average relative improvement per primitive and split with its interval, filled if significant."""

    def draw(figure: Any, look: Look) -> None:
        axes = figure.subplots()
        for row, group in enumerate(reversed(groups)):
            gain, colour = group.improvement, _verdict_colour(group.verdict, look)
            if np.isfinite(gain.low):
                axes.plot([100 * gain.low, 100 * gain.high], [row, row], color=colour, lw=2.4, solid_capstyle="round")
            face = look.paper if group.verdict.startswith("no") else colour
            axes.plot(100 * gain.value, row, "o", ms=7, color=colour, mfc=face, mew=1.8)
        names = [plain(f"{g.primitive.replace('_', ' ')} {g.split.upper()}".strip()) for g in reversed(groups)]
        axes.axvline(0, color=look.ink, lw=1)
        axes.set(
            yticks=range(len(groups)),
            ylim=(-0.7, len(groups) - 0.3),
            xlabel="average relative improvement over the five metrics [%]",
        )
        axes.set_yticklabels(names)
        axes.grid(axis="y", visible=False)
        axes.set_title("right of the line is better; a hollow mark is not significant, or not credited")

    return draw


def metric_changes(groups: Sequence[Group]) -> Draw:
    """Return small multiples: relative improvement per metric, one panel per group, with intervals."""

    def draw(figure: Any, look: Look) -> None:
        panels = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
        for axes, group in zip(panels, groups, strict=True):
            for row, metric in enumerate(reversed(FIVE)):
                if metric not in group.metrics:
                    continue
                comparison = group.metrics[metric]
                gain, verdict = comparison.improvement, group.verdicts[metric]
                colour = _verdict_colour(verdict, look)
                if np.isfinite([gain.low, gain.high]).all():
                    axes.plot([100 * gain.low, 100 * gain.high], [row, row], color=colour, lw=2, solid_capstyle="round")
                face = look.paper if verdict.startswith("no") else colour
                axes.plot(100 * gain.value, row, "o", ms=5, color=colour, mfc=face, mew=1.5)
            axes.axvline(0, color=look.ink, lw=1)
            axes.set(
                title=plain(f"{group.primitive.replace('_', ' ')} {group.split.upper()}"), yticks=range(len(FIVE)), xlabel="%"
            )
            axes.grid(axis="y", visible=False)
        panels[0].set_yticklabels([METRIC[m] for m in reversed(FIVE)])

    return draw


def _verdict_colour(verdict: str, look: Look) -> str:
    return {"better": look.run, "worse": look.trouble}.get(verdict, look.truth)


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
            axes.plot(x[others], y[others], ".", ms=3, color=look.truth, label="not in the fit")
            axes.plot(x[frames], y[frames], ".", ms=4, color=look.run, label="tracked")
        path.plot(*fitted.T, color=look.other, lw=1.2, label="fit")
        height.plot(track.times[frames], fitted[:, 1], color=look.other, lw=1.2, label="fit")
        path.set(title="path in the image", aspect="equal", xticks=[], yticks=[])
        path.margins(0.15, 0.08)
        path.invert_yaxis()
        height.set(title="height over time [px]", xlabel="s")
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
        path.invert_yaxis()
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
        path.margins(0.15, 0.3)
        path.invert_yaxis()
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
