"""Long clips as overlapping windows of fixed length, and back, cross-faded."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError


def starts(frames: int, length: int) -> list[int]:
    """Return the first frames of windows of ``length``, overlapping by half or more, that cover all frames.

    Raises:
        InputError: fewer frames than a window has.
    """
    if frames < length:
        raise InputError(f"{frames} frames; the learned re-estimation sees windows of {length}: give a longer motion")
    count = 1 + -(-(frames - length) // (length // 2))
    return [round(k * (frames - length) / max(count - 1, 1)) for k in range(count)]


def cut(clip: Float[Tensor, "T *rest"], length: int) -> Float[Tensor, "N L *rest"]:
    """Return the windows of a clip."""
    return torch.stack([clip[first : first + length] for first in starts(len(clip), length)])


def joined(windows: Float[Tensor, "N L *rest"], frames: int) -> Float[Tensor, "T *rest"]:
    """Return the clip of windows: means weighted by how far a frame is from its window's ends (linear cross-fade)."""
    length = windows.shape[1]
    middle = torch.arange(length, dtype=windows.dtype, device=windows.device) - (length - 1) / 2
    weight = ((length + 1) / 2 - middle.abs()).reshape(-1, *[1] * (windows.ndim - 2))
    total = windows.new_zeros(frames, *windows.shape[2:])
    weights = windows.new_zeros(frames, *[1] * (windows.ndim - 2))
    for first, window in zip(starts(frames, length), windows, strict=True):
        total[first : first + length] += weight * window
        weights[first : first + length] += weight
    return total / weights
