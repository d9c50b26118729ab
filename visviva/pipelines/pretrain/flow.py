"""Train the flow network: drawn scenes and simulated clips with exact flow; every update keyed by (seed, update), resumable."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from visviva.configs.pretrain import FlowStage, PretrainRecipe
from visviva.models.probes.dis import DIS
from visviva.models.probes.flow.pyramid import FlowPyramid
from visviva.optim.muon import Muon
from visviva.optim.teacher import Ramp, TeacherEMA
from visviva.pipelines.pretrain import flow_card
from visviva.pipelines.pretrain.flow_clips import ClipPairs
from visviva.pipelines.pretrain.flow_photo import photographed
from visviva.pipelines.pretrain.flow_scenes import Bank, Pair, bank, draw
from visviva.pipelines.pretrain.schedule import Log, State, generator, learning_rate

BANK, HELD_OUT, HELD_OUT_BATCHES = 1024, 1 << 20, 16
"""Looks and shapes in the bank of training scenes; the seed of the held-out scenes' own bank, and batches of four of them."""


def run(recipe: PretrainRecipe, out: Path, deadline: float) -> Path:
    """Train, and write weights, recipe, curve and card; return their folder, ``<out>/model``."""
    clips = ClipPairs(recipe.flow.clips, recipe.limit, _device(recipe.device)) if recipe.flow.clips else None
    network = train(recipe, clips, out, deadline).cpu()
    model = out / "model"
    model.mkdir(exist_ok=True)
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, model / "weights.safetensors")
    flow_card.write(network, recipe, clips, dis_epe(held_out_scenes(HELD_OUT_BATCHES)), out, model, trained_on(recipe))
    return model


def train(recipe: PretrainRecipe, clips: ClipPairs | None, out: Path, deadline: float) -> FlowPyramid:
    """Train and return the averaged network; curve and checkpoints go to ``out``."""
    stage, device = recipe.flow, _device(recipe.device)
    torch.manual_seed(recipe.seed)
    network = FlowPyramid(detach=True).to(device)
    parameters = dict(network.named_parameters())
    optimizer = optimizer_of(parameters, stage)
    state = State(out / "checkpoints-flow", parameters, {"muon": optimizer})
    step, shadow, _ = state.resume()
    teacher = TeacherEMA(parameters, Ramp(stage.ema))
    if shadow:
        teacher.load_state_dict({"step": step, "decay": repr(teacher.decay), "shadow": shadow})
    looks, held_out = bank(BANK, recipe.seed).to(device), held_out_scenes(HELD_OUT_BATCHES)
    log = Log(out / "flow.jsonl", step)
    losses: list[Tensor] = []
    several: list[Pair] = []
    bar = tqdm(range(step, stage.steps), initial=step, total=stage.steps, desc="flow", unit="step")
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = stage.lr * learning_rate(step, stage.steps, stage.warmup, stage.decay)
        if step % stage.together == 0 or not several:
            several = batches(stage, looks, clips, generator(recipe.seed, "flow", step - step % stage.together))
        pair = several[step % stage.together]
        losses.append(_update(network, optimizer, pair, recipe, device))
        teacher.update(parameters)
        done, late = step + 1, time.monotonic() > deadline
        if done % recipe.validate_every == 0 or done == stage.steps or late:
            with teacher.applied(parameters):
                error = epe(network, held_out)
            mean = float(torch.stack(losses).mean())
            log.write(step=done, loss=mean, held_out_epe=error)
            bar.set_postfix(loss=f"{mean:.4f}", epe=f"{error:.3f}")
            losses = []
        if done % recipe.save_every == 0 or done == stage.steps or late:
            state.save(done, teacher.shadow, {})
        if late:
            break
    teacher.copy_to(parameters)
    return network


def optimizer_of(parameters: Mapping[str, Tensor], stage: FlowStage) -> Muon:
    """Return Muon for inner convolutions (as matrices) and its AdamW for the first and the last ones."""
    ends = ("encoder.first", "step", "weights", "scale")
    last = [(n, p) for n, p in parameters.items() if any(e in n for e in ends)]
    rest = [(n, p) for n, p in parameters.items() if not any(e in n for e in ends)]
    groups = [{"params": rest}, {"params": last, "algorithm": "adamw"}]
    return Muon(groups, lr=stage.lr, scale="rms", weight_decay=stage.weight_decay)


def batches(stage: FlowStage, looks: Bank, clips: ClipPairs | None, rng: torch.Generator) -> list[Pair]:
    """Return the pairs of ``together`` updates: drawn scenes, some of simulated clips; at times fewer of twice the side."""
    large = bool(torch.rand((), generator=rng) < stage.large)
    side, each = (2 * stage.side, max(1, stage.batch_size // 4)) if large else (stage.side, stage.batch_size)
    count = each * stage.together
    simulated = round(stage.simulated * count) if clips else 0
    shutter = 0.5 if bool(torch.rand((), generator=rng) < 0.2) else 0.0
    pair = draw(count - simulated, side, looks, rng).pair(shutter)
    if clips and simulated:
        other = clips.draw(simulated, side, rng)
        pair = Pair(*(torch.cat([getattr(pair, n), getattr(other, n)]) for n in ("first", "second", "flow")))
    pair = photographed(pair, rng)
    parts = (slice(first, None, stage.together) for first in range(stage.together))
    return [Pair(pair.first[part], pair.second[part], pair.flow[part]) for part in parts]


def loss(flows: list[Tensor], scale: Tensor, true: Tensor) -> Tensor:
    """Return ``sum_k 0.8^(n-k) mean (|e_k| + 0.01)^0.7`` over the updates k plus 0.05 of the last error's Laplace likelihood.

    Pixels that move otherwise than the picture's median by 0.25 px count five times, or small objects would hardly count. The
    likelihood of the radial density ``exp(-|e| / b) / (2 pi b^2)`` is ``2 log b + |e| / b``; its e carries no gradient.
    """
    errors = [(flow - true).square().sum(1, keepdim=True).add(1e-6).sqrt() for flow in flows]
    apart = true - true.flatten(2).median(-1).values[..., None, None]
    weight = 1 + 4 * (apart.square().sum(1, keepdim=True) > 0.25**2).float()
    weight = weight / weight.mean()
    weighted = sum(0.8 ** (len(flows) - 1 - k) * (weight * (e + 0.01).pow(0.7)).mean() for k, e in enumerate(errors))
    return weighted + 0.05 * (2 * scale + errors[-1].detach() * torch.exp(-scale)).mean()


def _update(network: FlowPyramid, optimizer: Muon, pair: Pair, recipe: PretrainRecipe, device: str) -> Tensor:
    with torch.autocast(device, torch.bfloat16, enabled=recipe.precision == "bf16"):
        flows, scale = network.steps(pair.first, pair.second)
    value = loss(flows, scale, pair.flow)
    optimizer.zero_grad()
    value.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
    return value.detach()


def held_out_scenes(count: int, side: int = 96) -> list[Pair]:
    """Return batches of drawn scenes from looks, shapes and motions that training never sees; the same ones every time."""
    looks = bank(256, HELD_OUT)
    rngs = [generator(HELD_OUT, "held-out", i) for i in range(count)]
    return [photographed(draw(4, side, looks, rng).pair(), rng) for rng in rngs]


@torch.no_grad()
def epe(network: FlowPyramid, pairs: list[Pair]) -> float:
    """Return the mean end-point error over all pixels [px]."""
    device = next(network.parameters()).device
    errors = [(network(p.first.to(device), p.second.to(device))[0].cpu() - p.flow).norm(dim=1).mean() for p in pairs]
    return float(torch.stack(errors).mean())


def dis_epe(pairs: list[Pair]) -> float:
    """Return the same of OpenCV's DIS (medium), the bar of the curve."""
    rate = torch.full((len(pairs[0].first),), 30.0)
    flows = [DIS()(torch.stack([p.first, p.second], 1), rate).flow for p in pairs]
    errors = [(f[:, 0] - p.flow).norm(dim=1).mean() for f, p in zip(flows, pairs, strict=True) if f is not None]
    return float(torch.stack(errors).mean())


def trained_on(recipe: PretrainRecipe) -> str:
    """Return the name of the device, for the card."""
    device = _device(recipe.device)
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def _device(name: str) -> str:
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
