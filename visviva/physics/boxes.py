"""Boxes around objects: the few pixels that what is said about an object depends on.

Objects cover a few per cent of most pictures, and on a CPU, where every pass over all pixels counts, cutting them out first
pays. It does so only there: the size of the boxes must be known to Python, for which a GPU would have to be waited for.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

SMALL = 2**18
"""Pixels of masks up to which looking for boxes costs more than it saves."""


@dataclass(frozen=True)
class Boxes:
    """Equally large boxes, one for each object in each frame.

    Attributes:
        top, left: first row and column, shape (B, t, N), long.
        height, width: of all boxes [px].
    """

    top: Tensor
    left: Tensor
    height: int
    width: int

    def cut(self, images: Float[Tensor, "B T M C H W"]) -> Float[Tensor, "B t N C h w"]:
        """Return what images show in the boxes; M is N, or 1 for pictures of all objects, and T at least t. Differentiable."""
        pixels = images.shape[-2] * images.shape[-1]
        begins = torch.arange(0, images.numel(), pixels).view(images.shape[:4])[:, : self.top.shape[1]]
        begins = begins + (self.top * images.shape[-1] + self.left)[..., None]
        begins = begins[..., None] + torch.arange(0, self.height * images.shape[-1], images.shape[-1])
        flat, shape = images.reshape(-1), (*begins.shape, self.width)
        if flat.requires_grad:
            return flat.index_select(0, (begins[..., None] + torch.arange(self.width)).flatten()).view(shape)
        lines = flat.as_strided((len(flat) - self.width + 1, self.width), (1, 1))
        return lines.index_select(0, begins.flatten()).view(shape)


def around(masks: Float[Tensor, "B t N H W"], rows: Float[Tensor, "B t N H"], margin: int) -> Boxes | None:
    """Return boxes around all pixels above 0 and ``margin`` more, inside the picture; None where they would not pay.

    They pay on a CPU, in eager mode, for masks of more than `SMALL` pixels of which they hold less than half. ``rows``: sums
    of the masks along rows.
    """
    if masks.device.type != "cpu" or torch.compiler.is_compiling() or masks.numel() <= SMALL:
        return None
    top, height = _span(rows, margin)
    left, width = _span(masks.sum(-2), margin)
    return None if 2 * height * width > masks.shape[-2] * masks.shape[-1] else Boxes(top, left, height, width)


def _span(sums: Float[Tensor, "B t N L"], margin: int) -> tuple[Int[Tensor, "B t N"], int]:
    """Where to begin in a line so that one length covers all sums above 0, with a margin; and that length."""
    size, seen = sums.shape[-1], (sums > 0).to(torch.uint8)
    first, last = seen.argmax(-1), size - 1 - seen.flip(-1).argmax(-1)
    length = min(size, int(torch.where(seen.amax(-1) > 0, last - first + 1, 0).max()) + 2 * margin)
    return (first - margin).clamp(0, size - length), length
