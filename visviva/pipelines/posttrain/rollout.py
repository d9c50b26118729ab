"""Generate clips while training: sample, then decode the stretch that is judged, with gradient through the last steps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.configs.posttrain import Sampler
from visviva.errors import InputError
from visviva.models.backbones import flow_matching
from visviva.models.backbones.backbone import Backbone
from visviva.pipelines.posttrain.batch import Batch
from visviva.pipelines.posttrain.plan import key


@dataclass(frozen=True)
class Rollout:
    """How a batch becomes frames.

    Attributes:
        backbone: the video model.
        sampler: steps, guidance, shift.
        recompute_steps: recompute each sampler step in the backward pass.
        recompute_decoder: recompute each latent frame's decoding in the backward pass.
        clamp: see `Backbone.decode`.
        autocast: dtype of the denoiser's matrix products; None for float32. Euler steps and decoding are always float32.
        detach: stop the gradient at the network's input in every step, see `flow_matching.sample`.
    """

    backbone: Backbone
    sampler: Sampler
    recompute_steps: bool = False
    recompute_decoder: bool = False
    clamp: str = "straight_through"
    autocast: torch.dtype | None = None
    detach: bool = False

    def latents(self, batch: Batch, grad_steps: int = 0) -> Float[Tensor, "B C F h w"]:
        """Return clean latents; the last ``grad_steps`` steps carry gradient to the weights."""
        with precision(batch.noise.device, self.autocast):
            return self.backbone.sample(
                batch.condition,
                batch.noise,
                steps=self.sampler.steps,
                shift=self.sampler.shift,
                guidance_scale=self.sampler.guidance_scale,
                grad_steps=grad_steps,
                checkpoint=self.recompute_steps,
                detach=self.detach,
            )

    def again(self, batch: Batch, clean: Float[Tensor, "B C F h w"], draw: int) -> Float[Tensor, "B C F h w"]:
        """Return what the last step makes of ``clean``, noised again, with gradient to the weights; see `flow_matching.again`.

        The noise belongs to the sample and to ``draw``, however the batch is split.
        """
        levels = self.backbone.sigmas(self.sampler.steps, self.sampler.shift, tuple(batch.noise.shape))
        seeds = [key(k, "again", draw) for k in batch.keys]
        draws = [torch.randn(batch.noise.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        with precision(batch.noise.device, self.autocast):
            made = flow_matching.again(
                self.backbone,
                batch.condition,
                self.backbone.pad(clean),
                torch.stack(draws).to(batch.noise),
                sigma=float(levels[-2]),
                guidance_scale=self.sampler.guidance_scale,
                checkpoint=self.recompute_steps,
            )
        return self.backbone.trim(made)

    def decode(self, latents: Float[Tensor, "B C F h w"], end: int | None = None) -> Float[Tensor, "B T *frame"]:
        """Return the first ``end`` frames (None: all), pictures (3, H, W) or joints (22, 3).

        Where the decoder is causal, later latents are not decoded at all."""
        whole = end is None or not self.backbone.causal_decoder
        needed = latents.shape[2] if whole or end is None else -(-(end - 1) // self.backbone.temporal_ratio) + 1
        return self.backbone.decode(latents[:, :, :needed], self.clamp, checkpoint=self.recompute_decoder)[:, :end]

    def frames(self, batch: Batch, grad_steps: int = 0, end: int | None = None) -> Float[Tensor, "B T *frame"]:
        """Sample and decode; raises an `InputError` if the model produces numbers that are not finite."""
        return finite(self.decode(self.latents(batch, grad_steps), end))


def finite(frames: Float[Tensor, "B T *frame"]) -> Float[Tensor, "B T *frame"]:
    """Return the frames, or raise an `InputError` if some of their numbers are not finite."""
    if not bool(torch.isfinite(frames.detach()).all()):
        what = "pixels" if frames.ndim == 5 else "joints"
        raise InputError(f"the model generates NaN or infinite {what}; lower optimizer.lr, or use mixed_precision no")
    return frames


def precision(device: torch.device, dtype: torch.dtype | None) -> torch.autocast:
    """Return the autocast context for the denoiser.

    Its weight cache is off: a cast made in a step without gradient would be reused, detached, in the steps with gradient.
    """
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None, cache_enabled=False)
