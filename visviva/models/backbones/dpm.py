"""DPM-Solver++ for the diffusion as an SDE, second order, in the terms of a flow: CogVideoX with its DPM scheduler.

With D the predicted clean latents, l = log((1 - sigma) / sigma) half the log-SNR, h its step and n fresh noise,

    x' = sigma' / sigma exp(-h) x + (1 - exp(-2 h)) (1 - sigma') D* + sigma' (1 - exp(-2 h))^(1/2) n,
    D* = D + h / (2 h_last) (D - D_last)

and D* = D in the first and in the last step. The last step, to sigma' = 0, gives D.

Source: Lu et al., arXiv 2211.01095 (SDE-DPM-Solver++(2M)), in the form of diffusers' CogVideoXDPMScheduler; written for
flows here.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


class DPM:
    """One run's steps; they remember the last prediction, so take a new one for each run.

    Noise is drawn on the CPU by one generator for each clip, seeded by the clip's start noise: it is the same on every device
    and however clips are divided into batches.

    Args:
        noise: the start of the run.

    Example::

        flow_matching.sample(backbone, condition, noise, steps=50, levels=levels, advance=DPM(noise))
    """

    def __init__(self, noise: Float[Tensor, "B C F h w"]) -> None:
        self.generators = [torch.Generator().manual_seed(_seed(clip)) for clip in noise]
        self.last: tuple[Tensor, float] | None = None

    def __call__(self, x: Tensor, v: Tensor, sigma: float, sigma_next: float) -> Tensor:
        """Return the latents at the next noise level."""
        clean = x - sigma * v
        if sigma_next == 0:
            return clean
        h = _half_log_snr(sigma_next) - _half_log_snr(sigma)
        towards = clean if self.last is None else clean + h / (2 * self.last[1]) * (clean - self.last[0])
        self.last = clean, h
        fresh = -math.expm1(-2 * h)
        kept = sigma_next / sigma * math.exp(-h)
        return kept * x + fresh * (1 - sigma_next) * towards + sigma_next * fresh**0.5 * self.draw(x)

    def draw(self, x: Tensor) -> Tensor:
        """Return fresh noise for latents."""
        return torch.stack([torch.randn(x.shape[1:], generator=generator) for generator in self.generators]).to(x)


def _half_log_snr(sigma: float) -> float:
    return -math.inf if sigma >= 1 else math.log((1 - sigma) / sigma)


def _seed(clip: Tensor) -> int:
    """A number that belongs to a clip's start noise, whatever it was drawn by."""
    return int(clip.detach().cpu().float().flatten()[:64].contiguous().view(torch.int32).long().sum()) % 2**63
