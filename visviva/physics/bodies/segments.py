"""Where de Leva's segments lie on a skeleton at rest, and what each link carries of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from visviva.physics.bodies.deleva import Segment, principal_axes, segment, segment_inertia
from visviva.physics.bodies.skeletons import Skeleton

ANKLE = 0.047
"""Height of the ankle above the sole, as a share of the stature (ours)."""
HEEL = 0.25
"""How far the heel is behind the ankle, as a share of the foot's length (ours)."""
TOES, PALM = 0.2, 0.5
"""Share of the foot that toes which move take, and of the hand that fingers which move take (ours)."""


class Part(NamedTuple):
    """A segment of one body: its row, the links that carry it with their shares (the main one first), and where it is.

    ``first`` is its first end, ``axes`` its sagittal, transverse and longitudinal axes as columns, ``length`` its own [m].
    """

    row: Segment
    owners: dict[str, float]
    first: Tensor
    axes: Tensor
    length: Tensor | float


def parts(tree: Skeleton, at: dict[str, Tensor], scale: Tensor | float, stature: Tensor | float, sex: float) -> Iterator[Part]:
    """Yield the segments of a body at rest.

    Args:
        tree: the skeleton.
        at: its joints by name, (3,) each [m].
        scale: stature over that of de Leva's reference adult.
        stature: [m].
        sex: 0 female to 1 male.
    """
    yield from _trunk(tree, at, scale, sex)
    for ends in tree.ends:
        yield from _limbs(ends, at, scale, stature, sex)


def _trunk(tree: Skeleton, at: dict[str, Tensor], scale: Tensor | float, sex: float) -> Iterator[Part]:
    """Thirds of the trunk, and head with neck, stacked from the middle of the hips towards the neck."""
    foot = (at[tree.ends[0]["hip"]] + at[tree.ends[1]["hip"]]) / 2
    line = at[tree.spine[0]] - foot
    for name in ("lower_trunk", "mid_trunk", "upper_trunk", "head_neck"):
        row = segment(name, sex)
        top = foot + scale * row.length * line / line.norm()
        yield Part(row, tree.owners[name], top, principal_axes(foot - top, _unit(line, 2)), scale * row.length)
        foot = top


def _limbs(
    ends: dict[str, str], at: dict[str, Tensor], scale: Tensor | float, stature: Tensor | float, sex: float
) -> Iterator[Part]:
    """One side's leg and arm. Bones are as long as the skeleton's; in feet and hands (palms down) the fore-aft axis is up."""
    forward, upward = (_unit(at[ends["hip"]], axis) for axis in (2, 1))
    for name, start, end in (
        ("thigh", "hip", "knee"),
        ("shank", "knee", "ankle"),
        ("upper_arm", "shoulder", "elbow"),
        ("forearm", "elbow", "wrist"),
    ):
        bone = at[ends[end]] - at[ends[start]]
        yield Part(segment(name, sex), {ends[start]: 1.0}, at[ends[start]], principal_axes(bone, forward), bone.norm())
    hand, wrist = segment("hand", sex), at[ends["wrist"]]
    reach = at[ends["hand"]] - wrist if ends.get("hand") in at else wrist - at[ends["elbow"]]
    yield Part(hand, _owners(ends, at, "wrist", "hand", PALM), wrist, principal_axes(reach, upward), scale * hand.length)
    foot, ankle = segment("foot", sex), at[ends["ankle"]]
    ahead = (at[ends["toe"]] - ankle) * (1 - upward) if ends.get("toe") in at else forward
    axes = principal_axes(ahead, upward)
    heel = ankle - ANKLE / 2 * stature * upward - HEEL * scale * foot.length * axes[:, 2]
    yield Part(foot, _owners(ends, at, "ankle", "toe", TOES), heel, axes, scale * foot.length)


def _owners(ends: dict[str, str], at: dict[str, Tensor], main: str, beyond: str, share: float) -> dict[str, float]:
    return {ends[main]: 1 - share, ends[beyond]: share} if ends.get(beyond) in at else {ends[main]: 1.0}


def _unit(like: Tensor, axis: int) -> Tensor:
    return torch.eye(3).to(like)[axis]


def carried(
    tree: Skeleton,
    at: dict[str, Tensor],
    held: Sequence[str],
    scale: Tensor | float,
    stature: Tensor | float,
    sex: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return each link's share of the body's mass (n,), its centre of mass (n, 3) [m] and inertia about it (n, 3, 3) [m^2].

    The inertia is per kilogram of the whole body. Links that are ``held`` leave their share to the segment's main link.
    """
    loads: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {name: [] for name in tree.names}
    for part in parts(tree, at, scale, stature, sex):
        main = next(iter(part.owners))
        moving = {name: share for name, share in part.owners.items() if name == main or name not in held}
        for name, mass, centre, inertia in _divided(tree, at, part, moving):
            loads[name].append((mass, centre - at[name], inertia))
    zero = next(iter(at.values())).new_zeros(3)
    none = (zero[0], zero, zero.diag())
    found = [_together(*(torch.stack(column) for column in zip(*(loads[name] or [none]), strict=True))) for name in tree.names]
    mass, centre, inertia = (torch.stack(column) for column in zip(*found, strict=True))
    return mass / mass.sum(), centre, inertia / mass.sum()  # the table of women sums up to 99.99 %


def _divided(
    tree: Skeleton, at: dict[str, Tensor], part: Part, moving: dict[str, float]
) -> Iterator[tuple[str, Tensor, Tensor, Tensor]]:
    """Divide a segment among links so that mass, centre of mass and inertia of the whole remain what they were.

    Each smaller part is centred on the middle of its link's bone (or on its joint, at the end of a chain), the main one
    balances them, and all draw nearer to the segment's centre where its inertia would not allow them to be so far from it.
    """
    centre = part.first + part.row.com * part.length * part.axes[:, 2]
    inertia = segment_inertia(part.row, part.row.mass, part.length, part.axes)
    others = list(moving)[1:]
    share = centre.new_tensor([1 - sum(moving[name] for name in others), *(moving[name] for name in others)])
    arms = [_middle(tree, at, name) - centre for name in others]
    balance = -sum((s * arm for s, arm in zip(share[1:], arms, strict=True)), torch.zeros_like(centre)) / share[0]
    arm = torch.stack([balance, *arms])
    spread = inertia.trace() / 2 * torch.eye(3).to(inertia) - inertia  # second moments of the mass
    apart = part.row.mass * (share * (arm @ torch.linalg.inv(spread) * arm).sum(-1)).sum()
    arm = arm * (0.8 / apart.clamp(min=0.8)).sqrt()
    rest = inertia - _about(part.row.mass * share, arm)
    for name, s, a in zip(moving, share, arm, strict=True):
        yield name, part.row.mass * s, centre + a, s * rest


def _middle(tree: Skeleton, at: dict[str, Tensor], name: str) -> Tensor:
    children = [at[n] for n, p in zip(tree.names, tree.parents, strict=True) if p >= 0 and tree.names[p] == name]
    return (at[name] + torch.stack(children).mean(0)) / 2 if children else at[name]


def _together(mass: Tensor, centre: Tensor, inertia: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mass, centre and inertia of k bodies that are one: (k,), (k, 3), (k, 3, 3)."""
    middle = (mass[:, None] * centre).sum(0) / mass.sum().clamp(min=1e-30)
    return mass.sum(), middle, inertia.sum(0) + _about(mass, centre - middle)


def _about(mass: Tensor, arm: Tensor) -> Tensor:
    """Inertia of points about the origin: (k,), (k, 3)."""
    second = torch.einsum("k,ki,kj->ij", mass, arm, arm)
    return second.trace() * torch.eye(3).to(arm) - second
