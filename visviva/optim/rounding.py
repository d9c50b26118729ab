"""Stochastic rounding: a number rounds up with the probability that makes the rounded value right on average."""

from __future__ import annotations

import torch
from torch import Tensor

from visviva.errors import InputError


def to_bfloat16(values: Tensor, generator: torch.Generator | None = None, noise: Tensor | None = None) -> Tensor:
    """Return float32 numbers rounded stochastically to bfloat16, ``E[round(x)] = x``; infinite and NaN stay.

    A bfloat16 is the upper half of a float32: adding uniform random bits to the lower half and dropping it rounds away from
    zero with probability (lower half) / 2^16.

    Args:
        values: float32.
        generator: of the random bits, on the same device.
        noise: numbers in [0, 1) to take instead of random bits.

    Example::

        >>> ones = torch.full((10000,), 1 + 2.0**-10)  # bfloat16 has 1 and 1 + 2^-7
        >>> bool((to_bfloat16(ones).float().mean() - ones[0]).abs() < 3e-4)
        True
    """
    if values.dtype != torch.float32:
        raise InputError(f"stochastic rounding takes float32 numbers, not {values.dtype}")
    if noise is None:
        bits = torch.randint(0, 1 << 16, values.shape, dtype=torch.int32, device=values.device, generator=generator)
    else:
        bits = (noise * 2.0**16).to(torch.int32)
    rounded = ((values.view(torch.int32) + bits) & -(1 << 16)).view(torch.float32)
    return torch.where(torch.isfinite(values), rounded, values).bfloat16()


def seeded(device: torch.device, seed: int, step: int) -> torch.Generator:
    """Return a generator that depends on seed and step alone, so that a resumed run draws the same bits."""
    return torch.Generator(device).manual_seed((seed * 1_000_003 + step) % (1 << 63))
