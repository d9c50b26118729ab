"""Figures of training: the spectrum of the Hessian, what steps do to weights, spikes of gradients.

Drawing functions as in `visviva.eval.plots`: ``rendered(spectrum(density), 6, 3)`` returns PNGs for light and dark pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from visviva.errors import InputError
from visviva.eval.plots import Draw, Look, plain
from visviva.optim.diagnostics import Row
from visviva.optim.lanczos import Ritz, smoothed


def spectrum(density: Ritz, width: float | None = None) -> Draw:
    """Return the figure of a density of eigenvalues, log scale, Ritz values as ticks.

    Args:
        density: of `visviva.optim.lanczos.spectral_density`.
        width: standard deviation of the curve drawn for each value; None takes 1 % of the range.
    """
    values = density.values.double()
    span = float(values.max() - values.min()) or 1.0
    width = width or 0.01 * span

    def draw(figure: Any, look: Look) -> None:
        axes = figure.subplots()
        x = torch.linspace(float(values.min()) - 0.05 * span, float(values.max()) + 0.05 * span, 800, dtype=torch.float64)
        y = smoothed(density, x, width).numpy()
        floor = max(float(y.max()) * 1e-7, 1e-300)
        axes.semilogy(x.numpy(), np.maximum(y, floor), color=look.run)
        axes.fill_between(x.numpy(), floor, np.maximum(y, floor), color=look.run, alpha=0.15, lw=0)
        axes.plot(values.numpy(), np.full(len(values), floor * 1.5), "|", color=look.truth, ms=6)
        axes.axvline(float(values.max()), color=look.trouble, lw=0.9, ls="--", label=f"largest {float(values.max()):.3g}")
        if float(values.min()) < 0:
            axes.axvline(0, color=look.ink, lw=0.8)
        axes.set(title="density of the Hessian's eigenvalues", xlabel="eigenvalue", ylim=(floor, None))
        axes.legend(loc="upper right")

    return draw


def updates(rows: Sequence[Row], most: int = 8) -> Draw:
    """Return the figure of recorded updates: update-to-weight ratio and effective step over steps, a line per parameter.

    ``rows``: of `visviva.optim.diagnostics.UpdateRecorder`; the ``most`` parameters with the largest last ratio are drawn,
    the others as the range they span.
    """
    if not rows:
        raise InputError("there are no recorded updates to draw; run some steps with an UpdateRecorder first")

    def draw(figure: Any, look: Look) -> None:
        by_name = _by_name(rows)
        shown = sorted(by_name, key=lambda name: -_finite(by_name[name][-1]["ratio"]))[:most]
        for axes, key, title in zip(
            figure.subplots(1, 2),
            ("ratio", "effective_step"),
            ("update / weight", "effective step: update / gradient"),
            strict=True,
        ):
            for name, own in by_name.items():
                place = shown.index(name) if name in shown else None
                colour = look.faint if place is None else (look.run, look.other, look.trouble, look.truth)[place % 4]
                style = ("-", "--", ":", "-.")[(place or 0) // 4 % 4]
                label = None if place is None else plain(name)
                values = [max(_finite(r[key]), 1e-30) for r in own]
                axes.semilogy([r["step"] for r in own], values, style, color=colour, label=label, lw=1.2)
            axes.set(title=title, xlabel="step")
        figure.axes[0].legend(loc="best")

    return draw


def spikes(rows: Sequence[Row], threshold: float = 50.0) -> Draw:
    """Return the figure of gradient spikes: largest score over steps, area by the number of entries.

    ``rows``: of `visviva.optim.diagnostics.SpikeLog`; may be empty.
    """

    def draw(figure: Any, look: Look) -> None:
        axes = figure.subplots()
        steps, scores = [r["step"] for r in rows], [max(_finite(r["score"]), 1.0) for r in rows]
        axes.scatter(steps, scores, s=[8 + 8 * np.log2(1 + r["spikes"]) for r in rows], color=look.trouble, alpha=0.7, lw=0)
        axes.axhline(threshold, color=look.ink, lw=0.9, ls="--")
        axes.set(title="gradient spikes: |g| over its running mean", xlabel="step", yscale="log", ylim=(1, None))
        for row in sorted(rows, key=lambda r: -_finite(r["score"]))[:3]:
            axes.annotate(plain(row["name"]), (row["step"], row["score"]), fontsize=7, color=look.ink)

    return draw


def _by_name(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["name"], []).append(row)
    return found


def _finite(value: float | None) -> float:
    return float(value) if value is not None and np.isfinite(value) else 0.0
