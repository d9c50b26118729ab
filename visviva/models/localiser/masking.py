"""Which windows the student does not see: random ones, the least and the most attended (MHIM-MIL, arXiv 2307.15254, 3.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from visviva.errors import InputError


@dataclass(frozen=True)
class Masking:
    """Shares of a bag that are hidden from the student; the union of the three sets is hidden.

    Attributes:
        random: share drawn uniformly.
        low: share with the lowest attention.
        high: share with the highest attention, the easy windows: falls to 0 over the training by a cosine where ``falling``.
        high_drawn: the ``high`` share is drawn at random from the top ``high / high_drawn``; 1 hides exactly the top.
        falling: whether ``high`` falls.

    Raises:
        InputError: a share outside [0, 1], or ``high_drawn`` outside (0, 1].

    Example::

        Masking(random=0.5, high=0.05).hide(attention, there, generator)  # True where hidden
    """

    random: float = 0.0
    low: float = 0.0
    high: float = 0.0
    high_drawn: float = 1.0
    falling: bool = False

    def __post_init__(self) -> None:
        """Refuse shares that are none."""
        for name in ("random", "low", "high"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise InputError(f"{name} = {value} is not a share of a bag; give a number from 0 to 1")
        if not 0.0 < self.high_drawn <= 1.0:
            raise InputError(f"high_drawn = {self.high_drawn} must be above 0 and at most 1")

    @property
    def hides(self) -> bool:
        """Whether anything is hidden at all."""
        return max(self.random, self.low, self.high) > 0

    def hide(
        self,
        attention: Float[Tensor, "B N"],
        there: Bool[Tensor, "B N"],
        generator: torch.Generator | None = None,
        progress: float = 0.0,
    ) -> Bool[Tensor, "B N"]:
        """Return which windows are hidden, True = hidden, at ``progress`` in [0, 1] of the training.

        Each set holds ``floor(share x windows)`` of a bag's windows, ``high`` at least one where its share is positive.
        Where the union would hide a whole bag, its least attended window stays (what is easy is hidden first).
        """
        count = there.sum(1)
        high = self.high * (0.5 * (1 + math.cos(math.pi * progress)) if self.falling else 1.0)

        def draw() -> Tensor:
            return torch.rand(attention.shape, generator=generator).to(attention.device)

        few = (high * count).floor().clamp(min=1 if high > 0 else 0)
        wide = (few / self.high_drawn).ceil()
        top = highest(attention, there, wide)
        hidden = highest(draw(), there, (self.random * count).floor())
        hidden = hidden | highest(-attention, there, (self.low * count).floor())
        hidden = hidden | highest(draw(), top, few)
        spared = highest(-attention, there, torch.ones_like(count))
        whole = (hidden | ~there).all(1, keepdim=True)
        return hidden & ~(whole & spared)


def highest(score: Float[Tensor, "B N"], among: Bool[Tensor, "B N"], count: Tensor) -> Bool[Tensor, "B N"]:
    """Return True at the ``count`` (B,) highest scores of each row among the given ones (fewer where there are fewer)."""
    order = score.masked_fill(~among, -torch.inf).argsort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(1, order, torch.arange(score.shape[1], device=score.device).expand_as(order))
    return (rank < count[:, None]) & among
