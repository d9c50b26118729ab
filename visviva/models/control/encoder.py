"""Force pictures made as coarse as latents: unshuffled pixels, two 1 x 1 convolutions, halved in time keeping frame 0.

As in Force Prompting's network (arXiv 2505.19386): for a video autoencoder of 8 x 8 pixels and 4 frames, 3 -> 192 -> 96 -> 32
channels and 49 -> 25 -> 13 frames. Other ratios (ours): as many halvings as the ratio of time has, the last 32 channels wide.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from visviva.errors import InputError

CHANNELS = 32
"""Channels that the encoder gives."""


class ForceEncoder(nn.Module):
    """Control tensors (B, T, 3, H, W) to (B, 32, F, h, w), F = (T - 1) / ratio of time + 1.

    Args:
        spatial: pixels of a side of a latent pixel; ``temporal``: frames of a latent frame, a power of 2.

    Raises:
        InputError: a ratio of time that is no power of 2, or pictures that are no multiple.

    Example::

        ForceEncoder(8, 4)(torch.zeros(1, 49, 3, 480, 720)).shape  # (1, 32, 13, 60, 90)
    """

    def __init__(self, spatial: int = 8, temporal: int = 4) -> None:
        super().__init__()
        if temporal < 1 or temporal & (temporal - 1):
            raise InputError(f"{temporal} frames a latent frame; the force encoder halves, give a power of 2")
        halvings = temporal.bit_length() - 1
        widths = [3 * spatial**2, *[96] * max(1, halvings - 1), CHANNELS]
        self.spatial, self.temporal, self.halvings = spatial, temporal, halvings
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 1), nn.GroupNorm(2, b), nn.ReLU()) for a, b in pairwise(widths)
        )

    def forward(self, pictures: Float[Tensor, "B T 3 H W"]) -> Float[Tensor, "B 32 F h w"]:
        """Return the encoded pictures."""
        frames, height, width = pictures.shape[1], *pictures.shape[-2:]
        if (frames - 1) % self.temporal or height % self.spatial or width % self.spatial:
            raise InputError(
                f"control of {frames} frames of {height} x {width}; give {self.temporal}k + 1 frames and multiples of "
                f"{self.spatial} pixels"
            )
        x = nn.functional.pixel_unshuffle(pictures, self.spatial)
        for i, layer in enumerate(self.layers):
            x = layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])
            if i < self.halvings:
                x = torch.cat([x[:, :1], (x[:, 1::2] + x[:, 2::2]) / 2], 1)
        return x.transpose(1, 2)
