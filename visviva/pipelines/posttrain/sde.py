"""Rectified flow sampled as a stochastic differential equation with the same marginals: what GRPO explores and scores with.

With sigma the noise level, v = noise - clean and ``x + (1 - sigma) v`` the noise that v implies, the score is minus that noise
over sigma, and for any rate g

    mean = x + [v + g^2 / (2 sigma) (x + (1 - sigma) v)] (sigma' - sigma)        std = g sqrt(sigma - sigma')

keeps the marginals of the flow as steps get small. Two rates are published:

- ``flow_grpo``: g = a sqrt(sigma / (1 - sigma)), at sigma = 1 with the next level below it; a = 0.7 (arXiv 2505.05470).
- ``dance_grpo``: g = eta, constant; eta = 0.25 (arXiv 2505.07818).

The step to sigma = 0 is the flow's own, without noise, in both (DanceGRPO never trains it; Flow-GRPO trains 99 % of the steps).
Everything is float32: bfloat16 overflows the log-probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError

RATES = {"flow_grpo": 0.7, "dance_grpo": 0.25}
"""Which stochastic samplers there are, and their published strength of noise."""


def rate(kind: str, sigma: float, following: float, strength: float | None = None) -> float:
    """Return g of the step from ``sigma`` to the level ``following``; 0 for the step to 0.

    Raises:
        InputError: an unknown kind, or a strength that is negative or not finite.
    """
    if kind not in RATES:
        raise InputError(f"no stochastic sampler {kind!r}; there are {', '.join(RATES)}")
    strength = RATES[kind] if strength is None else strength
    if not 0 <= strength < math.inf:
        raise InputError(f"sde strength {strength}; give a finite number of 0 or more")
    if following <= 0:
        return 0.0
    if kind == "dance_grpo":
        return strength
    return strength * math.sqrt(sigma / (1 - (sigma if sigma < 1 else following)))


@dataclass(frozen=True)
class Step:
    """One step of the sampler, given the velocity: a Gaussian, or a point where ``std`` is 0.

    Attributes:
        sigma, following: noise levels before and after.
        rate: g.
    """

    sigma: float
    following: float
    rate: float

    @property
    def std(self) -> float:
        """Standard deviation of what is reached, of each number."""
        return self.rate * math.sqrt(self.sigma - self.following)

    def mean(self, x: Float[Tensor, "B *D"], v: Float[Tensor, "B *D"]) -> Float[Tensor, "B *D"]:
        """Return the mean of what is reached from x with the velocity v."""
        drift = v.float()
        if self.rate:
            drift = drift + self.rate**2 / (2 * self.sigma) * (x + (1 - self.sigma) * drift)
        return x + drift * (self.following - self.sigma)

    def log_probability(
        self, mean: Float[Tensor, "B *D"], reached: Float[Tensor, "B *D"], weight: Float[Tensor, "..."] | None = None
    ) -> Float[Tensor, " B"]:
        """Return the Gaussian log-density of what was reached, *averaged* over its numbers (as both papers do).

        ``weight``: 1 where numbers were free and 0 where a first frame holds them; None: all are free.
        """
        if not self.std:
            raise InputError("a step without noise has no probability; train the others")
        each = -((reached - mean) / self.std).square() / 2 - math.log(self.std) - math.log(2 * math.pi) / 2
        if weight is None:
            return each.flatten(1).mean(1)
        return (each * weight).flatten(1).sum(1) / weight.expand_as(each).flatten(1).sum(1).clamp(min=1)


def steps(levels: Sequence[float], kind: str, strength: float | None = None) -> list[Step]:
    """Return the steps of a sampler over descending noise levels, the last of which is 0.

    Example::

        steps(sigmas(10, shift=3.0).tolist(), "flow_grpo")
    """
    if len(levels) < 3 or levels[-1] != 0 or any(a <= b for a, b in pairwise(levels)):
        raise InputError(f"noise levels {list(levels)[:4]}... ; give three or more that fall to 0")
    return [Step(sigma, following, rate(kind, sigma, following, strength)) for sigma, following in pairwise(levels)]


def advantages(reward: Float[Tensor, "G M"], limit: float = 5.0, eps: float = 1e-4) -> Float[Tensor, "G M"]:
    """Return each member's reward less its group's mean, over the group's standard deviation, at most ``limit`` in size.

    Groups whose rewards are all equal, or of which one is not finite, teach nothing: 0.

    Raises:
        InputError: groups of one.
    """
    if reward.shape[1] < 2:
        raise InputError("a group of one clip has nothing to be compared with; give grpo.group of 2 or more")
    centred = reward - reward.mean(1, keepdim=True)
    spread = reward.std(1, keepdim=True)
    told = torch.isfinite(spread) & (spread > 1e-8)
    return torch.where(told, (centred / (spread + eps)).clamp(-limit, limit), 0.0)


def clipped(
    advantage: Float[Tensor, " B"], now: Float[Tensor, " B"], before: Float[Tensor, " B"], clip: float
) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """Return PPO's clipped loss ``max(-A r, -A clip(r, 1 - c, 1 + c))`` and the ratio r of probabilities.

    The log-probabilities are means over a clip's numbers, so r stays within 1e-4 or so of 1 and ``clip`` is as small.
    """
    ratio = (now - before).exp()
    return torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - clip, 1 + clip)), ratio
