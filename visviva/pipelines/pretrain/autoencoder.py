"""First stage: the video autoencoder. Loss: motion-weighted L1 + squared error, plus a small Kullback-Leibler term."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from visviva.configs.pretrain import PretrainRecipe
from visviva.models.backbones.wan import WanBackbone, decode_unclamped
from visviva.pipelines.pretrain.clips import Clips
from visviva.pipelines.pretrain.schedule import Log, State, generator, learning_rate


def train(backbone: WanBackbone, recipe: PretrainRecipe, clips: Clips, held_out: Clips, out: Path, deadline: float) -> bool:
    """Train ``backbone.vae`` in place and set its latent statistics; return whether all updates were made."""
    stage, vae = recipe.autoencoder, backbone.vae
    vae.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(vae.parameters(), lr=stage.lr, betas=(0.9, 0.98), weight_decay=0.0)
    state = State(out / "checkpoints-autoencoder", dict(vae.named_parameters()), {"adamw": optimizer})
    step, _, _ = state.resume()
    log = Log(out / "autoencoder.jsonl", step)
    bar = tqdm(range(step, stage.steps), initial=step, total=stage.steps, desc="autoencoder", unit="step")
    for step in bar:
        optimizer.param_groups[0]["lr"] = stage.lr * learning_rate(step, stage.steps, stage.warmup, stage.decay)
        loss = _update(vae, optimizer, recipe, clips, generator(recipe.seed, "autoencoder", step))
        done = step + 1
        if done % recipe.validate_every == 0 or done == stage.steps:
            log.write(step=done, loss=loss, psnr=psnr(backbone, held_out.floats(torch.arange(min(32, len(held_out))))))
        if done % recipe.save_every == 0 or done == stage.steps or time.monotonic() > deadline:
            state.save(done, {}, {})
        bar.set_postfix(loss=f"{loss:.4f}")
        if time.monotonic() > deadline and done < stage.steps:
            break
    else:
        step = stage.steps - 1
    vae.requires_grad_(False).eval()
    set_statistics(backbone, clips)
    return step + 1 >= stage.steps


def _update(vae: Any, optimizer: torch.optim.Optimizer, recipe: PretrainRecipe, clips: Clips, rng: torch.Generator) -> float:
    stage = recipe.autoencoder
    index = torch.randint(len(clips), (stage.batch_size,), generator=rng)
    start = int(torch.randint(clips.frames.shape[1] - stage.frames + 1, (), generator=rng))
    frames = clips.frames[index].to(vae.device).float() / 255
    if torch.rand((), generator=rng) < 0.5:
        frames = frames.flip(-1)
    weight = 1 + stage.motion_weight * ((frames - frames.median(dim=1, keepdim=True).values).abs().amax(2, keepdim=True) > 0.06)
    window = slice(start, start + stage.frames)
    video = (frames[:, window] * 2 - 1).transpose(1, 2)
    weight = weight[:, window].transpose(1, 2)
    with torch.autocast(vae.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
        posterior = vae.encode(video).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=rng).to(vae.device)
        decoded = decode_unclamped(vae, posterior.mean + posterior.std * noise)
    error = decoded.float() - video
    kl = 0.5 * (posterior.mean.float().square() + posterior.var.float() - 1 - posterior.logvar.float()).mean()
    loss = (weight * (error.abs() + error.square())).sum() / (weight.sum() * 3) + stage.kl_weight * kl
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
    optimizer.step()
    return float(loss.detach())


@torch.no_grad()
def psnr(backbone: WanBackbone, frames: Tensor) -> float:
    """Return the mean over clips of 10 log10(1 / MSE) of the round trip, frames (B, T, 3, H, W) in [0, 1]."""
    was_training = backbone.vae.training
    backbone.vae.eval()
    values = []
    for clip in frames.split(8):
        decoded = backbone.decode(backbone.encode(clip), clamp="hard").cpu()
        values += (-10 * (decoded - clip).square().mean(dim=(1, 2, 3, 4)).clamp_min(1e-10).log10()).tolist()
    backbone.vae.train(was_training)
    return math.fsum(values) / len(values)


@torch.no_grad()
def set_statistics(backbone: WanBackbone, clips: Clips, count: int = 256) -> None:
    """Set the VAE's ``latents_mean`` and ``latents_std`` from the first ``count`` clips, so that latents are standardised."""
    z = backbone.vae.config.z_dim
    backbone.vae.register_to_config(latents_mean=[0.0] * z, latents_std=[1.0] * z)
    index = torch.arange(min(count, len(clips)))
    latents = torch.cat([backbone.encode(clips.floats(part)) for part in index.split(16)])
    mean, std = latents.mean(dim=(0, 2, 3, 4)), latents.std(dim=(0, 2, 3, 4)).clamp_min(1e-6)
    backbone.vae.register_to_config(latents_mean=mean.tolist(), latents_std=std.tolist())
