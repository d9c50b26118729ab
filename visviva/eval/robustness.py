"""How far a calibrated law holds away from its laboratory: against the probe's error, resolution, frame rate and compression.

The *noise floor* adds errors of known size to the true measurement. The *sweeps* draw the same scenes at other sizes and frame
rates, or compress the frames before the probes see them, and read each law by estimated measurement: what perfect physics
gives there and how well the violations that a law declares first are still told from it.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from visviva.eval.calibrate import Readings, altered, read, scenes_of
from visviva.eval.eyes import Eyes, Shown, photographed
from visviva.eval.reading import Notes, auc, short
from visviva.physics.laws import Law
from visviva.physics.measurement import Measurement
from visviva.physics.motions import draw
from visviva.physics.sprites import Sprites
from visviva.physics.violations import VIOLATIONS

ERRORS = (0.05, 0.1, 0.25, 0.5, 1.0)
"""Standard errors [px] that are added to true measurements."""

DECLARED = 2
"""How many of the violations that a law declares are swept, the first ones that apply."""


@dataclass(frozen=True)
class Setting:
    """One way to look at the scenes: image side and frame rate relative to the base, compression."""

    group: str
    name: str
    size: float = 1.0
    rate: float = 1.0
    shown: Shown = photographed


def jpeg(quality: int) -> Shown:
    """Return what JPEG compression of the given quality makes of photographed frames."""

    def shown(frames: Tensor, take: int) -> Tensor:
        import cv2

        pixels = (photographed(frames, take) * 255).to(torch.uint8).flatten(0, 1).permute(0, 2, 3, 1).numpy()
        parameters = [int(cv2.IMWRITE_JPEG_QUALITY), quality]
        images = [np.asarray(cv2.imdecode(cv2.imencode(".jpg", x, parameters)[1], cv2.IMREAD_COLOR)) for x in pixels]
        return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float().div(255).view_as(frames)

    return shown


def h264(crf: int) -> Shown:
    """Return what H.264 at the given constant rate factor makes of photographed frames."""

    def shown(frames: Tensor, take: int) -> Tensor:
        from visviva.data.video import read_video, write_video

        clips = []
        with tempfile.TemporaryDirectory() as folder:
            for clip in photographed(frames, take):
                write_video(Path(folder) / "clip.mp4", clip, 30.0, crf=crf)
                clips.append(read_video(Path(folder) / "clip.mp4").frames)
        return torch.stack(clips).to(frames.dtype) / 255

    return shown


SETTINGS = (
    Setting("resolution", "x0.5", size=0.5),
    Setting("resolution", "x1"),
    Setting("resolution", "x2", size=2.0),
    Setting("frame_rate", "x0.5", rate=0.5),
    Setting("frame_rate", "x2", rate=2.0),
    Setting("compression", "jpeg 30", shown=jpeg(30)),
    Setting("compression", "h264 crf 23", shown=h264(23)),
    Setting("compression", "h264 crf 35", shown=h264(35)),
)


def disturbed(measurement: Measurement, error: float, seed: int = 0) -> Measurement:
    """Return a measurement whose objects are off by ``error`` [px], independently in every frame.

    Places, and the velocity of each object in the flow, get that standard error per coordinate; each pixel along an outline is
    off by it, which moves area and second moments; spin is off by it at the rim. The stated noise says so.

    Raises:
        InputError: neither tracks nor masks were measured.
    """
    generator = torch.Generator().manual_seed(seed)

    def noise(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator).to(like)

    tracks = measurement.tracked()
    changes: dict[str, Any] = {
        "positions": tracks.positions + error * noise(tracks.positions),
        "sigma": (tracks.sigma.square() + error**2).sqrt(),
    }
    if tracks.area is not None:
        area = tracks.area.clamp(min=1.0)
        share = error * (2 * (math.pi * area).sqrt()).sqrt() / area
        changes["area"] = tracks.area * (1 + share * noise(area))
        if tracks.moments is not None:
            changes["moments"] = tracks.moments * (1 + share * noise(area)).abs()[..., None, None]
        if tracks.spin is not None:
            rim = error / (area[:, 1:] / math.pi).sqrt()
            changes |= {"spin": tracks.spin + rim * noise(rim), "spin_sigma": rim}
    found = measurement.with_(tracks=tracks.with_(**changes), noise=torch.full_like(measurement.fps, error))
    if measurement.flow is None or measurement.masks is None:
        return found
    slip = error * noise(tracks.positions[:, 1:])
    return found.with_(flow=measurement.flow + torch.einsum("btnhw,btnc->btchw", measurement.masks[:, :-1], slip))


@torch.no_grad()
def noise_floor(laws: Mapping[str, Law], scenes: Iterable[Sprites], fps: float, eyes: Eyes) -> dict[str, dict[str, Any]]:
    """Return for each law and each of `ERRORS` its 95th percentile on perfect physics and the AUC of its first violations.

    The reference is the true clip, measured without error.
    """
    notes = {name: {error: Notes() for error in ERRORS} for name in laws}
    for number, scene in enumerate(scenes):
        rate = torch.full((scene.trajectory.shape[0],), fps)
        mine = {name: law for name, law in laws.items() if scene.kind in scenes_of(law)}
        wanted = {violation for law in mine.values() for violation in first_of(law, scene)}
        true = eyes.true(scene, scene.render(), rate) if wanted else None
        for violation in ("", *sorted(wanted)):
            shown = VIOLATIONS[violation](scene) if violation else scene
            exact, broken = eyes.true(shown, shown.render(), rate), altered(shown, scene) if violation else None
            for i, error in enumerate(ERRORS):
                measured = disturbed(exact, error, seed=1000 * number + 10 * i + len(violation))
                for name, law in mine.items():
                    if not violation or violation in first_of(law, scene):
                        notes[name][error].take(violation, scene.kind, law(measured.with_(reference=true)), broken)
    return {
        name: {f"{error:g}": _row({name: note.reading()}, name) for error, note in rows.items() if note.kinds}
        for name, rows in notes.items()
    }


def first_of(law: Law, scene: Sprites) -> list[str]:
    """Return the violations of a law that are swept on a scene."""
    return [name for name in law.detects if VIOLATIONS[name].applies(scene)][:DECLARED]


def sweep(
    laws: Mapping[str, Law],
    clips: int,
    base: Mapping[str, int],
    fps: float,
    eyes: Callable[[Shown], Eyes],
    shown: Callable[[list[Setting]], Iterable[Setting]] = iter,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return for each law, group and setting (`SETTINGS`) what `noise_floor` returns, by estimated measurement.

    Args:
        laws: by name; scenes of the first kind of each are drawn, two bodies where there may be two.
        clips: scenes per kind and setting.
        base: ``size`` [px], ``frames`` and ``seed`` of the scenes, and how many are measured together, ``batch``.
        fps: frame rate of the base.
        eyes: the probes, given what happens to the frames.
        shown: wraps the list of settings to show progress.
    """
    kinds = dict.fromkeys(scenes_of(law)[0] for law in laws.values())
    found: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in laws}
    for setting in shown(list(SETTINGS)):
        scenes = [
            draw(
                kind, min(base["batch"], clips - start), base["seed"] + i, frames=int((base["frames"] - 1) * setting.rate) + 1,
                fps=fps * setting.rate, size=int(base["size"] * setting.size), objects=2,
            )
            for kind in kinds
            for i, start in enumerate(range(0, clips, base["batch"]))
        ]  # fmt: skip
        only = {violation for scene in scenes for law in laws.values() if scene.kind in scenes_of(law)
                for violation in first_of(law, scene)}  # fmt: skip
        _, readings = read(laws, scenes, fps * setting.rate, eyes(setting.shown), exact=False, only=only)
        for name in readings:
            found[name].setdefault(setting.group, {})[setting.name] = _row(readings, name, laws[name].detects)
    return found


def _row(readings: Readings, name: str, declared: Iterable[str] | None = None) -> dict[str, Any]:
    """What a reading says in short: clips, 95th percentile on perfect physics, AUC per violation."""
    reading = readings[name]
    areas = {}
    for violation, values in reading.violated.items():
        there = ~values.isnan()
        if declared is None or violation in declared:
            areas[violation] = round(auc(reading.truth[there], values[there]), 4)
    return {"clips": len(reading.truth), "p95": short(float(reading.truth.double().quantile(0.95))), "auc": areas}
