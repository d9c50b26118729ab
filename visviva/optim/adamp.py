"""AdamP and SGDP (Heo et al., arXiv 2006.08217, ICLR 2021): no growth along the radius of scale-invariant weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from visviva.optim.moments import NOT_NEGATIVE, Ema, HeavyBall, Nesterov, RmsDivide, SecondMoment
from visviva.optim.optimizer import ChainOptimizer
from visviva.optim.transform import Step, Transform
from visviva.optim.weights import Apply


@dataclass(frozen=True)
class ProjectRadial(Transform):
    """Remove the update's component along the weights where the weights look scale-invariant, and decay those less.

    Matrices and convolutions only. Per row (output unit), else for the whole tensor: if the largest ``|cos(g, p)|`` over rows
    is below ``delta / sqrt(width)``, ``u <- u - n <n, u>`` with ``n = p / (|p| + eps)``, and decay is multiplied by
    ``wd_ratio``. The decay ``p <- p (1 - lr wd rho / decay_divisor)`` is done here. Both outcomes are computed; nothing waits
    for the device. ``keeps``: a state that the projected update is stored in as well.
    """

    batched: ClassVar = True
    fuses: ClassVar = True
    decays: ClassVar = True
    ranges: ClassVar = {"delta": NOT_NEGATIVE, "wd_ratio": NOT_NEGATIVE, "eps": NOT_NEGATIVE, "weight_decay": NOT_NEGATIVE}
    delta: float = 0.1
    wd_ratio: float = 0.1
    eps: float = 1e-8
    weight_decay: float = 0.0
    decay_divisor: float = 1.0
    keeps: str = ""

    def reads(self) -> tuple[str, ...]:
        return (self.keeps,) if self.keeps else ()

    def scalars(self, t: Any, lr: Any) -> Mapping[str, Any]:
        decay = lr * self.weight_decay / self.decay_divisor
        return {"delta": self.delta, "eps": self.eps, "full": 1 - decay, "reduced": 1 - decay * self.wd_ratio}

    def __call__(self, x: Step, delta: Tensor, eps: Tensor, full: Tensor, reduced: Tensor) -> None:  # type: ignore[override]
        factor = full
        if x.ndim > 1:
            radial, passes = self._radial(x, delta, eps)
            x.u = x.u - x.p * radial
            if self.keeps:
                x.state[self.keeps] = x.u
            factor = torch.where(passes, reduced, full)
        if self.weight_decay:
            x.p = x.p * factor

    def structure(self) -> tuple[Any, ...]:
        return (*super().structure(), self.weight_decay > 0)

    def _radial(self, x: Step, delta: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """Return ``<n, u> / (|p| + eps)`` per row or tensor, 0 where no test passes, and whether one does, (k, 1, 1)."""
        rows = _Products(*(_sum(a * b, -1) for a, b in ((x.g, x.g), (x.p, x.p), (x.g, x.p), (x.p, x.u))))
        whole = _Products(*(_sum(product, -2) for product in rows))
        bound, count = delta / math.sqrt(x.p.shape[-1]), x.p.shape[-2] * x.p.shape[-1]
        by_row = rows.cosine(eps).amax(-2, keepdim=True) < bound
        by_whole = (whole.cosine(eps) < delta / math.sqrt(count)) & ~by_row
        return torch.where(by_row, rows.radial(eps), torch.where(by_whole, whole.radial(eps), 0.0)), by_row | by_whole


class _Products(NamedTuple):
    """Inner products of gradient, weights and update, of rows or of whole tensors."""

    gg: Tensor
    pp: Tensor
    gp: Tensor
    pu: Tensor

    def cosine(self, eps: Tensor) -> Tensor:
        return (self.gp / (self.gg.sqrt() + eps) / (self.pp.sqrt() + eps)).abs()

    def radial(self, eps: Tensor) -> Tensor:
        norm = self.pp.sqrt() + eps
        return self.pu / norm / norm


def _sum(tensor: Tensor, dim: int) -> Tensor:
    return tensor.sum(dim, keepdim=True)


class AdamP(ChainOptimizer):
    """Adam whose update is projected off the radius of scale-invariant weights (`ProjectRadial`); official code's trajectory.

    Args:
        params: parameters, named parameters or groups.
        lr, betas, eps, weight_decay: as in AdamW.
        delta: threshold of the test for scale invariance.
        wd_ratio: decay of projected tensors relative to the others.
        nesterov: look ahead, ``u = (b1 m + (1-b1) g) / ...``.
        options: of `ChainOptimizer`.

    Example::

        optimizer = AdamP(model.parameters(), lr=1e-3, weight_decay=1e-2)
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        delta: float = 0.1,
        wd_ratio: float = 0.1,
        nesterov: bool = False,
        **options: Any,
    ) -> None:
        defaults = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
        super().__init__(params, defaults | dict(delta=delta, wd_ratio=wd_ratio, nesterov=nesterov), **options)

    def transforms(self, group: Mapping[str, Any], kind: str = "") -> list[Transform]:
        """Return Ema, SecondMoment, Nesterov?, RmsDivide, ProjectRadial, Apply."""
        (b1, b2), eps = group["betas"], group["eps"]
        ahead: list[Transform] = [Nesterov(b1)] if group["nesterov"] else []
        project = ProjectRadial(group["delta"], group["wd_ratio"], eps, group["weight_decay"])
        return [Ema(b1), SecondMoment(b2), *ahead, RmsDivide(eps), project, Apply()]


class SGDP(ChainOptimizer):
    """SGD with momentum, projected as `AdamP` is; decay ``p <- p (1 - lr wd rho / (1 - momentum))``.

    Args:
        params: parameters, named parameters or groups.
        lr, momentum, dampening, weight_decay, nesterov: as in `visviva.optim.SGDM`; dampening acts on the first step too.
        eps, delta, wd_ratio: of `ProjectRadial`.
        project_momentum: project the momentum itself, as the authors' code does (without Nesterov, where the update is the
            buffer); False is the paper's algorithm and pytorch_optimizer's, which project the update only.
        options: of `ChainOptimizer`.

    Example::

        optimizer = SGDP(model.parameters(), lr=0.1, weight_decay=1e-5)
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-1,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        eps: float = 1e-8,
        delta: float = 0.1,
        wd_ratio: float = 0.1,
        project_momentum: bool = True,
        **options: Any,
    ) -> None:
        defaults = dict(lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay, nesterov=nesterov)
        own = dict(eps=eps, delta=delta, wd_ratio=wd_ratio, project_momentum=project_momentum)
        super().__init__(params, defaults | own, **options)

    def transforms(self, group: Mapping[str, Any], kind: str = "") -> list[Transform]:
        """Return HeavyBall, ProjectRadial, Apply."""
        mu = group["momentum"]
        keeps = "momentum_buffer" if group["project_momentum"] and not group["nesterov"] else ""
        project = ProjectRadial(group["delta"], group["wd_ratio"], group["eps"], group["weight_decay"], 1 - mu, keeps)
        ball = HeavyBall(mu, group["dampening"], group["nesterov"], dampen_first=True)
        return [ball, project, Apply()]
