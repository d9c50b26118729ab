"""Training of the shipped motion evaluator: simulated actions and their captions, and what it is worth on others."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from visviva.configs.pretrain import EvaluatorStage, PretrainRecipe
from visviva.data.actions import ACTIONS, draw
from visviva.data.files import read_text
from visviva.data.motions.axes import upright
from visviva.data.motions.folder import facing, statistics_of
from visviva.data.motions.humanml3d import FPS, features
from visviva.eval.motion import text as metrics
from visviva.models.motion.evaluator import MotionEvaluator, contrast
from visviva.pipelines.pretrain import motion_evaluator_card

NAME = "visviva-simulated evaluator"
OTHER = 7919
"""Seed of the clips that are held out, less that of training."""


@dataclass(frozen=True)
class Pairs:
    """Clips with their captions: joints (N, T, 22, 3), y up [m]; ``kinds``: numbers of the actions, (N,)."""

    joints: Tensor
    captions: list[str]
    kinds: Tensor

    def __len__(self) -> int:
        return len(self.captions)


def pairs(count: int, seed: int, seconds: float, keep: Path | None = None) -> Pairs:
    """Draw simulated actions, all alike often; with a folder to ``keep`` them in, read what was drawn before."""
    names = [list(ACTIONS)[k % len(ACTIONS)] for k in range(count)]
    kinds = torch.tensor([list(ACTIONS).index(name) for name in names])
    key = hashlib.sha256(json.dumps([names, seed, seconds]).encode()).hexdigest()[:12]
    if keep and (keep / f"clips-{key}.json").is_file():
        return Pairs(
            load_file(keep / f"clips-{key}.safetensors")["joints"], json.loads(read_text(keep / f"clips-{key}.json")), kinds
        )
    joints: list[Tensor] = []
    captions: list[str] = []
    for k in tqdm(range(0, count, 60), desc="drawing actions", leave=False):
        drawn = draw(names[k : k + 60], seed=100_003 * seed + k, fps=FPS, seconds=seconds)
        joints.append(facing(drawn.joints @ upright("y")))
        captions += drawn.captions
    found = Pairs(torch.cat(joints), captions, kinds)
    if keep:
        save_file({"joints": found.joints.contiguous()}, keep / f"clips-{key}.safetensors")
        (keep / f"clips-{key}.json").write_text(json.dumps(captions))
    return found


def spoilt(joints: Float[Tensor, "B T 22 3"], rng: torch.Generator) -> Float[Tensor, "B T 22 3"]:
    """Return motions that no text describes: frozen, trembling, in pieces, or floating over the ground."""
    count, frames = joints.shape[:2]
    kind = torch.randint(0, 4, (count,), generator=rng)[:, None, None, None]
    size = 0.005 + 0.045 * torch.rand(count, 1, 1, 1, generator=rng)
    trembling = joints + size * torch.randn(joints.shape, generator=rng)
    still = joints[torch.arange(count), torch.randint(0, frames, (count,), generator=rng)][:, None].expand_as(joints)
    half = frames // 2
    pieces = torch.cat([joints[:, :half], joints.roll(1, 0)[:, half:]], 1)
    drift = torch.randn(count, 1, 1, 3, generator=rng) * joints.new_tensor([1.0, 0.0, 1.0])
    sliding = joints + drift * torch.arange(frames)[:, None, None] / FPS
    return torch.where(kind == 0, still, torch.where(kind == 1, trembling, torch.where(kind == 2, pieces, sliding)))


def run(recipe: PretrainRecipe, out: Path) -> Path:
    """Train, measure on held-out clips, write weights, curve and card; returns the model's folder."""
    stage = recipe.evaluator
    train = pairs(stage.clips, recipe.seed, stage.seconds, out)
    held = pairs(stage.held_out, recipe.seed + OTHER, 3.0, out)
    began = time.monotonic()
    torch.manual_seed(recipe.seed)
    evaluator = MotionEvaluator(stage.dim, stage.width, name=NAME)
    seen = seen_by(train.joints)
    mean, std = statistics_of(seen)
    evaluator.mean.copy_(mean)
    evaluator.std.copy_(std)
    with (out / "evaluator.jsonl").open("w") as curve:
        fit(evaluator, seen, train, held, stage, recipe.seed, curve)
    numbers = check(evaluator, held)
    numbers["seconds"] = time.monotonic() - began
    model = out / "model"
    model.mkdir(parents=True, exist_ok=True)
    evaluator.save(model / "model.safetensors")
    motion_evaluator_card.write(evaluator, recipe, numbers, out, model)
    return model


def seen_by(joints: Float[Tensor, "N T 22 3"]) -> Float[Tensor, "N T-1 263"]:
    """Return the features of many clips."""
    return torch.cat([features(part) for part in joints.split(128)])


def fit(
    evaluator: MotionEvaluator,
    seen: Float[Tensor, "N T 263"],
    train: Pairs,
    held: Pairs,
    stage: EvaluatorStage,
    seed: int,
    curve: TextIO,
) -> None:
    """Train with AdamW, warm-up and a linear decay to zero; lines of the curve every ``stage.validate_every`` updates."""
    optimizer = torch.optim.AdamW(evaluator.parameters(), stage.lr, weight_decay=stage.weight_decay)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: min((k + 1) / 50, 1 - k / stage.steps))
    rng = torch.Generator().manual_seed(seed)
    bad = seen_by(spoilt(train.joints[torch.randperm(len(train), generator=rng)[: len(train) // 4]], rng))
    losses: list[float] = []
    progress = tqdm(range(1, stage.steps + 1), desc="evaluator")
    for step in progress:
        evaluator.train()
        loss = _loss(evaluator, seen, bad, train.captions, stage.batch_size, rng)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(evaluator.parameters(), 1.0)
        optimizer.step()
        rate.step()
        losses.append(loss.item())
        if step % stage.validate_every == 0 or step == stage.steps:
            row = {"step": step, "loss": sum(losses) / len(losses), "top_1": ranked(evaluator, held, 1)[0][0]}
            curve.write(json.dumps(row) + "\n")
            curve.flush()
            progress.set_postfix(row)
            losses.clear()


def _loss(
    evaluator: MotionEvaluator, seen: Tensor, bad: Tensor, captions: list[str], count: int, rng: torch.Generator
) -> Tensor:
    """Loss of a batch: windows of one length, half of which begin with the clip, and a quarter as many spoilt motions."""
    index = torch.randint(0, len(seen), (count,), generator=rng)
    other = torch.randint(0, len(bad), (count // 4,), generator=rng)
    start, more = torch.randint(-10, 10, (1,), generator=rng), torch.randint(39, 80, (1,), generator=rng)
    window = slice(max(0, int(start)), max(0, int(start)) + int(more))
    inputs = torch.cat([seen[index, window], bad[other, window]])
    shaken = 0.05 * torch.rand(len(inputs), 1, 1, generator=rng) * (torch.arange(len(inputs)) < count)[:, None, None]
    inputs = inputs + shaken * evaluator.std * torch.randn(inputs.shape, generator=rng)
    embedded = evaluator.motions(inputs)
    said = [captions[k] for k in index.tolist()]
    known = {caption: k for k, caption in enumerate(said)}
    same = torch.tensor([known[caption] for caption in said])
    text = evaluator.texts(said)
    return contrast(text, embedded[:count], embedded[count:], same[:, None] == same[None], evaluator.sharp)


@torch.no_grad()
def ranked(evaluator: MotionEvaluator, held: Pairs, times: int) -> list[list[float]]:
    """Return R-precision at 1, 2, 3 of held-out clips, in batches of 32 dealt anew ``times`` times."""
    evaluator.eval()
    text, motion = evaluator.texts(held.captions), embedded(evaluator, held.joints)
    found = []
    for seed in range(times):
        order = torch.randperm(len(held), generator=torch.Generator().manual_seed(seed))
        found.append(metrics.r_precision(text[order], motion[order]).tolist())
    return found


@torch.no_grad()
def embedded(evaluator: MotionEvaluator, joints: Float[Tensor, "N T 22 3"]) -> Float[Tensor, "N D"]:
    """Return the embeddings of joints, y up, at 20 frames/s."""
    return torch.cat([evaluator.motions(features(part)) for part in joints.split(128)])


@torch.no_grad()
def check(evaluator: MotionEvaluator, held: Pairs, times: int = 20) -> dict[str, float]:
    """Return what the evaluator is worth on held-out clips.

    R-precision (mean of ``times`` deals; interval: 1.96 standard errors over clips, of which the deals are not independent),
    what knowing the action alone would score, MM-Dist, Diversity, and FID of halves of the real set, of one action against
    the others, and of spoilt sets.
    """
    deals = torch.tensor(ranked(evaluator, held, times))
    mean = deals.mean(0)
    numbers = {f"top_{k + 1}": float(mean[k]) for k in range(3)}
    numbers |= {f"top_{k + 1}_interval": 1.96 * float((mean[k] * (1 - mean[k]) / len(held)).sqrt()) for k in range(3)}
    numbers |= {f"top_{k + 1}_action_alone": value for k, value in enumerate(action_alone(held))}
    text, motion = evaluator.texts(held.captions), embedded(evaluator, held.joints)
    numbers["mm_dist"] = metrics.mm_dist(text, motion)
    numbers["mm_dist_shuffled"] = metrics.mm_dist(text, motion.roll(len(ACTIONS) // 2, 0))
    numbers["diversity"] = metrics.diversity(motion, min(300, len(held)))
    return numbers | distances(evaluator, held, motion)


def action_alone(held: Pairs, batch: int = 32) -> list[float]:
    """Return the R-precision of an oracle that knows the actions and guesses among equal ones."""
    order = torch.randperm(len(held), generator=torch.Generator().manual_seed(0))
    kinds = held.kinds[order][: len(held) // batch * batch].unflatten(0, (-1, batch))
    alike = (kinds[:, :, None] == kinds[:, None]).sum(-1)
    return [float((k / alike).clamp(max=1).mean()) for k in (1, 2, 3)]


def distances(evaluator: MotionEvaluator, held: Pairs, motion: Tensor) -> dict[str, float]:
    """Return FIDs to the odd clips of a half of the even ones, as they are, spoilt in several ways, or of one action only."""
    rng = torch.Generator().manual_seed(1)
    real, rest = motion[1::2], held.joints[::2]
    still = rest[:, :1].expand_as(rest)
    slid = rest + torch.arange(rest.shape[1])[:, None, None] / FPS * rest.new_tensor([0.5, 0.0, 0.0])
    found = {"fid_real": metrics.fid(motion[::2], real), "fid_frozen": metrics.fid(embedded(evaluator, still), real)}
    for size in (0.005, 0.02, 0.05):
        noisy = rest + size * torch.randn(rest.shape, generator=rng)
        found[f"fid_noise_{1000 * size:.0f}_mm"] = metrics.fid(embedded(evaluator, noisy), real)
    found["fid_sliding"] = metrics.fid(embedded(evaluator, slid), real)
    found["fid_reversed"] = metrics.fid(embedded(evaluator, rest.flip(1)), real)
    each = [motion[held.kinds == kind] for kind in range(len(ACTIONS))]
    apart = torch.tensor([[metrics.fid(a, b) for b in each] for a in each])
    halves = [metrics.fid(clips[::2], clips[1::2]) for clips in each]
    found["fid_other_action_least"] = float(apart[~torch.eye(len(each), dtype=torch.bool)].min())
    found["fid_same_action_most"] = max(halves)
    return found
