"""Appearance features for mass conservation: tokens of a frozen encoder, differentiable with respect to the frames.

- `PatchFeatures`: average colours and contrasts of small space-time patches. No weights; for tests and as a baseline.
- `VAEFeatures`: latents of the frozen video autoencoder that the generator itself uses. The default: always at hand.
- `VJEPA2Features`: tokens of V-JEPA 2 (arXiv 2506.09985), the encoder of NewtonRewards (arXiv 2512.00425), from a local
  folder. A randomly initialised encoder says nothing about plausibility: give trained weights.

Preprocessing is plain torch (antialiased resize, normalise), so that gradients survive and no processor is needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError
from visviva.physics.measurement import Measurement, check_frames

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class PatchFeatures:
    """Mean colour, contrast and horizontal and vertical gradient of patches of ``size`` x ``size`` pixels in every frame."""

    name = "patches"
    differentiable = True
    measures = frozenset({"features"})

    def __init__(self, size: int = 4) -> None:
        self.size = size

    def __call__(
        self, frames: Float[Tensor, "B T 3 H W"], fps: Float[Tensor, " B"], masks: Float[Tensor, "B T N H W"] | None = None
    ) -> Measurement:
        """Measure tokens (B, T * H/size * W/size, 12); ``masks`` are passed on."""
        check_frames(frames, fps, least=1)
        pool = torch.nn.functional.avg_pool2d
        images = frames.flatten(0, 1)
        mean = pool(images, self.size)
        contrast = (pool(images.square(), self.size) - mean.square()).clamp(min=0).add(1e-6).sqrt()
        along_x = pool(images[..., :, 1:] - images[..., :, :-1], (self.size, self.size), padding=0, ceil_mode=True)
        along_y = pool(images[..., 1:, :] - images[..., :-1, :], (self.size, self.size), padding=0, ceil_mode=True)
        height, width = mean.shape[-2:]
        tokens = torch.cat([mean, contrast, along_x[..., :height, :width], along_y[..., :height, :width]], dim=1)
        tokens = tokens.unflatten(0, frames.shape[:2]).permute(0, 1, 3, 4, 2).flatten(1, 3)
        return Measurement(fps=fps, features=tokens, masks=masks)


class VAEFeatures:
    """Latents of a frozen diffusers video autoencoder of any family, one token per latent position.

    Args:
        vae: the autoencoder; this freezes it (no gradient to its parameters), gradients pass through it to the frames.

    Raises:
        InputError: a number of frames that the autoencoder cannot encode (it takes rk + 1, see `frame_step`).

    Example::

        probe = VAEFeatures(backbone.vae)
        tokens = probe(frames, fps).features  # (B, F*h*w, C)
    """

    name = "vae"
    differentiable = True
    measures = frozenset({"features"})

    def __init__(self, vae: Any) -> None:
        self.vae = vae.requires_grad_(False).eval()

    def __call__(
        self, frames: Float[Tensor, "B T 3 H W"], fps: Float[Tensor, " B"], masks: Float[Tensor, "B T N H W"] | None = None
    ) -> Measurement:
        """Measure tokens (B, F*h*w, C), normalised per channel by the autoencoder's statistics; ``masks`` are passed on."""
        check_frames(frames, fps, least=1)
        ratio = frame_step(self.vae)
        if (frames.shape[1] - 1) % ratio:
            raise InputError(f"the autoencoder takes {ratio}k + 1 frames, not {frames.shape[1]}; cut or extend the clip")
        dtype = next(self.vae.parameters()).dtype
        latents = self.vae.encode((frames.transpose(1, 2) * 2 - 1).to(dtype)).latent_dist.mode().float()
        mean, std = (_per_channel(self.vae, key, latents) for key in ("latents_mean", "latents_std"))
        if mean.numel() == std.numel() == latents.shape[1]:
            latents = (latents - mean) / std
        return Measurement(fps=fps, features=latents.flatten(2).transpose(1, 2), masks=masks)


def frame_step(vae: Any) -> int:
    """Return r of the rk + 1 frames that a diffusers video autoencoder encodes without dropping any.

    It is the temporal ratio; but Wan's reads frames by fours whatever its ratio, and drops what is left over.
    """
    own = getattr(vae, "temporal_compression_ratio", None) or vae.config.get("temporal_compression_ratio")
    return int(own) if own else max(4, 2 ** sum(vae.config.temperal_downsample))


def _per_channel(vae: Any, name: str, like: Tensor) -> Float[Tensor, "C 1 1 1"]:
    """Return a statistic of the latents: a buffer (LTX-Video), a list in the config (Wan, Mochi), or empty."""
    buffer = dict(vae.named_buffers()).get(name)
    values = (vae.config.get(name) or ()) if buffer is None else buffer.tolist()
    return like.new_tensor(values).view(-1, 1, 1, 1)


class VJEPA2Features:
    """Tokens of a frozen V-JEPA 2 encoder, and its latent-prediction surprise.

    Args:
        path: folder of a ``VJEPA2Model`` in transformers format (``config.json`` and safetensors), nothing is downloaded.
        device: where the encoder runs.
        checkpoint: recompute activations in the backward pass (attention over thousands of tokens is costly to keep).

    Raises:
        InputError: the folder is missing or holds another model.

    Example::

        probe = VJEPA2Features("weights/vjepa2-vitl-fpc64-256")
        probe(frames, fps).features           # (B, T/2 * 16 * 16, 1024)
        probe.surprise(frames, context=8)     # (B,)
    """

    name = "vjepa2"
    differentiable = True
    measures = frozenset({"features"})

    def __init__(self, path: str | Path, device: torch.device | str = "cpu", checkpoint: bool = False) -> None:
        self.model = _vjepa2(Path(path)).to(device).eval().requires_grad_(False)
        if checkpoint:
            self._recompute()
        self.crop = int(self.model.config.crop_size)
        self.tubelet = int(self.model.config.tubelet_size)

    def __call__(
        self, frames: Float[Tensor, "B T 3 H W"], fps: Float[Tensor, " B"], masks: Float[Tensor, "B T N H W"] | None = None
    ) -> Measurement:
        """Measure tokens (B, T/tubelet * (crop/patch)^2, D), time-major; an odd last frame is repeated; masks are passed on."""
        check_frames(frames, fps, least=1)
        return Measurement(fps=fps, features=self.encode(frames), masks=masks)

    def _recompute(self) -> None:
        """Turn activation checkpointing on; transformers does it in training mode only, so nothing may be random there."""
        config = self.model.config
        if any(getattr(config, key, 0.0) for key in ("drop_path_rate", "hidden_dropout_prob", "attention_probs_dropout_prob")):
            raise InputError("this V-JEPA 2 model drops activations at random in training mode; use it with checkpoint=False")
        self.model.gradient_checkpointing_enable()
        self.model.train()

    def prepare(self, frames: Float[Tensor, "B T 3 H W"]) -> Tensor:
        """Resize to crop x crop (antialiased, without keeping the aspect ratio: nothing is cut off), pad time, normalise."""
        missing = -frames.shape[1] % self.tubelet
        frames = torch.cat([frames, frames[:, -1:].expand(-1, missing, -1, -1, -1)], dim=1) if missing else frames
        images = torch.nn.functional.interpolate(
            frames.flatten(0, 1), (self.crop, self.crop), mode="bilinear", antialias=True, align_corners=False
        )
        mean, std = images.new_tensor(MEAN).view(3, 1, 1), images.new_tensor(STD).view(3, 1, 1)
        return ((images - mean) / std).unflatten(0, frames.shape[:2])

    def encode(self, frames: Float[Tensor, "B T 3 H W"]) -> Float[Tensor, "B S D"]:
        """Return the encoder's tokens of the whole clip."""
        return self.model(pixel_values_videos=self.prepare(frames), skip_predictor=True).last_hidden_state

    def surprise(self, frames: Float[Tensor, "B T 3 H W"], context: int) -> Float[Tensor, " B"]:
        """Return how badly the first ``context`` frames predict the tokens of the rest: mean L1 distance per clip.

        Leak-free: the context frames are encoded *alone*. Masking through ``context_mask`` of the whole model would let
        attention see the future frames before the tokens are dropped.
        """
        if not 0 < context < frames.shape[1] or context % self.tubelet:
            raise InputError(
                f"context of {context} frames does not fit {frames.shape[1]} frames; give a smaller multiple of {self.tubelet}"
            )
        seen, whole = self.encode(frames[:, :context]), self.encode(frames)
        index = torch.arange(whole.shape[1], device=whole.device).expand(whole.shape[0], -1)
        cut = seen.shape[1]
        predicted = self.model.predictor(
            encoder_hidden_states=seen, context_mask=[index[:, :cut]], target_mask=[index[:, cut:]]
        ).last_hidden_state
        return (predicted - whole[:, cut:]).abs().mean((1, 2))


def _vjepa2(path: Path) -> Any:
    if not (path / "config.json").is_file():
        raise InputError(f"no V-JEPA 2 model in {str(path)!r}; give a local folder with config.json and safetensors weights")
    from transformers import AutoConfig, VJEPA2Model

    kind = AutoConfig.from_pretrained(path, local_files_only=True).model_type
    if kind != "vjepa2":
        raise InputError(f"the model in {str(path)!r} is of type {kind!r}; give a V-JEPA 2 model ('vjepa2')")
    if not list(path.glob("*.safetensors")):
        raise InputError(f"no safetensors weights in {str(path)!r}; convert the checkpoint with save_pretrained first")
    return VJEPA2Model.from_pretrained(path, local_files_only=True, use_safetensors=True)
