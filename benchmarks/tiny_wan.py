"""How good the tiny Wan is: round trip of its autoencoder, and how its clips follow the true ones on held-out conditions.

    python benchmarks/tiny_wan.py --clips 200 --output runs/benchmark-tiny-wan

Writes ``tiny_wan.json``: PSNR and SSIM of the round trip, mask IoU and centroid error (Euclidean, in image heights) with 95 %
bootstrap intervals over scenes, per primitive, with versions and hardware.
"""

from __future__ import annotations

import argparse
import math
import platform
from pathlib import Path

import torch

from visviva.configs.generate import GenerateRecipe
from visviva.configs.posttrain import Sampler
from visviva.configs.simulate import SimulateRecipe
from visviva.data.dataset import ClipDataset
from visviva.eval.fidelity import psnr, ssim
from visviva.eval.run import provenance, write_json
from visviva.eval.statistics import bootstrap_mean
from visviva.models.backbones.wan import WanBackbone
from visviva.pipelines import generate, simulate
from visviva.pipelines.demo import measured


def main() -> None:
    """Simulate, round-trip, generate, score, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--split", default="id", choices=["id", "ood"])
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--seed", type=int, default=3001, help="of the simulated held-out clips")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", default="runs/benchmark-tiny-wan")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    out = Path(given.output)
    truth = simulate.run(
        SimulateRecipe(
            output=str(out / f"truth-{given.split}"), clips=given.clips, seed=given.seed, split=given.split, arrays="small"
        )
    )
    content = {
        "command": vars(given),
        "made_with": provenance(),
        "machine": platform.platform(),
        **round_trip(given.model, truth),
    }
    folder = generate.run(
        GenerateRecipe(
            prompts=str(truth),
            output=str(out / f"clips-{given.split}"),
            model={"path": given.model},
            batch_size=8,
            sampler=Sampler(steps=given.steps),
        )
    )
    run = measured("tiny", folder, truth)
    values = {
        "iou": [c.penalised["iou"].value for c in run.clips],
        "centroid_error": [c.penalised["l2"].value * math.sqrt(2) for c in run.clips],
        "centroid_error_as_coded": [c.as_coded["l2"].value * math.sqrt(2) for c in run.clips],
        "lost": [c.lost for c in run.clips],
    }
    scenes = [c.scene for c in run.clips]
    content["clips"] = {k: vars(bootstrap_mean(v, scenes)) if all(map(math.isfinite, v)) else v for k, v in values.items()}
    content["table"] = [row.to_json() for row in run.table()]
    write_json(out / f"tiny_wan-{given.split}.json", content)
    print({k: v for k, v in content.items() if k not in ("table", "made_with")})


@torch.no_grad()
def round_trip(model: str, truth: Path) -> dict[str, float]:
    """Mean PSNR [dB] and SSIM of encoding and decoding the true clips."""
    backbone, dataset = WanBackbone.load(model), ClipDataset(truth)
    values = []
    for clip in dataset:
        again = backbone.decode(backbone.encode(clip.frames[None]), clamp="hard")[0]
        values.append([float(psnr(again, clip.frames).mean()), float(ssim(again, clip.frames).mean())])
    mean = torch.tensor(values).mean(0)
    return {"psnr": float(mean[0]), "ssim": float(mean[1])}


if __name__ == "__main__":
    main()
