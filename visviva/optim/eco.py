"""ECO, the error-compensating optimizer: quantized weights without a master copy (arXiv 2601.22101).

After every step the weights are put back on the lattice of a quantizer, and what that rounds away goes into the momentum, so
that the next steps make up for it::

    theta~ = (1 - lr wd) theta^ - lr u(m~)        theta^ <- q(theta~)        e = theta~ - theta^
    m <- m~ + (1 - lr wd) (1/lr) (b - 1)/a  h^-1(e)

m~ enters the step with share a and stays in the momentum with share b (SGDM, Adam: ``a = b = beta``, factor ``1 - 1/beta``).
``h^-1`` maps a move of the weights back to the momentum that makes it: the identity (SGDM), ``e (1-b1^t) (sqrt(v/(1-b2^t)) +
eps)`` (Adam), ``|c| e`` (Lion, step ``sign(c)``), ``e (N^T N)^{1/2}`` or ``(N N^T)^{1/2} e``, whichever is smaller (Muon, step
``polar(N)``).

Evidence: SGDM and Adam as in public restatements of the paper's algorithms 2 and 3, checked here against master weights
(secondary); decay in the injection, Lion, Nesterov and Muon's shares (b = mu, a = mu^2): reconstructed. On a small network ECO
nearly closes the gap to master weights for SGDM and Adam under round-to-nearest; for Muon it helps little there, and with
stochastic rounding it is no better than rounding alone (Muon: worse).

A sign step has one size: where lr is below half a lattice step it never leaves its point under round-to-nearest, whatever the
momentum. Use stochastic rounding with Lion.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from visviva.errors import InputError
from visviva.optim import quantizer as quantizers
from visviva.optim.lion import KMap, LookAhead
from visviva.optim.moments import NOT_NEGATIVE, UNIT, Ema, HeavyBall, Nesterov, RmsDivide, SecondMoment
from visviva.optim.muon import Orthogonalize, Scale, shape_scale
from visviva.optim.optimizer import ChainOptimizer, named
from visviva.optim.quantizer import Exact, Quantizer
from visviva.optim.transform import Kept, Step, Transform
from visviva.optim.weights import Apply

StepMap = Literal["identity", "adam", "sign", "polar"]


@dataclass(frozen=True)
class ErrorFeedback(Transform):
    """Move the weights, round them with ``quantizer``, put the error into the state ``momentum``; takes the place of `Apply`.

    Fields: ``step_map`` h; ``enters``, ``stays``: the shares a and b; ``ratio``, ``shape``, ``blocks``: factors of the step
    beyond lr; ``beta2``, ``eps``: Adam's; ``exact``: also take last step's error out again, ``m <- m~ + e_prev/lr -
    e/(beta lr)``, which makes the weights q(master weights), for one state more (SGDM, constant lr); ``seed``: None rounds to
    nearest, a number stochastically. At lr 0 nothing moves and nothing is injected.
    """

    place: ClassVar = "weights"
    ranges: ClassVar = {"enters": (1e-12, 1.0), "stays": UNIT, "beta2": UNIT, "weight_decay": NOT_NEGATIVE, "eps": NOT_NEGATIVE}
    quantizer: Quantizer
    momentum: str = "exp_avg"
    step_map: StepMap = "identity"
    enters: float = 0.9
    stays: float = 0.9
    weight_decay: float = 0.0
    ratio: float = 1.0
    beta2: float = 0.0
    eps: float = 0.0
    shape: Any = "none"
    blocks: int = 1
    exact: bool = False
    seed: int | None = None

    def states(self) -> Mapping[str, Kept]:
        return {"rounding_error": Kept(moment=False)} if self.exact else {}

    def reads(self) -> tuple[str, ...]:
        return (self.momentum, "exp_avg_sq") if self.step_map == "adam" else (self.momentum,)

    def scalars(self, t: Any, lr: Any) -> Mapping[str, Any]:
        factor, rate = 1 - lr * self.weight_decay, lr * self.ratio
        safe = torch.where(rate > 0, 1 / rate, 0.0) if isinstance(rate, Tensor) else (1 / rate if rate > 0 else 0.0)
        inject = factor * safe / self.enters
        one = {"factor": factor, "inject": inject * (-1 if self.exact else self.stays - 1), "restore": inject * self.stays}
        adam = {"c1": 1 - self.stays**t, "c2": 1 - self.beta2**t, "eps": self.eps}
        return {**one, **adam, "a": self.enters, "b": self.stays, "step": t}

    def __call__(self, x: Step, **s: Tensor) -> None:
        target = x.p * s["factor"] - x.lr * x.u
        rounded = torch.where(x.lr > 0, self.quantizer(target, self.noise(x, s["step"])), x.p)
        error = target - rounded
        m = x.state[self.momentum] + s["inject"].to(error.dtype) * self.inverse(x, error, s)
        if self.exact:
            m = m + s["restore"].to(error.dtype) * x.state["rounding_error"]
            x.state["rounding_error"] = error
        x.p, x.state[self.momentum] = rounded, m

    def noise(self, x: Step, step: Tensor) -> Tensor | None:
        """Return None: single numbers are rounded to nearest."""
        return None

    def inverse(self, x: Step, e: Tensor, s: Mapping[str, Tensor]) -> Tensor:
        """Return the momentum that would move the weights by ``e`` in one step of rate 1."""
        if self.step_map == "adam":
            return s["c1"] * ((x.state["exp_avg_sq"] / s["c2"]).sqrt() + s["eps"]) * e
        if self.step_map == "sign":
            g, old = x.g, (x.state[self.momentum] - (1 - s["b"]) * x.g) / s["b"]
            return (s["a"] * old + (1 - s["a"]) * g).abs() * e
        return self.inverse_polar(x, e, s) if self.step_map == "polar" else e

    def inverse_polar(self, x: Step, e: Tensor, s: Mapping[str, Tensor]) -> Tensor:
        """Return ``e (N^T N)^{1/2} / scale`` (or from the left); the root is ``polar(N)^T N``, N what was orthogonalized."""
        k, rows, columns = x.p.shape
        m, look = x.state[self.momentum], s["a"] / s["b"]
        n = look * m + (1 - look) * x.g  # look = mu with Nesterov, 1 without
        n, u, e = (y.reshape(k * self.blocks, rows // self.blocks, columns) for y in (n, x.u, e))
        square = shape_scale(self.shape, *u.shape[1:]) ** 2
        root = u @ n.mT if u.shape[1] < u.shape[2] else u.mT @ n
        root = (root + root.mT) / (2 * square)
        return (root @ e if u.shape[1] < u.shape[2] else e @ root).reshape(k, rows, columns)


@dataclass(frozen=True)
class MatrixErrorFeedback(ErrorFeedback):
    """`ErrorFeedback` on matrices: for scales per tensor or row, for Muon, and for stochastic rounding."""

    batched: ClassVar = True

    def noise(self, x: Step, step: Tensor) -> Tensor | None:
        """Return the numbers of stochastic rounding, or None to round to nearest."""
        return None if self.seed is None else quantizers.noise(x.p, step, self.seed)


def with_feedback(
    chain: Sequence[Transform], quantizer: Quantizer, exact: bool = False, seed: int | None = None
) -> tuple[Transform, ...]:
    """Return a chain whose last step onto the weights is `ErrorFeedback`.

    Raises:
        InputError: the chain keeps no momentum, or has a step whose inverse is not known.
    """
    apply = [t for t in chain if isinstance(t, Apply)]
    if len(apply) != 1 or apply[0].decay != "pre" or apply[0].absolute or chain[-1] is not apply[0]:
        raise InputError(f"error feedback needs a chain that ends with Apply(decay='pre'), not {chain[-1]!r}; use another base")
    fields: dict[str, Any] = {"weight_decay": apply[0].weight_decay}
    for transform in chain[:-1]:
        fields |= _known(transform, fields)
    if fields.get("step_map") in ("sign", "polar") and any(isinstance(t, HeavyBall) for t in chain):
        raise InputError(f"the {fields['step_map']} of an undamped momentum has no known inverse here; use Ema or LookAhead")
    if "momentum" not in fields:
        raise InputError("error feedback puts the error into the momentum, and this chain keeps none; set momentum > 0")
    if exact and fields.get("step_map", "identity") != "identity":
        raise InputError(f"exact=True is exact for SGDM alone, not for a step of kind {fields['step_map']!r}; leave it out")
    flat = quantizer.elementwise and seed is None and fields.get("step_map") != "polar"
    kind = ErrorFeedback if flat else MatrixErrorFeedback
    return (*chain[:-1], kind(quantizer, exact=exact, seed=seed, **fields))


def _known(link: Transform, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return what one transform of a chain tells about the step."""
    if isinstance(link, HeavyBall):
        return {"momentum": link.name, "enters": link.momentum ** (2 if link.nesterov else 1), "stays": link.momentum}
    if isinstance(link, Ema) and not link.copy_first:
        return {"momentum": link.name, "enters": link.beta, "stays": link.beta}
    if isinstance(link, LookAhead):
        return {"momentum": "exp_avg", "enters": link.beta1, "stays": link.beta2}
    if isinstance(link, Nesterov):
        return {"enters": fields["enters"] * link.beta}
    if isinstance(link, SecondMoment) and link.of == "gradient":
        return {"beta2": link.beta}
    if isinstance(link, RmsDivide) and link.eps_mode == "after_bias":
        return {"step_map": "adam", "eps": link.eps}
    if isinstance(link, KMap) and link.kind in ("sign", "identity"):
        return {"step_map": "sign"} if link.kind == "sign" else {}
    if isinstance(link, Orthogonalize):
        return {"step_map": "polar", "shape": link.scale, "blocks": link.blocks}
    if isinstance(link, Scale):
        return {"ratio": fields.get("ratio", 1.0) * link.factor}
    if link.place == "gradient":
        return {}
    raise InputError(f"the step of {link!r} has no known inverse; error feedback takes SGDM, AdamW, Lion and Muon chains")


class Feedback(NamedTuple):
    """What `with_feedback` takes besides the chain."""

    quantizer: Quantizer
    exact: bool
    seed: int | None


def eco(
    base: type[ChainOptimizer],
    params: Any,
    quantizer: Quantizer,
    *,
    exact: bool = False,
    stochastic: bool = False,
    seed: int = 0,
    **options: Any,
) -> ChainOptimizer:
    """Return an optimizer of class ``base`` that keeps its weights on the lattice of a quantizer, without master weights.

    Args:
        base: `SGDM`, `AdamW`, `Lion` or `Muon` (or any chain made of their transforms).
        params, options: of ``base``.
        quantizer: `FP8`, `Int`, `Lattice`, or `Exact` (changes nothing). Scales are per tensor, row or block of weights.
        exact: keep the last error too, so that the weights are those of a run with master weights (SGDM, constant lr).
        stochastic: round up or down at random, right on average; the numbers depend on ``seed`` and the step alone.

    The weights are on the lattice from the first step with lr > 0 on. Weights in bfloat16 need ``scale="power_of_two"``.

    Example::

        optimizer = eco(AdamW, model.parameters(), FP8(scale="power_of_two"), lr=1e-4)
    """
    kind: Any = base
    return compensated(kind)(params, Feedback(quantizer, exact, seed if stochastic else None), **options)


@functools.cache
def compensated(base: Any) -> Any:
    """Return the subclass of an optimizer's class that takes a `Feedback` after the parameters."""

    class ECO(base):  # type: ignore[misc, valid-type]
        COPIED = (*base.COPIED, "feedback")

        def __init__(self, params: Any, feedback: Feedback, **options: Any) -> None:
            self.feedback = feedback
            super().__init__(params, **options)

        def chain(self, group: Mapping[str, Any], kind: str = "") -> tuple[Transform, ...]:
            """Return the base's chain with error feedback in place of its last step."""
            return with_feedback(super().chain(group, kind), *self.feedback)

        def add_param_group(self, param_group: dict[str, Any]) -> None:
            """Add a group of parameters whose dtype holds the lattice."""
            super().add_param_group(param_group)
            for name, parameter in named(self.param_groups[-1]):
                _refuse_narrow(name, parameter, self.feedback.quantizer)

        def __reduce__(self) -> tuple[Any, ...]:
            """Copy and pickle by the base's name: this class has none that could be looked up."""
            return _blank, (base,), self.__getstate__()

    return ECO


def _blank(base: Any) -> ChainOptimizer:
    kind = compensated(base)
    return kind.__new__(kind)


def _refuse_narrow(name: str, parameter: Tensor, quantizer: Quantizer) -> None:
    if not isinstance(quantizer, Exact) and not quantizer.held_by(parameter.dtype):
        raise InputError(
            f"parameter {name} is {parameter.dtype}, which cannot hold the points of {quantizer!r}; keep it in float32, or in "
            "bfloat16 with FP8 or Int and scale='power_of_two'"
        )
