"""Torques and ground forces of many people at once: the analytic answers that a learned inverse dynamics is trained with.

All people are HumanML3D's mean skeleton at other sizes (as `visviva.data.actions` draws them), so one body serves them all: a
body of size s has, per kilogram, s times the forces and s^2 times the torques of the body of size 1 that moves with 1/s of the
displacements under 1/s of gravity. Gravity is an upward acceleration of the root here. Points of the feet that are low and slow
push within friction cones; what they give enters inverse dynamics as wrenches on ankles and toes, so torques and ground forces
belong together, and what is left at the root is told.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError
from visviva.eval.motion.dynamics import mean_rest
from visviva.physics.bodies import Body, human
from visviva.physics.dynamics import Points, differentiate, ground_reaction, inverse_dynamics, place
from visviva.physics.dynamics.motion import cross

GRAVITY = 9.81
STATURE = 1.70
"""Of the body of size 1 [m]."""
TOUCHING = (7, 10, 8, 11)
"""Joints that the ground pushes: ankle (heel) and toe (ball) of the left, then of the right foot."""
LOW, SLOW = 0.012, 0.3
"""Points of feet lower [m at size 1] and slower [m/s] than this touch the ground."""


@dataclass(frozen=True)
class Labels:
    """Of B clips, M frames each.

    Attributes:
        torque: of the 21 joints but the root, in the frame of the joint's own link, (B, M, 21, 3) [N m per kg of the body].
        force: of the ground at the joints `TOUCHING`, in the world, (B, M, 4, 3) [body weights].
        left: root force that no ground gives, (B, M) [body weights].
        frames: of the clip that these are.
    """

    torque: Tensor
    force: Tensor
    left: Tensor
    frames: range


@lru_cache(maxsize=1)
def person() -> tuple[Body, Points]:
    """Return the body of size 1, one kilogram and no gravity, all of whose 22 joints move, and the points of its soles."""
    rest = mean_rest("humanml3d")
    left, right = [1, 4, 7, 10, 13, 16, 18, 20], [2, 5, 8, 11, 14, 17, 19, 21]
    flip = rest.new_tensor([-1.0, 1, 1])
    rest = rest - rest[0]
    rest[:, 0] = torch.where(torch.tensor([k in left + right for k in range(22)]), rest[:, 0], 0.0)
    mean = (rest[left] + rest[right] * flip) / 2
    rest[left], rest[right] = mean, mean * flip
    body = human(rest, mass=1.0, stature=STATURE, skeleton="humanml3d", welded=(), up="z")
    toe = rest[10] - rest[7]
    sole, low = -0.02, float(toe[1]) - 0.02
    places = [[0, low, -0.05], [-0.035, sole, 0.0], [0.035, sole, 0.0], [0, sole, 0.06]]
    points = Points((7, 10, 10, 10, 8, 11, 11, 11), rest.new_tensor(places).repeat(2, 1))
    return replace(body, gravity=torch.zeros_like(body.down)), points


def configurations(
    joints: Float[Tensor, "*batch 22 3"], rotations: Float[Tensor, "*batch 22 3 3"], size: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch 91"]:
    """Return the configurations of the body of size 1 for people of other sizes."""
    turned = roma.quat_xyzw_to_wxyz(roma.rotmat_to_unitquat(rotations.double()))
    return torch.cat([joints[..., 0, :].double() / size[..., None], turned.flatten(-2)], -1)


def labels(
    joints: Float[Tensor, "B T J 3"],
    rotations: Float[Tensor, "B T J 3 3"],
    stature: Float[Tensor, " B"],
    fps: float,
    window: int = 5,
    low: float = LOW,
    slow: float = SLOW,
) -> Labels:
    """Return torques and ground forces of people on a floor at height 0.

    Args:
        joints: HumanML3D's, z up [m]; ``rotations``: local, as SMPL has them.
        stature: of each [m]; the skeleton is the mean one at that size.
        fps: frames per second.
        window: frames of the fits of accelerations, odd; M = T - window + 1.
        low, slow: points of feet lower [m at size 1] and slower [m/s] than these touch the ground; raise them for noisy joints.

    Raises:
        InputError: shapes that do not fit, too few frames.

    Example::

        batch = draw(["walk"] * 8, seed=0, fps=60.0)
        found = labels(batch.joints, batch.rotations, batch.stature, batch.fps)
        found.torque.norm(dim=-1).mean()  # N m/kg
    """
    if joints.ndim != 4 or joints.shape[2:] != (22, 3) or rotations.shape != (*joints.shape, 3):
        raise InputError(
            f"joints {tuple(joints.shape)}, rotations {tuple(rotations.shape)}; wanted are (B, T, 22, 3) and (B, T, 22, 3, 3)"
        )
    body, points = person()
    size = (stature.double() / STATURE)[:, None].expand(joints.shape[:2])
    q, v, a = differentiate(body, configurations(joints, rotations, size), fps, window)
    half = window // 2
    size = size[:, : q.shape[1]]
    up = torch.zeros_like(a)
    up[..., 2] = GRAVITY / size
    a = a + up
    at = points.positions(place(body, configurations(joints, rotations, size[:, :1].expand(joints.shape[:2]))))
    speed = torch.gradient(at, dim=1)[0][:, half : half + q.shape[1]].norm(dim=-1) * fps * size[..., None]
    touch = (at[:, half : half + q.shape[1], :, 2] < low) & (speed < slow)
    found = ground_reaction(body, q, v, a, points, touch, normal=q.new_tensor([0.0, 0.0, 1.0]))
    tau = inverse_dynamics(body, q, v, a, _wrench(body, q, points, found.force))
    force = torch.stack(
        [found.force[..., [k for k, j in enumerate(points.links) if j == joint], :].sum(-2) for joint in TOUCHING], -2
    )
    weight = size[..., None, None] / GRAVITY
    return Labels(
        tau[..., 6:].unflatten(-1, (21, 3)) * size[..., None, None].square(),
        force * weight,
        found.left[..., :3].norm(dim=-1) * weight[..., 0, 0],
        range(half, half + q.shape[1]),
    )


def _wrench(body: Body, q: Tensor, points: Points, force: Tensor) -> Tensor:
    """What forces at points are for their links, (*batch, n, 6)."""
    pose = place(body, q)
    links = torch.tensor(points.links, device=q.device)
    arm = points.positions(pose) - pose.position[..., links, :]
    return q.new_zeros(*q.shape[:-1], len(body), 6).index_add(-2, links, torch.cat([force, cross(arm, force)], -1))
