"""Skeletons of humans: names and parents of joints, and which of them bound which segment of the body."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError, closest


@dataclass(frozen=True)
class Skeleton:
    """Joints of a human, the first being the root.

    Attributes:
        names: of the joints, which are also those of the links that start there.
        parents: -1 for the root.
        welded: links that by default do not move against their parent.
        ends: of limbs, joints by name: each side's hip, knee, ankle, toe, shoulder, elbow, wrist, hand; toe and hand may lack.
        spine: joint at the base of the neck, and the topmost.
        owners: which links carry each segment of the trunk and head, and the share that each takes if it moves.
        span: stature divided by the length of the bones from an ankle over the root to the topmost joint.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]
    welded: tuple[str, ...]
    ends: tuple[dict[str, str], dict[str, str]]
    spine: tuple[str, str]
    owners: dict[str, dict[str, float]]
    span: float


def _sides(pattern: dict[str, str], left: str, right: str) -> tuple[dict[str, str], dict[str, str]]:
    return tuple({end: name.format(side) for end, name in pattern.items()} for side in (left, right))  # type: ignore[return-value]


_SMPL_ENDS = {end: f"{{}}_{end}" for end in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist", "hand")} | {"toe": "{}_foot"}
_SMPL_NAMES = (
    *("pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle", "right_ankle", "spine3"),
    *("left_foot", "right_foot", "neck", "left_collar", "right_collar", "head", "left_shoulder", "right_shoulder"),
    *("left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hand", "right_hand"),
)
_H36M_NAMES = (
    *("hip", "Rhip", "Rknee", "Rfoot", "Lhip", "Lknee", "Lfoot", "spine", "thorax", "neck", "head"),
    *("Lsho", "Lelb", "Lwri", "Rsho", "Relb", "Rwri"),
)
_SMPL = Skeleton(
    names=_SMPL_NAMES,
    parents=(-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21),
    welded=("spine2", "left_foot", "right_foot", "left_collar", "right_collar", "head", "left_hand", "right_hand"),
    ends=_sides(_SMPL_ENDS, "left", "right"),
    spine=("neck", "head"),
    owners={
        "lower_trunk": {"pelvis": 1},
        "mid_trunk": {"spine1": 0.5, "spine2": 0.5},
        "upper_trunk": {"spine3": 0.8, "left_collar": 0.1, "right_collar": 0.1},
        "head_neck": {"neck": 0.2, "head": 0.8},
    },
    span=1.131,
)
_H36M = Skeleton(
    names=_H36M_NAMES,
    parents=(-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15),
    welded=("thorax", "head"),
    ends=_sides(
        {"hip": "{}hip", "knee": "{}knee", "ankle": "{}foot", "shoulder": "{}sho", "elbow": "{}elb", "wrist": "{}wri"}, "L", "R"
    ),
    spine=("thorax", "head"),
    owners={
        "lower_trunk": {"hip": 1},
        "mid_trunk": {"hip": 0.5, "spine": 0.5},
        "upper_trunk": {"spine": 0.8, "thorax": 0.2},
        "head_neck": {"neck": 0.5, "head": 0.5},
    },
    span=1 / (1 - 0.047),
)
SKELETONS = {
    "smpl": _SMPL,
    "humanml3d": Skeleton(
        _SMPL.names[:22], _SMPL.parents[:22], _SMPL.welded[:6], _SMPL.ends, _SMPL.spine, _SMPL.owners, _SMPL.span
    ),
    "h36m": _H36M,
}
"""The skeletons that `human` knows: SMPL, HumanML3D, Human3.6M (card: motion, section 12.1)."""


def standing_height(joints: Float[Tensor, "n 3"], skeleton: str | Skeleton | None = None) -> Float[Tensor, ""]:
    """Return the stature that a skeleton's bones suggest [m]: their length from ankle to topmost joint, times a constant.

    The constant of SMPL's trees makes its mean male skeleton (card: motion, section 12.1) 1.70 m; Human3.6M's topmost joint is
    the top of the head, and its ankle 0.047 of the stature above the sole. Both are ours, good to a few centimetres.
    """
    tree = skeleton_of(joints, skeleton)
    legs = [_way(tree, joints, ends["ankle"]) for ends in tree.ends]
    return tree.span * (_way(tree, joints, tree.spine[1]) + sum(legs) / 2)


def _way(tree: Skeleton, joints: Tensor, name: str) -> Tensor:
    link, length = tree.names.index(name), joints.new_zeros(())
    while tree.parents[link] >= 0:
        length = length + (joints[link] - joints[tree.parents[link]]).norm()
        link = tree.parents[link]
    return length


def skeleton_of(joints: Float[Tensor, "n 3"], name: str | Skeleton | None = None) -> Skeleton:
    """Return the skeleton of that name, or with so many joints; joints that are not finite or too few are an `InputError`."""
    if isinstance(name, str) and name not in SKELETONS:
        raise InputError(f"no skeleton {name!r}{closest(name, SKELETONS)}; there are {', '.join(SKELETONS)}")
    counts = {len(tree.names): key for key, tree in SKELETONS.items()}
    if joints.ndim != 2 or joints.shape[-1] != 3 or (name is None and len(joints) not in counts):
        raise InputError(
            f"joints of the shape {tuple(joints.shape)}; (n, 3) is wanted with n of "
            + ", ".join(f"{count} ({key})" for count, key in counts.items())
        )
    tree = name if isinstance(name, Skeleton) else SKELETONS[name or counts[len(joints)]]
    if len(joints) != len(tree.names):
        raise InputError(f"{len(joints)} joints; the skeleton {name if isinstance(name, str) else ''} has {len(tree.names)}")
    if not bool(joints.isfinite().all()):
        bad = (~joints.isfinite()).any(-1).nonzero()[:, 0].tolist()
        raise InputError(f"joints that are not finite: {', '.join(tree.names[i] for i in bad)}")
    return tree
