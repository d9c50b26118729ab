"""The backbone made ready for training: adapters or full weights in float32, encoders frozen, conditions precomputed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from visviva.configs.posttrain import PosttrainRecipe
from visviva.errors import InputError
from visviva.models.attention import momentum_attention
from visviva.models.backbones import families
from visviva.models.backbones.backbone import ENCODERS, Backbone
from visviva.models.backbones.condition import Condition
from visviva.models.control import add_control
from visviva.models.experts import physics_experts
from visviva.pipelines.posttrain.cache import Cache, weights_hash
from visviva.pipelines.posttrain.examples import Examples
from visviva.pipelines.posttrain.plan import key


def load(recipe: PosttrainRecipe, device: torch.device) -> Backbone:
    """Load the recipe's model.

    Raises:
        InputError: no such model, a family without adapter, or full training in bfloat16.
    """
    if recipe.weights == "full" and recipe.model.dtype != "float32":
        raise InputError(
            "weights: full trains in float32 (updates vanish below bfloat16's resolution); set model.dtype: float32 and, for "
            "speed, mixed_precision: bf16"
        )
    dtype = torch.float32 if recipe.model.dtype == "float32" else torch.bfloat16
    return families.load(recipe.model.path, dtype=dtype, device=device)


def freeze(backbone: Backbone, recipe: PosttrainRecipe) -> None:
    """Freeze all weights, and refuse clip sizes that the model cannot make."""
    for network in backbone.networks().values():
        network.requires_grad_(False).eval()
    backbone.latent_shape(1, recipe.data.frames, recipe.data.height, recipe.data.width)


def make_trainable(backbone: Backbone, recipe: PosttrainRecipe, phenomena: Sequence[str] = ()) -> None:
    """Add adapters (seeded by the recipe) or free all weights of the denoiser; trained weights are float32.

    ``phenomena`` are what experts per token are to tell apart, if anything.
    """
    blocks = recipe.reward.checkpointing in ("blocks", "both") if recipe.rewarded else recipe.sft.checkpointing
    branch = add_control(backbone, recipe.control.blocks) if recipe.control.kind == "force" else []
    if recipe.experts.kind == "prophy":
        branch = [*branch, *add_experts(backbone, recipe, phenomena)]
    if recipe.weights == "lora":
        options: dict[str, Any] = {} if recipe.lora.targets is None else {"targets": recipe.lora.targets}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(key(recipe.seed, "lora"))
            backbone.add_lora(recipe.lora.rank, alpha=recipe.lora.alpha, **options)
    for part in branch:
        part.requires_grad_(True)
    if recipe.attention.kind == "momentum":
        for network in backbone.networks().values():
            momentum_attention(network, **recipe.attention.model_dump(exclude={"kind"}))
    for network in backbone.networks().values():
        if recipe.weights == "full":
            network.requires_grad_(True)
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        if blocks:
            network.enable_gradient_checkpointing()
    if not any(True for _ in backbone.trainable()):
        raise InputError(f"lora.targets {recipe.lora.targets!r} matches no layer of the model; leave it out for the default")


def add_experts(backbone: Backbone, recipe: PosttrainRecipe, phenomena: Sequence[str] = ()) -> list[torch.nn.Module]:
    """Put the physical branch beside every network of the denoiser, seeded by the recipe; return what is to be trained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(recipe.seed, "experts"))
        options = recipe.experts.model_dump(include={"blocks", "semantic", "refinement", "active"})
        networks = backbone.networks().values()
        return [part for network in networks for part in physics_experts(network, **options, phenomena=phenomena)]


def conditions(
    backbone: Backbone, examples: Examples, recipe: PosttrainRecipe, accelerator: Any, latents: bool, name: str = "train"
) -> Cache:
    """Precompute every example's condition (and clean latents); each process makes its share, all wait.

    The cache depends on the encoders' weights, the examples, the negative prompt and the dtype.
    """
    encoders = [backbone.vae, backbone.text_encoder, backbone.image_encoder]
    encoders += [] if backbone.text_encoder_2 is None else [backbone.text_encoder_2]
    parts = {
        "encoders": shared(accelerator, lambda: weights_hash(encoders)),
        "examples": examples.freshness,
        "negative": recipe.data.negative,
        "family": backbone.family,
        "dtype": recipe.model.dtype,
        "latents": latents,
        "device": backbone.device.type,
        **({"control": recipe.control.kind} if recipe.control.kind != "none" else {}),
    }
    cache = Cache(Path(recipe.data.cache or Path(recipe.output) / "cache"), parts)
    mine = range(accelerator.process_index, len(examples), accelerator.num_processes)
    missing = list(cache.missing(mine))
    bar = tqdm(missing, desc=f"encoding {name} clips", unit="clip", disable=not missing or not accelerator.is_main_process)
    cache.fill(bar, lambda i: _entry(backbone, examples, recipe, i, latents))
    accelerator.wait_for_everyone()
    return cache


@torch.no_grad()
def _entry(backbone: Backbone, examples: Examples, recipe: PosttrainRecipe, index: int, latents: bool) -> Mapping[str, Tensor]:
    example = examples[index]
    first = example.first_frame[None] if backbone.image_to_video and example.first_frame is not None else None
    condition = backbone.condition(
        [example.caption], first, frames=recipe.data.frames, negative=recipe.data.negative, fps=example.fps
    )
    if recipe.control.kind == "force":
        condition = replace(condition, forces=example.force_table()[None].to(backbone.device))
    entry = {**condition.tensors(), "fps": torch.tensor([example.fps], dtype=torch.float32)}
    if latents and example.frames is not None:
        entry["latents"] = backbone.encode(example.frames[None])
    if latents and example.losers is not None and recipe.method in ("dpo", "phygdpo"):
        entry["losers"] = torch.cat([backbone.encode(loser[None]) for loser in example.losers])[None]
        if example.scores is not None:
            entry["scores"] = example.scores[None]
    return entry


BESIDE = ("fps", "latents", "losers", "scores")
"""What a cache entry holds beside the condition."""


def prepared(entries: list[dict[str, Tensor]], device: torch.device) -> dict[str, Any]:
    """Return cache entries as one batch on ``device``: ``condition``, ``fps``, and what else was cached (or None)."""
    parts = [Condition(**{n: t for n, t in e.items() if n not in BESIDE}) for e in entries]
    found: dict[str, Any] = {"condition": Condition.cat(parts).to(device)}
    for name in BESIDE:
        there = [e[name] for e in entries if name in e]
        if there and (len(there) < len(entries) or len({t.shape for t in there}) > 1):
            raise InputError(f"some clips have other {name} than others, or none; give every row equally many")
        found[name] = torch.cat(there).to(device) if there else None
    return found


def free_encoders(backbone: Backbone, keep: bool) -> None:
    """Drop text and image encoders from the device once everything is encoded; ``keep`` moves them to the CPU instead."""
    for name in ENCODERS:
        module = getattr(backbone, name, None)
        if module is None:
            continue
        if keep:
            module.to("cpu")
        else:
            setattr(backbone, name, None)
            backbone.pipeline.register_modules(**{name: None})
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def shared(accelerator: Any, compute: Any) -> Any:
    """Compute something on the main process and return it on all."""
    from accelerate.utils import broadcast_object_list

    values = [compute() if accelerator.is_main_process else None]
    broadcast_object_list(values)
    return values[0]
