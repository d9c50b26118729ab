"""Speed and accuracy of the probes: milliseconds per clip forward and backward, error of object velocity, overlap of masks.

    python benchmarks/probes.py --output benchmarks/results/probes.json

Clips are drawn with known motion (8 bits); times are processor seconds per clip of 17 frames over ``--repeat`` runs, median and
quartiles, so that a loaded machine does not count. ``--threads 1`` is what the targets are stated for.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import torch

import visviva
from visviva.eval.eyes import photographed
from visviva.eval.probe_error import probe_error
from visviva.models.probes import DIS, Combined, LucasKanade, MotionMasks, PatchFeatures, TrackedMasks, track_masks
from visviva.physics import ConstantAcceleration, MotionFloor, Term, Verifier
from visviva.physics.sprites import random_sprites
from visviva.physics.verify import iou

FPS = 32.0


def spread(work: Callable[[], Any], clips: int, repeat: int) -> dict[str, float]:
    """Median and quartiles of processor milliseconds per clip."""
    work()
    times = []
    for _ in range(repeat):
        start = time.process_time()
        work()
        times.append(1e3 * (time.process_time() - start) / clips)
    low, middle, high = statistics.quantiles(times, n=4)
    return {"median_ms": round(middle, 2), "q1_ms": round(low, 2), "q3_ms": round(high, 2)}


def speed(side: int, clips: int, repeat: int) -> dict[str, Any]:
    """Times of every weight-free probe, and of a whole verdict with its backward pass, on clips of 17 x side x side."""
    scale = side / 64
    scene = random_sprites(clips, seed=1, height=side, width=side, radius=(5 * scale, 8 * scale))
    drawn = scene.render()
    frames, masks, rate = photographed(drawn.frames), drawn.masks, torch.full((clips,), FPS)
    first = masks[:, :1]
    probes = {
        "lucas_kanade": lambda: LucasKanade()(frames, rate),
        "dis": lambda: DIS()(frames, rate),
        "patches": lambda: PatchFeatures()(frames, rate),
        "track_masks": lambda: track_masks(frames, first[:, 0]),
        "motion_masks": lambda: MotionMasks()(frames, None),
    }
    times = {name: spread(work, clips, repeat) for name, work in probes.items()}
    terms = [Term(ConstantAcceleration()), Term(MotionFloor())]
    leaf = frames.clone().requires_grad_()
    verifier = Verifier(LucasKanade(), terms)
    times["lucas_kanade verdict, forward and backward"] = spread(
        lambda: torch.autograd.grad(verifier(leaf, rate, masks).loss.sum(), leaf), clips, repeat
    )
    followed = Verifier(Combined(LucasKanade(), masks=TrackedMasks()), terms)
    times["with followed masks, forward and backward"] = spread(
        lambda: torch.autograd.grad(followed(leaf, rate, first).loss.sum(), leaf), clips, repeat
    )
    return times


def accuracy(clips: int) -> dict[str, Any]:
    """Velocity error of the flow probes and overlap of followed and found masks, by kind of scene, at 64 x 64."""
    kinds: dict[str, dict[str, Any]] = {"textured": {}, "plain": {"textured": False}, "two objects": {"objects": 2}}
    found: dict[str, Any] = {}
    for kind, options in kinds.items():
        scene = random_sprites(clips, seed=11, **options)
        drawn = scene.render()
        frames = photographed(drawn.frames)
        followed = iou(track_masks(frames, drawn.masks[:, 0]) > 0.5, drawn.masks > 0.5)[:, 1:]
        union = iou(MotionMasks(objects=drawn.masks.shape[2])(frames, None).amax(2) > 0.5, drawn.masks.amax(2) > 0.5)
        found[kind] = {
            "velocity error [px/frame]": {probe.name: probe_error([drawn], FPS, probe) for probe in (LucasKanade(), DIS())},
            "followed masks, mean IoU": round(float(followed.mean()), 4),
            "followed masks, worst clip": round(float(followed.mean((1, 2)).min()), 4),
            "found masks, mean IoU of the union": round(float(union.mean()), 4),
        }
    return found


def main() -> None:
    """Measure, print, write."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--output", default="benchmarks/results/probes.json")
    options.add_argument("--sides", type=int, nargs="+", default=[64, 128])
    options.add_argument("--clips", type=int, default=8)
    options.add_argument("--repeat", type=int, default=7)
    options.add_argument("--threads", type=int, default=1)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    cv2.setNumThreads(given.threads)
    times = {f"17x{side}x{side}": speed(side, max(1, given.clips * 64 // side), given.repeat) for side in given.sides}
    result = {
        "what": "probes: processor milliseconds per clip and accuracy on drawn scenes",
        "command": "python benchmarks/probes.py",
        "threads": given.threads,
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "versions": {"visviva": visviva.__version__, "torch": torch.__version__, "opencv": cv2.__version__},
        "times": times,
        "accuracy": accuracy(24),
    }
    print(json.dumps(result, indent=1))
    output = Path(given.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(output.name + ".tmp")
    partial.write_text(json.dumps(result, indent=1) + "\n")
    os.replace(partial, output)


if __name__ == "__main__":
    main()
