"""Bring frames to the size a model makes: scale to cover, then cut around the centre."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def fit(frames: Float[Tensor, "*batch 3 H W"], height: int, width: int) -> Float[Tensor, "*batch 3 h w"]:
    """Scale frames in [0, 1] until they cover ``height`` x ``width`` [px], antialiased, and cut around the centre.

    Frames that have the size already are returned as they are.

    >>> fit(torch.zeros(5, 3, 100, 50), 64, 64).shape
    torch.Size([5, 3, 64, 64])
    """
    h, w = frames.shape[-2:]
    if (h, w) == (height, width):
        return frames
    scale = max(height / h, width / w)
    size = (max(round(h * scale), height), max(round(w * scale), width))
    flat = frames.reshape(-1, 3, h, w)
    scaled = torch.nn.functional.interpolate(flat, size=size, mode="bilinear", antialias=True, align_corners=False)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return scaled[..., top : top + height, left : left + width].reshape(*frames.shape[:-2], height, width).clamp(0, 1)
