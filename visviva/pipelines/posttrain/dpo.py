"""Preference tuning of a video model: true clips as winners, generated ones as losers, the frozen base as reference.

`visviva.pipelines.posttrain.preference` has the losses and their sources. Winner and loser share noise and noise level; the
reference is the model with its adapters switched off (`visviva.pipelines.posttrain.reference`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import fields

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.configs import posttrain as settings
from visviva.errors import InputError, closest
from visviva.pipelines.posttrain.batch import Batch
from visviva.pipelines.posttrain.plan import key
from visviva.pipelines.posttrain.preference import PhysicsWeights, dpo
from visviva.pipelines.posttrain.rollout import precision
from visviva.pipelines.posttrain.sft import Outcome, Sft


class Preference:
    """The preference objective: a batch of pairs in, the loss of each and what to log out.

    Args:
        sft: draws noise levels and knows the backbone.
        preference: settings.
        reference: context in which the backbone is the frozen reference.
        guided: PhyGDPO's groups and physics-guided weights; otherwise Diffusion-DPO.

    Logs ``accuracy`` (share of pairs that the policy orders right), ``margin``, and how far the errors of winners and losers
    have moved from the reference's: a winner's error that *rises* is likelihood displacement.
    """

    def __init__(
        self, sft: Sft, preference: settings.Preference, reference: Callable[[], AbstractContextManager[None]], guided: bool
    ) -> None:
        self.sft, self.settings, self.reference, self.guided = sft, preference, reference, guided
        self.weights = _weights(preference.weights) if guided else None
        self.beta = preference.beta or (1000.0 if guided else 5000.0)

    def __call__(self, batch: Batch, base: Tensor | None = None, checked: bool = False) -> Outcome:
        """Return the loss per pair (B,) and the logged numbers (B,) by name; nothing is generated, so nothing is checked."""
        if batch.latents is None or batch.losers is None:
            raise InputError("preference tuning needs pairs: rows with 'losers' beside their video (see docs/posttraining.md)")
        sigma = self.sft.levels(batch.keys, tuple(batch.noise.shape)).to(batch.noise.device)
        count = batch.losers.shape[1]
        picked = [int(torch.randint(count, (), generator=_generator(k))) for k in batch.keys]
        loser = batch.losers[torch.arange(len(batch)), picked]
        with self.reference():  # first: it may swap weights in place, which a graph of the policy would not survive
            right_base, wrong_base = self.error(batch.latents, batch, sigma), self.error(loser, batch, sigma)
        right, wrong = self.error(batch.latents, batch, sigma), self.error(loser, batch, sigma)
        if self.weights is None:
            loss, margin = dpo(right, wrong, right_base, wrong_base, self.beta)
        else:
            if batch.scores is None:
                raise InputError(
                    "method phygdpo weighs losers by their 'scores' ([semantic, physics] in [0, 1]); use dpo, or score"
                )
            score = batch.scores[torch.arange(len(batch)), picked].to(sigma)
            alpha, gamma = self.weights(score[:, 0], score[:, 1])
            loss, margin = dpo(right, wrong, right_base, wrong_base, self.beta, alpha, gamma, count)
        moved = {"winner_moved": (right - right_base).detach(), "loser_moved": (wrong - wrong_base).detach()}
        return loss, {"margin": margin.detach(), "accuracy": (margin.detach() > 0).float(), **moved}

    def error(self, clean: Tensor, batch: Batch, sigma: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """Mean squared velocity error of each clip at its noise level."""
        with precision(batch.noise.device, self.sft.autocast):
            return self.sft.backbone.flow_matching_loss(clean, batch.noise, sigma, batch.condition)


def _weights(given: dict[str, float]) -> PhysicsWeights:
    names = [field.name for field in fields(PhysicsWeights)]
    unknown = [name for name in given if name not in names]
    if unknown:
        raise InputError(f"preference.weights: no {unknown[0]!r}{closest(unknown[0], names)}; there are {', '.join(names)}")
    return PhysicsWeights(**given)


def _generator(sample: int) -> torch.Generator:
    return torch.Generator().manual_seed(key(sample, "loser"))
