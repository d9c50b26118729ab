"""Any file's joints or markers as a `HumanMotion`: units, up axis and handedness found, or taken from what the user says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.data.motions.axes import (
    Reading,
    exchanged,
    given_up,
    handed,
    mirrored,
    scale_of,
    up_axis,
    upright,
)
from visviva.data.motions.motion import HumanMotion, Plate, cut_plates, filled
from visviva.data.motions.plausible import jumps, mixed, near
from visviva.errors import InputError

SHOWN = 4
CONTRADICTED = (
    "left and right: their names contradict the way the toes point once mirrored (--hand left); unmirrored they agree"
)


def to_world(
    positions: Float[Tensor, "T J 3"],
    names: Sequence[str],
    parents: Sequence[int],
    fps: float,
    source: str,
    *,
    reading: Reading | None = None,
    usual_up: str = "y",
    sure_up: bool = False,
    declared: str | None = None,
    rotations: Float[Tensor, "T J 3 3"] | None = None,
    rest: Float[Tensor, "J 3"] | None = None,
    notes: Sequence[str] = (),
    **further: Any,
) -> HumanMotion:
    """Return the motion in metres, z up, right-handed, with notes of what was found and changed.

    Args:
        positions: in the file's units and axes; points of markers that were hidden are not finite.
        source: the file, for messages.
        reading: what the user says of the file; it goes before what the file says and what is found.
        usual_up: the up axis where the body does not tell it; ``sure_up``: the format's, whatever the body does.
        declared: the units that the file states.
        further: other fields of `HumanMotion`; ``plates`` are in metres and the file's axes.

    Raises:
        InputError: joints that are not finite, mixed or unknown units, left-handed axes.
    """
    reading = reading or Reading()
    names, told = tuple(names), list(notes)
    plates, visible = tuple(further.pop("plates", ())), None
    if further.get("kind") == "markers":
        first, last = _recorded(positions, source)
        if last - first < len(positions):
            told.append(f"frames {first} to {last - 1} of {len(positions)} are kept: in the others most markers are hidden")
        plates = cut_plates(plates, fps, first, last)
        positions, names, visible, gaps = _seen(positions[first:last], names)
        told += gaps
    parents = tuple(parents) if visible is None else (-1,) * len(names)
    motion = HumanMotion(positions, names, parents, fps, source=source)  # refuses shapes and numbers that are none
    scale, said = scale_of(motion.positions, names, reading, declared, source)
    told.append(said)
    positions, rest = positions * scale, None if rest is None else rest * scale
    mixed(positions, fps, source)
    near(positions, source)
    told += jumps(positions, fps)
    up, said = _up(positions, names, reading, usual_up, sure_up)
    told.append(said)
    turn = upright(up).to(positions)
    plates = tuple(_turned(plate, turn) for plate in plates)
    positions = positions @ turn.T
    if rotations is not None:
        roots = torch.tensor([parent < 0 for parent in parents])[:, None, None]
        rotations = torch.where(roots, turn @ rotations, rotations)
    if reading.hand == "left":
        flip = torch.diag(positions.new_tensor([-1.0, 1.0, 1.0]))
        positions, rest = positions @ flip, None if rest is None else rest @ flip
        rotations = None if rotations is None else flip @ rotations @ flip
        plates = tuple(_turned(plate, flip.to(plate.force)) for plate in plates)
    told += _sides(positions, names, reading.hand, source)
    return HumanMotion(
        positions, names, parents, fps, rotations=rotations, rest=rest, visible=visible, plates=plates, source=source,
        notes=tuple(told), **further,
    )  # fmt: skip


def _sides(positions: Tensor, names: tuple[str, ...], hand: str | None, source: str) -> list[str]:
    """Return what is to be said of left and right, once mirrored where that was asked for; refuse what contradicts itself."""
    if hand == "left":
        return ["axes: left-handed, as given; mirrored", *([CONTRADICTED] if exchanged(positions, names) else [])]
    if hand is not None:
        return []
    handed(positions, names, source)
    unsure = mirrored(positions, names) is None
    return ["axes: right-handed" + (" (assumed: no hips and feet by name, or never upright)" if unsure else "")]


def _up(positions: Tensor, names: tuple[str, ...], reading: Reading, usual: str, sure: bool) -> tuple[str, str]:
    """Return the up axis and the sentence about it: the format's, the user's, or what is found."""
    if sure:
        return usual, f"up axis: {usual}, by the format"
    if reading.up:
        return reading.up, given_up(positions, names, reading.up)
    return up_axis(positions, names, usual)


def _recorded(positions: Tensor, source: str) -> tuple[int, int]:
    """Return the first frame and the one after the last in which half of the markers that are ever seen are seen."""
    seen = positions.isfinite().all(-1)
    ever = seen.any(0)
    if not bool(ever.any()):
        raise InputError(f"{source}: no marker is ever seen; export the labelled trial")
    frames = (seen[:, ever].double().mean(1) >= 0.5).nonzero()[:, 0]
    if not len(frames):
        raise InputError(f"{source}: never are half of the markers seen at once; export the labelled trial")
    return int(frames[0]), int(frames[-1]) + 1


def _turned(plate: Plate, turn: Tensor) -> Plate:
    turn = turn.to(plate.force)
    corners = None if plate.corners is None else plate.corners @ turn.T
    return Plate(plate.force @ turn.T, plate.centre @ turn.T, plate.fps, corners)


def _seen(positions: Tensor, names: tuple[str, ...]) -> tuple[Tensor, tuple[str, ...], Tensor, list[str]]:
    """Drop markers that were never seen, interpolate the others' gaps, and say both."""
    visible = positions.isfinite().all(-1)
    ever, told = visible.any(0), []
    lost = [name for name, seen in zip(names, ever.tolist(), strict=True) if not seen]
    if lost:
        told.append(f"never seen and left out: {_few(lost)}")
    names = tuple(name for name, seen in zip(names, ever.tolist(), strict=True) if seen)
    positions, visible = positions[:, ever], visible[:, ever]
    hidden = int((~visible).sum())
    if hidden:
        some = [name for name, whole in zip(names, visible.all(0).tolist(), strict=True) if not whole]
        told.append(f"hidden at times and interpolated in time ({hidden} places): {_few(some)}")
        positions = filled(positions.nan_to_num(0.0, 0.0, 0.0), visible)
    return positions, names, visible, told


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
