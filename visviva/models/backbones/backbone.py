"""What all video backbones share: one interface around the pipelines of every diffusers family.

Shapes: frames (B, T, 3, H, W) in [0, 1]; latents (B, C, F, h, w), normalised with the autoencoder's statistics. Outside the
adapters the velocity is v = noise - clean, whatever a family's network predicts. A family's file says what differs: how its
networks are called, its text, its first frames, its noise levels, its latents' statistics.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError
from visviva.models.attention import saved
from visviva.models.backbones import flow_matching
from visviva.models.backbones.checkpoint import quiet, read_pipeline
from visviva.models.backbones.condition import Condition, Text
from visviva.models.control.composed import Composed
from visviva.models.control.force import MOST, pictures
from visviva.models.control.saved import controlled

ENCODERS = ("text_encoder", "text_encoder_2", "image_encoder")
"""Networks that are needed only until the conditions are encoded, by their names in a pipeline."""


class Home(NamedTuple):
    """The size that a released model was trained on: frames, height and width [px], frames/s."""

    frames: int
    height: int
    width: int
    fps: float


class Backbone:
    """One pipeline with everything that training and sampling need, differentiable where mathematics allows.

    Attributes:
        family: name of the model family and variant, such as "wan2.1-t2v".
        kind: "flow" (the network predicts the velocity of a straight path) or "v_prediction" (that of a variance-preserving
            diffusion; `velocity` is then computed from it, but objectives that need a flow model are not defined).
        first_frames: whether clips are conditioned on a first frame: "none", "optional" or "required".
        causal_decoder: whether the first frames of a clip can be decoded from the first latents alone, with the same result.
        home: the size of the clips the model was trained on, None if it is not known.
        guidance_in_graph: whether the unconditional branch of guidance carries gradient too.

    Example::

        backbone = families.load("Lightricks/LTX-Video", dtype=torch.bfloat16, device="cuda")
        condition = backbone.condition(["a ball falls"], first_frames, frames=97)
        latents = backbone.sample(condition, backbone.noise([0], 97, 512, 704), steps=30, guidance_scale=3.0)
        frames = backbone.decode(latents)
    """

    pipelines: ClassVar[tuple[str, ...]] = ()
    lora_targets: ClassVar[str] = ""
    kind: Literal["flow", "v_prediction"] = "flow"
    first_frames: Literal["none", "optional", "required"] = "none"
    causal_decoder = False
    home: Home | None = None
    family: str
    temporal_ratio: int
    spatial_ratio: int
    frame_step: int
    pixel_step: int
    latent_channels: int
    text_length: int

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline
        self.transformer: Any = pipeline.transformer
        self.transformer_2: Any = getattr(pipeline, "transformer_2", None)
        self.vae, self.scheduler, self.tokenizer = pipeline.vae, pipeline.scheduler, pipeline.tokenizer
        self.text_encoder: Any = pipeline.text_encoder
        self.text_encoder_2: Any = getattr(pipeline, "text_encoder_2", None)
        self.image_encoder: Any = getattr(pipeline, "image_encoder", None)
        self.guidance_in_graph = True
        for frozen in (self.vae, *(getattr(self, name) for name in ENCODERS)):
            if frozen is not None:
                frozen.requires_grad_(False).eval()

    # ------------------------------------------------------------------------------------------------ loading and saving

    @classmethod
    def load(cls, path: str | Path, *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu") -> Backbone:
        """Load a pipeline of this family: a local folder, or a hub id. Only safetensors are read.

        Weights that do not fit their config are refused (`visviva.models.backbones.checkpoint`).
        The VAE is always kept in float32, because second differences of frames amplify rounding.
        """
        return cls(read_pipeline(path, dtype, cls.pipelines).to(device))

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

    @property
    def image_to_video(self) -> bool:
        """Whether the model takes first frames."""
        return self.first_frames != "none"

    # ----------------------------------------------------------------------------------------------------------- sizes

    def latent_shape(self, batch: int, frames: int, height: int, width: int) -> tuple[int, int, int, int, int]:
        """Return the latent shape (B, C, F, h, w) for clips of a size; refuses sizes the model cannot make."""
        step = self.frame_step
        if (frames - 1) % step:
            near = (frames - 1) // step * step + 1
            raise InputError(f"frames = {frames}: this model makes {step}k + 1 frames; use {near} or {near + step}")
        for name, size in (("height", height), ("width", width)):
            if size % self.pixel_step or size < self.pixel_step:
                raise InputError(f"{name} = {size}: this model needs a multiple of {self.pixel_step} pixels")
        f = (frames - 1) // self.temporal_ratio + 1
        return batch, self.latent_channels, f, height // self.spatial_ratio, width // self.spatial_ratio

    def noise(self, seeds: list[int], frames: int, height: int, width: int) -> Float[Tensor, "B C F h w"]:
        """Return standard normal start latents, one seeded CPU generator per clip: the same on every device and batch split."""
        shape = self.latent_shape(1, frames, height, width)[1:]
        draws = [torch.randn(shape, generator=torch.Generator().manual_seed(int(seed))) for seed in seeds]
        return torch.stack(draws).to(self.device)

    # ----------------------------------------------------------------------------------------------------- conditions

    def encode_text(self, prompts: list[str]) -> Text:
        """Encode prompts as the family's own pipeline does, padded to its fixed length."""
        raise NotImplementedError

    def encode_prompts(self, prompts: list[str], negative: str, first_frames: Tensor | None) -> tuple[Text, Text]:
        """Encode prompts and one negative prompt; where a family's text encoder sees first frames, together with these."""
        return self.encode_text(prompts), self.encode_text([negative])

    def encode_first_frames(self, image: Float[Tensor, "B 3 H W"], frames: int) -> dict[str, Tensor | None]:
        """Encode first frames in [0, 1] as fields of a `Condition`; ``frames`` is the length of the clip to be made."""
        return {"first_frame": self.encode(image.unsqueeze(1))}

    @torch.no_grad()
    def condition(
        self,
        prompts: list[str],
        first_frames: Float[Tensor, "B 3 H W"] | None = None,
        *,
        frames: int = 17,
        negative: str = "",
        fps: float | list[float] | None = None,
    ) -> Condition:
        """Encode prompts and first frames (in [0, 1]).

        Args:
            prompts: one per clip.
            first_frames: one per clip, where the family takes them.
            frames: the length of the clips to be made.
            negative: the negative prompt of classifier-free guidance.
            fps: frame rate of each clip, for families that are told it; None takes the one the model was trained on.
        """
        self._refuse_first_frames(len(prompts), first_frames)
        text, negatives = self.encode_prompts(prompts, negative, first_frames)
        parts: dict[str, Any] = {f"prompt{part}": x for part, x in zip(("", "_mask", "_pooled"), text, strict=True)}
        for part, x in zip(("", "_mask", "_pooled"), negatives, strict=True):
            parts[f"negative{part}"] = None if x is None else x.expand(len(prompts), *x.shape[1:])
        if first_frames is not None:
            parts |= self.encode_first_frames(first_frames.to(self.device, self.vae.dtype), frames)
        return Condition(**parts, **self._frame_rate(len(prompts), fps))

    def _frame_rate(self, clips: int, fps: float | list[float] | None) -> dict[str, Tensor]:
        return {}

    def _refuse_first_frames(self, clips: int, given: Tensor | None) -> None:
        if self.first_frames == "required" and given is None:
            raise InputError(f"{self.family} is an image-to-video model: give first frames, or choose a text-to-video model")
        if self.first_frames == "none" and given is not None:
            raise InputError(
                f"{self.family} is a text-to-video model and takes no first frames; choose an image-to-video model"
            )
        if given is not None and len(given) != clips:
            raise InputError(f"{clips} prompts but {len(given)} first frames; give one frame per prompt")

    # ------------------------------------------------------------------------------------------------------------ VAE

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the autoencoder's latents, (1, C, 1, 1, 1): normalised = (raw - mean) / std."""
        raise NotImplementedError

    def encode(self, frames: Float[Tensor, "B T 3 H W"]) -> Float[Tensor, "B C F h w"]:
        """Encode frames in [0, 1] to normalised latents (the posterior's mode), in the autoencoder's precision."""
        mean, std = self.statistics()
        video = (frames.to(self.vae.device, self.vae.dtype) * 2 - 1).transpose(1, 2)
        return (self.vae.encode(video).latent_dist.mode() - mean) / std

    def decode(
        self, latents: Float[Tensor, "B C F h w"], clamp: str = "straight_through", *, checkpoint: bool = False
    ) -> Float[Tensor, "B T 3 H W"]:
        """Decode normalised latents to frames in [0, 1], in the autoencoder's precision.

        ``clamp``: ``"straight_through"`` clamps the value but lets every gradient through (a hard clamp would give none where
        the decoder leaves [0, 1]); ``"hard"`` clamps both; ``"none"`` returns the raw range.
        ``checkpoint`` recomputes the decoding (Wan: of each latent frame; others: of each block) in the backward pass
        instead of storing its activations.
        """
        mean, std = self.statistics()
        frames = self._decode(latents.to(self.vae.dtype) * std + mean, checkpoint).transpose(1, 2) * 0.5 + 0.5
        if clamp == "none":
            return frames
        if clamp == "hard":
            return frames.clamp(0, 1)
        if clamp != "straight_through":
            raise InputError(f"clamp = {clamp!r}; allowed: straight_through, hard, none")
        return frames + (frames.clamp(0, 1) - frames).detach()

    def _decode(self, latents: Tensor, checkpoint: bool) -> Tensor:
        """Decode raw latents (B, C, F, h, w) to (B, 3, T, H, W) in [-1, 1], not clamped."""
        self.recompute_blocks(checkpoint)
        return self.vae.decode(latents, return_dict=False)[0]

    def recompute_blocks(self, recompute: bool) -> None:
        """Set whether the autoencoder recomputes its blocks in the backward pass."""
        if recompute and not self.vae.is_gradient_checkpointing:
            self.vae.enable_gradient_checkpointing()
        elif not recompute and self.vae.is_gradient_checkpointing:
            self.vae.disable_gradient_checkpointing()

    # ------------------------------------------------------------------------------------------------------- velocity

    def trim(self, latents: Tensor) -> Tensor:
        """Return latents as `decode` takes them, without what a family pads them with while sampling."""
        return latents

    def pad(self, latents: Tensor) -> Tensor:
        """Return clean latents with what a family pads them with; `trim` takes it away again."""
        return latents

    def hold(self, latents: Tensor, condition: Condition) -> Tensor:
        """Write the given first latent frame into ``latents``, where the family keeps it there."""
        if condition.first_frame is None:
            return latents
        return torch.cat([condition.first_frame.to(latents), latents[:, :, 1:]], dim=2)

    def start(self, noise: Tensor, condition: Condition) -> Tensor:
        """Return the latents that sampling begins with: the noise, and the given first frame where the family keeps it."""
        return self.hold(noise, condition)

    def velocity(
        self, latents: Float[Tensor, "B C F h w"], sigma: Float[Tensor, "B"], condition: Condition, guidance_scale: float = 1.0
    ) -> Float[Tensor, "B C F h w"]:
        """Return v = noise - clean, with classifier-free guidance v_neg + w (v - v_neg) if w differs from 1.

        float32, or float64 where the network is.
        """
        if condition.forces is not None:
            self.refuse_forces()
        v = self._predict(latents, sigma, condition.positive_text, condition)
        if guidance_scale != 1.0:
            with torch.set_grad_enabled(torch.is_grad_enabled() and self.guidance_in_graph):
                unguided = self._predict(latents, sigma, condition.negative_text, condition)
            v = unguided + guidance_scale * (v - unguided)
        if condition.first_frame is not None:
            v = torch.cat([torch.zeros_like(v[:, :, :1]), v[:, :, 1:]], dim=2)
        return v

    def refuse_forces(self) -> None:
        """Raise an `InputError` if this model has no force control."""
        if not controlled(self.transformer):
            raise InputError(
                f"forces for a {self.family} model without force control, which would be ignored; put adapters trained with "
                "control.kind: force onto it (visviva generate --lora FOLDER), or train them (visviva posttrain --config "
                "posttrain-force; Wan and CogVideoX models take them)"
            )

    def with_forces(self, network: Any, latents: Tensor, condition: Condition, padding: int = 0) -> Tensor:
        """Return a network's input with the encoded forces behind its channels, where the network takes forces.

        The first ``padding`` latent frames are none of the clip's; they get what its first one gets.
        """
        if not controlled(network):
            return latents
        frames, (height, width) = latents.shape[2] - padding, latents.shape[3:]
        size = ((frames - 1) * self.temporal_ratio + 1, height * self.spatial_ratio, width * self.spatial_ratio)
        tables = latents.new_zeros(len(latents), MOST, 5) if condition.forces is None else condition.forces
        encoded = network.force_encoder(pictures(tables, *size).to(network.dtype)).to(latents)
        return torch.cat([latents, torch.cat([*[encoded[:, :, :1]] * padding, encoded], 2)], 1)

    def _predict(self, latents: Tensor, sigma: Tensor, text: Text, condition: Condition) -> Tensor:
        """Return v of one branch of guidance."""
        raise NotImplementedError

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
    ) -> Float[Tensor, "B C F h w"]:
        """Sample clean latents; see `flow_matching.sample`. ``shift`` defaults to the scheduler's own.

        ``composed``: several forces on a clip act each by itself, and what they change is added (`Composed`).
        """
        return flow_matching.sample(
            Composed(self) if composed else self,
            condition,
            self.start(noise, condition),
            steps=steps,
            levels=self.sigmas(steps, shift, tuple(noise.shape)),
            guidance_scale=guidance_scale,
            grad_steps=grad_steps,
            checkpoint=checkpoint,
            guide=guide,
            advance=self.advance(noise),
            detach=detach,
        )

    def advance(self, noise: Tensor) -> flow_matching.Advance:
        """Return what takes the steps of one run from ``noise``: Euler's, but for schedulers that have others."""
        return flow_matching.euler

    def shift(self, shape: tuple[int, ...] | None = None) -> float:
        """Return the time shift that the pipeline's scheduler has for latents of a shape (B, C, F, h, w)."""
        config = self.scheduler.config
        return float(config.get("flow_shift", config.get("shift", 1.0)))

    def sigmas(
        self, steps: int, shift: float | None = None, shape: tuple[int, ...] | None = None
    ) -> Float[Tensor, "steps_plus_1"]:
        """Return the descending noise levels of the sampler for latents of a shape; see `flow_matching.sigmas`."""
        return flow_matching.sigmas(steps, self.shift(shape) if shift is None else shift)

    def flow_matching_loss(
        self,
        clean: Float[Tensor, "B C F h w"],
        noise: Float[Tensor, "B C F h w"],
        sigma: Float[Tensor, "B"],
        condition: Condition,
    ) -> Float[Tensor, "B"]:
        """Return the flow-matching loss per clip; see `flow_matching.loss`. Only of models of the kind "flow"."""
        if self.kind != "flow":
            raise InputError(
                f"{self.family} predicts {self.kind}, not a flow: flow matching, and dpo and phygdpo in velocities, are not "
                "defined for it; use reward_backprop, refl or sft with it"
            )
        return flow_matching.loss(self, clean, noise, sigma, condition)

    def denoising_loss(
        self,
        clean: Float[Tensor, "B C F h w"],
        noise: Float[Tensor, "B C F h w"],
        sigma: Float[Tensor, "B"],
        condition: Condition,
    ) -> Float[Tensor, "B"]:
        """Return the loss per clip that the family itself was trained with: flow matching, or that of its own prediction."""
        return self.flow_matching_loss(clean, noise, sigma, condition)

    # ----------------------------------------------------------------------------------------------------------- LoRA

    def networks(self) -> dict[str, Any]:
        """Return the denoising networks by their pipeline names."""
        pair = {"transformer": self.transformer, "transformer_2": self.transformer_2}
        return {name: network for name, network in pair.items() if network is not None}

    def add_lora(self, rank: int = 16, alpha: int | None = None, targets: str | None = None) -> None:
        """Freeze the networks and add trainable low-rank adapters to the layers whose whole names match the regex ``targets``.

        None takes the family's own (``lora_targets``): attention and feed-forward layers of the transformer's blocks; never the
        embedders and the text refiners beside them.

        Raises:
            InputError: a pattern that is none, that matches no layer, or that matches the copied blocks of a branch.
        """
        from peft import LoraConfig

        layers = self.lora_targets if targets is None else targets
        for network in self.networks().values():
            _refuse_copied(network, layers)
            network.requires_grad_(False)
            try:
                network.add_adapter(LoraConfig(r=rank, lora_alpha=alpha or rank, init_lora_weights=True, target_modules=layers))
            except ValueError as error:  # such as layers that are not linear, or adapters that are there already
                raise InputError(f"lora targets {layers!r}: {str(error).splitlines()[0]}") from error

    def save_lora(self, path: str | Path) -> int:
        """Write the adapters so that ``pipe.load_lora_weights(path)`` of plain diffusers loads them; return the number of keys.

        A second expert (Wan 2.2 A14B) goes to ``path/transformer_2``: load it with ``load_into_transformer_2=True``. Momentum
        attention stands beside the adapters (`visviva.models.attention.saved`).
        """
        from peft.utils import get_peft_model_state_dict

        keys = 0
        for name, network in self.networks().items():
            layers = get_peft_model_state_dict(network)
            folder = Path(path) if name == "transformer" else Path(path) / name
            type(self.pipeline).save_lora_weights(
                folder,
                transformer_lora_layers=layers,
                transformer_lora_adapter_metadata=network.peft_config["default"].to_dict(),
            )
            keys += len(layers) + saved.save(network, dict(network.named_parameters()), folder)
        return keys

    def trainable(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """Yield the named parameters that require gradients."""
        for name, network in self.networks().items():
            for key, parameter in network.named_parameters():
                if parameter.requires_grad:
                    yield f"{name}.{key}", parameter


def _refuse_copied(network: Any, layers: str) -> None:
    """Refuse adapters on the copied blocks of a branch, which is trained whole and which plain diffusers does not have."""
    try:
        pattern = ".*" if layers == "all-linear" else layers  # peft's word
        hit = [name for name, _ in network.named_modules() if re.fullmatch(pattern, name)]
    except re.error as error:
        raise InputError(
            f"lora targets {layers!r} are no regular expression ({error}); leave them out for the default"
        ) from error
    beside = [name for name in hit if re.search(r"\.(physics|control)(\.|$)", name)]
    if beside:
        raise InputError(
            f"lora targets {layers!r} match {len(beside)} layers of a branch beside the blocks, such as {beside[0]!r}, which "
            "is trained whole; narrow the pattern, or leave it out for the default"
        )
    if not hit:
        raise InputError(f"lora targets {layers!r} match no layer of the model; leave them out for the default")


def _cast_files(folder: Path, dtype: torch.dtype) -> None:
    from safetensors.torch import load_file, save_file

    for file in folder.rglob("*.safetensors"):
        tensors = {k: v.to(dtype) if v.is_floating_point() else v for k, v in load_file(file).items()}
        save_file(tensors, file, metadata={"format": "pt"})
