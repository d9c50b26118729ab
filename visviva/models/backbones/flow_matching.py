"""Rectified flow: noise levels, Euler sampling with gradient through the last steps, and the training loss.

Convention: sigma in [0, 1] with 1 = noise; x_sigma = sigma * noise + (1 - sigma) * clean; v = noise - clean; the clean sample
predicted at sigma is x - sigma v. Sources: Liu et al., arXiv 2209.03003; the time shift is eq. 23 of Esser et al.,
arXiv 2403.03206.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recompute

from visviva.errors import InputError
from visviva.models.backbones.condition import Condition

Guide = Callable[[Tensor, int, float], "Tensor | None"]
Advance = Callable[[Tensor, Tensor, float, float], Tensor]
"""What makes latents of the next noise level of latents, their velocity, their level and the next: `euler`, `dpm.DPM`."""


@runtime_checkable
class Denoiser(Protocol):
    """Anything with a velocity field: the part of a backbone that sampling and training need."""

    def velocity(self, latents: Tensor, sigma: Tensor, condition: Condition, guidance_scale: float = 1.0) -> Tensor:
        """Return v = noise - clean, same shape as ``latents``."""
        ...

    def hold(self, latents: Tensor, condition: Condition) -> Tensor:
        """Write the conditioning frame into the latents, where the family keeps it there."""
        ...


def sigmas(steps: int, shift: float = 1.0) -> Float[Tensor, "steps_plus_1"]:
    """Return the ``steps + 1`` descending noise levels from 1 to 0.

    sigma_i = s u_i / (1 + (s - 1) u_i) with u_i = 1 - i / steps and s = ``shift``; s > 1 spends more steps at high noise.

    >>> sigmas(2, shift=3.0).tolist()
    [1.0, 0.75, 0.0]
    """
    if steps < 1:
        raise InputError(f"sampler steps = {steps}; at least 1 is needed")
    u = torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64)
    return (shift * u / (1 + (shift - 1) * u)).float()


def linear_quadratic(steps: int, threshold: float = 0.025) -> Float[Tensor, "steps_plus_1"]:
    """Return the ``steps + 1`` noise levels that Mochi and LTX-Video 0.9.5 are sampled at, from 1 to 0.

    With n = steps // 2 and time t = 1 - sigma: t_i = threshold i / n for i <= n, and from there to 1 a parabola in i that goes
    on with the same slope. (The schedule of Mochi's released sampler; derived here from its three conditions.)

    >>> linear_quadratic(2).tolist()
    [1.0, 0.9750000238418579, 0.0]
    """
    if steps < 2:
        return sigmas(steps)
    linear = steps // 2
    i = torch.arange(steps + 1, dtype=torch.float64)
    slope, rest = threshold / linear, steps - linear
    beyond = (i - linear).clamp(min=0)
    t = slope * i + (1 - threshold - slope * rest) * (beyond / rest).square()
    return (1 - t).float()


def precise(x: Tensor) -> Tensor:
    """Return ``x`` in float32, or as it is where it is float64."""
    return x if x.dtype == torch.float64 else x.float()


def sample(
    denoiser: Denoiser,
    condition: Condition,
    noise: Float[Tensor, "B C F h w"],
    *,
    steps: int,
    shift: float = 1.0,
    levels: Float[Tensor, "steps_plus_1"] | None = None,
    guidance_scale: float = 1.0,
    grad_steps: int = 0,
    checkpoint: bool = True,
    guide: Guide | None = None,
    advance: Advance | None = None,
    detach: bool = False,
) -> Float[Tensor, "B C F h w"]:
    """Integrate the velocity from noise to clean latents; only the last ``grad_steps`` keep a graph.

    Args:
        denoiser: the backbone.
        condition: encoded conditions of the batch.
        noise: start, float32 (or float64, where the network is).
        steps: number of steps.
        shift: time shift of the noise levels, see `sigmas`.
        levels: the noise levels themselves, from the first to 0, where a family has its own; ``shift`` then says nothing.
        guidance_scale: classifier-free guidance; 1 means none.
        grad_steps: K of DRaFT-K (Clark et al., arXiv 2309.17400); 0 builds no graph at all.
        checkpoint: recompute each step in the backward pass instead of storing its activations.
        guide: called as ``guide(clean, step, sigma)`` with the predicted clean latents; its value is subtracted from them.
        advance: one step; None takes `euler`.
        detach: stop the gradient at the network's input in each of the ``grad_steps`` (DRTune, Wu et al., arXiv 2405.00760): it
            reaches each step's output along the linear chain of the sampler alone. With Euler's steps h_i and the reward r the
            weights get sum_i h_i (dv(x_i)/dw)^T dr/dx_N, whatever lies between step i and the end. The clip is the same.

    Returns:
        Clean latents, in the precision of the noise.
    """
    if not 0 <= grad_steps <= steps:
        raise InputError(f"grad_steps = {grad_steps}; it must lie between 0 and the number of sampler steps ({steps})")
    step = advance or euler
    at = (sigmas(steps, shift) if levels is None else levels).tolist()
    x = denoiser.hold(precise(noise), condition)
    for i in range(steps):
        graph = i >= steps - grad_steps
        with torch.set_grad_enabled(graph and torch.is_grad_enabled()):
            seen = x.detach() if detach else x
            v = _guided(denoiser, condition, seen, at[i], guidance_scale, graph and checkpoint, guide, i)
            x = step(x, v, at[i], at[i + 1])
    return denoiser.hold(x, condition)


def again(
    denoiser: Denoiser,
    condition: Condition,
    clean: Float[Tensor, "B C F h w"],
    noise: Float[Tensor, "B C F h w"],
    *,
    sigma: float,
    guidance_scale: float = 1.0,
    checkpoint: bool = True,
) -> Float[Tensor, "B C F h w"]:
    """Take the last step once more, from sampled clean latents noised to its level: one more example for its gradient.

    ``x = (1 - sigma) clean + sigma noise``, no gradient through ``clean``; the result is ``x - sigma v(x)``. The mean of the
    rewards of such results and of the sampler's own is DRaFT-LV's estimate (Clark et al., arXiv 2309.17400, for K = 1).

    Args:
        denoiser, condition, guidance_scale, checkpoint: as in `sample`.
        clean: what `sample` returned.
        noise: fresh, standard normal.
        sigma: the last level above 0.

    Raises:
        InputError: level 1, where nothing of the clip is left.
    """
    if not 0 < sigma < 1:
        raise InputError(
            f"last noise level = {sigma:g}; it must lie between 0 and 1 to noise a clip again: 2 sampler steps or more"
        )
    x = (1 - sigma) * clean.detach() + sigma * noise
    levels = torch.tensor([sigma, 0.0], dtype=torch.float64)
    return sample(
        denoiser, condition, x, steps=1, levels=levels, guidance_scale=guidance_scale, grad_steps=1, checkpoint=checkpoint
    )


def euler(x: Tensor, v: Tensor, sigma: float, sigma_next: float) -> Tensor:
    """Return the latents at the next noise level by one Euler step."""
    return x + (sigma_next - sigma) * v


def _guided(
    denoiser: Denoiser,
    condition: Condition,
    x: Tensor,
    sigma: float,
    guidance_scale: float,
    checkpoint: bool,
    guide: Guide | None,
    step: int,
) -> Tensor:
    level = torch.full((len(x),), sigma, device=x.device, dtype=x.dtype)
    if checkpoint:
        v = recompute(denoiser.velocity, x, level, condition, guidance_scale, use_reentrant=False)
    else:
        v = denoiser.velocity(x, level, condition, guidance_scale)
    if guide is not None:
        correction = guide(x - sigma * v, step, sigma)
        if correction is not None:
            v = v + correction / sigma
    return v


def loss(
    denoiser: Denoiser,
    clean: Float[Tensor, "B C F h w"],
    noise: Float[Tensor, "B C F h w"],
    sigma: Float[Tensor, "B"],
    condition: Condition,
) -> Float[Tensor, "B"]:
    """Flow-matching loss per clip: mean squared error of v against noise - clean, over what is not given as condition."""
    s = sigma.view(-1, 1, 1, 1, 1)
    x = denoiser.hold(s * noise + (1 - s) * clean, condition)
    error = (denoiser.velocity(x, sigma, condition) - (noise - clean)).square()
    given = condition.first_frame is not None
    return error[:, :, 1:].mean(dim=(1, 2, 3, 4)) if given else error.mean(dim=(1, 2, 3, 4))
