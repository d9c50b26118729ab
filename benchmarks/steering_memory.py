"""What an update of every objective holds in memory and how long it takes, measured at tiny size.

    python benchmarks/steering_memory.py --case dpo --clips data/train --pairs runs/pairs   # a row of steering_cost.py

Each arm of `steering.py` in a fresh process, one clip (pair, group of 8) per update, transformer blocks and decoded latents
computed again in the backward pass. After a first update, which makes moments, three are timed: CPU seconds, also in units of
a plain forward pass of one clip in the same process, and the peak of the resident set above the loaded state. Three more run
under `Live`, which adds up the bytes of the tensors that operations make and takes them off when they are freed: that peak
differs only with what an update draws; the resident set is noisier, for freed memory stays with the allocator. ``compared``
is DPO with adapters switched off and with a duplicated reference, turn about in one process.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from steering import ARMS, Clocked
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from visviva.configs.posttrain import PosttrainRecipe
from visviva.configs.schema import load
from visviva.pipelines.posttrain import model
from visviva.pipelines.posttrain.parallel import leave

REPEATS = 3
ONE = {
    "batch_size": 1,
    "gradient_accumulation": 1,
    "reward.checkpointing": "blocks",
    "sampler.steps": 4,
    "validation.every": 0,
    "trackers": [],
    "monitor.every": 0,
    "optimizer.warmup": 0,
}
"""Settings of every measured arm."""


class Live(TorchDispatchMode):
    """Bytes of the tensors that were made within and still live: ``now``, and their ``peak``; views count once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and note the storages that are new."""
        given = {id(x.untyped_storage()) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        out = func(*args, **(kwargs or {}))
        for storage in [x.untyped_storage() for x in tree_leaves(out) if isinstance(x, Tensor)]:
            if id(storage) not in given and id(storage) not in self.known:
                self.note(storage)
        return out

    def note(self, storage: Any) -> None:
        """Add a storage until it is freed."""
        key, size = id(storage), storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        self.known[key] = weakref.finalize(storage, self.freed, key, size)

    def freed(self, key: int, size: int) -> None:
        """Take a storage off."""
        self.known.pop(key, None)
        self.now -= size


def fresh(case: str, clips: Path, pairs: Path) -> dict[str, Any]:
    """Measure a case in a process of its own."""
    command = [sys.executable, __file__, "--case", case, "--clips", str(clips), "--pairs", str(pairs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{case}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def trainer_of(arm: str, clips: str, pairs: str, folder: Path, duplicated: bool = False) -> Clocked:
    """Return an arm's trainer; ``duplicated`` gives a preference a frozen copy of the network as its reference."""
    name, changes = ARMS[arm]
    fixed = {"data.path": pairs if "dpo" in arm else clips, "output": str(folder)}
    recipe = load(PosttrainRecipe, name, **{**fixed, **changes, **ONE})
    recipe.check()
    backbone = model.load(recipe, torch.device("cpu"))
    second = copy.deepcopy(backbone.transformer).requires_grad_(False).eval() if duplicated else None
    trainer = Clocked(recipe, backbone)
    if second is not None:
        trainer.objective.reference = partial(worn, trainer.backbone, second)
    return trainer


@contextmanager
def worn(backbone: Any, second: nn.Module) -> Iterator[None]:
    """Let another network stand in for the backbone's, without gradient."""
    policy, backbone.transformer = backbone.transformer, second
    try:
        with torch.no_grad():
            yield
    finally:
        backbone.transformer = policy


def measured(case: str, clips: str, pairs: str) -> dict[str, Any]:
    """Time and memory of an arm's updates in this process; ``dpo+copy`` is dpo with a duplicated reference."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(case.removesuffix("+copy"), clips, pairs, Path(folder), case.endswith("+copy"))
        gc.collect()
        loaded = resident()
        trainer.update(0)
        held = tensor_bytes()
        seconds, passes, high, peaks = [], [], [], []
        for update in range(1, 1 + REPEATS):
            Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
            seconds.append(trainer.update(update)["cpu_seconds"])
            high.append((resident("VmHWM") - loaded) / 2**20)
            passes.append(seconds[-1] / forward_seconds(trainer))
        for update in range(1 + REPEATS, 1 + 2 * REPEATS):
            trainer.optimizer.zero_grad(set_to_none=True)
            with Live() as live:
                trainer.update(update)
            peaks.append(live.peak / 2**20)
        leave()
    return {
        "tensors_held_mib": held / 2**20,
        "peak_tensors_mib": spread(peaks),
        "peak_resident_mib": spread(high),
        "cpu_seconds": spread(seconds),
        "in_forward_passes": spread(passes),
    }


def compared(clips: str, pairs: str, updates: int = 6) -> dict[str, Any]:
    """DPO with adapters switched off and with a copy, turn about in one process: losses, CPU seconds, bytes."""
    with tempfile.TemporaryDirectory() as folder:
        held = [tensor_bytes()]
        off = trainer_of("dpo", clips, pairs, Path(folder) / "off")
        held.append(tensor_bytes())
        two = trainer_of("dpo", clips, pairs, Path(folder) / "copy", duplicated=True)
        held.append(tensor_bytes())
        lines: dict[str, list[dict[str, float]]] = {"off": [], "copy": []}
        for update in range(updates):
            turns = [("off", off), ("copy", two)]
            for name, trainer in turns if update % 2 else reversed(turns):
                lines[name].append(trainer.update(update))
        leave()
    losses = {name: [line["loss"] for line in of] for name, of in lines.items()}
    return {
        "losses": losses,
        "largest_difference": max(abs(a - b) for a, b in zip(losses["off"], losses["copy"], strict=True)),
        "time_off_over_copy": spread(
            [a["cpu_seconds"] / b["cpu_seconds"] for a, b in zip(lines["off"], lines["copy"], strict=True)][1:]
        ),
        "tensors_held_mib": {"off": (held[1] - held[0]) / 2**20, "copy": (held[2] - held[1]) / 2**20},
    }


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def resident(field: str = "VmRSS") -> int:
    """Bytes of this process's resident set, or of its high-water mark (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


def tensor_bytes() -> int:
    """Bytes of all tensors that Python knows."""
    gc.collect()
    found = [x for x in gc.get_objects() if issubclass(type(x), Tensor)]
    return sum({x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in found}.values())


@torch.no_grad()
def forward_seconds(trainer: Clocked) -> float:
    """CPU seconds of a plain forward pass of one clip, median of five."""
    batch, times = trainer.batch(0, 0), []
    for _ in range(5):
        began = time.process_time()
        trainer.backbone.velocity(batch.noise, torch.full((1,), 0.5), batch.condition)
        times.append(time.process_time() - began)
    return statistics.median(times)


def main() -> None:
    """Measure one case and print it."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--case", required=True, choices=[*ARMS, "dpo+copy", "compared"])
    options.add_argument("--clips", required=True, help="folder of visviva simulate")
    options.add_argument("--pairs", required=True, help="folder of visviva prefer")
    given = options.parse_args()
    torch.set_num_threads(1)
    row = compared(given.clips, given.pairs) if given.case == "compared" else measured(given.case, given.clips, given.pairs)
    print(json.dumps(row))


if __name__ == "__main__":
    main()
