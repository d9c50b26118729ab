"""What physics guidance does: the residual, by the probe it steers by and by another, and the overlap with the true objects.

    python benchmarks/guidance.py --data data/val --clips 50 --output runs/benchmark-guidance

generates the same clips (same conditions, same noise) with guidance off and at several strengths, measures all of them, and
writes one JSON with paired 95 % intervals, clustered by scene. The claim under test: the residual falls while mask IoU with the
true clip does not. The second probe (OpenCV DIS) is not steered by: a gain that it does not see is a trick played on the first.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from visviva.configs.generate import GenerateRecipe
from visviva.configs.schema import load
from visviva.data import ClipDataset
from visviva.eval.newtonbench import FIVE, LOWER_IS_BETTER, score_clip
from visviva.eval.run import provenance
from visviva.eval.statistics import paired_bootstrap
from visviva.models.probes import DIS, LucasKanade, track_masks
from visviva.physics import ConstantAcceleration, Term, Verifier
from visviva.pipelines import generate


def main() -> None:
    """Generate at every strength, measure, compare, write."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", default="tiny")
    options.add_argument("--lora", default="")
    options.add_argument("--data", required=True, help="a folder of simulated clips with masks")
    options.add_argument("--clips", type=int, default=50)
    options.add_argument("--output", default="runs/benchmark-guidance")
    options.add_argument("--config", default="generate-guided", help="recipe of the guided runs")
    options.add_argument("--scales", type=float, nargs="+", default=[0.25, 0.5, 1.0])
    options.add_argument("--radius", type=float, nargs="+", default=[0.02, 0.05])
    options.add_argument("--masks", default="track", choices=["track", "motion", "none"])
    given = options.parse_args()

    truth = ClipDataset(given.data, limit=given.clips)
    runs = {"off": {"guidance.scale": 0.0}}
    runs |= {
        f"scale {s:g}, radius {r:g}": {"guidance.scale": s, "guidance.radius": r} for s in given.scales for r in given.radius
    }
    measured, seconds = {}, {}
    for name, settings in runs.items():
        output = Path(given.output) / name.replace(", ", "-").replace(" ", "")
        fixed = {"prompts": given.data, "limit": given.clips, "output": str(output), "guidance.masks": given.masks}
        recipe = load(GenerateRecipe, given.config, **fixed, **{"model.path": given.model, "lora": given.lora}, **settings)
        start = time.perf_counter()
        generate.run(recipe)
        seconds[name] = (time.perf_counter() - start) / len(truth)
        measured[name] = [measure(clip, true) for clip, true in zip(ClipDataset(output), truth, strict=True)]
        print(name, {k: round(sum(m[k] for m in measured[name]) / len(truth), 4) for k in measured[name][0]}, flush=True)

    scenes = [str(row.get("scene", i)) for i, row in enumerate(truth.rows)]
    report = {
        "command": vars(given),
        "machine": {"platform": platform.platform(), "processor": platform.processor(), "threads": torch.get_num_threads()},
        "made_with": provenance(),
        "seconds_per_clip": seconds,  # small and wrong for a run that was continued or already there
        "against_off": {name: compare(measured["off"], rows, scenes) for name, rows in measured.items() if name != "off"},
    }
    path = Path(given.output) / "guidance.json"
    path.write_text(json.dumps(report, indent=1))
    print(path)


@torch.no_grad()
def measure(clip: Any, true: Any) -> dict[str, float]:
    """Residuals [(px/frame)^2] of one generated clip by two probes, and its five metrics against the true clip."""
    frames, fps = clip.frames[None], torch.tensor([float(clip.fps)])
    masks = track_masks(frames, true.masks[None, 0].float())
    row = {}
    for probe in (LucasKanade(), DIS()):
        verifier = Verifier(probe, [Term(ConstantAcceleration())], allow_trivial=True)
        row[f"residual_{probe.name}"] = float(verifier.score(frames, fps, masks=masks).loss)
    score = score_clip(masks[0] > 0.5, true.masks, float(clip.fps), float(true.fps))
    return row | {name: score.penalised[name].value for name in FIVE} | {"motion": score.motion}


def compare(off: list[dict[str, float]], on: list[dict[str, float]], scenes: list[str]) -> dict[str, Any]:
    """Paired comparison of every measured number."""
    found = {}
    for name in off[0]:
        before, after = [row[name] for row in off], [row[name] for row in on]
        lower = LOWER_IS_BETTER.get(name, name != "motion")
        found[name] = asdict(paired_bootstrap(before, after, scenes, metric=name, lower_is_better=lower))
    return found


if __name__ == "__main__":
    main()
