"""Shared by the small claims: many seeds in one run, the best rate chosen on other seeds, paired differences, verdicts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from optim_sweep import interval
from torch import Tensor

TUNE, SEEDS = 3, 10
"""Seeds on which the rate is chosen, and seeds that are reported."""

Build = Callable[[Sequence[Tensor], float], torch.optim.Optimizer]
Gradient = Callable[[int, list[Tensor]], list[Tensor]]


def descend(build: Build, lr: float, start: list[Tensor], gradient: Gradient, steps: int, decay: bool = False) -> list[Tensor]:
    """Return the weights after ``steps`` updates; ``decay`` takes the rate linearly to zero."""
    weights = [torch.nn.Parameter(w.clone()) for w in start]
    optimizer = build(weights, lr)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * (1 - step / steps) if decay else lr
        for weight, g in zip(weights, gradient(step, [w.detach() for w in weights]), strict=True):
            weight.grad = g
        optimizer.step()
    return [w.detach() for w in weights]


def best(
    arms: Mapping[str, Build], rates: Mapping[str, Sequence[float]], final: Callable[[Build, float], Tensor]
) -> dict[str, Any]:
    """Return per arm the losses of the reported seeds at the rate that is best on the tuning seeds, and ten times that rate.

    ``final(build, lr)`` gives one loss per seed, tuning seeds first; losses above 1e30 count as infinite.
    """
    found: dict[str, Any] = {}
    for name, build in arms.items():
        losses = {lr: finite(final(build, lr)) for lr in rates[name]}
        lr = min(losses, key=lambda r: float(losses[r][:TUNE].mean()))
        higher = finite(final(build, 10 * lr))[TUNE:].tolist()
        found[name] = summary(losses[lr][TUNE:].tolist()) | {"lr": lr, "rates": list(rates[name]), "ten_times": summary(higher)}
    return found


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Return mean and interval; for positive values also the geometric mean with its interval as a factor."""
    found = interval(values) | {"values": list(values)}
    if all(v > 0 and math.isfinite(v) for v in values):
        logs = interval(math.log(v) for v in values)
        found |= {"geometric": math.exp(logs["mean"]), "factor": math.exp(logs["half_width"])}
    return found


def compare(claim: str, paper: str, better: Sequence[float], worse: Sequence[float]) -> dict[str, Any]:
    """Return a claim's verdict: the geometric mean of better / worse over paired seeds, with its interval, against 1."""
    logs = interval(
        math.log(b / w) if 0 < b < math.inf and 0 < w < math.inf else None for b, w in zip(better, worse, strict=True)
    )
    if logs["mean"] is None:
        wins = sum(b < w for b, w in zip(better, worse, strict=True))
        return {"claim": claim, "paper": paper, "ratio": None, "verdict": f"lower in {wins} of {len(better)} (not all finite)"}
    low, high = (math.exp(logs["mean"] + s * logs["half_width"]) for s in (-1, 1))
    verdict = "reproduced" if high < 1 else "opposite" if low > 1 else "not reproduced"
    return {"claim": claim, "paper": paper, "ratio": math.exp(logs["mean"]), "interval": [low, high], "verdict": verdict}


def holds(claim: str, paper: str, condition: bool, numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the verdict of a claim that is a property and not a comparison."""
    return {
        "claim": claim,
        "paper": paper,
        "verdict": "reproduced" if condition else "not reproduced",
        "numbers": dict(numbers),
    }


def randoms(*shape: int, seed: int) -> list[Tensor]:
    """Return one float64 Gaussian tensor per seed, tuning seeds first."""
    return [
        torch.randn(*shape, generator=torch.Generator().manual_seed(1000 * seed + i), dtype=torch.float64)
        for i in range(TUNE + SEEDS)
    ]


def finite(losses: Tensor) -> Tensor:
    """Return losses with infinity for those that are not finite or above 1e30."""
    return torch.where(losses < 1e30, losses, math.inf)
