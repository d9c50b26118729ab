"""What one post-training step costs: its parts in time, and its peak memory against K, checkpointing, frames and resolution.

    python benchmarks/posttrain.py                      # the tiny architecture on this machine
    python benchmarks/posttrain.py --size wan-1.3b      # Wan 2.1 1.3B with random weights, bfloat16, on a GPU

Weights are random (cost does not depend on them); one clip per step; the Newton pair (constant acceleration, mass
conservation) at the tiny size, kinematics with a motion floor at 1.3B, as the shipped recipes. Every case runs in its own
process, so that its peak memory is its own. One JSON with commit, versions, hardware and spread goes to benchmarks/results.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
SIZES = {
    "test": {"frames": 9, "height": 32, "width": 32, "steps": 4},
    "tiny": {"frames": 17, "height": 64, "width": 64, "steps": 8},
    "wan-1.3b": {"frames": 81, "height": 480, "width": 832, "steps": 20},
}


def main() -> None:
    """Run every case in its own process and write the results."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--size", default="tiny", choices=SIZES)
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--threads", type=int, default=os.cpu_count())
    options.add_argument("--only", nargs="*", default=["split", "memory", "scaling"], help="which tables to make")
    options.add_argument("--case", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.case:
        print(json.dumps(measure(given.size, json.loads(given.case), given.repeats, given.threads)))
        return
    report: dict[str, Any] = {"command": " ".join(["python", *sys.argv]), **about(given.threads), "size": given.size}
    for name, cases in tables(given.size).items():
        if name in given.only:
            report[name] = [row(given, case, 1 if name == "memory" else given.repeats) for case in cases]
    path = RESULTS / f"posttrain-{given.size}-{report['hardware']['accelerator'].split()[0].lower()}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(path)


def tables(size: str) -> dict[str, list[dict[str, Any]]]:
    """Return the cases of each table: the settings that differ from the size's own."""
    own = SIZES[size]
    window = {"window": 13} if size == "wan-1.3b" else {}
    depth = [1, 2, 4] if size == "wan-1.3b" else [1, 2, 4, own["steps"]]
    kinds = ["blocks", "both"] if size == "wan-1.3b" else ["none", "blocks", "steps", "both"]
    frames = [own["frames"], (own["frames"] - 1) // 2 + 1, (own["frames"] - 1) // 4 + 1]
    sides = [(own["height"], own["width"]), (own["height"] // 2, own["width"] // 2)]
    larger = [] if size == "wan-1.3b" else [(2 * own["height"], 2 * own["width"])]
    return {
        "split": [
            {"grad_steps": 1, "checkpointing": "blocks", **window},
            {"grad_steps": 2, "checkpointing": "blocks", **window},
        ],
        "memory": [{"grad_steps": k, "checkpointing": c, **window} for c in kinds for k in dict.fromkeys(depth)],
        "scaling": [
            {"frames": f, "height": h, "width": w, "checkpointing": "blocks"}
            for f in frames
            for h, w in [*sides, *larger]
            if not (size == "wan-1.3b" and f > 41 and h > 240)
        ],
    }


def row(given: argparse.Namespace, case: dict[str, Any], repeats: int) -> dict[str, Any]:
    """Measure one case in a fresh process; a case that does not fit says so."""
    command = [sys.executable, __file__, "--size", given.size, "--repeats", str(repeats), "--threads", str(given.threads)]
    done = subprocess.run([*command, "--case", json.dumps(case)], capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    found = (
        json.loads(lines[-1]) if done.returncode == 0 and lines else {"failed": (done.stderr.strip().splitlines() or ["?"])[-1]}
    )
    print(case, {k: v for k, v in found.items() if k != "seconds"}, flush=True)
    return {**case, **found}


def measure(size: str, case: dict[str, Any], repeats: int, threads: int) -> dict[str, Any]:
    """Time the parts of a step ``repeats`` times after one warm-up; return medians, spread and peak memory."""
    import torch

    torch.set_num_threads(threads)
    step = make_step(size, case)
    before = memory()
    step(Clock())  # warm-up: allocator, kernels, lazy optimizer state
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    clocks = [Clock() for _ in range(repeats)]
    for clock in clocks:
        step(clock)
    parts = {name: [clock.seconds[name] for clock in clocks] for name in clocks[0].seconds}
    parts["step"] = [sum(clock.seconds.values()) for clock in clocks]
    return {
        "seconds": {n: {"median": statistics.median(v), "min": min(v), "max": max(v)} for n, v in parts.items()},
        "load": round(
            os.getloadavg()[0], 1
        ),  # processes that wanted a core just before: times mean little above the number of cores
        "peak_mib": round(peak() / 2**20, 1),
        "peak_above_weights_mib": round((peak() - before) / 2**20, 1),
    }


class Clock:
    """Adds up wall-clock seconds by name; waits for the accelerator first."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, name: str, function: Callable[[], Any]) -> Any:
        """Run ``function`` and book its time under ``name``."""
        import torch

        began = time.perf_counter()
        result = function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began
        return result


def make_step(size: str, case: dict[str, Any]) -> Callable[[Clock], None]:
    """Return one post-training step in its parts: sample, decode, probe, law, backward, update."""
    import torch

    from visviva.configs import posttrain as settings
    from visviva.models.backbones.condition import Condition
    from visviva.pipelines.posttrain.batch import Batch
    from visviva.pipelines.posttrain.rollout import Rollout
    from visviva.pipelines.posttrain.verifier import build

    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shape = {k: case.get(k, SIZES[size][k]) for k in ("frames", "height", "width")}
    backbone = random_backbone(size, device)
    kind, depth, end = case.get("checkpointing", "blocks"), case.get("grad_steps", 1), case.get("window")
    backbone.add_lora(16, 16)
    for network in backbone.networks().values():
        if kind in ("blocks", "both"):
            network.enable_gradient_checkpointing()
    parameters = [p for _, p in backbone.trainable()]
    for parameter in parameters:
        parameter.data = parameter.data.float()
    optimizer = torch.optim.AdamW(parameters, lr=1e-6)
    noise = backbone.noise([0], shape["frames"], shape["height"], shape["width"])
    text = torch.randn(
        1, backbone.text_length if size == "wan-1.3b" else 40, backbone.transformer.config.text_dim, device=device
    )
    first = noise[:, :, :1] if backbone.image_to_video else None
    batch = Batch(Condition(text, text, first), noise, [0], torch.full((1,), 16.0, device=device))
    sampler = settings.Sampler(steps=SIZES[size]["steps"], guidance_scale=5.0 if size == "wan-1.3b" else 1.0)
    backbone.guidance_in_graph = size != "wan-1.3b"
    autocast = torch.bfloat16 if size == "wan-1.3b" else None
    rollout = Rollout(backbone, sampler, kind in ("steps", "both"), kind in ("blocks", "both"), autocast=autocast)
    laws, masked = recipe_laws(size)
    verifier = build(laws, settings.Probe(), backbone.vae, device=device)
    length = end or shape["frames"]
    masks = torch.zeros(1, length, 1, shape["height"], shape["width"], device=device) if masked else None
    if masks is not None:
        masks[..., : shape["height"] // 4, : shape["width"] // 4] = 1
    truth = torch.rand(1, length, 3, shape["height"], shape["width"], device=device)
    with torch.no_grad():
        reference = verifier.measure(truth, batch.fps, masks=masks)

    def step(clock: Clock) -> None:
        latents = clock("sample", lambda: rollout.latents(batch, depth))
        frames = clock("decode", lambda: rollout.decode(latents, end))
        measured = clock("probe", lambda: verifier.measure(frames, batch.fps, masks=masks, reference=reference))
        loss = clock("law", lambda: verifier.judge(measured).loss.mean())
        clock("backward", loss.backward)
        clock("update", optimizer.step)
        optimizer.zero_grad()

    return step


def recipe_laws(size: str) -> tuple[list[Any], bool]:
    """Return the laws of the shipped recipe of this size, and whether they use object masks."""
    from visviva.configs import posttrain as settings

    if size == "wan-1.3b":
        material = settings.Law(name="constant_acceleration", options={"form": "material", "normalise": True})
        return [material, settings.Law(name="motion_floor", options={"least": 0.5})], False
    return [settings.Law(name="constant_acceleration"), settings.Law(name="mass_conservation")], True


def random_backbone(size: str, device: Any) -> Any:
    """Return the architecture with random weights."""
    import torch
    from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel

    from visviva.models.backbones.tiny import tiny_wan
    from visviva.models.backbones.wan import WanBackbone

    if size != "wan-1.3b":
        backbone = tiny_wan("test" if size == "test" else "default")
        backbone.pipeline.to(device)
        return backbone
    if not torch.cuda.is_available():
        raise SystemExit("wan-1.3b needs a GPU (480 x 832 x 81)")
    with torch.device(device):
        transformer = WanTransformer3DModel(
            num_attention_heads=12, attention_head_dim=128, ffn_dim=8960, num_layers=30, text_dim=4096,
            in_channels=16, out_channels=16, cross_attn_norm=True, qk_norm="rms_norm_across_heads",
        ).to(torch.bfloat16)  # fmt: skip
        vae = AutoencoderKLWan()
    pipeline = WanPipeline(None, None, vae, FlowMatchEulerDiscreteScheduler(shift=3.0), transformer=transformer)
    return WanBackbone(pipeline)


def memory() -> float:
    """Return the memory in use now [bytes]: the GPU's, or this process's resident set."""
    import torch

    if torch.cuda.is_available():
        return float(torch.cuda.memory_allocated())
    return float(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def peak() -> float:
    """Return the peak memory [bytes]."""
    import torch

    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated())
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024


def about(threads: int) -> dict[str, Any]:
    """Return commit, versions and hardware."""
    import diffusers
    import torch

    import visviva

    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return {
        "commit": commit or "none",
        "date": time.strftime("%Y-%m-%d"),
        "versions": {
            "visviva": visviva.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
        },
        "hardware": {"accelerator": accelerator, "processor": _processor(), "threads": threads, "system": platform.system()},
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.is_file()
        else []
    )
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
