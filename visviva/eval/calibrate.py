"""Calibration of laws: what each gives on perfect physics, how well it tells each violation from the truth, its noise floor.

Scenes whose motion is known are rendered as they are and once per declared violation (`visviva.physics.violations`). Each
law is read twice: with the *true* measurement (exact flow and masks), which shows what the law itself can do, and with the
*estimated* one (a probe looks at the pixels, first masks known), which shows what is left of it in practice.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

import visviva
from visviva.data.files import whole
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
        "object, windows of 5": ConstantAcceleration(form="object", window=5),
        "object, windows of 3": ConstantAcceleration(form="object", window=3),
        "centroid": ConstantAcceleration(form="centroid"),
        "material": ConstantAcceleration(form="material"),
        "eulerian": ConstantAcceleration(form="eulerian"),
        "eulerian, in mask": ConstantAcceleration(form="eulerian", region="mask"),
    },
    "mass_conservation": {"mse": MassConservation(), "cosine": MassConservation(distance="cosine")},
    "motion_floor": {"half the reference": MotionFloor(fraction=0.5)},
    "reference_flow": {"frame": ReferenceFlow(), "mask": ReferenceFlow(within="mask")},
}


GRAIN = 0.01
"""Standard deviation of the grain of estimated clips, in units of the full range: 2.5 grey values of 255."""


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
    scene: Sprites, fps: Tensor, probe: Probe, features: Probe, first: Float[Tensor, "B t N H W"] | None = None, take: int = 0
) -> tuple[Measurement, Measurement]:
    """Return the true and the estimated measurement of scenes; the estimate is told the masks of the first frame.

    It sees 8-bit frames with grain (`GRAIN`) of the seed ``take``, so that two takes of one scene are not one clip.
    """
    drawn = scene.render()
    known = Combined(Oracle(flow=drawn.flow, masks=drawn.masks), features=PatchFeatures())(drawn.frames.clamp(0, 1), fps)
    frames = photographed(drawn.frames, take)
    estimate = Combined(probe, masks=TrackedMasks(), features=features)(frames, fps, drawn.masks if first is None else first)
    return known.with_(contact=scene.contact), estimate.with_(contact=scene.contact)


def photographed(frames: Float[Tensor, "B T 3 H W"], take: int = 0) -> Float[Tensor, "B T 3 H W"]:
    """Return frames as a camera would store them: with white grain, in 8 bits."""
    grain = torch.randn(frames.shape, generator=torch.Generator().manual_seed(take), dtype=frames.dtype)
    return ((frames + GRAIN * grain).clamp(0, 1) * 255).round() / 255


@torch.no_grad()
def read(
    laws: Mapping[str, Law], scenes: Iterable[Sprites], fps: float, probe: Probe | None = None, features: Probe | None = None
) -> tuple[dict[str, Reading], dict[str, Reading]]:
    """Return the readings of named laws by true and by estimated measurement over batches of scenes.

    ``probe`` (default `LucasKanade`) measures flow and ``features`` (default `PatchFeatures`) appearance in the estimate;
    masks are followed from the first frame. The reference of each violated clip is the true clip, measured the same way.
    """
    probe, features = probe or LucasKanade(), features or PatchFeatures()
    values: list[dict[str, dict[str, list[Tensor]]]] = [{law: {} for law in laws}, {law: {} for law in laws}]
    for scene in scenes:
        rate = torch.full((scene.trajectory.shape[0],), fps)
        first = scene.render().masks[:, :1]
        true = measurements(scene, rate, probe, features, first, take=1)
        for name, violate in {"": lambda same: same, **VIOLATIONS}.items():
            shown = measurements(violate(scene), rate, probe, features, first)
            for kind, measured, reference in zip(values, shown, true, strict=True):
                for law in laws:
                    kind[law].setdefault(name, []).append(laws[law](measured.with_(reference=reference)).value)
    exact, estimated = ({law: _reading(found) for law, found in kind.items()} for kind in values)
    return exact, estimated


def _reading(found: Mapping[str, list[Tensor]]) -> Reading:
    joined = {name: torch.cat(parts) for name, parts in found.items()}
    return Reading(joined.pop(""), joined)


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
        "rms": _short(float(error.square().mean().sqrt())),
        "median": _short(float(error.norm(dim=-1).median())),
        "bias": _short(float(ahead[fast].mean() / speed[fast].mean())),
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
    return {"median": _short(median), "p95": _short(high)}


def calibrate(
    names: Sequence[str],
    scenes: Sequence[Sprites],
    fps: float,
    features: Probe | None = None,
    shown: Iterable[Sprites] | None = None,
    **provenance: Any,
) -> dict[str, dict[str, Any]]:
    """Return the calibrations of the named laws over scenes, ready to be written.

    ``shown`` is an iterable over the same scenes that shows progress; ``provenance`` is recorded as it is.
    """
    laws = {f"{name}/{variant}": law for name in names for variant, law in VARIANTS[name].items()}
    exact, estimated = read(laws, shown or scenes, fps, features=features)
    common = {
        "format": 1,
        "clips": sum(scene.trajectory.shape[0] for scene in scenes),
        "frames": scenes[0].trajectory.shape[1],
        "size": list(scenes[0].background.shape[-2:]),
        "fps": fps,
        "grain": GRAIN,
        "estimated_by": {
            "flow": "lucas_kanade",
            "masks": "tracked from the first frame",
            "features": (features or PatchFeatures()).name,
        },
        "versions": {"visviva": visviva.__version__, "torch": torch.__version__, "python": platform.python_version()},
        **provenance,
    }
    return {
        name: {
            "law": name,
            **common,
            "variants": {
                variant: {
                    "options": asdict(law),  # type: ignore[call-overload]
                    "true": exact[f"{name}/{variant}"].summary(law.detects),
                    "estimated": estimated[f"{name}/{variant}"].summary(law.detects),
                }
                for variant, law in VARIANTS[name].items()
            },
        }
        for name in names
    }


def write(content: Mapping[str, Any], path: Path) -> None:
    """Write a calibration as JSON, complete or not at all."""
    text = json.dumps(content, indent=1) + "\n"
    with whole(path) as part:
        part.write_text(text)
