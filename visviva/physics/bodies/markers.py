"""Rigid segments and joints from markers on the skin whose names nobody knows: geometry of motion alone.

Markers of one segment keep their distances: segments are groups of them. Two segments that share a joint have a point that
both carry along: the joint's centre is the least-squares solution of ``R1 c1 + o1 = R2 c2 + o2`` over all frames, and a hinge's
axis the direction in which that system is weakest (Ehrig et al. 2006 and 2007, SCoRE and SARA).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import roma
import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError


@dataclass(frozen=True)
class Rigid:
    """A rigid segment that was followed.

    Attributes:
        shape: of its markers about their mean, (k, 3) [m].
        rotation: from the shape to the world, (T, 3, 3); ``origin``: mean of the markers, (T, 3) [m].
        error: how far the markers are from the rigid shape, root mean square [m].
    """

    shape: Tensor
    rotation: Tensor
    origin: Tensor
    error: float

    def carried(self, point: Float[Tensor, " 3"]) -> Float[Tensor, "T 3"]:
        """Return where a point of the segment is in the world [m]."""
        return self.rotation @ point + self.origin

    def within(self, points: Float[Tensor, "T *k 3"]) -> Float[Tensor, "T *k 3"]:
        """Return points of the world in the segment's frame [m]."""
        around = self.rotation.mT if points.ndim == 2 else self.rotation.mT[:, None]
        origin = self.origin if points.ndim == 2 else self.origin[:, None]
        return (around @ (points - origin)[..., None])[..., 0]


@dataclass(frozen=True)
class Shared:
    """What two segments share.

    Attributes:
        centre: of the joint in the first segment's and in the second's frame, (2, 3) [m]; along a hinge it is undetermined,
            and taken where it is nearest to the markers' means.
        axis: of weakest turning, unit vectors in both frames, (2, 3); a hinge's axis.
        error: how far the two centres are apart, root mean square [m].
    """

    centre: Tensor
    axis: Tensor
    error: float


def rigid_groups(markers: Float[Tensor, "T n 3"], apart: float = 0.006) -> list[list[int]]:
    """Return which markers move together: groups whose distances vary by less than ``apart`` over time.

    Average linkage of the standard deviations of all distances between two markers. Skin slides some millimetres on bones, so
    less than 3 mm breaks segments up, and more than 1 cm joins neighbours (a foot with its shank). Needs segments to move.

    Args:
        markers: places over time [m].
        apart: mean standard deviation of distances at which groups are no longer joined [m].

    Raises:
        InputError: fewer than 3 frames or 2 markers, or markers that are not finite.

    Example::

        rigid_groups(motion.positions)  # [[0, 1, 2, 3], [4, 5, 6], ...]: sorted by their first marker
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    _check(markers, 2)
    spread = torch.stack([(markers - markers[:, i : i + 1]).norm(dim=-1).std(0) for i in range(markers.shape[1])])
    tree = linkage(squareform(spread.double().cpu().numpy(), checks=False), "average")
    label = fcluster(tree, apart, "distance")
    groups = [np.flatnonzero(label == k).tolist() for k in np.unique(label)]
    return sorted(groups)


def follow(markers: Float[Tensor, "T k 3"], rounds: int = 10) -> Rigid:
    """Return the rigid shape that the markers have, and how it moves (generalised Procrustes, rotations only).

    Raises:
        InputError: fewer than 3 frames or 3 markers, markers that are not finite or lie on one line.

    Example::

        follow(motion.positions[:, [7, 8, 9]]).rotation  # (T, 3, 3)
    """
    _check(markers, 3)
    origin = markers.mean(1)
    about = markers - origin[:, None]
    shape = about[0]
    size = torch.linalg.svdvals(shape)
    if bool(size[1] < 0.01 * size[0]):
        raise InputError("the markers of a segment lie on one line: its rotation is open; give three that do not")
    for _ in range(rounds):
        rotation = roma.special_procrustes(about.mT @ shape)
        shape = (about @ rotation).mean(0)
    error = (shape @ rotation.mT - about).square().sum(-1).mean().sqrt()
    return Rigid(shape, rotation, origin, float(error))


def shared_joint(one: Rigid, other: Rigid, weight: float = 1e-3) -> Shared:
    """Return the joint of two segments.

    Args:
        one, other: the segments over the same frames.
        weight: pull of the centres towards the means of the segments' markers, which decides where motion does not.

    Example::

        knee = shared_joint(follow(thigh), follow(shank))
        knee.centre[0], knee.axis[0]  # in the frame of the thigh's markers
    """
    system = torch.cat([one.rotation, -other.rotation], -1).flatten(0, 1)
    wanted = (other.origin - one.origin).flatten()
    frames = len(one.origin)
    normal = system.mT @ system / frames
    found = torch.linalg.solve(normal + weight**2 * torch.eye(6).to(system), system.mT @ wanted / frames)
    weakest = torch.linalg.eigh(normal).eigenvectors[:, 0].unflatten(0, (2, 3))
    error = (system @ found - wanted).unflatten(0, (-1, 3)).square().sum(-1).mean().sqrt()
    return Shared(found.unflatten(0, (2, 3)), weakest / weakest.norm(dim=-1, keepdim=True), float(error))


def _check(markers: Tensor, least: int) -> None:
    if markers.ndim != 3 or markers.shape[-1] != 3 or markers.shape[0] < 3 or markers.shape[1] < least:
        raise InputError(f"markers of the shape {tuple(markers.shape)}; (T, n, 3) with 3 frames and {least} markers or more")
    if not bool(markers.isfinite().all()):
        bad = (~markers.isfinite()).flatten(2).any(-1).any(0).nonzero()[:, 0].tolist()
        raise InputError(f"markers that are not finite: {bad[:8]}; fill the gaps first")
