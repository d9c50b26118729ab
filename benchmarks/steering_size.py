"""What an update of every objective holds in memory at the size of Wan 2.1 1.3B, counted without running it.

    python benchmarks/steering_size.py      # prints; steering_cost.py writes it with the rest

The package's own objectives on `FakeTensorMode` tensors, which have sizes and no numbers, under `steering_memory.Live`: 81 x
480 x 832, one clip (pair, group of 8) per update, four sampler steps, bfloat16 weights and autocast, float32 adapters and
autoencoder, blocks and decoded latents computed again. Left out: probe and laws, which look at numbers; what a kernel takes
for itself; the allocator's gaps. `calibrated` counts the step of `law_cost.py` in the same way, whose memory an NVIDIA H200
measured.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanPipeline
from law_cost import FULL, adapted, denoised, denoiser
from steering import ARMS
from steering_memory import ONE, Live
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from visviva.configs.posttrain import PosttrainRecipe
from visviva.configs.schema import load
from visviva.models.backbones.condition import Condition
from visviva.models.backbones.wan import WanBackbone
from visviva.pipelines.posttrain import model
from visviva.pipelines.posttrain.batch import Batch
from visviva.pipelines.posttrain.dpo import Preference
from visviva.pipelines.posttrain.grpo import Grpo
from visviva.pipelines.posttrain.reference import reference
from visviva.pipelines.posttrain.refl import Predicted
from visviva.pipelines.posttrain.rollout import Rollout
from visviva.pipelines.posttrain.sft import Sft

SHOT = (1, 16, 21, 60, 104)
"""Latents of a clip of 81 x 480 x 832."""
COUNTED: dict[str, tuple[str, dict[str, Any]]] = {
    "sft": ("sft", {}),
    "sft+attention": ("sft+attention", {}),
    "sft+experts": ("sft+experts", {}),
    "dpo": ("dpo", {}),
    "refl": ("refl", {}),
    "newton": ("newton", {}),
    "newton, K = 1, first 13 frames": ("newton", {"reward.grad_steps": 1, "reward.window": {"start": 0, "frames": 13}}),
    "grpo-flow, group of 2": ("grpo-flow", {"grpo.group": 2}),
    "grpo-flow, group of 3": ("grpo-flow", {"grpo.group": 3}),
}
"""What is counted: the arm, and what is changed in it. A group of 8 follows from those of 2 and 3, `of_eight`."""


def counted(case: str) -> dict[str, float]:
    """GB of weights and states, and peak GB of activations beside them, of an update of one clip at full size."""
    arm, more = COUNTED[case]
    name, changes = ARMS[arm]
    recipe = load(PosttrainRecipe, name, **{"data.path": "", **changes, **ONE, **more})
    backbone = wan()
    model.freeze(backbone, recipe)
    model.make_trainable(backbone, recipe)
    with FakeTensorMode(allow_non_fake_inputs=True):
        faked(backbone.transformer), faked(backbone.vae)
        batch = shot()
        trained = [p for _, p in backbone.trainable()]
        for parameter in trained:
            parameter.grad = torch.zeros_like(parameter)  # counted among the states
    frozen = sum(p.numel() for p in backbone.transformer.parameters()) - sum(p.numel() for p in trained)
    states = 2 * frozen + 4 * 5 * sum(p.numel() for p in trained)
    with Live() as live:
        loss = objective(recipe, backbone)(batch)
        before = live.now
        loss.backward()
    return {"weights_gb": states / 1e9, "activations_gb": live.peak / 1e9, "held_before_backward_gb": before / 1e9}


def wan() -> WanBackbone:
    """Wan 2.1 1.3B on the meta device, its autoencoder in float32."""
    transformer = denoiser("meta", 30, torch.bfloat16).eval()
    with torch.device("meta"):
        vae = AutoencoderKLWan().requires_grad_(False)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    return WanBackbone(WanPipeline(None, None, vae, scheduler, transformer=transformer))


def faked(network: nn.Module) -> None:
    """Give a network of the meta device tensors of the mode that is on, which pass for the CPU's."""
    for module in network.modules():
        for name, old in module._parameters.items():
            if old is not None:
                new = torch.empty(old.shape, dtype=old.dtype, device="cpu")
                module._parameters[name] = nn.Parameter(new, old.requires_grad)
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else torch.empty(buffer.shape, dtype=buffer.dtype, device="cpu")


def shot() -> Batch:
    """One clip's latents, text and loser."""
    latents, text = torch.randn(SHOT), torch.randn(1, 512, 4096)
    return Batch(
        Condition(text, text),
        torch.randn(SHOT),
        [0],
        torch.full((1,), 16.0),
        latents=latents,
        losers=torch.randn(1, *SHOT),
        scores=torch.rand(1, 1, 2),
    )


def objective(recipe: PosttrainRecipe, backbone: WanBackbone) -> Callable[[Batch], Tensor]:
    """Return an arm's loss; clips are not judged but multiplied with the reference clip, or for GRPO get no number at all."""
    half, off = torch.bfloat16, partial(reference, backbone.networks(), None, {})
    sft = Sft(backbone, recipe.sft, recipe.sampler.shift, half)
    if recipe.method == "sft":
        return lambda batch: sft(batch)[0].sum()
    if recipe.method in ("dpo", "phygdpo"):
        preference = Preference(sft, recipe.preference, off, guided=recipe.method == "phygdpo")
        return lambda batch: preference(batch)[0].sum()
    rollout = Rollout(backbone, recipe.sampler, recompute_decoder=True, clamp=recipe.reward.clamp, autocast=half)
    if recipe.method == "grpo":
        return lambda batch: grouped(recipe, rollout, off)(batch)[0].sum()
    graded = Predicted(**vars(rollout), late=recipe.refl.late) if recipe.method == "refl" else rollout

    def judged(batch: Batch) -> Tensor:
        with torch.no_grad():
            latents = rollout.latents(batch) if recipe.reward.reference == "base" else batch.noise
            base = rollout.decode(latents, recipe.reward.window.frames)
        frames = graded.decode(graded.latents(batch, recipe.reward.grad_steps), recipe.reward.window.frames)
        return (frames * base).mean()  # the other clip is kept

    return judged


def grouped(recipe: PosttrainRecipe, rollout: Rollout, off: Callable[[], Any]) -> Callable[[Batch], Any]:
    """GRPO with a judge that says nothing of the clips but how many they are."""

    def says(frames: Tensor, many: Batch, base: Tensor | None) -> tuple[Any, None]:
        nothing = frames[:, 0, 0, 0, 0]
        return SimpleNamespace(log_reward=nothing, loss=nothing), None

    judge: Any = SimpleNamespace(rollout=rollout, sft=None, judge=says, end=lambda many: None, logged=lambda *_: {})
    grpo = Grpo(judge, recipe.grpo, off, shape=SHOT)

    def run(batch: Batch) -> Any:
        with patch("visviva.pipelines.posttrain.grpo.finite", lambda frames: frames):
            return grpo(batch)

    return run


def of_eight(rows: dict[str, dict[str, float]]) -> dict[str, float]:
    """GRPO's group of eight, on the line through those of two and three: every member adds the same."""
    two, three = (rows[f"grpo-flow, group of {n}"] for n in (2, 3))
    return {name: two[name] + 6 * (three[name] - two[name]) for name in two}


def counts() -> dict[str, Any]:
    """All cases, and the calibration."""
    rows = {}
    for case in COUNTED:
        rows[case] = counted(case)
        print(case, rows[case], flush=True)
    return {"cases": rows, "grpo-flow, group of 8": of_eight(rows), "calibrated": calibrated()}


def calibrated() -> dict[str, Any]:
    """Count the adapters' step of `law_cost.py` in GiB, beside what an H200 had."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        network = adapted(denoiser("cpu", 30, torch.bfloat16))
        network.enable_gradient_checkpointing()
        work = denoised(network, FULL, "cpu", torch.bfloat16)
    with Live() as live:
        work().backward()
    known = json.loads((Path(__file__).parent / "results" / "law_cost-h200.json").read_text())
    return {"counted_gib": live.peak / 2**30, "measured_gib": known["measured"]["wan_1.3b_adapters"]["added_gib"]}


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(counts(), indent=1))
