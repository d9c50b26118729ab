"""SGD-SaI: learning-rate scaling at initialization (Xu et al., arXiv 2412.11768; package sgd-sai)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from visviva.optim.moments import POSITIVE, Ema
from visviva.optim.optimizer import ChainOptimizer
from visviva.optim.transform import Kept, Step, Transform
from visviva.optim.weights import Apply


def snr(g: Tensor, eps: Tensor) -> Tensor:
    """Return ``|g|_2 / (std(g) + eps)`` of each matrix of a batch, (k, 1, 1); 0 for g = 0, 1 for tensors of one entry.

    Both come from two sums over ``g - g[0, 0]`` in one pass; the shift keeps a mean far from zero from cancelling the variance.
    """
    n, shift = g[0].numel(), g[:, :1, :1]
    if n == 1:
        return torch.ones_like(shift)
    moved = g - shift
    mean, square = (s.sum((-2, -1), keepdim=True) / n for s in (moved, moved * moved))
    scatter = (square - mean * mean).clamp_min(0.0)
    return (n * (scatter + (mean + shift).square())).sqrt() / ((scatter * (n / (n - 1))).sqrt() + eps)


@dataclass(frozen=True)
class FirstGradientSNR(Transform):
    """Scale each tensor by `snr` of its first gradient that is not zero; until then the scale is 0.

    The first gradient of LoRA's A is exactly zero (B starts at zero): its scale comes with the second step. So the ratio is
    looked for at every step, without a branch on values.
    """

    batched: ClassVar = True
    fuses: ClassVar = True
    ranges: ClassVar = {"eps": POSITIVE}
    eps: float = 1e-8

    def states(self) -> Mapping[str, Kept]:
        return {"gsnr": Kept("tensor", moment=False)}

    def scalars(self, t: Any, lr: Any) -> Mapping[str, Any]:
        return {"eps": self.eps}

    def __call__(self, x: Step, eps: Tensor) -> None:  # type: ignore[override]
        known = x.state["gsnr"]
        x.state["gsnr"] = torch.where(known > 0, known, snr(x.g, eps))
        x.u = x.state["gsnr"] * x.u


@dataclass(frozen=True)
class NormalizedFirstSNR(FirstGradientSNR):
    """The paper's form: divided by the largest ratio of all tensors that have one when a tensor's is taken.

    State ``gsnr_top`` is that largest ratio; what was taken before is not divided again.
    """

    measures: ClassVar = True
    combine: ClassVar = "max"

    def states(self) -> Mapping[str, Kept]:
        return {**super().states(), "gsnr_top": Kept("tensor", moment=False)}

    def measure(self, x: Step) -> Tensor:
        own = snr(x.g, torch.as_tensor(self.eps))
        return torch.where(x.state["gsnr"] > 0, x.state["gsnr_top"], own).amax()[None]

    def __call__(self, x: Step, eps: Tensor) -> None:  # type: ignore[override]
        known, own, top = x.state["gsnr"], snr(x.g, eps), x.measured[0]
        takes = (known <= 0) & (own > 0)
        x.state["gsnr"] = torch.where(takes, own / top, known)
        x.state["gsnr_top"] = torch.where(takes, top, x.state["gsnr_top"])
        x.u = x.state["gsnr"] * x.u


class SGDSaI(ChainOptimizer):
    """SGD with momentum whose rate per tensor is fixed by the first gradient's signal-to-noise ratio; one state per weight.

    ``G = |g_1| / (std(g_1) + eps)`` per tensor; ``m <- mu m + (1-mu) g`` with ``m_1 = g_1``; ``p <- p (1 - lr wd) - lr G m``.
    ``G^2 = (n-1) + n mean^2/var`` exactly, so for zero-mean gradients it is close to ``sqrt(n)``. The paper divides G by the
    largest G of all tensors, the authors' code does not: learning rates of the two differ by a factor of hundreds.

    g_1 is a tensor's first gradient that is not zero (this project's choice: the authors' code takes G = 0 from a zero
    gradient, and LoRA's A, whose first gradient is zero, then never moves). A tensor that starts late has ``m = (1-mu) g_1``.

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
