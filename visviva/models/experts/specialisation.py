"""Do experts specialise on phenomena? Purity, the best one-to-one assignment, information, and all three by chance.

Chance is measured: phenomena are shuffled among the clips, so that tokens of one clip stay together, which is what makes
numbers of few clips look better than they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from visviva.errors import InputError


@dataclass(frozen=True)
class Specialisation:
    """How well the first expert of samples tells their phenomenon.

    Attributes:
        purity: share of samples whose phenomenon is the most frequent one of their expert; assigned: the same with at most
            one expert for each phenomenon and the other way round, the best such assignment.
        bits: mutual information of expert and phenomenon [bits]; entropy: that of the phenomena, its upper end.
        shuffled_purity, shuffled_assigned, shuffled_bits: 97.5 % quantiles with phenomena shuffled among clips.
        mean_bits: mean information when shuffled.
        samples, clips: how many there are.
    """

    purity: float
    assigned: float
    bits: float
    entropy: float
    shuffled_purity: float
    shuffled_assigned: float
    shuffled_bits: float
    mean_bits: float
    samples: int
    clips: int


def specialisation(
    chosen: Int[Tensor, "n"],
    phenomenon: Int[Tensor, "n"],
    clip: Int[Tensor, "n"] | None = None,
    shuffles: int = 500,
    seed: int = 0,
) -> Specialisation:
    """Return how experts specialise.

    Args:
        chosen: first expert of each sample (clip or token); ``phenomenon``: its true kind, one and the same within a clip.
        clip: number of the clip that a sample is of; None: each is its own.
        shuffles: permutations of the phenomena among clips.

    Raises:
        InputError: no samples, or a clip of two phenomena.

    Example::

        found = specialisation(parts[0].semantic.weights.argmax(1), primitive)
        found.purity, found.bits, found.shuffled_bits
    """
    if len(chosen) == 0:
        raise InputError("no samples to judge routing by; give clips, and tokens that show something")
    clip = torch.arange(len(chosen)) if clip is None else torch.unique(clip, return_inverse=True)[1]
    count, experts = int(clip.max()) + 1, int(chosen.max()) + 1
    kinds = torch.zeros(count, dtype=torch.long).scatter(0, clip, phenomenon.long())
    if not torch.equal(kinds[clip], phenomenon.long()):
        raise InputError("a clip of two phenomena; shuffling keeps clips whole: give its parts clip numbers of their own")
    votes = torch.zeros(count, experts, dtype=torch.float64)  # samples of each clip by expert
    votes.index_put_((clip, chosen.long()), torch.ones(len(chosen), dtype=torch.float64), accumulate=True)
    make = torch.Generator().manual_seed(seed)
    drawn = [_told(votes, kinds[torch.randperm(count, generator=make)]) for _ in range(shuffles)]
    chance = torch.tensor(drawn, dtype=torch.float64)
    high = chance.quantile(0.975, dim=0).tolist() if shuffles else [math.nan] * 3
    own = torch.bincount(phenomenon.long()).double() / len(phenomenon)
    entropy = float(-torch.special.xlogy(own, own).sum()) / math.log(2.0)
    mean = float(chance[:, 2].mean()) if shuffles else math.nan
    return Specialisation(*_told(votes, kinds), entropy, high[0], high[1], high[2], mean, len(chosen), count)


def _told(votes: Tensor, kinds: Tensor) -> tuple[float, float, float]:
    """Purity, best one-to-one assignment and bits of votes (clips, experts) for kinds (clips,)."""
    from scipy.optimize import linear_sum_assignment

    joint = torch.zeros(votes.shape[1], int(kinds.max()) + 1, dtype=torch.float64).index_add(1, kinds, votes.T) / votes.sum()
    apart = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    bits = (torch.special.xlogy(joint, joint) - torch.special.xlogy(joint, apart)).sum() / math.log(2.0)
    rows, columns = linear_sum_assignment(joint.numpy(), maximize=True)
    return float(joint.amax(1).sum()), float(joint[rows, columns].sum()), max(float(bits), 0.0)
