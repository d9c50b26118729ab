"""Windows of six frames of markers, as ImDyS reads them: two past, the current, three to come (card: motion, section 3)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError

PAST, AHEAD = 2, 3
SPAN = PAST + 1 + AHEAD
"""Frames of a window."""
SPEED = 10.0
"""Velocities per frame are hundredths of positions: they are fed this much larger (ours)."""


def treadmill(markers: Float[Tensor, "*batch S K 3"], current: int = PAST) -> Float[Tensor, "*batch S K 3"]:
    """Return windows with the current frame's place over the ground subtracted from all frames; heights are kept.

    The paper subtracts the root's place; a bag of markers has no root, so it is their mean here.
    """
    place = markers[..., current, :, :2].mean(-2)
    return torch.cat([markers[..., :2] - place[..., None, None, :], markers[..., 2:]], -1)


def windows(markers: Float[Tensor, "B T K 3"]) -> Float[Tensor, "B M 6 K 3"]:
    """Return the M = T - 5 windows of clips; window m is about frame m + 2.

    Raises:
        InputError: another shape, fewer than 6 frames, or markers that are not finite.

    Example::

        windows(torch.zeros(1, 20, 22, 3)).shape  # (1, 15, 6, 22, 3)
    """
    if markers.ndim != 4 or markers.shape[-1] != 3 or markers.shape[2] < 1:
        raise InputError(f"markers of the shape {tuple(markers.shape)}; (B, T, K, 3) is wanted, K markers of T frames")
    if markers.shape[1] < SPAN:
        raise InputError(f"{markers.shape[1]} frames; a window is {SPAN}: give more")
    if not bool(markers.isfinite().all()):
        raise InputError("markers that are not finite; fill the gaps first, or leave those markers out")
    return markers.unfold(1, SPAN, 1).movedim(-1, 2)


def tokens(window: Float[Tensor, "*batch S K 3"]) -> Float[Tensor, "*batch K features"]:
    """Return one token per marker: its places and velocities per frame, ``S * 3 + S * 3`` numbers.

    Velocities are central differences, one-sided in the first and last frame of the window, so that nothing outside of it is
    looked at.
    """
    inner = (window[..., 2:, :, :] - window[..., :-2, :, :]) / 2
    ends = window[..., [1, -1], :, :] - window[..., [0, -2], :, :]
    speed = torch.cat([ends[..., :1, :, :], inner, ends[..., 1:, :, :]], -3)
    return torch.cat([window.movedim(-3, -2).flatten(-2), SPEED * speed.movedim(-3, -2).flatten(-2)], -1)
