"""Mochi 1 (text-to-video) as diffusers loads it.

Clips of 6k + 1 frames, sides in multiples of 16 pixels. The network runs the other way: its timestep is 1000 (1 - sigma) and it
predicts clean - noise; this adapter turns the sign. It is sampled at linear-quadratic noise levels. Padding of the text is left
out of attention.
Source: Mochi 1 (Genmo, 2024, released code and weights), and the classes of diffusers.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.models.backbones import flow_matching
from visviva.models.backbones.backbone import Backbone, Home
from visviva.models.backbones.condition import Condition, Text
from visviva.models.backbones.flow_matching import precise


class MochiBackbone(Backbone):
    """One Mochi pipeline behind the interface of all backbones.

    Example::

        backbone = MochiBackbone.load("genmo/mochi-1-preview", dtype=torch.bfloat16, device="cuda")
        condition = backbone.condition(["a ball falls"], frames=31)
        frames = backbone.decode(backbone.sample(condition, backbone.noise([0], 31, 480, 848), steps=64, guidance_scale=4.5))
    """

    pipelines: ClassVar[tuple[str, ...]] = ("MochiPipeline",)
    lora_targets: ClassVar[str] = (
        r"transformer_blocks\.\d+\.attn1\.(to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj|add_v_proj|to_add_out)"
        r"|transformer_blocks\.\d+\.(ff|ff_context)\.net\.(0\.proj|2)"
    )
    family = "mochi"
    home = Home(19, 480, 848, 30.0)

    def __init__(self, pipeline: Any) -> None:
        super().__init__(pipeline)
        config = self.transformer.config
        self.temporal_ratio = self.frame_step = int(self.vae.temporal_compression_ratio)
        self.spatial_ratio = int(self.vae.spatial_compression_ratio)
        self.pixel_step = self.spatial_ratio * int(config.patch_size)
        self.latent_channels = int(self.vae.config.latent_channels)
        self.text_length = min(256, int(config.max_sequence_length))

    # ----------------------------------------------------------------------------------------------------- conditions

    def encode_text(self, prompts: list[str]) -> Text:
        """Encode prompts by the pipeline's T5, each alone: the pipeline would blank a batch whose last prompt is empty."""
        parts = [
            self.pipeline.encode_prompt(
                [prompt],
                do_classifier_free_guidance=False,
                max_sequence_length=self.text_length,
                device=self.text_encoder.device,
            )
            for prompt in prompts
        ]
        return Text(torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts]))

    # ------------------------------------------------------------------------------------------------------------ VAE

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the latents from the autoencoder's config, over its scaling factor."""
        mean, std = (
            torch.tensor(x, device=self.vae.device, dtype=self.vae.dtype).view(1, -1, 1, 1, 1)
            for x in (self.vae.config.latents_mean, self.vae.config.latents_std)
        )
        return mean, std / self.vae.config.scaling_factor

    # ------------------------------------------------------------------------------------------------------- velocity

    def _predict(self, latents: Tensor, sigma: Tensor, text: Text, condition: Condition) -> Tensor:
        dtype = self.transformer.dtype
        reverse = self.transformer(
            hidden_states=latents.to(dtype),
            encoder_hidden_states=text.embeddings.to(dtype),
            timestep=1000 * (1 - sigma),
            encoder_attention_mask=text.mask,
            return_dict=False,
        )[0]
        return -precise(reverse)

    # ---------------------------------------------------------------------------------------------------- noise levels

    def sigmas(
        self, steps: int, shift: float | None = None, shape: tuple[int, ...] | None = None
    ) -> Float[Tensor, "steps_plus_1"]:
        """Return the linear-quadratic noise levels, or, where a time shift is given, shifted linear ones."""
        return flow_matching.linear_quadratic(steps) if shift is None else flow_matching.sigmas(steps, shift)
