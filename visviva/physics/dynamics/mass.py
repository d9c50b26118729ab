"""The mass matrix of a body, from composite inertias, and momentum and energy."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.physics.bodies.body import Body
from visviva.physics.dynamics.inverse import check_method, inverse_dynamics
from visviva.physics.dynamics.layout import Layout, layout_of
from visviva.physics.dynamics.motion import Motion, Pose, check_configuration, cross, directions, place, turned


def mass_matrix(body: Body, q: Float[Tensor, "*batch nq"], method: str = "torch") -> Float[Tensor, "*batch nv nv"]:
    """Return the symmetric mass matrix M(q), composite rigid bodies, with the body's armature on its diagonal.

    ``M_jk = s_j . I_k s_k`` where the link of k hangs on the link of j, with the motions s in the world's axes about the body's
    centre of mass, and I_k the inertia of k's link and all that it carries (Featherstone, Rigid Body Dynamics Algorithms, 2008,
    table 6.2).

    Args:
        body: the tree.
        q: configuration, laid out as `visviva.physics.bodies.body` says.
        method: ``torch`` is readable, differentiable any number of times and with respect to the body, too; ``warp`` is one
            kernel with a gradient by the configuration alone, for thousands of them.

    Returns:
        Rows and columns are laid out as velocities are [kg, kg m, kg m^2].

    Raises:
        InputError: a configuration that is not the body's, an unknown method.

    Example::

        torch.linalg.eigvalsh(mass_matrix(body, q)).min() > 0
        mass_matrix(body, q, method="warp")  # of thousands
    """
    check_method(method, "the mass matrix")
    if method == "warp":
        from visviva.physics.dynamics import warped_mass

        check_configuration(body, q)
        matrix = warped_mass.mass_matrix(body, q)
    else:
        matrix = _matrix(body, q)
    return matrix if body.armature is None else matrix + torch.diag(body.armature)


def _matrix(body: Body, q: Tensor) -> Tensor:
    """The mass matrix without the armature."""
    layout, pose = layout_of(body), place(body, q)
    about = pose.centre_of_mass(body)[..., None, :]
    mass, first, second = _composite(body, layout, pose, about)
    way = directions(body, layout, pose.rotation)
    turn = torch.where(layout.angular[:, None], way, 0.0)
    speed = torch.where(layout.angular[:, None], cross(way, about - pose.position[..., layout.link, :]), way)
    m, h, inertia = (t.index_select(axis, layout.link) for t, axis in ((mass, -1), (first, -2), (second, -3)))
    linear = m[..., None] * speed + cross(turn, h)
    angular = turned(inertia, turn) + cross(h, speed)
    full = speed @ linear.mT + turn @ angular.mT
    same = layout.above & layout.above.mT
    matrix = torch.where(layout.above, full, 0.0)
    return matrix + torch.where(same, 0.0, matrix).mT


def _composite(body: Body, layout: Layout, pose: Pose, about: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mass (*batch, n), first moment (.., 3) and inertia (.., 3, 3) about a point, of each link and all that it carries."""
    arm = pose.centres(body) - about
    mass = body.mass.expand(arm.shape[:-1])
    first = mass[..., None] * arm
    eye = torch.eye(3, dtype=arm.dtype, device=arm.device)
    square = arm.square().sum(-1)[..., None, None] * eye - arm[..., :, None] * arm[..., None, :]
    second = pose.rotation @ body.inertia @ pose.rotation.mT + mass[..., None, None] * square
    parts: list[list[Tensor]] = []
    for depth in reversed(range(len(layout.levels))):
        links = layout.levels[depth]
        own = [t.index_select(axis, links) for t, axis in ((mass, -1), (first, -2), (second, -3))]
        if depth + 1 < len(layout.levels):
            own = [
                t.index_add(axis, layout.inside[depth + 1], up)
                for t, axis, up in zip(own, (-1, -2, -3), parts[-1], strict=True)
            ]
        parts.append(own)
    gathered = (torch.cat([level[k] for level in parts[::-1]], -1 - k).index_select(-1 - k, layout.back) for k in range(3))
    return tuple(gathered)  # type: ignore[return-value]


def bias(body: Body, q: Float[Tensor, "*batch nq"], v: Float[Tensor, "*batch nv"]) -> Float[Tensor, "*batch nv"]:
    """Return h(q, v) of ``M a + h = tau``: gravity, centrifugal and Coriolis forces."""
    return inverse_dynamics(body, q, v, torch.zeros_like(v))


def gravity_forces(body: Body, q: Float[Tensor, "*batch nq"]) -> Float[Tensor, "*batch nv"]:
    """Return the forces that hold the body still against gravity."""
    still = q.new_zeros(*q.shape[:-1], body.nv)
    return inverse_dynamics(body, q, still, still)


def momentum(body: Body, motion: Motion) -> tuple[Float[Tensor, "*batch 3"], Float[Tensor, "*batch 3"]]:
    """Return linear momentum [kg m/s] and angular momentum about the centre of mass [kg m^2/s] (centroidal momentum).

    In flight the first changes by ``m g dt`` and the second not at all.
    """
    rotation = motion.pose.rotation
    arm = turned(rotation, body.com)
    speed = motion.velocity + cross(motion.spin, arm)
    each = body.mass[:, None] * speed
    about = motion.pose.position + arm - motion.pose.centre_of_mass(body)[..., None, :]
    spun = turned(rotation @ body.inertia @ rotation.mT, motion.spin)
    return each.sum(-2), (cross(about, each) + spun).sum(-2)


def energy(body: Body, motion: Motion) -> tuple[Float[Tensor, " *batch"], Float[Tensor, " *batch"]]:
    """Return kinetic and potential energy [J]; the latter is 0 with the centre of mass at the world's origin."""
    rotation = motion.pose.rotation
    speed = motion.velocity + cross(motion.spin, turned(rotation, body.com))
    inner = turned(rotation.mT, motion.spin)
    kinetic = (body.mass * speed.square().sum(-1) + (inner * turned(body.inertia, inner)).sum(-1)).sum(-1) / 2
    return kinetic, -body.mass.sum() * (motion.pose.centre_of_mass(body) * body.down).sum(-1)
