"""Adaptive-memory momentum: AM-MSGD and AM-AdamW (arXiv 2510.04988, AISTATS 2026; no official code was found).

The momentum coefficient of every step is the closed-form solution of a model of the objective by two planes, the current
gradient's and the memory direction's. The SGD form is derived (and agrees with a third-party implementation); the AdamW form
follows third-party notes of the paper only: take its trajectory as a reconstruction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from visviva.optim.moments import NOT_NEGATIVE, POSITIVE, UNIT, SecondMoment
from visviva.optim.optimizer import ChainOptimizer
from visviva.optim.transform import Kept, Step, Transform, check, flag, inner
from visviva.optim.weights import Apply


def two_plane_beta(gg: Tensor, gd: Tensor, dd: Tensor, memory: Tensor, beta_max: Tensor) -> Tensor:
    """Return ``clip((|g|^2 + 2 lam <g,d> - lam |d|^2) / |g - d|^2, 0, beta_max)``, 0 where g = d.

    >>> one = torch.tensor(1.0)
    >>> float(two_plane_beta(one, 0 * one, one, 0.1 * one, 0.9 * one))  # g = (1, 0), d = (0, 1)
    0.44999998807907104
    """
    distance = gg - 2 * gd + dd
    beta = (gg + 2 * memory * gd - memory * dd) / torch.where(distance > 0, distance, 1.0)
    return torch.where(distance > 0, beta.clamp_min(0.0), 0.0).minimum(beta_max.to(beta))


@dataclass(frozen=True)
class AdaptiveEma(Transform):
    """``d <- ((beta_t + lam) d + (1 - beta_t) g) / (1 + lam)``, beta_t of `two_plane_beta` over all parameters together;
    the first d is the gradient, g holds the coupled weight decay."""

    measures: ClassVar = True
    ranges: ClassVar = {"memory": NOT_NEGATIVE, "beta_max": UNIT, "weight_decay": NOT_NEGATIVE}
    memory: float = 0.1
    beta_max: float = 0.9
    weight_decay: float = 0.0

    def states(self) -> Mapping[str, Kept]:
        return {"exp_avg": Kept()}

    def scalars(self, t: Any, lr: Any) -> Mapping[str, Any]:
        return {"lam": self.memory, "beta_max": self.beta_max, "first": flag(t == 1), "wd": self.weight_decay}

    def measure(self, x: Step) -> Tensor:
        g, d = x.u + self.weight_decay * x.p, x.state["exp_avg"].to(x.u)
        return torch.stack([inner(g, g), inner(g, d), inner(d, d)])

    def __call__(self, x: Step, lam: Tensor, beta_max: Tensor, first: Tensor, wd: Tensor) -> None:  # type: ignore[override]
        x.g = x.u = x.u + wd * x.p
        gg, gd, dd = x.measured[0], x.measured[1], x.measured[2]
        beta = two_plane_beta(gg, gd, dd, lam.to(gg), beta_max)
        d = ((beta + lam) * x.state["exp_avg"] + (1 - beta) * x.u) / (1 + lam)
        x.u = x.state["exp_avg"] = torch.where(first > 0, x.u, d)


class AMMSGD(ChainOptimizer):
    """SGD with adaptive-memory momentum: ``p <- p - lr d`` (`AdaptiveEma`); decay is coupled into the gradient.

    Args:
        params: parameters, named parameters or groups.
        lr, weight_decay: hyper-parameters.
        memory: the model's weight lambda on the old direction.
        beta_max: largest coefficient.
        options: of `ChainOptimizer`.

    Example::

        optimizer = AMMSGD(model.parameters(), lr=0.5)
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        memory: float = 0.1,
        beta_max: float = 0.9,
        weight_decay: float = 0.0,
        **options: Any,
    ) -> None:
        defaults = dict(lr=lr, memory=memory, beta_max=beta_max, weight_decay=weight_decay)
        super().__init__(params, defaults, **options)

    def transforms(self, group: Mapping[str, Any], kind: str = "") -> list[Transform]:
        """Return AdaptiveEma, Apply."""
        return [AdaptiveEma(group["memory"], group["beta_max"], group["weight_decay"]), Apply()]


@dataclass(frozen=True)
class ProximalEma(Transform):
    """The direction of AM-AdamW, one coefficient per tensor, in the metric of Adam's denominator::

    P = (1 - beta_max prod_{i<t} beta_i) (sqrt(v/(1-b2^t)) + eps)      S = 1 / (P (1 + lam P))
    Df = lr_prev <g, d/P + wd p>
    beta = clip([(1 + wd lr) Df/lr - <d-g, g + lam P d>_S - wd <p, d-g>] / |d-g|_S^2, 0, beta_max)   (beta_max at t = 1)
    d <- ((1 - beta) g + (lam P + beta) d) / (1 + lam P);   u = d / P
    """

    batched: ClassVar = True
    fuses: ClassVar = True
    ranges: ClassVar = {"memory": NOT_NEGATIVE, "beta_max": UNIT, "eps": POSITIVE, "weight_decay": NOT_NEGATIVE}
    memory: float = 0.1
    beta_max: float = 0.89
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    fixed: bool = False

    def states(self) -> Mapping[str, Kept]:
        return {"exp_avg": Kept(), "beta_product": Kept("tensor", 1.0, moment=False), "last_lr": Kept("tensor", moment=False)}

    def reads(self) -> tuple[str, ...]:
        return ("exp_avg_sq",)

    def scalars(self, t: Any, lr: Any) -> Mapping[str, Any]:
        numbers = {"lam": self.memory, "beta_max": self.beta_max, "eps": self.eps, "wd": self.weight_decay}
        return {**numbers, "correction": 1 - self.beta2**t, "first": flag(t == 1)}

    def __call__(self, x: Step, **s: Tensor) -> None:
        lam, g, d = s["lam"], x.u, x.state["exp_avg"]
        product = x.state["beta_product"]
        metric = (1 - s["beta_max"] * product) * ((x.state["exp_avg_sq"] / s["correction"]).sqrt() + s["eps"])
        beta = torch.where(s["first"] > 0, s["beta_max"].to(g), self._beta(x, metric, s))
        if self.fixed:
            beta = s["beta_max"].to(g).expand_as(product)
        d = x.state["exp_avg"] = ((1 - beta) * g + (lam * metric + beta) * d) / (1 + lam * metric)
        x.state["beta_product"] = product * beta
        x.state["last_lr"] = x.lr.to(product).expand_as(product)
        x.u = d / metric

    def _beta(self, x: Step, metric: Tensor, s: Mapping[str, Tensor]) -> Tensor:
        lam, wd, g, d = s["lam"], s["wd"], x.u, x.state["exp_avg"]
        weight = 1 / (metric * (1 + lam * metric))
        descent = x.state["last_lr"] * _sum(g * (d / metric + wd * x.p))
        lr = x.lr.to(g).clamp_min(torch.finfo(g.dtype).tiny)
        top = (1 + wd * lr) * descent / lr - _sum(weight * (d - g) * (g + lam * metric * d)) - wd * _sum(x.p * (d - g))
        bottom = _sum(weight * (d - g).square())
        beta = torch.where(bottom > 0, top / torch.where(bottom > 0, bottom, 1.0), 0.0)
        return beta.clamp_min(0.0).minimum(s["beta_max"].to(beta))


def _sum(tensor: Tensor) -> Tensor:
    return tensor.sum((-2, -1), keepdim=True)


class AMAdamW(ChainOptimizer):
    """AdamW with an adaptive first-moment coefficient per tensor (`ProximalEma`). Reconstructed from third-party notes.

    Args:
        params: parameters, named parameters or groups.
        lr, eps, weight_decay: as in AdamW.
        beta2: decay of the second moment.
        memory: weight lambda of the model on the old direction (it multiplies the metric, which has units).
        beta_max: largest coefficient; None takes ``0.9 - 0.1 memory``.
        fixed: use ``beta_max`` at every step; with ``memory=0`` this is AdamW.
        options: of `ChainOptimizer`.

    Example::

        optimizer = AMAdamW(model.parameters(), lr=1e-3)
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        memory: float = 0.1,
        beta_max: float | None = None,
        fixed: bool = False,
        **options: Any,
    ) -> None:
        check("AMAdamW: memory", memory, 0.0, float("inf"))
        largest = 0.9 - 0.1 * memory if beta_max is None else beta_max
        defaults = dict(lr=lr, beta2=beta2, eps=eps, weight_decay=weight_decay, memory=memory, beta_max=largest, fixed=fixed)
        super().__init__(params, defaults, **options)

    def transforms(self, group: Mapping[str, Any], kind: str = "") -> list[Transform]:
        """Return SecondMoment, ProximalEma, Apply."""
        names = ("memory", "beta_max", "beta2", "eps", "weight_decay", "fixed")
        return [SecondMoment(group["beta2"]), ProximalEma(*(group[n] for n in names)), Apply(group["weight_decay"])]
