"""Transforms that keep averages: of the gradient, of its square, of its changes; and what divides by them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from visviva.optim.transform import Kept, Step, Transform, flag

UNIT = (0.0, 1.0)
POSITIVE = (1e-300, float("inf"))
NOT_NEGATIVE = (0.0, float("inf"))


@dataclass(frozen=True)
class Ema(Transform):
    """``m <- beta m + (1 - beta) u``; the update becomes m.

    ``copy_first``: the first m is the first gradient (SGD-SaI) instead of ``(1 - beta)`` of it. Leaves ``1 / (1 - beta^t)``,
    the factor that removes the bias, as note ``m_debias`` (1 with ``copy_first``).
    """

    ranges: ClassVar = {"beta": UNIT}
    beta: float = 0.9
    copy_first: bool = False
    name: str = "exp_avg"

    def states(self) -> Mapping[str, Kept]:
        return {self.name: Kept()}

    def scalars(self, t: Any, lr: Any) -> Mapping[str, Any]:
        keep = self.beta * flag(t > 1) if self.copy_first else self.beta
        return {"keep": keep, "take": 1 - keep, "debias": 1.0 if self.copy_first else 1 / (1 - self.beta**t)}

    def __call__(self, x: Step, keep: Tensor, take: Tensor, debias: Tensor) -> None:  # type: ignore[override]
        x.u = x.state[self.name] = keep * x.state[self.name] + take * x.u
        x.notes["m_debias"] = debias


@dataclass(frozen=True)
class HeavyBall(Transform):
    """``m <- momentum m + (1 - dampening) u``, first ``m = u``; the update becomes m, or ``u + momentum m`` (Nesterov).

    As in ``torch.optim.SGD``, dampening does not act on the first step (unless ``dampen_first``, as SGDP's code has it).
    """

    ranges: ClassVar = {"momentum": UNIT, "dampening": (0.0, 1.0)}
    momentum: float = 0.9
    dampening: float = 0.0
    nesterov: bool = False
    dampen_first: bool = False
    name: str = "momentum_buffer"

    def states(self) -> Mapping[str, Kept]:
        return {self.name: Kept()}

    def scalars(self, t: Any, lr: Any) -> Mapping[str, Any]:
        return {"keep": self.momentum, "take": 1 - self.dampening * (1.0 if self.dampen_first else flag(t > 1))}

    def __call__(self, x: Step, keep: Tensor, take: Tensor) -> None:  # type: ignore[override]
        m = x.state[self.name] = keep * x.state[self.name] + take * x.u
        x.u = x.u + keep * m if self.nesterov else m


@dataclass(frozen=True)
class Nesterov(Transform):
    """``u <- (1 - beta) g + beta m``: the look-ahead of an average that `Ema` just took."""

    ranges: ClassVar = {"beta": UNIT}
    beta: float = 0.9
    name: str = "exp_avg"

    def reads(self) -> tuple[str, ...]:
        return (self.name,)

    def scalars(self, t: Any, lr: Any) -> Mapping[str, Any]:
        return {"keep": self.beta, "take": 1 - self.beta}

    def __call__(self, x: Step, keep: Tensor, take: Tensor) -> None:  # type: ignore[override]
        x.u = take * x.g + keep * x.state[self.name]


@dataclass(frozen=True)
class SecondMoment(Transform):
    """``v <- beta v + (1 - beta) s^2`` with s the gradient, or its surprise ``g - m`` (AdaBelief).

    ``eps_in_state`` is added to v at every step (AdaBelief's code). Leaves ``v_debias = 1 / (1 - beta^t)`` and its
    root as ``root_debias``.
    """

    ranges: ClassVar = {"beta": UNIT, "eps_in_state": NOT_NEGATIVE}
    beta: float = 0.999
    of: Literal["gradient", "surprise"] = "gradient"
    eps_in_state: float = 0.0

    def states(self) -> Mapping[str, Kept]:
        return {"exp_avg_sq": Kept(square=True)}

    def reads(self) -> tuple[str, ...]:
        return ("exp_avg",) if self.of == "surprise" else ()

    def scalars(self, t: Any, lr: Any) -> Mapping[str, Any]:
        debias = 1 / (1 - self.beta**t)
        return {"keep": self.beta, "take": 1 - self.beta, "debias": debias, "root": debias**0.5, "eps": self.eps_in_state}

    def __call__(  # type: ignore[override]
        self, x: Step, keep: Tensor, take: Tensor, debias: Tensor, root: Tensor, eps: Tensor
    ) -> None:
        s = x.g - x.state["exp_avg"] if self.of == "surprise" else x.g
        v = keep * x.state["exp_avg_sq"] + take * (s * s)
        x.state["exp_avg_sq"] = v + eps if self.of == "surprise" else v
        x.notes.update(v_debias=debias, root_debias=root)


@dataclass(frozen=True)
class RmsDivide(Transform):
    """``u <- m_debias u / denominator`` with the factors that `Ema` and `SecondMoment` left.

    ``eps_mode``: ``after_bias`` ``sqrt(v)/sqrt(c) + eps`` (torch; ``c = 1 - beta^t``), ``before_bias``
    ``(sqrt(v) + eps)/sqrt(c)`` (SPAM's code), ``inside_root`` ``sqrt(v/c + eps)`` (optax's eps_root), ``clamp``
    ``max(sqrt(v)/sqrt(c), eps)`` (heavyball).
    """

    ranges: ClassVar = {"eps": POSITIVE}
    eps: float = 1e-8
    eps_mode: Literal["after_bias", "before_bias", "inside_root", "clamp"] = "after_bias"

    def reads(self) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq")

    def scalars(self, t: Any, lr: Any) -> Mapping[str, Any]:
        return {"eps": self.eps}

    def __call__(self, x: Step, eps: Tensor) -> None:  # type: ignore[override]
        v, debias, root = x.state["exp_avg_sq"], x.notes["v_debias"], x.notes["root_debias"]
        if self.eps_mode == "after_bias":
            denominator = v.sqrt() * root + eps
        elif self.eps_mode == "before_bias":
            denominator = (v.sqrt() + eps) * root
        elif self.eps_mode == "inside_root":
            denominator = (v * debias + eps).sqrt()
        else:
            denominator = (v * debias).sqrt().clamp_min(eps)
        x.u = x.u * x.notes["m_debias"] / denominator
        x.notes["denominator"] = denominator
