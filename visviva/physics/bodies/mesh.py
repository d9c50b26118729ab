"""Masses, centres and inertias of links from the volume of a skinned mesh.

The surface of a link is the mesh, each face weighted by how much of it follows the link, closed by a disc at its joint and one
at each child's. The discs' areas follow from the closedness of the whole: the one at joint k has the area vector
``a_k = -sum_{i below k} sum_f w_fi A_f``. Volume and moments are then sums over cones from the surface to a point (divergence
theorem); the discs of a joint cancel, so that the links' volumes add up to the mesh's exactly.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from visviva.errors import InputError

DENSITY = 985.0
"""Mean density of a human body [kg/m^3]."""


def mesh_inertia(
    vertices: Float[Tensor, "v 3"],
    faces: Int[Tensor, "f 3"],
    weights: Float[Tensor, "w n"],
    joints: Float[Tensor, "j 3"],
    parents: Sequence[int],
    names: Sequence[str],
    density: float = DENSITY,
) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 3"], Float[Tensor, "n 3 3"]]:
    """Return mass [kg], centre of mass relative to the joint [m] and inertia about it [kg m^2] of every link.

    Args:
        vertices: of the mesh at rest [m].
        faces: corners of the triangles, counter-clockwise seen from outside.
        weights: of skinning, each row adds up to 1; links that nothing follows get no mass.
        joints: where the links' origins are [m].
        parents: -1 for the root.
        names: of the links, for errors.
        density: [kg/m^3].

    Raises:
        InputError: shapes that do not fit, faces of vertices that are not there, a mesh that is not closed or inside out, a
            link whose part of the surface encloses no volume.

    Example::

        mass, com, inertia = mesh_inertia(vertices, faces, weights, joints, parents, names)
    """
    _check(vertices, faces, weights, joints, parents)
    corners = vertices[faces]
    share = weights[faces].mean(1)
    area = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]) / 2
    if bool(area.sum(0).norm() > 1e-3 * area.norm(dim=-1).sum()):
        raise InputError(
            "the mesh is not closed: the areas of its faces do not cancel; close its holes, or use de Leva's masses"
        )
    volume = (corners[:, 0] * area).sum(-1).sum() / 3
    if not bool(volume > 0):
        raise InputError(f"the mesh encloses {float(volume):.3g} m^3; turn its faces outwards")
    below = _below(parents, vertices)
    caps = -below @ (share.T @ area)  # of each joint, outwards from what hangs on it
    used = share.sum(0) > 0
    carriers = _carriers(parents, used.tolist())
    found = [_link(link, corners, area, share[:, link], caps, joints, carriers) for link in range(len(parents))]
    volumes, first, second = (torch.stack(column) for column in zip(*found, strict=True))
    hollow = used & ~(volumes > 1e-9)
    if bool(hollow.any()):
        bad = ", ".join(names[i] for i in hollow.nonzero()[:, 0].tolist())
        raise InputError(f"the surface that follows {bad} encloses no volume; weld it to its parent, or use de Leva's masses")
    volumes = torch.where(used, volumes, 0.0)
    centre = torch.where(used[:, None], first / volumes.clamp(min=1e-12)[:, None], 0.0)
    spread = torch.where(used[:, None, None], second - volumes[:, None, None] * centre[:, :, None] * centre[:, None, :], 0.0)
    eye = torch.eye(3).to(vertices)
    inertia = spread.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None] * eye - spread
    return density * volumes, centre, density * inertia


def _check(vertices: Tensor, faces: Tensor, weights: Tensor, joints: Tensor, parents: Sequence[int]) -> None:
    count = len(parents)
    if weights.shape != (len(vertices), count) or joints.shape != (count, 3):
        raise InputError(
            f"weights of the shape {tuple(weights.shape)} and joints of {tuple(joints.shape)} for {len(vertices)} vertices and "
            f"{count} links; ({len(vertices)}, {count}) and ({count}, 3) are wanted"
        )
    if bool((faces < 0).any()) or bool((faces >= len(vertices)).any()):
        raise InputError(f"faces name vertex {int(faces.max())} (or a negative one); there are {len(vertices)}")
    if not bool(vertices.isfinite().all()) or not bool(weights.isfinite().all()):
        raise InputError("vertices or skinning weights are not finite")


def _below(parents: Sequence[int], like: Tensor) -> Tensor:
    """Whether link i hangs on link k or is it, (k, i), as numbers."""
    rows: list[Tensor] = []
    for link, parent in enumerate(parents):
        own = torch.zeros(len(parents)).to(like)
        own[link] = 1
        rows.append(own + (rows[parent] if parent >= 0 else 0))
    return torch.stack(rows, -1)


def _carriers(parents: Sequence[int], used: list[bool]) -> list[int]:
    """For each link that has a surface the nearest above it that has one, else -1."""
    found: list[int] = []
    for parent in parents:
        found.append(parent if parent < 0 or used[parent] else found[parent])
    return [carrier if own else -1 for carrier, own in zip(found, used, strict=True)]


def _link(
    link: int, corners: Tensor, area: Tensor, share: Tensor, caps: Tensor, joints: Tensor, parents: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Volume, first and second moment about its joint of one link."""
    about = joints[link]
    p = corners - about
    cone = share * (p[:, 0] * area).sum(-1) / 3
    total = p.sum(1)
    volume, first = cone.sum(), torch.einsum("f,fi->i", cone, total) / 4
    second = torch.einsum("f,fi,fj->ij", cone, total, total) + torch.einsum("f,fki,fkj->ij", cone, p, p)
    second = second / 20
    discs = [(joints[child] - about, -caps[child]) for child, parent in enumerate(parents) if parent == link]
    for place, vector in discs:  # the disc at the own joint is a cone of no height
        size = vector.norm().clamp(min=1e-12)
        tip = (place * vector).sum() / 3
        normal = vector / size
        flat = size / (4 * torch.pi) * (torch.eye(3).to(place) - normal[:, None] * normal)
        volume, first = volume + tip, first + tip * place * 3 / 4
        second = second + tip * 3 / 5 * (place[:, None] * place + flat)
    return volume, first, second
