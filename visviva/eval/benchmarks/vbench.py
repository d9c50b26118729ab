"""VBench (arXiv 2311.17982), the dimensions about motion: temporal flicker, smoothness, dynamic degree, subject consistency.

Flicker needs no network and agrees with the published code. The other three follow its procedure around an estimator that is
an argument: a frame interpolator (published: AMT-S), a flow (RAFT-things), frame features (DINO ViT-B/16). With another
estimator in its place a number is *uncalibrated*: it compares runs. A frozen clip has perfect flicker, smoothness and
consistency: read dynamic degree beside them, always.

Frames are (T, 3, H, W), uint8 or float in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError
from visviva.eval.benchmarks.result import as_bytes
from visviva.physics.kinematics import displaced

VERSION = "2"
Interpolator = Callable[[Tensor, Tensor], Tensor]
"""Frames (n, 3, H, W) and later frames, in [0, 1] -> the frames midway."""

RANGES = {
    "subject consistency": (0.1462, 1.0),
    "background consistency": (0.2615, 1.0),
    "temporal flickering": (0.6293, 1.0),
    "motion smoothness": (0.706, 0.9975),
    "dynamic degree": (0.0, 1.0),
    "aesthetic quality": (0.0, 1.0),
    "imaging quality": (0.0, 1.0),
    "object class": (0.0, 1.0),
    "multiple objects": (0.0, 1.0),
    "human action": (0.0, 1.0),
    "color": (0.0, 1.0),
    "spatial relationship": (0.0, 1.0),
    "scene": (0.0, 0.8222),
    "appearance style": (0.0009, 0.2855),
    "temporal style": (0.0, 0.364),
    "overall consistency": (0.0, 0.364),
}
"""Worst and best value of each dimension, by which the leaderboard normalises; the first seven are "quality"."""


def temporal_flicker(frames: Tensor) -> float:
    """Return ``(255 - mean |I_t - I_{t+1}|) / 255`` over bytes; higher is better, 1 for a frozen clip.

    The benchmark applies it to clips that are meant to be static only.
    """
    images = torch.from_numpy(as_bytes(frames)).float()
    _at_least(len(images), 2)
    changes = [float((b - a).abs().mean()) for a, b in pairwise(images)]
    return (255 - sum(changes) / len(changes)) / 255


def motion_smoothness(frames: Tensor, interpolate: Interpolator) -> float:
    """Return how well the odd frames are predicted as midway between their even neighbours: ``(255 - mean |error|) / 255``.

    Predictions are truncated to bytes as published; with an even number of frames the last one is not scored. Higher is better.
    """
    images = torch.from_numpy(as_bytes(frames)).permute(0, 3, 1, 2)
    _at_least(len(images), 3)
    even = images[::2]
    odd = images[1::2][: len(even) - 1]
    errors = []
    for before, after, true in zip(even[:-1].split(8), even[1:].split(8), odd.split(8), strict=True):
        predicted = interpolate(before.float() / 255, after.float() / 255).clamp(0, 1) * 255
        errors.append((true.float() - (predicted + 1e-3).floor()).abs().flatten(1).mean(1))
    return float((255 - torch.cat(errors).mean()) / 255)


def blend(before: Tensor, after: Tensor) -> Tensor:
    """Interpolate by averaging: the simplest stand-in; a moving object appears twice, half transparent."""
    return (before + after) / 2


def along_flow(probe: Any) -> Interpolator:
    """Return an interpolator that averages both frames moved half way along a probe's flow; the default stand-in.

    Example: ``motion_smoothness(frames, along_flow(DIS()))``.
    """

    def midway(before: Tensor, after: Tensor) -> Tensor:
        fps = torch.ones(len(before))
        flow = probe(torch.stack([before, after], dim=1), fps).flow[:, 0]
        return (displaced(before, -flow / 2) + displaced(after, flow / 2)) / 2

    return midway


def dynamic_degree(frames: Tensor, fps: float, probe: Any) -> bool:
    """Return whether a clip counts as dynamic.

    Frames are sampled every ``max(1, round(fps / 8))``; a pair moves if the mean of its largest 5 % of flow magnitudes exceeds
    6 min(H, W) / 256 px; the clip is dynamic if at least round(4 N / 16) of the pairs of N frames move (rounding half to even).
    As published, two frames are dynamic whatever they show, and one frame never is.
    """
    sampled = frames[:: max(1, round(fps / 8))].float() / (255 if frames.dtype == torch.uint8 else 1)
    if len(sampled) < 2:
        return False
    moving = 0
    for k in range(0, len(sampled) - 1, 8):  # the flow of a whole clip is large
        flow = probe(sampled[None, k : k + 9], torch.tensor([float(fps)])).flow[0]
        speed = torch.linalg.vector_norm(flow, dim=1).flatten(1)
        fastest = speed.topk(max(1, int(speed.shape[1] * 0.05)), dim=1).values.mean(1)
        moving += int((fastest > 6 * min(frames.shape[-2:]) / 256).sum())
    return moving >= round(4 * len(sampled) / 16)


def subject_consistency(features: Float[Tensor, "T D"]) -> float:
    """Return the mean over frames i >= 1 of ``[max(0, cos(f_{i-1}, f_i)) + max(0, cos(f_0, f_i))] / 2``; higher is better."""
    _at_least(len(features), 2)
    unit = torch.nn.functional.normalize(features.double(), dim=1)
    last = (unit[1:] * unit[:-1]).sum(1).clamp(min=0)
    first = (unit[1:] @ unit[0]).clamp(min=0)
    return float(((last + first) / 2).mean())


def totals(dimensions: Mapping[str, float]) -> dict[str, float]:
    """Return the leaderboard's ``quality`` (7 dimensions, dynamic degree at half weight), ``semantic`` (9) and ``total`` =
    (4 quality + semantic) / 5, from all sixteen dimensions in [0, 1].

    Raises:
        InputError: a dimension is missing; the total of fewer is another number.
    """
    absent = [name for name in RANGES if name not in dimensions]
    if absent:
        raise InputError(f"VBench's total needs all sixteen dimensions; missing: {', '.join(absent)}")
    scaled = {name: (dimensions[name] - low) / (high - low) for name, (low, high) in RANGES.items()}
    names = list(RANGES)
    weights = {name: 0.5 if name == "dynamic degree" else 1.0 for name in names}
    groups = {"quality": names[:7], "semantic": names[7:]}
    means = {g: sum(weights[n] * scaled[n] for n in ns) / sum(weights[n] for n in ns) for g, ns in groups.items()}
    return means | {"total": (4 * means["quality"] + means["semantic"]) / 5}


def _at_least(count: int, least: int) -> None:
    if count < least:
        raise InputError(f"the clip has {count} frame(s); at least {least} are needed")
