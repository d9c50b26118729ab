"""SGD with momentum (Polyak's heavy ball; Nesterov's look-ahead)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from visviva.errors import InputError
from visviva.optim.moments import HeavyBall
from visviva.optim.optimizer import ChainOptimizer
from visviva.optim.transform import Transform
from visviva.optim.weights import L2, Apply


class SGDM(ChainOptimizer):
    """``m <- momentum m + (1 - dampening) (g + wd p)``, ``p <- p - lr m``: the trajectory of ``torch.optim.SGD``.

    Args:
        params: parameters, named parameters or groups.
        lr, momentum, dampening, weight_decay: hyper-parameters; decay is coupled.
        nesterov: step along ``g + momentum m``; needs dampening 0.
        options: of `ChainOptimizer`.

    Example::

        optimizer = SGDM(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        momentum: float = 0.9,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        **options: Any,
    ) -> None:
        if nesterov and (momentum <= 0 or dampening != 0):
            raise InputError(f"SGDM: nesterov needs momentum > 0 and dampening 0, not {momentum} and {dampening}")
        defaults = dict(lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay, nesterov=nesterov)
        super().__init__(params, defaults, **options)

    def transforms(self, group: Mapping[str, Any], kind: str = "") -> list[Transform]:
        """Return L2?, HeavyBall?, Apply."""
        chain: list[Transform] = [L2(group["weight_decay"])] if group["weight_decay"] else []
        if group["momentum"]:
            chain.append(HeavyBall(group["momentum"], group["dampening"], group["nesterov"]))
        return [*chain, Apply()]
