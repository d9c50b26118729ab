"""One video file without ground truth, measured: track, flight, gravity where there is a scale, laws; or the reason why not."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from visviva.data.video import read_video
from visviva.errors import InputError
from visviva.eval.breaks import Break, find_breaks, jump_strength
from visviva.eval.continuity import find_cut
from visviva.eval.curves import Curves
from visviva.eval.flight import Flight
from visviva.eval.gravity import Gravity, Scale
from visviva.eval.kind import KINDS, Scales, measure_motion
from visviva.eval.laws import LawScore, read_laws
from visviva.eval.pendulum import Pendulum
from visviva.eval.pictures import overlay
from visviva.eval.ramp import Angle, Ramp
from visviva.eval.run import Picture
from visviva.eval.score import finite
from visviva.eval.track import Track, Unmeasurable, reduced, track_object
from visviva.eval.verdict import Finding, Verdict, judge


@dataclass(frozen=True)
class Settings:
    """How recordings are measured.

    Attributes:
        metres_per_pixel: scale at the object's depth, with ``scale_error`` its relative standard error; None: no scale given.
        object_size: width of the moving object [m], with ``object_size_error``; measures the scale where none is given.
        time_scale: seconds of reality per second of playback (0.25 for a clip slowed down four times).
        timing_error: relative standard error of the frame clock.
        motion: ``auto`` recognises the kind of motion; ``fall``, ``pendulum`` and ``ramp`` force it.
        ramp_angle: inclination of the surface [deg], 0 for a level one; None: as seen in the image. ramp_angle_error: [deg].
        frame_rate: of folders of frames [1/s].
        laws: read the laws too.
    """

    metres_per_pixel: float | None = None
    scale_error: float = 0.03
    object_size: float | None = None
    object_size_error: float = 0.015
    time_scale: float = 1.0
    timing_error: float = 0.005
    motion: str = "auto"
    ramp_angle: float | None = None
    ramp_angle_error: float = 0.5
    level: float = 0.95
    max_frames: int | None = None
    frame_rate: float | None = None
    laws: bool = True


@dataclass(frozen=True)
class Recording:
    """What one recording gave.

    ``reason`` is why no acceleration (or, with a scale, no g) was measured; empty if it was. ``failed``: the file itself could
    not be used. ``damage``: what the decoder had to patch or leave out; empty for a sound file. ``laws_from``: the first frame
    that the laws were read in. ``verdict``: what speaks against the clip; None if nothing was tracked.
    """

    name: str
    fps: float = math.nan
    count: int = 0
    size: tuple[int, int] = (0, 0)
    track: Track | None = None
    flight: Flight | None = None
    gravity: Gravity | None = None
    kind: str = ""
    pendulum: Pendulum | None = None
    ramp: Ramp | None = None
    laws: list[LawScore] = field(default_factory=list)
    reason: str = ""
    failed: bool = False
    damage: str = ""
    notes: list[str] = field(default_factory=list)
    picture: Picture | None = field(default=None, repr=False)
    laws_from: int = 0
    verdict: Verdict | None = None

    @property
    def sentence(self) -> str:
        """Return the outcome in one sentence: g, or the acceleration, or why neither; a second one if the file is damaged."""
        return self._outcome + (f" The file is damaged: {self.damage}; do not trust the numbers." if self.damage else "")

    @property
    def breaks(self) -> list[Break]:
        """Where the motion breaks, the strongest first."""
        if self.track is None:
            return []
        measured = self.flight or self.pendulum or self.ramp
        return measured.breaks if measured else find_breaks(self.track.positions, self.track.times, self.track.sigma)

    @property
    def strength(self) -> NDArray[np.float64]:
        """Jump of motion between each frame and the next [standard errors], (T,); 0 where it cannot be told."""
        strength = np.zeros(self.count)
        if self.track is not None:
            for jump in jump_strength(self.track.positions, self.track.times, self.track.sigma):
                if jump is not None:
                    strength[jump.frame] = jump.strength
        return strength

    @property
    def law_over_time(self) -> NDArray[np.float64]:
        """Mean residual of constant acceleration in the optical flow around each frame, (T,); NaN where it was not read."""
        law = np.full(self.count, np.nan)
        if self.picture is not None and "field" in self.picture.maps:
            field = self.picture.maps["field"].float()
            first = 1 + self.laws_from
            part = law[first : first + len(field)]
            part[:] = field.flatten(1).mean(1).numpy()[: len(part)]
        return law

    def curves(self) -> Curves:
        """Return velocity, acceleration, energy and momentum over time, in metres where there is a scale.

        Raises:
            InputError: nothing was tracked.
        """
        if self.track is None:
            raise InputError(f"{self.name}: nothing was tracked, so there are no curves of its motion")
        metres = None if self.gravity is None else self.gravity.scale.metres_per_pixel
        pull = None
        if self.pendulum is not None:
            pull = self.pendulum.pull
        elif self.flight is not None:
            pull = self.flight.acceleration
        return Curves.of(self.track, self.breaks, pull, metres)

    @property
    def _outcome(self) -> str:
        if self.gravity is not None:
            return self.gravity.sentence
        measured = self.pendulum or (None if self.reason else self.ramp)
        if measured is not None:
            return measured.sentence
        if self.reason:
            return self.reason[0].upper() + self.reason[1:] + "."
        return (
            self.flight.sentence[0].upper() + self.flight.sentence[1:] + "."
            if self.flight is not None
            else "Nothing was measured."
        )

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary for metrics.json."""
        content: dict[str, Any] = {
            "name": self.name,
            "fps": self.fps,
            "frames": self.count,
            "width": self.size[0],
            "height": self.size[1],
            "motion": self.kind,
            "outcome": "failed" if self.failed else ("not measured" if self.reason else "measured"),
            "reason": self.reason,
            "sentence": self.sentence,
            "damage": self.damage,
            "notes": self.notes,
            "laws": [law.to_json() for law in self.laws],
        }
        if self.track is not None:
            content["camera"] = self.track.camera.sentence
            content["timeline"] = {
                "jump_standard_errors": [round(float(x), 2) for x in self.strength],
                "breaks": [{"frames": [b.frame, b.frame + 1], "standard_errors": b.strength} for b in self.breaks],
            }
            content["track"] = {
                "unit": "px",
                "sigma": self.track.sigma,
                "times": self.track.times.tolist(),
                "ends": list(self.track.ends),
                "positions": [[round(x, 3) for x in p] for p in self.track.positions.tolist()],
                "frames_used": int(self.track.seen.sum()),
                "frames_cut": {str(k): why for k, why in self.track.cut.items()},
            }
        if self.flight is not None:
            content["flight"] = self.flight.to_json()
        if self.gravity is not None:
            content["gravity"] = self.gravity.to_json()
        content["score"] = None if self.verdict is None else self.verdict.score
        content["why"] = f"Not scored: {self.reason}." if self.verdict is None else self.verdict.sentence
        content["findings"] = [] if self.verdict is None else [f.__dict__ for f in self.verdict.findings]
        for name, measured in (("pendulum", self.pendulum), ("ramp", self.ramp)):
            if measured is not None:
                content[name] = measured.to_json()
        return finite(content)


def measure_recording(path: str | Path, settings: Settings = Settings(), name: str = "") -> Recording:
    """Measure one video file; what cannot be measured comes back with its reason instead of an exception.

    ``name`` is what it is called in reports; empty: its file name.

    Example::

        result = measure_recording("throw.mp4", Settings(object_size=0.067))
        print(result.sentence)
    """
    name = name or Path(path).name
    try:
        video = read_video(path, settings.max_frames, damaged=True, frame_rate=settings.frame_rate)
    except InputError as error:
        return Recording(name, reason=str(error), failed=True)
    return replace(measure_frames(video.frames, video.timestamps, settings, name), damage=video.damage)


def measure_frames(
    frames: UInt8[Tensor, "T 3 H W"],
    times: Float[Tensor, " T"],
    settings: Settings = Settings(),
    name: str = "clip",
) -> Recording:
    """Measure decoded frames with their timestamps [s] (of playback; the time scale is applied here)."""
    if not settings.time_scale > 0:
        raise InputError(f"the time scale must be positive, not {settings.time_scale}; 0.25 means slowed down four times")
    cv2.setNumThreads(1)
    times = times * settings.time_scale
    span = float(times[-1] - times[0])
    small = reduced(frames)
    result = Recording(name, (len(times) - 1) / span, len(times), (frames.shape[3], frames.shape[2]), picture=Picture(small))
    cut = find_cut(small)
    if cut is not None:
        words = f"the clip cuts to another scene after frame {cut}; measure its shots one by one"
        return replace(result, reason=words, verdict=Verdict([Finding("cuts", 1.0, cut, words)]))
    try:
        track = track_object(frames, times, small)
        notes = _notes(track)
        result = replace(result, track=track, notes=notes)
        motion = measure_motion(track, _known(settings), settings.motion)
        notes = notes + ([] if motion.flight is None else _flight_notes(motion.flight)) + motion.notes
        result = replace(
            result,
            kind=motion.kind,
            flight=motion.flight,
            gravity=motion.gravity,
            pendulum=motion.pendulum,
            ramp=motion.ramp,
            reason=motion.reason,
            notes=notes,
        )
        result = replace(result, verdict=judge(track, motion, result.breaks))
    except Unmeasurable as error:
        result = replace(result, reason=str(error))
    if result.track is not None:
        result = replace(result, picture=Picture(overlay(small, result.track, _used(result))))
    return _with_laws(result, small) if settings.laws else result


def _used(result: Recording) -> list[int]:
    measured = result.flight or result.pendulum or result.ramp
    return [] if measured is None else measured.frames.tolist()


def _known(settings: Settings) -> Scales:
    if settings.motion not in KINDS:
        raise InputError(f"the motion {settings.motion!r} is not known; choose one of {', '.join(KINDS)}")
    scale = size = angle = None
    if settings.metres_per_pixel is not None:
        if not settings.metres_per_pixel > 0:
            raise InputError(f"metres per pixel must be positive, not {settings.metres_per_pixel}")
        scale = Scale(settings.metres_per_pixel, settings.scale_error, f"{settings.metres_per_pixel:.3g} m/px as given")
    if settings.object_size is not None:
        size = (settings.object_size, settings.object_size_error)
    if settings.ramp_angle is not None:
        if not 0 <= settings.ramp_angle < 90:
            raise InputError(f"the ramp's angle must be 0 (level) to 90 degrees, not {settings.ramp_angle}")
        source = f"at {settings.ramp_angle:g} degrees as given" if settings.ramp_angle else "on a level surface, as given"
        angle = Angle(settings.ramp_angle, settings.ramp_angle_error, source)
    return Scales(scale, size, angle, settings.timing_error, settings.level)


def _notes(track: Track) -> list[str]:
    camera = track.camera.sentence
    notes = [camera[0].upper() + camera[1:] + "."]
    if track.cut:
        why: dict[str, list[int]] = {}
        for k, reason in sorted(track.cut.items()):
            why.setdefault(reason, []).append(k)
        notes += [f"Cut, not interpolated: frames {', '.join(map(str, ks))}: {reason}." for reason, ks in why.items()]
    return notes


def _flight_notes(flight: Flight) -> list[str]:
    notes = [f"The motion breaks: {b.sentence}." for b in flight.breaks]
    notes += [f"Left out of the fit: frame {k}, which alone stands off the path." for k in flight.displaced]
    for first, last, vertical in flight.others:
        notes.append(
            f"Frames {first} to {last}, on the other side of a break, give {vertical:.0f} px/s^2 by a plain parabola; listed, "
            "not pooled."
        )
    if flight.readout > 0.1:
        notes.append(
            f"The frames look exposed by a rolling shutter that reads the image in {flight.readout:.0%} of the frame time."
        )
    return notes


def _with_laws(result: Recording, small: Tensor) -> Recording:
    """Read the laws over the flight (at most 96 frames of it), or over the clip's first 96 frames if there is no flight."""
    measured = result.flight or result.ramp
    first, last = (0, len(small) - 1) if measured is None else (int(measured.frames[0]), int(measured.frames[-1]))
    last = min(last, first + 95)
    part = reduced(small[first : last + 1], 192).float() / 255
    masks = None if measured is None or result.track is None else _masks(result.track, first, last, part.shape[2:])
    reading = read_laws(part, result.fps, masks)
    notes = list(result.notes)
    if masks is not None and result.track is not None:
        step = np.linalg.norm(np.diff(result.track.positions[first : last + 1], axis=0), axis=1)
        if np.nanmedian(step) > np.nanmedian(result.track.width):
            notes.append(
                "The object moves farther than its own width per frame, which optical flow cannot follow: trust the track, not "
                "the laws."
            )
    maps = {"flow": reading.flow} if reading.field is None else {"flow": reading.flow, "field": reading.field}
    picture = result.picture if result.picture is not None else Picture(small)
    maps["frames"] = (part * 255).to(torch.uint8)
    return replace(result, laws=reading.scores, notes=notes, picture=Picture(picture.frames, None, maps), laws_from=first)


def _masks(track: Track, first: int, last: int, shape: torch.Size) -> Tensor:
    """Return the tracked object as the ellipse of its bounding box at a reduced size, (T, 1, h, w), bool; empty where it was
    not found."""
    height, width = shape
    scale = np.array([width / track.size[0], height / track.size[1]])
    masks = torch.zeros(last - first + 1, 1, height, width, dtype=torch.bool)
    ys, xs = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    for k in range(first, last + 1):
        if track.seen[k]:
            x, y = track.boxes[k][:2] * scale
            w, h = track.boxes[k][2:] * scale
            masks[k - first, 0] = ((xs - x - w / 2) / (w / 2)) ** 2 + ((ys - y - h / 2) / (h / 2)) ** 2 <= 1
    return masks
