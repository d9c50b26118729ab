"""Markers roughly on the skin of HumanML3D's skeleton: a pool from which marker sets can be drawn, where no mesh is at hand."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.data.motions.humanml3d import PARENTS
from visviva.data.motions.motion import forward_kinematics
from visviva.errors import InputError

POOL = 96
"""Markers of the pool: the 22 joints, then 74 on the skin."""
RADII = {0: 0.13, 3: 0.12, 6: 0.12, 9: 0.11, 12: 0.07, 1: 0.08, 2: 0.08, 4: 0.05, 5: 0.05, 7: 0.04, 8: 0.04}
RADII |= {13: 0.07, 14: 0.07, 16: 0.05, 17: 0.05, 18: 0.04, 19: 0.04}
"""How far the skin is from the bone that starts at a joint [m]; ours, rough."""


def skin(
    root: Float[Tensor, "*batch 3"], rotations: Float[Tensor, "*batch J 3 3"], rest: Float[Tensor, "#*batch J 3"]
) -> Float[Tensor, "*batch 96 3"]:
    """Return the pool of markers: joints first, then points around the bones, each fixed to the link that its bone belongs to.

    Points lie at golden-section steps along and around the bones, so that any part of the pool covers the body. They do not
    slide as skin does.

    Args:
        root: place of the pelvis [m].
        rotations: local, as SMPL has them, of 22 joints.
        rest: offsets of the joints to their parents [m].

    Raises:
        InputError: no 22 joints.

    Example::

        batch = draw(["walk"], seed=0)
        markers = skin(batch.joints[:, :, 0], batch.rotations, batch.rest[:, None])  # (1, T, 96, 3)
    """
    if rotations.shape[-3:] != (22, 3, 3) or rest.shape[-2:] != (22, 3):
        raise InputError(f"rotations {tuple(rotations.shape)} and rest {tuple(rest.shape)}; HumanML3D's 22 joints are wanted")
    offsets = torch.cat([root[..., None, :], rest[..., 1:, :].expand(*root.shape[:-1], 21, 3)], -2)
    places, world = forward_kinematics(rotations, offsets, PARENTS)
    bones = [k for k in range(1, 22) if PARENTS[k] in RADII]
    count = POOL - 22
    step = torch.arange(count)
    child = torch.tensor(bones)[step % len(bones)]
    link = torch.tensor(PARENTS)[child]
    along, around = (step * 0.618034) % 1.0, step * math.pi * (3 - math.sqrt(5))
    bone = rest[..., child, :]
    one, two = _across(bone)
    radius = torch.tensor([RADII[int(k)] for k in link])[:, None].to(rest)
    ring = radius * (around.cos()[:, None].to(rest) * one + around.sin()[:, None].to(rest) * two)
    point = (along[:, None].to(rest) * bone + ring).expand(*root.shape[:-1], count, 3)
    there = places[..., link, :] + (world[..., link, :, :] @ point[..., None])[..., 0]
    return torch.cat([places, there], -2)


def _across(bone: Tensor) -> tuple[Tensor, Tensor]:
    """Two unit vectors across each bone."""
    unit = bone / bone.norm(dim=-1, keepdim=True)
    helper = torch.eye(3).to(bone)[unit.abs().argmin(-1)]
    one = torch.linalg.cross(unit, helper)
    one = one / one.norm(dim=-1, keepdim=True)
    return one, torch.linalg.cross(unit, one)
