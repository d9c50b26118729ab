"""Lion (Chen et al., arXiv 2302.06675) and Lion-K (arXiv 2310.05898): the gradient of a convex function of momentum."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from visviva.errors import InputError
from visviva.optim.moments import NOT_NEGATIVE, UNIT
from visviva.optim.muon import known_schedule
from visviva.optim.newton_schulz import orthogonalize
from visviva.optim.optimizer import ChainOptimizer
from visviva.optim.transform import Kept, Step, Transform
from visviva.optim.weights import Apply

Map = Literal["sign", "soft", "clip", "identity", "orthogonal"]


@dataclass(frozen=True)
class LookAhead(Transform):
    """``u = b1 m + (1-b1) g`` with the old m; then ``m <- b2 m + (1-b2) g``."""

    ranges: ClassVar = {"beta1": UNIT, "beta2": UNIT}
    beta1: float = 0.9
    beta2: float = 0.99

    def states(self) -> Mapping[str, Kept]:
        return {"exp_avg": Kept()}

    def scalars(self, t: Any, lr: Any) -> Mapping[str, Any]:
        return {"b1": self.beta1, "b2": self.beta2, "a1": 1 - self.beta1, "a2": 1 - self.beta2}

    def __call__(self, x: Step, b1: Tensor, b2: Tensor, a1: Tensor, a2: Tensor) -> None:  # type: ignore[override]
        m = x.state["exp_avg"]
        x.u, x.state["exp_avg"] = b1 * m + a1 * x.g, b2 * m + a2 * x.g


@dataclass(frozen=True)
class KMap(Transform):
    """``u <- dK(u)``: ``sign`` (K the 1-norm; Lion), ``soft`` ``sign(u) [|u| > e]``, ``clip`` ``clip(u/e, -1, 1)`` (Huber),
    ``identity`` (K half the squared 2-norm: heavy ball with L2)."""

    ranges: ClassVar = {"e": NOT_NEGATIVE}
    kind: Literal["sign", "soft", "clip", "identity"] = "sign"
    e: float = 0.0

    def scalars(self, t: Any, lr: Any) -> Mapping[str, Any]:
        return {"edge": self.e}

    def __call__(self, x: Step, edge: Tensor) -> None:  # type: ignore[override]
        if self.kind == "sign":
            x.u = x.u.sign()
        elif self.kind == "soft":
            x.u = x.u.sign() * (x.u.abs() > edge)
        elif self.kind == "clip":
            x.u = (x.u / edge).clamp(-1.0, 1.0)


@dataclass(frozen=True)
class Orthogonal(Transform):
    """``u <- polar(u)`` of every matrix (K the nuclear norm); ``schedule`` of `visviva.optim.newton_schulz`."""

    batched: ClassVar = True
    schedule: Any = "standard"

    def __call__(self, x: Step) -> None:  # type: ignore[override]
        x.u = orthogonalize(x.u, self.schedule)


class LionK(ChainOptimizer):
    """``c = b1 m + (1-b1) g``; ``p <- p (1 - lr wd) - lr dK(c)``; ``m <- b2 m + (1-b2) g``.

    Solves ``min f(p) + K*(wd p) / wd``: with ``sign``, f within the box ``|p| <= 1/wd`` (once inside, weights stay inside).

    Args:
        params: parameters, named parameters or groups.
        lr, betas, weight_decay: hyper-parameters.
        map: dK; ``orthogonal`` is Muon's (matrices; with ``b1 = mu^2, b2 = mu`` it is Nesterov Muon without a shape scale), the
            others see `KMap`.
        e: threshold of ``soft`` and ``clip``.
        schedule: of ``orthogonal`` (`visviva.optim.newton_schulz.orthogonalize`).
        options: of `ChainOptimizer`.

    Example::

        optimizer = LionK(model.parameters(), lr=1e-4, map="clip", e=1e-3)
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        map: Map = "sign",
        e: float = 0.0,
        schedule: Any = "standard",
        **options: Any,
    ) -> None:
        if map not in ("sign", "soft", "clip", "identity", "orthogonal"):
            raise InputError(f"LionK: map is {map!r}; allowed are sign, soft, clip, identity, orthogonal")
        if map == "clip" and not (0 < e < math.inf):
            raise InputError(f"LionK: map 'clip' divides by e, which is {e!r}; give a positive e")
        defaults = dict(lr=lr, betas=betas, weight_decay=weight_decay, map=map, e=e)
        super().__init__(params, defaults | dict(schedule=known_schedule(schedule)), **options)

    def transforms(self, group: Mapping[str, Any], kind: str = "") -> list[Transform]:
        """Return LookAhead, KMap or Orthogonal, Apply."""
        schedule = known_schedule(group["schedule"])
        middle: Transform = Orthogonal(schedule) if group["map"] == "orthogonal" else KMap(group["map"], group["e"])
        return [LookAhead(*group["betas"]), middle, Apply(group["weight_decay"])]


class Lion(LionK):
    """Sign momentum: the update is ``sign(b1 m + (1-b1) g)``, one state per weight.

    Learning rates are 3-10 times smaller and decays 3-10 times larger than AdamW's. Weights with zero gradient and momentum
    still decay. Clipping by norm acts only through m.

    Example::

        optimizer = Lion(model.parameters(), lr=1e-4, weight_decay=0.1)
    """

    def __init__(
        self, params: Any, lr: float = 1e-4, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0.0, **options: Any
    ) -> None:
        super().__init__(params, lr, betas, weight_decay, **options)
