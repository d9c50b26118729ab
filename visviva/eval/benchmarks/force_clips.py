"""Measuring poked clips for force adherence: what is poked is followed by its true mask, or carried by the flow in a disc."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from visviva.errors import InputError
from visviva.eval.benchmarks import force
from visviva.eval.benchmarks.force import Trial, adherence
from visviva.eval.benchmarks.inputs import Inputs, failed, followed, scene
from visviva.eval.benchmarks.result import ClipRow, Missing, Result
from visviva.eval.collection import Item
from visviva.eval.trajectory import centroids
from visviva.models.probes.dis import DIS

VERSION = force.VERSION
STANDING = force.STANDING
NEEDS = (
    "rows with force_angle [degrees, 0 right, 90 up], force_magnitude, and x, y [px] unless one true mask says what is poked"
)
RADIUS = 15.0
"""Of the disc that is carried along, and how far from the place in the row a true object may be [px]."""


def carried(flow: Iterable[Tensor], start: tuple[float, float], radius: float = RADIUS) -> Float[Tensor, "t 2"]:
    """Return where a point is carried by the median flow of a disc around it, per frame (x, y) [px].

    Sequential by nature: each step's disc lies where the last step left it.

    Args:
        flow: (t, 2, H, W) [px/frame], or its steps (2, H, W) one after the other.
    """
    place = torch.tensor(start, dtype=torch.float64)
    path = [place]
    for step in flow:
        height, width = step.shape[-2:]
        ys, xs = torch.arange(height, dtype=torch.float64)[:, None], torch.arange(width, dtype=torch.float64)
        inside = (xs - place[0]).square() + (ys - place[1]).square() <= radius**2
        if bool(inside.any()):
            place = place + step[:, inside].double().median(1).values
        path.append(place)
    return torch.stack(path)


def run(inputs: Inputs, probe: Any = None) -> Result:
    """Measure every poked clip: the true object at the row's x, y (or the only one) is followed, without masks a disc there."""
    trials: dict[str, Trial] = {}
    rows: list[ClipRow] = []
    for item in tqdm(inputs.items(paired=bool(inputs.reference)), desc="force"):
        try:
            trials[item.key] = measured(item, DIS() if probe is None else probe)
        except InputError as error:
            rows.append(failed(item, error))
    if not trials:
        raise Missing(f"no clip could be measured as a poked one: {rows[0].failure if rows else NEEDS}")
    return adherence(trials, rows, inputs.statistics)


def measured(item: Item, probe: Any) -> Trial:
    """Measure one clip.

    Raises:
        InputError: its row lacks the force or the place, or they are no numbers that can be.
    """
    clip = item.clip()
    meta, (height, width) = clip.meta, clip.frames.shape[2:]
    absent = [f for f in ("force_angle", "force_magnitude") if f not in meta]
    if absent:
        raise InputError(f"{item.key}: its row has no {' and no '.join(absent)}; force adherence needs {NEEDS}")
    angle = math.radians(_number(item, meta, "force_angle", -math.inf, math.inf))
    magnitude = _number(item, meta, "force_magnitude", 0.0, math.inf)
    start = None
    if "x" in meta and "y" in meta:
        start = (_number(item, meta, "x", 0.0, width - 1), _number(item, meta, "y", 0.0, height - 1))
    first = _poked(item, start, (height, width))
    total = torch.zeros(2, height, width, dtype=torch.float64)
    steps = _summed(_steps(clip.frames, clip.fps, probe), total)
    if first is not None:
        masks = followed(clip.frames, first[None, None])[:, 0]
        path = centroids(masks)
        path, radius = path[path.isfinite().all(1)], math.sqrt(float(masks[0].sum()) / math.pi)
        for _ in steps:
            pass
    elif start is not None:
        path, radius = carried(steps, start), RADIUS
    else:
        raise InputError(f"{item.key}: neither true masks nor x, y say what is poked; force adherence needs {NEEDS}")
    if len(path) < 2:
        raise InputError(f"{item.key}: the poked object is lost; its displacement is unknown")
    move = (path[-1] - path[0]).tolist()
    command, mass = (math.cos(angle), -math.sin(angle)), str(meta.get("mass", ""))
    return Trial((move[0], move[1]), command, magnitude, height, _outside(total, path, 2 * radius), scene(item), mass)


def _number(item: Item, meta: Mapping[str, Any], name: str, low: float, high: float) -> float:
    """Return a field of a clip's row as a number from ``low`` to ``high``."""
    try:
        value = float(meta[name])
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value) or not low <= value <= high:
        bounds = "" if math.isinf(low) else f" of {low:g} or more" if math.isinf(high) else f" from {low:g} to {high:g}"
        raise InputError(f"{item.key}: its row has {name} = {meta[name]!r}; give a finite number{bounds}")
    return value


def _poked(item: Item, start: tuple[float, float] | None, size: tuple[int, int]) -> Tensor | None:
    """Return the first true mask (h, w) of what is poked: the object at ``start``, or the only one; None without masks.

    Raises:
        InputError: nothing is within `RADIUS` of ``start``, or several objects and no ``start``.
    """
    true = item.true() if item.true is not None else None
    if true is None or true.masks is None:
        return None
    there = [mask for mask in true.masks[0] if bool(mask.any())]
    if start is None:
        if len(there) != 1:
            raise InputError(f"{item.key}: {len(there)} objects are there in the first true frame; say by x, y which is poked")
        return there[0]
    scale = torch.tensor([mask_side / side for mask_side, side in zip(true.masks.shape[-2:], size, strict=True)])
    place = torch.tensor([start[1], start[0]]) * scale
    apart = [float(torch.linalg.vector_norm((mask.nonzero() - place) / scale, dim=1).min()) for mask in there]
    if not apart or min(apart) > RADIUS:
        raise InputError(f"{item.key}: no true object is within {RADIUS:g} px of x, y = {start}; correct the place")
    return there[apart.index(min(apart))]


def _steps(frames: Tensor, fps: float, probe: Any, part: int = 16) -> Iterator[Tensor]:
    """Yield the flow of each pair of frames (2, H, W), measured ``part`` pairs at a time (that of a whole clip is large)."""
    rate = torch.tensor([float(fps)])
    for k in range(0, len(frames) - 1, part):
        yield from probe(frames[None, k : k + part + 1], rate).flow[0]


def _summed(steps: Iterable[Tensor], total: Tensor) -> Iterator[Tensor]:
    """Yield the steps and add them to ``total``."""
    for step in steps:
        total += step
        yield step


def _outside(total: Tensor, path: Tensor, radius: float) -> float:
    """Return the mean displacement over the clip of what lies farther than ``radius`` from the object's path [px]."""
    height, width = total.shape[-2:]
    ys, xs = torch.arange(height, dtype=torch.float64)[:, None], torch.arange(width, dtype=torch.float64)
    away = torch.ones(height, width, dtype=torch.bool)
    for x, y in path.tolist():
        away &= (xs - x).square() + (ys - y).square() > radius**2
    if not bool(away.any()):
        return math.nan
    return float(torch.linalg.vector_norm(total, dim=0)[away].mean())
