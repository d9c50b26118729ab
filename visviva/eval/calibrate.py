"""Calibration of laws: what each gives on perfect physics, how well it tells each violation from the truth, its noise floor.

Scenes whose motion is known are rendered as they are and once per violation that applies to them and that a law declares
(`visviva.physics.violations`). Each law names the kinds of scenes that it is calibrated on (``scenes``, by default
``moves``) and is read twice: with the *true* measurement (exact flow, masks, tracks, contacts, scale), which shows what the
law itself can do, and with the *estimated* one (a probe looks at the pixels, first masks and scale known, contacts found in
the tracks), which shows what is left of it in practice.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

import visviva
from visviva.data.files import whole
from visviva.errors import InputError
from visviva.models.probes import Combined, LucasKanade, Oracle, PatchFeatures, TrackedMasks
from visviva.models.probes.objects.look import look
from visviva.physics.gate import Gate
from visviva.physics.kinematics import object_velocity
from visviva.physics.laws import (
    LAWS,
    ConstantAcceleration,
    Law,
    MassConservation,
    MotionFloor,
    ReferenceFlow,
    Residual,
    Surprise,
)
from visviva.physics.measurement import Measurement, Probe
from visviva.physics.sprites import Rendered, Sprites
from visviva.physics.tracks import Tracks, tracks_of_masks
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
    "surprise": {"power 4": Surprise(), "mean": Surprise(power=1.0)},
}
"""Laws that are read in several forms, the default first; every other law is read as it comes."""

QUIET = 0.97
"""Quantile of a law's values on perfect physics at which its alarm threshold is set: expected to ring in 3 % of true clips."""

Shown = Callable[[Tensor, int], Tensor]
"""What happens to frames (B, T, 3, H, W) on their way to the probe; the number makes two takes of one scene two clips."""

GRAIN = 0.01
"""Standard deviation of the grain of estimated clips, in units of the full range: 2.5 grey values of 255."""


def variants(name: str) -> dict[str, Law]:
    """Return the forms of a law that are calibrated, the default first."""
    return VARIANTS.get(name) or {"default": LAWS[name]()}


def scenes_of(law: Law) -> tuple[str, ...]:
    """Return the kinds of scenes that a law is calibrated on, its ``scenes`` (`visviva.physics.motions.KINDS`)."""
    return tuple(getattr(law, "scenes", ("moves",)))


def auc(truth: Float[Tensor, " n"], violated: Float[Tensor, " m"]) -> float:
    """Return the probability that a violated clip has the larger residual than a true one; ties count half."""
    above = (violated[:, None] > truth[None]).double() + 0.5 * (violated[:, None] == truth[None]).double()
    return float(above.mean())


@dataclass(frozen=True)
class Reading:
    """Residuals of one law variant on true clips and on each violation of them, every one of shape (n,).

    A violation that does not apply to a clip is NaN there. ``kinds``: what kind of scene each clip is; ``valid``: to which
    true clips the law applied.
    """

    truth: Tensor
    violated: dict[str, Tensor]
    kinds: tuple[str, ...] = ()
    valid: Tensor | None = None

    def summary(self, declared: Sequence[str]) -> dict[str, Any]:
        """Return quantiles on perfect physics, the noise floor, the AUC table and the alarm, as plain numbers."""
        quantiles = torch.quantile(self.truth.double(), torch.tensor([0.5, 0.95, 1.0], dtype=torch.float64)).tolist()
        perfect = dict(zip(("median", "p95", "max"), (short(q) for q in quantiles), strict=True))
        table = {name: {**self._told(name), "declared": name in declared} for name in self.violated}
        found: dict[str, Any] = {
            "perfect": perfect,
            "floor": perfect["p95"],
            "violations": table,
            "alarm": self.alarm(declared),
        }
        if self.valid is not None:
            found["applies"] = round(float(self.valid.double().mean()), 4)
        names = sorted(set(self.kinds))
        if len(names) > 1:
            found["kinds"] = {kind: self._kind(kind, declared) for kind in names}
        return found

    def _told(self, name: str) -> dict[str, float]:
        there = ~self.violated[name].isnan()
        truth, values = self.truth[there], self.violated[name][there]
        paired = float((values > truth).double().mean())
        return {"auc": round(auc(truth, values), 4), "paired": round(paired, 4), "median": short(float(values.median()))}

    def _kind(self, kind: str, declared: Sequence[str]) -> dict[str, Any]:
        mine = torch.tensor([name == kind for name in self.kinds])
        part = Reading(self.truth[mine], {n: v[mine] for n, v in self.violated.items() if not bool(v[mine].isnan().all())})
        areas = {name: part._told(name)["auc"] for name in part.violated if name in declared}
        return {"clips": int(mine.sum()), "p95": short(float(part.truth.double().quantile(0.95))), "auc": areas}

    def alarm(self, declared: Sequence[str]) -> dict[str, Any]:
        """Return a threshold set on one half of the clips, and how often it rings on the other half.

        ``threshold``: the `QUIET` quantile of the values of the true clips with even number. ``false_alarms``: share of the
        true clips with odd number above it, with its 95 % Wilson interval; ``detected``: share of their violations above it.
        """
        known, held = self.truth[::2].double(), self.truth[1::2].double()
        threshold = float(torch.quantile(known, QUIET, interpolation="higher"))
        rings = int((held > threshold).sum())
        found = {}
        for name in declared:
            values = self.violated.get(name, torch.empty(0))[1::2].double()
            values = values[~values.isnan()]
            if len(values):
                found[name] = round(float((values > threshold).double().mean()), 4)
        return {
            "threshold": short(threshold),
            "clips": len(held),
            "false_alarms": round(rings / max(len(held), 1), 4),
            "interval": [round(x, 4) for x in wilson(rings, len(held))],
            "detected": found,
        }


def wilson(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """Return the 95 % interval of Wilson (1927) of a share; (0, 1) without trials."""
    if trials == 0:
        return 0.0, 1.0
    share, spread = successes / trials, z**2 / trials
    middle = (share + spread / 2) / (1 + spread)
    half = (spread * share * (1 - share) + spread**2 / 4) ** 0.5 / (1 + spread)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def short(number: float) -> float:
    """Return a number with four significant digits."""
    return float(f"{number:.4g}")


def photographed(frames: Float[Tensor, "B T 3 H W"], take: int = 0) -> Float[Tensor, "B T 3 H W"]:
    """Return frames as a camera would store them: with white grain, in 8 bits."""
    grain = torch.randn(frames.shape, generator=torch.Generator().manual_seed(take), dtype=frames.dtype)
    return ((frames + GRAIN * grain).clamp(0, 1) * 255).round() / 255


@dataclass(frozen=True)
class Eyes:
    """What looks at the clips: flow (where wanted), appearance features, surprise, and what happens to the frames before."""

    flow: Probe | None
    features: Probe
    surprise: Probe | None = None
    shown: Shown = photographed

    def true(self, scene: Sprites, drawn: Rendered, fps: Tensor) -> Measurement:
        """Return the exact measurement of a scene."""
        frames = drawn.frames.clamp(0, 1)
        known = Combined(Oracle(flow=drawn.flow, masks=drawn.masks), features=PatchFeatures())(frames, fps)
        tracks = tracks_of_masks(drawn.masks, drawn.flow)
        spin = tracks.spin if scene.angle is None else scene.angle.diff(dim=1)
        exact = tracks.with_(positions=scene.trajectory, sigma=torch.full_like(tracks.sigma, 0.01), spin=spin)
        return self._completed(known, scene, frames, exact).with_(contact=scene.contact)

    def estimate(self, scene: Sprites, drawn: Rendered, fps: Tensor, first: Tensor, take: int) -> Measurement:
        """Return what the probes see; they are told the first masks, the scale and, of taken-apart clips, the contacts."""
        frames = self.shown(drawn.frames, take)
        seen = Combined(self.flow, masks=TrackedMasks(), features=self.features)(frames, fps, first)
        seen = self._completed(seen, scene, frames, None)
        return seen if scene.motion is not None else seen.with_(contact=scene.contact)

    def _completed(self, seen: Measurement, scene: Sprites, frames: Tensor, tracks: Tracks | None) -> Measurement:
        """Add tracks with their looks where there are several bodies, surprise and scale."""
        masks = seen.masks
        if masks is not None and masks.shape[2] > 1:
            halves = frames[..., ::2, ::2], masks[..., ::2, ::2]
            looks = torch.cat([look(frame[None], mask[None]) for frame, mask in zip(*halves, strict=True)])
            tracks = (tracks or seen.tracked()).with_(look=looks)
        if self.surprise is not None:
            seen = seen.with_(surprise=self.surprise(frames, seen.fps).surprise)
        return seen.with_(tracks=tracks, scale=scene.metres)


Readings = dict[str, Reading]


@torch.no_grad()
def read(
    laws: Mapping[str, Law],
    scenes: Iterable[Sprites],
    fps: float,
    eyes: Eyes | None = None,
    exact: bool = True,
    only: Container[str] | None = None,
) -> tuple[Readings, Readings]:
    """Return the readings of named laws by true and by estimated measurement over batches of scenes.

    Each law reads the scenes of its kinds, true and in each violation that some law of the run declares. The reference of a
    violated clip is the true clip, measured the same way. With ``exact`` False the first of the two stays empty;
    ``only`` leaves out all other violations.
    """
    eyes = eyes or Eyes(LucasKanade(), PatchFeatures())
    found: list[dict[str, Notes]] = [{name: Notes() for name in laws} for _ in range(2)]
    for scene in scenes:
        mine = {name: law for name, law in laws.items() if scene.kind in scenes_of(law)}
        declared = {violation for law in mine.values() for violation in law.detects}
        named = [name for name, violation in VIOLATIONS.items() if name in declared and violation.applies(scene)]
        named = [name for name in named if only is None or name in only]
        compared = any("reference" in law.needs for law in mine.values())
        references: tuple[Measurement | None, ...] = (None, None)
        for name in (*(["reference"] if compared else []), "", *named) if mine else ():
            readers = {key: law for key, law in mine.items() if _reads(law, name)}
            sight = _sight(readers.values(), eyes)
            shown = _seen(VIOLATIONS[name](scene) if name in named else scene, scene, fps, sight, exact, name == "reference")
            if name == "reference":
                references = shown
                continue
            for notes, measured, reference in zip(found, shown, references, strict=True):
                for key, law in readers.items() if measured is not None else ():
                    notes[key].take(name, scene.kind, law(measured.with_(reference=reference)))  # type: ignore[union-attr]
    return tuple({name: note.reading() for name, note in notes.items() if note.kinds} for notes in found)  # type: ignore[return-value]


def _reads(law: Law, violation: str) -> bool:
    """Whether a law reads a violation that others declare: yes, unless it takes a probe of its own."""
    return violation in ("", "reference", *law.detects) or "surprise" not in law.needs


def _sight(laws: Iterable[Law], eyes: Eyes) -> Eyes:
    """Return the eyes that the laws need: flow and surprise are costly to measure. What tells rotation needs flow."""
    laws = list(laws)
    flow = any("flow" in law.needs or "wrong_spin" in law.detects for law in laws)
    surprise = any("surprise" in law.needs for law in laws)
    return replace(eyes, flow=eyes.flow if flow else None, surprise=eyes.surprise if surprise else None)


def _seen(
    violated: Sprites, scene: Sprites, fps: float, eyes: Eyes, exact: bool, reference: bool
) -> tuple[Measurement | None, Measurement]:
    """Return the true (where wanted) and the estimated measurement of scenes, which keep their first masks where visible."""
    drawn = violated.render()
    rate = torch.full((violated.trajectory.shape[0],), fps)
    first = drawn.masks[:, :1]
    if violated is not scene:
        hidden = first.sum((1, 2, 3, 4)) < 1
        first = torch.where(hidden.view(-1, 1, 1, 1, 1), scene.render().masks[:, :1], first) if hidden.any() else first
    estimate = eyes.estimate(violated, drawn, rate, first, take=int(reference))
    return (eyes.true(violated, drawn, rate) if exact else None), estimate


class Notes:
    """Residuals of one law as they come in, batch by batch: what is not written down for a batch is NaN there."""

    def __init__(self) -> None:
        self.kinds: list[str] = []
        self.valid: list[Tensor] = []
        self.values: dict[str, list[Tensor]] = {}

    def take(self, name: str, kind: str, residual: Residual) -> None:
        """Write down a batch; the true clips (name "") come first."""
        if name == "":
            self.kinds += [kind] * len(residual.value)
            self.valid.append(residual.valid)
        written = self.values.setdefault(name, [])
        missing = len(self.kinds) - sum(map(len, written)) - len(residual.value)
        self.values[name] = [*written, torch.full((missing,), float("nan")), residual.value]

    def reading(self) -> Reading:
        """Return all of it."""
        count = len(self.kinds)
        joined = {}
        for name, parts in self.values.items():
            values = torch.cat(parts)
            joined[name] = torch.cat([values, torch.full((count - len(values),), float("nan"))])
        return Reading(joined.pop(""), joined, tuple(self.kinds), torch.cat(self.valid))


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


def calibrate(
    names: Sequence[str],
    scenes: Sequence[Sprites],
    fps: float,
    eyes: Eyes,
    shown: Iterable[Sprites] | None = None,
    **provenance: Any,
) -> dict[str, dict[str, Any]]:
    """Return the calibrations of the named laws over scenes, ready to be written.

    ``shown`` is an iterable over the same scenes that shows progress; ``provenance`` is recorded as it is.

    Raises:
        InputError: no scene is of a kind that one of the laws is calibrated on.
    """
    laws = {f"{name}/{variant}": law for name in names for variant, law in variants(name).items()}
    exact, estimated = read(laws, shown or scenes, fps, eyes)
    for name, law in laws.items():
        if name not in estimated:
            raise InputError(
                f"the law {law.name!r} is calibrated on {', '.join(scenes_of(law))}, of which there is no scene; "
                "leave --dataset out to draw them"
            )
    common = {
        "format": 1,
        "frames": scenes[0].trajectory.shape[1],
        "size": list(scenes[0].background.shape[-2:]),
        "fps": fps,
        "grain": GRAIN,
        "estimated_by": {
            "flow": "lucas_kanade",
            "masks": "tracked from the first frame",
            "features": eyes.features.name,
            **({"surprise": eyes.surprise.name} if eyes.surprise else {}),
        },
        "versions": {"visviva": visviva.__version__, "torch": torch.__version__, "python": platform.python_version()},
        **provenance,
    }
    return {
        name: {
            "law": name,
            **common,
            "clips": len(estimated[f"{name}/{next(iter(variants(name)))}"].truth),
            "scenes": list(scenes_of(next(iter(variants(name).values())))),
            "variants": {
                variant: {
                    "options": asdict(law),  # type: ignore[call-overload]
                    "true": exact[f"{name}/{variant}"].summary(law.detects),
                    "estimated": estimated[f"{name}/{variant}"].summary(law.detects),
                }
                for variant, law in variants(name).items()
            },
        }
        for name in names
    }


def write(content: Mapping[str, Any], path: Path) -> None:
    """Write a calibration as JSON, complete or not at all."""
    text = json.dumps(content, indent=1) + "\n"
    with whole(path) as part:
        part.write_text(text)
