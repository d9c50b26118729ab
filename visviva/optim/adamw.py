"""AdamW (Loshchilov & Hutter, arXiv 1711.05101) and Adam (Kingma & Ba, arXiv 1412.6980)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from visviva.optim.moments import Ema, RmsDivide, SecondMoment
from visviva.optim.optimizer import ChainOptimizer
from visviva.optim.transform import Transform, choose
from visviva.optim.weights import Apply


class AdamW(ChainOptimizer):
    """Adam with decoupled weight decay; the trajectory of ``torch.optim.AdamW``.

    ``m <- b1 m + (1-b1) g``, ``v <- b2 v + (1-b2) g^2``, ``p <- p (1 - lr wd) - lr (m/(1-b1^t)) / (sqrt(v/(1-b2^t)) + eps)``.

    Args:
        params: parameters, named parameters or groups.
        lr, betas, eps, weight_decay: hyper-parameters.
        eps_mode: where eps goes (`visviva.optim.moments.RmsDivide`).
        options: ``extra``, ``compile``, ``adopt``, ``capturable``, ``state_dtype`` (`ChainOptimizer`).

    Example::

        optimizer = AdamW(model.parameters(), lr=1e-3, extra=[SpikeClip(5000.0)])
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        eps_mode: str = "after_bias",
        **options: Any,
    ) -> None:
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, eps_mode=eps_mode), **options)

    def transforms(self, group: Mapping[str, Any], kind: str = "") -> list[Transform]:
        """Return Ema, SecondMoment, RmsDivide, Apply."""
        b1, b2 = group["betas"]
        choose("AdamW: eps_mode", group["eps_mode"], "after_bias", "before_bias", "inside_root", "clamp")
        return [Ema(b1), SecondMoment(b2), RmsDivide(group["eps"], group["eps_mode"]), Apply(group["weight_decay"])]
