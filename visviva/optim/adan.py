"""Adan: adaptive Nesterov momentum (Xie et al., arXiv 2208.06677; official code sail-sg/Adan)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from visviva.optim.gradient import ClipGlobalNorm
from visviva.optim.moments import POSITIVE, UNIT
from visviva.optim.optimizer import ChainOptimizer
from visviva.optim.transform import Kept, Step, Transform, flag
from visviva.optim.weights import Apply


@dataclass(frozen=True)
class NesterovMoments(Transform):
    """Averages of the gradient (m), of its change (d) and of the square of the look-ahead gradient (n)::

    delta = g - g_previous   (0 at the first step)
    m <- b1 m + (1-b1) g;  d <- b2 d + (1-b2) delta;  n <- b3 n + (1-b3) (g + b2 delta)^2
    u = (m/(1-b1^t) + b2 d/(1-b2^t)) / (sqrt(n/(1-b3^t)) + eps)
    """

    ranges: ClassVar = {"beta1": UNIT, "beta2": UNIT, "beta3": UNIT, "eps": POSITIVE}
    beta1: float = 0.98
    beta2: float = 0.92
    beta3: float = 0.99
    eps: float = 1e-8

    def states(self) -> Mapping[str, Kept]:
        return {"exp_avg": Kept(), "exp_avg_diff": Kept(), "exp_avg_sq": Kept(square=True), "previous_grad": Kept(moment=False)}

    def scalars(self, t: Any, lr: Any) -> Mapping[str, Any]:
        betas = {"b1": self.beta1, "b2": self.beta2, "b3": self.beta3}
        debias = {"c1": 1 / (1 - self.beta1**t), "c2": 1 / (1 - self.beta2**t), "c3": (1 - self.beta3**t) ** -0.5}
        return {**betas, **debias, "eps": self.eps, "later": flag(t > 1)}

    def __call__(self, x: Step, **s: Tensor) -> None:
        delta = s["later"] * (x.g - x.state["previous_grad"])
        ahead = x.g + s["b2"] * delta
        m = x.state["exp_avg"] = s["b1"] * x.state["exp_avg"] + (1 - s["b1"]) * x.g
        d = x.state["exp_avg_diff"] = s["b2"] * x.state["exp_avg_diff"] + (1 - s["b2"]) * delta
        n = x.state["exp_avg_sq"] = s["b3"] * x.state["exp_avg_sq"] + (1 - s["b3"]) * (ahead * ahead)
        x.state["previous_grad"] = x.g
        x.u = (m * s["c1"] + s["b2"] * s["c2"] * d) / (n.sqrt() * s["c3"] + s["eps"])


class Adan(ChainOptimizer):
    """Adam with a Nesterov look-ahead made of the gradient's own change (`NesterovMoments`); four states per weight.

    The learning rate is usually 5-10 times Adam's. Betas are decay factors: the paper writes ``1 - beta``. (optax weights the
    difference by 0.08 where the official code has 0.92; ``adan-pytorch`` is a different variant.)

    Args:
        params: parameters, named parameters or groups.
        lr, betas, eps: hyper-parameters.
        weight_decay: proximal, ``p <- (p - lr u) / (1 + lr wd)``; with ``no_prox`` as AdamW's. 0.02 is recommended.
        max_grad_norm: global clipping first; 0 is off.
        options: of `ChainOptimizer`.

    Example::

        optimizer = Adan(model.parameters(), lr=1e-3, weight_decay=0.02)
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float, float] = (0.98, 0.92, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        max_grad_norm: float = 0.0,
        no_prox: bool = False,
        **options: Any,
    ) -> None:
        defaults = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
        super().__init__(params, defaults | dict(max_grad_norm=max_grad_norm, no_prox=no_prox), **options)

    def transforms(self, group: Mapping[str, Any], kind: str = "") -> list[Transform]:
        """Return ClipGlobalNorm?, NesterovMoments, Apply(prox)."""
        clip: list[Transform] = [ClipGlobalNorm(group["max_grad_norm"], group["eps"])] if group["max_grad_norm"] else []
        b1, b2, b3 = group["betas"]
        decay: Any = "pre" if group["no_prox"] else "prox"
        return [*clip, NesterovMoments(b1, b2, b3, group["eps"]), Apply(group["weight_decay"], decay)]
