"""Bodies and bearings that the simulated actions do not have: bones of other lengths, limbs held and swung otherwise.

The actions are all of one skeleton and of fifteen kinds; people differ in proportions (and skeletons in where they put their
joints) and do other things with arms and trunk. A varied clip is no simulation any more: its feet may slide by a few
centimetres. The lifter and PhysNet see such clips in half of their training; nothing is ever tested on one.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.models.reestimation.joints import MIRROR, PARENTS

FEET = (3, 6)
LENGTHS = 0.08
"""Standard deviation of a limb bone's logarithmic length, the same on both sides; those of trunk and head: 1.4 times it."""
HELD = (0.0, 0.03, 0.12, 0.12, 0.03, 0.12, 0.12, 0.15, 0.15, 0.2, 0.2, 0.1, 0.5, 0.5, 0.1, 0.5, 0.5)
"""How far the bone to each of Human3.6M's joints is turned, for the whole clip [rad, standard deviation about each axis]."""
SWUNG = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.06, 0.06, 0.1, 0.1, 0.0, 0.25, 0.3, 0.0, 0.25, 0.3)
"""And how far it swings about that, at 0.1 to 1 Hz."""


def varied(joints: Float[Tensor, "B T 17 3"], fps: float, rng: torch.Generator) -> Float[Tensor, "B T 17 3"]:
    """Return clips with other bodies and bearings; the lowest foot of a clip stays as high as it was.

    Args:
        joints: Human3.6M's, z up [m].
        fps: frames per second; ``rng``: decides.
    """
    batch, frames = joints.shape[:2]
    parents = [max(p, 0) for p in PARENTS]
    bones = joints - joints[:, :, parents]
    stretch = LENGTHS * torch.randn(batch, 17, generator=rng)
    stretch = (stretch + stretch[:, list(MIRROR)]) / 2**0.5
    held = torch.randn(batch, 1, 17, 3, generator=rng) * joints.new_tensor(HELD)[:, None]
    swung = torch.randn(batch, 1, 17, 3, generator=rng) * joints.new_tensor(SWUNG)[:, None]
    rate, phase = 0.1 + 0.9 * torch.rand(batch, 1, 17, 1, generator=rng), torch.rand(batch, 1, 17, 1, generator=rng)
    time = torch.arange(frames)[:, None, None] / fps
    angles = held + swung * torch.sin(2 * torch.pi * (rate * time + phase))
    bones = turned(bones, angles) * stretch.exp()[:, None, :, None]
    found = [joints[:, :, 0]]
    for joint in range(1, 17):
        found.append(found[parents[joint]] + bones[:, :, joint])
    made = torch.stack(found, 2)
    return made + (lowest(joints) - lowest(made))[:, None, None, None] * joints.new_tensor([0.0, 0.0, 1.0])


def lowest(joints: Float[Tensor, "B T 17 3"]) -> Float[Tensor, " B"]:
    """Return the least height of the feet in each clip."""
    return joints[:, :, list(FEET), 2].amin((1, 2))


def turned(vectors: Float[Tensor, "*batch 3"], angles: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """Return vectors turned by rotation vectors (Rodrigues)."""
    size = angles.norm(dim=-1, keepdim=True).clamp(min=1e-8)
    axis = angles / size
    along = (axis * vectors).sum(-1, keepdim=True) * axis
    return along + (vectors - along) * size.cos() + torch.linalg.cross(axis, vectors) * size.sin()
