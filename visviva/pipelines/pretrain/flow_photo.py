"""What happens to a picture between scene and file: light, blur, noise, compression, eight bits; differently for each pair."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from visviva.pipelines.pretrain.flow_scenes import Pair


def photographed(pair: Pair, rng: torch.Generator) -> Pair:
    """Return the pair as a camera and a codec would hand it over: (M, 3, H, W) in [0, 1], multiples of 1/255."""
    first, second = exposed(pair.first, pair.second, rng)
    both = torch.stack([first, second], 1)
    count, device = len(both), both.device
    sigma = 1.2 * torch.rand(count, generator=rng) * _chance(count, 0.35, rng)
    both = blurred(both, sigma.to(device))
    level = torch.exp(math.log(0.002) + math.log(15.0) * torch.rand(count, generator=rng)) * _chance(count, 0.5, rng)
    grain = torch.Generator(device).manual_seed(int(torch.randint(2**62, (), generator=rng)))
    noise = torch.randn(both.shape, generator=grain, device=device)
    both = torch.addcmul(both, level.to(device).view(-1, 1, 1, 1, 1), noise)
    lossy = _chance(count, 0.35, rng).nonzero()[:, 0]
    if len(lossy):
        quality = torch.exp(math.log(0.01) + math.log(12.0) * torch.rand(count, generator=rng))
        both[lossy.to(device)] = compressed(both[lossy.to(device)], quality[lossy].to(device))
    first, second = ((both.clamp(0, 1) * 255).round() / 255).unbind(1)
    return Pair(first, second, pair.flow)


def _chance(count: int, share: float, rng: torch.Generator) -> Tensor:
    return (torch.rand(count, generator=rng) < share).float()


def exposed(first: Tensor, second: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return both frames under one random gain per colour and gamma, and in half of the pairs slightly different ones."""
    count = len(first)
    gain = torch.exp(0.15 * torch.randn(count, 3, 1, 1, generator=rng))
    gamma = torch.exp(0.2 * torch.randn(count, 1, 1, 1, generator=rng))
    change = _chance(count, 0.5, rng).view(-1, 1, 1, 1)
    apart = torch.exp(0.04 * change * torch.randn(count, 3, 1, 1, generator=rng))
    bias = 0.02 * change * torch.randn(count, 1, 1, 1, generator=rng)
    gain, gamma, apart, bias = (t.to(first.device) for t in (gain, gamma, apart, bias))
    first, second = (image.clamp(1e-4, 1) ** gamma * gain for image in (first, second))
    return first, second * apart + bias


def blurred(frames: Tensor, sigma: Tensor) -> Tensor:
    """Blur clip m of frames (M, T, 3, H, W), H = W, by a Gaussian of standard deviation ``sigma[m]`` [px]; 0 leaves it."""
    at = torch.arange(frames.shape[-1], dtype=frames.dtype, device=frames.device)
    weights = torch.exp(-((at[:, None] - at).square()) / (2 * sigma.clamp(min=0.05).view(-1, 1, 1).square()))
    weights = (weights / weights.sum(-1, keepdim=True))[:, None, None]
    return weights @ frames @ weights.mT


def compressed(frames: Tensor, step: Tensor) -> Tensor:
    """Quantise the cosine transform of 8 x 8 blocks in steps of ``step[m] (1 + (i + j) / 2)`` for the term (i, j)."""
    k = torch.arange(8.0, device=frames.device)
    basis = torch.cos((2 * k + 1) * k[:, None] * math.pi / 16) * math.sqrt(1 / 4)
    basis[0] = math.sqrt(1 / 8)
    size = step.view(-1, 1, 1, 1, 1, 1, 1) * (1 + (k[:, None] + k) / 2)
    count, steps, colours, height, width = frames.shape
    blocks = frames.reshape(count, steps, colours, height // 8, 8, width // 8, 8).transpose(-3, -2)
    terms = ((basis @ blocks @ basis.T) / size).round() * size
    return (basis.T @ terms @ basis).transpose(-3, -2).reshape(frames.shape)
