"""Best of N with the next candidates made while the last are judged, against one after the other; the same clips either way.

    python benchmarks/best_of.py --output benchmarks/results/best_of.json

Both ways in one process, in turn, five times, one torch thread each for sampling and judging; wall seconds of choosing the best
of 4 for 8 simulated clips of the shipped model with the default laws (OpenCV DIS, tracked masks).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor

from visviva.configs.generate import GenerateRecipe
from visviva.data.scenes import simulate
from visviva.eval.run import provenance, write_json
from visviva.models.backbones.wan import WanBackbone
from visviva.models.probes import TrackedMasks
from visviva.pipelines.best_of import best_of
from visviva.pipelines.posttrain.verifier import build

CANDIDATES, CLIPS, TURNS = 4, 8, 5


def main() -> None:
    """Choose in both ways, in turn, and write the seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="benchmarks/results/best_of.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    backbone, settings = WanBackbone.load("tiny"), GenerateRecipe().best
    true = simulate("free_fall", n=CLIPS, seed=77, flow=False)
    verifier = build(settings.laws, settings.probe, backbone.vae)
    fps = torch.tensor([clip.fps for clip in true])
    masks = torch.stack([clip.masks[:1, :1] for clip in true if clip.masks is not None]).float()
    condition = backbone.condition([clip.caption for clip in true], torch.stack([clip.frames[0] for clip in true]))

    def score(frames: Tensor) -> Tensor:
        return verifier.score(frames, fps, masks=TrackedMasks()(frames, masks)).log_reward

    @torch.no_grad()
    def made(k: int) -> Tensor:
        noise = backbone.noise([10 * i + k for i in range(CLIPS)], 17, 64, 64)
        return backbone.decode(backbone.sample(condition, noise, steps=4), clamp="hard")

    seconds: dict[bool, list[float]] = {False: [], True: []}
    chosen = []
    for turn in range(TURNS + 1):  # the first warms up
        for ahead in (False, True):
            began = time.perf_counter()
            chosen.append(best_of((made(k) for k in range(CANDIDATES)), score, ahead=ahead)[1])
            if turn:
                seconds[ahead].append(time.perf_counter() - began)
    if not all(torch.equal(one, chosen[0]) for one in chosen):
        raise SystemExit("the ways do not give the same scores")
    ratios = [a / b for a, b in zip(*seconds.values(), strict=True)]
    found = {"one after the other": seconds[False], "ahead": seconds[True], "ratios": ratios, "made_with": provenance()}
    write_json(Path(given.output), found)
    print(sorted(ratios)[len(ratios) // 2], found)


if __name__ == "__main__":
    main()
