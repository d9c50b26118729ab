"""The figure: HumanML3D's 22 joints with de Leva's masses, posed as a plan says; legs reach their feet."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

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
FAR = 0.998
"""Share of its length to which any leg can stretch."""
UPRIGHT = torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]], dtype=torch.float64)
"""From SMPL's rest axes (x left, y up, z forward) to a world with x forward, y left, z up."""
LEFT, RIGHT = (1, 4, 7, 10, 13, 16, 18, 20), (2, 5, 8, 11, 14, 17, 19, 21)


@lru_cache(maxsize=1)
def offsets() -> Float[Tensor, "22 3"]:
    """Return SMPL's mean offsets to the parents, made symmetric [m at 1.70 m], x left, y up, z forward."""
    found = OFFSETS[:22].double().clone()
    flip = found.new_tensor([-1.0, 1, 1])
    mean = (found[list(LEFT)] + found[list(RIGHT)] * flip) / 2
    found[:, 0] = 0
    found[list(LEFT)], found[list(RIGHT)] = mean, mean * flip
    return found


@lru_cache(maxsize=1)
def masses() -> tuple[Float[Tensor, "22"], Float[Tensor, "22 3"], Float[Tensor, "22 3 3"]]:
    """Return the links' shares of the mass, centres in their frames [m at 1.70 m] and inertias per kg of the body [m^2]."""
    places = [torch.zeros(3, dtype=torch.float64)]
    for offset, parent in list(zip(offsets(), PARENTS, strict=True))[1:]:
        places.append(places[parent] + offset)
    body = human(torch.stack(places), skeleton="humanml3d", stature=STATURE, mass=1.0)
    return body.mass, body.com, body.inertia


@dataclass(frozen=True)
class Posed:
    """Where the figure is: joints (B, T, 22, 3) [m], rotations, local and in the world (B, T, 22, 3, 3), and for each leg the
    height that the pelvis is too high for the foot to be reached, (B, T, 2) [m]."""

    joints: Tensor
    local: Tensor
    world: Tensor
    short: Tensor

    def momentum(self, size: Float[Tensor, " B"], dt: float) -> tuple[Float[Tensor, "B T 3"], Float[Tensor, "B T 3"]]:
        """Return the centre of mass [m] and the angular momentum about it, per kg of the body [m^2/s]."""
        mass, com, inertia = masses()
        points = self.joints + (self.world @ com[:, :, None])[..., 0] * size[:, None, None, None]
        centre = (mass[:, None] * points).sum(-2)
        arm = points - centre[..., None, :]
        speed = _rate(arm, dt)
        spin = _rate(self.world, dt) @ self.world.mT
        spin = torch.stack([spin[..., 2, 1], spin[..., 0, 2], spin[..., 1, 0]], -1)
        turned = self.world @ inertia @ self.world.mT * size[:, None, None, None, None] ** 2
        own = (turned @ spin[..., None])[..., 0].sum(-2)
        return centre, (mass[:, None] * torch.linalg.cross(arm, speed)).sum(-2) + own


def _rate(values: Tensor, dt: float) -> Tensor:
    inner = (values[:, 2:] - values[:, :-2]) / (2 * dt)
    return torch.cat([inner[:, :1], inner, inner[:, -1:]], 1)


def about(axis: int, angle: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch 3 3"]:
    """Return the rotation about a coordinate axis."""
    c, s, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    rows = {
        0: [one, zero, zero, zero, c, -s, zero, s, c],
        1: [c, zero, s, zero, one, zero, -s, zero, c],
        2: [c, -s, zero, s, c, zero, zero, zero, one],
    }[axis]
    return torch.stack(rows, -1).unflatten(-1, (3, 3))


def rest_height() -> float:
    """Height of the pelvis of the standing figure [m at 1.70 m]."""
    bones = offsets()
    leg = BENT * float(bones[4].norm() + bones[7].norm())
    return SOLE - float(bones[10, 1]) + leg - float(bones[1, 1])


def posed(plan: Plan, shift: Float[Tensor, "B T 3"]) -> Posed:
    """Return the figure posed as the plan says, its pelvis moved by ``shift`` [m]."""
    size = plan.size[:, None, None]
    raised = torch.cat([plan.pelvis, plan.height[..., None] + rest_height()], -1)
    pelvis = raised * size + shift
    root = about(2, plan.yaw) @ about(1, plan.pitch) @ about(0, plan.roll) @ UPRIGHT
    still = torch.eye(3, dtype=root.dtype).expand(*root.shape[:2], 3, 3)
    turns = [still] * 22
    turns[0] = root
    for joint, angles in ((3, plan.spine / 2), (9, plan.spine / 2), (12, plan.neck)):
        turns[joint] = about(1, angles[..., 2]) @ about(2, angles[..., 1]) @ about(0, angles[..., 0])
    short = []
    for side, joints in enumerate((LEFT, RIGHT)):
        for joint, turn in zip(joints[5:7], _arm(plan.arms[:, :, side], 1.0 - 2 * side), strict=True):
            turns[joint] = turn
        legs, lack = _leg(plan, side, joints, pelvis, root)
        short.append(lack)
        for joint, turn in zip(joints[:3], legs, strict=True):
            turns[joint] = turn
    local = torch.stack(turns, -3)
    moved = (offsets() * size[..., None]).expand(*pelvis.shape[:2], 22, 3).clone()
    moved[:, :, 0] = pelvis
    places, world = forward_kinematics(local, moved, PARENTS)
    return Posed(places, local, world, torch.stack(short, -1))


def _arm(angles: Tensor, sign: float) -> tuple[Tensor, Tensor]:
    """Shoulder and elbow; arms lie along x at rest."""
    swing, lift, twist, bend = angles.unbind(-1)
    shoulder = about(0, -swing) @ about(2, sign * (lift - torch.pi / 2)) @ about(0, twist)
    return shoulder, about(1, -sign * bend)


def _foot(plan: Plan, side: int) -> tuple[Tensor, Tensor]:
    """Rotation of a foot in the world, and its ankle [m]."""
    toe = UPRIGHT @ offsets()[10 if side == 0 else 11]
    up = SOLE - toe[2]
    turn, point = plan.turn[..., side], plan.point[..., side]
    ball, heel, above = (up.new_tensor(x) for x in ([toe[0], 0, SOLE], [-HEEL, 0, 0], [0, 0, up]))
    pivot = torch.where(point[..., None] > 0, ball, heel)
    tilt = about(1, point)
    ankle = pivot + (tilt @ (above - pivot)[..., None])[..., 0]
    ankle = (about(2, turn) @ ankle[..., None])[..., 0]
    base = torch.cat([plan.place[:, :, side], plan.lift[:, :, side, None]], -1)
    return about(2, turn) @ tilt @ UPRIGHT, (base + ankle) * plan.size[:, None, None]


def _leg(plan: Plan, side: int, joints: tuple[int, ...], pelvis: Tensor, root: Tensor) -> tuple[list[Tensor], Tensor]:
    """Local rotations of hip, knee and ankle that put the foot where the plan wants it, and how much too high the hip is."""
    bones = offsets()[list(joints[:4])]
    size = plan.size[:, None]
    thigh, shank = (bones[k].norm() * size for k in (1, 2))
    hip = pelvis + (root @ bones[0])[..., :] * size[..., None]
    foot, ankle = _foot(plan, side)
    way = ankle - hip
    apart = way.norm(dim=-1)
    reach = _soft(apart, FAR * (thigh + shank))
    down = way / apart[..., None]
    yaw = plan.yaw + plan.splay[..., side]
    left = torch.stack([-yaw.sin(), yaw.cos(), torch.zeros_like(yaw)], -1)
    ahead = torch.nn.functional.normalize(torch.linalg.cross(down, left), dim=-1)
    along = (thigh**2 - shank**2 + reach**2) / (2 * reach)
    out = (thigh**2 - along**2).clamp(min=1e-12).sqrt()
    upper = (down * along[..., None] + ahead * out[..., None]) / thigh[..., None]
    lower = (down * reach[..., None] - upper * thigh[..., None]) / shank[..., None]
    axis = torch.linalg.cross(ahead, down)
    hips, knees = _framed(upper, axis, bones[1]), _framed(lower, axis, bones[2])
    flat = way[..., :2].square().sum(-1)
    low = ((BENT + 0.004) ** 2 * (thigh + shank) ** 2 - flat).clamp(min=0).sqrt()
    return [root.mT @ hips, hips.mT @ knees, knees.mT @ foot], -way[..., 2] - low


def _soft(length: Tensor, limit: Tensor) -> Tensor:
    """A length that nears its limit smoothly instead of passing it."""
    knee = 0.01 * limit
    over = (length - (limit - knee)) / knee
    return torch.where(over > 0, limit - knee + knee * over / (1 + over**2).sqrt(), length)


def _framed(bone: Tensor, axis: Tensor, rest: Tensor) -> Tensor:
    """Rotation that turns a bone at rest to ``bone``, and the left of the rest pose to ``axis``."""
    down = rest / rest.norm()
    left = torch.eye(3).to(rest)[0] - down[0] * down
    left = left / left.norm()
    before = torch.stack([left, down, torch.linalg.cross(left, down)], -1)
    after = torch.stack([axis, bone, torch.linalg.cross(axis, bone)], -1)
    return after @ before.mT
