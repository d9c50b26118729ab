"""The Wan family (2.1 text-to-video and image-to-video, 2.2 A14B, 2.2 TI2V-5B) as diffusers loads it, behind one interface.

Shapes: frames (B, T, 3, H, W) in [0, 1]; latents (B, C, F, h, w), normalised with the VAE's statistics; F = (T - 1) / r + 1
with temporal ratio r. The network predicts v = noise - clean at timestep 1000 sigma; no sign differs inside.
Source: Wan, arXiv 2503.20314, and the classes of diffusers.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recompute

from visviva.errors import InputError
from visviva.models.backbones import flow_matching
from visviva.models.backbones.checkpoint import quiet, read_pipeline
from visviva.models.backbones.condition import Condition

LORA_TARGETS = r"blocks\.\d+\.(attn1|attn2)\.(to_q|to_k|to_v|to_out\.0)|blocks\.\d+\.ffn\.net\.(0\.proj|2)"


class WanBackbone:
    """One Wan pipeline with everything that training and sampling need, differentiable where mathematics allows.

    Example::

        backbone = WanBackbone.load("tiny")
        condition = backbone.condition(["free fall, view 2.40 m"], first_frames)
        latents = backbone.sample(condition, backbone.noise([0], 17, 64, 64), steps=8)
        frames = backbone.decode(latents)
    """

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline
        self.transformer = pipeline.transformer
        self.transformer_2 = getattr(pipeline, "transformer_2", None)
        self.vae, self.text_encoder, self.tokenizer = pipeline.vae, pipeline.text_encoder, pipeline.tokenizer
        self.scheduler, self.image_encoder = pipeline.scheduler, getattr(pipeline, "image_encoder", None)
        self.expand_timesteps = bool(pipeline.config.expand_timesteps)
        self.boundary = pipeline.config.boundary_ratio
        self.guidance_in_graph = True  # whether the unconditional branch of guidance carries gradient too
        self.family, self.image_to_video = _family(self)
        self.patch_size = tuple(self.transformer.config.patch_size)
        self.temporal_ratio = int(self.vae.config.scale_factor_temporal)
        self.spatial_ratio = int(self.vae.config.scale_factor_spatial)
        self.text_length = min(512, int(self.tokenizer.model_max_length)) if self.tokenizer is not None else 512
        for frozen in (self.vae, self.text_encoder, self.image_encoder):
            if frozen is not None:
                frozen.requires_grad_(False).eval()

    # ------------------------------------------------------------------------------------------------ loading and saving

    @classmethod
    def load(
        cls, path: str | Path = "tiny", *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
    ) -> WanBackbone:
        """Load a diffusers Wan pipeline: ``"tiny"`` (shipped), a local folder, or a hub id. Only safetensors are read.

        Weights that do not fit their config are refused (`visviva.models.backbones.checkpoint`).
        The VAE is always kept in float32, because second differences of frames amplify rounding.
        """
        return cls(read_pipeline(path, dtype).to(device))

    def save(self, path: str | Path, *, dtype: torch.dtype | None = None) -> None:
        """Write the whole pipeline in diffusers format (safetensors), atomically; ``dtype`` casts a copy of the weights."""
        path = Path(path)
        temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
        shutil.rmtree(temporary, ignore_errors=True)
        with quiet():
            self.pipeline.save_pretrained(temporary, safe_serialization=True)
        if dtype is not None:
            _cast_files(temporary, dtype)
        old = path.with_name(f".{path.name}.old-{os.getpid()}")
        if path.exists():
            os.replace(path, old)
        os.replace(temporary, path)
        shutil.rmtree(old, ignore_errors=True)

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        return next(self.transformer.parameters()).device

    # ----------------------------------------------------------------------------------------------------------- sizes

    def latent_shape(self, batch: int, frames: int, height: int, width: int) -> tuple[int, int, int, int, int]:
        """Return the latent shape (B, C, F, h, w) for clips of a size; refuses sizes the model cannot make."""
        if (frames - 1) % self.temporal_ratio:
            near = (frames - 1) // self.temporal_ratio * self.temporal_ratio + 1
            raise InputError(
                f"frames = {frames}: this model makes {self.temporal_ratio}k + 1 frames; "
                f"use {near} or {near + self.temporal_ratio}"
            )
        multiple = self.spatial_ratio * self.patch_size[1]
        for name, size in (("height", height), ("width", width)):
            if size % multiple or size < multiple:
                raise InputError(f"{name} = {size}: this model needs a multiple of {multiple} pixels")
        f = (frames - 1) // self.temporal_ratio + 1
        return batch, int(self.vae.config.z_dim), f, height // self.spatial_ratio, width // self.spatial_ratio

    def noise(self, seeds: list[int], frames: int, height: int, width: int) -> Float[Tensor, "B C F h w"]:
        """Return standard normal start latents, one seeded CPU generator per clip: the same on every device and batch split."""
        shape = self.latent_shape(1, frames, height, width)[1:]
        draws = [torch.randn(shape, generator=torch.Generator().manual_seed(int(seed))) for seed in seeds]
        return torch.stack(draws).to(self.device)

    # ----------------------------------------------------------------------------------------------------- conditions

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

    @torch.no_grad()
    def condition(
        self,
        prompts: list[str],
        first_frames: Float[Tensor, "B 3 H W"] | None = None,
        *,
        frames: int = 17,
        negative: str = "",
    ) -> Condition:
        """Encode prompts and first frames (in [0, 1]); ``frames`` is the length of the clip to be made."""
        if self.family in ("wan2.1-i2v", "wan2.2-i2v") and first_frames is None:
            raise InputError(f"{self.family} is an image-to-video model: give first frames, or choose a text-to-video model")
        if self.family in ("wan2.1-t2v", "wan2.2-t2v") and first_frames is not None:
            raise InputError(
                f"{self.family} is a text-to-video model and takes no first frames; choose an image-to-video model"
            )
        if first_frames is not None and len(first_frames) != len(prompts):
            raise InputError(f"{len(prompts)} prompts but {len(first_frames)} first frames; give one frame per prompt")
        text, negatives = self.encode_prompt(prompts), self.encode_prompt([negative]).expand(len(prompts), -1, -1)
        if first_frames is None:
            return Condition(text, negatives)
        image = first_frames.to(self.device, torch.float32)
        if self.expand_timesteps:
            return Condition(text, negatives, first_frame=self.encode(image.unsqueeze(1)))
        return Condition(text, negatives, channels=self._first_frame_channels(image, frames), image=self._clip(image))

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

    def _statistics(self) -> tuple[Tensor, Tensor]:
        mean, std = (
            torch.tensor(x, device=self.vae.device) for x in (self.vae.config.latents_mean, self.vae.config.latents_std)
        )
        return mean.view(1, -1, 1, 1, 1), std.view(1, -1, 1, 1, 1)

    def encode(self, frames: Float[Tensor, "B T 3 H W"]) -> Float[Tensor, "B C F h w"]:
        """Encode frames in [0, 1] to normalised latents (the posterior's mode), float32."""
        mean, std = self._statistics()
        video = (frames.to(self.vae.device, torch.float32) * 2 - 1).transpose(1, 2)
        return (self.vae.encode(video).latent_dist.mode() - mean) / std

    def decode(
        self, latents: Float[Tensor, "B C F h w"], clamp: str = "straight_through", *, checkpoint: bool = False
    ) -> Float[Tensor, "B T 3 H W"]:
        """Decode normalised latents to frames in [0, 1], float32.

        ``clamp``: ``"straight_through"`` clamps the value but lets every gradient through (a hard clamp would give none where
        the decoder leaves [0, 1]); ``"hard"`` clamps both; ``"none"`` returns the raw range.
        ``checkpoint`` recomputes each latent frame's decoding in the backward pass instead of storing its activations.
        """
        mean, std = self._statistics()
        frames = decode_unclamped(self.vae, latents.float() * std + mean, checkpoint).transpose(1, 2) * 0.5 + 0.5
        if clamp == "none":
            return frames
        if clamp == "hard":
            return frames.clamp(0, 1)
        if clamp != "straight_through":
            raise InputError(f"clamp = {clamp!r}; allowed: straight_through, hard, none")
        return frames + (frames.clamp(0, 1) - frames).detach()

    # ------------------------------------------------------------------------------------------------------- velocity

    def hold(self, latents: Tensor, condition: Condition) -> Tensor:
        """Write the given first latent frame into ``latents`` (TI2V); other families condition by channels instead."""
        if condition.first_frame is None:
            return latents
        return torch.cat([condition.first_frame.to(latents), latents[:, :, 1:]], dim=2)

    def velocity(
        self, latents: Float[Tensor, "B C F h w"], sigma: Float[Tensor, "B"], condition: Condition, guidance_scale: float = 1.0
    ) -> Float[Tensor, "B C F h w"]:
        """Return v = noise - clean, float32, with classifier-free guidance v_neg + w (v - v_neg) if w differs from 1."""
        v = self._predict(latents, sigma, condition.prompt, condition)
        if guidance_scale != 1.0:
            with torch.set_grad_enabled(torch.is_grad_enabled() and self.guidance_in_graph):
                unguided = self._predict(latents, sigma, condition.negative, condition)
            v = unguided + guidance_scale * (v - unguided)
        if condition.first_frame is not None:
            v = torch.cat([torch.zeros_like(v[:, :, :1]), v[:, :, 1:]], dim=2)
        return v

    def _predict(self, latents: Tensor, sigma: Tensor, prompt: Tensor, condition: Condition) -> Tensor:
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
        dtype = next(network.parameters()).dtype
        inputs = latents if condition.channels is None else torch.cat([latents, condition.channels.to(latents)], dim=1)
        image = None if condition.image is None else condition.image.to(dtype)
        return network(
            hidden_states=inputs.to(dtype),
            timestep=self._timestep(latents, sigma, condition),
            encoder_hidden_states=prompt.to(dtype),
            encoder_hidden_states_image=image,
            return_dict=False,
        )[0].float()

    def _timestep(self, latents: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        """Return 1000 sigma, per clip, or per token (0 on the given first frame) where the model expands timesteps."""
        if not self.expand_timesteps:
            return 1000 * sigma
        _, ph, pw = self.patch_size
        tokens = torch.ones(latents.shape[2], latents.shape[3] // ph, latents.shape[4] // pw, device=latents.device)
        if condition.first_frame is not None:
            tokens[0] = 0
        return 1000 * sigma[:, None] * tokens.flatten()[None]

    # ---------------------------------------------------------------------------------------------- sampling, training

    def sample(
        self,
        condition: Condition,
        noise: Float[Tensor, "B C F h w"],
        *,
        steps: int,
        shift: float | None = None,
        guidance_scale: float = 1.0,
        grad_steps: int = 0,
        checkpoint: bool = True,
        guide: flow_matching.Guide | None = None,
    ) -> Float[Tensor, "B C F h w"]:
        """Sample clean latents; see `flow_matching.sample`. ``shift`` defaults to the scheduler's own."""
        shift = self.default_shift if shift is None else shift
        return flow_matching.sample(
            self,
            condition,
            noise,
            steps=steps,
            shift=shift,
            guidance_scale=guidance_scale,
            grad_steps=grad_steps,
            checkpoint=checkpoint,
            guide=guide,
        )

    @property
    def default_shift(self) -> float:
        """The time shift that the pipeline's scheduler was saved with."""
        config = self.scheduler.config
        return float(config.get("flow_shift", config.get("shift", 1.0)))

    def sigmas(self, steps: int, shift: float | None = None) -> Float[Tensor, "steps_plus_1"]:
        """Return the descending noise levels of the sampler; see `flow_matching.sigmas`."""
        return flow_matching.sigmas(steps, self.default_shift if shift is None else shift)

    def flow_matching_loss(
        self,
        clean: Float[Tensor, "B C F h w"],
        noise: Float[Tensor, "B C F h w"],
        sigma: Float[Tensor, "B"],
        condition: Condition,
    ) -> Float[Tensor, "B"]:
        """Return the flow-matching loss per clip; see `flow_matching.loss`."""
        return flow_matching.loss(self, clean, noise, sigma, condition)

    # ----------------------------------------------------------------------------------------------------------- LoRA

    def networks(self) -> dict[str, Any]:
        """Return the denoising networks by their pipeline names."""
        pair = {"transformer": self.transformer, "transformer_2": self.transformer_2}
        return {name: network for name, network in pair.items() if network is not None}

    def add_lora(self, rank: int = 16, alpha: int | None = None, targets: str = LORA_TARGETS) -> None:
        """Freeze the networks and add trainable low-rank adapters to the layers whose names match the regex ``targets``."""
        from peft import LoraConfig

        for network in self.networks().values():
            network.requires_grad_(False)
            network.add_adapter(LoraConfig(r=rank, lora_alpha=alpha or rank, init_lora_weights=True, target_modules=targets))

    def save_lora(self, path: str | Path) -> int:
        """Write the adapters so that ``pipe.load_lora_weights(path)`` of plain diffusers loads them; return the number of keys.

        A second expert (Wan 2.2 A14B) goes to ``path/transformer_2``: load it with ``load_into_transformer_2=True``.
        """
        from peft.utils import get_peft_model_state_dict

        keys = 0
        for name, network in self.networks().items():
            layers = get_peft_model_state_dict(network)
            type(self.pipeline).save_lora_weights(
                Path(path) if name == "transformer" else Path(path) / name,
                transformer_lora_layers=layers,
                transformer_lora_adapter_metadata=network.peft_config["default"].to_dict(),
            )
            keys += len(layers)
        return keys

    def trainable(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """Yield the named parameters that require gradients."""
        for name, network in self.networks().items():
            for key, parameter in network.named_parameters():
                if parameter.requires_grad:
                    yield f"{name}.{key}", parameter


def _family(backbone: WanBackbone) -> tuple[str, bool]:
    config = backbone.transformer.config
    if backbone.expand_timesteps:
        return "wan2.2-ti2v", True
    if config.image_dim is not None:
        return "wan2.1-i2v", True
    if config.in_channels != config.out_channels:
        return "wan2.2-i2v", True
    return ("wan2.2-t2v" if backbone.transformer_2 is not None else "wan2.1-t2v"), False


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
    return (video if vae.config.patch_size is None else unpatchify(video, patch_size=vae.config.patch_size)).float()


def _cast_files(folder: Path, dtype: torch.dtype) -> None:
    from safetensors.torch import load_file, save_file

    for file in folder.rglob("*.safetensors"):
        tensors = {k: v.to(dtype) if v.is_floating_point() else v for k, v in load_file(file).items()}
        save_file(tensors, file, metadata={"format": "pt"})
