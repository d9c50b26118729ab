"""CogVideoX (2B, 5B, 1.5; text-to-video and image-to-video) as diffusers loads it, told in the terms of a flow.

The network is a v-prediction diffusion model. At time t the scheduler mixes z = a x + b e (clean x, noise e, a^2 = alpha_bar_t,
a^2 + b^2 = 1) and the network answers u = a e - b x. Scaled by a + b the same mixture is that of a straight path,

    z / (a + b) = (1 - sigma) x + sigma e,      sigma = b / (a + b),      noise - clean = e - x = (b - a) z + (a + b) u,

so `velocity` is exact at the noise levels of the scheduler's table (between them t is interpolated), and a deterministic DDIM
step is an Euler step of it; the steps of the DPM scheduler are those of `visviva.models.backbones.dpm`. What belongs to a
flow model alone (``flow_matching_loss``) is refused; ``denoising_loss`` is the error of u.
Clips of 8k + 1 frames. Padding of the text is attended to.
Source: CogVideoX, arXiv 2408.06072; Salimans & Ho, arXiv 2202.00512 (v-prediction); DDIM, arXiv 2010.02502; diffusers' classes.
The form as a flow is derived here.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError
from visviva.models.backbones import flow_matching
from visviva.models.backbones.backbone import Backbone, Home
from visviva.models.backbones.condition import Condition, Text
from visviva.models.backbones.dpm import DPM
from visviva.models.backbones.flow_matching import precise


class CogVideoXBackbone(Backbone):
    """One CogVideoX pipeline behind the interface of all backbones.

    CogVideoX 1.5 joins latent frames in pairs: `noise` and the latents while sampling have one more frame in front, a padding
    that `sample` drops.

    Example::

        backbone = CogVideoXBackbone.load("THUDM/CogVideoX-2b", device="cuda")
        condition = backbone.condition(["a ball falls"], frames=49)
        frames = backbone.decode(backbone.sample(condition, backbone.noise([0], 49, 480, 720), steps=50, guidance_scale=6.0))
    """

    pipelines: ClassVar[tuple[str, ...]] = ("CogVideoXPipeline", "CogVideoXImageToVideoPipeline")
    lora_targets: ClassVar[str] = (
        r"transformer_blocks\.\d+\.attn1\.(to_q|to_k|to_v|to_out\.0)|transformer_blocks\.\d+\.ff\.net\.(0\.proj|2)"
    )
    kind = "v_prediction"

    def __init__(self, pipeline: Any) -> None:
        super().__init__(pipeline)
        config = self.transformer.config
        if self.scheduler.config.prediction_type != "v_prediction":
            raise InputError(
                f"this CogVideoX's scheduler has prediction_type {self.scheduler.config.prediction_type!r}; only "
                "v_prediction is supported; take the scheduler_config.json of the released model"
            )
        image = type(pipeline).__name__ == "CogVideoXImageToVideoPipeline"
        self.family, self.first_frames = ("cogvideox-i2v", "required") if image else ("cogvideox-t2v", "none")
        self.temporal_ratio, self.frame_step = int(self.vae.config.temporal_compression_ratio), 8
        self.spatial_ratio = 2 ** (len(self.vae.config.block_out_channels) - 1)
        self.pixel_step = self.spatial_ratio * int(config.patch_size)
        self.latent_channels = int(self.vae.config.latent_channels)
        self.text_length = int(config.max_text_seq_length)
        self.padding = 0 if config.patch_size_t is None else int(config.patch_size_t) - 1
        self.home = Home(49, 480, 720, 8.0) if config.patch_size_t is None else Home(81, 768, 1360, 16.0)

    def latent_shape(self, batch: int, frames: int, height: int, width: int) -> tuple[int, int, int, int, int]:
        """Return the latent shape (B, C, F, h, w) of clips of a size, without padding; refuses sizes the model cannot make."""
        shape = super().latent_shape(batch, frames, height, width)
        config = self.transformer.config
        learned = config.use_learned_positional_embeddings
        if learned and shape[3:] != (config.sample_height, config.sample_width):
            own = f"{config.sample_height * self.spatial_ratio} x {config.sample_width * self.spatial_ratio}"
            raise InputError(f"{height} x {width} pixels: this model has learned positions for {own} only; use that size")
        return shape

    def noise(self, seeds: list[int], frames: int, height: int, width: int) -> Float[Tensor, "B C F h w"]:
        """Return standard normal start latents, with the padding of CogVideoX 1.5; see `Backbone.noise`."""
        _, c, f, h, w = self.latent_shape(1, frames, height, width)
        draws = [torch.randn(c, f + self.padding, h, w, generator=torch.Generator().manual_seed(int(s))) for s in seeds]
        return torch.stack(draws).to(self.device)

    # ----------------------------------------------------------------------------------------------------- conditions

    def encode_text(self, prompts: list[str]) -> Text:
        """Encode prompts by the pipeline's T5."""
        hidden, _ = self.pipeline.encode_prompt(
            prompts, do_classifier_free_guidance=False, max_sequence_length=self.text_length, device=self.text_encoder.device
        )
        return Text(hidden)

    def encode_first_frames(self, image: Float[Tensor, "B 3 H W"], frames: int) -> dict[str, Tensor | None]:
        """Encode first frames as channels: the frame's latents, in 1.5 at the place of the padding, then zeros."""
        latents = self.encode(image.unsqueeze(1))
        if self.vae.config.invert_scale_latents:  # the 5B image-to-video models were trained with the inverse factor
            latents = latents / self.vae.config.scaling_factor**2
        shape = (*latents.shape[:2], (frames - 1) // self.temporal_ratio + self.padding, *latents.shape[3:])
        return {"channels": torch.cat([latents, latents.new_zeros(shape)], dim=2)}

    # ------------------------------------------------------------------------------------------------------------ VAE

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Return 0 and the inverse of the autoencoder's scaling factor."""
        one = torch.ones(1, self.latent_channels, 1, 1, 1, device=self.vae.device, dtype=self.vae.dtype)
        return torch.zeros_like(one), one / self.vae.config.scaling_factor

    # ------------------------------------------------------------------------------------------------------- velocity

    def _predict(self, latents: Tensor, sigma: Tensor, text: Text, condition: Condition) -> Tensor:
        a, b = self._mixture(latents, sigma)
        z = latents * (a + b)
        u = self._run(z, self.time(sigma), text.embeddings, condition)
        return (b - a) * z + (a + b) * u

    def _run(self, z: Tensor, time: Tensor, prompt: Tensor, condition: Condition) -> Tensor:
        dtype = self.transformer.dtype
        config = self.transformer.config
        inputs = z if condition.channels is None else torch.cat([z, condition.channels.to(z)], dim=1)
        inputs = self.with_forces(self.transformer, inputs, condition, self.padding)
        u = self.transformer(
            hidden_states=inputs.transpose(1, 2).to(dtype),
            encoder_hidden_states=prompt.to(dtype),
            timestep=time,
            ofs=None if config.ofs_embed_dim is None else z.new_full((1,), 2.0),
            image_rotary_emb=self._positions(z) if config.use_rotary_positional_embeddings else None,
            return_dict=False,
        )[0]
        return precise(u).transpose(1, 2)

    def _positions(self, z: Tensor) -> Any:
        height, width = (side * self.spatial_ratio for side in z.shape[3:])
        return self.pipeline._prepare_rotary_positional_embeddings(height, width, z.shape[2], z.device)

    @staticmethod
    def _mixture(latents: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Return a and b of z = a x + b e at a noise level, (B, 1, 1, 1, 1)."""
        s = sigma.to(latents.dtype).view(-1, 1, 1, 1, 1)
        length = (s.square() + (1 - s).square()).sqrt()
        return (1 - s) / length, s / length

    # ---------------------------------------------------------------------------------------------------- noise levels

    def table(self) -> Float[Tensor, "steps"]:
        """Return the noise level sigma = b / (a + b) of every time of the scheduler, ascending, float64."""
        clean = self.scheduler.alphas_cumprod.double()
        a, b = clean.sqrt(), (1 - clean).sqrt()
        return b / (a + b)

    def time(self, sigma: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
        """Return the scheduler's time of noise levels, interpolated linearly in sigma between those of its table."""
        table = self.table().to(sigma.device)
        s = sigma.double().clamp(table[0], table[-1])
        upper = torch.searchsorted(table, s).clamp(1, len(table) - 1)
        low, high = table[upper - 1], table[upper]
        time = upper - 1 + (s - low) / (high - low)
        near = time.round()  # the levels of a sampler are float32 and mean times of the table
        return torch.where((time - near).abs() < 1e-2, near, time).float()

    def shift(self, shape: tuple[int, ...] | None = None) -> float:
        """Return 1: noise levels are those of the scheduler's table."""
        return 1.0

    def sigmas(
        self, steps: int, shift: float | None = None, shape: tuple[int, ...] | None = None
    ) -> Float[Tensor, "steps_plus_1"]:
        """Return the noise levels of the scheduler's times, and 0. The same as the scheduler's DDIM where steps divide 1000.

        Raises:
            InputError: a time shift, or more steps than the table has times.
        """
        if shift is not None and shift != 1.0:
            raise InputError(f"sampler.shift = {shift:g}: CogVideoX's noise levels are those of its scheduler; leave shift out")
        times = len(self.scheduler.alphas_cumprod)
        if not 1 <= steps <= times:
            raise InputError(f"sampler steps = {steps}; CogVideoX can be sampled in 1 to {times}")
        self.scheduler.set_timesteps(steps)
        levels = self.table()[self.scheduler.timesteps.cpu()]
        return torch.cat([levels, levels.new_zeros(1)]).float()

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
        composed: bool = False,
        detach: bool = False,
    ) -> Float[Tensor, "B C F2 h w"]:
        """Sample clean latents, without the padding of CogVideoX 1.5; see `flow_matching.sample`.

        By DDIM without noise or, with the scheduler `CogVideoXDPMScheduler`, by `dpm.DPM` (recommended for 5B models).
        """
        first = self.sigmas(steps, shift)[:1].to(noise.device)
        a, b = self._mixture(noise, first)
        made = super().sample(
            condition,
            noise / (a + b),
            steps=steps,
            shift=shift,
            guidance_scale=guidance_scale,
            grad_steps=grad_steps,
            checkpoint=checkpoint,
            guide=guide if guide is None or not self.padding else self._without_padding(guide),
            composed=composed,
            detach=detach,
        )
        return self.trim(made)

    def advance(self, noise: Tensor) -> flow_matching.Advance:
        """Return the steps of the pipeline's scheduler, DPM's or DDIM's (which are Euler's)."""
        return DPM(noise) if type(self.scheduler).__name__ == "CogVideoXDPMScheduler" else flow_matching.euler

    def trim(self, latents: Tensor) -> Tensor:
        """Return latents without the padding of CogVideoX 1.5, which lies in front."""
        return latents[:, :, self.padding :]

    def pad(self, latents: Tensor) -> Tensor:
        """Return latents padded in front with their first frame (1.5), as the model was trained."""
        return torch.cat([*[latents[:, :, :1]] * self.padding, latents], dim=2)

    def _without_padding(self, guide: flow_matching.Guide) -> flow_matching.Guide:
        def guided(clean: Tensor, step: int, sigma: float) -> Tensor | None:
            move = guide(self.trim(clean), step, sigma)
            return None if move is None else torch.cat([torch.zeros_like(clean[:, :, : self.padding]), move], dim=2)

        return guided

    def denoising_loss(
        self,
        clean: Float[Tensor, "B C F h w"],
        noise: Float[Tensor, "B C F2 h w"],
        sigma: Float[Tensor, "B"],
        condition: Condition,
    ) -> Float[Tensor, "B"]:
        """Return the mean squared error of u per clip; ``clean`` is padded in front with its first frame (1.5).

        |u - (a e - b x)|^2 = (sigma^2 + (1 - sigma)^2) |v - (noise - clean)|^2, which is also the released training script's
        error of the predicted clean latents, weighted by 1 / (1 - alpha_bar).
        """
        clean = self.pad(clean)
        return (sigma.square() + (1 - sigma).square()) * flow_matching.loss(self, clean, noise, sigma, condition)
