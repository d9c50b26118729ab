"""The problem that optimizers are compared on: a noisy quadratic over tensors of several shapes, same noise for everyone."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

import visviva.optim
from visviva.optim import ChainOptimizer

SHAPES = ((8, 6), (5,), (4, 3, 3, 3))
MATRICES = ((8, 6), (6, 8), (4, 3, 3, 3))
STEPS = 45
OPTIMIZERS = [
    found
    for found in (getattr(visviva.optim, name) for name in visviva.optim.__all__)
    if inspect.isclass(found) and issubclass(found, ChainOptimizer) and found is not ChainOptimizer
]


def parameters(shapes: Sequence[tuple[int, ...]] = SHAPES, dtype: torch.dtype = torch.float64) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(7)
    return [torch.nn.Parameter(torch.randn(s, generator=generator, dtype=torch.float64).to(dtype)) for s in shapes]


def gradients(params: Sequence[Tensor], step: int, noise: float = 0.3) -> list[Tensor]:
    """Of ``sum_i c_i (p_i - 1)^2 / 2``, c from 0.1 to 2, plus normal noise that depends on the step only."""
    generator = torch.Generator().manual_seed(1000 + step)
    found = []
    for p in params:
        c = torch.linspace(0.1, 2.0, p.numel(), dtype=torch.float64).view(p.shape)
        drawn = torch.randn(p.shape, generator=generator, dtype=torch.float64)
        found.append((c * (p.detach().double() - 1) + noise * drawn).to(p.dtype))
    return found


def set_gradients(params: Sequence[Tensor], step: int, spike: float = 1.0) -> None:
    for p, g in zip(params, gradients(params, step), strict=True):
        p.grad = spike * g


def spike_at(step: int) -> float:
    return 1000.0 if step % 11 == 9 else 1.0


def trajectory(
    build: Callable[[list[torch.nn.Parameter]], Any],
    shapes: Sequence[tuple[int, ...]] = SHAPES,
    steps: int = STEPS,
    spike: Callable[[int], float] = lambda step: 1.0,
    dtype: torch.dtype = torch.float64,
) -> list[list[Tensor]]:
    """Every step's weights of an optimizer made by ``build``."""
    params = parameters(shapes, dtype)
    optimizer, path = build(params), []
    for step in range(1, steps + 1):
        set_gradients(params, step, spike(step))
        optimizer.step()
        path.append([p.detach().clone() for p in params])
    return path


def distance(path: list[list[Tensor]], other: list[list[Tensor]]) -> float:
    """The largest difference anywhere along two trajectories."""
    assert len(path) == len(other)
    return max((a - b).abs().max().item() for x, y in zip(path, other, strict=True) for a, b in zip(x, y, strict=True))


def moved(path: list[list[Tensor]]) -> bool:
    """Whether every tensor moved at every step (a comparison of things that stand still shows nothing)."""
    return all((a != b).any() for x, y in pairwise(path) for a, b in zip(x, y, strict=True))
