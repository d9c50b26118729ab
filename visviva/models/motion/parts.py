"""Ten body parts: which columns of a motion's features belong to which, in HumanML3D's 263 and in LMM's unified 669 numbers.

LMM (arXiv 2404.01284, code read) writes every data set's frame as 669 numbers of 52 joints (SMPL-H's order) and a face:

| columns | what | of HumanML3D's 263 |
|---|---|---|
| 0..3 | yaw (asin of the quaternion's y), root velocity x, z, root height | 0..3 |
| 4..156 | joints 1..51: positions, root-relative | 4..66 (joints 1..21) |
| 157..462 | joints 1..51: rotations, 6 numbers each | 67..192 |
| 463..618 | joints 0..51: velocities | 193..258 |
| 619..668 | expression of the face | none |

HumanML3D has no hands and no face: `unified` leaves their columns 0 and says that these parts are absent. Its four contacts
have no place in the 669; they follow from the velocities (`humanml3d_of`), exactly. In our 263 columns the contacts belong to
the legs. Left and right are the body's own (the release names them the other way round).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from visviva.errors import InputError

PARTS = (
    "root", "head", "trunk", "left_arm", "right_arm", "left_leg", "right_leg", "left_hand", "right_hand", "face",
)  # fmt: skip
JOINTS: dict[str, tuple[int, ...]] = {
    "head": (12, 15),
    "trunk": (3, 6, 9),
    "left_arm": (13, 16, 18, 20),
    "right_arm": (14, 17, 19, 21),
    "left_leg": (1, 4, 7, 10),
    "right_leg": (2, 5, 8, 11),
    "left_hand": tuple(range(22, 37)),
    "right_hand": tuple(range(37, 52)),
}
"""Joints of each part but the root (joint 0) and the face."""
CONTACT = 0.002
"""Squared displacement per frame at 20 frames/s below which a foot stands in HumanML3D [m^2]."""
ROTATIONS = ("ik", "smpl", "bvh")
"""What the rotation columns may hold: swings of inverse kinematics (HumanML3D), SMPL's, or a BVH file's."""


@dataclass(frozen=True)
class Layout:
    """The columns of one kind of features, by part.

    Attributes:
        name: of the layout.
        size: numbers per frame.
        columns: of each of the ten `PARTS`; () for a part that the layout does not have. No column stands twice, none is left.
        rotation: one of `ROTATIONS`.
    """

    name: str
    size: int
    columns: tuple[tuple[int, ...], ...]
    rotation: str = "ik"

    @property
    def present(self) -> tuple[int, ...]:
        """Indices of the parts that the layout has."""
        return tuple(i for i, columns in enumerate(self.columns) if columns)


def _layout(name: str, size: int, joints: int, starts: tuple[int, int, int], further: dict[str, tuple[int, ...]]) -> Layout:
    position, rotation, velocity = starts
    columns = []
    for part in PARTS:
        own = [0, 1, 2, 3, velocity, velocity + 1, velocity + 2] if part == "root" else []
        for j in (j for j in JOINTS.get(part, ()) if j < joints):
            own += [position + 3 * (j - 1) + k for k in range(3)]
            own += [rotation + 6 * (j - 1) + k for k in range(6)]
            own += [velocity + 3 * j + k for k in range(3)]
        columns.append((*own, *further.get(part, ())))
    return Layout(name, size, tuple(columns))


HUMANML3D = _layout("humanml3d", 263, 22, (4, 67, 193), {"left_leg": (259, 260), "right_leg": (261, 262)})
UNIFIED = _layout("unified", 669, 52, (4, 157, 463), {"face": tuple(range(619, 669))})
LAYOUTS = {layout.name: layout for layout in (HUMANML3D, UNIFIED)}


def layout(name: str) -> Layout:
    """Return a layout by name.

    Raises:
        InputError: an unknown one.
    """
    if name not in LAYOUTS:
        raise InputError(f"no layout {name!r} of motion features; known: {', '.join(LAYOUTS)}")
    return LAYOUTS[name]


def _pairs() -> tuple[list[int], list[int]]:
    """Columns of the 263 and of the 669 that hold the same number."""
    ours, theirs = list(range(4)), list(range(4))
    for start, other, width, count in ((4, 4, 3, 21), (67, 157, 6, 21), (193, 463, 3, 22)):
        ours += range(start, start + width * count)
        theirs += range(other, other + width * count)
    return ours, theirs


def unified(features: Float[Tensor, "*batch D"]) -> tuple[Float[Tensor, "*batch 669"], Bool[Tensor, " 10"]]:
    """Return HumanML3D's 263 features (not normalised) in LMM's 669 columns, and which parts are there.

    Raises:
        InputError: another number of columns.
    """
    _check(features, HUMANML3D)
    ours, theirs = _pairs()
    found = features.new_zeros(*features.shape[:-1], UNIFIED.size)
    found[..., theirs] = features[..., ours]
    there = torch.tensor([bool(columns) for columns in HUMANML3D.columns], device=features.device)
    return found, there


def humanml3d_of(features: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch 263"]:
    """Return the 263 columns of 669; contacts from the velocities of ankles and toes, the rest unchanged.

    Raises:
        InputError: another number of columns.
    """
    _check(features, UNIFIED)
    ours, theirs = _pairs()
    found = features.new_zeros(*features.shape[:-1], HUMANML3D.size)
    found[..., ours] = features[..., theirs]
    velocity = found[..., 193:259].unflatten(-1, (22, 3))[..., [7, 10, 8, 11], :]
    found[..., 259:] = (velocity.square().sum(-1) < CONTACT).to(features)
    return found


def _check(features: Tensor, wanted: Layout) -> None:
    if features.shape[-1] != wanted.size:
        raise InputError(f"features of {features.shape[-1]} columns; the layout {wanted.name!r} has {wanted.size}")
