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
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import visviva
from visviva.data.files import whole
from visviva.errors import InputError
from visviva.eval.eyes import GRAIN, Eyes
from visviva.eval.reading import Notes, Reading
from visviva.models.probes import LucasKanade, PatchFeatures
from visviva.physics.laws import (
    LAWS,
    ConstantAcceleration,
    Friction,
    Law,
    MassConservation,
    MotionFloor,
    ReferenceFlow,
    Surprise,
)
from visviva.physics.measurement import Measurement
from visviva.physics.sprites import Sprites
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
    "friction": {"default": Friction(), "seen from above": Friction(overhead=True)},
    "surprise": {"power 4": Surprise(), "mean": Surprise(power=1.0)},
}
"""Laws that are read in several forms, the default first; every other law is read as it comes."""


def variants(name: str) -> dict[str, Law]:
    """Return the forms of a law that are calibrated, the default first."""
    return VARIANTS.get(name) or {"default": LAWS[name]()}


def scenes_of(law: Law) -> tuple[str, ...]:
    """Return the kinds of scenes that a law is calibrated on, its ``scenes`` (`visviva.physics.motions.KINDS`)."""
    return tuple(getattr(law, "scenes", ("moves",)))


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

    Each law reads the scenes of its kinds, true and in each violation that it declares in any of its forms; every clip is
    rendered and measured once for all laws. The reference of a violated clip is the true clip, measured the same way. With
    ``exact`` False the first of the two stays empty; ``only`` leaves out all other violations.
    """
    eyes = eyes or Eyes(LucasKanade(), PatchFeatures())
    found: list[dict[str, Notes]] = [{name: Notes() for name in laws} for _ in range(2)]
    for scene in scenes:
        mine = {name: law for name, law in laws.items() if scene.kind in scenes_of(law)}
        declared = {
            name: {v for other in mine.values() if other.name == law.name for v in other.detects} for name, law in mine.items()
        }
        wanted = set().union(*declared.values())
        named = [name for name, violation in VIOLATIONS.items() if name in wanted and violation.applies(scene)]
        named = [name for name in named if only is None or name in only]
        compared = any("reference" in law.needs for law in mine.values())
        references: tuple[Measurement | None, ...] = (None, None)
        for name in (*(["reference"] if compared else []), "", *named) if mine else ():
            readers = {key: law for key, law in mine.items() if _reads(law, declared[key], name)}
            sight = _sight(readers.values(), eyes)
            violated = VIOLATIONS[name](scene) if name in named else scene
            broken = altered(violated, scene) if name in named else None
            shown = _seen(violated, scene, fps, sight, exact, name == "reference")
            if name == "reference":
                references = shown
                continue
            for notes, measured, reference in zip(found, shown, references, strict=True):
                for key, law in readers.items() if measured is not None else ():
                    notes[key].take(name, scene.kind, law(measured.with_(reference=reference)), broken)  # type: ignore[union-attr]
    return tuple({name: note.reading() for name, note in notes.items() if note.kinds} for notes in found)  # type: ignore[return-value]


def altered(violated: Sprites, scene: Sprites) -> Tensor:
    """Say which clips a violation changes, (B,): something moves by half a pixel, or looks, sizes or noise are others.

    A body at rest does not stop dead, and one that rolls without friction does not lose its acceleration.
    """
    moved = (violated.trajectory - scene.trajectory).abs().flatten(1).amax(1) >= 0.5
    for name in ("texture", "alpha", "scale", "opacity", "angle", "noise"):
        before, after = getattr(scene, name), getattr(violated, name)
        if before is not None:
            moved = moved | ((after - before).abs().reshape(len(moved), -1).amax(1) > 1e-3)
    return moved


def _reads(law: Law, declared: Container[str], violation: str) -> bool:
    """Whether a law reads a violation: those that it declares, the truth, and what that is compared with."""
    return violation == "" or violation in declared or (violation == "reference" and "reference" in law.needs)


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


def calibrate(
    names: Sequence[str],
    scenes: Sequence[Sprites],
    fps: float,
    eyes: Eyes,
    shown: Iterable[Sprites] | None = None,
    perfect: Iterable[Sprites] = (),
    **provenance: Any,
) -> dict[str, dict[str, Any]]:
    """Return the calibrations of the named laws over scenes, ready to be written.

    ``shown`` is an iterable over the same scenes that shows progress; ``perfect`` are other scenes, which are only read as they
    are and on which the alarm is set; ``provenance`` is recorded as it is.

    Raises:
        InputError: no scene is of a kind that one of the laws is calibrated on.
    """
    laws = {f"{name}/{variant}": law for name in names for variant, law in variants(name).items()}
    exact, estimated = read(laws, shown or scenes, fps, eyes)
    quiet = read(laws, perfect, fps, eyes, exact=False, only=())[1]
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
                    "estimated": _with(estimated, quiet, f"{name}/{variant}").summary(law.detects),
                }
                for variant, law in variants(name).items()
            },
        }
        for name in names
    }


def _with(readings: Readings, quiet: Readings, name: str) -> Reading:
    """A law's reading with what it gave on other perfect clips beside it."""
    return replace(readings[name], perfect=quiet[name].truth) if name in quiet else readings[name]


def write(content: Mapping[str, Any], path: Path) -> None:
    """Write a calibration as JSON, complete or not at all."""
    text = json.dumps(content, indent=1) + "\n"
    with whole(path) as part:
        part.write_text(text)
