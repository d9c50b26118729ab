"""Figures of runs against ground truth, each drawn twice, for light and for dark pages, as small palette PNGs.

One look for all: no frames, a light grid, the truth in grey, a run in blue, the run it is compared with in amber, trouble in
red. A figure is a function ``draw(figure, look)``; `rendered` calls it once per look. Those of recordings are in
`visviva.eval.recording_plots`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visviva.eval.comparison import Group
from visviva.eval.explanation import tracks
from visviva.eval.newtonbench import FIVE, ClipScore


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
        height.set(title="place over time [px from the top]", xlabel="s")
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
