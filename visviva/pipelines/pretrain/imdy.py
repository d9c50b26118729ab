"""Training of the shipped inverse dynamics (ImDyS) on simulated actions with analytic torques and ground forces."""

from __future__ import annotations

import copy
import hashlib
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from visviva.configs.pretrain import ImdyStage, PretrainRecipe
from visviva.eval.motion.imdy import errors, mpje, touching
from visviva.eval.run import provenance, write_json
from visviva.models.imdy import ForwardDynamics, ImDy, InverseDynamics, Truth, losses
from visviva.models.imdy.losses import total
from visviva.optim import Muon
from visviva.optim.teacher import MeanTeacher, TeacherEMA
from visviva.pipelines.pretrain.imdy_clips import Clips, clips, turned
from visviva.pipelines.pretrain.schedule import Log, generator, learning_rate

FEWEST, MOST = 22, 96
"""Markers of a batch: from joints alone to the whole pool."""


def run(recipe: PretrainRecipe, out: Path, deadline: float) -> Path:
    """Train, test on other clips, write weights, numbers and card; returns the model's folder. Stops early at the deadline."""
    stage = recipe.imdy
    train, test = (clips(count, seed=10 * recipe.seed + part) for part, count in ((0, stage.clips), (1, stage.test)))
    inverse, forward = fit(train, stage, recipe.seed, Log(out / "imdy.jsonl", 0), deadline, test)
    folder = out / "model"
    folder.mkdir(parents=True, exist_ok=True)
    ImDy(inverse, forward).save(folder / "model.safetensors")
    model = ImDy.load(folder / "model.safetensors")
    numbers = check(model, train, test)
    write_json(folder / "numbers.json", {"numbers": numbers, "made_with": provenance()})
    (folder / "recipe.json").write_text(recipe.model_dump_json(indent=1) + "\n")
    (folder / "README.md").write_text(_card(numbers, stage, model))
    files = sorted(f for f in folder.iterdir() if f.name != "SHA256SUMS")
    (folder / "SHA256SUMS").write_text("".join(f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.name}\n" for f in files))
    return folder


def fit(
    train: Clips, stage: ImdyStage, seed: int, log: Log, deadline: float = float("inf"), held: Clips | None = None
) -> tuple[InverseDynamics, ForwardDynamics]:
    """Train both nets; the inverse net's weights are averaged over updates (EMA)."""
    torch.manual_seed(seed)
    inverse, forward = InverseDynamics(), ForwardDynamics()
    size = train.torque.norm(dim=-1).flatten(0, 1)
    inverse.unit.copy_(size.square().mean(0).sqrt())
    inverse.limit.copy_(1.2 * size.amax(0) / inverse.unit)
    averaged = copy.deepcopy(inverse)
    teacher = TeacherEMA(inverse, MeanTeacher(stage.ema), into=averaged)
    named = [
        (f"{part}.{n}", p) for part, net in (("inverse", inverse), ("forward", forward)) for n, p in net.named_parameters()
    ]
    optimizer = Muon(named, lr=stage.lr, scale="rms", weight_decay=1e-7)
    places, begun = train.places, time.monotonic()
    for step in range(stage.steps):
        past = (time.monotonic() - begun) / (deadline - begun) if deadline < float("inf") else 0.0
        share = max(step / stage.steps, past)
        if share >= 1:
            break
        rate = min(learning_rate(step, stage.steps, stage.warmup, 0.0), (1 - share) / stage.decay)
        for group in optimizer.param_groups:
            group["lr"] = stage.lr * rate
        cycle = forward if step % stage.cycle_every == 0 else None
        parts = update(inverse, cycle, train, places, stage, generator(seed, "imdy", step))
        optimizer.zero_grad()
        total(parts).backward()
        torch.nn.utils.clip_grad_norm_([*inverse.parameters(), *forward.parameters()], 5.0)
        optimizer.step()
        teacher.update(inverse)
        if (step + 1) % stage.validate_every == 0:
            more = {} if held is None else {"held_out": measured(averaged, held)["torque_mpje"]}
            log.write(
                step=step + 1, seconds=time.monotonic() - begun, **{k: float(v.detach()) for k, v in parts.items()}, **more
            )
    return averaged, forward


def update(
    inverse: InverseDynamics,
    forward: ForwardDynamics | None,
    train: Clips,
    places: Tensor,
    stage: ImdyStage,
    random: torch.Generator,
) -> dict[str, Tensor]:
    """Return the losses of one batch: random windows, markers (few more often than many) and headings."""
    at = places[torch.randint(len(places), (stage.batch_size,), generator=random)]
    count = FEWEST + int((MOST - FEWEST) * torch.rand(1, generator=random) ** 3)
    own = torch.rand(1, generator=random) < stage.joints_only
    chosen = torch.arange(22) if own else torch.randperm(MOST, generator=random)[:count]
    torque, force = train.truth(at)
    angle = 2 * torch.pi * torch.rand(len(at), generator=random)
    window, force = turned(train.window(at, chosen), force, angle)
    noise = stage.noise * torch.rand(len(at), 1, 1, 1, generator=random)
    seen = window + noise * torch.randn(window.shape, generator=random)
    truth = Truth(torque / inverse.unit[:, None], force)
    found = inverse(seen)
    parts = losses(found, truth, torch.randperm(len(at), generator=random))
    if forward is None:
        return parts
    few, some = slice(0, stage.cycle), slice(0, stage.markers)
    true = (torch.rand(stage.cycle, generator=random) < stage.true_share)[:, None, None]
    loads = torch.where(true, truth.torque[few], found.torque[few])
    pushes = torch.where(true[..., None], truth.force[few], found.force[few])
    ahead = forward(window[few][:, :, some], loads, pushes)
    parts["next_marker"] = functional.l1_loss(ahead, window[few][:, 3][:, some]) / 0.01
    return parts


@torch.no_grad()
def measured(inverse: InverseDynamics, held: Clips, markers: Tensor | None = None, noise: float = 0.0) -> dict[str, float]:
    """Return the errors of the inverse net on clips; ``noise`` is the standard deviation added to the markers [m]."""
    at = held.places
    chosen = torch.arange(22) if markers is None else markers
    torque, force, parts = *held.truth(at), []
    random = torch.Generator().manual_seed(0)
    shaken = held.markers + noise * torch.randn(held.markers.shape, generator=random) if noise else held.markers
    seen = Clips(held.names, shaken, held.torque, held.force, held.joints, held.rotations, held.stature)
    for some in at.split(2048):
        found = inverse(seen.window(some, chosen))
        push = touching(found.force[:, 0], found.contact[:, 0].sigmoid())
        parts.append((found.torque * inverse.unit[:, None], push))
    return errors(torch.cat([t for t, _ in parts]), torque, torch.cat([f for _, f in parts]), force[:, 0])


@torch.no_grad()
def check(model: ImDy, train: Clips, test: Clips) -> dict[str, float]:
    """Return errors on test clips, those of who predicts the training mean, and the forward net's with several torques."""
    torque, force = test.truth(test.places)
    mean = train.torque.flatten(0, 1).mean(0).expand_as(torque)
    numbers = measured(model.inverse, test)
    numbers["torque_mpje_of_mean"] = float(mpje(mean, torque))
    numbers["torque_share_of_mean"] = numbers["torque_mpje"] / numbers["torque_mpje_of_mean"]
    numbers["force_mpje_of_mean"] = float(mpje(train.force.flatten(0, 1).mean(0).expand_as(force[:, 0]), force[:, 0]))
    return numbers | ahead(model, test)


@torch.no_grad()
def ahead(model: ImDy, test: Clips) -> dict[str, float]:
    """Return how far the forward net's next markers are off [mm]: true, shuffled and no torques, constant velocity."""
    if model.forward is None:
        return {}
    random = torch.Generator().manual_seed(0)
    at = test.places[torch.randperm(len(test.places), generator=random)[:4096]]
    window = test.window(at, torch.arange(22))
    torque, force = test.truth(at)
    torque = torque / model.inverse.unit[:, None]
    other = torch.randperm(len(at), generator=random)
    tried = {
        "true": (torque, force),
        "shuffled_torque": (torque[other], force),
        "shuffled_both": (torque[other], force[other]),
        "no_torque": (torque * 0, force),
    }
    found = {f"next_{name}_mm": model.forward(window, *loads) for name, loads in tried.items()}
    found["next_constant_velocity_mm"] = 2 * window[:, 2] - window[:, 1]
    return {name: 1000 * float((x - window[:, 3]).norm(dim=-1).mean()) for name, x in found.items()}


def _card(numbers: dict[str, float], stage: ImdyStage, model: ImDy) -> str:
    rows = "\n".join(f"| {name.replace('_', ' ')} | {value:.4f} |" for name, value in numbers.items())
    sizes = [sum(p.numel() for p in net.parameters()) for net in (model.inverse, model.forward) if net is not None]
    return f"""# ImDy: inverse dynamics from markers

The networks of ImDyS (arXiv 2410.17610), trained here from scratch, half precision: {sizes[0]} weights of the inverse net,
{sizes[-1]} of the forward net that was trained beside it. Joint torques (21 joints of HumanML3D's skeleton, in the frames
of their links, N m per kg of the body) and ground forces (ankles and toes, body weights) from windows of six frames of any
22 or more markers, 30 frames per second, z up, floor at 0.

Trained on {stage.clips} two-second clips of each of fifteen simulated actions (`visviva.data.actions`), whose torques and
ground forces are those of inverse dynamics with de Leva's masses and contacts in friction cones
(`visviva.eval.motion.labels`); markers with up to {1000 * stage.noise:g} mm of noise.

    visviva pretrain --config pretrain-imdy

On {stage.test} other clips of each action, joints as markers, without noise (torques N m/kg, forces body weights, angles
rad; `of mean`: of who predicts the training mean; `next`: the forward net's next markers):

| | |
|---|---|
{rows}

Limits: it knows these fifteen actions of one skeleton at many sizes, on a flat floor, without loads; people move otherwise.
It learned the analytic answer, so it cannot be better than that on clean motions. No recordings were used. Licence: as the
package's.
"""
