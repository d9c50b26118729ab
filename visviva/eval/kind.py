"""What kind of motion a track shows, and its measurement: a fall or throw, a pendulum, a slide or roll along a straight path.

Recognised from the longest stretch without breaks: an object that turns back at least twice, or turns back and fits no
parabola, is tried as a pendulum; one that moves along a straight line less steep than 75 degrees as a slide; everything else as
a flight. What fits none of them is refused, with the reason of the likeliest.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from visviva.eval.breaks import find_breaks
from visviva.eval.flight import Flight, measure_flight
from visviva.eval.gravity import Gravity, Scale, measure_gravity, scale_from_object
from visviva.eval.pendulum import Pendulum, measure_pendulum, turns
from visviva.eval.ramp import Angle, Line, Ramp, measure_ramp
from visviva.eval.track import Track, Unmeasurable

KINDS = ("auto", "fall", "pendulum", "ramp")
STEEPEST = 75.0
"""Inclination [deg] above which straight motion is a fall, not a slide."""


@dataclass(frozen=True)
class Scales:
    """What is known of the scene: a scale, or an object's size [m] to make it from (and its relative error), and an angle."""

    scale: Scale | None = None
    size: tuple[float, float] | None = None
    angle: Angle | None = None
    timing_error: float = 0.005
    level: float = 0.95


@dataclass(frozen=True)
class Motion:
    """The kind of a motion with its measurement; ``reason`` says why none, empty if there is one."""

    kind: str
    flight: Flight | None = None
    gravity: Gravity | None = None
    pendulum: Pendulum | None = None
    ramp: Ramp | None = None
    reason: str = ""
    notes: list[str] = field(default_factory=list)


def likely_kind(track: Track) -> str:
    """Return the kind that the path looks like: ``pendulum``, ``ramp`` or ``fall``."""
    if turns(track) >= 2:
        return "pendulum"
    line = Line.of(track, find_breaks(track.positions, track.times, track.sigma))
    return "ramp" if line.straight(track.sigma) and line.inclination < STEEPEST else "fall"


def measure_motion(track: Track, known: Scales, kind: str = "auto") -> Motion:
    """Measure a track as the kind that it is, or as the ``kind`` that is forced; what cannot be measured has its reason.

    Example::

        measure_motion(track, Scales(size=(0.067, 0.015))).gravity
    """
    if kind != "auto":
        return _try(track, known, kind)
    likely = likely_kind(track)
    motion = _try(track, known, likely)
    turned = turns(track) >= 1
    if motion.reason and motion.flight is None and motion.ramp is None and likely != "pendulum" and turned:
        swing = _try(track, known, "pendulum")
        return motion if swing.reason else swing
    if motion.reason and likely == "pendulum":
        fall = _try(track, known, "fall")
        return motion if fall.reason else fall
    return motion


def _try(track: Track, known: Scales, kind: str) -> Motion:
    try:
        if kind == "pendulum":
            return _swing(track, known)
        if kind == "ramp":
            frames = Line.of(track, find_breaks(track.positions, track.times, track.sigma)).frames
            ramp = measure_ramp(track, _scale(track, frames, known), known.angle, known.timing_error, known.level)
            return Motion("ramp", ramp=ramp, reason=ramp.sentence.rstrip(".") if ramp.reason else "")
        flight = measure_flight(track)
    except Unmeasurable as error:
        return Motion(kind, reason=str(error))
    scale = _scale(track, flight.frames, known)
    if scale is None:
        return Motion("fall", flight, reason=flight.sentence if flight.drifting else "")
    try:
        return Motion("fall", flight, measure_gravity(track, flight, scale, known.timing_error, known.level))
    except Unmeasurable as error:
        return Motion("fall", flight, reason=str(error))


def _swing(track: Track, known: Scales) -> Motion:
    swing = measure_pendulum(track, known.timing_error, known.level)
    scale = _scale(track, swing.frames, known)
    notes = []
    if scale is not None:
        arm = swing.arm * scale.metres_per_pixel
        notes.append(
            f"By the scale ({scale.source}) the arm from pivot to object is {arm:.3f} m; by its period {swing.length:.3f} m."
        )
    return Motion("pendulum", pendulum=swing, notes=notes)


def _scale(track: Track, frames: object, known: Scales) -> Scale | None:
    if known.scale is not None:
        return known.scale
    return None if known.size is None else scale_from_object(track, frames, *known.size)  # type: ignore[arg-type]
