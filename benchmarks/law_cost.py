"""What measuring and judging a clip costs beside one training step of Wan 2.1 1.3B on it.

    python benchmarks/law_cost.py --output benchmarks/results/law_cost.json                       # counts, and times on a CPU
    python benchmarks/law_cost.py --device cuda --output benchmarks/results/law_cost-cuda.json    # times at full size

*Counted* on the meta device at 81 x 480 x 832 (latents 21 x 60 x 104, 32760 tokens): floating-point operations of matrix
products and convolutions, forward and backward, and for probe and law, whose work is mostly elementwise, also the bytes that
their operations read and write, each by itself as eager mode runs them. *Measured*: milliseconds and peak memory of probe
and law, forward and backward to the frames, of the law alone from the flow, and of the training step (mean squared error of the
velocity, random weights: cost does not depend on them): full weights and rank-16 adapters, with an AdamW step, bfloat16 with
gradient checkpointing on a GPU. On a CPU the clip is 17 x 128 x 208, float32, ``--layers`` of 30 blocks are run and the time is
scaled by their number: fewer tokens make attention cheaper, so that the share of the probe comes out larger than at full size.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from visviva.models.probes import FlowNetwork, LucasKanade
from visviva.physics import ConstantAcceleration, Measurement, MotionFloor, Term, Verifier

WAN = {
    "num_layers": 30,
    "num_attention_heads": 12,
    "attention_head_dim": 128,
    "ffn_dim": 8960,
    "in_channels": 16,
    "text_dim": 4096,
}
FULL, SMALL = (81, 480, 832), (17, 128, 208)
PROBES: dict[str, Callable[[], Any]] = {"lucas_kanade": LucasKanade, "flow_network": FlowNetwork}
PAIRS: dict[str, Callable[[], Any]] = {
    "lucas_kanade": lambda: LucasKanade().pairs,
    "flow_network": lambda: FlowNetwork().network.to("meta"),
}
TERMS = [Term(ConstantAcceleration(form="object")), Term(MotionFloor(least=0.5))]


class Traffic(TorchDispatchMode):
    """Counts the bytes that operations read and write, views aside."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and add its inputs and outputs."""
        out = func(*args, **(kwargs or {}))
        if not func.is_view and func.namespace == "aten" and func.overloadpacket is not torch.ops.aten.detach:
            tensors = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, Tensor)]
            self.bytes += sum(x.untyped_storage().nbytes() if 0 in x.stride() else x.nbytes for x in tensors)
        return out


def counted(work: Callable[[], Tensor]) -> dict[str, float]:
    """TFLOP and GB of the work, forward and then backward."""
    found = {}
    with FlopCounterMode(display=False) as flops, Traffic() as traffic:
        loss = work()
        found["forward_tflop"], found["forward_gb"] = flops.get_total_flops() / 1e12, traffic.bytes / 1e9
        loss.backward()
        found["backward_tflop"] = flops.get_total_flops() / 1e12 - found["forward_tflop"]
        found["backward_gb"] = traffic.bytes / 1e9 - found["forward_gb"]
    return found


def clip(size: tuple[int, int, int], device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Frames (1, T, 3, H, W) of a textured disc that falls before a textured ground, fps, and masks (1, T, 1, H, W)."""
    count, height, width = size
    make = torch.Generator().manual_seed(0)
    coarse = torch.rand(2, 3, height // 8, width // 8, generator=make).to(device)
    ground, skin = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    t = torch.arange(count, device=device)
    across, down = width / 4 + 60 * t / count, height / 4 + height / 3 * (t / count) ** 2
    ys, xs = torch.arange(height, device=device)[:, None], torch.arange(width, device=device)
    apart = ((xs - across[:, None, None]) ** 2 + (ys - down[:, None, None]) ** 2).sqrt()
    mask = (height / 8 - apart + 0.5).clamp(0, 1)
    places = zip(down.round().long().tolist(), across.round().long().tolist(), strict=True)
    moved = torch.stack([skin.roll(place, (-2, -1)) for place in places])
    frames = ground + mask[:, None] * (moved - ground)
    return frames[None], torch.full((1,), 16.0, device=device), mask[None, :, None]


def judged(probe: Any, shot: tuple[Tensor, Tensor, Tensor]) -> Callable[[], Tensor]:
    """Probe and laws, from frames that ask for a gradient to the loss."""
    verifier, (frames, fps, masks) = Verifier(probe, TERMS), shot
    leaf = frames.clone().requires_grad_()

    def work() -> Tensor:
        leaf.grad = None
        return verifier(leaf, fps, masks).loss.sum()

    return work


def laws_alone(shot: tuple[Tensor, Tensor, Tensor]) -> Callable[[], Tensor]:
    """The laws on a flow that asks for a gradient."""
    frames, fps, masks = shot
    flow = torch.zeros_like(frames[:, 1:, :2]).requires_grad_()
    seen = Measurement(fps=fps, flow=flow, masks=masks, noise=torch.full_like(fps, 0.05))
    verifier = Verifier(LucasKanade(), TERMS)

    def work() -> Tensor:
        flow.grad = None
        return verifier.judge(seen).loss.sum()

    return work


class Adapter(nn.Module):
    """A frozen linear layer with a trained low-rank one beside it (arXiv 2106.09685)."""

    def __init__(self, inner: nn.Linear, rank: int = 16) -> None:
        super().__init__()
        self.inner = inner
        like = {"device": inner.weight.device, "dtype": inner.weight.dtype}
        self.down, self.up = (
            nn.Linear(inner.in_features, rank, False, **like),
            nn.Linear(rank, inner.out_features, False, **like),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of both."""
        return self.inner(x) + self.up(self.down(x))


def adapted(model: nn.Module) -> nn.Module:
    """Put adapters on all attention projections and freeze the rest."""
    model.requires_grad_(False)
    for module in list(model.modules()):
        for name in ("to_q", "to_k", "to_v"):
            if isinstance(getattr(module, name, None), nn.Linear):
                setattr(module, name, Adapter(getattr(module, name)))
        if isinstance(getattr(module, "to_out", None), nn.ModuleList) and isinstance(module.to_out[0], nn.Linear):
            module.to_out[0] = Adapter(module.to_out[0])
    return model


def denoiser(device: str, layers: int, dtype: torch.dtype) -> nn.Module:
    """Wan 2.1 1.3B with random weights."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    with torch.device(device):
        model = WanTransformer3DModel(**{**WAN, "num_layers": layers})
    torch.set_default_dtype(before)
    return model.train()


def denoised(model: nn.Module, size: tuple[int, int, int], device: str, dtype: torch.dtype) -> Callable[[], Tensor]:
    """Mean squared error of the predicted velocity of one clip's latents."""
    like = {"device": device, "dtype": dtype}
    latents = torch.randn(1, 16, (size[0] - 1) // 4 + 1, size[1] // 8, size[2] // 8, **like)
    target, text, at = torch.randn_like(latents), torch.randn(1, 512, 4096, **like), torch.full((1,), 500, device=device)
    return lambda: (model(latents, at, text, return_dict=False)[0] - target).square().mean()


def stepped(model: nn.Module, work: Callable[[], Tensor]) -> Callable[[], None]:
    """One training step."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-5, foreach=False, fused=True)

    def step() -> None:
        work().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def timed(job: Callable[[], Any], device: str, repeat: int) -> dict[str, Any]:
    """Milliseconds, median and range, after one run that is not counted; on a GPU also the peak of memory."""
    gpu = device.startswith("cuda")
    job()
    held, times = 0, []
    if gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
    for _ in range(repeat):
        start = time.perf_counter()
        job()
        if gpu:
            torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - start))
    found: dict[str, Any] = {"ms": round(statistics.median(times), 2), "range": [round(min(times), 2), round(max(times), 2)]}
    if gpu:
        peak = torch.cuda.max_memory_allocated()
        found |= {"peak_gib": round(peak / 2**30, 2), "added_gib": round((peak - held) / 2**30, 2)}
    return found


def measured(pairs: Any, size: tuple[int, int, int], at_once: int = 5) -> dict[str, float]:
    """Work of a probe on the clip's pairs, a few at once and computed again in the backward pass, as probes do."""
    first, second = (torch.empty(at_once, 3, *size[1:], device="meta", requires_grad=True) for _ in range(2))
    row = counted(lambda: checkpoint(pairs, first, second, use_reentrant=False)[0].sum())
    return {name: value * (size[0] - 1) / at_once for name, value in row.items()}


def count(size: tuple[int, int, int]) -> dict[str, Any]:
    """Work of the training step, of probes, and of the laws, and the shares, on the meta device."""
    wan = counted(denoised(denoiser("meta", WAN["num_layers"], torch.float32), size, "meta", torch.float32))
    step = wan["forward_tflop"] + wan["backward_tflop"]
    found: dict[str, Any] = {"wan_1.3b": {name: value for name, value in wan.items() if "gb" not in name}}
    frames, fps, masks = (
        torch.empty(1, *shape, device="meta") for shape in ((size[0], 3, *size[1:]), (), (size[0], 1, *size[1:]))
    )
    rows = {name: measured(make(), size) for name, make in PAIRS.items()} | {
        "laws_alone": counted(laws_alone((frames, fps, masks)))
    }
    for name, row in rows.items():
        share = (row["forward_tflop"] + row["backward_tflop"]) / step
        found[name] = {key: float(f"{value:.4g}") for key, value in {**row, "tflop_share_of_step": share}.items()}
    return found


def measure(size: tuple[int, int, int], device: str, layers: int, repeat: int) -> dict[str, Any]:
    """Times and memory of probes with laws, of the laws alone, and of the training step, on the device."""
    gpu = device.startswith("cuda")
    shot, found = clip(size, device), {}
    jobs = {name: judged(make(), shot) for name, make in PROBES.items()} | {"laws_alone": laws_alone(shot)}
    for name, work in jobs.items():
        found[name] = timed(lambda work=work: work().backward(), device, 2 * repeat + 1)
        print(name, found[name], flush=True)
    del jobs, work
    dtype = torch.bfloat16 if gpu else torch.float32
    for name, change in (("adapters", adapted), ("full", nn.Module.requires_grad_)):
        gc.collect()
        model = change(denoiser(device, layers, dtype))
        if gpu:
            torch.cuda.empty_cache()
            model.enable_gradient_checkpointing()
        row = timed(stepped(model, denoised(model, size, device, dtype)), device, repeat)
        step = row["ms"] * WAN["num_layers"] / layers
        row["shares_of_step"] = {probe: float(f"{found[probe]['ms'] / step:.3g}") for probe in (*PROBES, "laws_alone")}
        found[f"wan_1.3b_{name}"] = {**row, "layers": layers, "ms_of_30_layers": round(step, 1)}
        print(name, found[f"wan_1.3b_{name}"], flush=True)
        del model
    return found


def main() -> None:
    """Count, measure, print, write."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--output", default="benchmarks/results/law_cost.json")
    options.add_argument("--device", default="cpu")
    options.add_argument("--repeat", type=int, default=3)
    options.add_argument("--layers", type=int, help="blocks of the denoiser that are run; default: all on a GPU, 3 on a CPU")
    options.add_argument("--size", type=int, nargs=3, metavar=("T", "H", "W"), help="of the measured clip")
    given = options.parse_args()
    gpu = given.device.startswith("cuda")
    size = tuple(given.size) if given.size else FULL if gpu else SMALL
    layers = given.layers or (WAN["num_layers"] if gpu else 3)
    name = torch.cuda.get_device_name() if gpu else platform.processor() or platform.machine()
    result: dict[str, Any] = {
        "what": "probe and laws, forward and backward, beside a training step of Wan 2.1 1.3B on the same clip",
        "command": "python benchmarks/law_cost.py" + (f" --device {given.device}" if gpu else ""),
        "machine": {"device": name, "cores": os.cpu_count(), "threads": torch.get_num_threads()},
        "versions": {"torch": torch.__version__, "diffusers": diffusers.__version__},
        "counted": {"clip": FULL, **count(FULL)},
    }
    print(json.dumps(result["counted"], indent=1), flush=True)
    result["measured"] = {"clip": size, **measure(size, given.device, layers, given.repeat)}  # type: ignore[arg-type]
    Path(given.output).parent.mkdir(parents=True, exist_ok=True)
    Path(given.output).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
