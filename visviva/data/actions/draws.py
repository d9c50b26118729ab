"""What varies from clip to clip: numbers drawn for each clip, and the words that say them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Draws:
    """Random numbers for B clips of one action.

    Attributes:
        tempo: how fast it is done: times are divided by it, (B,).
        size: stature over 1.70 m, (B,).
        generator: where further numbers come from.
    """

    tempo: Tensor
    size: Tensor
    generator: torch.Generator

    def uniform(self, low: float, high: float) -> Float[Tensor, " B"]:
        """Return evenly distributed numbers."""
        return low + (high - low) * torch.rand(len(self.tempo), generator=self.generator, dtype=torch.float64)

    def sign(self, share: float = 0.5) -> Float[Tensor, " B"]:
        """Return 1 with this probability, else -1."""
        return torch.where(self.uniform(0, 1) < share, 1.0, -1.0).double()

    def one(self, choices: Sequence[str]) -> list[str]:
        """Return one of the words for each clip."""
        return [choices[int(k)] for k in self.uniform(0, len(choices) - 1e-9)]

    def starts(self, low: float = 0.1, high: float = 0.5) -> Float[Tensor, " B"]:
        """Return when the first event begins [s]."""
        return self.uniform(low, high)


PEOPLE = ("a person", "someone", "a man", "a woman", "the person", "a figure", "this person")
SLOW = ("slowly", "at a slow pace", "without haste")
FAST = ("quickly", "fast", "rapidly", "at a high pace")
EVEN = ("", "", "", "at a normal pace", "at a medium speed")


def said(draws: Draws, phrases: Sequence[Sequence[str]], details: Sequence[Sequence[str]] | None = None) -> list[str]:
    """Return one sentence for each clip: who, what, how, how fast.

    Args:
        phrases: for each clip, ways to say what is done.
        details: for each clip, what else is to be said; all of it is, in any order.
    """
    who = draws.one(PEOPLE)
    picks, order = draws.uniform(0, 1).tolist(), draws.uniform(0, 1).tolist()
    pace = [draws.one(words) for words in (SLOW, EVEN, FAST)]
    found = []
    for i, tempo in enumerate(draws.tempo.tolist()):
        phrase = phrases[i][int(picks[i] * len(phrases[i]))]
        speed = pace[0 if tempo < 0.88 else 2 if tempo > 1.18 else 1][i]
        more = [detail for detail in (details[i] if details else []) if detail]
        parts = [phrase, *more, speed] if order[i] < 0.6 else [phrase, speed, *more]
        found.append(" ".join([who[i], *(part for part in parts if part)]))
    return found


def side(sign: float) -> str:
    """Return ``left`` for positive numbers."""
    return "left" if sign > 0 else "right"
