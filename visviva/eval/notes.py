"""What a reader must know of a measurement, in sentences: what the camera did, what was left out, where motion breaks."""

from __future__ import annotations

from visviva.eval.flight import Flight
from visviva.eval.gravity import Gravity
from visviva.eval.track import Track


def track_notes(track: Track) -> list[str]:
    """Return what the camera did, and which frames were cut and why."""
    camera = track.camera.sentence
    notes = [camera[0].upper() + camera[1:] + "."]
    if track.cut:
        why: dict[str, list[int]] = {}
        for k, reason in sorted(track.cut.items()):
            why.setdefault(reason, []).append(k)
        notes += [f"Cut, not interpolated: frames {', '.join(map(str, ks))}: {reason}." for reason, ks in why.items()]
    return notes


def flight_notes(flight: Flight, gravity: Gravity | None = None) -> list[str]:
    """Return where the motion breaks, what the fit left out, and what the shutter did."""
    notes = [f"The motion breaks: {b.sentence}." for b in flight.breaks]
    notes += [f"Left out of the fit: frame {k}, which alone stands off the path." for k in flight.displaced]
    for first, last, vertical in flight.others:
        notes.append(
            f"Frames {first} to {last}, on the other side of a break, give {vertical:.0f} px/s^2 by a plain parabola; listed, "
            "not pooled."
        )
    notes += _shutter(flight, gravity)
    return notes


def _shutter(flight: Flight, gravity: Gravity | None) -> list[str]:
    """Say what the fit that the outcome rests on makes of the shutter, and beside it what the fit without drag does."""
    readout, sigma = flight.readout if gravity is None else gravity.readout
    if abs(readout) <= 0.1:
        return []
    also = "" if gravity is None else f", drag fitted too; {flight.readout[0]:.0%} +- {flight.readout[1]:.0%} if there is none"
    return [
        f"The frames look exposed by a rolling shutter that reads the image in {abs(readout):.0%} +- {sigma:.0%} of the frame "
        f"time{also}. The curves are drawn over the moments at which the object's rows were exposed."
    ]
