"""Transforms of the gradient before any average: clipping, and the clearing of averages."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from visviva.optim.moments import NOT_NEGATIVE, POSITIVE
from visviva.optim.transform import Step, Transform, check_whole, flag, inner


@dataclass(frozen=True)
class ClipGlobalNorm(Transform):
    """``g <- g min(1, max_norm / (|g| + eps))``, the norm over all parameters of the optimizer."""

    place: ClassVar = "gradient"
    measures: ClassVar = True
    ranges: ClassVar = {"max_norm": POSITIVE, "eps": (0.0, math.inf)}
    max_norm: float = 1.0
    eps: float = 1e-8

    def scalars(self, t: Any, lr: Any) -> Mapping[str, Any]:
        return {"max_norm": self.max_norm, "eps": self.eps}

    def measure(self, x: Step) -> Tensor:
        return inner(x.g, x.g)[None]

    def __call__(self, x: Step, max_norm: Tensor, eps: Tensor) -> None:  # type: ignore[override]
        x.g = x.u = x.g * (max_norm / (x.measured[0].sqrt() + eps)).clamp_max(1.0)


@dataclass(frozen=True)
class SpikeClip(Transform):
    """SPAM's spike clipping: where ``g^2 > theta v``, ``g <- sign(g) sqrt(theta v)``, v the previous second moment.

    Where v is still 0 (a rare token's row, a late branch) there is no estimate yet, and nothing is clipped; the official code
    would set such gradients to 0 for ever. Off (as in SPAM's code) for the first ``wait`` steps, and for the first ``wait``
    after every ``period`` (0: no period) while v fills again. Needs an optimizer that keeps ``exp_avg_sq``.
    """

    place: ClassVar = "gradient"
    restarts: ClassVar = False
    ranges: ClassVar = {"theta": POSITIVE, "wait": NOT_NEGATIVE, "period": NOT_NEGATIVE}
    theta: float = 5000.0
    wait: int = 20
    period: int = 0

    def reads(self) -> tuple[str, ...]:
        return ("exp_avg_sq",)

    def scalars(self, t: Any, lr: Any) -> Mapping[str, Any]:
        since = t % self.period if self.period else t
        return {"theta": self.theta, "on": flag(t >= self.wait) * flag(since >= self.wait)}

    def __call__(self, x: Step, theta: Tensor, on: Tensor) -> None:  # type: ignore[override]
        bound = theta * x.state["exp_avg_sq"]
        spike = (x.g * x.g > bound) & (bound > 0) & (on > 0)
        x.g = x.u = torch.where(spike, x.g.sign() * bound.sqrt(), x.g)


@dataclass(frozen=True)
class MomentumReset(Transform):
    """Every ``period`` steps all averages of the chain start again from zero, before they take in that step's gradient.

    ``restart_count``: the step count in bias corrections restarts too (low-rank restarts); SPAM's code lets it go on.
    """

    place: ClassVar = "gradient"
    restarts: ClassVar = False
    period: int = 500
    restart_count: bool = False

    def __post_init__(self) -> None:
        check_whole("MomentumReset.period", self.period)

    def clock(self, t: Any) -> Any:
        return t % self.period + flag(t >= self.period) if self.restart_count else t

    def scalars(self, t: Any, lr: Any) -> Mapping[str, Any]:
        return {"keep": flag(t % self.period != 0)}

    def __call__(self, x: Step, keep: Tensor) -> None:  # type: ignore[override]
        for name in x.moments:
            x.state[name] = torch.where(keep > 0, x.state[name], 0.0)


@dataclass(frozen=True)
class WarmupAfterReset(Transform):
    """Scale the update by ``s = 1 - 0.99 (1 + cos(pi j / (warmup + 1))) / 2``, j steps after a reset (SPAM); s = 1 before the
    first reset and from ``j = warmup`` on."""

    restarts: ClassVar = False
    ranges: ClassVar = {"period": (1, math.inf), "warmup": NOT_NEGATIVE}
    period: int = 500
    warmup: int = 150

    def scalars(self, t: Any, lr: Any) -> Mapping[str, Any]:
        j = t % self.period
        on = flag(t >= self.period) * flag(j < self.warmup)
        cosine = (
            torch.cos(math.pi * j / (self.warmup + 1)) if isinstance(j, Tensor) else math.cos(math.pi * j / (self.warmup + 1))
        )
        return {"scale": 1 - on * 0.99 * (1 + cosine) / 2}

    def __call__(self, x: Step, scale: Tensor) -> None:  # type: ignore[override]
        x.u = scale * x.u


@dataclass(frozen=True)
class SoftClip(Transform):
    """ROOT's outlier suppression: ``u <- clamp(u, -e, e)``, e the ``quantile`` of ``|u|`` of each tensor, plus 1e-9.

    The soft-threshold split of the paper, ``O = sign(u) max(|u| - e, 0)``, ``u - O``, is this clamp. Quantile 1 changes nothing
    (beyond 1e-9). ``sample``: largest number of entries the quantile is taken of (a strided sample of larger tensors).
    """

    batched: ClassVar = True
    ranges: ClassVar = {"quantile": (0.0, 1.0 + 1e-12)}
    quantile: float = 0.9
    sample: int = 1 << 16

    def scalars(self, t: Any, lr: Any) -> Mapping[str, Any]:
        return {"q": self.quantile}

    def __call__(self, x: Step, q: Tensor) -> None:  # type: ignore[override]
        size = x.u[0].numel()
        flat = x.u.abs().flatten(1)
        if size > self.sample:
            flat = flat[:, :: -(-size // self.sample)]
        bound = torch.quantile(flat, q.to(flat.dtype), dim=1)[:, None, None] + 1e-9
        x.u = torch.minimum(torch.maximum(x.u, -bound), bound)


@dataclass(frozen=True)
class Cautious(Transform):
    """Cautious update (Liang et al., arXiv 2411.16085): entries whose sign disagrees with the gradient are set to zero, the
    others scaled by the reciprocal share of agreeing entries of the tensor (at least 1e-3)."""

    batched: ClassVar = True
    fuses: ClassVar = True

    def __call__(self, x: Step) -> None:  # type: ignore[override]
        agree = (x.u * x.g > 0).to(x.u.dtype)
        x.u = x.u * agree / agree.mean((-2, -1), keepdim=True).clamp_min(1e-3)
