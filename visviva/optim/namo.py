"""NAMO and NAMO-D: Muon with a noise-adaptive step (arXiv 2602.17080; official code minxin-zhg/namo)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from visviva.optim.moments import POSITIVE, UNIT
from visviva.optim.muon import MatrixOptimizer, Orthogonalize, known_schedule, momentum, shape_scale
from visviva.optim.transform import Kept, Step, Transform, choose
from visviva.optim.weights import Apply

Axis = Literal["column", "row"]


@dataclass(frozen=True)
class NormMoment(Transform):
    """``v <- mu2 v + (1-mu2) |g|^2`` per tensor, column or row, and ``s = |u| / (sqrt(v) + eps)``, left as state ``ratio``.

    Per column or row, s is clipped to ``[c mean(s), mean(s) / c]``.
    """

    batched: ClassVar = True
    fuses: ClassVar = True
    ranges: ClassVar = {"beta": UNIT, "eps": POSITIVE, "clamp": (1e-12, 1.0 + 1e-12)}
    beta: float = 0.99
    eps: float = 1e-8
    axis: Literal["tensor", "column", "row"] = "tensor"
    clamp: float = 0.75

    def states(self) -> Mapping[str, Kept]:
        return {"norm_sq": Kept(self.axis), "ratio": Kept(self.axis, moment=False)}

    def scalars(self, t: Any, lr: Any) -> Mapping[str, Any]:
        return {"keep": self.beta, "take": 1 - self.beta, "eps": self.eps, "c": self.clamp}

    def __call__(self, x: Step, keep: Tensor, take: Tensor, eps: Tensor, c: Tensor) -> None:  # type: ignore[override]
        dims = {"tensor": (-2, -1), "column": (-2,), "row": (-1,)}[self.axis]
        norm = torch.linalg.vector_norm(x.g, dim=dims, keepdim=True)
        v = x.state["norm_sq"] = keep * x.state["norm_sq"] + take * norm.square()
        s = torch.linalg.vector_norm(x.u, dim=dims, keepdim=True) / (v.sqrt() + eps)
        if self.axis != "tensor":
            mean = s.mean((-2, -1), keepdim=True)
            s = torch.minimum(torch.maximum(s, c * mean), mean / c)
        x.state["ratio"] = s


@dataclass(frozen=True)
class NoiseAdaptiveScale(Transform):
    """``alpha = lr sqrt(1-mu2^t)/(1-mu^t) ratio``; ``p <- p (1 - wd min(alpha, 1))``; ``u <- min(alpha shape, 1) u``.

    u then holds the learning rate (`Apply.absolute`). ``guards=False``: without ``min(., 1)`` and shape factor, and with decay
    ``1 - lr wd alpha``, as the paper prints it. ``blocks``: row blocks that were orthogonalized apart.
    """

    batched: ClassVar = True
    fuses: ClassVar = True
    decays: ClassVar = True
    ranges: ClassVar = {"mu": UNIT, "mu2": UNIT, "weight_decay": (0.0, float("inf"))}
    mu: float = 0.95
    mu2: float = 0.99
    weight_decay: float = 0.1
    guards: bool = True
    blocks: int = 1

    def reads(self) -> tuple[str, ...]:
        return ("ratio",)

    def scalars(self, t: Any, lr: Any) -> Mapping[str, Any]:
        return {"step": lr * (1 - self.mu2**t) ** 0.5 / (1 - self.mu**t), "wd": self.weight_decay}

    def __call__(self, x: Step, step: Tensor, wd: Tensor) -> None:  # type: ignore[override]
        alpha = step * x.state["ratio"]
        rows, columns = x.u.shape[1:]
        factor = shape_scale("rms", rows // self.blocks, columns) if self.guards else 1.0
        x.p = x.p * (1 - wd * (alpha.clamp_max(1.0) if self.guards else alpha))
        x.u = ((alpha * factor).clamp_max(1.0) if self.guards else alpha) * x.u


class NAMO(MatrixOptimizer):
    """Muon whose step shrinks where gradients are noisy: scaled by ``|M| / sqrt(EMA(|g|^2))``, one number per matrix.

    ``v <- mu2 v + (1-mu2) |g|_F^2``; ``M <- mu M + (1-mu) g``; ``M' = (1-mu) g + mu M`` (Nesterov) or M;
    ``alpha = lr sqrt(1-mu2^t)/(1-mu^t) |M'| / (sqrt(v) + eps)``; ``p <- p (1 - wd min(alpha, 1))``, then
    ``p <- p - min(0.2 sqrt(max(r, c)) alpha, 1) polar(M')``. The official code's rule; its docstring has ``sqrt(v + eps)``.
    Without Nesterov the first alpha is lr; with it 1.95 lr.

    Args:
        params: named parameters, best; parameters or groups.
        lr, momentum, mu2, eps, weight_decay, nesterov: hyper-parameters.
        schedule: Newton-Schulz coefficients or ``svd``.
        guards: the code's ``min(., 1)`` and shape factor; False is the paper's printed rule.
        options: as `visviva.optim.muon.Muon`.

    Measured by others: beats AdamW and Muon in GPT-2 pre-training with less sensitivity to the rate.

    Example::

        optimizer = NAMO(model.named_parameters(), lr=1e-2)
    """

    axis: ClassVar[Literal["tensor", "column", "row"]] = "tensor"

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        momentum: float = 0.95,
        mu2: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.1,
        nesterov: bool = True,
        schedule: Any = "standard",
        guards: bool = True,
        **options: Any,
    ) -> None:
        defaults = dict(lr=lr, momentum=momentum, mu2=mu2, eps=eps, weight_decay=weight_decay, nesterov=nesterov)
        own = dict(schedule=known_schedule(schedule), guards=guards, axis=options.pop("axis", self.axis))
        super().__init__(params, defaults | own | dict(clamp=options.pop("clamp", 0.75)), **options)

    def matrix_chain(self, group: Mapping[str, Any], blocks: int) -> list[Transform]:
        """Return Ema, Nesterov?, NormMoment, Orthogonalize, NoiseAdaptiveScale, Apply(absolute)."""
        choose(f"{type(self).__name__}: axis", group["axis"], "tensor", "column", "row")
        moment = NormMoment(group["mu2"], group["eps"], group["axis"], group["clamp"])
        scale = NoiseAdaptiveScale(group["momentum"], group["mu2"], group["weight_decay"], group["guards"], blocks)
        polar = Orthogonalize(group["schedule"], "none", blocks)
        return [*momentum(group), moment, polar, scale, Apply(absolute=True)]


class NAMOD(NAMO):
    """NAMO with one step per column (input feature), clipped to ``[c mean, mean / c]``.

    Args:
        clamp: c in (0, 1]; 1 makes all columns equal.
        axis: ``column`` (the official code) or ``row`` (output unit: the paper speaks of neurons).

    Example::

        optimizer = NAMOD(model.named_parameters(), lr=9e-3, clamp=0.75)
    """

    axis: ClassVar[Literal["tensor", "column", "row"]] = "column"

    def __init__(self, params: Any, lr: float = 1e-2, clamp: float = 0.75, axis: Axis = "column", **options: Any) -> None:
        super().__init__(params, lr, clamp=clamp, axis=axis, **options)
