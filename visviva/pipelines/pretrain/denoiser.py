"""Second stage: the diffusion transformer and the text encoder, trained together by flow matching on cached latents."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from visviva.configs.pretrain import DenoiserStage, PretrainRecipe
from visviva.models.backbones.condition import Condition
from visviva.models.backbones.wan import WanBackbone
from visviva.optim import Muon
from visviva.optim.teacher import Ramp, TeacherEMA
from visviva.pipelines.pretrain.clips import Clips, mirrored
from visviva.pipelines.pretrain.schedule import Log, State, generator, learning_rate


def train(backbone: WanBackbone, recipe: PretrainRecipe, clips: Clips, held_out: Clips, out: Path, deadline: float) -> bool:
    """Train the denoiser in place, leave the averaged weights in it; return whether all updates were made."""
    stage = recipe.denoiser
    latents, captions = cached_latents(backbone, clips, stage.mirror, out)
    check, check_captions = cached_latents(backbone, held_out, False, out)
    parameters = dict(_parameters(backbone))
    optimizer = optimizer_of(parameters, stage)
    state = State(out / "checkpoints-denoiser", parameters, {"optimizer": optimizer})
    step, shadow, _ = state.resume()
    teacher = TeacherEMA(parameters, Ramp(stage.ema))
    if shadow:
        teacher.load_state_dict({"step": step, "decay": repr(teacher.decay), "shadow": shadow})
    log = Log(out / "denoiser.jsonl", step)
    finished = step >= stage.steps
    bar = tqdm(range(step, stage.steps), initial=step, total=stage.steps, desc="denoiser", unit="step")
    for step in bar:
        factor = learning_rate(step, stage.steps, stage.warmup, stage.decay)
        for group, peak in zip(optimizer.param_groups, (stage.muon_lr, stage.lr), strict=True):
            group["lr"] = peak * factor
        loss = _update(backbone, recipe, latents, captions, optimizer, parameters, generator(recipe.seed, "denoiser", step))
        teacher.update(parameters)
        done, finished = step + 1, step + 1 >= stage.steps
        late = time.monotonic() > deadline
        if done % recipe.validate_every == 0 or finished:
            with teacher.applied(parameters), torch.no_grad():
                held = float(_loss(backbone, recipe, check, check_captions, generator(0, "validation", 0)))
            log.write(step=done, loss=loss, validation=held)
        if done % recipe.save_every == 0 or finished or late:
            state.save(done, teacher.shadow, {})
        bar.set_postfix(loss=f"{loss:.4f}")
        if late and not finished:
            break
    teacher.copy_to(parameters)
    backbone.transformer.requires_grad_(False).eval()
    backbone.text_encoder.requires_grad_(False).eval()
    return finished


def _parameters(backbone: WanBackbone) -> Iterator[tuple[str, torch.nn.Parameter]]:
    for name in ("transformer", "text_encoder"):
        network = getattr(backbone, name)
        network.requires_grad_(True).train()
        seen: set[int] = set()
        for key, parameter in network.named_parameters():
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield f"{name}.{key}", parameter


def optimizer_of(parameters: Mapping[str, Tensor], stage: DenoiserStage) -> Muon:
    """Return Muon in two groups: the hidden matrices of the transformer's blocks, and the rest, for the AdamW inside it."""
    hidden = {n for n, p in parameters.items() if n.startswith("transformer.blocks.") and p.ndim == 2}
    matrices = {"params": [(n, p) for n, p in parameters.items() if n in hidden], "algorithm": "matrix", "lr": stage.muon_lr}
    rest = {"params": [(n, p) for n, p in parameters.items() if n not in hidden], "algorithm": "adamw", "lr": stage.lr}
    return Muon([matrices, rest], scale="rms", weight_decay=stage.weight_decay)


def noise_levels(count: int, shift: float, rng: torch.Generator) -> Tensor:
    """Draw logit-normal noise levels in (0, 1), shifted towards noise: s u / (1 + (s - 1) u)."""
    u = torch.randn(count, generator=rng).sigmoid()
    return shift * u / (1 + (shift - 1) * u)


def _loss(backbone: WanBackbone, recipe: PretrainRecipe, clean: Tensor, captions: list[str], rng: torch.Generator) -> Tensor:
    stage, device = recipe.denoiser, backbone.device
    sigma = noise_levels(len(clean), stage.shift, rng).to(device)
    noise = torch.randn(clean.shape, generator=rng).to(device)
    clean = clean.to(device, torch.float32)
    s = sigma.view(-1, 1, 1, 1, 1)
    with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
        prompt = backbone.encode_prompt(captions)
        condition = Condition(prompt, prompt, first_frame=clean[:, :, :1])
        v = backbone.velocity(backbone.hold(s * noise + (1 - s) * clean, condition), sigma, condition)
    error = (v - (noise - clean)).square()[:, :, 1:].mean(1)
    moved = (clean[:, :, 1:] - clean[:, :, :1]).square().mean(1)
    weight = 1 + stage.motion_weight * (moved > 0.1)
    return (weight * error).sum() / weight.sum()


def _update(
    backbone: WanBackbone,
    recipe: PretrainRecipe,
    latents: Tensor,
    captions: list[str],
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, Tensor],
    rng: torch.Generator,
) -> float:
    stage = recipe.denoiser
    index = torch.randint(len(latents), (stage.batch_size,), generator=rng)
    dropped = torch.rand(stage.batch_size, generator=rng) < stage.caption_dropout
    texts = ["" if drop else captions[i] for i, drop in zip(index.tolist(), dropped.tolist(), strict=True)]
    loss = _loss(backbone, recipe, latents[index], texts, rng)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(list(parameters.values()), 1.0)
    optimizer.step()
    return float(loss.detach())


@torch.no_grad()
def cached_latents(backbone: WanBackbone, clips: Clips, mirror: bool, out: Path) -> tuple[Tensor, list[str]]:
    """Encode all clips (and their mirror images) once; cached by the fingerprint of clips and autoencoder."""
    digest = hashlib.sha256(f"{clips.fingerprint}/{len(clips)}/{mirror}/{backbone.vae.config.latents_mean}".encode())
    for parameter in backbone.vae.parameters():
        digest.update(parameter.detach().cpu().numpy().tobytes())
    file = out / f"latents-{digest.hexdigest()[:16]}.safetensors"
    captions = clips.captions + ([mirrored(c) for c in clips.captions] if mirror else [])
    if file.is_file():
        return load_file(file)["latents"], captions
    parts = []
    for flip in (False, True)[: 2 if mirror else 1]:
        for index in tqdm(torch.arange(len(clips)).split(16), desc="encoding clips", unit="batch", leave=False):
            frames = clips.floats(index)
            parts.append(backbone.encode(frames.flip(-1) if flip else frames).to("cpu", torch.bfloat16))
    latents = torch.cat(parts)
    save_file({"latents": latents}, file)
    return latents, captions
