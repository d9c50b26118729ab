"""Training of the shipped re-estimator: the lifter on filmed motions, PhysNet on what it lifts and on noisy 3D."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from visviva.configs.pretrain import PretrainRecipe
from visviva.data.actions import ACTIONS, draw
from visviva.data.motions import read_motion
from visviva.data.motions.resample import resampled
from visviva.errors import InputError
from visviva.eval.motion.dynamics import skeleton
from visviva.eval.motion.errors import acceleration_error, mpjpe
from visviva.eval.run import provenance, write_json
from visviva.models.reestimation.camera import Camera, placed
from visviva.models.reestimation.dynamics import PhysNet
from visviva.models.reestimation.joints import MIRROR, h36m
from visviva.models.reestimation.lifting import Lifter, normalised
from visviva.models.reestimation.reestimator import Pool, Reestimator
from visviva.optim.muon import Muon
from visviva.optim.teacher import Ramp, TeacherEMA
from visviva.pipelines.pretrain.detections import Filmed, detected, filmed, turn
from visviva.pipelines.pretrain.schedule import Log, generator, learning_rate
from visviva.pipelines.pretrain.variations import varied

FPS, SECONDS = 20.0, 3.0
LENGTH = int(FPS * SECONDS)
PROMPTS = 8
"""Pairs in the shipped pool."""
TILT = 2.0
"""How wrong the camera's tilt is taken in training [degrees]: users know it roughly."""


def run(recipe: PretrainRecipe, out: Path, deadline: float) -> Path:
    """Train, check on held-out clips, write weights and card; returns the model's folder."""
    torch.manual_seed(recipe.seed)
    stage = recipe.reestimation
    train, held = clips(stage.clips, recipe.seed), clips(stage.clips // 8 + 15, recipe.seed + 1)
    real = recordings(Path(stage.recordings)) if stage.recordings else train[:0]
    if len(real):
        train = mixed(train, real, stage.recorded)
    lifter = train_lifter(recipe, train, held, out, deadline)
    pool = prompts(train, lifter.frames, recipe.seed)
    physics = train_physics(recipe, lifter, pool, train, held, out, deadline)
    return write(Reestimator(lifter, physics, pool), recipe, held, out / "model", real)


def clips(count: int, seed: int) -> Tensor:
    """Return simulated actions in Human3.6M's joints, all kinds alike, (N, 60, 17, 3) at 20 frames/s; float32."""
    names = list(ACTIONS)
    return h36m(draw([names[k % len(names)] for k in range(count)], seed, FPS, SECONDS).joints, "humanml3d")


def recordings(folder: Path) -> Tensor:
    """Return clips of a folder's motions, one begun every second, (N, 60, 17, 3) as `clips`.

    Raises:
        InputError: no folder, a file that is not read, no motion of three seconds.
    """
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no folder of recorded motions; leave reestimation.recordings empty for simulated ones alone"
        )
    found = []
    for file in sorted(folder.iterdir()):
        motion = resampled(read_motion(file), FPS)
        tree, joints = skeleton(motion)
        if len(joints) >= LENGTH:
            found.append(h36m(joints, tree).float().unfold(0, LENGTH, int(FPS)).movedim(-1, 1))
    if not found:
        raise InputError(f"{folder}: no motion of {SECONDS:g} seconds in it")
    return torch.cat(found)


def mixed(simulated: Tensor, recorded: Tensor, share: float) -> Tensor:
    """Return both kinds of clips, the recorded ones repeated until they are about a ``share`` of all."""
    times = max(1, round(share / (1 - share) * len(simulated) / len(recorded)))
    return torch.cat([simulated, recorded.repeat(times, 1, 1, 1)])


def picked(data: Tensor, count: int, rng: torch.Generator, share: float = 0.0) -> Tensor:
    """Return clips drawn with replacement, half of them mirrored, a ``share`` of other bodies and bearings (`varied`)."""
    some = data[torch.randint(len(data), (count,), generator=rng)]
    other = torch.rand(count, generator=rng) < 0.5
    mirrored = some[:, :, list(MIRROR)] * some.new_tensor([-1.0, 1.0, 1.0])
    found = torch.where(other[:, None, None, None], mirrored, some)
    if not share:
        return found
    which = torch.rand(count, generator=rng) < share
    return torch.where(which[:, None, None, None], varied(found, FPS, rng), found)


def windows(clip: Tensor, length: int, rng: torch.Generator) -> Tensor:
    """Return a random window of every clip."""
    first = torch.randint(clip.shape[1] - length + 1, (len(clip),), generator=rng)
    at = (first[:, None] + torch.arange(length)).reshape(len(clip), length, *[1] * (clip.ndim - 2))
    return clip.gather(1, at.expand(-1, -1, *clip.shape[2:]))


def seen(film: Filmed, rng: torch.Generator | None = None) -> Tensor:
    """Return what was detected on the plane of a level camera, with the confidence as third column; with ``rng`` the tilt is
    not known exactly."""
    camera = film.camera
    if rng is not None:
        camera = Camera(camera.view, camera.tilt + TILT * torch.randn(len(film.image), generator=rng))
    return torch.cat([camera.levelled(film.image), film.confidence[..., None]], -1)


def pairs(data: Tensor, count: int, frames: int, rng: torch.Generator, share: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return lifting windows: `normalised` detections, and true poses about the hip."""
    film = filmed(picked(data, count, rng, share), FPS, rng)
    both = windows(torch.cat([seen(film, rng), film.joints], -1), frames, rng)
    return normalised(both[..., :2], both[..., 2]), both[..., 3:] - both[:, :, :1, 3:]


def prompts(data: Tensor, frames: int, seed: int) -> Pool:
    """Return the pool that ships."""
    return Pool(*pairs(data, PROMPTS, frames, generator(seed, "pool", 0)))


def train_lifter(recipe: PretrainRecipe, train: Tensor, held: Tensor, out: Path, deadline: float) -> Lifter:
    """Train and return the averaged lifter."""
    stage = recipe.reestimation
    lifter = Lifter(width=stage.width, depth=stage.depth)
    test = pairs(held, 64, lifter.frames, generator(recipe.seed + 1, "lifter", 0))
    shown = pairs(train, 64, lifter.frames, generator(recipe.seed + 1, "prompts", 0))

    def first(step: int) -> Tensor:
        query, true = pairs(train, stage.guess_batch, lifter.frames, generator(recipe.seed, "guess", step), stage.varied)
        return away(lifter.guess(query) - true)

    @torch.no_grad()
    def check_first() -> float:
        return float(mpjpe(lifter.guess(test[0]), test[1]).mean())

    def loss(step: int) -> Tensor:
        rng = generator(recipe.seed, "lifter", step)
        query, true = pairs(train, stage.batch_size, lifter.frames, rng, stage.varied)
        found = lifter(query, *pairs(train, stage.batch_size, lifter.frames, rng, stage.varied))
        return away(found - true) + away((found - true).diff(dim=1))

    @torch.no_grad()
    def check() -> float:
        return float(mpjpe(lifter(test[0], *shown), test[1]).mean())

    whole = ("embed", "outer", "gate", "place", "when")
    fit(lifter.guesser, ("0.", "4."), first, check_first, stage.guess_steps, recipe, out / "guess.jsonl", deadline, 5)
    lifter.guesser.requires_grad_(False)  # small batches undo what large ones taught it
    fit(lifter, whole, loss, check, stage.lifter_steps, recipe, out / "lifter.jsonl", deadline)
    return lifter.eval()


def train_physics(
    recipe: PretrainRecipe, lifter: Lifter, pool: Pool, train: Tensor, held: Tensor, out: Path, deadline: float
) -> PhysNet:
    """Train and return the averaged PhysNet: half of each batch lifted, half in 3D with detector-like noise."""
    stage = recipe.reestimation
    physics = PhysNet(width=stage.physics_width, mass=stage.mass, fps=FPS)
    model = Reestimator(lifter, physics, pool)
    given = torch.cat(lifted(model, train, stage.lifted, generator(recipe.seed, "lifted", 0), stage.varied), -1)
    test = solved(
        torch.cat(lifted(model, held, min(64, stage.lifted), generator(recipe.seed + 1, "lifted", 0)), -1),
        held,
        128,
        physics,
        1 << 20,
    )

    def loss(step: int) -> Tensor:
        rng = generator(recipe.seed, "physics", step)
        noisy, true = solved(given, train, stage.physics_batch, physics, rng, stage.varied)
        found = physics(noisy)
        near = away(about(found.fused) - about(true)) + away(found.fused - true) + away(about(found.pose) - about(true))
        return near + 2 * away((found.fused - true).diff(n=2, dim=1)) + stage.noise_weight * found.noise

    @torch.no_grad()
    def check() -> float:
        return float(mpjpe(physics.eval()(test[0]).fused, test[1], 0).mean())

    ends = ("outer", "mix", "noise", "pose.2", "inner", "trunk")
    fit(physics, ends, loss, check, stage.physics_steps, recipe, out / "physics.jsonl", deadline, 5)
    return physics.eval()


def away(difference: Tensor) -> Tensor:
    """Return the mean distance of joints [m], smooth at zero."""
    return (difference.square().sum(-1) + 1e-6).sqrt().mean()


def about(joints: Tensor) -> Tensor:
    """Return joints about the hip."""
    return joints - joints[:, :, :1]


def lifted(model: Reestimator, data: Tensor, count: int, rng: torch.Generator, share: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return clips lifted from noisy detections and put on their rays, and the true joints, (count, 60, 17, 3) each."""
    film = filmed(picked(data, count, rng, share), FPS, rng)
    look = seen(film, rng)
    which = torch.randint(len(model.pool.images), (count,), generator=rng).tolist()
    poses = torch.stack([model.lift(x[..., :2], x[..., 2], k) for x, k in zip(look, which, strict=True)])
    return placed(poses, look[..., :2], look[..., 2]), film.joints


def solved(
    given: Tensor, data: Tensor, count: int, physics: PhysNet, rng: torch.Generator | int, share: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return noisy windows and true ones, each about its own mean place of the hip."""
    rng = generator(rng, "solved", 0) if isinstance(rng, int) else rng
    half = count // 2
    first = given[torch.randint(len(given), (half,), generator=rng)]
    true = picked(data, count - half, rng, share)
    true = true @ turn(2 * torch.pi * torch.rand(len(true), generator=rng))[:, None].mT
    noisy, _ = detected(true, torch.full((len(true),), 1.7), FPS, rng)
    both = windows(torch.cat([first, torch.cat([noisy, true], -1)]), physics.frames, rng)
    return tuple(x - x[:, :, :1].mean(1, keepdim=True) for x in (both[..., :3], both[..., 3:]))  # type: ignore[return-value]


def fit(
    network: nn.Module,
    ends: tuple[str, ...],
    loss: Callable[[int], Tensor],
    check: Callable[[], float],
    steps: int,
    recipe: PretrainRecipe,
    curve: Path,
    deadline: float,
    every: int = 1,
) -> None:
    """Train with Muon (hidden matrices) and its AdamW (``ends`` and vectors), averaged over updates; stop at the deadline."""
    stage, parameters = recipe.reestimation, {n: p for n, p in network.named_parameters() if p.requires_grad}
    last = [p for n, p in parameters.items() if p.ndim != 2 or any(e in n for e in ends)]
    hidden = [p for n, p in parameters.items() if p.ndim == 2 and not any(e in n for e in ends)]
    rule = Muon(
        [{"params": hidden, "algorithm": "matrix"}, {"params": last, "algorithm": "adamw"}],
        lr=stage.lr,
        scale="rms",
        weight_decay=0.01,
    )
    teacher, log, losses = TeacherEMA(parameters, Ramp(stage.ema)), Log(curve, 0), list[Tensor]()
    began = time.monotonic()
    for step in (bar := tqdm(range(steps), desc=curve.stem, unit="step")):
        network.train()
        for group in rule.param_groups:
            group["lr"] = stage.lr * learning_rate(step, steps, 50, stage.decay)
        value = loss(step)
        rule.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        rule.step()
        teacher.update(parameters)
        losses.append(value.detach())
        late = time.monotonic() > deadline
        if (step + 1) % (recipe.validate_every * every) == 0 or step + 1 == steps or late:
            with teacher.applied(parameters):
                error = check()
            log.write(
                step=step + 1, loss=float(torch.stack(losses).mean()), held_out_mm=error, seconds=time.monotonic() - began
            )
            bar.set_postfix(mm=f"{error:.1f}")
            losses = []
        if late:
            break
    teacher.copy_to(parameters)


@torch.no_grad()
def numbers(model: Reestimator, held: Tensor, count: int, seed: int) -> dict[str, float]:
    """Return errors on held-out clips: lifted alone, and re-estimated [mm, mm/frame^2, about the hip]."""
    noisy, true = lifted(model, held, count, generator(seed, "numbers", 0))
    found = torch.stack([model(x) for x in noisy])
    return {
        "lifted_mpjpe": float(mpjpe(noisy, true, 0).mean()),
        "reestimated_mpjpe": float(mpjpe(found, true, 0).mean()),
        "lifted_acceleration_error": float(acceleration_error(about(noisy), about(true)).mean()),
        "reestimated_acceleration_error": float(acceleration_error(about(found), about(true)).mean()),
    }


def write(model: Reestimator, recipe: PretrainRecipe, held: Tensor, folder: Path, real: Tensor) -> Path:
    """Write weights, numbers, recipe, card and checksums; ``real``: the recorded clips it was trained on."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save(folder / "model.safetensors")
    found = numbers(Reestimator.load(folder / "model.safetensors"), held, min(96, recipe.reestimation.lifted), recipe.seed + 2)
    told = {"recorded_clips": len(real), "fingerprint": hashlib.sha256(real.numpy().tobytes()).hexdigest()[:16]}
    write_json(folder / "numbers.json", {"numbers": found, **told, "made_with": provenance()})
    (folder / "recipe.json").write_text(recipe.model_dump_json(indent=1) + "\n")
    (folder / "README.md").write_text(card(found, model, recipe, len(real)))
    files = sorted(f for f in folder.iterdir() if f.name != "SHA256SUMS")
    (folder / "SHA256SUMS").write_text("".join(f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.name}\n" for f in files))
    return folder


def card(found: dict[str, float], model: Reestimator, recipe: PretrainRecipe, recorded: int) -> str:
    """Return the model's card."""
    stage = recipe.reestimation
    real = f"Clips of recorded motions, {recorded} of them, make {stage.recorded:g} of what it saw. {stage.credit}".strip()
    command = f" --reestimation.recordings {stage.recordings}" if recorded else ""
    rows = "\n".join(f"| {name.replace('_', ' ')} | {value:.1f} |" for name, value in found.items())
    sizes = [sum(p.numel() for p in net.parameters()) for net in (model.lifter, model.physics)]
    return f"""# Re-estimation of human motion

Lifter in the form of Skeleton-in-Context (arXiv 2312.03703), {sizes[0]} weights, and PhysNet of FinePhys (arXiv 2505.13437),
{sizes[1]} weights, mass "{model.physics.estimator.mass}"; half precision. Trained on
{stage.clips} simulated clips of {len(ACTIONS)} actions (`visviva.data.actions`, 3 s at 20 frames/s), filmed by
random still cameras without roll, with detector-like noise (`visviva.pipelines.pretrain.detections`); a share of
{stage.varied:g} with other bone lengths, arms and trunks (`visviva.pipelines.pretrain.variations`).
{real if recorded else "No recordings were used."}

    visviva pretrain --config pretrain-reestimation{command}

On held-out simulated clips (other seed), about the hip:

| mm, mm/frame^2 | |
|---|---|
{rows}

Limits: few actions, adults, still cameras whose tilt is known to a few degrees, 20 frames/s. It knows nothing of
masses and is never its own judge: what it returns is measured by `visviva.eval.motion`. On recorded motions see docs/motion.md.
Licence: as the package's.
"""
