"""Round solids as triangles, many at once: capsules between moving points, ellipsoids in moving frames.

Vertices are moved outwards so that a polygon around the solid has the area of the circle that it stands for: what is seen of a
sphere covers its true area within 0.5 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from visviva.data.render.figure import Figure
from visviva.physics.bodies.posing import swing

SIDES, RINGS = 20, 5
"""Corners around a solid, and rings from its equator to a pole."""


def _unit(cut: bool) -> tuple[Float[Tensor, "k 3"], Float[Tensor, " k"], Int[Tensor, "f 3"]]:
    """A unit sphere, with two rings at its equator where it is cut: vertices, 1 for those of the upper half else 0, faces."""
    quarter = torch.arange(RINGS) / RINGS * math.pi / 2
    latitude = torch.cat((-quarter.flip(0), quarter if cut else quarter[1:])).double()
    rings = len(latitude)
    turn = torch.arange(SIDES).double() * 2 * math.pi / SIDES
    ring = torch.stack((latitude.cos()[:, None] * turn.cos(), latitude.cos()[:, None] * turn.sin()), -1)
    points = torch.cat((ring, latitude.sin()[:, None, None].expand(-1, SIDES, 1)), -1).reshape(-1, 3)
    stretch = math.sqrt(2 * math.pi / SIDES / math.sin(2 * math.pi / SIDES))
    points = torch.cat((points, points.new_tensor([[0, 0, -1.0], [0, 0, 1.0]]))) * stretch
    upper = torch.cat(((torch.arange(rings) >= RINGS).repeat_interleave(SIDES), torch.tensor([False, True])))
    here = torch.arange(SIDES)
    on = (here + 1) % SIDES
    low = SIDES * torch.arange(rings - 1)[:, None]
    high = low + SIDES
    wall = [torch.stack((low + here, low + on, high + on), -1), torch.stack((low + here, high + on, high + here), -1)]
    south, last = rings * SIDES, (rings - 1) * SIDES
    caps = [torch.stack((on, here, torch.full_like(here, south)), -1)]
    caps += [torch.stack((last + here, last + on, torch.full_like(here, south + 1)), -1)]
    return points, upper.double(), torch.cat([*(part.flatten(0, 1) for part in wall), *caps])


def capsules(
    start: Float[Tensor, "T N 3"],
    end: Float[Tensor, "T N 3"],
    radii: Float[Tensor, "N 2"],
    colours: Float[Tensor, "N 3"],
    names: Sequence[str],
) -> Figure:
    """Return capsules, each a part: round at both ends, with a radius at its start and one at its end.

    Args:
        start, end: centres of their ends [m].
        radii: at start and end [m].
        colours: sRGB.
        names: of the parts.
    """
    points, upper, faces = (x.to(start) if x.is_floating_point() else x.to(start.device) for x in _unit(cut=True))
    along = end - start
    up = along.new_tensor([0.0, 0.0, 1.0]).expand_as(along)
    turn = swing(up, torch.where(along.norm(dim=-1, keepdim=True) > 1e-9, along, up))
    radius = radii.to(start)[:, :1] + upper * (radii[:, 1:] - radii[:, :1]).to(start)
    local = points * radius[..., None]
    places = start[:, :, None] + upper[:, None] * along[:, :, None] + local @ turn.mT
    return _solids(places, faces, colours, names)


def ellipsoids(
    centre: Float[Tensor, "T N 3"],
    axes: Float[Tensor, "T N 3 3"],
    half: Float[Tensor, "N 3"],
    colours: Float[Tensor, "N 3"],
    names: Sequence[str],
) -> Figure:
    """Return ellipsoids, each a part.

    Args:
        centre: [m].
        axes: their principal axes as columns.
        half: semi-axes [m].
        colours: sRGB.
        names: of the parts.
    """
    points, _, faces = (x.to(centre) if x.is_floating_point() else x.to(centre.device) for x in _unit(cut=False))
    return _solids(centre[:, :, None] + (points * half.to(centre)[:, None]) @ axes.mT, faces, colours, names)


def balls(
    centre: Float[Tensor, "T N 3"], radii: Float[Tensor, " N"], colours: Float[Tensor, "N 3"], names: Sequence[str]
) -> Figure:
    """Return spheres, each a part.

    Args:
        centre, radii: [m].
        colours: sRGB.
        names: of the parts.
    """
    axes = torch.eye(3).to(centre).expand(*centre.shape, 3)
    return ellipsoids(centre, axes, radii[:, None].expand(-1, 3), colours, names)


def _solids(places: Float[Tensor, "T N k 3"], faces: Tensor, colours: Tensor, names: Sequence[str]) -> Figure:
    _, count, corners, _ = places.shape
    which = torch.arange(count, device=places.device)
    return Figure(
        places.flatten(1, 2),
        (faces + corners * which[:, None, None]).flatten(0, 1),
        colours.to(places).repeat_interleave(corners, 0),
        which.repeat_interleave(len(faces)),
        tuple(names),
    )
