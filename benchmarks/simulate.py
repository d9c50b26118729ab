"""Clips per second of `visviva simulate`, rendering, ground truth and files included, after warm-up.

    python benchmarks/simulate.py --output benchmarks/results/simulate.json

Measures (a) the first clips with an empty kernel cache (cold), (b) whole runs of the pipeline on several processes, repeated,
(c) the stages on one process. JSON with hardware and versions.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import torch

COLD = """
import time
start = time.perf_counter()
import warp
warp.config.log_level = 30
from visviva.data.scenes import simulate
simulate(n=5)
print("cold", time.perf_counter() - start)
"""


def cold() -> float:
    """Seconds from a fresh Python with an empty kernel cache to five clips, one of each primitive."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "WARP_CACHE_PATH": cache}
        done = subprocess.run([sys.executable, "-c", COLD], env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout.split("cold")[-1])


def pipeline(clips: int, workers: int, size: int, seed: int) -> dict[str, float]:
    """Clips per second of one whole run into a fresh folder, start of the processes included, and of its steady part."""
    from visviva.configs.simulate import SimulateRecipe
    from visviva.pipelines.simulate import run

    with tempfile.TemporaryDirectory() as folder:
        recipe = SimulateRecipe(output=folder, clips=clips, workers=workers, height=size, width=size, seed=seed)
        start = time.time()
        run(recipe)
        end = time.time()
        finished = sorted(p.stat().st_mtime for p in Path(folder, "clips").glob("*.npz"))
    skip = len(finished) // 10
    return {"whole": clips / (end - start), "steady": (len(finished) - 1 - skip) / (finished[-1] - finished[skip])}


def stages(count: int, size: int) -> dict[str, float]:
    """Milliseconds of CPU time per clip in each stage on one process, all primitives mixed."""
    from visviva.data.scenes import PRIMITIVES, Shot, dynamics, render, world
    from visviva.data.scenes.simulation import describe, plan

    torch.set_num_threads(1)  # as in the worker processes
    shot, spent = Shot(size=(size, size)), dict.fromkeys(("sample", "build", "move", "render", "truth", "write"), 0.0)

    def lap(name: str, since: float) -> float:
        now = time.process_time()
        spent[name] += (now - since) / count * 1e3
        return now

    with tempfile.TemporaryDirectory() as folder:
        for batch in plan(shot, PRIMITIVES, range(count), count):
            clock = time.process_time()
            scenes = sorted((shot.scene(name, k) for _, name, k in batch), key=world.layout)
            clock = lap("sample", clock)
            for layout in sorted({world.layout(scene) for scene in scenes}):
                group = [scene for scene in scenes if world.layout(scene) == layout]
                model = world.build(group)
                clock = lap("build", clock)
                motion = dynamics.move(group, shot.frames, shot.fps, model)
                clock = lap("move", clock)
                images = render.render(group, motion, size, size, model)
                clock = lap("render", clock)
                for i, scene in enumerate(group):
                    clip = describe(scene, motion, images, i, shot)
                    clock = lap("truth", clock)
                    clip.write(folder, scene.name)
                    clock = lap("write", clock)
    return {name: round(value, 2) for name, value in spent.items()}


def main() -> None:
    """Run all measurements and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/simulate.json"))
    parser.add_argument("--clips", type=int, default=400)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--size", type=int, default=64)
    options = parser.parse_args()
    result: dict[str, object] = {"cold_seconds_to_five_clips": round(cold(), 1)}
    stages(20, options.size)
    result["stages_ms_cpu_per_clip"] = stages(200, options.size)
    runs = []
    for seed in range(options.repeats):
        runs.append(pipeline(options.clips, options.workers, options.size, seed))
        print(runs[-1], flush=True)
    for name in ("whole", "steady"):
        rates = [run[name] for run in runs]
        result[f"clips_per_second_{name}"] = {
            "median": round(statistics.median(rates), 2),
            "runs": [round(r, 2) for r in rates],
        }
    result["settings"] = {
        "clips": options.clips,
        "workers": options.workers,
        "size": options.size,
        "frames": 17,
        "arrays": "all",
    }
    result["load_average"] = os.getloadavg()
    result["hardware"] = {"cpus": len(os.sched_getaffinity(0)), "machine": platform.machine(), "system": platform.platform()}
    result["versions"] = {name: version(name) for name in ("newton", "warp-lang", "mujoco-warp", "numpy", "torch", "av")}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
