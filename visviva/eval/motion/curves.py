"""Curves of a motion over time: heights of the feet and contact, jerk, the centre of mass, forces."""

from __future__ import annotations

from typing import Any

import numpy as np

from visviva.data.motions.anatomy import split
from visviva.eval.motion.contact import runs
from visviva.eval.motion.measure import Measured
from visviva.eval.plots import Draw, Look, plain


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
            com.set(title="centre of mass above the floor [m]", xlabel="s  (shaded: no foot near the floor)")
        else:
            com.text(0.5, 0.5, "no centre of mass:\nnot all parts are named", ha="center", va="center", color=look.truth)
            com.set(title="centre of mass", xticks=[], yticks=[])
        _ground(ground, measured, look)

    return draw


def _ground(axes: Any, measured: Measured, look: Look) -> None:
    found = measured.forces
    if found is None:
        axes.text(0.5, 0.5, "no forces:\nnot the joints of a body", ha="center", va="center", color=look.truth)
        axes.set(title="ground reaction", xticks=[], yticks=[])
        return
    t = np.array(found.frames) / measured.motion.fps
    axes.plot(t, found.vertical.numpy(), color=look.run, lw=1.2, label="ground, vertical")
    axes.plot(t, found.reaction.violation.numpy(), color=look.other, lw=1.2, label="left unexplained")
    axes.axhline(found.floor, color=look.ink, lw=0.8, ls=":")
    axes.set(title="forces [body weights]", xlabel="s", ylim=(0, 1.3 * max(1.5, float(found.vertical.max()))))
    axes.legend(loc="upper right")


def _feet(axes: Any, measured: Measured, look: Look) -> None:
    heights, fps = measured.curves["heights"].numpy(), measured.motion.fps
    t = np.arange(len(heights)) / fps
    names = [measured.motion.names[k] for k in measured.feet] or ["lowest point"]
    styles = {"left": look.run, "right": look.other, "": look.truth}
    seen: dict[str, int] = {}
    top = max(0.12, float(np.quantile(heights, 0.98)) * 1.15)
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
    axes.set(
        title="feet above the floor [m]; bars below: contact", xlabel="s", ylim=(-0.04 * top * (len(names) + 1), 1.4 * top)
    )
    axes.legend(loc="upper right", ncols=2)
