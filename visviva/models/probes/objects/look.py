"""What an object looks like, as a vector: colour and texture statistics inside its mask, or features of a network pooled there.

`look` needs no weights. Per object and frame, from pixels weighted by the (eroded) mask: a soft colour histogram (6 x 6 x 6
cells), the mean colour, the spread of the colours and a histogram of gradient strengths. Histograms enter as square
roots, so that their inner product is the Bhattacharyya coefficient; the parts are weighted and the whole has unit length.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.physics.kinematics import erode

BINS = 6
"""Bins of each colour axis."""


def look(frames: Float[Tensor, "B T 3 H W"], masks: Float[Tensor, "B T N H W"]) -> Float[Tensor, "B T N D"]:
    """Return the appearance of each object in each frame, unit length; zero where the mask is empty.

    Detached from the frames: identity is not something a generator should earn by. The outermost pixel, which mixes object and
    ground, is left out of all objects that have more than that.

    Example::

        looks = look(frames, masks)
        likeness = (looks[:, :-1] * looks[:, 1:]).sum(-1)  # cosine from frame to frame
    """
    frames, masks = frames.detach(), masks.detach()
    core = erode(masks, 1)
    weight = torch.where(core.sum((-2, -1), keepdim=True) >= 4, core, masks)
    total = weight.sum((-2, -1)).clamp(min=1e-6)
    weight = weight / total[..., None, None]
    mean = torch.einsum("btnhw,btchw->btnc", weight, frames)
    square = torch.einsum("btnhw,btchw,btdhw->btncd", weight, frames, frames)
    spread = (square - mean[..., :, None] * mean[..., None, :]).flatten(-2)
    colours = _colours(frames, weight).sqrt()
    strength = torch.einsum("btnhw,btkhw->btnk", weight, _gradients(frames)).clamp(min=0).sqrt()
    parts = [colours, 2 * (mean - 0.5), 4 * spread, 0.3 * strength]
    seen = (masks.sum((-2, -1)) > 0)[..., None]
    return torch.nn.functional.normalize(torch.cat(parts, dim=-1), dim=-1) * seen


def _colours(frames: Tensor, weight: Tensor) -> Tensor:
    """Soft colour histogram, each pixel shared by the 8 cells around its colour, shape (B, T, N, BINS^3)."""
    place = frames.clamp(0, 1) * (BINS - 1)
    low = place.floor().clamp(max=BINS - 2)
    part = place - low
    base = low.long()
    histogram = weight.new_zeros(*weight.shape[:3], BINS**3)
    for corner in range(8):  # of a colour cell
        bits = [corner >> c & 1 for c in range(3)]
        share = torch.stack([part[:, :, c] if bit else 1 - part[:, :, c] for c, bit in enumerate(bits)]).prod(0)
        cell = sum((base[:, :, c] + bit) * BINS**c for c, bit in enumerate(bits))
        index = torch.as_tensor(cell).flatten(2)[:, :, None].expand(-1, -1, weight.shape[2], -1)
        histogram = histogram.scatter_add(3, index, (weight * share[:, :, None]).flatten(3))
    return histogram


def _gradients(frames: Tensor) -> Tensor:
    """Soft histogram of the local contrast of brightness, shape (B, T, 4, H, W), summing to 1."""
    grey = frames.mean(2)
    padded = torch.nn.functional.pad(grey, (1, 1, 1, 1), mode="replicate")
    across, down = padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2], padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]
    strength = (across.square() + down.square()).add(1e-12).sqrt() / 2
    edges = strength.new_tensor([0.0, 0.03, 0.08, 0.2]).view(-1, 1, 1)
    closeness = -(strength[:, :, None] - edges).abs() / 0.03
    return torch.softmax(closeness, dim=2)


def pooled(features: Float[Tensor, "B T D h w"], masks: Float[Tensor, "B T N H W"]) -> Float[Tensor, "B T N D"]:
    """Return the mean of dense features inside each mask, unit length: an appearance by any frozen network.

    Example::

        looks = pooled(dino(frames), masks)  # features on a coarser grid; masks are averaged down to it
    """
    small = torch.nn.functional.adaptive_avg_pool2d(
        masks.detach().flatten(0, 1), (features.shape[-2], features.shape[-1])
    ).unflatten(0, masks.shape[:2])
    mean = torch.einsum("btnhw,btdhw->btnd", small, features.detach()) / small.sum((-2, -1)).clamp(min=1e-6)[..., None]
    return torch.nn.functional.normalize(mean, dim=-1)


Look = Any
"""An appearance: frames (B, T, 3, H, W) and masks (B, T, N, H, W) in, (B, T, N, D) out."""
