"""The figure: HumanML3D's 22 joints with de Leva's masses, posed as a plan says; legs reach their feet."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from visviva.data.actions.curves import first
from visviva.data.actions.plan import Plan
from visviva.data.motions.amass import OFFSETS
from visviva.data.motions.humanml3d import PARENTS
from visviva.data.motions.motion import forward_kinematics
from visviva.physics.bodies import human

STATURE = 1.70
SOLE = 0.02
"""Height of the toe joint of a foot that stands [m at 1.70 m]."""
HEEL = 0.05
"""How far the heel is behind the ankle [m at 1.70 m]."""
BENT = 0.99
"""Share of its length to which a standing leg is stretched."""
REACH = 0.994
"""Share of its length to which a leg stretches before the pelvis is lowered."""
FAR = 0.998
"""Share of its length to which any leg can stretch."""
UPRIGHT = torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]], dtype=torch.float64)
"""From SMPL's rest axes (x left, y up, z forward) to a world with x forward, y left, z up."""
LEGS = ((1, 4, 7, 10), (2, 5, 8, 11))
ABOVE = tuple(joint for joint in range(22) if joint not in (*LEGS[0], *LEGS[1]))
"""Pelvis, trunk, head and arms."""
TREE = tuple(ABOVE.index(PARENTS[joint]) if joint else -1 for joint in ABOVE)
MIRRORED = ((1, 4, 7, 10, 13, 16, 18, 20), (2, 5, 8, 11, 14, 17, 19, 21))


@lru_cache(maxsize=1)
def offsets() -> Float[Tensor, "22 3"]:
    """Return SMPL's mean offsets to the parents, made symmetric [m at 1.70 m], x left, y up, z forward."""
    found = OFFSETS[:22].double().clone()
    flip = found.new_tensor([-1.0, 1, 1])
    mean = (found[list(MIRRORED[0])] + found[list(MIRRORED[1])] * flip) / 2
    found[:, 0] = 0
    found[list(MIRRORED[0])], found[list(MIRRORED[1])] = mean, mean * flip
    return found


@lru_cache(maxsize=1)
def masses() -> tuple[Float[Tensor, "22"], Float[Tensor, "22 3"], Float[Tensor, "22 3 3"]]:
    """Return the links' shares of the mass, centres in their frames [m at 1.70 m] and inertias per kg of the body [m^2]."""
    places = [torch.zeros(3, dtype=torch.float64)]
    for offset, parent in list(zip(offsets(), PARENTS, strict=True))[1:]:
        places.append(places[parent] + offset)
    body = human(torch.stack(places), skeleton="humanml3d", stature=STATURE, mass=1.0)
    return body.mass, body.com, body.inertia


def rest_height() -> float:
    """Height of the pelvis of the standing figure [m at 1.70 m]."""
    bones = offsets()
    leg = BENT * float(bones[4].norm() + bones[7].norm())
    return SOLE - float(bones[10, 1]) + leg - float(bones[1, 1])


def about(axis: int, angle: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch 3 3"]:
    """Return the rotation about a coordinate axis."""
    c, s, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    rows = {
        0: [one, zero, zero, zero, c, -s, zero, s, c],
        1: [c, zero, s, zero, one, zero, -s, zero, c],
        2: [c, -s, zero, s, c, zero, zero, zero, one],
    }[axis]
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


@dataclass(frozen=True)
class Links:
    """Some of the figure's links: joints relative to the pelvis (B, T, n, 3) [m], rotations in the world, and what they weigh.

    ``first``: sum of mass times place of the centres of mass, relative to the pelvis, (B, T, 3); ``spin``: angular momentum
    about the pelvis as if it stood, (B, T, 3); both per kg of the body.
    """

    joints: Tensor
    world: Tensor
    first: Tensor
    spin: Tensor


def weighed(joints: Tensor, world: Tensor, numbers: tuple[int, ...], size: Tensor, dt: float) -> Links:
    """Return the links of these numbers with their moments."""
    mass, com, inertia = (x[list(numbers)] for x in masses())
    points = joints + (world @ com[:, :, None])[..., 0] * size[:, None, None, None]
    turn = first(world, dt) @ world.mT
    rate = torch.stack([turn[..., 2, 1], turn[..., 0, 2], turn[..., 1, 0]], -1)
    own = (world @ (inertia @ (world.mT @ rate[..., None])))[..., 0].sum(2) * size[:, None, None] ** 2
    heavy = mass[:, None] * points
    return Links(joints, world, heavy.sum(2), torch.linalg.cross(heavy, first(points, dt)).sum(2) + own)


def trunk(plan: Plan, dt: float) -> tuple[Links, Float[Tensor, "B T 14 3 3"]]:
    """Return pelvis, trunk, head and arms, and their local rotations."""
    turns = {0: about(2, plan.yaw) @ about(1, plan.pitch) @ about(0, plan.roll) @ UPRIGHT}
    for joint, angles in ((3, plan.spine / 2), (9, plan.spine / 2), (12, plan.neck)):
        turns[joint] = about(1, angles[..., 2]) @ about(2, angles[..., 1]) @ about(0, angles[..., 0])
    for side, sign in ((0, 1.0), (1, -1.0)):
        swing, lift, twist, bend = plan.arms[:, :, side].unbind(-1)
        turns[16 + side] = about(0, -swing) @ about(2, sign * (lift - torch.pi / 2)) @ about(0, twist)
        turns[18 + side] = about(1, -sign * bend)
    still = torch.eye(3).to(plan.yaw).expand(*plan.yaw.shape, 3, 3)
    local = torch.stack([turns.get(joint, still) for joint in ABOVE], 2)
    bones = (offsets()[list(ABOVE)] * plan.size[:, None, None])[:, None]
    joints, world = forward_kinematics(local, bones, TREE)
    return weighed(joints, world, ABOVE, plan.size, dt), local


@dataclass(frozen=True)
class Feet:
    """Where the plan wants ankles, (B, T, 2, 3) [m], how the feet are turned, (B, T, 2, 3, 3), and the left of the knees."""

    ankle: Tensor
    turn: Tensor
    left: Tensor


def feet(plan: Plan) -> Feet:
    """Return the feet of a plan."""
    toe = UPRIGHT @ offsets()[10]
    ball, heel, above = (toe.new_tensor(x) for x in ([toe[0], 0, SOLE], [-HEEL, 0, 0], [0, 0, SOLE - toe[2]]))
    pivot = torch.lerp(ball, heel, plan.heel[..., None])
    yaw, tilt = about(2, plan.turn), about(1, plan.point)
    ankle = (yaw @ (pivot + (tilt @ (above - pivot)[..., None])[..., 0])[..., None])[..., 0]
    base = torch.cat([plan.place, plan.lift[..., None]], -1)
    knee = plan.yaw[..., None] + plan.splay
    left = torch.stack([-knee.sin(), knee.cos(), torch.zeros_like(knee)], -1)
    return Feet((base + ankle) * plan.size[:, None, None, None], yaw @ tilt @ UPRIGHT, left)


def legs(
    plan: Plan, wanted: Feet, root: Float[Tensor, "B T 3 3"], pelvis: Float[Tensor, "B T 3"], dt: float
) -> tuple[Links, Float[Tensor, "B T 2"]]:
    """Return both legs, each hip, knee, ankle and toe, and how much too high each hip is for its foot [m]."""
    bones = offsets()[torch.tensor(LEGS)]
    size = plan.size[:, None, None]
    thigh, shank = (bones[0, k].norm() * size for k in (1, 2))
    hip = (root[:, :, None] @ bones[:, 0, :, None])[..., 0] * size[..., None]
    way = wanted.ankle - pelvis[:, :, None] - hip
    apart = way.norm(dim=-1)
    reach = _soft(apart, FAR * (thigh + shank), 0.01 + 0.04 * plan.lift / (plan.lift + 0.05))
    down = way / apart[..., None]
    ahead = functional.normalize(torch.linalg.cross(down, wanted.left), dim=-1)
    along = (thigh**2 - shank**2 + reach**2) / (2 * reach)
    out = (thigh**2 - along**2).clamp(min=1e-12).sqrt()
    knee = down * along[..., None] + ahead * out[..., None]
    ankle = down * reach[..., None]
    axis = torch.linalg.cross(ahead, down)
    toe = ankle + (wanted.turn @ bones[:, 3, :, None])[..., 0] * size[..., None]
    upper = _framed(knee / thigh[..., None], axis, bones[:, 1])
    lower = _framed((ankle - knee) / shank[..., None], axis, bones[:, 2])
    joints = torch.stack([hip, hip + knee, hip + ankle, hip + toe], 3).flatten(2, 3)
    world = torch.stack([upper, lower, wanted.turn, wanted.turn], 3).flatten(2, 3)
    flat = way[..., :2].square().sum(-1)
    low = (REACH**2 * (thigh + shank) ** 2 - flat).clamp(min=0).sqrt()
    return weighed(joints, world, (*LEGS[0], *LEGS[1]), plan.size, dt), -way[..., 2] - low


def _soft(length: Tensor, limit: Tensor, share: Tensor) -> Tensor:
    """A length that nears its limit smoothly, over a share of it, instead of passing it."""
    knee = share * limit
    over = (length - (limit - knee)) / knee
    return torch.where(over > 0, limit - knee + knee * over / (1 + over**2).sqrt(), length)


def _framed(bone: Float[Tensor, "B T 2 3"], axis: Float[Tensor, "B T 2 3"], rest: Float[Tensor, "2 3"]) -> Tensor:
    """Rotation that turns a bone at rest to ``bone``, and the left of the rest pose to ``axis``."""
    down = rest / rest.norm(dim=-1, keepdim=True)
    left = functional.normalize(torch.eye(3).to(rest)[0] - down[:, :1] * down, dim=-1)
    before = torch.stack([left, down, torch.linalg.cross(left, down)], -1)
    after = torch.stack([axis, bone, torch.linalg.cross(axis, bone)], -1)
    return after @ before.mT


def momentum(
    parts: tuple[Links, ...], pelvis: Float[Tensor, "B T 3"], dt: float
) -> tuple[Float[Tensor, "B T 3"], Float[Tensor, "B T 3"]]:
    """Return the whole's centre of mass [m] and the angular momentum about it, per kg of the body [m^2/s].

    With P the pelvis and q the centre from it, L = sum of the parts' about the pelvis - q x q'.
    """
    centre = sum((part.first for part in parts), torch.zeros_like(pelvis))
    spin = sum((part.spin for part in parts), torch.zeros_like(pelvis))
    return pelvis + centre, spin - torch.linalg.cross(centre, first(centre, dt))


def whole(
    above: Links, local: Float[Tensor, "B T 14 3 3"], below: Links, pelvis: Float[Tensor, "B T 3"]
) -> tuple[Float[Tensor, "B T 22 3"], Float[Tensor, "B T 22 3 3"]]:
    """Return joints [m] and local rotations of all, in HumanML3D's order."""
    order = torch.tensor((*ABOVE, *LEGS[0], *LEGS[1])).argsort()
    joints = pelvis[:, :, None] + torch.cat([above.joints, below.joints], 2)[:, :, order]
    turns = below.world.unflatten(2, (2, 4))
    over = torch.cat([above.world[:, :, None, :1].expand(-1, -1, 2, -1, -1, -1), turns[:, :, :, :-1]], 3)
    return joints, torch.cat([local, (over.mT @ turns).flatten(2, 3)], 2)[:, :, order]
