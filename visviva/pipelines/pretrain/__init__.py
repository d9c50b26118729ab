"""``visviva pretrain``: train a shipped model from scratch.

The tiny Wan (the video autoencoder, then the transformer with its text encoder), with ``model: flow`` the flow network
(`visviva.pipelines.pretrain.flow`), with ``model: motion`` the motion model (`visviva.pipelines.pretrain.motion`). All stages
resume exactly from their last complete checkpoint: everything random is keyed by (seed, stage, update).

Example::

    from visviva.configs.pretrain import PretrainRecipe
    from visviva.pipelines.pretrain import run
    model = run(PretrainRecipe(data="runs/train", validation="runs/val", out="runs/tiny-wan"))
"""

from __future__ import annotations

import time
from pathlib import Path

import torch

from visviva.configs.pretrain import PretrainRecipe
from visviva.models.backbones.tiny import tiny_wan
from visviva.pipelines.pretrain import (
    autoencoder,
    biomechanics,
    card,
    denoiser,
    flow,
    imdy,
    localiser,
    motion,
    motion_evaluator,
)
from visviva.pipelines.pretrain.clips import load_clips


def run(recipe: PretrainRecipe) -> Path:
    """Train and return the model's folder (``<out>/model``): a pipeline in diffusers format, bf16, or the flow network."""
    out = Path(recipe.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "recipe.json").write_text(recipe.model_dump_json(indent=1))
    device = _device(recipe.device)
    deadline = time.monotonic() + recipe.stop_after if recipe.stop_after else float("inf")
    if recipe.model == "flow":
        return flow.run(recipe, out, deadline)
    if recipe.model == "localiser":
        return localiser.run(recipe, out)
    if recipe.model == "motion-evaluator":
        return motion_evaluator.run(recipe, out)
    if recipe.model == "biomechanics":
        return biomechanics.run(recipe, out)
    if recipe.model == "imdy":
        return imdy.run(recipe, out, deadline)
    if recipe.model == "motion":
        return motion.run(recipe, out, deadline, device)
    if recipe.model == "reestimation":
        from visviva.pipelines.pretrain import reestimation

        return reestimation.run(recipe, out, deadline)
    backbone = tiny_wan(recipe.size, seed=recipe.seed)
    backbone.pipeline.to(device)
    train, held_out = load_clips(recipe.data, recipe.limit), load_clips(recipe.validation, 64)
    finished = autoencoder.train(backbone, recipe, train, held_out, out, deadline)
    if finished:
        denoiser.train(backbone, recipe, train, held_out, out, deadline)
    backbone.save(out / "model", dtype=torch.bfloat16)
    card.write(backbone, recipe, train, held_out, out, out / "model")
    return out / "model"


def _device(name: str) -> str:
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
