"""Masses, centres and inertias of human body segments: de Leva (1996), J. Biomech. 29(9), adjusted Zatsiorsky-Seluyanov data.

Reference adults: women of 61.9 kg and 1.735 m, men of 73.0 kg and 1.741 m. The numbers were checked against two transcriptions
and by summation. Between the sexes everything is interpolated linearly.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError, closest

MASS = (61.9, 73.0)
"""Mass of the reference woman and man [kg]."""
STATURE = (1.735, 1.741)
"""Stature of the reference woman and man [m]."""

SEGMENTS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "head": ((200.2, 6.68, 58.94, 33.0, 35.9, 31.8), (203.3, 6.94, 59.76, 36.2, 37.6, 31.2)),
    "head_neck": ((243.7, 6.68, 48.41, 27.1, 29.5, 26.1), (242.9, 6.94, 50.02, 30.3, 31.5, 26.1)),
    "trunk_suprasternale": ((529.3, 42.57, 41.51, 35.7, 33.9, 17.1), (531.9, 43.46, 44.86, 37.2, 34.7, 19.1)),
    "trunk": ((614.8, 42.57, 49.64, 30.7, 29.2, 14.7), (603.3, 43.46, 51.38, 32.8, 30.6, 16.9)),
    "trunk_shoulder": ((497.9, 42.57, 37.82, 37.9, 36.1, 18.2), (515.5, 43.46, 43.10, 38.4, 35.8, 19.7)),
    "upper_trunk_suprasternale": ((142.5, 15.45, 20.77, 74.6, 50.2, 71.8), (170.7, 15.96, 29.99, 71.6, 45.4, 65.9)),
    "upper_trunk": ((228.0, 15.45, 50.50, 46.6, 31.4, 44.9), (242.1, 15.96, 50.66, 50.5, 32.0, 46.5)),
    "mid_trunk": ((205.3, 14.65, 45.12, 43.3, 35.4, 41.5), (215.5, 16.33, 45.02, 48.2, 38.3, 46.8)),
    "lower_trunk": ((181.5, 12.47, 49.20, 43.3, 40.2, 44.4), (145.7, 11.17, 61.15, 61.5, 55.1, 58.7)),
    "upper_arm": ((275.1, 2.55, 57.54, 27.8, 26.0, 14.8), (281.7, 2.71, 57.72, 28.5, 26.9, 15.8)),
    "forearm": ((264.3, 1.38, 45.59, 26.1, 25.7, 9.4), (268.9, 1.62, 45.74, 27.6, 26.5, 12.1)),
    "hand": ((78.0, 0.56, 74.74, 53.1, 45.4, 33.5), (86.2, 0.61, 79.00, 62.8, 51.3, 40.1)),
    "hand_fingertip": ((170.1, 0.56, 34.27, 24.4, 20.8, 15.4), (187.9, 0.61, 36.24, 28.8, 23.5, 18.4)),
    "thigh": ((368.5, 14.78, 36.12, 36.9, 36.4, 16.2), (422.2, 14.16, 40.95, 32.9, 32.9, 14.9)),
    "shank_malleolus": ((432.3, 4.81, 44.16, 27.1, 26.7, 9.3), (434.0, 4.33, 44.59, 25.5, 24.9, 10.3)),
    "shank": ((438.6, 4.81, 43.52, 26.7, 26.3, 9.2), (440.3, 4.33, 43.95, 25.1, 24.6, 10.2)),
    "foot": ((228.3, 1.29, 40.14, 29.9, 27.9, 13.9), (258.1, 1.37, 44.15, 25.7, 24.5, 12.4)),
}
"""For women and for men: length [mm]; mass [% of the body]; centre of mass from the first end, radii of gyration about it
around the sagittal (fore-aft), transverse (left-right) and longitudinal axis [% of the length].

Ends, first one first: head vertex - mid-gonion, head_neck vertex - C7, trunk C7 (or suprasternale, mid-shoulder) - mid-hip,
upper_trunk C7 (or suprasternale) - xiphoid, mid_trunk xiphoid - omphalion, lower_trunk omphalion - mid-hip, upper_arm shoulder
- elbow, forearm elbow - wrist, hand wrist - third metacarpale (or fingertip), thigh hip - knee, shank knee - ankle (or lateral
malleolus), foot heel - toe tip. The longitudinal axis runs from end to end, that of the foot from heel to toe.
"""

WHOLE = {"head_neck": 1, "upper_trunk": 1, "mid_trunk": 1, "lower_trunk": 1, "upper_arm": 2, "forearm": 2, "hand": 2}
WHOLE |= {"thigh": 2, "shank": 2, "foot": 2}
"""The segments that make up a body, and how many it has of each."""


@dataclass(frozen=True)
class Segment:
    """One row of the table for one sex, as shares.

    Attributes:
        length: of the reference adult [m].
        mass: share of the body's.
        com: distance of the centre of mass from the first end, share of the length.
        radii: of gyration about the centre of mass around the sagittal, transverse and longitudinal axis, shares of the length.
    """

    length: float
    mass: float
    com: float
    radii: tuple[float, float, float]


def reference(pair: tuple[float, float], sex: float = 0.5) -> float:
    """Return a value between that of women (sex 0) and of men (1).

    Raises:
        InputError: a sex outside 0 to 1.
    """
    if not 0 <= sex <= 1:
        raise InputError(f"sex is {sex}; it goes from 0 (female) to 1 (male)")
    return (1 - sex) * pair[0] + sex * pair[1]


def adult_mass(stature: float | Tensor, sex: float = 0.5) -> float | Tensor:
    """Return the mass [kg] of de Leva's adult, the body mass index kept at another stature [m].

    Example::

        adult_mass(1.80)  # 72.3 kg, between woman and man
    """
    return reference(MASS, sex) * (stature / reference(STATURE, sex)) ** 2


def segment(name: str, sex: float = 0.5) -> Segment:
    """Return a row of the table.

    Args:
        name: one of `SEGMENTS`.
        sex: 0 female, 1 male, between them interpolated.

    Raises:
        InputError: no such segment, a sex outside 0 to 1.

    Example::

        segment("thigh", 1.0).com  # 0.4095: from the hip
    """
    if name not in SEGMENTS:
        raise InputError(f"no segment {name!r} in de Leva's table{closest(name, SEGMENTS)}; it has {', '.join(SEGMENTS)}")
    row = [reference(pair, sex) for pair in zip(*SEGMENTS[name], strict=True)]
    return Segment(row[0] / 1000, row[1] / 100, row[2] / 100, (row[3] / 100, row[4] / 100, row[5] / 100))


def principal_axes(along: Float[Tensor, "3"], fore: Float[Tensor, "3"]) -> Float[Tensor, "3 3"]:
    """Return the sagittal, transverse and longitudinal axis of a segment as columns.

    Args:
        along: where it points to, of any length.
        fore: what is fore-aft for it; only what is perpendicular to ``along`` counts.

    Raises:
        InputError: the two are parallel within three degrees, or of no length.
    """
    size = along.norm()
    far = along / size.clamp(min=1e-12)
    across = fore / fore.norm() - (far @ fore) / fore.norm() * far
    if not bool(size > 1e-6) or not bool(across.norm() > 0.05):
        raise InputError("a segment of no length, or one that lies along its own fore-aft axis, has no principal axes")
    sagittal = across / across.norm()
    return torch.stack([sagittal, torch.linalg.cross(far, sagittal), far], -1)


def segment_inertia(
    row: Segment, mass: Tensor | float, length: Tensor | float, axes: Float[Tensor, "3 3"]
) -> Float[Tensor, "3 3"]:
    """Return the inertia about the centre of mass, ``m L^2 A diag(r^2) A^T`` [kg m^2].

    Args:
        row: radii of gyration.
        mass: of the segment [kg].
        length: of the segment [m].
        axes: its axes in the frame wanted, from `principal_axes`.

    Example::

        segment_inertia(segment("thigh"), 10.0, 0.4, torch.eye(3))
    """
    return mass * length**2 * (axes * axes.new_tensor(row.radii).square()) @ axes.mT
