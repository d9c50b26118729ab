"""One video file without ground truth, measured: track, flight, gravity where there is a scale, laws; or the reason why not."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from visviva.data.video import read_video
from visviva.errors import InputError
from visviva.eval.breaks import Break, find_breaks, jump_strength
from visviva.eval.continuity import find_cut
from visviva.eval.curves import Curves
from visviva.eval.flight import Flight
from visviva.eval.gravity import Gravity
from visviva.eval.kind import measure_motion
from visviva.eval.laws import LawScore
from visviva.eval.notes import flight_notes, track_notes
from visviva.eval.pendulum import Pendulum
from visviva.eval.pictures import overlay
from visviva.eval.ramp import Ramp
from visviva.eval.recording_laws import RecordingLaws
from visviva.eval.run import Picture
from visviva.eval.score import finite
from visviva.eval.settings import DEFAULT, Settings
from visviva.eval.track import Track, Unmeasurable, reduced, track_object
from visviva.eval.verdict import Finding, Verdict, judge

__all__ = ["Recording", "Settings", "measure_frames", "measure_recording"]


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
    def measured(self) -> Flight | Pendulum | Ramp | None:
        """The measured motion, of whatever kind."""
        return self.flight or self.pendulum or self.ramp

    @property
    def breaks(self) -> list[Break]:
        """Where the motion breaks, the strongest first."""
        if self.track is None:
            return []
        if self.measured is not None:
            return self.measured.breaks
        return find_breaks(self.track.positions, self.track.times, self.track.sigma)

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
        if self.gravity is not None:  # gravity and shutter of one fit: with drag
            metres = self.gravity.scale.metres_per_pixel
            pull = (self.gravity.roll * self.gravity.value / metres, self.gravity.value / metres)
            return Curves.of(self.track, self.breaks, pull, metres, self.gravity.readout)
        if self.flight is not None:
            return Curves.of(self.track, self.breaks, self.flight.acceleration, None, self.flight.readout)
        return Curves.of(self.track, self.breaks, None if self.pendulum is None else self.pendulum.pull)

    @property
    def _outcome(self) -> str:
        if self.gravity is not None:
            return self.gravity.sentence
        measured = self.pendulum or (None if self.reason else self.ramp)
        if measured is not None:
            return measured.sentence
        if self.reason:
            named = self.reason.split(" ", 1)[0].endswith(":")  # a file keeps its name
            return (self.reason if named else self.reason[0].upper() + self.reason[1:]) + "."
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
            content |= {"camera": self.track.camera.sentence, "timeline": self._timeline(), "track": self.track.to_json()}
        parts = {"flight": self.flight, "gravity": self.gravity, "pendulum": self.pendulum, "ramp": self.ramp}
        content |= {name: part.to_json() for name, part in parts.items() if part is not None}
        return finite(content | self._judgement())

    def _timeline(self) -> dict[str, Any]:
        return {
            "jump_standard_errors": [round(float(x), 2) for x in self.strength],
            "breaks": [{"frames": [b.frame, b.frame + 1], "standard_errors": b.strength} for b in self.breaks],
        }

    def _judgement(self) -> dict[str, Any]:
        if self.verdict is None:
            return {"score": None, "why": f"Not scored: {self.reason}.", "findings": []}
        findings = [finding.__dict__ for finding in self.verdict.findings]
        return {"score": self.verdict.score, "why": self.verdict.sentence, "findings": findings}


def measure_recording(path: str | Path, settings: Settings = DEFAULT, name: str = "") -> Recording:
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
    settings: Settings = DEFAULT,
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
    result = _with_motion(result, frames, times, small, settings)
    if result.track is not None:
        used = [] if result.measured is None else result.measured.frames.tolist()
        result = replace(result, picture=Picture(overlay(small, result.track, used)))
    return _with_laws(result, small) if settings.laws else result


def _with_motion(result: Recording, frames: Tensor, times: Tensor, small: Tensor, settings: Settings) -> Recording:
    """Track the object, measure its motion and judge it, or add the reason why that cannot be done."""
    try:
        track = track_object(frames, times, small)
        result = replace(result, track=track, notes=track_notes(track))
        motion = measure_motion(track, settings.scales(), settings.motion)
        of_flight = [] if motion.flight is None else flight_notes(motion.flight, motion.gravity)
        result = replace(
            result,
            kind=motion.kind,
            flight=motion.flight,
            gravity=motion.gravity,
            pendulum=motion.pendulum,
            ramp=motion.ramp,
            reason=motion.reason,
            notes=result.notes + of_flight + motion.notes,
        )
        return replace(result, verdict=judge(track, motion, result.breaks))
    except Unmeasurable as error:
        return replace(result, reason=str(error))


def _with_laws(result: Recording, small: Tensor) -> Recording:
    """Read the laws over the flight or slide, or over the clip's beginning if there is neither."""
    straight = result.flight or result.ramp
    read = RecordingLaws.of(small, result.fps, result.track, None if straight is None else straight.frames)
    shown = small if result.picture is None else result.picture.frames
    picture = Picture(shown, None, read.maps)
    return replace(result, laws=read.scores, notes=result.notes + read.notes, picture=picture, laws_from=read.first)
