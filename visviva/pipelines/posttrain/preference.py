"""Preference losses of flow matching: Diffusion-DPO and the groupwise PhyGDPO, from velocity errors of policy and reference.

With l the mean squared velocity error of a clip under the policy, l_ref under the frozen reference, one noise level each, and
``delta = l - l_ref`` (negative where the policy has learned to like the clip):

- **DPO** in its flow form: ``-log sigmoid(-beta / 2 (delta_w - delta_l))`` (arXiv 2311.12908; velocities instead of noise, and
  winner and loser share noise and noise level).
- **PhyGDPO** (arXiv 2512.24551 v4): a real winner among m losers by Plackett-Luce, of which Jensen and a decoupling inequality
  leave one pair: ``-m gamma log sigmoid(-alpha beta (delta_w - delta_l))``, alpha and gamma by how hard the loser's physics is
  (`PhysicsWeights`). The bound that makes this an upper bound of the group's loss needs ``gamma >= 1 / alpha``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from visviva.errors import InputError


@dataclass(frozen=True)
class PhysicsWeights:
    """Constants of the physics-guided weights, as in the paper (its released code uses others; see docs/papers.md).

    Attributes:
        least, steepness, middle: of alpha: its infimum, and slope and centre of its sigmoid over difficulty.
        gamma_steepness, gamma_middle, gain: of gamma: slope and centre of its sigmoid, and how much it grows.

    Raises:
        InputError: constants for which the bound does not hold.
    """

    least: float = 0.5
    steepness: float = 5.0
    middle: float = 0.5
    gamma_steepness: float = 2.0
    gamma_middle: float = 0.4
    gain: float = 0.6

    def __post_init__(self) -> None:
        """Refuse what breaks gamma >= 1 / alpha or makes weights fall with difficulty."""
        if not 0 < self.least <= 1 or self.gain < 0 or self.steepness < 0 or self.gamma_steepness < 0:
            raise InputError(
                f"physics weights with least {self.least}, gain {self.gain}; least must lie in (0, 1], the others be 0 or more"
            )

    def __call__(
        self, semantic: Float[Tensor, " B"], physics: Float[Tensor, " B"]
    ) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        """Return alpha and gamma of losers with these scores in [0, 1]; the lower the scores, the more they count.

        ``v = 1 - (s_sa + s_pc) / 2``; ``alpha = a + (1 - a) sigmoid(k (v - b))``; ``gamma = (1 + lambda sigmoid(..)) / a``.

        Example: at v = 0, 1/2, 1 the defaults give alpha .54, .75, .96 and gamma 2.37, 2.66, 2.92.
        """
        v = 1 - (semantic + physics) / 2
        if not bool(((v >= -1e-6) & (v <= 1 + 1e-6)).all()):
            raise InputError(f"scores between {float(v.min()):g} and {float(v.max()):g} away from 1; give them in [0, 1]")
        alpha = self.least + (1 - self.least) * torch.sigmoid(self.steepness * (v - self.middle))
        gamma = (1 + self.gain * torch.sigmoid(self.gamma_steepness * (v - self.gamma_middle))) / self.least
        return alpha, gamma


def dpo(
    winner: Float[Tensor, " B"],
    loser: Float[Tensor, " B"],
    winner_reference: Float[Tensor, " B"],
    loser_reference: Float[Tensor, " B"],
    beta: float,
    alpha: Float[Tensor, " B"] | float = 0.5,
    gamma: Float[Tensor, " B"] | float = 1.0,
    losers: int = 1,
) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """Return the loss of each pair and its margin ``-alpha beta (delta_w - delta_l)``, positive where the policy is right.

    Args:
        winner, loser: velocity errors of the policy, means over numbers; with gradient.
        winner_reference, loser_reference: of the frozen reference, without.
        beta: how strongly the policy is held to the reference; 5000 on element means (Diffusion-DPO), 1000 (PhyGDPO's scripts).
        alpha, gamma, losers: 1/2, 1 and 1 are Diffusion-DPO; `PhysicsWeights` and m are PhyGDPO.

    The margin's overflow is harmless: `logsigmoid` is linear there.
    """
    if beta <= 0:
        raise InputError(f"beta {beta}; give a positive number")
    apart = (winner - winner_reference) - (loser - loser_reference)
    margin = -alpha * beta * apart
    return -losers * gamma * logsigmoid(margin), margin
