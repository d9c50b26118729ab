"""How a tree lies in memory: its levels, where each joint's numbers are, and which degrees of freedom move which links."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from visviva.physics.bodies.body import JOINTS, Body


@dataclass(frozen=True)
class Layout:
    """Indices of a tree of n links, shared by all bodies of the same parents and joints.

    Attributes:
        levels: links at each depth, roots first; ``inside``: for each level, places of the parents in the level above.
        back: where each link is among the links ordered by level.
        quaternion, place, angle, slide: where in ``[q, 0, 1]`` each link's rotation (n, 4), position (n, 3), hinge angle (n,)
            and displacement (n,) are; what a joint lacks points at the constants.
        spin, shift, turning, sliding: the same in ``[v, 0]``: angular velocity (n, 3), linear velocity (n, 3), rates (n,).
        link: of each degree of freedom, (nv,); ``angular``: whether it turns, (nv,); ``world``: whether its direction is an
            axis of the world, (nv,); ``own``: whether it is the link's ``axis``, (nv,); ``unit``: else its direction.
        above: whether the link of degree j carries the link of degree k, or is the same, (nv, nv); ``moves``: whether it
            carries link i, or is the same, (nv, n).
    """

    levels: tuple[Tensor, ...]
    inside: tuple[Tensor, ...]
    back: Tensor
    quaternion: Tensor
    place: Tensor
    angle: Tensor
    slide: Tensor
    spin: Tensor
    shift: Tensor
    turning: Tensor
    sliding: Tensor
    link: Tensor
    angular: Tensor
    world: Tensor
    own: Tensor
    unit: Tensor
    above: Tensor
    moves: Tensor


def layout_of(body: Body) -> Layout:
    """Return the layout of a body on its device."""
    return _layout(body.parents, body.joints, body.mass.device)


@lru_cache(maxsize=64)
def _layout(parents: tuple[int, ...], joints: tuple[str, ...], device: torch.device) -> Layout:
    levels = _levels(parents)
    order = [link for level in levels for link in level]
    inside = [[levels[depth - 1].index(parents[link]) for link in level] if depth else [] for depth, level in enumerate(levels)]
    degrees = [(link, k) for link, joint in enumerate(joints) for k in range(JOINTS[joint][1])]
    carried = _carried(parents)
    kinds = [joints[link] for link, _ in degrees]

    def index(values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=device)

    def flags(values: list[bool]) -> Tensor:
        return torch.tensor(values, dtype=torch.bool, device=device)

    places = {name: torch.tensor(value, dtype=torch.long, device=device) for name, value in _places(joints).items()}
    return Layout(
        levels=tuple(index(level) for level in levels),
        inside=tuple(index(level) for level in inside),
        back=index([order.index(link) for link in range(len(parents))]),
        **places,
        link=index([link for link, _ in degrees]),
        angular=flags(
            [kind in ("ball", "hinge") or (kind == "free" and k > 2) for kind, (_, k) in zip(kinds, degrees, strict=True)]
        ),
        world=flags([kind == "free" and k < 3 for kind, (_, k) in zip(kinds, degrees, strict=True)]),
        own=flags([kind in ("hinge", "slide") for kind in kinds]),
        unit=torch.eye(3, dtype=torch.float64, device=device)[index([k % 3 for _, k in degrees])],
        above=flags([j in carried[k] for j, _ in degrees for k, _ in degrees]).reshape(len(degrees), len(degrees)),
        moves=flags([j in links for j, _ in degrees for links in carried]).reshape(len(degrees), len(parents)),
    )


def _levels(parents: tuple[int, ...]) -> list[list[int]]:
    depth: list[int] = []
    for parent in parents:
        depth.append(0 if parent < 0 else depth[parent] + 1)
    return [[link for link, d in enumerate(depth) if d == level] for level in range(max(depth) + 1)]


def _carried(parents: tuple[int, ...]) -> list[set[int]]:
    """For each link the links that carry it, itself included."""
    found: list[set[int]] = []
    for link, parent in enumerate(parents):
        found.append({link} | (found[parent] if parent >= 0 else set()))
    return found


def _places(joints: tuple[str, ...]) -> dict[str, Any]:
    """Where each joint's numbers are in ``[q, 0, 1]`` and ``[v, 0]``."""
    nq, nv = (sum(JOINTS[joint][k] for joint in joints) for k in (0, 1))
    nothing: dict[str, int | list[int]] = {
        "quaternion": [nq + 1, nq, nq, nq],
        "place": [nq] * 3,
        "angle": nq,
        "slide": nq,
        "spin": [nv] * 3,
        "shift": [nv] * 3,
        "turning": nv,
        "sliding": nv,
    }
    found: dict[str, Any] = {name: [] for name in nothing}
    q = v = 0
    for joint in joints:
        kinds: dict[str, dict[str, Any]] = {
            "free": {
                "place": [q, q + 1, q + 2],
                "quaternion": [*range(q + 3, q + 7)],
                "shift": [*range(v, v + 3)],
                "spin": [*range(v + 3, v + 6)],
            },
            "ball": {"quaternion": [*range(q, q + 4)], "spin": [*range(v, v + 3)]},
            "hinge": {"angle": q, "turning": v},
            "slide": {"slide": q, "sliding": v},
            "weld": {},
        }
        for name, default in nothing.items():
            found[name].append(kinds[joint].get(name, default))
        q, v = q + JOINTS[joint][0], v + JOINTS[joint][1]
    return found
