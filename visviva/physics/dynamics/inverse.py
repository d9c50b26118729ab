"""Inverse dynamics: the forces that make a body move as it does (recursive Newton-Euler, in the world's axes).

After the accelerations of `visviva.physics.dynamics.motion`, from the leaves to the root (card: motion, section 11.3):

    c = R com,  F_i = m (A_i + W'_i x c + W_i x (W_i x c) - g),  N_i = J W'_i + W_i x J W_i,  J = R I R^T
    f_i = F_i + sum_k f_k,  t_i = N_i + c x F_i + sum_k [t_k + (x_k - x_i) x f_k],  k: children of i
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError
from visviva.physics.bodies.body import Body
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
    turned,
)


def inverse_dynamics(
    body: Body,
    q: Float[Tensor, "*batch nq"],
    v: Float[Tensor, "*batch nv"],
    a: Float[Tensor, "*batch nv"],
    wrench: Float[Tensor, "*batch n 6"] | None = None,
    method: str = "torch",
) -> Float[Tensor, "*batch nv"]:
    """Return the generalised forces tau of ``M(q) a + h(q, v) = tau + J^T wrench``.

    Args:
        body: the tree.
        q, v, a: configuration, velocity and its time derivative, laid out as `visviva.physics.bodies.body` says.
        wrench: what acts on the links from outside: force [N] and moment about the link's origin [N m], in the world.
        method: ``torch`` is readable, differentiable any number of times and with respect to the body, too; ``warp`` is one
            kernel with gradients of the states alone, for thousands of them.

    Returns:
        Forces and moments of the joints; the first six of a body with a free root are what moves the root: 0 if nothing but
        gravity and the wrenches acts from outside. Differentiable with respect to everything.

    Raises:
        InputError: lengths, dtypes, devices or batches that do not fit.

    Example::

        tau = inverse_dynamics(body, q, v, a)
    """
    check_configuration(body, q)
    check_velocity(body, v)
    check_velocity(body, a)
    check_batch(q, v, a)
    wrench = check_wrench(body, wrench, q.shape[:-1])
    check_method(method, "inverse dynamics")
    if method == "warp":
        from visviva.physics.dynamics import warped

        tau = warped.inverse_dynamics(body, q, v, a, wrench)
    else:
        layout = layout_of(body)
        motion = move(body, q, v, a)
        force, moment = carried(body, layout, motion, wrench)
        way = directions(body, layout, motion.pose.rotation)
        load = torch.where(layout.angular[:, None], moment[..., layout.link, :], force[..., layout.link, :])
        tau = (way * load).sum(-1)
    return tau if body.armature is None else tau + body.armature * a


def check_method(method: str, what: str) -> None:
    """Raise an `InputError` for a method that is none."""
    if method not in ("torch", "warp"):
        raise InputError(f"unknown method {method!r} of {what}; 'torch' or 'warp'")


def check_wrench(body: Body, wrench: Tensor | None, batch: torch.Size) -> Tensor | None:
    """Return wrenches (*batch, n, 6), one for all repeated; raise an `InputError` for another shape, dtype or device."""
    if wrench is None:
        return None
    if wrench.shape[-2:] != (len(body), 6):
        raise InputError(f"wrenches of the shape {tuple(wrench.shape)}; (*batch, {len(body)}, 6) is wanted")
    check_kind(body, wrench, "wrench")
    try:
        return wrench.expand(*batch, -1, -1)
    except RuntimeError:
        raise InputError(f"wrenches of the shape {tuple(wrench.shape)} for states of the batch {tuple(batch)}") from None


def carried(body: Body, layout: Layout, motion: Motion, wrench: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return force and moment about its origin that each link's joint transmits, (*batch, n, 3) each, in the world."""
    force, moment = needed(body, motion)
    if wrench is not None:
        force, moment = force - wrench[..., :3], moment - wrench[..., 3:]
    position = motion.pose.position
    forces: list[Tensor] = []
    moments: list[Tensor] = []
    for depth in reversed(range(len(layout.levels))):
        links = layout.levels[depth]
        f, t = force[..., links, :], moment[..., links, :]
        if depth + 1 < len(layout.levels):
            inside, above = layout.inside[depth + 1], layout.levels[depth + 1]
            lever = position[..., above, :] - position[..., links, :][..., inside, :]
            f = f.index_add(-2, inside, forces[-1])
            t = t.index_add(-2, inside, moments[-1] + cross(lever, forces[-1]))
        forces.append(f)
        moments.append(t)
    ordered = (torch.cat(parts[::-1], -2)[..., layout.back, :] for parts in (forces, moments))
    return tuple(ordered)  # type: ignore[return-value]


def needed(body: Body, motion: Motion) -> tuple[Tensor, Tensor]:
    """Return force and moment about its origin that each link's own motion needs beyond gravity, (*batch, n, 3) each."""
    if motion.twist is None or motion.acceleration is None:
        raise InputError("the motion has no accelerations; give them to move()")
    rotation, spin, twist = motion.pose.rotation, motion.spin, motion.twist
    arm = turned(rotation, body.com)
    gain = motion.acceleration + cross(twist, arm) + cross(spin, cross(spin, arm))
    force = body.mass[:, None] * (gain - body.down)
    inertia = rotation @ body.inertia @ rotation.mT
    return force, turned(inertia, twist) + cross(spin, turned(inertia, spin)) + cross(arm, force)
