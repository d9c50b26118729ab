"""Correlation of two feature maps: a local window around each pixel, and RAFT's all-pairs pyramid with bilinear lookup."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, pad

TILE = 16
"""Columns that share one matrix product of `local_correlation`."""


def local_correlation(
    first: Float[Tensor, "M C H W"], second: Float[Tensor, "M C H W"], radius: int
) -> Float[Tensor, "M K H W"]:
    """Return the mean product over channels with every neighbour within ``radius`` in the second map; zero outside of it.

    ``out[m, (dy + r)(2r + 1) + dx + r, y, x] = mean_c first[m, c, y, x] second[m, c, y + dy, x + dx]`` with K = (2r + 1)^2.
    Strips of `TILE` pixels are multiplied with the 2r + 1 rows around them at once, and the band of each pixel is read out of
    the product as a strided view: a few times more arithmetic than needed, in matrix products, which is the faster way.
    Differentiable in both maps.

    Example::

        local_correlation(torch.rand(2, 32, 16, 16), torch.rand(2, 32, 16, 16), radius=3).shape  # (2, 49, 16, 16)
    """
    maps, channels, height, width = first.shape
    side, tile = 2 * radius + 1, min(TILE, width)
    strips = -(-width // tile)
    reach, extra = tile + 2 * radius, strips * tile - width
    around = pad(second, (radius, radius + extra, radius, radius)).permute(0, 2, 3, 1)
    around = around.unfold(1, side, 1).unfold(2, reach, tile)  # M, H, strips, C, side, reach
    around = around.reshape(maps * height * strips, channels, side * reach)
    own = pad(first, (0, extra)).permute(0, 2, 3, 1).reshape(maps * height * strips, tile, channels)
    products = own @ around
    band = products.as_strided((len(own), tile, side, side), (tile * side * reach, side * reach + 1, reach, 1))
    band = band.reshape(maps, height, strips * tile, side * side)[:, :, :width]
    return band.permute(0, 3, 1, 2) / channels


class AllPairs:
    """Correlation of all pixels of the first map with all of the second, averaged over blocks of 1, 2, 4, ... of the second.

    Looking it up at a flow returns, per scale, the (2r + 1)^2 values around each pixel's target; the x offset is the slow
    index (a transpose that RAFT's public weights were trained with), bilinear, zero outside. Float32.

    Args:
        first, second: feature maps (M, C, H, W).
        levels: scales.
        radius: r, in cells of each scale.
        chunk: None keeps the whole pyramid; else only the features are kept and the rows of ``chunk`` pixels of the first map
            are correlated anew at each lookup, for memory.
    """

    def __init__(self, first: Tensor, second: Tensor, levels: int, radius: int, chunk: int | None = None) -> None:
        self.first, self.second = first, second
        self.levels, self.radius, self.chunk = levels, radius, chunk
        self.pyramid = self._correlated(first.flatten(2)) if chunk is None else None

    def __call__(self, flow: Float[Tensor, "M 2 H W"]) -> Float[Tensor, "M K H W"]:
        """Return the values around ``x + flow(x)`` at all scales, K = levels (2 r + 1)^2."""
        maps, _, height, width = flow.shape
        ys = torch.arange(height, dtype=flow.dtype, device=flow.device)[:, None]
        xs = torch.arange(width, dtype=flow.dtype, device=flow.device)
        at = (flow + torch.stack([xs.expand(height, width), ys.expand(height, width)])).flatten(2)
        if self.pyramid is not None:
            found = self._around(self.pyramid, at)
        else:
            parts = zip(self.first.flatten(2).split(self.chunk, 2), at.split(self.chunk, 2), strict=True)
            found = torch.cat([self._around(self._correlated(one), place) for one, place in parts], 1)
        return found.view(maps, height, width, -1).permute(0, 3, 1, 2)

    def _correlated(self, pixels: Tensor) -> list[Tensor]:
        """Pyramid of the correlation of some pixels (M, C, P) of the first map: (M P, 1, h, w) at each scale."""
        products = pixels.mT @ self.second.flatten(2) / self.second.shape[1] ** 0.5
        pyramid = [products.reshape(-1, 1, *self.second.shape[-2:])]
        for _ in range(self.levels - 1):
            pyramid.append(avg_pool2d(pyramid[-1], 2))
        return pyramid

    def _around(self, pyramid: list[Tensor], at: Tensor) -> Tensor:
        """Values around positions (M, 2, P) at every scale, (M, P, K)."""
        offset = torch.arange(-self.radius, self.radius + 1, dtype=at.dtype, device=at.device)
        side = len(offset)
        window = torch.stack([offset[:, None].expand(side, side), offset.expand(side, side)], -1)  # x is the slow index
        found = []
        for level, maps in enumerate(pyramid):
            size = at.new_tensor([maps.shape[-1] - 1, maps.shape[-2] - 1])
            grid = (at.mT.reshape(-1, 1, 1, 2) / 2**level + window) * (2 / size) - 1
            found.append(grid_sample(maps, grid, align_corners=True).view(*at.shape[::2], side * side))
        return torch.cat(found, -1)
