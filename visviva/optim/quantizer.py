"""Quantizers: maps of weights to lattices that few bits can store, and rounding noise that needs no generator.

A quantizer is a frozen object that maps weights to the nearest (or, given noise, a random neighbouring) point of its lattice,
``q(x) = s snap(x / s)``. Scales are chosen so that lattice points survive, ``q(q(x)) = q(x)`` bit for bit, also under
stochastic rounding, so that `visviva.optim.quantized.QuantizedTensor` stores weights that lie on the lattice without loss.

Sources: FP8 e4m3 is the format of Micikevicius et al., arXiv 2209.05433 (primary); the choice of scales is this project's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError
from visviva.optim.transform import check

Per = Literal["tensor", "row", "block"]
Scale = Literal["fine", "power_of_two"]
Batch = Float[Tensor, "k rows columns"]


@dataclass(frozen=True)
class Exact:
    """The identity: nothing is rounded (a reference for tests and comparisons)."""

    elementwise: ClassVar[bool] = True

    def __call__(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return ``x``."""
        return x

    def held_by(self, dtype: torch.dtype) -> bool:
        """Return whether weights of a dtype hold every lattice point."""
        return True


@dataclass(frozen=True)
class Lattice:
    """Multiples of ``step``: ``q(x) = step round(x / step)``, ties to even."""

    elementwise: ClassVar[bool] = True
    step: float = 2.0**-8

    def __post_init__(self) -> None:
        check("Lattice.step", self.step, 1e-300, float("inf"))

    def __call__(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return the lattice points next to ``x`` (any shape)."""
        return self.step * rounded(x / self.step, noise)

    def held_by(self, dtype: torch.dtype) -> bool:
        """Return whether weights of a dtype hold every lattice point."""
        return dtype in (torch.float32, torch.float64)


@dataclass(frozen=True)
class Scaled:
    """A lattice stretched to the largest entry of each tensor, row or block: ``s = max|x| / top``.

    Args:
        per: what has a scale of its own; ``block`` is ``block`` weights in a row of the flattened tensor.
        scale: ``fine`` rounds s down to 16 significant bits (the largest entry is always on the lattice, products are exact in
            float32); ``power_of_two`` rounds it up: points are exact in bfloat16 too and move only when the maximum doubles or
            halves, for up to one bit less resolution.
    """

    elementwise: ClassVar[bool] = False
    top: ClassVar[float] = 1.0
    per: Per = "tensor"
    scale: Scale = "fine"
    block: int = 128

    def __post_init__(self) -> None:
        name = type(self).__name__
        if self.per not in ("tensor", "row", "block") or self.scale not in ("fine", "power_of_two") or self.block < 1:
            raise InputError(
                f"{name}: per is {self.per!r}, scale {self.scale!r}, block {self.block}; allowed are tensor, row or block; "
                "fine or power_of_two; from 1 on"
            )

    def codes_top(self) -> float:
        """Return the largest code."""
        return self.top

    def snap(self, y: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return the codes (as numbers) next to ``y``."""
        raise NotImplementedError

    def grouped(self, x: Batch) -> Float[Tensor, "k groups size"]:
        """Return the weights by what has a scale of its own; the last block is filled up with zeros."""
        if self.per == "row":
            return x
        flat = x.reshape(x.shape[0], -1)
        size = self.block if self.per == "block" else max(flat.shape[1], 1)
        return torch.nn.functional.pad(flat, (0, -flat.shape[1] % size)).reshape(x.shape[0], -1, size)

    def scales(self, groups: Float[Tensor, "k groups size"]) -> Float[Tensor, "k groups 1"]:
        """Return the scale of each group; 1 where all is zero."""
        largest = groups.abs().amax(-1, keepdim=True) if groups.numel() else groups.new_zeros(*groups.shape[:2], 1)
        ratio = largest / self.codes_top()
        power = power_below(ratio).clamp_min(2.0**-100)
        unit = power * 2.0**-15
        nice = torch.where(ratio > power, 2 * power, power) if self.scale == "power_of_two" else (ratio / unit).floor() * unit
        return torch.where(ratio >= 2.0**-100, nice, torch.where(ratio > 0, torch.full_like(nice, 2.0**-100), 1.0))

    def __call__(self, x: Batch, noise: Tensor | None = None) -> Batch:
        """Return the lattice points next to matrices ``[k, rows, columns]``; ``noise`` in [0, 1) of the same shape, or None."""
        groups = self.grouped(x)
        scale = self.scales(groups)
        snapped = scale * self.snap(groups / scale, None if noise is None else self.grouped(noise))
        return snapped.reshape(x.shape[0], -1)[:, : x[0].numel()].reshape(x.shape)

    def held_by(self, dtype: torch.dtype) -> bool:
        """Return whether weights of a dtype hold every lattice point."""
        return dtype in (torch.float32, torch.float64) or (dtype == torch.bfloat16 and self.scale == "power_of_two")


@dataclass(frozen=True)
class FP8(Scaled):
    """8-bit floats, e4m3 (largest 448, smallest 2^-9), times a scale."""

    top: ClassVar[float] = 448.0

    def snap(self, y: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return the e4m3 numbers next to ``y``."""
        grid = power_below(y.abs()).clamp_min(2.0**-6) / 8
        return (rounded(y / grid, noise) * grid).clamp(-448.0, 448.0)


@dataclass(frozen=True)
class Int(Scaled):
    """Symmetric integers of 8 or 4 bits (largest 127 or 7) times a scale per row or block."""

    per: Per = "row"
    bits: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bits not in (4, 8):
            raise InputError(f"Int.bits is {self.bits!r}; allowed are 4 and 8")

    def codes_top(self) -> float:
        """Return 127 or 7."""
        return float(2 ** (self.bits - 1) - 1)

    def snap(self, y: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return the integers next to ``y``."""
        top = self.codes_top()
        return rounded(y.clamp(-top, top), noise)


Quantizer = Exact | Lattice | FP8 | Int


def rounded(y: Tensor, noise: Tensor | None = None) -> Tensor:
    """Return ``y`` rounded to the nearest integer (ties to even); given uniform noise, up with probability ``y - floor(y)``."""
    if noise is None:
        return y.round()
    floor = y.floor()
    return floor + (noise < y - floor)


def power_below(x: Tensor) -> Tensor:
    """Return the largest power of two <= x for normal x >= 0 (its exponent bits), 0 for 0."""
    integer, mask = (torch.int64, 0x7FF0000000000000) if x.dtype == torch.float64 else (torch.int32, 0x7F800000)
    return (x.view(integer) & mask).view(x.dtype)


def noise(x: Batch, step: Tensor, seed: int) -> Batch:
    """Return numbers in [0, 1) that depend on seed, step, place within the matrix and the matrix's first weights alone.

    A counter run through splitmix64 (Steele et al. 2014): no generator to save, the same numbers however parameters are grouped
    and on every device. ``step`` is a 0-d tensor.
    """
    k, size = x.shape[0], x[0].numel()
    bits = x.reshape(k, size)[:, :64].double().contiguous().view(torch.int64)
    odd = 2 * torch.arange(bits.shape[1], device=x.device) + 1
    salt = mixed((bits * odd).sum(1) + mixed(step.to(x.device, torch.int64) * 0x632BE5AB + seed))
    hashed = mixed(torch.arange(size, device=x.device) * 0x1E3779B97F4A7C15 + salt[:, None])
    return (((hashed >> 40) & 0xFFFFFF).to(x.dtype) * 2.0**-24).reshape(x.shape)


def mixed(z: Tensor) -> Tensor:
    """Return well-mixed 64-bit integers of integers (the finish of splitmix64)."""
    z = (z ^ ((z >> 30) & ((1 << 34) - 1))) * -0x40A7B892E31B1A47
    z = (z ^ ((z >> 27) & ((1 << 37) - 1))) * -0x6B2FB644ECCEEE15
    return z ^ ((z >> 31) & ((1 << 33) - 1))
