"""HunyuanVideo (text-to-video and image-to-video) as diffusers loads it.

Clips of 4k + 1 frames, sides in multiples of 16 pixels. The network predicts v = noise - clean at timestep 1000 sigma. The text
is read twice: token embeddings of a Llama (padding is left out of attention) and one CLIP vector. The released model is
distilled for guidance: the network is told a scale (``embedded_guidance``) and needs no unconditional branch;
``guidance_scale`` is what the pipeline calls ``true_cfg_scale``.
Image-to-video keeps the first frame as its first latent frame, whose tokens are told time 0 (``token_replace``), lets a
thousandth of it into the start noise of all frames, and reads the prompt with a Llava that sees the picture, of whose tokens it
keeps every fourth; the negative prompt goes with a black picture and, as in the pipeline, every second token of it. The older
33-channel model (``latent_concat``), whose clips begin four frames early, is refused.
Source: HunyuanVideo, arXiv 2412.03603, and the classes of diffusers.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError
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

    pipelines: ClassVar[tuple[str, ...]] = ("HunyuanVideoPipeline", "HunyuanVideoImageToVideoPipeline")
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
        if type(pipeline).__name__ == "HunyuanVideoImageToVideoPipeline":
            if config.image_condition_type != "token_replace":
                raise InputError(
                    f"this HunyuanVideo takes its first frame by {config.image_condition_type!r}; only token_replace is "
                    "supported; take the 16-channel model (hunyuanvideo-community/HunyuanVideo-I2V)"
                )
            self.family, self.first_frames = "hunyuan-video-i2v", "required"

    # ----------------------------------------------------------------------------------------------------- conditions

    def encode_text(self, prompts: list[str], pictures: Float[Tensor, "B 3 H W"] | None = None, every: int = 4) -> Text:
        """Encode prompts by the pipeline's Llama (third last layer, the template cut off) and CLIP (one vector).

        ``pictures`` in [0, 1] are what image-to-video models read them with, None: black ones; of their tokens one in ``every``
        is kept.
        """
        options: dict[str, Any] = {} if self.prompt_template is None else {"prompt_template": self.prompt_template}
        options |= {"max_sequence_length": self.text_length, "device": self.text_encoder.device}
        if not self.image_to_video:
            hidden, pooled, mask = self.pipeline.encode_prompt(prompts, **options)
            return Text(hidden, mask.bool(), pooled)
        seen = torch.zeros(len(prompts), 3, 64, 64) if pictures is None else pictures
        bytes_ = (seen.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        options["image_embed_interleave"] = every
        parts = [  # one by one: the pipeline takes prompts beyond its length alone
            self.pipeline.encode_prompt(picture, prompt, **options) for picture, prompt in zip(bytes_, prompts, strict=True)
        ]
        hidden, pooled, mask = (torch.cat(x) for x in zip(*parts, strict=True))
        return Text(hidden, mask.bool(), pooled)

    def encode_prompts(self, prompts: list[str], negative: str, first_frames: Tensor | None) -> tuple[Text, Text]:
        """Encode prompts with their first frames, the negative one with a black picture; the shorter ones are padded."""
        if first_frames is None:
            return super().encode_prompts(prompts, negative, first_frames)
        text = self.encode_text(prompts, first_frames)
        black = self.encode_text([negative], torch.zeros_like(first_frames[:1]), every=2)
        missing = black.embeddings.shape[1] - text.embeddings.shape[1]
        pad = torch.nn.functional.pad
        return Text(pad(text.embeddings, (0, 0, 0, missing)), pad(text.mask, (0, missing)), text.pooled), black  # type: ignore[arg-type]

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

    def start(self, noise: Tensor, condition: Condition) -> Tensor:
        """Return the noise with a thousandth of the first frame in every frame, and the frame itself as the first."""
        if condition.first_frame is not None:
            noise = 0.999 * noise + 0.001 * condition.first_frame.to(noise)
        return super().start(noise, condition)
