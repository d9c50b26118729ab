"""Kinematics of a body: where its links are, how they turn and move, and how that changes; level by level of the tree.

Everything is in the world's axes. For a link i with parent p, joint frame at ``x_i`` (card: motion, section 11.3):

    R_i = R_p rest_i R(q_i)                      x_i = x_p + R_p (offset_i + d_i)
    W_i = W_p + R_i w_i                          V_i = V_p + W_p x r_i + R_p d'_i
    W'_i = W'_p + R_i w'_i + W_p x R_i w_i       A_i = A_p + W'_p x r_i + W_p x (W_p x r_i) + 2 W_p x R_p d'_i + R_p d''_i

with ``r_i = x_i - x_p``, the joint's displacement d (slides, free joints) and its angular velocity w in the link's frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import roma
import torch
from jaxtyping import Float
from torch import Tensor, cat

from visviva.errors import InputError
from visviva.physics.bodies.body import JOINTS, Body
from visviva.physics.dynamics.layout import Layout, layout_of


@dataclass(frozen=True)
class Pose:
    """Where the links are: rotations (*batch, n, 3, 3) and origins (*batch, n, 3) [m] in the world."""

    rotation: Tensor
    position: Tensor

    def centres(self, body: Body) -> Float[Tensor, "*batch n 3"]:
        """Return the links' centres of mass [m]."""
        return self.position + turned(self.rotation, body.com)

    def centre_of_mass(self, body: Body) -> Float[Tensor, "*batch 3"]:
        """Return the body's centre of mass [m]."""
        return (body.mass[:, None] * self.centres(body)).sum(-2) / body.mass.sum()


@dataclass(frozen=True)
class Motion:
    """How the links move, each (*batch, n, 3), in the world.

    Attributes:
        pose: where they are.
        spin, velocity: angular velocity [rad/s], and velocity of the origin [m/s].
        twist, acceleration: their time derivatives; None where no accelerations were given.
    """

    pose: Pose
    spin: Tensor
    velocity: Tensor
    twist: Tensor | None = None
    acceleration: Tensor | None = None


def turned(rotation: Tensor, vector: Tensor) -> Tensor:
    """Return ``R v``."""
    return (rotation @ vector[..., None])[..., 0]


def cross(one: Tensor, other: Tensor) -> Tensor:
    """Return the vector product along the last axis."""
    return torch.linalg.cross(*torch.broadcast_tensors(one, other))


def place(body: Body, q: Float[Tensor, "*batch nq"]) -> Pose:
    """Return where the links are (forward kinematics).

    Args:
        body: the tree.
        q: configuration, as `visviva.physics.bodies.body` lays it out; quaternions need not have unit length.

    Raises:
        InputError: a configuration of another length.

    Example::

        pose = place(body, q)  # pose.position (*batch, n, 3) m
    """
    layout = layout_of(body)
    local, displaced = joints(body, layout, q)
    done: list[tuple[Tensor, ...]] = []
    for depth, links in enumerate(layout.levels):
        rotation, position = local[..., links, :, :], body.offset[links] + displaced[..., links, :]
        if depth:
            up, at = _picked(done[-1], layout.inside[depth])
            rotation, position = up @ rotation, at + turned(up, position)
        done.append((rotation, position))
    return Pose(*_picked((cat([r for r, _ in done], -3), cat([x for _, x in done], -2)), layout.back))


def check_configuration(body: Body, q: Tensor) -> None:
    """Raise an `InputError` for a configuration of another length, dtype or device than the body's."""
    if q.shape[-1:] != (body.nq,):
        raise InputError(
            f"a configuration of the shape {tuple(q.shape)}; (*batch, {body.nq}) is wanted (free 7, ball 4, hinge, slide 1)"
        )
    check_kind(body, q, "configuration")


def check_velocity(body: Body, v: Tensor) -> None:
    """Raise an `InputError` for a velocity, or a change of one, of another length, dtype or device than the body's."""
    if v.shape[-1:] != (body.nv,):
        raise InputError(
            f"a velocity of the shape {tuple(v.shape)}; (*batch, {body.nv}) is wanted (free 6, ball 3, hinge and slide 1)"
        )
    check_kind(body, v, "velocity")


def check_kind(body: Body, values: Tensor, what: str) -> None:
    """Raise an `InputError` for values of another dtype or device than the body's."""
    if values.dtype != body.mass.dtype or values.device != body.mass.device:
        raise InputError(
            f"the {what} is {values.dtype} on {values.device}, the body {body.mass.dtype} on {body.mass.device}; use "
            f"body.to({values.dtype}, ...), or convert the {what}"
        )


def joints(body: Body, layout: Layout, q: Tensor) -> tuple[Tensor, Tensor]:
    """Return each link's rotation in its parent (*batch, n, 3, 3) and its displacement there (*batch, n, 3)."""
    check_configuration(body, q)
    constants = q.new_tensor([0.0, 1.0]).expand(*q.shape[:-1], 2)
    padded = cat([q, constants], -1)
    kinds = set(body.joints)
    local = body.rest.expand(*q.shape[:-1], -1, -1, -1)
    if kinds & {"free", "ball"}:
        local = local @ rotation_of(padded[..., layout.quaternion])
    if "hinge" in kinds:
        local = local @ roma.rotvec_to_rotmat(padded[..., layout.angle][..., None] * body.axis)
    displaced = padded[..., layout.place]
    if "slide" in kinds:
        displaced = displaced + turned(body.rest, padded[..., layout.slide][..., None] * body.axis)
    return local, displaced


def rotation_of(quaternion: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3 3"]:
    """Return the rotation matrix of a quaternion (w, x, y, z), of any length but 0."""
    return roma.unitquat_to_rotmat(roma.quat_wxyz_to_xyzw(quaternion / quaternion.norm(dim=-1, keepdim=True)))


def rates(body: Body, layout: Layout, v: Tensor) -> tuple[Tensor, Tensor]:
    """Return each joint's angular velocity in its link, and its displacement's rate in the parent, both (*batch, n, 3)."""
    check_velocity(body, v)
    padded = cat([v, v.new_zeros(*v.shape[:-1], 1)], -1)
    spin, shift = padded[..., layout.spin], padded[..., layout.shift]
    if "hinge" in body.joints:
        spin = spin + padded[..., layout.turning][..., None] * body.axis
    if "slide" in body.joints:
        shift = shift + turned(body.rest, padded[..., layout.sliding][..., None] * body.axis)
    return spin, shift


def check_batch(*states: Tensor | None) -> None:
    """Raise an `InputError` for states (*batch, n) of unlike batches; None are passed over."""
    shapes = [tuple(state.shape[:-1]) for state in states if state is not None]
    if len(set(shapes)) > 1:
        raise InputError(f"states of the batches {', '.join(map(str, shapes))}; one batch for all is wanted: expand them")


def move(
    body: Body,
    q: Float[Tensor, "*batch nq"],
    v: Float[Tensor, "*batch nv"],
    a: Float[Tensor, "*batch nv"] | None = None,
) -> Motion:
    """Return how the links move, with their accelerations where the joints' are given.

    Example::

        motion = move(body, q, v, a)  # motion.velocity, motion.acceleration (*batch, n, 3)

    Raises:
        InputError: lengths, dtypes, devices or batches that do not fit.
    """
    layout = layout_of(body)
    local, displaced = joints(body, layout, q)
    spin, shift = rates(body, layout, v)
    check_batch(q, v, a)
    twist, push = rates(body, layout, v.new_zeros(()).expand(v.shape) if a is None else a)
    done: list[tuple[Tensor, ...]] = []
    for depth, links in enumerate(layout.levels):
        own = _picked((local, displaced + body.offset, shift, push, spin, twist), links)
        done.append(_step(own, _picked(done[-1], layout.inside[depth]) if depth else None))
    together = cat([level[0] for level in done], -3), *(cat([level[k] for level in done], -2) for k in range(1, 6))
    rotation, position, *others = _picked(together, layout.back)
    moved = Motion(Pose(rotation, position), others[0], others[1])
    return moved if a is None else Motion(moved.pose, *others)


def _picked(state: tuple[Tensor, ...], links: Tensor) -> tuple[Tensor, ...]:
    rotation, *vectors = state
    return rotation.index_select(-3, links), *(vector.index_select(-2, links) for vector in vectors)


def _step(own: tuple[Tensor, ...], above: tuple[Tensor, ...] | None) -> tuple[Tensor, ...]:
    """One level, from its joints and the links above: rotation, position, spin, velocity, twist, acceleration."""
    local, r, shift, push, spin, twist = own
    if above is None:
        return local, r, turned(local, spin), shift, turned(local, twist), push
    up, at, whirl, speed, turn, gain = above
    r, shift, push = turned(up, r), turned(up, shift), turned(up, push)
    rotation = up @ local
    whirled = turned(rotation, spin)
    return (
        rotation,
        at + r,
        whirl + whirled,
        speed + cross(whirl, r) + shift,
        turn + turned(rotation, twist) + cross(whirl, whirled),
        gain + cross(turn, r) + cross(whirl, cross(whirl, r) + 2 * shift) + push,
    )


def directions(body: Body, layout: Layout, rotation: Tensor) -> Float[Tensor, "*batch nv 3"]:
    """Return the direction of each degree of freedom in the world: its axis of rotation, or where it slides to."""
    axis = torch.where(layout.own[:, None], body.axis[layout.link], layout.unit.to(body.axis))
    return torch.where(layout.world[:, None], axis, turned(rotation[..., layout.link, :, :], axis))


def integrate(
    body: Body, q: Float[Tensor, "*batch nq"], v: Float[Tensor, "*batch nv"], dt: float
) -> Float[Tensor, "*batch nq"]:
    """Return the configuration after moving with the velocity v for the time dt [s]; quaternions stay of unit length.

    Example::

        later = integrate(body, q, v, 1 / 30)
    """
    layout = layout_of(body)
    spins = cat([v, v.new_zeros(*v.shape[:-1], 1)], -1)[..., layout.spin] * dt
    own = cat([q, q.new_tensor([0.0, 1.0]).expand(*q.shape[:-1], 2)], -1)[..., layout.quaternion]
    turn = roma.rotvec_to_unitquat(spins)
    quaternions = roma.quat_xyzw_to_wxyz(roma.quat_product(roma.quat_wxyz_to_xyzw(own), turn))
    quaternions = quaternions / quaternions.norm(dim=-1, keepdim=True)
    parts, at, by = [], 0, 0
    for link, joint in enumerate(body.joints):
        if joint == "free":
            parts += [q[..., at : at + 3] + dt * v[..., by : by + 3], quaternions[..., link, :]]
        elif joint == "ball":
            parts.append(quaternions[..., link, :])
        elif joint in ("hinge", "slide"):
            parts.append(q[..., at : at + 1] + dt * v[..., by : by + 1])
        at, by = at + JOINTS[joint][0], by + JOINTS[joint][1]
    return cat(parts, -1)
