"""Fusion of the data-driven pose and the physical one.

FinePhys has "a trainable fusion module" whose form was not published; this is PhysMoP's (WACV 2024, code: primary for that
paper, so reconstructed here): ``w = tanh(linear(features))^2``, ``S = w S_physical + (1 - w) S_data``.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Fusion(nn.Module):
    """A weight in [0, 1] per frame and coordinate, from both poses and how far they are apart.

    The last layer is not zero at first: tanh^2 has no gradient there.

    Example::

        fused = Fusion(51, 64)(data, physical)  # (B, T, 51)
    """

    def __init__(self, size: int, width: int = 64) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(2 * size, width), nn.Linear(width, size)
        nn.init.normal_(self.outer.weight, std=0.01)
        nn.init.constant_(self.outer.bias, 0.9)  # tanh(0.9)^2 = 0.51: both alike

    def forward(self, data: Float[Tensor, "*batch D"], physical: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        """Return the fused pose, between the two in every coordinate."""
        seen = torch.cat([data, 10 * (physical - data)], -1)
        weight = torch.tanh(self.outer(torch.nn.functional.gelu(self.inner(seen)))).square()
        return data + weight * (physical - data)
