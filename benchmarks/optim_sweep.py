"""Shared by the optimizer benchmarks: resumable runs, rate search, training, statistics."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import torch
from optim_methods import METHODS, Method
from scipy.stats import t as student

from visviva.eval.run import write_json

LATTICE = [m * 10.0**e for e in range(-7, 3) for m in (1.0, 2.0, 5.0)]
"""Rates that are tried: 1, 2, 5 times powers of ten."""


def interval(values: Iterable[float | None]) -> dict[str, Any]:
    """Return mean and Student 95 % half-width; None where a value is missing (a run that diverged)."""
    given = list(values)
    good = [v for v in given if v is not None and math.isfinite(v)]
    if len(good) < len(given) or not good:
        return {"mean": None, "half_width": None, "n": len(given), "failed": len(given) - len(good)}
    mean = sum(good) / len(good)
    if len(good) == 1:
        return {"mean": mean, "half_width": None, "n": 1, "failed": 0}
    deviation = math.sqrt(sum((v - mean) ** 2 for v in good) / (len(good) - 1))
    half = float(student.ppf(0.975, len(good) - 1)) * deviation / math.sqrt(len(good))
    return {"mean": mean, "half_width": half, "n": len(good), "failed": 0}


def neighbours(rate: float) -> tuple[float, float]:
    """Return the rates below and above on the lattice."""
    i = min(range(len(LATTICE)), key=lambda k: abs(math.log(LATTICE[k] / rate)))
    return LATTICE[max(0, i - 1)], LATTICE[min(len(LATTICE) - 1, i + 1)]


def search(start: float, value: Callable[[float], float | None], most: int = 6) -> tuple[float, dict[float, float | None]]:
    """Return the lattice rate with the smallest value: downhill from ``start`` until both neighbours are worse.

    At most ``most`` rates are tried; the answer is then the best of them.
    """
    tried: dict[float, float | None] = {start: value(start)}

    def of(rate: float) -> float:
        found = tried[rate]
        return math.inf if found is None else found

    while len(tried) < most:
        best = min(tried, key=lambda r: (of(r), r))
        missing = [r for r in neighbours(best)[:: 1 if math.isinf(of(best)) else -1] if r not in tried]
        if not missing:
            break
        tried[missing[0]] = value(missing[0])
    return min(tried, key=lambda r: (of(r), r)), tried


def kept(folder: Path, key: Mapping[str, Any], run: Callable[[], dict[str, Any]], end: float = math.inf) -> dict[str, Any]:
    """Return a finished run's JSON, or do the run and write it: a benchmark that was stopped goes on where it was.

    Raises:
        TimeoutError: the run is not there, and ``end`` (of the monotonic clock) has passed.
    """
    name = "_".join(f"{k}-{v:g}" if isinstance(v, float) else f"{k}-{v}" for k, v in key.items())
    path = folder / f"{name}.json"
    if path.is_file():
        return json.loads(path.read_text())
    if time.monotonic() > end:
        raise TimeoutError(path.stem)
    start = time.perf_counter()
    found = {**key, **run()}
    found["run_seconds"] = round(time.perf_counter() - start, 2)
    write_json(path, found)
    print(json.dumps({k: v for k, v in found.items() if not isinstance(v, list)}), flush=True)
    return found


def learning_rate(step: int, steps: int, warmup: int) -> float:
    """Return the factor on the peak rate: linear warm-up, then linearly to zero."""
    return min((step + 1) / warmup, (steps - step) / (steps - warmup))


def timed(arms: Mapping[str, Callable[[], None]], rounds: int = 25, warm: int = 3) -> dict[str, float]:
    """Return each arm's fastest seconds, the arms taking turns in one process (medians would follow the machine's load)."""
    for arm in arms.values():
        for _ in range(warm):
            arm()
    fastest = dict.fromkeys(arms, math.inf)
    for _ in range(rounds):
        for name, arm in arms.items():
            start = time.perf_counter()
            arm()
            fastest[name] = min(fastest[name], time.perf_counter() - start)
    return fastest


class Task(Protocol):
    """A model to train."""

    clip: float | None
    failure: float

    def start(self, seed: int) -> tuple[list[tuple[str, torch.Tensor]], Callable[[int], torch.Tensor]]:
        """Return a fresh model's named parameters, and the loss of a step's batch as a function of the step."""
        ...

    def check(self) -> dict[str, float]:
        """Return ``training`` and ``validation`` loss of the model that was started last."""
        ...


def update(loss: torch.Tensor, optimizers: Sequence[torch.optim.Optimizer], named: Sequence[Any], clip: float | None) -> None:
    """Do one update."""
    for optimizer in optimizers:
        optimizer.zero_grad()
    loss.backward()
    if clip:
        torch.nn.utils.clip_grad_norm_([p for _, p in named], clip)
    for optimizer in optimizers:
        optimizer.step()


def train(task: Task, method: Method, lr: float, seed: int, steps: int, checks: int = 5) -> dict[str, Any]:
    """Train one model; a run whose loss is no longer finite, or above ``task.failure``, has failed and stops."""
    named, batch_loss = task.start(seed)
    optimizers = method.make(named, lr)
    curve: list[list[float]] = []
    for step in range(steps):
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr * learning_rate(step, steps, max(1, steps // 10))
        loss = batch_loss(step)
        update(loss, optimizers, named, task.clip)
        value = float(loss.detach())
        if not math.isfinite(value) or value > task.failure:
            return {"validation": None, "training": None, "failed_at": step, "curve": curve}
        if (step + 1) % max(1, steps // checks) == 0 or step + 1 == steps:
            found = task.check()
            curve.append([step + 1, found["training"], found["validation"]])
    return {"validation": curve[-1][2], "training": curve[-1][1], "curve": curve}


def arm(task: Task, method: Method) -> Callable[[], None]:
    """Return a function that does one whole update with this method."""
    named, batch_loss = task.start(0)
    optimizers = method.make(named, 1e-6)
    return lambda: update(batch_loss(0), optimizers, named, task.clip)


def measure(
    task: Task, methods: Mapping[str, Method], folder: Path, steps: int, seeds: int, most: int = 6, minutes: float = math.inf
) -> dict[str, Any]:
    """Do all runs (or read those already done) and return the summary per method, AdamW being the first.

    First rates and runs of the same steps for all, then runs of the same seconds; after ``minutes`` no further run is begun,
    and what is incomplete is left out of the summary.
    """
    end = time.monotonic() + 60 * minutes
    seconds = kept(folder, {"what": "seconds"}, lambda: timed({n: arm(task, m) for n, m in METHODS.items() if n in methods}))
    found: dict[str, Any] = {}

    def run(name: str, lr: float, seed: int, count: int) -> dict[str, Any]:
        key = {"method": name, "lr": lr, "seed": seed, "steps": count}
        return kept(folder, key, lambda: train(task, methods[name], lr, seed, count), end)

    def arms(name: str, lr: float, count: int) -> dict[str, Any]:
        runs = [run(name, lr, seed, count) for seed in range(1, seeds + 1)]
        rows: dict[str, Any] = {k: interval(r[k] for r in runs) for k in ("validation", "training")}
        return rows | {"values": [r["validation"] for r in runs], "curves": [r["curve"] for r in runs]}

    for name, method in methods.items():
        tried: dict[float, float | None] = {}
        try:
            if method.like:
                lr = found[method.like]["lr"] if method.like in found else method.rate
            else:
                lr, tried = search(method.rate, lambda lr, n=name: run(n, lr, 0, steps)["validation"], most)
            rows = arms(name, lr, steps)
        except TimeoutError:
            continue
        fits = max(20, round(steps * seconds["adamw"] / seconds[name]))
        found[name] = {
            "lr": lr,
            "tried": {f"{r:g}": v for r, v in sorted(tried.items())},
            "options": dict(method.options),
            "ms_per_update": 1000 * seconds[name],
            "steps_in_equal_seconds": steps if abs(fits / steps - 1) < 0.06 else fits,
            "same_steps": rows,
        }
    for name, row in found.items():
        with suppress(TimeoutError):
            row["same_seconds"] = arms(name, row["lr"], row["steps_in_equal_seconds"])
        for kind in ("same_steps", "same_seconds"):
            if kind in row and "adamw" in found:
                pairs = zip(row[kind]["values"], found["adamw"]["same_steps"]["values"], strict=True)
                row[kind]["minus_adamw"] = interval(None if a is None or b is None else a - b for a, b in pairs)
    return found
