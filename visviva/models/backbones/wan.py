"""The Wan family (2.1 text-to-video and image-to-video, 2.2 A14B, 2.2 TI2V-5B) as diffusers loads it, behind one interface.

F = (T - 1) / r + 1 latent frames with temporal ratio r. The network predicts v = noise - clean at timestep 1000 sigma; no sign
differs inside. What differs in 2.2: A14B has two networks, the second for noise levels below ``boundary``; TI2V-5B keeps the
given first frame as its first latent frame, whose tokens have timestep 0.
Source: Wan, arXiv 2503.20314, and the classes of diffusers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recompute

from visviva.errors import InputError
from visviva.models.backbones.backbone import Backbone, Home
from visviva.models.backbones.checkpoint import read_pipeline
from visviva.models.backbones.condition import Condition, Text
from visviva.models.backbones.flow_matching import precise

HOMES = {  # (spatial ratio, latent channels) -> what the released models were trained on
    (8, 16): Home(81, 480, 832, 16.0),  # Wan 2.1, Wan 2.2 A14B
    (16, 48): Home(121, 704, 1280, 24.0),  # Wan 2.2 TI2V-5B
    (8, 48): Home(17, 64, 64, 32.0),  # the embedded tiny model
}


class WanBackbone(Backbone):
    """One Wan pipeline with everything that training and sampling need, differentiable where mathematics allows.

    Example::

        backbone = WanBackbone.load("tiny")
        condition = backbone.condition(["free fall, view 2.40 m"], first_frames)
        latents = backbone.sample(condition, backbone.noise([0], 17, 64, 64), steps=8)
        frames = backbone.decode(latents)
    """

    pipelines: ClassVar[tuple[str, ...]] = ("WanPipeline", "WanImageToVideoPipeline")
    lora_targets: ClassVar[str] = r"blocks\.\d+\.(attn1|attn2)\.(to_q|to_k|to_v|to_out\.0)|blocks\.\d+\.ffn\.net\.(0\.proj|2)"
    causal_decoder = True

    def __init__(self, pipeline: Any) -> None:
        super().__init__(pipeline)
        self.expand_timesteps = bool(pipeline.config.expand_timesteps)
        self.boundary = pipeline.config.boundary_ratio
        self.family, self.first_frames = _family(self)
        self.patch_size = tuple(self.transformer.config.patch_size)
        self.temporal_ratio = self.frame_step = int(self.vae.config.scale_factor_temporal)
        self.spatial_ratio = int(self.vae.config.scale_factor_spatial)
        self.pixel_step = self.spatial_ratio * self.patch_size[1]
        self.latent_channels = int(self.vae.config.z_dim)
        self.text_length = min(512, int(self.tokenizer.model_max_length)) if self.tokenizer is not None else 512
        self.home = HOMES.get((self.spatial_ratio, self.latent_channels))

    @classmethod
    def load(
        cls, path: str | Path = "tiny", *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
    ) -> WanBackbone:
        """Load a diffusers Wan pipeline: ``"tiny"`` (shipped), a local folder, or a hub id; see `Backbone.load`."""
        return cls(read_pipeline(path, dtype, cls.pipelines).to(device))

    # ----------------------------------------------------------------------------------------------------- conditions

    def encode_text(self, prompts: list[str]) -> Text:
        """Encode prompts; their padding is zero, and attended to."""
        return Text(self.encode_prompt(prompts))

    def encode_prompt(self, prompts: list[str]) -> Float[Tensor, "B L D"]:
        """Encode prompts as the diffusers pipeline does: clean, tokenize to the fixed length, zero the padding."""
        from diffusers.pipelines.wan.pipeline_wan import prompt_clean

        tokens = self.tokenizer(
            [prompt_clean(p) for p in prompts],
            padding="max_length",
            max_length=self.text_length,
            truncation=True,
            return_attention_mask=True,
            return_tensors="pt",
        ).to(self.text_encoder.device)
        hidden = self.text_encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state
        return hidden * tokens.attention_mask.unsqueeze(-1).to(hidden.dtype)

    def encode_first_frames(self, image: Float[Tensor, "B 3 H W"], frames: int) -> dict[str, Tensor | None]:
        """Encode first frames: as the first latent frame (TI2V), or as extra channels and CLIP embeddings."""
        if self.expand_timesteps:
            return super().encode_first_frames(image, frames)
        return {"channels": self._first_frame_channels(image, frames), "image": self._clip(image)}

    def _first_frame_channels(self, image: Tensor, frames: int) -> Tensor:
        """Mask (r channels, 1 on the first frame) and encoded grey-padded clip, as Wan image-to-video concatenates them."""
        grey = torch.full_like(image, 0.5).unsqueeze(1).expand(-1, frames - 1, -1, -1, -1)
        latents = self.encode(torch.cat([image.unsqueeze(1), grey], dim=1))
        mask = latents.new_zeros(len(image), self.temporal_ratio, *latents.shape[2:])
        mask[:, :, 0] = 1
        return torch.cat([mask, latents], dim=1)

    def _clip(self, image: Tensor) -> Tensor | None:
        if self.image_encoder is None:
            return None
        pixels = self.pipeline.image_processor(images=image, do_rescale=False, return_tensors="pt").pixel_values
        encoded = self.image_encoder(pixels.to(self.device, self.image_encoder.dtype), output_hidden_states=True)
        return encoded.hidden_states[-2]

    # ------------------------------------------------------------------------------------------------------------ VAE

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the latents from the autoencoder's config."""
        mean, std = (
            torch.tensor(x, device=self.vae.device, dtype=self.vae.dtype)
            for x in (self.vae.config.latents_mean, self.vae.config.latents_std)
        )
        return mean.view(1, -1, 1, 1, 1), std.view(1, -1, 1, 1, 1)

    def encode(self, frames: Float[Tensor, "B T 3 H W"]) -> Float[Tensor, "B C F h w"]:
        """Encode frames in [0, 1] to normalised latents; the autoencoder reads them by fours after the first."""
        if (frames.shape[1] - 1) % 4:
            raise InputError(
                f"{frames.shape[1]} frames: Wan's autoencoder encodes 4k + 1 frames and drops the others; cut the clip"
            )
        return super().encode(frames)

    def _decode(self, latents: Tensor, checkpoint: bool) -> Tensor:
        return decode_unclamped(self.vae, latents, checkpoint)

    # ------------------------------------------------------------------------------------------------------- velocity

    def _predict(self, latents: Tensor, sigma: Tensor, text: Text, condition: Condition) -> Tensor:
        prompt = text.embeddings
        if self.boundary is None or self.transformer_2 is None:
            return self._run(self.transformer, latents, sigma, prompt, condition)
        early = sigma >= self.boundary
        if bool(early.all()) or not bool(early.any()):
            return self._run(self.transformer if bool(early.all()) else self.transformer_2, latents, sigma, prompt, condition)
        v = torch.empty_like(latents)
        for expert, rows in ((self.transformer, early), (self.transformer_2, ~early)):
            v[rows] = self._run(expert, latents[rows], sigma[rows], prompt[rows], condition[rows])
        return v

    def _run(self, network: Any, latents: Tensor, sigma: Tensor, prompt: Tensor, condition: Condition) -> Tensor:
        dtype = network.dtype
        inputs = latents if condition.channels is None else torch.cat([latents, condition.channels.to(latents)], dim=1)
        inputs = self.with_forces(network, inputs, condition)
        image = None if condition.image is None else condition.image.to(dtype)
        v = network(
            hidden_states=inputs.to(dtype),
            timestep=self._timestep(latents, sigma, condition),
            encoder_hidden_states=prompt.to(dtype),
            encoder_hidden_states_image=image,
            return_dict=False,
        )[0]
        return precise(v)

    def _timestep(self, latents: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        """Return 1000 sigma, per clip, or per token (0 on the given first frame) where the model expands timesteps."""
        if not self.expand_timesteps:
            return 1000 * sigma
        _, ph, pw = self.patch_size
        tokens = torch.ones(latents.shape[2], latents.shape[3] // ph, latents.shape[4] // pw, device=latents.device)
        if condition.first_frame is not None:
            tokens[0] = 0
        return 1000 * sigma[:, None] * tokens.flatten()[None]


def _family(backbone: WanBackbone) -> tuple[str, Any]:
    config = backbone.transformer.config
    if backbone.expand_timesteps:
        return "wan2.2-ti2v", "optional"
    if config.image_dim is not None:
        return "wan2.1-i2v", "required"
    if config.in_channels != config.out_channels:
        return "wan2.2-i2v", "required"
    return ("wan2.2-t2v" if backbone.transformer_2 is not None else "wan2.1-t2v"), "none"


def decode_unclamped(vae: Any, latents: Tensor, checkpoint: bool = False) -> Tensor:
    """Decode frame by frame, causally, without the VAE's final hard clamp: (B, C, F, h, w) to (B, 3, T, H, W).

    The causal cache is passed from frame to frame as values, so that a frame can be decoded again in the backward pass.
    """
    from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify

    def decode_frame(z: Tensor, first: bool, *cache: Any) -> tuple[Any, ...]:
        updated = list(cache)
        return vae.decoder(z, feat_cache=updated, feat_idx=[0], first_chunk=first), *updated

    vae.clear_cache()
    cache: list[Any] = list(vae._feat_map)
    chunks = []
    vae.clear_cache()
    for i, z in enumerate(vae.post_quant_conv(latents.to(vae.dtype)).split(1, dim=2)):
        if checkpoint and torch.is_grad_enabled():
            chunk, *cache = recompute(decode_frame, z, i == 0, *cache, use_reentrant=False)
        else:
            chunk, *cache = decode_frame(z, i == 0, *cache)
        chunks.append(chunk)
    video = torch.cat(chunks, dim=2)
    return precise(video if vae.config.patch_size is None else unpatchify(video, patch_size=vae.config.patch_size))
