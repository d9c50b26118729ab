"""Rotations of a skeleton's links from the places of its joints: what dynamics needs where a file gives joints only."""

from __future__ import annotations

from collections.abc import Sequence

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError


def posed(
    parents: Sequence[int], rest: Float[Tensor, "n 3"], joints: Float[Tensor, "*batch n 3"]
) -> Float[Tensor, "*batch n 3 3"]:
    """Return each link's rotation in the world, nearest to its children's directions.

    A link with several children takes the rotation that maps their rest offsets onto the seen ones best (Kabsch); one with a
    single child the smallest turn, beyond its parent's, that points to it: twist about the bone cannot be seen in joints and
    is the parent's. Links without children turn with their parent. Lengths do not matter. Differentiable.

    Args:
        parents: of the joints, -1 for the root, before their children.
        rest: joints at rest.
        joints: as seen.

    Raises:
        InputError: numbers of joints that differ.

    Example::

        world = posed(parents, rest, motion.positions)  # (T, n, 3, 3)
    """
    if joints.shape[-2] != len(parents) or rest.shape[0] != len(parents):
        raise InputError(f"{joints.shape[-2]} joints and {rest.shape[0]} at rest for a tree of {len(parents)}; give one each")
    children = [[i for i, p in enumerate(parents) if p == link] for link in range(len(parents))]
    found: list[Tensor] = []
    for link, below in enumerate(children):
        above = found[parents[link]] if parents[link] >= 0 else torch.eye(3).to(joints).expand(*joints.shape[:-2], 3, 3)
        bones, seen = rest[below] - rest[link], joints[..., below, :] - joints[..., link : link + 1, :]
        if len(below) > 1:
            found.append(_nearest(bones, seen, above))
        elif below:
            found.append(swing((above @ bones[0][:, None])[..., 0], seen[..., 0, :]) @ above)
        else:
            found.append(above)
    return torch.stack(found, -3)


def _nearest(bones: Tensor, seen: Tensor, above: Tensor) -> Tensor:
    """Kabsch; two or more bones in one line, which leave a turn open, are held by a little of the parent's rotation."""
    size = bones.square().sum()
    return roma.special_procrustes((seen.mT @ bones) / size + 1e-5 * above)


def swing(one: Float[Tensor, "*batch 3"], other: Float[Tensor, "*batch2 3"]) -> Float[Tensor, "*batch3 3 3"]:
    """Return the smallest rotation from one direction to the other; half a turn across where they are opposite."""
    one, other = one / one.norm(dim=-1, keepdim=True).clamp(min=1e-9), other / other.norm(dim=-1, keepdim=True).clamp(min=1e-9)
    axis = torch.linalg.cross(one, other.expand_as(one))
    cosine = (one * other).sum(-1)[..., None, None]
    around = skew(axis)
    turned = torch.eye(3).to(one) + around + around @ around / (1 + cosine).clamp(min=1e-6)
    across = torch.linalg.cross(one, torch.eye(3).to(one)[one.abs().argmin(-1)])
    across = across / across.norm(dim=-1, keepdim=True)
    half = 2 * across[..., :, None] * across[..., None, :] - torch.eye(3).to(one)
    return torch.where(cosine < -1 + 1e-6, half, turned)


def skew(vector: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Return the matrix of the vector product, ``skew(v) w = v x w``."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))


def locals_of(parents: Sequence[int], world: Float[Tensor, "*batch n 3 3"]) -> Float[Tensor, "*batch n 3 3"]:
    """Return each link's rotation in its parent's frame; the root's is in the world."""
    up = [max(parent, 0) for parent in parents]
    root = torch.tensor([parent < 0 for parent in parents], device=world.device)[:, None, None]
    above = torch.where(root, torch.eye(3).to(world), world[..., up, :, :])
    return above.mT @ world
