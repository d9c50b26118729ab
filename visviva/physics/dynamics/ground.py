"""Ground reaction: what the ground must push with for a body to move as it does, and what no ground can explain.

The root rows of inverse dynamics are the wrench that must come from outside. Of it, forces at contact points can give what lies
in their friction cones (unilateral, ``|f_t| <= mu f_n``): the convex least squares

    min_f |w - sum_p G_p f_p|^2 + damping |f|^2,   f_p in its cone, 0 where point p is not in contact,

by accelerated projected gradient steps of fixed number, so that it is differentiable. What is left, in body weights, is the
Euler-Lagrange violation (card: motion, section 13, point 3; the form is reconstructed there).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from visviva.errors import InputError
from visviva.physics.bodies.body import Body
from visviva.physics.dynamics.inverse import inverse_dynamics
from visviva.physics.dynamics.motion import Pose, cross, place, turned
from visviva.physics.dynamics.points import Points


@dataclass(frozen=True)
class Reaction:
    """The ground's answer.

    Attributes:
        force: at each point, in the world, (*batch, P, 3) [N]; on the body.
        left: force and moment about the centre of mass that no ground can give, (*batch, 6) [N, N m].
        violation: its size in body weights, moments over the body's radius of gyration, (*batch,).
    """

    force: Tensor
    left: Tensor
    violation: Tensor

    @property
    def total(self) -> Float[Tensor, "*batch 3"]:
        """The whole ground reaction force [N]."""
        return self.force.sum(-2)


def ground_reaction(
    body: Body,
    q: Float[Tensor, "*batch nq"],
    v: Float[Tensor, "*batch nv"],
    a: Float[Tensor, "*batch nv"],
    points: Points,
    contact: Bool[Tensor, "*batch P"],
    friction: float = 0.8,
    normal: Float[Tensor, " 3"] | None = None,
    steps: int = 200,
    damping: float = 1e-6,
) -> Reaction:
    """Return the reaction of the ground on a body with a free root.

    Args:
        body: the tree, its first link free.
        q, v, a: how it moves.
        points: which may touch the ground.
        contact: which do.
        friction: mu of the cones.
        normal: of the ground, up; None: against gravity.
        steps: of the solver; the error falls with their square.
        damping: weight of the forces' size, of the problem's largest curvature: it divides loads among points evenly.

    Raises:
        InputError: a body whose root is not free, a negative friction.

    Example::

        soles = Points(links=(7, 7, 8, 8), at=torch.tensor([[0.0, -0.06, -0.05], [0.0, -0.06, 0.15]] * 2))
        reaction = ground_reaction(body, q, v, a, soles, soles.positions(place(body, q))[..., 2] < 0.02)
        reaction.violation  # 0 for what a ground can explain
    """
    if body.joints[0] != "free":
        raise InputError(
            f"the root {body.names[0]!r} hangs on a {body.joints[0]} joint; a ground holds bodies with a free root"
        )
    if friction < 0:
        raise InputError(f"a friction of {friction}; it must be 0 or more")
    pose = place(body, q)
    centre, up = pose.centre_of_mass(body), body.down if normal is None else normal.to(q)
    up = -up / up.norm() if normal is None else up / up.norm()
    radius = gyration(body, pose, centre)
    wanted = _about_centre(inverse_dynamics(body, q, v, a), pose, centre, radius)
    arm = (points.positions(pose) - centre[..., None, :]) / radius[..., None, None]
    force = contact_forces(wanted, arm, contact, up, friction, steps, damping)
    left = wanted - torch.cat([force.sum(-2), cross(arm, force).sum(-2)], -1)
    weight = body.mass.sum() * body.down.norm()
    scale = torch.cat([torch.ones_like(centre), radius[..., None].expand_as(centre)], -1)
    return Reaction(force, left * scale, left.norm(dim=-1) / weight)


def gyration(body: Body, pose: Pose, centre: Tensor) -> Tensor:
    """Return the radius of gyration about the centre of mass, (*batch,) [m]: the length that makes forces of moments."""
    apart = (pose.centres(body) - centre[..., None, :]).square().sum(-1)
    own = body.inertia.diagonal(dim1=-2, dim2=-1).sum(-1) / 2
    return ((body.mass * apart + own).sum(-1) / body.mass.sum()).sqrt()


def _about_centre(tau: Tensor, pose: Pose, centre: Tensor, radius: Tensor) -> Tensor:
    """The root's wrench, its moment about the centre of mass and over the radius, (*batch, 6) [N]."""
    force, moment = tau[..., :3], turned(pose.rotation[..., 0, :, :], tau[..., 3:6])
    return torch.cat([force, (moment + cross(pose.position[..., 0, :] - centre, force)) / radius[..., None]], -1)


def contact_forces(
    wanted: Float[Tensor, "*batch 6"],
    arm: Float[Tensor, "*batch P 3"],
    contact: Bool[Tensor, "*batch P"],
    up: Float[Tensor, " 3"],
    friction: float = 0.8,
    steps: int = 200,
    damping: float = 1e-6,
) -> Float[Tensor, "*batch P 3"]:
    """Return the forces at points, in their cones, whose sum and moment come nearest to a wanted wrench.

    By projected gradient steps with Nesterov's momentum. ``arm``: from where moments are taken, in the unit of length by which
    the wanted moment was divided.
    """
    curvature = ((1 + arm.square().sum(-1)) * contact).sum(-1)[..., None, None].detach().clamp(min=1.0)
    force = last = torch.zeros_like(arm)
    for step in range(steps):
        ahead = force + (step / (step + 3)) * (force - last)
        missing = wanted - torch.cat([ahead.sum(-2), cross(arm, ahead).sum(-2)], -1)
        pull = missing[..., None, :3] - cross(arm, missing[..., None, 3:].expand_as(arm)) - damping * curvature * ahead
        last, force = force, in_cone(ahead + pull / curvature, up, friction) * contact[..., None]
    return force


def in_cone(force: Float[Tensor, "*batch 3"], up: Float[Tensor, " 3"], friction: float) -> Float[Tensor, "*batch 3"]:
    """Return the nearest force with ``|f_t| <= mu f_n``.

    Example::

        in_cone(torch.tensor([3.0, 0.0, 1.0]), torch.tensor([0.0, 0.0, 1.0]), 0.5)  # [1.0, 0.0, 2.0]
    """
    normal = (force * up).sum(-1, keepdim=True)
    along = force - normal * up
    size = (along.square().sum(-1, keepdim=True) + 1e-24).sqrt()
    inside, opposite = size <= friction * normal, friction * size <= -normal
    on = ((friction * size + normal) / (1 + friction**2)).clamp(min=0)
    surface = on * up + friction * on * along / size
    return torch.where(inside, force, torch.where(opposite, torch.zeros_like(force), surface))
