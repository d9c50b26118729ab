"""The motion model as the trainers take models: a flow from noise to motions, at noise levels in [0, 1].

The network predicts the clean motion x0 from ``z = sqrt(a) x0 + sqrt(1 - a) noise`` with a falling from 1 to 0 over the times
of its schedule. A flow's ``x = (1 - sigma) x0 + sigma noise`` is the same mixture but for its scale,

    z = x / sqrt((1 - sigma)^2 + sigma^2)    at the time with    sqrt((1 - a) / a) = sigma / (1 - sigma),

so that ``v = noise - x0 = (x - x0(z)) / sigma`` makes it a flow model exactly, and Euler's steps in x are DDIM's in z.
Everything that is defined for flows is then defined for motions: flow matching, GRPO's stochastic sampler, preferences in
velocities.

A motion of T frames is a clip of 263 channels and one pixel, (B, 263, T, 1, 1); what is decoded are joints (B, T, 22, 3).
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError
from visviva.models.backbones.backbone import Backbone
from visviva.models.backbones.condition import Condition, Text
from visviva.models.motion.text import encode
from visviva.pipelines.motion.pipeline import MotionPipeline
from visviva.pipelines.motion.steering import features_of


class MotionFlow(Backbone):
    """A motion pipeline with the interface of the video backbones.

    Args:
        pipeline: of motions, with a schedule that knows ``alphas_cumprod`` (DDPM, DDIM and their kin).
        fps: of all motions [frames/s].
        words: how many tokens texts are filled up to, so that any of them make a batch.
        cut: leave out what is beyond the longest text that the encoder reads, instead of refusing it (captions of data).

    Raises:
        InputError: another schedule, or one that changes the predicted motion (clip_sample, thresholding).

    Example::

        flow = MotionFlow(load("tiny"))
        condition = flow.condition(["a person jumps"], frames=40)
        latents = flow.sample(condition, flow.noise([0], 40, 1, 1), steps=10, guidance_scale=2.5)
        flow.decode(latents)  # joints (1, 40, 22, 3) [m]
    """

    family = "motion"
    temporal_ratio = spatial_ratio = frame_step = pixel_step = 1
    latent_channels = 263

    def __init__(self, pipeline: MotionPipeline, fps: float = 20.0, words: int = 77, cut: bool = False) -> None:
        self.pipeline, self.transformer, self.transformer_2 = pipeline, pipeline.transformer, None
        self.scheduler, self.tokenizer, self.text_encoder = pipeline.scheduler, pipeline.tokenizer, pipeline.text_encoder
        self.vae: Any = None
        self.text_encoder_2 = self.image_encoder = None
        self.guidance_in_graph = True
        self.fps, self.text_length, self.cut = fps, words, cut
        shares = getattr(self.scheduler, "alphas_cumprod", None)
        if shares is None:
            raise InputError(f"{type(self.scheduler).__name__} has no alphas_cumprod; give a pipeline with DDIM or DDPM")
        changes = [name for name in ("clip_sample", "thresholding") if self.scheduler.config.get(name)]
        if changes:
            raise InputError(f"the scheduler has {changes[0]}, which is no flow; save the pipeline with it off")
        clean, noisy = shares.double().sqrt(), (1 - shares.double()).sqrt()
        self.levels = (noisy / (clean + noisy)).contiguous()
        """The noise level of each time of the schedule, rising."""

    # ------------------------------------------------------------------------------------------------ noise and levels

    def noise(self, seeds: list[int], frames: int, height: int, width: int) -> Float[Tensor, "B 263 T 1 1"]:
        """Return the pipeline's own noise of these seeds; ``height`` and ``width`` say nothing."""
        return as_clip(self.pipeline.noise(seeds, frames))

    def latent_shape(self, batch: int, frames: int, height: int, width: int) -> tuple[int, int, int, int, int]:
        """Return (B, 263, T, 1, 1)."""
        return batch, self.latent_channels, frames, 1, 1

    def shift(self, shape: tuple[int, ...] | None = None) -> float:
        """Return 1: training draws levels as they are."""
        return 1.0

    def sigmas(
        self, steps: int, shift: float | None = None, shape: tuple[int, ...] | None = None
    ) -> Float[Tensor, "steps_plus_1"]:
        """Return the levels of DDIM's evenly spaced times, counted from the last (its spacing "trailing"), and 0.

        The last time's level (.99995 of a cosine schedule) is called 1, as DDIM does when it starts from noise.

        Raises:
            InputError: a shift, or more steps than there are times.
        """
        if shift not in (None, 1.0):
            raise InputError(f"sampler.shift {shift}; the motion model has its own noise levels: leave it out")
        times = len(self.levels)
        if not 1 <= steps <= times:
            raise InputError(f"steps = {steps}; allowed are 1 to {times}")
        chosen = [round(times - i * times / steps) - 1 for i in range(steps)]
        return torch.cat([torch.ones(1), self.levels[chosen[1:]].float(), torch.zeros(1)])

    # ------------------------------------------------------------------------------------------------------- conditions

    def encode_text(self, prompts: list[str]) -> Text:
        """Encode prompts, filled up to the fixed length; of an empty one no token is there."""
        tokens, there = encode(self.text_encoder, self.tokenizer, prompts, cut=self.cut)
        missing = self.text_length - tokens.shape[1]
        if missing < 0:
            raise InputError(f"a text of {tokens.shape[1]} tokens; this run takes {self.text_length}: say it in fewer")
        return Text(torch.nn.functional.pad(tokens, (0, 0, 0, missing)), torch.nn.functional.pad(there, (0, missing)))

    def _frame_rate(self, clips: int, fps: float | list[float] | None) -> dict[str, Tensor]:
        return {"frame_rate": torch.full((clips,), self.fps, device=self.device)}

    # ---------------------------------------------------------------------------------------------------- joints, velocity

    def encode(self, frames: Float[Tensor, "B T 22 3"]) -> Float[Tensor, "B 263 T 1 1"]:
        """Return the normalised features of joints, z up [m]."""
        return as_clip(self.transformer.normalised(features_of(frames, self.fps)))

    def decode(
        self, latents: Float[Tensor, "B 263 T 1 1"], clamp: str = "none", *, checkpoint: bool = False
    ) -> Float[Tensor, "B T 22 3"]:
        """Return the joints of normalised features, z up [m]; there is nothing to clamp and nothing to recompute."""
        return self.pipeline.joints(self.transformer.denormalised(as_motion(latents)), self.fps)

    def _predict(self, latents: Tensor, sigma: Tensor, text: Text, condition: Condition) -> Tensor:
        level = sigma.view(-1, *[1] * (latents.ndim - 1))
        scaled = latents / ((1 - level).square() + level.square()).sqrt()
        clean = self.transformer(
            as_motion(scaled), self.time(sigma), text.embeddings, text.mask, fps=condition.frame_rate
        ).sample
        return (latents - as_clip(clean)) / level

    def time(self, sigma: Float[Tensor, " B"]) -> Tensor:
        """Return the time of the schedule whose noise level is nearest to each of these."""
        levels = self.levels.to(sigma.device)
        above = torch.searchsorted(levels, sigma.double()).clamp(1, len(levels) - 1)
        lower = (sigma - levels[above - 1]) < (levels[above] - sigma)
        return above - lower.long()


def as_clip(motion: Float[Tensor, "B T 263"]) -> Float[Tensor, "B 263 T 1 1"]:
    """Return features as a clip of one pixel."""
    return motion.transpose(1, 2)[..., None, None]


def as_motion(clip: Float[Tensor, "B 263 T 1 1"]) -> Float[Tensor, "B T 263"]:
    """Undo `as_clip`."""
    return clip[..., 0, 0].transpose(1, 2)
