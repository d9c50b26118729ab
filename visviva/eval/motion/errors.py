"""Joint errors against a reference: MPJPE, root-relative, Procrustes-aligned, velocity and acceleration. Metres in, mm out.

References: MotionGPT's and SMPLSim's code (card: evaluation, C2). Velocity and acceleration errors are per *frame*, as
published; `acceleration_error(..., fps=)` gives m/s^2.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError

MM = 1000.0


def mpjpe(found: Float[Tensor, "*batch T J 3"], true: Float[Tensor, "..."], root: int | None = None) -> Float[Tensor, "*batch"]:
    """Return the mean distance of joints [mm]; with ``root`` after that joint is put on the reference's in every frame."""
    _alike(found, true)
    if root is not None:
        found, true = found - found[..., root : root + 1, :], true - true[..., root : root + 1, :]
    return (found - true).norm(dim=-1).mean((-2, -1)) * MM


def procrustes(found: Float[Tensor, "*batch J 3"], true: Float[Tensor, "..."]) -> Float[Tensor, "*batch J 3"]:
    """Return ``s R found + t`` nearest to ``true`` (least squares); rotations only, no mirror images (Umeyama 1991)."""
    _alike(found, true)
    mean, target = found.mean(-2, keepdim=True), true.mean(-2, keepdim=True)
    x, y = found - mean, true - target
    u, s, v = torch.linalg.svd(x.mT @ y)
    sign = torch.ones_like(s)
    sign[..., 2] = torch.where(torch.linalg.det(u @ v) < 0, -1.0, 1.0)
    rotation = u @ (sign[..., None] * v)
    scale = (s * sign).sum(-1) / x.square().sum((-2, -1)).clamp(min=1e-12)
    return scale[..., None, None] * x @ rotation + target


def pa_mpjpe(found: Float[Tensor, "*batch T J 3"], true: Float[Tensor, "..."]) -> Float[Tensor, "*batch"]:
    """Return the mean distance of joints after each frame is aligned by a similarity [mm]; 0 for any similar pose."""
    return (procrustes(found, true) - true).norm(dim=-1).mean((-2, -1)) * MM


def velocity_error(found: Float[Tensor, "*batch T J 3"], true: Float[Tensor, "..."]) -> Float[Tensor, "*batch"]:
    """Return the mean distance of first differences [mm/frame]."""
    _alike(found, true)
    return (found.diff(dim=-3) - true.diff(dim=-3)).norm(dim=-1).mean((-2, -1)) * MM


def acceleration_error(
    found: Float[Tensor, "*batch T J 3"], true: Float[Tensor, "..."], fps: float | None = None
) -> Float[Tensor, "*batch"]:
    """Return the mean distance of second differences [mm/frame^2]; with ``fps`` in m/s^2."""
    _alike(found, true)
    error = (found.diff(n=2, dim=-3) - true.diff(n=2, dim=-3)).norm(dim=-1).mean((-2, -1))
    return error * MM if fps is None else error * fps**2


def _alike(found: Tensor, true: Tensor) -> None:
    if found.shape != true.shape:
        raise InputError(
            f"joints of the shape {tuple(found.shape)} against {tuple(true.shape)}; give the same frames and joints"
        )
