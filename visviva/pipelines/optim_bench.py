"""Nanoseconds per weight of optimizer steps: ours in every mode, other implementations, and what the memory allows.

All cases of one run share one process. The floor of a case is the bytes that a step must move (weights and states read
and written once, the gradient read once; a second pass where a sum over a tensor comes before its use) over the speed
of this machine's memory on as many weights: the faster of a copy and an addition in place. Matrix optimizers multiply
matrices: they have no such floor.
"""

from __future__ import annotations

import importlib
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from visviva.configs.optim import OptimRecipe
from visviva.eval.run import provenance, write_json
from visviva.optim import BY_NAME
from visviva.optim.muon import MatrixOptimizer
from visviva.pipelines.optim import known, state_bytes, table

PRESETS: dict[str, list[tuple[int, ...]]] = {
    "large": [(1024, 1024)] * 16,
    "mid": [(512, 512)] * 8,
    "small": [(32, 64)] * 400,
    "tiny": [(64,)] * 2000,
    "wan-block": [*([(1536, 1536)] * 8), (8960, 1536), (1536, 8960)],
}
SECOND_PASS = {"adamp": 12, "sgdp": 12, "am_msgd": 8, "am_adamw": 16}
"""Bytes per float32 weight that are read again after a sum over tensors (weights, update or moments)."""

ELSEWHERE = {"lion": "Lion", "adabelief": "AdaBelief", "spam": "SPAM", "adan": "Adan", "adamp": "AdamP", "sgdp": "SGDP"}
ELSEWHERE |= {"exadam": "EXAdam", "sgd_sai": "SGDSaI", "muon": "Muon", "adamw": "AdamW"}
"""Names in pytorch_optimizer."""

COLD = """
import time, torch
torch.set_num_threads({threads})
from visviva.optim import BY_NAME
parameters = [torch.nn.Parameter(torch.randn(32, 64) / 10) for _ in range({count})]
for p in parameters: p.grad = torch.randn_like(p)
optimizer = BY_NAME[{name!r}](parameters, compile=True)
start = time.perf_counter(); optimizer.step(); optimizer.step()
print("cold", time.perf_counter() - start)
"""


def bench(recipe: OptimRecipe) -> list[dict[str, Any]]:
    """Time every optimizer on every set of shapes; write optim.json and optim.png; print and return the rows."""
    torch.set_num_threads(recipe.threads)
    device, dtype = torch.device(recipe.device), getattr(torch, recipe.dtype)
    rows: list[dict[str, Any]] = []
    for preset in recipe.shapes:
        shapes = PRESETS[preset] if preset in PRESETS else wan_shapes()
        memory = bandwidth(sum(torch.Size(s).numel() for s in shapes), device, recipe.repetitions)
        for name in recipe.optimizers:
            for implementation, build in cases(name, recipe.peers):
                row = measure(build, shapes, dtype, device, recipe.repetitions)
                row |= {"optimizer": name, "shapes": preset, "implementation": implementation}
                rows.append(row | over_floor(row, name, dtype, memory))
    cold = {name: first_step(name, recipe.threads) for name in recipe.optimizers} if recipe.cold else {}
    about = {"format": "visviva-optim", "settings": recipe.model_dump(exclude={"output"}), "made_with": provenance()}
    folder = Path(recipe.output)
    write_json(folder / "optim.json", about | {"machine": machine(device), "first_step_seconds": cold, "rows": rows})
    plot(rows, folder / "optim.png")
    columns = ("shapes", "optimizer", "implementation", "ns", "floor_ns", "over_floor", "failed")
    sys.stdout.write(table([{k: f"{v:.3g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows], columns))
    sys.stdout.write(
        "".join(f"\nfirst step of {name} with an empty cache: {s:.1f} s" for name, s in cold.items() if s is not None) + "\n"
    )
    return rows


def wan_shapes() -> list[tuple[int, ...]]:
    """Return the shapes of the parameters of Wan 2.1's 1.3B transformer."""
    from diffusers import WanTransformer3DModel

    with torch.device("meta"):
        model: Any = WanTransformer3DModel(num_attention_heads=12, attention_head_dim=128, ffn_dim=8960, num_layers=30)
    return [tuple(p.shape) for p in model.parameters()]


def cases(name: str, peers: bool) -> Iterator[tuple[str, Callable[[list[Tensor]], Any]]]:
    """Yield (implementation, how to build it from parameters) of an optimizer."""
    own: Any = BY_NAME[name]
    yield "ours adopted", lambda p: own(p, lr=1e-4, adopt=True, **_alike(name))
    yield "ours gathered", lambda p: own(p, lr=1e-4, **_alike(name))
    yield "ours eager", lambda p: own(p, lr=1e-4, compile=False, **_alike(name))
    if not peers:
        return
    if name in ("adamw", "sgdm"):
        kind: Any = torch.optim.AdamW if name == "adamw" else torch.optim.SGD
        more = {} if name == "adamw" else {"momentum": 0.9}
        yield "torch for-loop", lambda p: kind(p, lr=1e-4, foreach=False, **more)
        yield "torch foreach", lambda p: kind(p, lr=1e-4, foreach=True, **more)
        yield "torch fused", lambda p: kind(p, lr=1e-4, fused=True, **more)
    if name == "muon":
        yield "torch", lambda p: torch.optim.Muon(p, lr=1e-4)
    if name in ELSEWHERE and (package := _package("pytorch_optimizer")):
        other = getattr(package, ELSEWHERE[name])
        yield "pytorch_optimizer", lambda p: other([{"params": p, "use_muon": True}] if name == "muon" else p, **_alike(name))
    if name in ("adamw", "muon") and (package := _package("heavyball")):
        heavy = package.AdamW if name == "adamw" else package.Muon
        yield "heavyball", lambda p: heavy(p, lr=1e-4)


def _alike(name: str) -> dict[str, Any]:
    return {"momentum": 0.9} if name == "sgdp" else {}


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        return None if error.name == name else sys.stderr.write(f"{name} does not load: {error}\n") and None


def measure(build: Callable[..., Any], shapes: list[Any], dtype: Any, device: Any, repetitions: int) -> dict[str, Any]:
    """Return seconds of the first step, nanoseconds per weight of the later ones, and the bytes of state per weight."""
    generator = torch.Generator().manual_seed(0)
    parameters = [torch.nn.Parameter((torch.randn(s, generator=generator) / 50).to(device, dtype)) for s in shapes]
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, 1e-3).add_(parameter.detach(), alpha=0.1)
    weights, gradients = sum(p.numel() for p in parameters), [p.grad for p in parameters]

    def give_back() -> None:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if parameter.grad is None:  # heavyball drops gradients that it has used
                parameter.grad = gradient

    try:
        optimizer = build(parameters)
        first = seconds(optimizer.step, 1, device)[0]
        seconds(optimizer.step, 1, device, give_back)
        resting = resident(peak=False)
        times = seconds(optimizer.step, repetitions, device, give_back)
    except Exception as error:  # another package's failure is a finding
        return {"failed": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
    quartiles = statistics.quantiles(times, n=4) if len(times) > 1 else times * 3
    spread = {"median_ns": quartiles[1] / weights * 1e9, "upper_quartile_ns": quartiles[2] / weights * 1e9, "steps": len(times)}
    spread |= {"first_step_s": first, "weights": weights, "state_bytes": state_bytes(optimizer) / weights}
    if resting is not None and device.type == "cpu":
        spread["temporary_bytes"] = ((resident(peak=True) or 0) - resting) / weights
    return {"ns": min(times) / weights * 1e9, **spread}


def resident(peak: bool) -> int | None:
    """Return this process's bytes of memory now, or at most since that was last asked for (None: not on Linux)."""
    if not sys.platform.startswith("linux"):
        return None
    if not peak:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts from here
    name = "VmHWM:" if peak else "VmRSS:"
    return next(int(line.split()[1]) for line in _lines("/proc/self/status") if line.startswith(name)) * 1024


def seconds(
    step: Callable[[], Any], repetitions: int, device: torch.device, before: Callable[[], None] = lambda: None
) -> list[float]:
    """Return the time of each step, two seconds in all once there are three; ``before`` each is not counted."""
    times: list[float] = []
    while len(times) < repetitions and (len(times) < 3 or sum(times) < 2):
        before()
        start = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return times


def bandwidth(weights: int, device: torch.device, repetitions: int) -> dict[str, float]:
    """Return gigabytes per second of simple programs on float32 vectors of this size."""
    a, b = (torch.ones(weights, device=device) for _ in range(2))
    probes = {
        "copy": (8, lambda: a.copy_(b)),
        "add_in_place": (12, lambda: a.add_(b)),
        "scale_in_place": (8, lambda: a.mul_(1.0)),
    }
    return {name: size * weights / min(seconds(f, repetitions + 3, device)[1:]) / 1e9 for name, (size, f) in probes.items()}


def over_floor(row: dict[str, Any], name: str, dtype: torch.dtype, memory: dict[str, float]) -> dict[str, Any]:
    """Return the floor of a case and how many times longer it took."""
    if "failed" in row or issubclass(BY_NAME[name], MatrixOptimizer):
        return {"memory_gb_per_s": memory}
    moved = 3 * dtype.itemsize + 8 * states(name) + SECOND_PASS.get(name, 0)
    floor = moved / max(memory["copy"], memory["add_in_place"])
    return {"memory_gb_per_s": memory, "floor_bytes": moved, "floor_ns": floor, "over_floor": row["ns"] / floor}


def states(name: str) -> int:
    """Return how many numbers per weight an optimizer keeps."""
    optimizer = known(name)([torch.nn.Parameter(torch.zeros(2, 2))], **_alike(name))
    return sum(kept.kind == "weight" for t in optimizer.chain(optimizer.param_groups[0]) for kept in t.states().values())


def first_step(name: str, threads: int, count: int = 400) -> float | None:
    """Return the seconds of two first steps on many tensors in a new process with an empty compiler cache (None: failed)."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache}
        code = COLD.format(name=name, threads=threads, count=count)
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.stderr.write(f"first step of {name}: {done.stderr.strip().splitlines()[-1]}\n")
        return None
    return float(done.stdout.split("cold")[-1])


def machine(device: torch.device) -> dict[str, Any]:
    """Return what the run ran on."""
    cpu = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith(("model name", "cache size"))][:2]
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {"cpu": cpu or platform.processor(), "cores": os.cpu_count(), "gpu": gpu, "load": list(os.getloadavg())}


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).is_file() else []


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw nanoseconds per weight over the floor (matrix optimizers: nanoseconds), one panel per set of shapes."""
    from matplotlib.figure import Figure

    presets = list(dict.fromkeys(row["shapes"] for row in rows))
    kinds = list(dict.fromkeys(row["implementation"] for row in rows))
    names = list(dict.fromkeys(row["optimizer"] for row in rows if "over_floor" in row))
    figure = Figure(figsize=(11, 2.6 * len(presets)), layout="constrained")
    for axis, preset in zip(figure.subplots(len(presets), squeeze=False)[:, 0], presets, strict=True):
        for i, kind in enumerate(kinds):
            here = {r["optimizer"]: r.get("over_floor") for r in rows if (r["shapes"], r["implementation"]) == (preset, kind)}
            points = [(x + 0.8 * i / len(kinds), here[n]) for x, n in enumerate(names) if here.get(n)]
            if points:
                axis.bar(*zip(*points, strict=True), width=0.8 / len(kinds), color=f"C{i}", label=kind)
        axis.set(
            yscale="log", title=preset, ylabel="time / floor", xticks=[x + 0.4 for x in range(len(names))], xticklabels=names
        )
        axis.axhline(1.0, color="black", linewidth=0.8)
    handles = {k: v for axis in figure.axes for v, k in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=5)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
