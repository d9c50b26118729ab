"""The body in motion as a picture: an animated stick figure (SVG, inline, no script, no network) and a strip of poses.

Orthographic, from the side of the way that the body travels, a little from above; left limbs blue, right ones amber, the trunk
in ink; feet in contact carry a mark.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visviva.data.motions.anatomy import split
from visviva.eval.motion.measure import Measured
from visviva.eval.plots import Draw, Look

MOST, RATE = 160, 16.0
"""Frames drawn at most, and per second."""
ELEVATION = math.radians(10)
SIDES = ("left", "right", "")
COLOURS = {"left": "var(--blue)", "right": "var(--amber)", "": "var(--ink)"}


def flat(measured: Measured) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return joints (T, J, 2) in the picture's plane, x right and y up [m], the floor's corners (4, 2) and the points of the
    floor below the body (T, 2)."""
    x = measured.motion.positions.double().cpu().numpy()
    centre = x.mean((0, 1))
    way = _way(x)
    right = np.array([math.cos(way), math.sin(way), 0.0])
    away = np.array([-math.sin(way), math.cos(way), 0.0])
    up = np.array([0.0, 0.0, math.cos(ELEVATION)]) + away * math.sin(ELEVATION)
    plane = np.stack((right, up), 1)
    ground = x[..., :2].reshape(-1, 2)
    along, across = ground @ right[:2], ground @ away[:2]
    corners = [
        right * a + away * b + np.array([0, 0, measured.floor])
        for a, b in (
            (along.min(), across.min()),
            (along.max(), across.min()),
            (along.max(), across.max()),
            (along.min(), across.max()),
        )
    ]
    below = x.mean(1)
    below[:, 2] = measured.floor
    return (x - centre) @ plane, (np.stack(corners) - centre) @ plane, (below - centre) @ plane


def _way(x: NDArray[np.float64]) -> float:
    """Return the horizontal direction in which the points' centre travels, or in which they spread, turned by 20 degrees."""
    path = x.mean(1)[:, :2]
    cloud = (
        path - path.mean(0)
        if np.ptp(path, axis=0).max() > 0.5
        else (x[..., :2] - x[..., :2].mean(1, keepdims=True)).reshape(-1, 2)
    )
    _, vectors = np.linalg.eigh(np.cov(cloud.T))
    way = vectors[:, -1] if np.ptp(path, axis=0).max() > 0.5 else vectors[:, 0]
    way = way * (np.sign((path[-1] - path[0]) @ way) or 1.0)
    return math.atan2(way[1], way[0]) + math.radians(20)


def _bones(measured: Measured) -> dict[str, list[tuple[int, int]]]:
    """Return the bones by side of the child; markers are dots, bones of no length."""
    names, pairs = measured.motion.names, measured.motion.bones or [(k, k) for k in range(len(measured.motion.names))]
    found: dict[str, list[tuple[int, int]]] = {side: [] for side in SIDES}
    for parent, child in pairs:
        found[split(names[child].removesuffix("_end"))[0]].append((parent, child))
    return found


def animated(measured: Measured) -> str:
    """Return the animated figure as one ``<svg>``; it runs by itself, in real time, over the first frames that fit."""
    points, corners, _ = flat(measured)
    step = max(1, round(measured.motion.fps / RATE))
    shown = list(range(0, len(points), step))[:MOST]
    everything = np.concatenate((points[shown].reshape(-1, 2), corners))
    low, high = everything.min(0), everything.max(0)
    scale = 420 / max(high[1] - low[1], 0.5 * (high[0] - low[0]), 0.1)
    pixel = (points[shown] - low) * scale
    pixel[..., 1] = (high[1] - low[1]) * scale - pixel[..., 1]
    ground = (corners - low) * scale
    ground[:, 1] = (high[1] - low[1]) * scale - ground[:, 1]
    seconds = len(shown) * step / measured.motion.fps
    width, height = (high - low) * scale
    floor = " ".join(f"{x:.0f},{y:.0f}" for x, y in ground)
    parts = [f'<polygon points="{floor}" fill="var(--card)" stroke="var(--line)"/>']
    for side, bones in _bones(measured).items():
        if bones:
            values = ";".join(_path(frame, bones) for frame in pixel)
            style = f'fill="none" stroke="{COLOURS[side]}" stroke-width="4" stroke-linecap="round" stroke-linejoin="round"'
            parts.append(f'<path d="{_path(pixel[0], bones)}" {style}>{_animate("d", values, seconds)}</path>')
    parts += _marks(measured, pixel, shown, seconds)
    return (
        f'<svg viewBox="-12 -12 {width + 24:.0f} {height + 24:.0f}" role="img" aria-label="stick figure" '
        f'style="width:100%;max-height:460px">{"".join(parts)}</svg>'
    )


def _path(frame: NDArray[np.float64], bones: list[tuple[int, int]]) -> str:
    return "".join(f"M{frame[a, 0]:.0f} {frame[a, 1]:.0f}L{frame[b, 0]:.0f} {frame[b, 1]:.0f}" for a, b in bones)


def _animate(attribute: str, values: str, seconds: float) -> str:
    timing = f'dur="{seconds:.3f}s" repeatCount="indefinite" calcMode="discrete"'
    return f'<animate attributeName="{attribute}" {timing} values="{values}"/>'


def _marks(measured: Measured, pixel: NDArray[np.float64], shown: list[int], seconds: float) -> list[str]:
    """Return a disc at each foot joint that is visible while it stands."""
    if "contacts" not in measured.curves:
        return []
    flags = measured.curves["contacts"].cpu().numpy()[shown]
    marks = []
    for column, joint in enumerate(measured.feet):
        xs, ys = (";".join(f"{v:.0f}" for v in pixel[:, joint, k]) for k in (0, 1))
        seen = ";".join("1" if flag else "0" for flag in flags[:, column])
        moves = _animate("cx", xs, seconds) + _animate("cy", ys, seconds) + _animate("opacity", seen, seconds)
        marks.append(f'<circle r="6" fill="var(--green)">{moves}</circle>')
    return marks


def film(measured: Measured, height: int = 360) -> NDArray[np.uint8]:
    """Return the stick figure over the floor as frames of a video, (T, 3, height, W), every frame of the motion.

    Same view and colours as `animated`; W follows from the motion's extent, 16 : 9 at most.
    """
    import cv2

    points, corners, below = flat(measured)
    margin, everything = 0.15, np.concatenate((points.reshape(-1, 2), corners))
    low, high = everything.min(0) - margin, everything.max(0) + margin
    scale = min(height / (high[1] - low[1]), height * 16 / 9 / (high[0] - low[0]))
    width = max(height * 3 // 4, math.ceil((high[0] - low[0]) * scale))
    width += width % 2
    shift = np.array([width / 2 - scale * (low[0] + high[0]) / 2, height / 2 + scale * (low[1] + high[1]) / 2])

    def pixel(x: NDArray[np.float64]) -> NDArray[np.int32]:
        return np.round((x * [scale, -scale] + shift) * 16).astype(np.int32)  # 4 fractional bits, for anti-aliased lines

    frames = np.empty((len(points), 3, height, width), np.uint8)
    bones = _bones(measured)
    for t, joints in enumerate(points):  # one picture each: drawing is not batched
        image = np.full((height, width, 3), 255, np.uint8)
        cv2.fillPoly(image, [pixel(corners)], (238, 240, 244), cv2.LINE_AA, 4)
        cv2.circle(image, pixel(below[t]).tolist(), round(0.12 * scale * 16), (222, 225, 231), -1, cv2.LINE_AA, 4)
        for side in SIDES:
            for a, b in bones[side]:
                ends = pixel(joints[[a, b]]).tolist()
                cv2.line(image, ends[0], ends[1], FILMED[side], max(2, round(0.035 * scale)), cv2.LINE_AA, 4)
        frames[t] = image.transpose(2, 0, 1)
    return frames


FILMED = {"left": (36, 86, 214), "right": (217, 138, 0), "": (31, 36, 48)}
"""Colours of the sides in a film, RGB."""


def strip(measured: Measured, count: int = 9) -> Draw:
    """Return the figure of poses at even times, side by side, whatever way the body goes."""
    points, _, below = flat(measured)
    chosen = np.linspace(0, len(points) - 1, count).round().astype(int)
    poses = points[chosen] - below[chosen, None]
    low = poses[..., 1].min() - 0.05
    width = 1.08 * float(np.quantile(np.ptp(poses[..., 0], axis=1), 0.8))

    def draw(figure: Any, look: Look) -> None:
        axes = figure.subplots()
        colours = {"left": look.run, "right": look.other, "": look.ink}
        for place, frame in enumerate(chosen):
            moved = poses[place] + [place * width, 0]
            for side, bones in _bones(measured).items():
                style = {"color": colours[side], "lw": 1.7, "ms": 2, "solid_capstyle": "round"}
                for a, b in bones:
                    axes.plot(*moved[[a, b]].T, marker="o" if a == b else "", **style)
            axes.annotate(f"{frame / measured.motion.fps:.2f} s", (place * width, low), ha="center", va="top", fontsize=7)
        axes.set(aspect="equal", xticks=[], yticks=[])
        axes.grid(visible=False)
        for spine in axes.spines.values():
            spine.set_visible(False)

    return draw
