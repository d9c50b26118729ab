"""SGD-SaI: learning-rate scaling at initialization (Xu et al., arXiv 2412.11768; package sgd-sai)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from visviva.optim.moments import POSITIVE, Ema
from visviva.optim.optimizer import ChainOptimizer
from visviva.optim.transform import Kept, Step, Transform, flag
from visviva.optim.weights import Apply


def snr(g: Tensor, eps: Tensor) -> Tensor:
    """Return ``|g|_2 / (std(g) + eps)`` of each matrix of a batch, (k, 1, 1); 1 for tensors of one entry."""
    norm = torch.linalg.vector_norm(g, dim=(-2, -1), keepdim=True)
    if g[0].numel() == 1:
        return torch.ones_like(norm)
    return norm / (torch.std(g, dim=(-2, -1), keepdim=True) + eps)


@dataclass(frozen=True)
class FirstGradientSNR(Transform):
    """Scale each tensor by `snr` of its first gradient."""

    batched: ClassVar = True
    fuses: ClassVar = True
    ranges: ClassVar = {"eps": POSITIVE}
    eps: float = 1e-8

    def states(self) -> Mapping[str, Kept]:
        return {"gsnr": Kept("tensor", moment=False)}

    def compiles(self, t: float | None) -> bool:
        return t is not None and t > 1  # the first step, which takes the ratio, comes once

    def scalars(self, t: Any, lr: Any) -> Mapping[str, Any]:
        return {"eps": self.eps, "first": flag(t == 1)}

    def largest(self, x: Step) -> Tensor | float:
        """Return what the ratios are divided by."""
        return 1.0

    def __call__(self, x: Step, eps: Tensor, first: Tensor) -> None:  # type: ignore[override]
        if x.t is None or x.t == 1:
            x.state["gsnr"] = torch.where(first > 0, snr(x.g, eps) / self.largest(x), x.state["gsnr"])
        x.u = x.state["gsnr"] * x.u


@dataclass(frozen=True)
class NormalizedFirstSNR(FirstGradientSNR):
    """The paper's form: divided by the largest ratio of all tensors (of those that have a gradient at the first step)."""

    measures: ClassVar = True
    combine: ClassVar = "max"

    def measure(self, x: Step) -> Tensor:
        if x.t is not None and x.t > 1:
            return x.g.new_ones(1)
        return snr(x.g, torch.as_tensor(self.eps)).amax()[None]

    def largest(self, x: Step) -> Tensor | float:
        """Return the largest ratio of all tensors."""
        return x.measured[0]


class SGDSaI(ChainOptimizer):
    """SGD with momentum whose rate per tensor is fixed by the first gradient's signal-to-noise ratio; one state per weight.

    ``G = |g_1| / (std(g_1) + eps)`` per tensor; ``m <- mu m + (1-mu) g`` with ``m_1 = g_1``; ``p <- p (1 - lr wd) - lr G m``.
    ``G^2 = (n-1) + n mean^2/var`` exactly, so for zero-mean gradients it is close to ``sqrt(n)``. The paper divides G by the
    largest G of all tensors, the authors' code does not: learning rates of the two differ by a factor of hundreds.

    Args:
        params: parameters, named parameters or groups.
        lr, momentum, eps, weight_decay: hyper-parameters.
        normalize: divide by the largest G, as in the paper.
        options: of `ChainOptimizer`.

    Example::

        optimizer = SGDSaI(model.parameters(), lr=1e-4)
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        momentum: float = 0.9,
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        normalize: bool = False,
        **options: Any,
    ) -> None:
        defaults = dict(lr=lr, momentum=momentum, eps=eps, weight_decay=weight_decay, normalize=normalize)
        super().__init__(params, defaults, **options)

    def transforms(self, group: Mapping[str, Any], kind: str = "") -> list[Transform]:
        """Return Ema(copy_first), FirstGradientSNR, Apply."""
        scale = NormalizedFirstSNR if group["normalize"] else FirstGradientSNR
        return [Ema(group["momentum"], copy_first=True), scale(group["eps"]), Apply(group["weight_decay"])]
