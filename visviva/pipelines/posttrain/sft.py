"""Flow matching on true clips: ordinary supervised fine-tuning, the control that a reward must beat.

``|| v(x_sigma, sigma) - (noise - clean) ||^2`` with sigma = sigmoid(mean + std n) pushed through the sampler's time shift
(logit-normal noise levels, arXiv 2403.03206, section 3.1). Noise, level and caption dropout are keyed per sample.
CogVideoX, which is no flow model, is trained with its own v-prediction loss at the same levels (`CogVideoXBackbone`).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.configs import posttrain as settings
from visviva.errors import InputError
from visviva.models.backbones.backbone import Backbone
from visviva.pipelines.posttrain.batch import Batch
from visviva.pipelines.posttrain.plan import key
from visviva.pipelines.posttrain.rollout import precision

Outcome = tuple[Tensor, dict[str, Tensor]]


class Sft:
    """The flow-matching objective: a batch in, the loss of each sample and what to log out.

    Example::

        loss, logs = Sft(backbone, settings.Sft())(batch)
        loss.mean().backward()
    """

    def __init__(
        self, backbone: Backbone, sft: settings.Sft, shift: float | None = None, autocast: torch.dtype | None = None
    ) -> None:
        self.backbone, self.settings, self.autocast = backbone, sft, autocast
        self.shift = shift

    def __call__(self, batch: Batch, base: Tensor | None = None, checked: bool = False) -> Outcome:
        """Return the loss per sample (B,) and the logged numbers (B,) by name; nothing is generated, so nothing is checked."""
        if batch.latents is None:
            raise InputError("flow matching needs true clips; give data.path (clips), not data.prompts")
        sigma = self.levels(batch.keys, tuple(batch.noise.shape)).to(batch.noise.device)
        dropped = self.dropped(batch.keys)
        condition = batch.condition.without_prompts(dropped) if any(dropped) else batch.condition
        with precision(batch.noise.device, self.autocast):
            loss = self.backbone.denoising_loss(batch.latents, batch.noise, sigma, condition)
        return loss, {"flow_matching": loss.detach()}

    def levels(self, keys: list[int], shape: tuple[int, ...] | None = None) -> Float[Tensor, "B"]:
        """Return the noise level of each sample, from its key; LTX-Video's time shift depends on the latents' ``shape``."""
        shift = self.backbone.shift(shape) if self.shift is None else self.shift
        normal = torch.stack([torch.randn((), generator=_generator(k, "sigma")) for k in keys])
        u = torch.sigmoid(self.settings.mean + self.settings.std * normal)
        return shift * u / (1 + (shift - 1) * u)

    def dropped(self, keys: list[int]) -> list[bool]:
        """Return which samples are trained with the negative prompt instead of their caption."""
        share = self.settings.caption_dropout
        return [float(torch.rand((), generator=_generator(k, "caption"))) < share for k in keys]


def _generator(sample: int, purpose: str) -> torch.Generator:
    return torch.Generator().manual_seed(key(sample, purpose))
