"""The body of a person in a motion with rotations (BVH, AMASS): its own tree and frames, with de Leva's masses."""

from __future__ import annotations

from typing import Any

import roma
import torch
from torch import Tensor

from visviva.data.motions.anatomy import parts
from visviva.data.motions.motion import HumanMotion, forward_kinematics
from visviva.errors import InputError
from visviva.physics.bodies import Body, Skeleton, human

NEEDED = (
    *("left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle", "neck", "left_shoulder"),
    *("right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist"),
)
"""Parts of the body that the joints' names must give."""
SPANS = {False: 1.131, True: 1.049}
"""Stature over the length of the bones from ankle to the head's joint (as SMPL's), and to its top."""


def body_of(motion: HumanMotion, **options: Any) -> Body:
    """Return the body that makes a motion: links in the motion's frames, ball joints wherever the motion turns.

    Which joint carries which segment of de Leva's is known from the names; the others (collars, toes, fingers, ends, all but
    the first and last of the spine) are massless: inverse dynamics takes them as they are, forward dynamics needs an
    ``armature``, or them ``welded``.
    At zero rotations the person must stand, in any direction and frame.

    Args:
        motion: with rotations and rest offsets, metres, z up.
        options: of `visviva.physics.bodies.human`: mass, stature, sex, welded, armature.

    Raises:
        InputError: a motion without rotations, several roots, names that do not give the parts of a body, and what `human`
            refuses.

    Example::

        motion = read_motion("walk.bvh")
        body = body_of(motion, mass=70.0)
        place(body, configurations(motion, body)).position  # motion.positions
    """
    if motion.rotations is None or motion.rest is None:
        raise InputError(
            f"{motion.source or 'the motion'} has no rotations; a body is made from a BVH or SMPL file, which have"
        )
    if list(motion.parents).count(-1) != 1:
        raise InputError(f"{motion.source or 'the motion'} has {list(motion.parents).count(-1)} roots; a body has one")
    offsets = torch.cat([torch.zeros(1, 3), motion.rest[1:].cpu()]).double()
    still = torch.eye(3, dtype=torch.float64).expand(len(offsets), 3, 3)
    joints, _ = forward_kinematics(still, offsets, motion.parents)
    skeleton = _skeleton(motion)
    turn = _axes(skeleton, joints)
    body = human(joints @ turn.T, skeleton=skeleton, up="z", **options)
    return Body(
        names=body.names,
        parents=body.parents,
        joints=body.joints,
        offset=offsets,
        rest=body.rest,
        axis=body.axis,
        mass=body.mass,
        com=body.com @ turn,
        inertia=turn.T @ body.inertia @ turn,
        gravity=body.gravity,
        armature=body.armature,
    )


def configurations(motion: HumanMotion, body: Body) -> Tensor:
    """Return the body's configuration in every frame of the motion that it was made of, (T, nq) in float64."""
    if motion.rotations is None or tuple(motion.names) != body.names:
        raise InputError("this motion has other joints than the body, or no rotations")
    quaternions = roma.quat_xyzw_to_wxyz(roma.rotmat_to_unitquat(motion.rotations.double()))
    moving = [i for i, kind in enumerate(body.joints) if kind == "ball"]
    root = torch.cat([motion.positions[:, 0].double(), quaternions[:, 0]], -1)
    return torch.cat([root, quaternions[:, moving].flatten(1)], -1)


def _skeleton(motion: HumanMotion) -> Skeleton:
    """What `human` needs to know of the tree, from the names of its joints."""
    names, found = tuple(motion.names), parts(motion.names)
    if motion.rotations is None:
        raise InputError(f"{motion.source or 'the motion'} has no rotations")
    missing = [part for part in NEEDED if part not in found]
    if missing:
        raise InputError(
            f"{motion.source or 'the motion'}: no joint is named like {', '.join(missing)}; there are {', '.join(names)}"
        )
    limbs = ("hip", "knee", "ankle", "toe", "shoulder", "elbow", "wrist")
    ends = tuple(
        {part: names[found[f"{side}_{part}"]] for part in limbs if f"{side}_{part}" in found} for side in ("left", "right")
    )
    spine = _between(motion.parents, found["neck"])
    low, high = (names[spine[0]], names[spine[-1]]) if spine else (names[0], names[0])
    neck = names[found["neck"]]
    owners = {"lower_trunk": {names[0]: 1.0}, "mid_trunk": {low: 1.0}, "upper_trunk": {high: 1.0}, "head_neck": {neck: 1.0}}
    turned = roma.rotmat_geodesic_distance(motion.rotations, torch.eye(3).to(motion.rotations)).amax(0) > 1e-3
    welded = tuple(name for name, moves in zip(names[1:], turned[1:].tolist(), strict=True) if not moves)
    head = names[found.get("head", found["neck"])]
    span = SPANS[head.lower().endswith(("end", "top", "nub"))]
    return Skeleton(names, tuple(motion.parents), welded, (ends[0], ends[1]), (neck, head), owners, span)


def _between(parents: tuple[int, ...], neck: int) -> list[int]:
    """Joints between the root and the neck, from below."""
    path, at = [], parents[neck]
    while at > 0:
        path.append(at)
        at = parents[at]
    return path[::-1]


def _axes(skeleton: Skeleton, joints: Tensor) -> Tensor:
    """Rotation into x left, y up, z forward, from the hips and the neck at zero rotations."""
    at = dict(zip(skeleton.names, joints, strict=True))
    left, right = (at[side["hip"]] for side in skeleton.ends)
    up = at[skeleton.spine[0]] - (left + right) / 2
    across = left - right
    if not bool(up.norm() > 0.05) or not bool(across.norm() > 0.02):
        raise InputError("at zero rotations hips and neck lie at one place; the rest offsets are no person's")
    up = up / up.norm()
    across = across - (across @ up) * up
    across = across / across.norm()
    return torch.stack([across, up, torch.linalg.cross(across, up)])
