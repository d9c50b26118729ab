"""Training of the motion model: the transformer and (unless one is given) its word encoder, by x0-prediction.

Each update draws one frame rate and a window of each clip at that rate. The loss is the squared error of the normalised
features, every part counting the same, plus that of their change from frame to frame; some captions are dropped, so that texts
can guide.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from visviva.configs.pretrain import MotionStage, PretrainRecipe
from visviva.errors import InputError
from visviva.models.motion.parts import HUMANML3D, PARTS
from visviva.models.motion.text import WordEncoder, encode, pretrained, vocabulary, width_of, words
from visviva.models.motion.transformer import MotionTransformer
from visviva.optim import Muon
from visviva.optim.teacher import Ramp, TeacherEMA
from visviva.pipelines.motion.pipeline import MotionPipeline, load
from visviva.pipelines.pretrain import motion_card
from visviva.pipelines.pretrain.motions import Motions, Windows, humanml3d, simulated, statistics, windows
from visviva.pipelines.pretrain.schedule import Log, State, generator, learning_rate

HELD_OUT = 0.1
"""Held-out clips, of the number of training clips."""


def run(recipe: PretrainRecipe, out: Path, deadline: float, device: str) -> Path:
    """Train and return the model's folder, ``<out>/model``: a diffusers pipeline with a card."""
    train_set, held_out = data(recipe, out)
    pipeline = build(recipe.motion, train_set, recipe.seed)
    if recipe.motion.start:
        begin(pipeline, recipe.motion.start)
    pipeline.to(device)
    train(pipeline, recipe, train_set, held_out, out, deadline)
    folder = out / "model"
    shutil.rmtree(folder, ignore_errors=True)
    pipeline.save_pretrained(folder, safe_serialization=True)
    motion_card.write(pipeline, recipe, train_set, held_out, out, folder)
    files = sorted(f for f in folder.rglob("*") if f.is_file() and f.name != "SHA256SUMS")
    sums = [f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.relative_to(folder).as_posix()}\n" for f in files]
    (folder / "SHA256SUMS").write_text("".join(sums))
    return folder


def data(recipe: PretrainRecipe, out: Path) -> tuple[Motions, Motions]:
    """Return the training and the held-out motions."""
    stage = recipe.motion
    if stage.data:
        return humanml3d(stage.data, "train", recipe.limit), humanml3d(stage.data, "val", recipe.limit)
    held = max(16, round(stage.clips * HELD_OUT))
    train_set = simulated(stage.actions, stage.clips, 2 * recipe.seed, stage.seconds, out)
    return train_set, simulated(stage.actions, held, 2 * recipe.seed + 1, stage.seconds, out)


def build(stage: MotionStage, motions: Motions, seed: int) -> MotionPipeline:
    """Return an untrained pipeline with the motions' statistics and words."""
    from diffusers import DDIMScheduler

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder: Any
        if stage.text_encoder:
            encoder, tokenizer = pretrained(stage.text_encoder)
        else:
            captions = [caption for several in motions.captions for caption in several]
            length = min(77, max(24, *(len(words(caption)) for caption in captions)))  # 77: what CLIP reads
            encoder, tokenizer = WordEncoder(vocabulary(captions), stage.width, length), None
        transformer = MotionTransformer(
            width=stage.width,
            layers=stage.layers,
            text_width=width_of(encoder),
            attention=stage.attention,
            templates=stage.templates,
            gather=stage.gather,
            experts=stage.experts,
            hidden=stage.hidden,
            nearby=stage.nearby,
        )
    transformer.set_statistics(*statistics(motions, stage.frames, stage.rates, seed))
    scheduler = DDIMScheduler(
        num_train_timesteps=stage.noise_steps,
        beta_schedule=stage.schedule,
        prediction_type="sample",
        clip_sample=False,
        timestep_spacing="trailing",
    )
    return MotionPipeline(transformer=transformer, text_encoder=encoder, tokenizer=tokenizer, scheduler=scheduler)


def begin(pipeline: MotionPipeline, folder: str) -> None:
    """Take over the weights of another motion model; what it does not have stays as it is.

    Raises:
        InputError: a model of other sizes or words.
    """
    for name in ("transformer", "text_encoder"):
        own, given = getattr(pipeline, name), getattr(load(folder), name).state_dict()
        sizes = {key: tuple(value.shape) for key, value in own.state_dict().items()}
        other = [key for key, value in given.items() if sizes.get(key) != tuple(value.shape)]
        if other:
            raise InputError(f"{folder}: its {name} has other sizes ({other[0]} and {len(other) - 1} more); train from scratch")
        own.load_state_dict(given, strict=False)


def train(
    pipeline: MotionPipeline, recipe: PretrainRecipe, motions: Motions, held_out: Motions, out: Path, deadline: float
) -> bool:
    """Train in place, leave the averaged weights; return whether all updates were made."""
    stage = recipe.motion
    parameters = dict(_parameters(pipeline))
    optimizer = optimizer_of(parameters, stage)
    state = State(out / "checkpoints-motion", parameters, {"optimizer": optimizer})
    first, shadow, _ = state.resume()
    teacher = TeacherEMA(parameters, Ramp(stage.ema))
    if shadow:
        teacher.load_state_dict({"step": first, "decay": repr(teacher.decay), "shadow": shadow})
    log, check = Log(out / "motion.jsonl", first), checks(held_out, stage)
    finished = first >= stage.steps
    for step in (bar := tqdm(range(first, stage.steps), initial=first, total=stage.steps, desc="motion", unit="step")):
        factor = learning_rate(step, stage.steps, stage.warmup, stage.decay)
        for group, peak in zip(optimizer.param_groups, (stage.muon_lr, stage.lr), strict=True):
            group["lr"] = peak * factor
        rng = generator(recipe.seed, "motion", step)
        terms = loss(pipeline, stage, drawn(motions, stage, rng), rng, recipe.precision)
        optimizer.zero_grad()
        terms["loss"].backward()
        torch.nn.utils.clip_grad_norm_(list(parameters.values()), 1.0)
        optimizer.step()
        teacher.update(parameters)
        done, finished = step + 1, step + 1 >= stage.steps
        late = time.monotonic() > deadline
        if done % recipe.validate_every == 0 or finished:
            with teacher.applied(parameters):
                held = validate(pipeline, stage, check, recipe.precision)
            log.write(step=done, loss=float(terms["loss"].detach()), balance=float(terms["balance"].detach()), **held)
        if done % recipe.save_every == 0 or finished or late:
            state.save(done, teacher.shadow, {})
        bar.set_postfix(loss=f"{float(terms['loss'].detach()):.4f}")
        if late and not finished:
            break
    teacher.copy_to(parameters)
    for network in (pipeline.transformer, pipeline.text_encoder):
        network.requires_grad_(False).eval()
    return finished


def _parameters(pipeline: MotionPipeline) -> Iterator[tuple[str, torch.nn.Parameter]]:
    for name in ("transformer", "text_encoder") if pipeline.tokenizer is None else ("transformer",):
        network = getattr(pipeline, name).requires_grad_(True).train()
        yield from ((f"{name}.{key}", parameter) for key, parameter in network.named_parameters())


def optimizer_of(parameters: dict[str, Any], stage: MotionStage) -> Muon:
    """Return Muon in two groups: the hidden matrices of the transformer's blocks, and the rest, for the AdamW inside it."""
    hidden = {n for n, p in parameters.items() if ".blocks." in n and p.ndim == 2 and min(p.shape) > 1 and "centre" not in n}
    matrices = {"params": [(n, p) for n, p in parameters.items() if n in hidden], "algorithm": "matrix", "lr": stage.muon_lr}
    rest = {"params": [(n, p) for n, p in parameters.items() if n not in hidden], "algorithm": "adamw", "lr": stage.lr}
    return Muon([matrices, rest], scale="rms", weight_decay=stage.weight_decay)


def drawn(motions: Motions, stage: MotionStage, rng: torch.Generator) -> Windows:
    """Return a batch of windows at one random rate."""
    rate = stage.rates[int(torch.randint(len(stage.rates), (1,), generator=rng))]
    index = torch.randint(len(motions), (stage.batch_size,), generator=rng)
    return windows(motions, index, stage.frames, rate, rng)


def loss(
    pipeline: MotionPipeline, stage: MotionStage, batch: Windows, rng: torch.Generator, precision: str = "fp32"
) -> dict[str, Tensor]:
    """Return the training loss and its terms; everything random comes from ``rng``."""
    size = len(batch.texts)
    no_text, no_set, hide, share = torch.rand(4, size, generator=rng)
    texts = ["" if drop < stage.caption_dropout else text for text, drop in zip(batch.texts, no_text.tolist(), strict=True)]
    masked = (
        torch.rand(size, stage.frames, len(PARTS), generator=rng) < torch.where(hide < stage.masked, share, 0.0)[:, None, None]
    )
    time_step = torch.randint(stage.noise_steps, (size,), generator=rng)
    noise = torch.randn(batch.features.shape, generator=rng)
    return _terms(pipeline, stage, batch, texts, time_step, noise, precision, masked=masked, any_dataset=no_set < 0.1)


def _terms(
    pipeline: MotionPipeline,
    stage: MotionStage,
    batch: Windows,
    texts: list[str],
    time_step: Tensor,
    noise: Tensor,
    precision: str,
    **hidden: Tensor,
) -> dict[str, Tensor]:
    network, device = pipeline.transformer, pipeline.device
    clean = network.normalised(batch.features.to(device))
    noisy = pipeline.scheduler.add_noise(clean, noise.to(device), time_step.to(device))
    with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16"):
        tokens, there = encode(pipeline.text_encoder, pipeline.tokenizer, texts, cut=True)
        found = network(
            noisy, time_step.to(device), tokens, there,
            fps=batch.fps.to(device), lengths=batch.lengths.to(device),
            **{name: value.to(device) for name, value in hidden.items()},
        )  # fmt: skip
    error, weight = found.sample.float() - clean, column_weights(stage.rotation_weight).to(device)
    valid = torch.arange(clean.shape[1], device=device) < batch.lengths.to(device)[:, None]
    place = ((error.square() * weight).sum(-1) * valid).sum() / valid.sum()
    both = valid[:, 1:]
    change = ((error.diff(dim=1).square() * weight).sum(-1) * both).sum() / both.sum()
    total = place + stage.velocity_weight * change + 0.01 * found.balance + 1e-4 * found.spread
    return {"loss": total, "place": place, "change": change, "balance": found.balance}


def column_weights(rotation: float) -> Tensor:
    """Return the weight of each of the 263 columns: every part counts the same, rotations less by a factor; they sum to 1."""
    weight = torch.zeros(HUMANML3D.size)
    for part in HUMANML3D.present:
        columns = torch.tensor(HUMANML3D.columns[part])
        own = torch.where((columns >= 67) & (columns < 193), rotation, 1.0)
        weight[columns] = own / own.sum()
    return weight / weight.sum()


def checks(held_out: Motions, stage: MotionStage, count: int = 48) -> list[tuple[float, Windows]]:
    """Return the held-out windows of the curves, one batch for each rate."""
    found = []
    for rate in dict.fromkeys(stage.rates):
        rng = torch.Generator().manual_seed(0)
        index = torch.randperm(len(held_out), generator=rng)[:count]
        found.append((rate, windows(held_out, index, stage.frames, rate, rng)))
    return found


@torch.no_grad()
def validate(
    pipeline: MotionPipeline, stage: MotionStage, check: list[tuple[float, Windows]], precision: str = "fp32"
) -> dict[str, float]:
    """Return the held-out loss (squared error of the normalised features) by rate, and their mean, at fixed noise."""
    pipeline.transformer.eval()
    found = {}
    for rate, batch in check:
        rng, size = torch.Generator().manual_seed(1), len(batch.texts)
        levels = ((torch.arange(size) + 0.5) / size * stage.noise_steps).long()
        noise = torch.randn(batch.features.shape, generator=rng)
        terms = _terms(pipeline, stage, batch, batch.texts, levels, noise, precision)
        found[f"validation_{rate:g}"] = float(terms["place"])
    pipeline.transformer.train()
    return {"validation": sum(found.values()) / len(found), **found}
