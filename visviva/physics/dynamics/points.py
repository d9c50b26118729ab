"""Points of a body's links: where they are, how the joints move them, and what forces at them do to the body.

A point at x on link i moves with ``x' = J v``. The column of a degree of freedom with the direction s in the world, whose
joint is at o and carries i, is ``s x (x - o)`` if it turns and ``s`` if it slides; else it is zero. Forces f at the points do
as much as the generalised forces ``J^T f``, with the same power ``f . J v`` (principle of virtual work).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError
from visviva.physics.bodies.body import Body
from visviva.physics.dynamics.layout import layout_of
from visviva.physics.dynamics.motion import Pose, check_kind, cross, directions, place, turned


@dataclass(frozen=True)
class Points:
    """Points of a body, such as those that may touch the ground.

    Attributes:
        links: the link of each, P indices.
        at: their places in the links' frames, (P, 3), or (*batch, P, 3) where they wander [m].
    """

    links: tuple[int, ...]
    at: Tensor

    def positions(self, pose: Pose) -> Float[Tensor, "*batch P 3"]:
        """Return where the points are in the world [m]."""
        links = list(self.links)
        return pose.position[..., links, :] + turned(pose.rotation[..., links, :, :], self.at)


def point_jacobian(body: Body, q: Float[Tensor, "*batch nq"], points: Points) -> Float[Tensor, "*batch P 3 nv"]:
    """Return J with ``J v`` the velocities of points of the links, in the world's axes, and ``J^T f`` what forces there do.

    Args:
        body: the tree.
        q: configuration.
        points: on its links.

    Returns:
        In the dtype and on the device of q; columns are laid out as velocities are. Differentiable with respect to q, the
        points and the body.

    Raises:
        InputError: points of links that the body does not have, or of another dtype or device; a configuration of another
            length.

    Example::

        J = point_jacobian(body, q, soles)
        speed = torch.einsum("...pxj,...j->...px", J, v)  # [m/s]
        tau = torch.einsum("...pxj,...px->...j", J, force)  # [N, N m]
    """
    check_points(body, points)
    layout, pose = layout_of(body), place(body, q)
    way = directions(body, layout, pose.rotation)[..., None, :, :]
    arm = points.positions(pose)[..., :, None, :] - pose.position[..., layout.link, :][..., None, :, :]
    columns = torch.where(layout.angular[:, None], cross(way, arm), way)
    moved = layout.moves[:, list(points.links)].T
    return torch.where(moved[..., None], columns, 0.0).mT


def point_wrenches(body: Body, pose: Pose, points: Points, force: Float[Tensor, "*batch P 3"]) -> Float[Tensor, "*batch2 n 6"]:
    """Return forces at points [N, in the world] as the wrenches on links that inverse and forward dynamics take.

    The same forces may act in many poses. Differentiable.

    Raises:
        InputError: as `point_jacobian`; forces that are not one per point.

    Example::

        a = forward_dynamics(body, q, v, tau, point_wrenches(body, place(body, q), soles, force))
    """
    check_points(body, points)
    if force.shape[-2:] != (len(points.links), 3):
        raise InputError(f"forces of the shape {tuple(force.shape)} at {len(points.links)} points; (*batch, P, 3) is wanted")
    check_kind(body, force, "force")
    links = torch.tensor(points.links, dtype=torch.long, device=force.device)
    arm = points.positions(pose) - pose.position.index_select(-2, links)
    force = force.expand_as(arm)
    rows = torch.cat([force, cross(arm, force)], -1)
    return rows.new_zeros(*rows.shape[:-2], len(body), 6).index_add(-2, links, rows)


def check_points(body: Body, points: Points) -> None:
    """Raise an `InputError` for points that are not on the body's links, one place each."""
    wrong = [link for link in points.links if not 0 <= link < len(body)]
    if wrong:
        raise InputError(f"points on the links {wrong}; this body has the links 0 to {len(body) - 1}")
    if points.at.shape[-2:] != (len(points.links), 3):
        raise InputError(
            f"places of the shape {tuple(points.at.shape)} for points on {len(points.links)} links; (P, 3) is wanted"
        )
    check_kind(body, points.at, "points' places")
