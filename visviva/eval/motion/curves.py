"""Curves of a motion over time: heights of the feet and contact, jerk, the centre of mass, forces."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np

from visviva.data.motions.anatomy import split
from visviva.eval.motion.contact import runs
from visviva.eval.motion.measure import Measured
from visviva.eval.plots import Draw, Look, plain

CAPTION = (
    "Over time, from left to right: heights of the feet above the floor, with bars below 0 while a foot is in contact; jerk, "
    "mean over the joints; height of the centre of mass above the floor, shaded while no foot is near the floor; vertical "
    "ground reaction and the part of the needed force and moment that no ground explains, in body weights, with its noise "
    "floor dotted: below it that part means nothing. Where a title says 'cut at', curves go on above the top."
)
"""What the figure shows, for captions."""


def curves(measured: Measured) -> Draw:
    """Return the figure: feet above the floor with bars of contact, mean jerk, height of the centre of mass, forces."""

    def draw(figure: Any, look: Look) -> None:
        feet, jerk, com, ground = figure.subplots(1, 4, width_ratios=[1.5, 1, 1, 1])
        _feet(feet, measured, look)
        t = (np.arange(len(measured.curves["jerk"])) + 1.5) / measured.motion.fps
        jerk.plot(t, measured.curves["jerk"].numpy(), color=look.run, lw=1.1)
        jerk.set(title="jerk, mean over joints [m/s³]", xlabel="s", ylim=(0, None))
        if "com" in measured.curves:
            height = measured.curves["com"][:, 2].numpy() - measured.floor
            com.plot(np.arange(len(height)) / measured.motion.fps, height, color=look.run)
            for start, end in runs(measured.curves["airborne"]):
                com.axvspan(start / measured.motion.fps, end / measured.motion.fps, color=look.other, alpha=0.25, lw=0)
            com.set(title="height of centre of mass [m]", xlabel="s  (shaded: no foot near the floor)")
        else:
            com.text(0.5, 0.5, "no centre of mass:\nnot all parts are named", ha="center", va="center", color=look.truth)
            com.set(title="centre of mass", xticks=[], yticks=[])
        _ground(ground, measured, look)

    return draw


def _ground(axes: Any, measured: Measured, look: Look) -> None:
    found = measured.forces
    if found is None:
        said = textwrap.fill(f"no forces: {measured.scores['el_violation'].note}".replace("$", ""), 28)
        axes.text(0.5, 0.5, said, ha="center", va="center", color=look.truth, fontsize=7)
        axes.set(title="ground reaction", xticks=[], yticks=[])
        return
    t = np.array(found.frames) / measured.motion.fps
    axes.plot(t, found.vertical.numpy(), color=look.run, lw=1.2, label="ground, vertical")
    axes.plot(t, found.reaction.violation.numpy(), color=look.other, lw=1.2, label="left unexplained")
    axes.axhline(found.floor, color=look.ink, lw=0.8, ls=":", label="noise floor")
    top = 1.3 * max(1.5, float(found.vertical.max()))
    highest = max(float(found.vertical.max()), float(found.reaction.violation.max()))
    axes.set(title=_title("forces [body weights]", top, highest), xlabel="s", ylim=(0, top))
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2, handlelength=1.5)  # curves may fill the panel


def _title(said: str, top: float, highest: float) -> str:
    """A panel's title, which says where curves go on above its top."""
    return f"{said}; cut at {top:.2g}" if highest > top else said


def _feet(axes: Any, measured: Measured, look: Look) -> None:
    heights, fps = measured.curves["heights"].numpy(), measured.motion.fps
    t = np.arange(len(heights)) / fps
    names = [measured.motion.names[k] for k in measured.feet] or ["lowest point"]
    styles = {"left": look.run, "right": look.other, "": look.truth}
    seen: dict[str, int] = {}
    highest = float(heights.max())
    top = max(0.12, min(1.02 * highest, 2.3 * float(np.quantile(heights, 0.98))))
    limit = (1.2 + 0.12 * ((len(names) + 1) // 2)) * top  # the legend fits above
    for column, name in enumerate(names):
        side = split(name.removesuffix("_end"))[0]
        seen[side] = seen.get(side, 0) + 1
        dash = ("-", "--", ":")[min(seen[side], 3) - 1]
        axes.plot(t, heights[:, column], color=styles[side], ls=dash, lw=1.2, label=plain(name))
        if "contacts" in measured.curves:
            for start, end in runs(measured.curves["contacts"][:, column]):
                axes.plot(
                    [t[start], t[end - 1]], [-(column + 1) * 0.035 * top] * 2, color=styles[side], lw=2.2, solid_capstyle="butt"
                )
    axes.axhline(0, color=look.ink, lw=0.8)
    title = _title("feet above floor [m]; bars: contact", limit, highest)
    axes.set(title=title, xlabel="s", ylim=(-0.04 * top * (len(names) + 1), limit))
    axes.legend(loc="best", ncols=2)
