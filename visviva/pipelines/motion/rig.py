"""A motion as a body on its ground: what analytic re-estimation starts from."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.data.bodies.motion import body_of, configurations
from visviva.data.motions.anatomy import feet as feet_of
from visviva.data.motions.anatomy import parts, split
from visviva.data.motions.motion import HumanMotion
from visviva.errors import InputError
from visviva.eval.motion.contact import contacts
from visviva.eval.motion.dynamics import SOLE, configuration, rest_of, skeleton, tall
from visviva.eval.motion.ground import floor_height
from visviva.models.reestimation.analytic import Ground
from visviva.models.reestimation.kalman import smoothed
from visviva.physics.bodies import SKELETONS, Body, human
from visviva.physics.bodies.deleva import adult_mass
from visviva.physics.dynamics import Points, integrate, place
from visviva.physics.dynamics.derivatives import differences
from visviva.physics.kinematics import projection

SOLES = ((-0.05, 0.0), (0.13, -0.04), (0.13, 0.04), (0.19, 0.0))
"""Heel, ball at both sides and toe: ahead of the ankle and to its left [m]."""


@dataclass(frozen=True)
class Rig:
    """A body that makes a motion, and where it stands.

    Attributes:
        motion: in the joints of the body: the file's own tree where it has rotations, else a known skeleton.
        start: calmed configurations, (T, nq).
    """

    motion: HumanMotion
    body: Body
    start: Tensor
    ground: Ground


def rig(
    motion: HumanMotion,
    noise: float,
    jerk: float,
    mass: float | None = None,
    confidence: Float[Tensor, "T J"] | None = None,
    floor: float | None = None,
) -> Rig:
    """Return a motion's body, its calmed configurations and its contacts.

    Args:
        motion: joints of a body, z up.
        noise: of a coordinate of a joint [m]; ``jerk``: spectral density for the Kalman smoother that calms joints.
        mass: of the person [kg]; None: of de Leva's adults at the stature that the legs tell.
        confidence: of each joint, where the motion's joints are those of a known skeleton.
        floor: height [m]; None: the motion's, or estimated.

    Raises:
        InputError: markers, or joints that no known skeleton has and no rotations tie together.
    """
    mass = float(adult_mass(tall(motion))) if mass is None else mass
    if motion.rotations is not None and motion.rest is not None and list(motion.parents).count(-1) == 1:
        body = body_of(motion, mass=mass)
        start = calmed(body, configurations(motion, body), motion.fps)
    else:
        name, joints = skeleton(motion)
        tree = SKELETONS[name]
        motion = replace(motion, positions=joints.float(), names=tree.names, parents=tree.parents, visible=None, contacts=None)
        calm = smoothed(joints, motion.fps, noise, jerk, confidence, gate=4.0)
        rest = rest_of(name, calm)
        body = human(rest, mass=mass, skeleton=name, up="z", welded=())
        start = configuration(body, name, rest, calm)
    return Rig(motion, body, start, standing(motion, body, start, floor))


def calmed(body: Body, q: Float[Tensor, "T nq"], fps: float, seconds: float = 0.25) -> Float[Tensor, "T nq"]:
    """Return the middles of parabolas fitted to the configurations around each frame, ends repeated."""
    window = max(3, 2 * round(seconds * fps / 2) + 1)
    if len(q) < window:
        return q
    half = window // 2
    padded = torch.cat([q[:1].expand(half, -1), q, q[-1:].expand(half, -1)])
    around = padded.unfold(0, window, 1).movedim(-1, -2)
    weights = torch.as_tensor(projection(window, 2)[0][0], dtype=q.dtype, device=q.device)
    return integrate(body, q, (differences(body, q[:, None], around) * weights[:, None]).sum(-2), 1.0)


def standing(motion: HumanMotion, body: Body, q: Float[Tensor, "T nq"], floor: float | None = None) -> Ground:
    """Return which feet stand, told by their heights and speeds in the configurations, and their soles."""
    feet = feet_of(motion.names)
    if not feet:
        raise InputError(f"{motion.source or 'the motion'}: no joint is named as a foot, so there is nothing to stand on")
    joints = place(body, q).position
    low = joints[:, feet]
    height = motion.floor if floor is None else floor
    height = float(floor_height(low)) if height is None else height
    stand = contacts(low, motion.fps)
    found = parts(motion.names)
    sides = [split(motion.names[k].removesuffix("_end"))[0] for k in feet]
    ankles = [found[f"{side}_ankle"] for side in ("left", "right")]
    toes = [found.get(f"{side}_toe") for side in ("left", "right")]
    held = torch.stack([stand[:, [s == side for s in sides]].any(-1) for side in ("left", "right")], -1)
    stature = float(joints[..., 2].amax(-1).quantile(0.9)) - height
    at = [
        _soles(body, q, joints, ankle, toe, held[:, k], stature)
        for k, (ankle, toe) in enumerate(zip(ankles, toes, strict=True))
    ]
    points = Points(tuple(ankle for ankle in ankles for _ in SOLES), torch.cat(at))
    return Ground(points, held.repeat_interleave(len(SOLES), -1), tuple(feet), stand, height)


def _soles(
    body: Body, q: Tensor, joints: Tensor, ankle: int, toe: int | None, held: Tensor, stature: float
) -> Float[Tensor, "P 3"]:
    """Points of a sole in the ankle's link: level below it in the frames in which the foot stands (else in its lowest)."""
    some = held if bool(held.any()) else joints[:, ankle, 2] <= joints[:, ankle, 2].quantile(0.1)
    ahead = (joints[:, toe] - joints[:, ankle] if toe is not None else _facing(joints, body))[some]
    ahead = ahead * ahead.new_tensor([1.0, 1.0, 0.0])
    ahead = ahead / ahead.norm(dim=-1, keepdim=True).clamp(min=1e-6)
    up = ahead.new_tensor([0.0, 0.0, 1.0]).expand_as(ahead)
    left = torch.linalg.cross(up, ahead)
    places = torch.stack([x * ahead + y * left - SOLE * stature * up for x, y in SOLES], -2)
    turn = place(body, q[some]).rotation[:, ankle]
    return (turn.mT[:, None] @ places[..., None])[..., 0].mean(0)


def _facing(joints: Tensor, body: Body) -> Tensor:
    """Where the pelvis looks, horizontally: across the hips."""
    found = parts(body.names)
    across = joints[:, found["left_hip"]] - joints[:, found["right_hip"]]
    return torch.linalg.cross(across, across.new_tensor([0.0, 0.0, 1.0]).expand_as(across))


def written(motion: HumanMotion, body: Body, q: Float[Tensor, "T nq"], *notes: str) -> HumanMotion:
    """Return configurations of a body as a motion with rotations, so that BVH and npz hold rigid bones."""
    pose = place(body, q)
    up = [max(parent, 0) for parent in body.parents]
    root = torch.tensor([parent < 0 for parent in body.parents])[:, None, None]
    local = torch.where(root, torch.eye(3, dtype=q.dtype), pose.rotation[:, up]).mT @ pose.rotation
    return motion.noted(
        *notes,
        positions=pose.position.float(),
        rotations=local.float(),
        rest=body.offset.float(),
        contacts=None,
        contact_joints=(),
    )
