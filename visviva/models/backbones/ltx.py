"""LTX-Video (text-to-video and image-to-video in one network) as diffusers loads it.

Clips of 8k + 1 frames, sides in multiples of 32 pixels. The network sees one token per latent position, predicts
v = noise - clean at timestep 1000 sigma, and is told the frame rate through its positions. A given first frame is kept as the
first latent frame, whose tokens have timestep 0. Padding of the text is left out of attention.
Two variants differ in positions and noise levels: ``LTXPipeline`` (0.9.0, 0.9.1: latent positions, shift by the number of
tokens) and ``LTXConditionPipeline`` (0.9.5 on: pixel positions, linear-quadratic levels).
Source: LTX-Video, arXiv 2501.00103, and the classes of diffusers.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError
from visviva.models.backbones import flow_matching
from visviva.models.backbones.backbone import Backbone, Home
from visviva.models.backbones.condition import Condition, Text
from visviva.models.backbones.flow_matching import precise


class LTXBackbone(Backbone):
    """One LTX-Video pipeline behind the interface of all backbones.

    Attributes:
        decode_timestep: the time that autoencoders with timestep conditioning (0.9.1 on) are told; no noise is added.

    Example::

        backbone = LTXBackbone.load("Lightricks/LTX-Video", dtype=torch.bfloat16, device="cuda")
        condition = backbone.condition(["a ball falls"], frames=97, fps=24.0)
        frames = backbone.decode(backbone.sample(condition, backbone.noise([0], 97, 512, 704), steps=30))
    """

    pipelines: ClassVar[tuple[str, ...]] = ("LTXPipeline", "LTXImageToVideoPipeline", "LTXConditionPipeline")
    lora_targets: ClassVar[str] = (
        r"transformer_blocks\.\d+\.(attn1|attn2)\.(to_q|to_k|to_v|to_out\.0)|transformer_blocks\.\d+\.ff\.net\.(0\.proj|2)"
    )
    family = "ltx-video"
    first_frames = "optional"
    home = Home(161, 512, 704, 25.0)
    decode_timestep = 0.0

    def __init__(self, pipeline: Any) -> None:
        super().__init__(pipeline)
        config = self.transformer.config
        self.patch = (int(config.patch_size_t), int(config.patch_size), int(config.patch_size))
        self.temporal_ratio = int(self.vae.temporal_compression_ratio)
        self.spatial_ratio = int(self.vae.spatial_compression_ratio)
        self.frame_step = self.temporal_ratio * self.patch[0]
        self.pixel_step = self.spatial_ratio * self.patch[1]
        self.latent_channels = int(self.vae.config.latent_channels)
        self.text_length = 128 if self.tokenizer is None else min(128, int(self.tokenizer.model_max_length))
        self.pixel_positions = type(pipeline).__name__ == "LTXConditionPipeline"

    # ----------------------------------------------------------------------------------------------------- conditions

    def encode_text(self, prompts: list[str]) -> Text:
        """Encode prompts by the pipeline's T5; the mask says which tokens are not padding."""
        hidden, mask, _, _ = self.pipeline.encode_prompt(
            prompts, do_classifier_free_guidance=False, max_sequence_length=self.text_length, device=self.text_encoder.device
        )
        return Text(hidden, mask)

    def _frame_rate(self, clips: int, fps: float | list[float] | None) -> dict[str, Tensor]:
        rates = torch.as_tensor(self.home.fps if fps is None else fps, dtype=torch.float32, device=self.device)
        return {"frame_rate": rates.expand(clips) if rates.ndim == 0 else rates}

    # ------------------------------------------------------------------------------------------------------------ VAE

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the latents from the autoencoder's buffers, over its scaling factor."""
        mean, std = (x.to(self.vae.dtype).view(1, -1, 1, 1, 1) for x in (self.vae.latents_mean, self.vae.latents_std))
        return mean, std / self.vae.config.scaling_factor

    def _decode(self, latents: Tensor, checkpoint: bool) -> Tensor:
        self.recompute_blocks(checkpoint)
        time = latents.new_full((len(latents),), self.decode_timestep) if self.vae.config.timestep_conditioning else None
        return self.vae.decode(latents, time, return_dict=False)[0]

    # ------------------------------------------------------------------------------------------------------- velocity

    def _predict(self, latents: Tensor, sigma: Tensor, text: Text, condition: Condition) -> Tensor:
        dtype = self.transformer.dtype
        f, h, w = (size // p for size, p in zip(latents.shape[2:], self.patch, strict=True))
        v = self.transformer(
            hidden_states=_pack(latents.to(dtype), self.patch),
            encoder_hidden_states=text.embeddings.to(dtype),
            encoder_attention_mask=text.mask,
            timestep=self._timestep(sigma, condition, f * h * w, h * w),
            num_frames=f,
            height=h,
            width=w,
            return_dict=False,
            **self._positions(condition.frame_rate, len(latents), (f, h, w)),
        )[0]
        return precise(_unpack(v, latents.shape, self.patch))

    def _timestep(self, sigma: Tensor, condition: Condition, tokens: int, given: int) -> Tensor:
        """Return 1000 sigma, per clip, or per token (0 on the given first latent frame)."""
        if condition.first_frame is None:
            return 1000 * sigma
        free = torch.ones(tokens, device=sigma.device, dtype=sigma.dtype)
        free[:given] = 0
        return 1000 * sigma[:, None] * free

    def _positions(self, fps: Tensor | None, clips: int, grid: tuple[int, int, int]) -> dict[str, Any]:
        rate = torch.full((clips,), self.home.fps, device=self.device) if fps is None else fps
        scale = (self.temporal_ratio, self.spatial_ratio, self.spatial_ratio)
        if not self.pixel_positions:
            return {"rope_interpolation_scale": ((scale[0] / rate).view(-1, 1, 1, 1, 1), *scale[1:])}
        axes = [torch.arange(n, device=self.device) * p * s for n, p, s in zip(grid, self.patch, scale, strict=True)]
        axes[0] = (axes[0] + 1 - scale[0]).clamp(min=0)
        place = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1).float()
        coordinates = place.expand(clips, -1, -1).clone()
        coordinates[:, 0] = coordinates[:, 0] / rate[:, None]
        return {"video_coords": coordinates}

    # ---------------------------------------------------------------------------------------------------- noise levels

    def shift(self, shape: tuple[int, ...] | None = None) -> float:
        """Return the scheduler's time shift: e^mu with mu linear in the number of tokens, or a constant where it says so."""
        config = self.scheduler.config
        if not config.use_dynamic_shifting:
            return float(config.shift)
        if shape is None:
            raise InputError(
                "the time shift of LTX-Video depends on the clip's size, which is not known here; set sampler.shift (or "
                "give the shape of its latents)"
            )
        few, many = config.base_image_seq_len, config.max_image_seq_len
        tokens = math.prod(size // p for size, p in zip(shape[2:], self.patch, strict=True))
        return math.exp(config.base_shift + (config.max_shift - config.base_shift) * (tokens - few) / (many - few))

    def sigmas(
        self, steps: int, shift: float | None = None, shape: tuple[int, ...] | None = None
    ) -> Float[Tensor, "steps_plus_1"]:
        """Return the noise levels: shifted, then stretched so that the last before 0 is the scheduler's ``shift_terminal``."""
        shift = self.shift(shape) if shift is None else shift
        levels = (flow_matching.linear_quadratic if self.pixel_positions else flow_matching.sigmas)(steps).double()
        levels = shift * levels / (1 + (shift - 1) * levels)
        last = self.scheduler.config.get("shift_terminal")
        if last and steps > 1:
            levels[:-1] = 1 - (1 - levels[:-1]) * (1 - last) / (1 - levels[-2])
        return levels.float()


def _pack(latents: Float[Tensor, "B C F h w"], patch: tuple[int, int, int]) -> Float[Tensor, "B N D"]:
    """Return latents as one token per patch, frames first, then rows, then columns."""
    b, c, f, h, w = latents.shape
    t, y, x = patch
    split = latents.reshape(b, c, f // t, t, h // y, y, w // x, x)
    return split.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(b, (f // t) * (h // y) * (w // x), c * t * y * x)


def _unpack(tokens: Float[Tensor, "B N D"], shape: torch.Size, patch: tuple[int, int, int]) -> Float[Tensor, "B C F h w"]:
    """Return the latents of a shape from their tokens: the inverse of `_pack`."""
    b, c, f, h, w = shape
    t, y, x = patch
    split = tokens.reshape(b, f // t, h // y, w // x, c, t, y, x)
    return split.permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(b, c, f, h, w)
