"""A plan put in balance: the pelvis is moved so that the ground, pushing where the feet stand, explains the motion.

For a body whose centre of mass c has angular momentum L about it, the ground's force acts without horizontal moment at the
point p of the floor (the zero-moment point, Vukobratovic and Borovac 2004) with

    x'' = k (x - p_x) - L_y' / (m c_z)        y'' = k (y - p_y) + L_x' / (m c_z)        k = (g + z'') / c_z

The plan says where p should be (under the feet, by their loads) and how the height moves, so k is known, also in flight, where
it is 0; the path of the centre of mass is the solution of this boundary value problem. The pelvis is moved until the posed body
has its centre of mass there; L follows from the pose (dynamics filter: Yamane and Nakamura 2003; solved whole instead of
frame by frame: ours).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from visviva.data.actions.curves import first, second
from visviva.data.actions.figure import feet, legs, momentum, rest_height, trunk, whole
from visviva.data.actions.plan import GRAVITY, MOVING, Plan

PRESSURE = 0.04
"""Where a flat foot is pressed on, before the ankle [m at 1.70 m]."""
FORE, RISE = 0.085, 0.15
"""How far that point moves towards ball or heel with the pitch of the foot, and the pitch that it takes [m, rad]."""
PASSES = 5
STRIDE = 1.15
"""Of the pelvis for one of the centre of mass, whose legs stay behind."""
SPREAD = 0.2
"""Half of the time over which the pelvis is lowered towards a foot that is far away [s]."""


def balanced(plan: Plan, dt: float, passes: int = PASSES) -> tuple[Float[Tensor, "B T 22 3"], Float[Tensor, "B T 22 3 3"]]:
    """Return joints [m] and local rotations of the figure that follows the plan with its pelvis moved into balance.

    Args:
        dt: between the plan's times [s].
        passes: of the iteration; the centre of mass is then within a millimetre of its path.
    """
    wanted, stands = pressed(plan), feet(plan)
    ahead = torch.stack([plan.yaw.cos(), plan.yaw.sin()], -1)
    ends = (plan.pelvis + PRESSURE * ahead)[:, [0, -1]] * plan.size[:, None, None]
    above, local = trunk(plan, dt)
    size = plan.size[:, None, None]
    pelvis = torch.cat([plan.pelvis, plan.height[..., None] + rest_height()], -1) * size
    height = plan.height * size[..., 0] + _at_rest(plan, dt)
    below, short = legs(plan, stands, above.world[:, :, 0], pelvis, dt)
    for _ in range(passes):
        need = _needed(plan, short, dt)
        pelvis = torch.cat([pelvis[..., :2], (pelvis[..., 2] - need)[..., None]], -1)
        height = height - need
        centre, spin = momentum((above, below), pelvis, dt)
        rise = torch.where(plan.ballistic[:, None], height, centre[..., 2])
        target = torch.cat([path(rise, wanted, spin, ends, dt), rise[..., None]], -1)
        pelvis = pelvis + STRIDE * (target - centre)
        below, short = legs(plan, stands, above.world[:, :, 0], pelvis, dt)
    return whole(above, local, below, pelvis)


def _needed(plan: Plan, short: Tensor, dt: float) -> Float[Tensor, "B T"]:
    """Return how much to lower the pelvis so that standing feet are reached: smoothly over time, at once where it flies [m]."""
    need = torch.where(plan.lift < 1e-4, short, 0.0).amax(2).clamp(min=0)
    half = round(SPREAD / dt)
    widest = functional.max_pool1d(need[:, None], 2 * half + 1, 1, half)
    window = torch.hann_window(2 * half + 3, periodic=False, dtype=need.dtype)[1:-1]
    smooth = functional.conv1d(functional.pad(widest, (half, half), mode="replicate"), (window / window.sum())[None, None])[
        :, 0
    ]
    return torch.where(plan.ballistic[:, None], need.amax(1, keepdim=True), smooth)


def _at_rest(plan: Plan, dt: float) -> Float[Tensor, "B 1"]:
    """Height of the centre of mass of the figure as it stands in the first frame [m]."""
    early = replace(
        plan, **{k: getattr(plan, k)[:, :1].expand_as(getattr(plan, k))[:, :3] for k in MOVING}, times=plan.times[:3]
    )
    above, _ = trunk(early, dt)
    pelvis = torch.cat([early.pelvis, torch.full_like(early.pelvis[..., :1], rest_height())], -1) * plan.size[:, None, None]
    below, _ = legs(early, feet(early), above.world[:, :, 0], pelvis, dt)
    return momentum((above, below), pelvis, dt)[0][:, :1, 2]


def pressed(plan: Plan) -> Float[Tensor, "B T 2"]:
    """Return the point of the floor through which the ground should push, by the loads of the feet [m]."""
    ahead = PRESSURE + FORE * (plan.point / RISE).tanh()
    under = plan.place + ahead[..., None] * torch.stack([plan.turn.cos(), plan.turn.sin()], -1)
    return (plan.load[..., None] * under).sum(2) * plan.size[:, None, None]


def path(
    height: Float[Tensor, "B T"],
    wanted: Float[Tensor, "B T 2"],
    spin: Float[Tensor, "B T 3"],
    ends: Float[Tensor, "B 2 2"],
    dt: float,
) -> Float[Tensor, "B T 2"]:
    """Return the way of the centre of mass over the floor that makes the ground push through the wanted points [m].

    Args:
        height: of the centre of mass [m].
        wanted: points of the floor [m].
        spin: angular momentum about the centre of mass, per kg [m^2/s].
        ends: where the way begins and ends [m]; what is wrong with them fades within some tenths of a second.
    """
    push = (GRAVITY + second(height, dt)).clamp(min=0)
    stiff = push / height
    change = first(spin, dt) / height[..., None] * (push / GRAVITY).clamp(max=1)[..., None]
    turned = torch.stack([-change[..., 1], change[..., 0]], -1)
    count = height.shape[1]
    inner = torch.ones(count, dtype=height.dtype)
    inner[[0, -1]] = 0
    matrix = torch.diag_embed(-2 * inner - stiff * dt**2 * inner + (1 - inner))
    matrix = matrix + torch.diag(inner[:-1], 1) + torch.diag(inner[1:], -1)
    right = (turned - stiff[..., None] * wanted) * dt**2
    right = torch.cat([ends[:, :1], right[:, 1:-1], ends[:, 1:]], 1)
    return torch.linalg.solve(matrix, right)
