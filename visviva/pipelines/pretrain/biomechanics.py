"""Training of the biodynamic networks: the EMG encoder contrastively, then accelerations with and without muscles."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from visviva.configs.pretrain import BiomechanicsStage, PretrainRecipe
from visviva.data.motions.emg import MUSCLES, RATE, activations, drives, emg
from visviva.eval.run import provenance, write_json
from visviva.models.biomechanics import Augmentation, Contrast, EMGEncoder, EulerLagrange, acceleration
from visviva.models.biomechanics.biodynamics import AFTER, BEFORE, FPS, Biodynamics
from visviva.models.biomechanics.contrast import effective_rank
from visviva.pipelines.pretrain.imdy_clips import Clips, clips
from visviva.pipelines.pretrain.schedule import Log, generator, learning_rate


@dataclass(frozen=True)
class Moments:
    """Moments of simulated actions.

    Attributes:
        position, velocity: of 22 joints, (N, 22, 3) [m, m/s]; the velocity is that since the last frame.
        acceleration: second differences, (N, 22, 3) [m/s^2].
        drive: of the muscles, (N, 18).
        clip: of each, (N,); ``signal``: EMG of the clips, (C, 18, S); ``start``: of each moment's window in it, (N,).
    """

    position: Tensor
    velocity: Tensor
    acceleration: Tensor
    drive: Tensor
    clip: Tensor
    signal: Tensor
    start: Tensor

    def __len__(self) -> int:
        return len(self.clip)

    def windows(self, at: Tensor) -> Tensor:
        """Return the EMG around some moments, (B, 18, BEFORE + AFTER)."""
        samples = self.start[at][:, None] + torch.arange(BEFORE + AFTER)
        return self.signal[self.clip[at][:, None], :, samples].movedim(-1, 1)


def moments(found: Clips, seed: int) -> Moments:
    """Return the moments of clips that have a whole window of EMG; ``seed`` draws its noise and gains."""
    joints, frames = found.markers[:, :, :22], found.markers.shape[1]
    drive = drives(found.torque)
    signal = emg(activations(drive, FPS), FPS, seed)
    first, last = int(BEFORE / RATE * FPS) + 1, frames - int(AFTER / RATE * FPS) - 2
    kept = torch.arange(first, last)
    speed, gain = FPS * joints.diff(dim=1)[:, kept - 1], acceleration(joints, FPS)[:, kept - 1]
    position, speed, gain, drive = (x.flatten(0, 1) for x in (joints[:, kept], speed, gain, drive[:, kept]))
    clip = torch.arange(len(joints)).repeat_interleave(len(kept))
    start = (kept * RATE / FPS).round().long() - BEFORE
    return Moments(position, speed, gain, drive, clip, signal, start.repeat(len(joints)))


def run(recipe: PretrainRecipe, out: Path) -> Path:
    """Train both, test on other clips, write weights, numbers and card; returns the model's folder."""
    stage = recipe.biomechanics
    parts = ((0, stage.clips), (1, stage.test))
    train, test = (moments(clips(count, 10 * recipe.seed + part), 10 * recipe.seed + part) for part, count in parts)
    encoder = pretrained(train, stage, recipe.seed, Log(out / "contrast.jsonl", 0))
    net = fit(train, encoder, stage, recipe.seed, Log(out / "biomechanics.jsonl", 0))
    folder = out / "model"
    folder.mkdir(parents=True, exist_ok=True)
    Biodynamics(encoder, net).save(folder / "model.safetensors")
    numbers = check(Biodynamics.load(folder / "model.safetensors"), train, test)
    write_json(folder / "numbers.json", {"numbers": numbers, "made_with": provenance()})
    (folder / "recipe.json").write_text(recipe.model_dump_json(indent=1) + "\n")
    (folder / "README.md").write_text(_card(numbers, stage))
    files = sorted(f for f in folder.iterdir() if f.name != "SHA256SUMS")
    (folder / "SHA256SUMS").write_text("".join(f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.name}\n" for f in files))
    return folder


def pretrained(train: Moments, stage: BiomechanicsStage, seed: int, log: Log | None = None) -> EMGEncoder:
    """Return the encoder after contrastive training with the predictive term; its windows' positives are their own fates."""
    torch.manual_seed(seed)
    contrast = Contrast(EMGEncoder(MUSCLES), predicted=MUSCLES)
    optimizer = torch.optim.AdamW([p for p in contrast.parameters() if p.requires_grad], lr=stage.lr, weight_decay=1e-4)
    for step in range(stage.contrast_steps):
        random = generator(seed, "contrast", step)
        at = torch.randint(len(train), (stage.contrast_batch,), generator=random)
        loss = contrast(train.windows(at), train.drive[at].sqrt(), Augmentation(), random, stage.predictive)
        _stepped(optimizer, loss, stage.lr * learning_rate(step, stage.contrast_steps, 20, 0.4))
        contrast.follow()
        if log is not None and (step + 1) % 50 == 0:
            log.write(step=step + 1, loss=float(loss.detach()))
    return contrast.encoder.eval()


def fit(
    train: Moments, encoder: EMGEncoder, stage: BiomechanicsStage, seed: int, log: Log | None = None, muscles: bool = True
) -> EulerLagrange:
    """Return the Euler-Lagrange network, trained on data's own accelerations; without ``muscles`` it never sees any."""
    torch.manual_seed(seed)
    net = EulerLagrange(22, encoder.out)
    told = embedded(encoder, train)
    optimizer = torch.optim.AdamW(net.parameters(), lr=stage.lr, weight_decay=1e-4)
    for step in range(stage.steps):
        random = generator(seed, "biomechanics", step)
        at = torch.randint(len(train), (stage.batch_size,), generator=random)
        seen = (torch.rand(len(at), generator=random) > stage.masked) & muscles
        found = net(train.position[at], train.velocity[at], told[at], seen)
        loss = (found - train.acceleration[at]).abs().mean() / net.UNIT
        _stepped(optimizer, loss, stage.lr * learning_rate(step, stage.steps, 50, 0.5))
        if log is not None and (step + 1) % 200 == 0:
            log.write(step=step + 1, loss=float(loss.detach()))
    return net.eval()


def _stepped(optimizer: torch.optim.Optimizer, loss: Tensor, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


@torch.no_grad()
def embedded(encoder: EMGEncoder, found: Moments) -> Tensor:
    """Return the embeddings of all moments' muscles, (N, E)."""
    return torch.cat([encoder(found.windows(at)) for at in torch.arange(len(found)).split(1024)])


@torch.no_grad()
def clip_errors(net: EulerLagrange, found: Moments, told: Tensor | None) -> Tensor:
    """Return the mean absolute error of accelerations of each clip (C,) [m/s^2]; ``told`` are the muscles, None masks them."""
    parts = [
        (net(found.position[at], found.velocity[at], None if told is None else told[at]) - found.acceleration[at]).abs()
        for at in torch.arange(len(found)).split(2048)
    ]
    each = torch.cat(parts).flatten(1).mean(1)
    sums = torch.zeros(len(found.signal)).index_add(0, found.clip, each)
    return sums / torch.bincount(found.clip, minlength=len(found.signal))


@torch.no_grad()
def check(model: Biodynamics, train: Moments, test: Moments) -> dict[str, float]:
    """Return errors on test clips with the right, no and shuffled muscles, of the mean, and how well drives are told."""
    told, known = embedded(model.encoder, test), embedded(model.encoder, train)
    other = torch.randperm(len(told), generator=torch.Generator().manual_seed(0))
    mean = (train.acceleration.mean(0) - test.acceleration).abs().mean()
    return {
        "acceleration_error": float(clip_errors(model.net, test, told).mean()),
        "acceleration_error_masked": float(clip_errors(model.net, test, None).mean()),
        "acceleration_error_shuffled": float(clip_errors(model.net, test, told[other]).mean()),
        "acceleration_error_of_mean": float(mean),
        "drive_r2": probe(known, train.drive, told, test.drive),
        "effective_rank": effective_rank(told),
    }


def probe(known: Tensor, drive: Tensor, told: Tensor, wanted: Tensor, ridge: float = 1e-3) -> float:
    """Return the share of the drives' variance that a ridge regression on frozen embeddings explains on test moments."""

    def grown(x: Tensor) -> Tensor:
        return torch.cat([(x - known.mean(0)) / known.std(0).clamp(min=1e-6), torch.ones(len(x), 1)], 1).double()

    x, y = grown(known), drive.double()
    weights = torch.linalg.solve(x.mT @ x + ridge * len(x) * torch.eye(x.shape[1], dtype=x.dtype), x.mT @ y)
    left = (grown(told) @ weights - wanted).square().sum()
    return float(1 - left / (wanted - drive.mean(0)).square().sum())


def _card(numbers: dict[str, float], stage: BiomechanicsStage) -> str:
    rows = "\n".join(f"| {name.replace('_', ' ')} | {value:.4f} |" for name, value in numbers.items())
    return f"""# Biodynamics: accelerations from pose, velocity and muscles

An EMG encoder (contrastive, after arXiv 2312.05409 with the window's own fates as positives) and a modified Euler-Lagrange
network (a reconstruction of BioMoDiffuse's, arXiv 2503.06151, of which no equations could be read), half precision. In: 22
joints of HumanML3D's skeleton, their velocities, and 200 ms of eighteen EMG channels or none. Out: accelerations, m/s^2.

Trained on {stage.clips} two-second clips of each of fifteen simulated actions (`visviva.data.actions`) at {FPS:g} frames/s,
with EMG made from their analytic torques (`visviva.data.motions.emg`): band-limited noise as large as filtered, rectified
shares of torque.

    visviva pretrain --config pretrain-biomechanics

On {stage.test} other clips of each action (mean absolute error, m/s^2; `masked`: the same network without EMG; `shuffled`: with
the EMG of other moments; `of mean`: of who predicts the training mean; `drive r2`: a linear reading of the muscles' drives from
frozen embeddings):

| | |
|---|---|
{rows}

Limits: no recorded EMG was seen in training; real muscles share torques otherwise. Fifteen actions of one skeleton on a flat
floor. No recordings were used. Licence: as the package's.
"""
