"""Orthogonalization of batches of matrices: Newton-Schulz iterations and the exact polar factor.

``X = U / |U|_F``, transposed so that rows <= columns, then repeatedly ``A = X X^T; X <- a X + (b A + c A^2) X``: every singular
value goes through an odd polynomial that drives it towards 1 (Muon, Jordan 2024; coefficients: `SCHEDULES`). Cost
``20 m^2 n + 10 m^3`` FLOP for five iterations, m <= n.
"""

from __future__ import annotations

import functools
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Coefficients = tuple[float, float, float]
Schedule = tuple[Coefficients, ...]

STANDARD: Schedule = ((3.4445, -4.7750, 2.0315),) * 5
"""Muon's: fast, but singular values end anywhere in [0.68, 1.13]."""

QUINTIC: Schedule = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)
"""Fitted per iteration (the preset of dion in optax; heavyball's default): [0.98, 1.03] on Gaussian matrices."""

POLAR_EXPRESS: Schedule = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)
"""Polar Express with safety factor 1.02 (the norm is divided by ``1.02 |U|_F + 1e-6``)."""

SCHEDULES: dict[str, Schedule] = {"standard": STANDARD, "quintic": QUINTIC, "polar_express": POLAR_EXPRESS}

SPLIT = {"cpu": 256}
"""From how many rows on one matrix after the other is faster than a batch."""

Name = Literal["standard", "quintic", "polar_express", "svd"]


def orthogonalize(
    matrices: Float[Tensor, "*k rows columns"],
    schedule: Name | Schedule = "standard",
    dtype: torch.dtype | None = None,
) -> Float[Tensor, "*k rows columns"]:
    """Return the (approximate) polar factor ``U V^T`` of each matrix ``U S V^T``.

    Args:
        matrices: one or many matrices.
        schedule: a name of `SCHEDULES`, the (a, b, c) of every iteration, or ``svd`` for the exact factor.
        dtype: of the iteration. None takes bfloat16 where there are matrix units for it, on a GPU and on a CPU with AMX (two to
            five times faster there; float64 stays), the matrices' own elsewhere. So the last digits depend on the machine, as
            those of ``torch.optim.Muon``, which always iterates in bfloat16, do.

    A matrix of zeros gives zeros.

    Example::

        orthogonalize(torch.randn(8, 64, 128), "quintic")
    """
    if schedule == "svd":
        return exact(matrices)
    if dtype is None:
        reduced = matrices.dtype != torch.float64 and bfloat16_units(matrices.device.type)
        dtype = torch.bfloat16 if reduced else matrices.dtype
    tall = matrices.shape[-2] > matrices.shape[-1]
    wide = matrices.mT if tall else matrices
    flat = wide.reshape(-1, *wide.shape[-2:])
    done = torch.empty(flat.shape, dtype=matrices.dtype, device=matrices.device)
    at_once = 1 if flat.shape[-2] >= SPLIT.get(flat.device.type, flat.shape[-2] + 1) else max(1, len(flat))
    for piece, place in zip(flat.split(at_once), done.split(at_once), strict=True):
        norm = torch.linalg.matrix_norm(piece, keepdim=True)
        scale = 1.02 * norm + 1e-6 if schedule == "polar_express" else norm + 1e-7
        x = piece.to(dtype, copy=True, memory_format=torch.contiguous_format).div_(scale.to(dtype))
        place.copy_(iterate(x, SCHEDULES[schedule] if isinstance(schedule, str) else schedule))
    return done.reshape(wide.shape).mT if tall else done.reshape(wide.shape)


@functools.cache
def bfloat16_units(device: str) -> bool:
    """Return whether a kind of device multiplies bfloat16 matrices in units of their own."""
    amx = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return device == "cuda" or (device == "cpu" and amx is not None and bool(amx()))


def iterate(x: Float[Tensor, "k rows columns"], schedule: Schedule) -> Float[Tensor, "k rows columns"]:
    """Run the polynomial iterations on normalised matrices with rows <= columns; ``x`` is overwritten."""
    multiply, product = (torch.mm, torch.addmm) if len(x) == 1 else (torch.bmm, torch.baddbmm)
    now = x[0] if len(x) == 1 else x
    gram, then = now.new_empty((*now.shape[:-1], now.shape[-2])), torch.empty_like(now)
    poly = torch.empty_like(gram)
    for a, b, c in schedule:  # into three buffers: fresh memory for each product would cost as much as the product
        multiply(now, now.mT, out=gram)
        product(gram, gram, gram, beta=b, alpha=c, out=poly)
        product(now, poly, now, beta=a, out=then)
        now, then = then, now
    return now.reshape(x.shape)


def exact(matrices: Tensor) -> Tensor:
    """Return the polar factor by a singular value decomposition (directions of singular value zero are left out)."""
    u, s, vh = torch.linalg.svd(matrices, full_matrices=False)
    tiny = torch.finfo(matrices.dtype).eps * max(matrices.shape[-2:])
    rank = (s > tiny * s[..., :1]).to(matrices.dtype)
    return (u * rank[..., None, :]) @ vh
