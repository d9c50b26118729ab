"""From a file's units and axes to metres, z up, right-handed: what is detected, what is changed, what is refused.

Units are told from the size of the body: the windows in which a person of 1.25 to 2.15 m falls for metres, feet, decimetres,
the units of the CMU BVH files (5.644 cm), inches, centimetres and millimetres do not overlap. A body between them is scaled to
1.70 m, and that is said. The up axis is the one along which the head (or the highest joint of the trunk) stands above the feet.
Whether axes are left-handed is told from left, right and the way the toes point; that cannot be told from exchanged names, so
such a file is refused until one says which it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from visviva.data.motions.anatomy import feet, parts
from visviva.errors import InputError

UNITS = {"m": 1.0, "ft": 0.3048, "dm": 0.1, "cmu": 0.056444, "inch": 0.0254, "cm": 0.01, "mm": 0.001}
"""Metres per unit."""
SPELLED = {"meters": "m", "metres": "m", "meter": "m", "metre": "m", "in": "inch", "inches": "inch", "millimeters": "mm"}
SPELLED |= {"centimeters": "cm", "millimetres": "mm", "centimetres": "cm", "feet": "ft"}
STATURES = (1.25, 2.15)
ASSUMED = 1.70
PLAUSIBLE = (1.0, 2.5)
"""Statures beyond which a body in stated units is said to measure that [m]: a child, a prop, or the wrong units."""
UP = {"x": 0, "y": 1, "z": 2}


@dataclass(frozen=True)
class Reading:
    """How a file is to be read where it does not say: None detects.

    Attributes:
        units: one of m, cm, mm, inch, ft, dm, cmu.
        stature: height of the person [m], from which the scale follows, instead of ``units``.
        up: x, y or z, with a minus for down axes, such as ``-y``.
        hand: ``right``: take the axes for right-handed, whatever the names say; ``left``: mirror them.
        fps: frames per second.
    """

    units: str | None = None
    stature: float | None = None
    up: str | None = None
    hand: str | None = None
    fps: float | None = None

    def __post_init__(self) -> None:
        """Refuse unknown words."""
        if self.units is not None and self.units not in UNITS:
            raise InputError(f"unknown units {self.units!r}; known: {', '.join(UNITS)}")
        if self.stature is not None and not (self.units is None and 0.3 <= self.stature <= 3):
            raise InputError(f"a stature of {self.stature} m: 0.3 to 3 m are allowed, and not together with units")
        if self.up is not None and self.up.lstrip("-") not in UP:
            raise InputError(f"unknown up axis {self.up!r}; known: x, y, z, -x, -y, -z")
        if self.hand not in (None, "left", "right"):
            raise InputError(f"unknown hand {self.hand!r}; known: left, right")
        if self.fps is not None and not 0 < self.fps < float("inf"):
            raise InputError(f"a frame rate of {self.fps} is not positive; give frames per second")


def rate_of(stored: Mapping[str, Any], keys: Sequence[str]) -> float | None:
    """Return the first of these frame rates that arrays hold, a number; None where they hold none."""
    for key in keys:
        values = np.asarray(stored.get(key, ())).ravel()
        if values.size and values.dtype.kind in "fiu":
            return float(values[0])
    return None


def overruled(reading: Reading, own: float | None, whose: str = "the file says") -> list[str]:
    """Return the note that the frame rate given goes before the file's own, where they differ by more than 0.1 %."""
    if reading.fps is None or own is None or not 0 < own < math.inf or abs(reading.fps / own - 1) <= 1e-3:
        return []
    return [f"frame rate: {reading.fps:.6g} frames/s, as given; {whose} {own:.6g}"]


def stature(positions: Float[Tensor, "T J 3"], names: tuple[str, ...]) -> tuple[float, bool]:
    """Return the height of the body in the file's units, and whether names gave it.

    With named legs: ankle to knee to hip, median over frames, divided by its share of stature (0.485, de Leva's table 4: thigh
    and shank against 1.735 and 1.741 m); else the median distance of the two points farthest from each other.
    """
    found, legs = parts(names), []
    for side in ("left", "right"):
        chain = [found.get(f"{side}_{part}") for part in ("ankle", "knee", "hip")]
        if None not in chain:
            points = positions[:, [k for k in chain if k is not None]]
            legs.append(float(points.diff(dim=1).norm(dim=-1).sum(-1).median()))
    if legs:
        return sum(legs) / len(legs) / 0.485, True
    few = positions[:: max(1, len(positions) // 64)]
    return float(torch.cdist(few, few).flatten(1).amax(1).median()), False


def scale_of(
    positions: Float[Tensor, "T J 3"], names: tuple[str, ...], reading: Reading, declared: str | None, where: str
) -> tuple[float, str]:
    """Return the metres per unit of the positions and the sentence about it.

    Args:
        declared: the unit that the file states; what the reader's user says goes before it.

    Raises:
        InputError: the size of the body fits no unit, contradicts the declared one, or changes within the file.
    """
    _same_throughout(positions, where)
    size, named = stature(positions, names)
    if not size > 0:
        raise InputError(f"{where}: all joints are at one point; the file holds no body")
    if reading.stature is not None:
        return reading.stature / size, f"scale: {reading.stature / size:.4g} m per unit, from the stature given"
    low, high = STATURES if named else (0.8, 2.6)
    fitting = [unit for unit, metres in UNITS.items() if low <= size * metres <= high]
    stated = reading.units or declared
    if stated is not None:
        _believable(size * UNITS[stated], stated, fitting, size, where)
        return UNITS[stated], f"units: {stated}, as given" + _odd(size * UNITS[stated], named)
    usual = ("m", "cm", "mm")
    if fitting:
        best = min(fitting, key=lambda unit: (unit not in usual, abs(size * UNITS[unit] - ASSUMED)))
        return UNITS[best], f"units: {best}, from the size of the body ({size:.4g} in the file is {size * UNITS[best]:.2f} m)"
    near = min(usual, key=lambda unit: abs(math.log(size * UNITS[unit] / ASSUMED)))
    if 0.6 <= size * UNITS[near] <= 3:
        return UNITS[
            near
        ], f"units: {near}, assumed; the body then measures {size * UNITS[near]:.2f} m (--units says otherwise)"
    if named:
        said = (
            f"units: unknown; a body of {size:.4g} is scaled to {ASSUMED:.2f} m, assumed (--stature or --units says otherwise)"
        )
        return ASSUMED / size, said
    raise InputError(f"{where}: a body of {size:.4g} units fits no known unit; give it (--units {', '.join(UNITS)})")


def _believable(measured: float, stated: str, fitting: list[str], size: float, where: str) -> None:
    if not 0.2 <= measured <= 4 and fitting:
        raise InputError(
            f"{where}: the units are given as {stated}, but then the body measures {measured:.3g} m; as {fitting[0]} it would "
            f"be {size * UNITS[fitting[0]]:.2f} m: give the right ones (--units {fitting[0]})"
        )


def _odd(measured: float, named: bool) -> str:
    """What is said of a body whose units were stated and whose size is none of a grown person."""
    if PLAUSIBLE[0] <= measured <= PLAUSIBLE[1]:
        return ""
    return f"; {'the body then measures' if named else 'its points then span'} {measured:.3g} m"


def _same_throughout(positions: Tensor, where: str) -> None:
    """Refuse files whose frames or bodies change scale: millimetres here, metres there."""
    spread = (positions - positions.median(1, keepdim=True).values).norm(dim=-1).median(1).values
    typical = spread.median()
    odd = ((spread > 30 * typical) | (spread < typical / 30)) & (typical > 0)
    if bool(odd.any()):
        frame = int(odd.nonzero()[0, 0])
        raise InputError(
            f"{where}: the body's size in frame {frame} is {float(spread[frame] / typical):.3g} times that of most frames; "
            "units are mixed: write the whole file in one unit"
        )


def up_axis(positions: Float[Tensor, "T J 3"], names: tuple[str, ...], usual: str) -> tuple[str, str]:
    """Return the up axis and the sentence about it: where the head stands above the feet, else what is usual for the format.

    A body that travels along that axis crawls or swims rather than stands. One that lies still all the time cannot be told from
    one that stands: give the axis.
    """
    found, low = parts(names), feet(names)
    high = [found[part] for part in ("head", "neck", "left_shoulder", "right_shoulder") if part in found][:1]
    high = high or [found[part] for part in ("left_hip", "right_hip", "pelvis") if part in found]
    if not low or not high:
        return usual, f"up axis: {usual}, as usual for this format (no names of head and feet to tell it from)"
    rise = positions[:, high].mean(1) - positions[:, low].mean(1)
    mean = (rise / rise.norm(dim=-1, keepdim=True).clamp(min=1e-9)).mean(0)
    axis = int(mean.abs().argmax())
    name = ("-" if mean[axis] < 0 else "") + "xyz"[axis]
    lowest = (positions[..., axis] * mean[axis].sign()).amin(1)
    stands = float(mean[axis].abs()) > 0.7 and float(lowest.std()) < 0.15 * float(rise.norm(dim=-1).median())
    if name != usual and not stands:
        return usual, f"up axis: {usual}, as usual for this format (the body does not stand)"
    return name, f"up axis: {name}" + ("" if name == usual else f", because the body stands along it (usual would be {usual})")


def given_up(positions: Float[Tensor, "T J 3"], names: tuple[str, ...], up: str) -> str:
    """Return the sentence about an up axis that was given: also where the body does not stand along it."""
    found, _ = up_axis(positions, names, up)
    odd = f"; but the body stands along {found} (or lies along it)"
    return f"up axis: {up}, as given" + (odd if found != up else "")


def upright(up: str) -> Float[Tensor, "3 3"]:
    """Return the rotation (determinant +1) that takes an up axis to +z: y up becomes (x, -z, y).

    >>> upright("y") @ torch.tensor([0.0, 1.0, 0.0])
    tensor([0., 0., 1.])
    """
    axis, sign = UP[up.lstrip("-")], -1.0 if up.startswith("-") else 1.0
    rotation = torch.zeros(3, 3)
    rotation[2, axis] = sign
    rotation[0, (axis + 2) % 3 if axis == 1 else (axis + 1) % 3] = 1.0
    rest = ({0, 1, 2} - {axis, int(rotation[0].argmax())}).pop()
    rotation[1, rest] = 1.0
    rotation[1, rest] = float(torch.det(rotation).round())
    return rotation


def mirrored(positions: Float[Tensor, "T J 3"], names: tuple[str, ...]) -> float | None:
    """Return how surely left is left: the mean of (left - right) . (up x forward), normalised; negative where it is mirrored.

    Positions are z up. None where hips (or shoulders) or toes and heels (or ankles) of both sides are not named, or where the
    body hardly ever has its hips level and its toes ahead: who lies is not asked.
    """
    found = parts(names)
    pair = next((p for p in ("hip", "shoulder", "knee") if {f"left_{p}", f"right_{p}"} <= found.keys()), None)
    back = next((p for p in ("heel", "ankle") if {f"left_{p}", f"right_{p}"} <= found.keys()), None)
    if pair is None or back is None or not {"left_toe", "right_toe"} <= found.keys():
        return None
    left = positions[:, found[f"left_{pair}"]] - positions[:, found[f"right_{pair}"]]
    toes = [positions[:, found[f"{s}_toe"]] - positions[:, found[f"{s}_{back}"]] for s in ("left", "right")]
    level = [(v / v.norm(dim=-1, keepdim=True).clamp(min=1e-9))[:, :2] for v in (left, toes[0] + toes[1])]
    stands = (level[0].norm(dim=-1) > 0.5) & (level[1].norm(dim=-1) > 0.5)
    if float(stands.double().mean()) < 0.1:
        return None
    left, ahead = (v[stands] / v[stands].norm(dim=-1, keepdim=True) for v in level)
    return float((left[:, 1] * ahead[:, 0] - left[:, 0] * ahead[:, 1]).mean())  # (z x a) = (-a_y, a_x)


def exchanged(positions: Float[Tensor, "T J 3"], names: tuple[str, ...]) -> bool:
    """Return whether in most frames the side named left is on the right of where the toes point."""
    sure = mirrored(positions, names)
    return sure is not None and sure < -0.4


def handed(positions: Float[Tensor, "T J 3"], names: tuple[str, ...], where: str) -> None:
    """Refuse a motion whose left is right.

    Raises:
        InputError: the names say so in most frames.
    """
    if exchanged(positions, names):
        raise InputError(
            f"{where}: left is right: the toes point so that the left side is on the right; the axes are left-handed (mirror "
            "them with --hand left) or the names are exchanged (take them as they are with --hand right)"
        )
