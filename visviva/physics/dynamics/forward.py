"""Forward dynamics: the accelerations that forces cause (articulated bodies, after Featherstone; in the world's axes).

Spatial vectors are (angular, linear) about the world's origin, where free joints are put first: nothing depends on
their place. From the leaves to the root, with the joint's motions S,

    U = A S,  D = S^T U,  u = tau - S^T p,  A' = A - U D^-1 U^T,  p' = p + A' c + U D^-1 u,  both added to the parent's,

then from the root ``a_i = a_p + c_i + S_i q''_i`` with ``q'' = D^-1 (u - U^T (a_p + c))``. Joints of fewer than six degrees of
freedom are filled up with degrees that move nothing.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError
from visviva.physics.bodies.body import JOINTS, Body
from visviva.physics.bodies.posing import skew
from visviva.physics.dynamics.inverse import check_method, check_wrench
from visviva.physics.dynamics.layout import Layout, layout_of
from visviva.physics.dynamics.motion import (
    Motion,
    check_batch,
    check_configuration,
    check_kind,
    check_velocity,
    cross,
    directions,
    move,
    rates,
    turned,
)


def forward_dynamics(
    body: Body,
    q: Float[Tensor, "*batch nq"],
    v: Float[Tensor, "*batch nv"],
    tau: Float[Tensor, "*batch nv"],
    wrench: Float[Tensor, "*batch n 6"] | None = None,
    method: str = "torch",
) -> Float[Tensor, "*batch nv"]:
    """Return the accelerations a of ``M(q) a + h(q, v) = tau + J^T wrench``, in a time that grows with the number of links.

    Articulated bodies (Featherstone, Rigid Body Dynamics Algorithms, 2008, table 7.1). Use float64 for whole humans: the mass
    matrix of one has a condition of 1e5 to 1e6.

    Args:
        body: the tree.
        q, v: configuration and velocity, laid out as `visviva.physics.bodies.body` says.
        tau: forces [N] and moments [N m] of the joints.
        wrench: what acts on the links from outside: force [N] and moment about the link's origin [N m], in the world.
        method: ``torch`` is readable, differentiable any number of times and with respect to the body, too; ``warp`` is two
            kernels with gradients of the states and forces alone, for thousands of them.

    Returns:
        Time derivative of v [m/s^2, rad/s^2]: what `visviva.physics.dynamics.inverse_dynamics` takes to return tau.

    Raises:
        InputError: lengths, dtypes or devices that are not the body's, an unknown method, joints that move no inertia.

    Example::

        a = forward_dynamics(body, q, v, torch.zeros_like(v))  # how it falls
        a = forward_dynamics(body, q, v, torch.zeros_like(v), method="warp")  # of thousands
    """
    if tau.shape[-1:] != (body.nv,):
        raise InputError(f"forces of the shape {tuple(tau.shape)}; (*batch, {body.nv}) is wanted for this body")
    check_kind(body, tau, "force")
    check_configuration(body, q)
    check_velocity(body, v)
    check_batch(q, v, tau)
    wrench = check_wrench(body, wrench, q.shape[:-1])
    check_method(method, "forward dynamics")
    q = _at_origin(body, q)
    if method == "warp":
        from visviva.physics.dynamics import warped_forward

        return warped_forward.forward_dynamics(body, q, v, tau, wrench)
    return _articulated(body, q, v, tau, wrench)


def _articulated(body: Body, q: Tensor, v: Tensor, tau: Tensor, wrench: Tensor | None) -> Tensor:
    """The accelerations, level by level of the tree."""
    layout = layout_of(body)
    motion = move(body, q, v)
    joint, slots = _motions(body, layout, motion)
    inertia, push, drift = _state(body, layout, motion, v, wrench)
    filled = _filled(tau, slots)
    rotor = _filled(body.armature.expand_as(tau), slots) if body.armature is not None else torch.zeros_like(filled)
    kept = _inwards(body, layout, joint, inertia, push, drift, filled, rotor + (slots == body.nv).to(tau))
    found = _outwards(body, layout, joint, drift, kept)
    places = slots.flatten().argsort(stable=True)[: body.nv]
    return found.flatten(-2)[..., places]


def _at_origin(body: Body, q: Tensor) -> Tensor:
    """The configuration with free joints at the origin (nan stays): moments about a far point would lose the small numbers."""
    place = layout_of(body).place
    free = torch.zeros_like(q).index_fill(-1, place[place < body.nq], 1.0)
    return q - q * free


def _filled(values: Tensor, slots: Tensor) -> Tensor:
    return torch.cat([values, values.new_zeros(*values.shape[:-1], 1)], -1)[..., slots]


def _motions(body: Body, layout: Layout, motion: Motion) -> tuple[Tensor, Tensor]:
    """Each joint's motions as columns of (*batch, n, 6, 6), and the degree of freedom in each column (n, 6), nv for none."""
    way = directions(body, layout, motion.pose.rotation)
    turn = torch.where(layout.angular[:, None], way, 0.0)
    arm = cross(motion.pose.position[..., layout.link, :], way)
    columns = torch.cat([turn, torch.where(layout.angular[:, None], arm, way)], -1)
    columns = torch.cat([columns, columns.new_zeros(*columns.shape[:-2], 1, 6)], -2)
    slots, at = [], 0
    for joint in body.joints:
        size = JOINTS[joint][1]
        slots.append([*range(at, at + size), *[body.nv] * (6 - size)])
        at += size
    where = torch.tensor(slots, device=columns.device)
    return columns[..., where, :].mT, where


def _state(body: Body, layout: Layout, motion: Motion, v: Tensor, wrench: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Spatial inertia (*batch, n, 6, 6), bias force and bias acceleration of the joint (*batch, n, 6)."""
    rotation, position, spin = motion.pose.rotation, motion.pose.position, motion.spin
    centre = motion.pose.centres(body)
    mass = body.mass[:, None, None] * torch.eye(3, dtype=v.dtype, device=v.device)
    across = skew(centre)
    turning = rotation @ body.inertia @ rotation.mT - body.mass[:, None, None] * across @ across
    shifted = body.mass[:, None, None] * across
    inertia = torch.cat([torch.cat([turning, shifted], -1), torch.cat([shifted.mT, mass.expand_as(shifted)], -1)], -2)
    speed = motion.velocity + cross(position, spin)
    carried = turned(inertia, torch.cat([spin, speed], -1))
    moment, impulse = carried[..., :3], carried[..., 3:]
    weight = body.mass[:, None] * body.down
    push = torch.cat([cross(spin, moment) + cross(speed, impulse) - cross(centre, weight), cross(spin, impulse) - weight], -1)
    if wrench is not None:
        push = push - torch.cat([wrench[..., 3:] + cross(position, wrench[..., :3]), wrench[..., :3]], -1)
    return inertia, push, _drift(body, layout, motion, v)


def _drift(body: Body, layout: Layout, motion: Motion, v: Tensor) -> Tensor:
    """What the joints' motions change by themselves, ``dS/dt v`` (*batch, n, 6)."""
    spin, shift = rates(body, layout, v)
    parents = torch.tensor([p if p >= 0 else len(body) for p in body.parents], device=v.device)
    zero = motion.spin.new_zeros(*motion.spin.shape[:-2], 1, 3)
    whirl = torch.cat([motion.spin, zero], -2)[..., parents, :]
    own = turned(motion.pose.rotation, spin)
    eye = torch.eye(3, dtype=v.dtype, device=v.device).expand(*own.shape[:-2], 1, 3, 3)
    slid = turned(torch.cat([motion.pose.rotation, eye], -3)[..., parents, :, :], shift)
    turning = cross(whirl, own)
    linear = cross(motion.velocity, own) + cross(motion.pose.position, turning) + cross(whirl, slid)
    return torch.cat([turning, linear], -1)


def refuse(body: Body, links: Tensor) -> None:
    """Raise an `InputError` for links, by their numbers, whose joints move no inertia."""
    names = ", ".join(repr(body.names[link]) for link in links.tolist())
    raise InputError(
        f"the joints of {names} move no inertia (or the state is not finite), so forces cause no finite acceleration; "
        "give the links mass and inertia, weld them, or give the body an armature"
    )


def _inwards(
    body: Body, layout: Layout, joint: Tensor, inertia: Tensor, push: Tensor, drift: Tensor, tau: Tensor, more: Tensor
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """For each level, roots first: ``U``, the factor of D, and u."""
    kept: list[tuple[Tensor, Tensor, Tensor]] = []
    passed: tuple[Tensor, Tensor] | None = None
    for depth in reversed(range(len(layout.levels))):
        links = layout.levels[depth]
        s, whole, load = joint[..., links, :, :], inertia[..., links, :, :], push[..., links, :]
        if passed is not None:
            inside = layout.inside[depth + 1]
            whole, load = whole.index_add(-3, inside, passed[0]), load.index_add(-2, inside, passed[1])
        u = whole @ s
        factor, failed = torch.linalg.cholesky_ex(s.mT @ u + torch.diag_embed(more[..., links, :]))
        bad = failed.flatten(0, -2).bool().any(0) if failed.ndim > 1 else failed.bool()
        if bool(bad.any()):
            refuse(body, links[bad])
        left = tau[..., links, :] - turned(s.mT, load)
        kept.append((u, factor, left))
        rest = whole - u @ torch.cholesky_solve(u.mT, factor)
        through = turned(rest, drift[..., links, :]) + turned(u, torch.cholesky_solve(left[..., None], factor)[..., 0])
        passed = rest, load + through
    return kept[::-1]


def _outwards(body: Body, layout: Layout, joint: Tensor, drift: Tensor, kept: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """Joint accelerations, filled up (*batch, n, 6)."""
    found, above = [], None
    for depth, links in enumerate(layout.levels):
        u, factor, left = kept[depth]
        start = drift[..., links, :]
        if above is not None:
            start = start + above[..., layout.inside[depth], :]
        own = torch.cholesky_solve((left - turned(u.mT, start))[..., None], factor)[..., 0]
        above = start + turned(joint[..., links, :, :], own)
        found.append(own)
    return torch.cat(found, -2)[..., layout.back, :]
