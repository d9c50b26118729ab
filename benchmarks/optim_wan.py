"""The most promising optimizers on the tiny Wan: its denoiser and text encoder from fresh weights, on simulated clips' latents.

    visviva simulate --output runs/train --clips 200 --seed 2001 --arrays small
    visviva simulate --output runs/test-id --clips 60 --seed 3001 --arrays small
    python benchmarks/optim_wan.py --data runs/train --held-out runs/test-id --output runs/optim/wan

The loss, the gradient clipping and the latents are those of ``visviva pretrain``; the shipped autoencoder encodes the clips. By
default the transformer has 2 of its 6 blocks, so that a run takes half a minute on one core. Same protocol as optim_gpt.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from optim_methods import METHODS
from optim_sweep import measure
from torch import Tensor

from visviva.configs.pretrain import PretrainRecipe
from visviva.eval.run import provenance, write_json
from visviva.models.backbones import tiny
from visviva.models.backbones.wan import WanBackbone
from visviva.pipelines.pretrain import denoiser
from visviva.pipelines.pretrain.clips import load_clips
from visviva.pipelines.pretrain.schedule import generator

STARTS = {
    "adamw": 1e-3,
    "adamw-b95": 1e-3,
    "spam": 1e-3,
    "adan": 2e-3,
    "adamp": 1e-3,
    "lion": 2e-4,
    "muon": 2e-3,
    "namo": 1e-2,
}
"""Where the rates are searched from."""


class Task:
    """Latents of simulated clips, and fresh models to train on them."""

    clip, failure = 1.0, 10.0

    def __init__(self, data: str, held_out: str, out: Path, clips: int, blocks: int, batch: int) -> None:
        tiny.SIZES["benchmark"] = {**tiny.SIZES["default"], "layers": blocks}
        self.recipe, self.batch = PretrainRecipe(precision="fp32"), batch
        out.mkdir(parents=True, exist_ok=True)
        shipped, train, held = WanBackbone.load("tiny"), load_clips(data, clips), load_clips(held_out, 64)
        with torch.no_grad():
            latents, self.captions = denoiser.cached_latents(shipped, train, False, out)
            unseen, self.held_captions = denoiser.cached_latents(shipped, held, False, out)
        self.latents, self.held = latents.float(), unseen.float()
        self.about = dict(clips=len(latents), held_out=len(unseen), blocks=blocks, batch=batch, latents=list(latents.shape[1:]))
        self.about |= {"data": [train.fingerprint, held.fingerprint], "unit": "flow-matching loss, weighted as in pre-training"}

    def start(self, seed: int) -> tuple[list[tuple[str, Tensor]], Callable[[int], Tensor]]:
        """Return a fresh denoiser's and text encoder's parameters, and its flow-matching loss on the batch of a step."""
        backbone = self.backbone = tiny.tiny_wan("benchmark", seed=seed)
        named = list(denoiser._parameters(backbone))

        def batch_loss(step: int) -> Tensor:
            rng = generator(seed, "optimizers", step)
            index = torch.randint(len(self.latents), (self.batch,), generator=rng)
            return denoiser._loss(backbone, self.recipe, self.latents[index], [self.captions[i] for i in index.tolist()], rng)

        return named, batch_loss

    @torch.no_grad()
    def check(self) -> dict[str, float]:
        """Return the loss on 64 training clips and on the held-out ones, noise and noise levels fixed."""
        found = {}
        for name, latents, captions in (
            ("training", self.latents[:64], self.captions[:64]),
            ("validation", self.held, self.held_captions),
        ):
            losses = [
                denoiser._loss(self.backbone, self.recipe, latents, list(captions), generator(0, name, draw)) for draw in (0, 1)
            ]
            found[name] = float(torch.stack(losses).mean())
        return found


def main() -> None:
    """Run everything and write one JSON."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", default="runs/train")
    options.add_argument("--held-out", default="runs/test-id")
    options.add_argument("--output", default="runs/optim/wan")
    options.add_argument("--clips", type=int, default=200)
    options.add_argument("--blocks", type=int, default=2)
    options.add_argument("--batch", type=int, default=4)
    options.add_argument("--steps", type=int, default=150)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--methods", nargs="+", default=list(STARTS))
    options.add_argument("--most", type=int, default=3, help="rates tried per method")
    options.add_argument("--minutes", type=float, default=float("inf"), help="begin no run after so many")
    given = options.parse_args()
    torch.set_num_threads(1)
    made_with = provenance()
    task = Task(given.data, given.held_out, Path(given.output), given.clips, given.blocks, given.batch)
    methods = {n: replace(METHODS[n], rate=STARTS.get(n, METHODS[n].rate)) for n in given.methods}
    found = measure(task, methods, Path(given.output), given.steps, given.seeds, given.most, given.minutes)
    names = ("clips", "blocks", "batch", "steps", "seeds")
    report = {
        "command": "python benchmarks/optim_wan.py --data runs/train --held-out runs/test-id "
        + " ".join(f"--{n} {getattr(given, n)}" for n in names),
        "task": task.about,
        "made_with": made_with,
        "methods": found,
    }
    write_json(Path(given.output) / "optim-wan.json", report)


if __name__ == "__main__":
    main()
