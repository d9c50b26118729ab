"""How far probes of flow are off on true clips, and how far two of them disagree there."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from visviva.eval.eyes import photographed
from visviva.eval.reading import short
from visviva.physics.gate import Gate
from visviva.physics.kinematics import object_velocity
from visviva.physics.measurement import Probe
from visviva.physics.sprites import Rendered


@torch.no_grad()
def probe_error(clips: Iterable[Rendered], fps: float, probe: Probe) -> dict[str, float]:
    """Return the error of a probe's object velocities on true clips [px/frame]: per-coordinate rms, median distance, bias.

    ``clips`` are batches with exact masks and flow. ``bias`` is the mean error along the motion relative to the speed, over
    objects faster than 1 px/frame.
    """
    errors, speeds, along = [], [], []
    for drawn in clips:
        frames = photographed(drawn.frames)
        measured = probe(frames, torch.full((frames.shape[0],), fps))
        inner = (drawn.masks[:, :-1] > 0.9).to(frames.dtype)
        true, area = object_velocity(drawn.flow, inner)
        error = (object_velocity(measured.flow, inner)[0] - true)[area > 4]  # type: ignore[arg-type]
        true = true[area > 4]
        errors.append(error)
        speeds.append(true.norm(dim=-1))
        along.append((error * true).sum(-1) / true.norm(dim=-1).clamp(min=1e-6))
    error, speed, ahead = torch.cat(errors), torch.cat(speeds), torch.cat(along)
    fast = speed > 1
    return {
        "rms": short(float(error.square().mean().sqrt())),
        "median": short(float(error.norm(dim=-1).median())),
        "bias": short(float(ahead[fast].mean() / speed[fast].mean())),
    }


@torch.no_grad()
def gate_disagreement(clips: Iterable[Rendered], fps: float, probe: Probe, gate: Gate) -> dict[str, float]:
    """Return quantiles of the disagreement of two probes on true clips [px/frame]: what the gate's floor must cover."""
    found = []
    for drawn in clips:
        rate = torch.full((drawn.frames.shape[0],), fps)
        frames = photographed(drawn.frames)
        found.append(gate.disagreement(probe(frames, rate, drawn.masks), frames))
    median, high = torch.quantile(torch.cat(found).double(), torch.tensor([0.5, 0.95], dtype=torch.float64)).tolist()
    return {"median": short(median), "p95": short(high)}
