"""HunyuanVideo (text-to-video) as diffusers loads it.

Clips of 4k + 1 frames, sides in multiples of 16 pixels. The network predicts v = noise - clean at timestep 1000 sigma. The text
is read twice: token embeddings of a Llama (padding is left out of attention) and one CLIP vector. The released model is
distilled for guidance: the network is told a scale (``embedded_guidance``) and needs no unconditional branch;
``guidance_scale`` is what the pipeline calls ``true_cfg_scale``.
Source: HunyuanVideo, arXiv 2412.03603, and the classes of diffusers.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from visviva.models.backbones.backbone import Backbone, Home
from visviva.models.backbones.condition import Condition, Text
from visviva.models.backbones.flow_matching import precise


class HunyuanBackbone(Backbone):
    """One HunyuanVideo pipeline behind the interface of all backbones.

    Attributes:
        embedded_guidance: the guidance scale that a distilled network is told; it has no effect on others.
        prompt_template: what the prompt is put into before the Llama reads it; None takes the pipeline's own.

    Example::

        backbone = HunyuanBackbone.load("hunyuanvideo-community/HunyuanVideo", dtype=torch.bfloat16, device="cuda")
        condition = backbone.condition(["a ball falls"], frames=61)
        frames = backbone.decode(backbone.sample(condition, backbone.noise([0], 61, 320, 512), steps=30))
    """

    pipelines: ClassVar[tuple[str, ...]] = ("HunyuanVideoPipeline",)
    lora_targets: ClassVar[str] = (
        r"(single_)?transformer_blocks\.\d+\.attn\.(to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj|add_v_proj|to_add_out)"
        r"|transformer_blocks\.\d+\.(ff|ff_context)\.net\.(0\.proj|2)|single_transformer_blocks\.\d+\.(proj_mlp|proj_out)"
    )
    family = "hunyuan-video"
    home = Home(129, 720, 1280, 24.0)
    embedded_guidance = 6.0
    prompt_template: dict[str, Any] | None = None

    def __init__(self, pipeline: Any) -> None:
        super().__init__(pipeline)
        config = self.transformer.config
        self.temporal_ratio = int(self.vae.temporal_compression_ratio)
        self.spatial_ratio = int(self.vae.spatial_compression_ratio)
        self.frame_step = self.temporal_ratio * int(config.patch_size_t)
        self.pixel_step = self.spatial_ratio * int(config.patch_size)
        self.latent_channels = int(self.vae.config.latent_channels)
        self.text_length = 256

    # ----------------------------------------------------------------------------------------------------- conditions

    def encode_text(self, prompts: list[str]) -> Text:
        """Encode prompts by the pipeline's Llama (third last layer, the template cut off) and CLIP (one vector)."""
        template = {} if self.prompt_template is None else {"prompt_template": self.prompt_template}
        hidden, pooled, mask = self.pipeline.encode_prompt(
            prompts, max_sequence_length=self.text_length, device=self.text_encoder.device, **template
        )
        return Text(hidden, mask.bool(), pooled)

    # ------------------------------------------------------------------------------------------------------------ VAE

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Return 0 and the inverse of the autoencoder's scaling factor."""
        one = torch.ones(1, self.latent_channels, 1, 1, 1, device=self.vae.device, dtype=self.vae.dtype)
        return torch.zeros_like(one), one / self.vae.config.scaling_factor

    # ------------------------------------------------------------------------------------------------------- velocity

    def _predict(self, latents: Tensor, sigma: Tensor, text: Text, condition: Condition) -> Tensor:
        network = self.transformer
        dtype = network.dtype
        told = latents.new_full((len(latents),), 1000 * self.embedded_guidance) if network.config.guidance_embeds else None
        v = network(
            hidden_states=latents.to(dtype),
            timestep=1000 * sigma,
            encoder_hidden_states=text.embeddings.to(dtype),
            encoder_attention_mask=text.mask,
            pooled_projections=None if text.pooled is None else text.pooled.to(dtype),
            guidance=told,
            return_dict=False,
        )[0]
        return precise(v)
