"""Calibration of laws: what each gives on perfect physics, how well it tells each violation from the truth, its noise floor.

Scenes whose motion is known are rendered as they are and once per declared violation (`visviva.physics.violations`). Each
law is read twice: with the *true* measurement (exact flow and masks), which shows what the law itself can do, and with the
*estimated* one (a probe looks at the pixels, first masks known), which shows what is left of it in practice.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

import visviva
from visviva.models.probes import Combined, LucasKanade, Oracle, PatchFeatures, TrackedMasks
from visviva.physics.gate import Gate
from visviva.physics.kinematics import object_velocity
from visviva.physics.laws import ConstantAcceleration, Law, MassConservation, MotionFloor, ReferenceFlow
from visviva.physics.measurement import Measurement, Probe
from visviva.physics.sprites import Rendered, Sprites
from visviva.physics.violations import VIOLATIONS

VARIANTS: dict[str, dict[str, Law]] = {
    "constant_acceleration": {
        "object": ConstantAcceleration(form="object"),
        "object, window 5": ConstantAcceleration(form="object", window=5),
        "object, whole run": ConstantAcceleration(form="object", window=None),
        "centroid, whole run": ConstantAcceleration(form="centroid", window=None),
        "material": ConstantAcceleration(form="material"),
        "eulerian": ConstantAcceleration(form="eulerian"),
        "eulerian, in mask": ConstantAcceleration(form="eulerian", region="mask"),
    },
    "mass_conservation": {"mse": MassConservation(), "cosine": MassConservation(distance="cosine")},
    "motion_floor": {"half the reference": MotionFloor(fraction=0.5)},
    "reference_flow": {"frame": ReferenceFlow(), "mask": ReferenceFlow(within="mask")},
}


def auc(truth: Float[Tensor, " n"], violated: Float[Tensor, " m"]) -> float:
    """Return the probability that a violated clip has the larger residual than a true one; ties count half."""
    above = (violated[:, None] > truth[None]).double() + 0.5 * (violated[:, None] == truth[None]).double()
    return float(above.mean())


@dataclass(frozen=True)
class Reading:
    """Residuals of one law variant on true clips and on each violation of them, every one of shape (n,)."""

    truth: Tensor
    violated: dict[str, Tensor]

    def summary(self, declared: Sequence[str]) -> dict[str, Any]:
        """Return quantiles on perfect physics, the noise floor and the AUC table, as plain numbers."""
        quantiles = torch.quantile(self.truth.double(), torch.tensor([0.5, 0.95, 1.0], dtype=torch.float64)).tolist()
        table = {
            name: {
                "auc": round(auc(self.truth, values), 4),
                "paired": round(float((values > self.truth).double().mean()), 4),
                "median": _short(float(values.median())),
                "declared": name in declared,
            }
            for name, values in self.violated.items()
        }
        perfect = dict(zip(("median", "p95", "max"), (_short(q) for q in quantiles), strict=True))
        return {"perfect": perfect, "floor": perfect["p95"], "violations": table}


def _short(number: float) -> float:
    return float(f"{number:.4g}")


def measurements(
    scene: Sprites, fps: Tensor, probe: Probe, features: Probe, truth: Rendered | None = None
) -> tuple[Measurement, Measurement]:
    """Return the true and the estimated measurement of scenes; the clip that they started from gives the first masks."""
    drawn = scene.render()
    frames = (drawn.frames.clamp(0, 1) * 255).round() / 255
    known = Combined(Oracle(flow=drawn.flow, masks=drawn.masks), features=PatchFeatures())
    estimate = Combined(probe, masks=TrackedMasks(), features=features)
    start = (truth or drawn).masks
    return known(frames, fps), estimate(frames, fps, start)


@torch.no_grad()
def read(
    laws: Mapping[str, Law], scenes: Sequence[Sprites], fps: float, probe: Probe | None = None, features: Probe | None = None
) -> tuple[dict[str, Reading], dict[str, Reading]]:
    """Return the readings of law variants by true and by estimated measurement, over scenes in batches."""
    probe, features = probe or LucasKanade(), features or PatchFeatures()
    values: list[dict[str, dict[str, list[Tensor]]]] = [{}, {}]
    for scene in scenes:
        rate = torch.full((scene.trajectory.shape[0],), fps)
        drawn = scene.render()
        true = measurements(scene, rate, probe, features)
        shown = {"": true} | {name: measurements(v(scene), rate, probe, features, drawn) for name, v in VIOLATIONS.items()}
        for name, measured in shown.items():
            for side in (0, 1):
                paired = measured[side].with_(reference=true[side])
                for variant, law in laws.items():
                    values[side].setdefault(variant, {}).setdefault(name, []).append(law(paired).value)
    joined = [
        {v: {name: torch.cat(parts) for name, parts in names.items()} for v, names in side.items()} for side in values
    ]
    exact, estimated = ({v: Reading(names.pop(""), names) for v, names in side.items()} for side in joined)
    return exact, estimated


@torch.no_grad()
def probe_error(scenes: Sequence[Sprites], fps: float, probe: Probe) -> dict[str, float]:
    """Return the error of a probe's object velocities on true clips [px/frame]: per-coordinate rms, median distance, bias.

    ``bias`` is the mean error along the motion relative to the speed, over objects faster than 1 px/frame.
    """
    errors, speeds, along = [], [], []
    for scene in scenes:
        drawn = scene.render()
        frames = (drawn.frames.clamp(0, 1) * 255).round() / 255
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
        "rms": _short(float(error.square().mean().sqrt())),
        "median": _short(float(error.norm(dim=-1).median())),
        "bias": _short(float(ahead[fast].mean() / speed[fast].mean())),
    }


@torch.no_grad()
def gate_disagreement(scenes: Sequence[Sprites], fps: float, probe: Probe, gate: Gate) -> dict[str, float]:
    """Return quantiles of the disagreement of two probes on true clips [px/frame]: what the gate's floor must cover."""
    found = []
    for scene in scenes:
        drawn = scene.render()
        rate = torch.full((drawn.frames.shape[0],), fps)
        found.append(gate.disagreement(probe(drawn.frames, rate, drawn.masks), drawn.frames))
    median, high = torch.quantile(torch.cat(found).double(), torch.tensor([0.5, 0.95], dtype=torch.float64)).tolist()
    return {"median": _short(median), "p95": _short(high)}


def calibrate(
    name: str, scenes: Sequence[Sprites], fps: float, features: Probe | None = None, **provenance: Any
) -> dict[str, Any]:
    """Return the calibration of the law ``name`` over scenes, ready to be written; ``provenance`` is recorded as it is."""
    laws = VARIANTS[name]
    exact, estimated = read(laws, scenes, fps, features=features)
    variants = {
        variant: {
            "options": asdict(law),  # type: ignore[call-overload]
            "true": exact[variant].summary(law.detects),
            "estimated": estimated[variant].summary(law.detects),
        }
        for variant, law in laws.items()
    }
    probes = {"flow": "lucas_kanade", "masks": "tracked from the first frame", "features": (features or PatchFeatures()).name}
    clips = sum(scene.trajectory.shape[0] for scene in scenes)
    return {
        "format": 1,
        "law": name,
        "clips": clips,
        "fps": fps,
        "estimated_by": probes,
        "variants": variants,
        "versions": {"visviva": visviva.__version__, "torch": torch.__version__, "python": platform.python_version()},
        **provenance,
    }


def write(content: Mapping[str, Any], path: Path) -> None:
    """Write a calibration as JSON, complete or not at all."""
    partial = path.with_name(path.name + ".tmp")
    partial.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(partial, path)
