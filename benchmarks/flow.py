"""Optical flow estimators: end-point error against processor milliseconds per pair of 128 x 128 pixels.

    visviva simulate runs/flow/sim-test --clips 40 --seed 7101
    visviva simulate runs/flow/sim-test-128 --clips 20 --seed 7102 --split ood --height 128 --width 128
    python benchmarks/flow.py --simulated runs/flow/sim-test runs/flow/sim-test-128

Pictures: drawn scenes of the kind that the flow network was trained on, from looks, shapes and motions of another seed; discs
and boxes as the laws are calibrated on (`visviva.physics.sprites`), textured and plain; simulated clips of other seeds, from
their compressed videos; a real pair (FlyingChairs, $VISVIVA_REAL/flow), whose pictures stay there. Errors are means over
pairs with a 95 % bootstrap interval over scenes. The weights of RAFT here are random: its time only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

import visviva
from visviva.data.dataset import ClipDataset
from visviva.eval.benchmarks.flow import flow_errors, read_flow
from visviva.eval.eyes import photographed as eight_bits
from visviva.eval.statistics import bootstrap_mean
from visviva.models.probes import FlowNetwork, LucasKanade
from visviva.models.probes.flow import RAFTNetwork
from visviva.physics.kinematics import object_velocity
from visviva.physics.sprites import random_sprites
from visviva.pipelines.pretrain.flow import held_out_scenes

Estimator = Callable[[Tensor, Tensor], Tensor]
RATE = 30.0
ENLARGE_TO = 192
"""As the probe `DIS` does, OpenCV's estimators see small pictures enlarged; without it they miss small objects."""


def grey(images: Tensor) -> np.ndarray:
    """Return 8-bit grey pictures (M, h, w), enlarged by a whole factor, as OpenCV's estimators take them."""
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    return ((images * weights).sum(1) * 255).round().clamp(0, 255).to(torch.uint8).numpy()


def opencv(estimate: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Estimator:
    """Return an estimator of batches from one of OpenCV's for a pair of grey pictures."""

    def batch(first: Tensor, second: Tensor) -> Tensor:
        height, width = first.shape[-2:]
        factor = -(-ENLARGE_TO // min(height, width))
        flows = []
        for one, two in zip(grey(first), grey(second), strict=True):
            if factor > 1:
                one, two = (cv2.resize(i, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC) for i in (one, two))
            flow = estimate(one, two).reshape(height, factor, width, factor, 2).mean((1, 3)) / factor
            flows.append(torch.from_numpy(flow.astype(np.float32)).permute(2, 0, 1))
        return torch.stack(flows)

    return batch


def estimators() -> dict[str, Estimator]:
    """Return every estimator whose accuracy is measured."""
    found: dict[str, Estimator] = {}
    for name in ("ULTRAFAST", "FAST", "MEDIUM"):
        dis = cv2.DISOpticalFlow_create(getattr(cv2, f"DISOPTICAL_FLOW_PRESET_{name}"))
        found[f"DIS {name.lower()}"] = opencv(lambda one, two, dis=dis: dis.calc(one, two, None))
    found["Farneback"] = opencv(lambda one, two: cv2.calcOpticalFlowFarneback(one, two, None, 0.5, 5, 21, 3, 7, 1.5, 0))
    lucas_kanade, network = LucasKanade(), FlowNetwork()
    found["LucasKanade"] = torch.no_grad()(lambda one, two: lucas_kanade.pairs(one, two)[0])
    found["FlowNetwork"] = torch.no_grad()(lambda one, two: network.network(one, two)[0])
    return found


def batches(simulated: list[str], scenes: int) -> Iterator[tuple[str, Tensor, Tensor, Tensor, Tensor | None]]:
    """Yield (set, first, second, true flow, masks of objects in the first or None), batch by batch, one scene per batch."""
    for pair in held_out_scenes(scenes):
        yield "drawn scenes, 96 px", pair.first, pair.second, pair.flow, None
    for textured in (True, False):
        for seed in range(scenes):
            drawn = random_sprites(1, seed=9000 + seed, textured=textured, objects=1 + seed % 2).render()
            frames, kind = eight_bits(drawn.frames)[0], "textured" if textured else "plain"
            yield f"{kind} discs and boxes, 64 px", frames[:-1:4], frames[1::4], drawn.flow[0, ::4], drawn.masks[0, :-1:4]
    for folder in simulated:
        dataset = ClipDataset(folder)
        for clip in dataset:
            if clip.flow is None:
                raise SystemExit(f"{folder}: no flow; simulate it with --arrays all")
            masks = None if clip.masks is None else clip.masks[:-1:3].float()
            name = f"simulated clips, {clip.frames.shape[-1]} px"
            yield name, clip.frames[:-1:3], clip.frames[1::3][: len(clip.frames[:-1:3])], clip.flow[::3].float(), masks


def accuracy(methods: dict[str, Estimator], simulated: list[str], scenes: int) -> dict[str, Any]:
    """Errors of each method on each set: EPE of all pixels, of objects, and the error of objects' mean velocity [px]."""
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for name, first, second, true, masks in batches(simulated, scenes):
        for method, estimate in methods.items():
            flow = estimate(first, second)
            lists = found.setdefault(name, {}).setdefault(method, {"EPE": [], "EPE of objects": [], "velocity error": []})
            lists["EPE"].append(float(flow_errors(flow, true)["epe"].mean()))
            if masks is not None and bool((masks > 0.9).any()):
                inner = (masks > 0.9).float()
                apart = (flow - true).norm(dim=1, keepdim=True)
                lists["EPE of objects"].append(float((apart * inner.amax(1, keepdim=True)).sum() / inner.amax(1).sum()))
                measured, area = object_velocity(flow[None], inner[None])
                wanted = object_velocity(true[None], inner[None])[0]
                lists["velocity error"].append(float((measured - wanted).norm(dim=-1)[area > 4].mean()))
    return {name: {method: summary(lists) for method, lists in row.items()} for name, row in found.items()}


def summary(lists: dict[str, list[float]]) -> dict[str, Any]:
    """Mean, 95 % interval and number of scenes of each list; what no scene has is left out."""
    result: dict[str, Any] = {}
    for name, values in lists.items():
        kept = [v for v in values if np.isfinite(v)]
        if kept:
            mean = bootstrap_mean(kept)
            result[name] = {"mean": round(float(np.mean(kept)), 4), "low": round(mean.low, 4), "high": round(mean.high, 4)}
            result["scenes"] = len(values)
    return result


def real_pair(methods: dict[str, Estimator]) -> dict[str, float] | None:
    """EPE of the real pair, or None where it is absent."""
    folder = Path(os.environ.get("VISVIVA_REAL", "../shared/real")) / "flow"
    if not folder.is_dir():
        return None
    images = [cv2.imread(str(folder / f"chairs_00001_img{i}.ppm"))[..., ::-1].copy() for i in (1, 2)]
    one, two = (torch.from_numpy(i).permute(2, 0, 1)[None].float() / 255 for i in images)
    true, known = read_flow(folder / "chairs_00001_flow.flo")
    found = {name: float(flow_errors(m(one, two), true[None], known[None])["epe"]) for name, m in methods.items()}
    return {name: round(epe, 3) for name, epe in found.items()}


def times(methods: dict[str, Estimator], repeat: int) -> dict[str, dict[str, float]]:
    """Processor milliseconds per pair of 128 x 128, in batches of four: median and quartiles."""
    scene = random_sprites(1, seed=3, frames=5, height=128, width=128, radius=(10.0, 16.0)).render().frames[0]
    found = {}
    for name, method in methods.items():
        method(scene[:-1], scene[1:])
        taken = []
        for _ in range(repeat):
            start = time.process_time()
            method(scene[:-1], scene[1:])
            taken.append(1e3 * (time.process_time() - start) / 4)
        low, middle, high = statistics.quantiles(taken, n=4)
        found[name] = {"median_ms": round(middle, 2), "q1_ms": round(low, 2), "q3_ms": round(high, 2)}
    return found


def draw(result: dict[str, Any], path: Path) -> None:
    """Plot error against time, one panel per set."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    sets = list(result["accuracy"])
    figure, axes = pyplot.subplots(1, len(sets), figsize=(3.3 * len(sets), 3.4), layout="constrained", squeeze=False)
    for axis, name in zip(axes[0], sets, strict=True):
        for method, values in result["accuracy"][name].items():
            error, took = values["EPE"], result["times"][method]["median_ms"]
            ours = method == "FlowNetwork"
            bars = [[error["mean"] - error["low"]], [error["high"] - error["mean"]]]
            axis.errorbar(took, error["mean"], yerr=bars, fmt="o", color="#d1242f" if ours else "#1f6feb", capsize=2)
            axis.annotate(method, (took, error["mean"]), textcoords="offset points", xytext=(5, 4), fontsize=7)
        raft = result["times"]["RAFT small, random weights"]["median_ms"]
        axis.axvline(raft, color="#8a8a8a", linestyle=":")
        axis.annotate("RAFT small\n(time only)", (raft, 0), textcoords="offset points", xytext=(-3, 4), fontsize=7, ha="right")
        axis.set(title=name, xlim=(0, 1.1 * raft), ylim=(0, None), xlabel="ms per 128 x 128 pair")
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("EPE [px]")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def main() -> None:
    """Measure, print, write, draw."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--output", default="benchmarks/results/flow.json")
    options.add_argument("--plot", default="docs/images/flow.png")
    options.add_argument("--simulated", nargs="*", default=[])
    options.add_argument("--scenes", type=int, default=24)
    options.add_argument("--repeat", type=int, default=7)
    options.add_argument("--threads", type=int, default=1)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    cv2.setNumThreads(given.threads)
    methods = estimators()
    small = RAFTNetwork("small").eval()
    timed = methods | {"RAFT small, random weights": torch.no_grad()(lambda one, two: small(2 * one - 1, 2 * two - 1)[-1])}
    result = {
        "what": "optical flow: end-point error [px] by set of pictures, and processor milliseconds per pair of 128 x 128",
        "command": "python benchmarks/flow.py " + " ".join(["--simulated", *given.simulated] if given.simulated else []),
        "seeds": {"drawn scenes": 1 << 20, "discs and boxes": 9000, "bootstrap": 0},
        "threads": given.threads,
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "versions": {"visviva": visviva.__version__, "torch": torch.__version__, "opencv": cv2.__version__},
        "times": times(timed, given.repeat),
        "accuracy": accuracy(methods, given.simulated, given.scenes),
        "real pair, EPE": real_pair(methods),
    }
    print(json.dumps(result, indent=1))
    output = Path(given.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(output.name + ".tmp")
    partial.write_text(json.dumps(result, indent=1) + "\n")
    os.replace(partial, output)
    draw(result, Path(given.plot))


if __name__ == "__main__":
    main()
