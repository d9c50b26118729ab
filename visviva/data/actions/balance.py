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
from visviva.data.actions.figure import Posed, posed
from visviva.data.actions.plan import GRAVITY, Plan

PRESSURE = 0.04
"""Where a flat foot is pressed on, before the ankle [m at 1.70 m]."""
FORE, RISE = 0.085, 0.15
"""How far that point moves towards ball or heel with the pitch of the foot, and the pitch that it takes [m, rad]."""
PASSES = 5
SPREAD = 0.2
"""Half of the time over which the pelvis is lowered towards a foot that is far away [s]."""


def balanced(plan: Plan, dt: float, passes: int = PASSES) -> Posed:
    """Return the figure that follows the plan with its pelvis moved into balance.

    Args:
        dt: between the plan's times [s].
        passes: of the iteration; the centre of mass is then within a millimetre of its path.
    """
    wanted = pressed(plan)
    shift = torch.zeros(*plan.height.shape, 3, dtype=plan.size.dtype)
    lower = torch.zeros_like(plan.height)
    still = _centre_at_rest(plan, dt)
    found = posed(plan, shift)
    for _ in range(passes):
        centre, spin = found.momentum(plan.size, dt)
        target = torch.cat([centre[..., :2], (plan.height * plan.size[:, None])[..., None]], -1)
        target[..., 2] = torch.where(plan.ballistic[:, None], still[:, None] + target[..., 2] - lower, centre[..., 2])
        target[..., :2] = path(target[..., 2], wanted, spin, dt, plan)
        shift = shift + 1.15 * (target - centre)
        found = posed(plan, shift)
        need = _needed(plan, found.short, dt)
        lower = lower + need
        shift[..., 2] = shift[..., 2] - need
    return posed(plan, shift)


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


def _centre_at_rest(plan: Plan, dt: float) -> Float[Tensor, " B"]:
    """Height of the centre of mass of the figure as it stands in the first frame [m]."""
    still = replace(plan, height=torch.zeros_like(plan.height))
    centre, _ = posed(still, torch.zeros(*plan.height.shape, 3, dtype=plan.size.dtype)).momentum(plan.size, dt)
    return centre[:, 0, 2]


def pressed(plan: Plan) -> Float[Tensor, "B T 2"]:
    """Return the point of the floor through which the ground should push, by the loads of the feet [m]."""
    ahead = PRESSURE + FORE * (plan.point / RISE).tanh()
    under = plan.place + ahead[..., None] * torch.stack([plan.turn.cos(), plan.turn.sin()], -1)
    return (plan.load[..., None] * under).sum(2) * plan.size[:, None, None]


def path(
    height: Float[Tensor, "B T"], wanted: Float[Tensor, "B T 2"], spin: Float[Tensor, "B T 3"], dt: float, plan: Plan
) -> Float[Tensor, "B T 2"]:
    """Return the way of the centre of mass over the floor that makes the ground push through the wanted points [m].

    Args:
        height: of the centre of mass [m].
        wanted: points of the floor [m].
        spin: angular momentum about the centre of mass, per kg [m^2/s].
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
    right = (turned - stiff[..., None] * wanted) * dt**2 * inner[:, None] + wanted * (1 - inner)[:, None]
    return torch.linalg.solve(matrix, right)
