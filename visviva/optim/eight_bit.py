"""States in eight bits: blocks of 256 numbers with one float32 scale each, 1.016 bytes per number instead of 4.

A code c in [-127, 127] stands for ``scale sign(c) (|c| / 127)^power``. Powers spend the codes on small numbers: 2 for averages
of the gradient (6e-5 of the block's largest is still told from 0), 4 for averages of its square, which must not round to zero
beneath a division (4e-9). This is block-wise quantisation as bitsandbytes has it (Dettmers et al., arXiv 2110.02861), with a
power law in place of its table of codes.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int8
from torch import Tensor
from torch.nn import functional

from visviva.optim.quantizer import mixed

BLOCK = 256
"""Numbers that share a scale."""


def dither(like: Float[Tensor, " n"], step: Tensor) -> Float[Tensor, " n"]:
    """Return numbers in [0, 1) that depend on step and place alone: rounding noise without a generator to save.

    An average whose change per step is below half a code would never move otherwise (0.999 of a second moment).
    """
    places = torch.arange(like.shape[0], device=like.device)
    hashed = mixed(places * 0x9E3779B1 + mixed(step.to(torch.int64) * 0x632BE5AB))
    return ((hashed >> 40) & 0xFFFFFF).to(torch.float32) * 2.0**-24


def encode(
    values: Float[Tensor, " n"], power: int, noise: Float[Tensor, " n"] | None = None
) -> tuple[Int8[Tensor, " n"], Float[Tensor, " blocks"]]:
    """Return codes and scales of float32 numbers; zeros come back exactly, others within half a code.

    With ``noise`` in [0, 1) codes are rounded stochastically, within one code. Squares (power 4) that are not zero never get
    code 0: what is divided by must not vanish while its numerator is there.

    Example::

        codes, scales = encode(torch.randn(1000), 2)
        assert (decode(codes, scales, 2) - torch.randn(1000)).isfinite().all()
    """
    size = values.shape[0]
    blocks = functional.pad(values, (0, -size % BLOCK)).view(-1, BLOCK)
    scales = blocks.abs().amax(1)
    share = blocks / torch.where(scales > 0, scales, 1.0)[:, None]
    root = share.abs().sqrt() if power == 2 else share.abs().sqrt().sqrt()
    offset = 0.5 if noise is None else functional.pad(noise, (0, -size % BLOCK)).view(-1, BLOCK)
    magnitude = (root * 127.0 + offset).floor().clamp_max(127.0)
    if power == 4:
        magnitude = torch.where(share != 0, magnitude.clamp_min(1.0), 0.0)
    codes = (share.sign() * magnitude).to(torch.int8)
    return codes.view(-1)[:size], scales


def decode(codes: Int8[Tensor, " n"], scales: Float[Tensor, " blocks"], power: int) -> Float[Tensor, " n"]:
    """Return the float32 numbers that codes and scales stand for."""
    size = codes.shape[0]
    blocks = functional.pad(codes, (0, -size % BLOCK)).view(-1, BLOCK).float() / 127.0
    square = blocks * blocks.abs()
    value = square if power == 2 else square * blocks.square()
    return (value * scales[:, None]).view(-1)[:size]
