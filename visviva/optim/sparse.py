"""Sparse momentum: averages are kept for, and steps taken by, a random share of the weights, drawn anew every period (SPAM)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from visviva.errors import InputError
from visviva.optim.arena import Segment
from visviva.optim.rounding import seeded
from visviva.optim.transform import Kept, Step, Transform, check, check_whole


@dataclass(frozen=True)
class SparseMomentum(Transform):
    """The engine holds ``density`` of every tensor's weights in a compact arena: fewer states, and the others stand still.

    The places are drawn without replacement (SPAM's code draws each with probability ``density``) at the first step and
    whenever ``t`` is a multiple of ``period``; they are the state ``chosen`` (int32), so that a resumed run goes on exactly.
    What is saved is memory, not bandwidth: scattered reads touch most cache lines of the weights anyway.
    """

    place: ClassVar = "gradient"
    capturable: ClassVar = False
    density: float = 0.5
    period: int = 500
    seed: int = 0

    def __post_init__(self) -> None:
        check("SparseMomentum.density", self.density, 1e-12, 1.0 + 1e-12)
        check_whole("SparseMomentum.period", self.period)

    def states(self) -> Mapping[str, Kept]:
        return {"chosen": Kept("choice", moment=False)}

    def __call__(self, x: Step) -> None:  # type: ignore[override]
        """Leave the step as it is: what x holds is compact already."""


def rule_of(chain: Sequence[Transform]) -> SparseMomentum | None:
    """Return the sparse momentum of a chain, or None."""
    return next((t for t in chain if isinstance(t, SparseMomentum)), None)


def refuse_other_density(
    rule: SparseMomentum | None, parameters: Sequence[Tensor], states: Mapping[Tensor, Mapping[str, Any]]
) -> None:
    """Raise an `InputError` where states are of another share of the weights than the rule says."""
    for parameter in parameters:
        known = states[parameter].get("chosen")
        kept = parameter.numel() if known is None else known.numel()
        wanted = math.ceil((rule.density if rule else 1.0) * parameter.numel())
        if states[parameter] and (kept != wanted or (known is None) != (rule is None)):
            raise _changed(kept / max(parameter.numel(), 1), rule)


def _changed(share: float, rule: SparseMomentum | None) -> InputError:
    return InputError(
        f"the density of sparse momentum is {rule.density if rule else 1.0:g}, but the states hold {share:.3g} of the weights; "
        "it cannot change in the middle of a run: keep it, or build a new optimizer"
    )


class SparseSegment(Segment):
    """A segment that holds the chosen entries of its parameters only; arguments as `Segment`.

    ``current`` returns the rule of choice; another period or seed acts from the next step on, another density is refused.
    """

    def __init__(self, current: Callable[[], SparseMomentum | None], *arguments: Any, **options: Any) -> None:
        self.current, self.rule = current, current() or SparseMomentum(1.0)
        super().__init__(*arguments, **options)

    def entries(self, size: int) -> int:
        """Return how many numbers of a tensor of ``size`` the segment holds."""
        return math.ceil(self.rule.density * size)

    def _take_weights(self) -> None:
        for parameter in self.parameters:
            if isinstance(parameter, DTensor) or not parameter.is_contiguous():
                raise InputError(
                    f"sparse momentum takes whole, contiguous weights; a parameter of shape {tuple(parameter.shape)} is not"
                )
        self.views = [self.p[piece] for _, piece in self._pairs()]
        self.g_views = [self.g[piece] for _, piece in self._pairs()]

    def _view(self, bucket: Any, name: str, i: int, parameter: Tensor, piece: slice) -> Tensor:
        if self.kept[name].kind == "weight":
            return self.state[name][piece]
        return super()._view(bucket, name, i, parameter, piece)

    def gather(self) -> Tensor:
        """Draw where it is time, and copy the chosen gradients and weights in."""
        rule = self.current()
        if rule is None or rule.density != self.rule.density:
            raise _changed(self.rule.density, rule)
        self.rule = rule
        if self.t == 0 or (self.t + 1) % self.rule.period == 0:
            self._draw()
        places = self._places()
        for parameter, gradient, at, p, g in zip(
            self.parameters, self.gradients, places, self.views, self.g_views, strict=True
        ):
            p.copy_(parameter.detach().view(-1)[at])
            g.copy_(gradient.reshape(-1)[at])
        self.gradients = []
        return self.g

    def scatter(self) -> None:
        """Copy the moved weights back."""
        for parameter, at, p in zip(self.parameters, self._places(), self.views, strict=True):
            parameter.detach().view(-1)[at] = p

    def _places(self) -> list[Tensor]:
        chosen = torch.empty(0, dtype=torch.int32) if self.chosen is None else self.chosen
        return [chosen[piece].long() for _, piece in self._pairs()]

    def _draw(self) -> None:
        generator = seeded(self.device, self.rule.seed, self.t)
        for bucket in self.buckets:
            size = bucket.members[0].numel()
            order = torch.rand(len(bucket.members), size, device=self.device, generator=generator).argsort(1)
            for own, piece in zip(order, bucket.pieces(), strict=True):
                if self.chosen is not None:
                    self.chosen[piece] = own[: bucket.size].sort().values.int()
