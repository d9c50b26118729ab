"""AdaBelief (Zhuang et al., arXiv 2010.07468): step by the belief in the gradient."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from visviva.optim.moments import POSITIVE, UNIT, Ema, RmsDivide, SecondMoment
from visviva.optim.optimizer import ChainOptimizer
from visviva.optim.transform import Step, Transform, choose, flag
from visviva.optim.weights import L2, Apply


@dataclass(frozen=True)
class Rectify(Transform):
    """RAdam's rectified division as AdaBelief's package does it; plain momentum while the second moment is too young.

    ``N_inf = 2/(1-b2) - 1``, ``N = N_inf - 2 t b2^t / (1-b2^t)``; for ``N >= 5``
    ``u = sqrt((1-b2^t)(N-4)(N-2)N_inf / ((N_inf-4)(N_inf-2)N)) m / (1-b1^t) / (sqrt(s) + eps)``, else ``u = m / (1-b1^t)``.
    """

    ranges: ClassVar = {"beta": UNIT, "eps": POSITIVE}
    beta: float = 0.999
    eps: float = 1e-16

    def reads(self) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq")

    def scalars(self, t: Any, lr: Any) -> Mapping[str, Any]:
        power = self.beta**t
        longest = 2 / (1 - self.beta) - 1
        n = longest - 2 * t * power / (1 - power)
        old: Any = longest >= 5 and n >= 5
        ratio = (1 - power) * (n - 4) * (n - 2) * longest / ((longest - 4) * (longest - 2) * n) if longest >= 5 else 1.0
        factor = torch.where(old, ratio, 1.0).sqrt() if isinstance(ratio, Tensor) else math.sqrt(ratio if old else 1.0)
        return {"eps": self.eps, "factor": factor, "old": flag(old)}

    def __call__(self, x: Step, eps: Tensor, factor: Tensor, old: Tensor) -> None:  # type: ignore[override]
        denominator = torch.where(old > 0, x.state["exp_avg_sq"].sqrt() + eps, 1.0)
        x.u = factor * (x.u * x.notes["m_debias"]) / denominator


class AdaBelief(ChainOptimizer):
    """Adam that divides by the root of the variance of the gradient around its average, ``s = EMA((g - m)^2)``.

    ``m <- b1 m + (1-b1) g``, ``s <- b2 s + (1-b2)(g - m)^2 + eps``,
    ``p <- p (1 - lr wd) - lr (m/(1-b1^t)) / (sqrt(s/(1-b2^t)) + eps)``.
    In the authors' code eps is added into the stored s at every step (``eps_mode="accumulate"``), so s cannot fall below
    ``eps/(1-b2)``: 1e-5 for eps 1e-8, which drowns the belief. ``add_once`` leaves the state alone.

    Args:
        params: parameters, named parameters or groups.
        lr, betas, eps, weight_decay: hyper-parameters (the package's eps 1e-16).
        rectify: RAdam's rectification (on by default in the authors' package; the paper never used it).
        decay: ``decoupled``, ``fixed`` (``p (1 - wd)``, not scaled by lr) or ``coupled`` into the gradient.
        options: of `ChainOptimizer`.

    Example::

        optimizer = AdaBelief(model.parameters(), lr=1e-3)
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-16,
        weight_decay: float = 0.0,
        rectify: bool = False,
        eps_mode: Literal["accumulate", "add_once"] = "accumulate",
        decay: Literal["decoupled", "fixed", "coupled"] = "decoupled",
        **options: Any,
    ) -> None:
        defaults = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
        super().__init__(params, defaults | dict(rectify=rectify, eps_mode=eps_mode, decay=decay), **options)

    def transforms(self, group: Mapping[str, Any], kind: str = "") -> list[Transform]:
        """Return L2?, Ema, SecondMoment(surprise), RmsDivide or Rectify, Apply."""
        (b1, b2), eps, coupled = group["betas"], group["eps"], group["decay"] == "coupled"
        choose("AdaBelief: eps_mode", group["eps_mode"], "accumulate", "add_once")
        choose("AdaBelief: decay", group["decay"], "decoupled", "fixed", "coupled")
        second = SecondMoment(b2, "surprise", eps if group["eps_mode"] == "accumulate" else 0.0)
        divide = Rectify(b2, eps) if group["rectify"] else RmsDivide(eps)
        decay: Any = "fixed" if group["decay"] == "fixed" else "pre"
        chain: list[Transform] = [L2(group["weight_decay"])] if coupled else []
        return [*chain, Ema(b1), second, divide, Apply(0.0 if coupled else group["weight_decay"], decay)]
