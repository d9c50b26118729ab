"""What an optimizer is made of: a transform turns gradient into update; a chain of transforms is an optimizer.

A transform is a frozen object with hyper-parameters. It is called with a `Step`, reads what it needs (weights ``p``, gradient
``g``, the update so far ``u``, its state), and assigns what it changes; it never writes in place. The same code runs eagerly
and compiled, on one long vector or on a batch of matrices:

- an *elementwise* transform (the default) sees flat vectors that hold many parameters end to end;
- a *batched* one (``batched = True``) sees parameters of one shape as ``[k, rows, columns]``: vectors have one row,
  convolutions are flattened to ``[out, rest]``; it may reduce over rows, columns or whole tensors.

Numbers that change between steps (learning rate, bias corrections, flags) come from `Transform.scalars` as keyword arguments,
0-d tensors when the transform runs, so that nothing is compiled twice: a ``float`` field must not be used in ``__call__``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from visviva.errors import InputError

Kind = Literal["weight", "tensor", "row", "column", "rows", "columns", "choice"]
"""What a state holds: a number per weight, per tensor, per row, per column, a rows x rows or a columns x columns matrix; or the
places of the weights that a sparse segment has chosen."""

Place = Literal["gradient", "update", "weights"]
"""Where an extra transform goes: before the chain, directly before the weights move, or after they have moved."""


@dataclass(frozen=True)
class Kept:
    """A state of a transform: ``kind``, its first value (``identity`` for matrices), whether it is an average that a
    momentum reset clears, and whether it is one of squares (what eight bits must not round to zero)."""

    kind: Kind = "weight"
    init: float | Literal["identity"] = 0.0
    moment: bool = True
    square: bool = False


@dataclass
class Step:
    """What a transform sees of one step.

    Attributes:
        p, g, u: weights, gradient and update so far (the gradient at first), float32 at least.
        state: the states of the whole chain by name.
        lr: learning rate.
        notes: what earlier transforms of the same stage leave for later ones (bias corrections, denominators).
        ndim: dimensions of the parameters (batched transforms only).
        moments: names of the averages among the states (what a momentum reset clears).
        t: step count from 1 for batched transforms, which may branch on it; None while a CUDA graph is captured.
        measured: sums over all parameters of the optimizer that `Transform.measure` asked for.
    """

    p: Tensor
    g: Tensor
    u: Tensor
    state: dict[str, Tensor]
    lr: Tensor
    notes: dict[str, Tensor] = field(default_factory=dict)
    ndim: int = 0
    measured: Any = None
    moments: tuple[str, ...] = ()
    t: Any = None


class Transform:
    """One link of a chain; subclasses are frozen dataclasses.

    Class attributes:
        place: where `extra` transforms are put.
        batched: sees ``[k, rows, columns]`` instead of flat vectors.
        fuses: a batched transform of elementwise operations and reductions, compiled together with its neighbours; without
            it (matrix products, sorts) it runs by itself, uncompiled.
        measures: `measure` is called first; its results, summed (or ``combine = "max"``) over all parameters, are in
            ``Step.measured``.
        decays: changes the weights before the last link does; what follows joins its stage, so that weights are rounded once.
        restarts: sees the step count that a reset restarts (`clock`); False: the number of steps done, whatever was reset.
        capturable: works with a step count that is a device tensor (CUDA graphs).
        ranges: allowed values by field, ``(low, high)``, low included, high excluded (infinity included).
    """

    place: ClassVar[Place] = "update"
    batched: ClassVar[bool] = False
    fuses: ClassVar[bool] = False
    measures: ClassVar[bool] = False
    combine: ClassVar[Literal["sum", "max"]] = "sum"
    decays: ClassVar[bool] = False
    restarts: ClassVar[bool] = True
    capturable: ClassVar[bool] = True
    ranges: ClassVar[Mapping[str, tuple[float, float]]] = {}

    def __post_init__(self) -> None:
        for name, (low, high) in self.ranges.items():
            check(f"{type(self).__name__}.{name}", getattr(self, name), low, high)

    def states(self) -> Mapping[str, Kept]:
        """Return the states that this transform keeps, by name."""
        return {}

    def reads(self) -> tuple[str, ...]:
        """Return states of other transforms that must be in the chain."""
        return ()

    def clock(self, t: Any) -> Any:
        """Return the step count that the other transforms of the chain shall see (restarted after a reset)."""
        return t

    def scalars(self, t: Any, lr: Any) -> Mapping[str, Any]:
        """Return this step's numbers; ``t`` counts from 1 and is a float, or a 0-d tensor while a CUDA graph is captured."""
        return {}

    def measure(self, x: Step) -> Tensor:
        """Return a vector of sums (or maxima) over the weights of ``x``; the engine combines those of all parameters."""
        raise NotImplementedError

    def __call__(self, x: Step, **scalars: Tensor) -> None:
        """Change ``x``."""
        raise NotImplementedError

    def compiles(self, t: float | None) -> bool:
        """Return whether the transform may be compiled at step ``t``; one program must do for all such steps."""
        return self.fuses or not self.batched

    def structure(self) -> tuple[Any, ...]:
        """Return everything about this transform that changes the program, not only its numbers."""
        values = (getattr(self, f.name) for f in fields(self))  # type: ignore[arg-type]
        return (type(self), *(None if isinstance(v, float) else v for v in values))


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Return the inner product of two tensors, flat or not."""
    return torch.dot(a, b) if a.ndim == 1 else (a * b).sum()


def flag(condition: Any) -> Any:
    """Return 1 or 0, in double precision also where the condition is a tensor."""
    return condition.double() if isinstance(condition, Tensor) else float(condition)


def choose(name: str, value: Any, *allowed: str) -> Any:
    """Return ``value``, or raise an `InputError` where it is none of the allowed words."""
    if value not in allowed:
        raise InputError(f"{name} is {value!r}; allowed are {', '.join(allowed)}")
    return value


def check_whole(name: str, value: Any, low: int = 1) -> None:
    """Raise an `InputError` unless ``value`` is a whole number from ``low`` on."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1 or value < low:
        raise InputError(f"{name} is {value!r}; allowed is a whole number from {low} on")


def check(name: str, value: Any, low: float, high: float) -> None:
    """Raise an `InputError` unless ``low <= value < high`` (``high`` infinite: any finite value)."""
    if not isinstance(value, int | float) or not math.isfinite(value) or not low <= value < high:
        bound = f"{low:g} <= value" + (f" < {high:g}" if math.isfinite(high) else ", finite")
        raise InputError(f"{name} is {value!r}; allowed is {bound}")
