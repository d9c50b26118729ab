"""Speed of evaluating clips against a plain evaluator that goes frame by frame with OpenCV and NumPy.

    python benchmarks/evaluate_speed.py --output benchmarks/results/evaluate_speed.json

Both read the same H.264 files, measure the same DIS flow (OpenCV, medium, small images enlarged) and the same two laws:
constant acceleration of each object's mean flow inside its eroded mask (a line through the whole run), and the fixed-pixel
residual of NewtonRewards. The plain evaluator reads with ``cv2.VideoCapture`` and loops over frames and objects. On the same
flow the laws' values must agree (asserted to 1e-4 of the largest); end to end the two decoders round colours differently.

Runs alternate; each gives one ratio, plain over ours, of which median and range are kept. ``both laws`` is the whole law part:
a run of the two laws, objects by the kernel. It is timed twice: ``laws``, each timed run right after an untimed one of the same
evaluator (as timeit does), and ``laws, cold``, right after one of the other, which has left little of masks and flow in the
caches. With one thread the time is the processor's, which other programs disturb little; with several (torch, OpenCV) it is
the clock's: run it on an idle machine. ``floor`` is the time in which this machine reads the masks, and masks and flow, once,
in the same two ways. No evaluator that looks at all of them is faster.
Reported as measured, whether or not it is faster.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from visviva.data.video import read_video, write_video
from visviva.models.probes import DIS
from visviva.physics import ConstantAcceleration, Measurement
from visviva.physics.sprites import random_sprites

FPS = 32.0
TWICE = {"": False, ", cold": True}
CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


def plain_flow(path: Path) -> list[np.ndarray]:
    """Read a file frame by frame and return the DIS flow of consecutive frames, each (H, W, 2)."""
    capture, estimator = cv2.VideoCapture(str(path)), cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    before, flows = None, []
    while True:
        good, frame = capture.read()
        if not good:
            return flows
        grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
        factor = -(-192 // min(grey.shape))
        grey = cv2.resize(grey, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC) if factor > 1 else grey
        if before is not None:
            flow = estimator.calc(before, grey, None)
            height, width = flow.shape[0] // factor, flow.shape[1] // factor
            flows.append(cv2.resize(flow, (width, height), interpolation=cv2.INTER_AREA) / factor)
        before = grey


def plain_object(flows: list[np.ndarray], masks: np.ndarray) -> float:
    """Constant acceleration of the objects, frame by frame: masks (T, N, H, W), float."""
    total, freedom = 0.0, 0
    for n in range(masks.shape[1]):
        velocity = []
        for flow, frame in zip(flows, masks, strict=False):
            mask = frame[n]
            inner = cv2.erode(mask, CROSS, borderType=cv2.BORDER_REPLICATE)
            weight = inner if inner.sum() >= 0.5 * mask.sum() else mask
            velocity.append([(flow[..., c] * weight).sum() / weight.sum() for c in range(2)])
        series, t = np.array(velocity), np.arange(len(velocity))
        for c in range(2):
            total += ((series[:, c] - np.polyval(np.polyfit(t, series[:, c], 1), t)) ** 2).sum()
        freedom += len(series) - 2
    return 6 * total / freedom


def plain_pixels(flows: list[np.ndarray]) -> float:
    """The fixed-pixel residual of NewtonRewards, frame by frame."""
    steps = [((flows[k + 1] - 2 * flows[k] + flows[k - 1]) ** 2).sum(-1).mean() for k in range(1, len(flows) - 1)]
    return float(np.mean(steps))


def ours(paths: list[Path], masks: torch.Tensor) -> Measurement:
    """Read and measure the clips as one batch."""
    frames = torch.stack([read_video(p).frames for p in paths])
    return DIS()(frames, torch.full((len(paths),), FPS), masks)


LAWS = {
    "object": ConstantAcceleration(form="object", subtract_noise=False),
    "object, kernel": ConstantAcceleration(form="object", subtract_noise=False, method="warp"),
    "fixed pixels": ConstantAcceleration(form="eulerian", subtract_noise=False),
}


def compare(work: dict[str, Callable[[], Any]], repeat: int, clock: Callable[[], float], cold: bool = True) -> dict[str, Any]:
    """Median milliseconds of ours and plain, runs alternating, and how many times faster ours is, run by run."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(repeat + 1):
        for name, job in work.items():
            if not cold:
                job()
            start = clock()
            job()
            times[name].append(1e3 * (clock() - start))
    ratios = [plain / ours for ours, plain in zip(times["ours"][1:], times["plain"][1:], strict=True)]
    found: dict[str, Any] = {name: round(statistics.median(values[1:]), 3) for name, values in times.items()}
    return found | {
        "times_faster": round(statistics.median(ratios), 2),
        "range": [round(min(ratios), 2), round(max(ratios), 2)],
    }


def row(folder: Path, clips: int, side: int, objects: int, repeat: int, clock: Callable[[], float]) -> dict[str, Any]:
    """Times and values of both evaluators on clips of 17 x side x side."""
    scale = side / 64
    scene = random_sprites(clips, seed=3, height=side, width=side, radius=(5 * scale, 7 * scale), objects=objects)
    drawn = scene.render()
    paths = [folder / f"{side}-{k}.mp4" for k in range(clips)]
    for path, frames in zip(paths, drawn.frames, strict=True):
        write_video(path, frames, FPS)
    masks = drawn.masks.float()
    arrays = masks.numpy()
    measured, flows = ours(paths, masks), [plain_flow(p) for p in paths]
    same = [list(measured.flow[k].permute(0, 2, 3, 1).contiguous().numpy()) for k in range(clips)]  # type: ignore[index]
    found: dict[str, Any] = {"clips": clips, "side": side, "objects": objects, "laws": {}, "laws, cold": {}}
    plain = {"object": plain_object, "object, kernel": plain_object, "fixed pixels": lambda f, m: plain_pixels(f)}
    with torch.no_grad():
        between = lambda: [plain_object(f, m) for f, m in zip(same, arrays, strict=True)]  # noqa: E731
        reads = {"masks": masks.sum, "masks and flow": lambda: (measured.flow.sum(), masks.sum())}  # type: ignore[union-attr]
        for label, cold in TWICE.items():
            found["floor" + label] = {
                name: compare({"ours": read, "plain": between}, repeat, clock, cold)["ours"] for name, read in reads.items()
            }
        for name, law in LAWS.items():
            here, there = law(measured).value.numpy(), np.array([plain[name](f, m) for f, m in zip(same, arrays, strict=True)])
            apart = float(np.abs(here - there).max() / np.abs(there).max())
            assert apart < 1e-4, f"{name}: ours {here}, plain {there}"
            work = {
                "ours": lambda law=law: law(measured),
                "plain": lambda name=name: [plain[name](f, m) for f, m in zip(same, arrays, strict=True)],
            }
            for label, cold in TWICE.items():
                found["laws" + label][name] = {**compare(work, repeat, clock, cold), "values_apart": apart}
        work = {
            "ours": lambda: [LAWS[name](measured) for name in ("object, kernel", "fixed pixels")],
            "plain": lambda: [(plain_object(f, m), plain_pixels(f)) for f, m in zip(same, arrays, strict=True)],
        }
        for label, cold in TWICE.items():
            found["laws" + label]["both laws"] = compare(work, repeat, clock, cold)
        work = {
            "ours": lambda: LAWS["object, kernel"](ours(paths, masks)),
            "plain": lambda: [plain_object(plain_flow(p), m) for p, m in zip(paths, arrays, strict=True)],
        }
        times = compare(work, max(3, repeat // 2), clock)
    whole = np.array([plain_object(f, m) for f, m in zip(flows, arrays, strict=True)])
    value = LAWS["object, kernel"](measured).value.numpy()
    found["end to end"] = {**times, "values_apart": float(np.abs(value - whole).max() / np.abs(whole).max())}
    return found


def main() -> None:
    """Measure, print, write."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--output", default="benchmarks/results/evaluate_speed.json")
    options.add_argument("--repeat", type=int, default=9)
    options.add_argument("--threads", type=int, nargs="+", default=[1, os.cpu_count()])
    given = options.parse_args()
    found: dict[str, list[dict[str, Any]]] = {}
    for threads in given.threads:
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
        clock = time.process_time if threads == 1 else time.perf_counter
        rows = found[f"{threads} thread{'s' if threads > 1 else ''}"] = []
        with tempfile.TemporaryDirectory() as folder:
            for clips, side, objects in ((1, 64, 1), (32, 64, 1), (32, 64, 2), (8, 128, 1), (2, 256, 1)):
                rows.append(row(Path(folder), clips, side, objects, given.repeat, clock))
                print(threads, json.dumps(rows[-1]), flush=True)
    result = {
        "what": "milliseconds per batch of clips of 17 frames, ours and a frame-by-frame OpenCV and NumPy evaluator with the "
        "same flow; one thread: of the processor; more: on the clock",
        "command": " ".join(["python benchmarks/evaluate_speed.py --threads", *map(str, given.threads)]),
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "versions": {"torch": torch.__version__, "opencv": cv2.__version__, "numpy": np.__version__},
        "load": [round(x, 2) for x in os.getloadavg()],
        "rows": found,
    }
    Path(given.output).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
