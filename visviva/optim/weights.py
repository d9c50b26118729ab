"""Transforms that move the weights, and weight decay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from visviva.optim.moments import NOT_NEGATIVE
from visviva.optim.transform import Step, Transform


@dataclass(frozen=True)
class L2(Transform):
    """Coupled weight decay: ``g <- g + weight_decay p``, so that momentum and normalisation see it."""

    place: ClassVar = "gradient"
    ranges: ClassVar = {"weight_decay": NOT_NEGATIVE}
    weight_decay: float = 0.0

    def scalars(self, t: Any, lr: Any) -> Mapping[str, Any]:
        return {"decay": self.weight_decay}

    def __call__(self, x: Step, decay: Tensor) -> None:  # type: ignore[override]
        x.g = x.u = x.g + decay * x.p


@dataclass(frozen=True)
class Apply(Transform):
    """Move the weights: ``p <- p - lr u``, with decoupled weight decay.

    ``decay``: ``pre`` ``p (1 - lr wd) - lr u`` (AdamW), ``post`` ``(p - lr u)(1 - lr wd)`` (SPAM), ``prox``
    ``(p - lr u) / (1 + lr wd)`` (Adan), ``cautious`` as ``pre``, only where ``u p >= 0`` (decay does not fight the update).
    ``absolute``: u already holds the learning rate, ``p <- p - u``. ``fixed``: ``pre`` with ``1 - wd`` (AdaBelief's option).
    """

    place: ClassVar = "weights"
    ranges: ClassVar = {"weight_decay": NOT_NEGATIVE}
    weight_decay: float = 0.0
    decay: Literal["pre", "post", "prox", "cautious", "fixed"] = "pre"
    absolute: bool = False

    def scalars(self, t: Any, lr: Any) -> Mapping[str, Any]:
        if self.decay == "prox":
            return {"factor": 1 / (1 + lr * self.weight_decay)}
        return {"factor": 1 - (1.0 if self.decay == "fixed" else lr) * self.weight_decay}

    def __call__(self, x: Step, factor: Tensor) -> None:  # type: ignore[override]
        move = x.u if self.absolute else x.lr * x.u
        if self.decay in ("pre", "fixed"):
            x.p = x.p * factor - move
        elif self.decay == "cautious":
            x.p = torch.where(x.u * x.p >= 0, x.p * factor, x.p) - move
        else:
            x.p = (x.p - move) * factor
