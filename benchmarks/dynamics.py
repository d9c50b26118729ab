"""Inverse dynamics of a 24-link body: states per second of the torch routine, the Warp kernel, Pinocchio and MuJoCo.

    python benchmarks/dynamics.py                 # one thread and two
    python benchmarks/dynamics.py --device cuda   # torch and Warp on a GPU as well

A random tree of 24 links with a free root and ball joints (75 degrees of freedom, as SMPL's), the same random states for all,
in one process and in turn; the fastest and the median of several rounds. Pinocchio and MuJoCo take one state per call from a
Python loop, whose own cost is measured with a call that does nothing and taken off; two threads of ours are held against twice
Pinocchio's rate of one, as two processes of it would reach at best. Results are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pinocchio as pin
import torch
import warp as wp

import visviva
from visviva.physics.dynamics import inverse_dynamics

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "physics"))
from trees import for_pinocchio, mjcf, pinocchio_model, state, tree

ROUNDS = 9


def rate(work: Callable[[], Any], states: int, off: float = 0.0) -> dict[str, float]:
    """Thousands of states per second: fastest and median round."""
    work()
    taken = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start - off * states)
    return {"best": round(states / min(taken) / 1e3, 2), "median": round(states / statistics.median(taken) / 1e3, 2)}


def loop_cost(states: list[Any]) -> float:
    """Seconds that a Python loop spends per call of something that does nothing."""

    def nothing(*_: Any) -> None:
        return None

    taken = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for one in states:
            nothing(0, 0, *one)
        taken.append(time.perf_counter() - start)
    return min(taken) / len(states)


def references(body: Any, q: torch.Tensor, v: torch.Tensor, a: torch.Tensor) -> dict[str, dict[str, float]]:
    """Pinocchio and MuJoCo on the same states, their results held against ours."""
    model = pinocchio_model(body)
    data = model.createData()
    states = [for_pinocchio(body, *one) for one in zip(q, v, a, strict=True)]
    wanted = inverse_dynamics(body, q, v, a)
    ours = torch.stack([torch.from_numpy(np.array(pin.rnea(model, data, *one))) for one in states[:20]])
    if float((ours[:, 6:] - wanted[:20, 6:]).abs().max() / wanted.abs().max()) > 1e-9:
        raise SystemExit("Pinocchio disagrees")
    theirs = mujoco.MjModel.from_xml_string(mjcf(body))
    scene, rows = mujoco.MjData(theirs), [tuple(x.numpy() for x in one) for one in zip(q, v, a, strict=True)]

    def pinocchio() -> None:
        for one in states:
            pin.rnea(model, data, *one)

    def in_mujoco() -> None:
        for one in rows:
            scene.qpos, scene.qvel, scene.qacc = one
            mujoco.mj_inverse(theirs, scene)

    off = loop_cost(states)
    return {
        "pinocchio, one thread": rate(pinocchio, len(q), off),
        "mujoco mj_inverse, one thread": rate(in_mujoco, len(q), off),
    }


def ours(body: Any, q: torch.Tensor, v: torch.Tensor, a: torch.Tensor, threads: int) -> dict[str, dict[str, float]]:
    """The torch routine and the kernel, in both precisions, forward, and forward with backward."""
    torch.set_num_threads(threads)
    found = {}
    where = f"{threads} thread{'s' * (threads > 1)}" if q.device.type == "cpu" else "GPU"
    for dtype in (torch.float64, torch.float32):
        one, states = body.to(dtype), [x.to(dtype) for x in (q, v, a)]
        asking = [x.clone().requires_grad_() for x in states]
        for method in ("torch", "warp"):

            def forward(one: Any = one, states: Any = states, method: Any = method) -> None:
                with torch.no_grad():
                    inverse_dynamics(one, *states, method=method)
                _wait(states[0])

            def both(one: Any = one, asking: Any = asking, method: Any = method) -> None:
                torch.autograd.grad(inverse_dynamics(one, *asking, method=method).sum(), asking)
                _wait(asking[0])

            name = f"{method}, {str(dtype)[6:]}, {where}"
            found[name] = rate(forward, len(q))
            found[f"{name}, with backward"] = rate(both, len(q))
    return found


def _wait(tensor: torch.Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize()


def main() -> None:
    """Measure, print, write."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--states", type=int, default=4096)
    options.add_argument("--device", default="cpu")
    options.add_argument("--gpu-states", type=int, default=2**20)
    options.add_argument("--output", default="benchmarks/results/dynamics.json")
    given = options.parse_args()
    wp.config.quiet = True
    body = tree(24, 0, kinds=("ball",))
    q, v, a = state(body, given.states)
    rows = references(body, q, v, a)
    for threads in (1, 2):
        rows |= ours(body, q, v, a, threads)
    device = platform.processor() or platform.machine()
    if given.device != "cpu":
        device = torch.cuda.get_device_name()
        wide = [x.repeat(given.gpu_states // len(x), 1).to(given.device) for x in (q, v, a)]
        rows |= ours(body.to(given.device), *wide, torch.get_num_threads())
    once, twice = (rows[f"warp, float64, {n}"] for n in ("1 thread", "2 threads"))
    base = rows["pinocchio, one thread"]
    result = {
        "what": "inverse dynamics of a body of 24 links and 75 degrees of freedom, thousands of states per second",
        "command": "python benchmarks/dynamics.py" + (f" --device {given.device}" if given.device != "cpu" else ""),
        "seeds": {"tree": 0, "states": 0},
        "machine": {"device": device, "cores": os.cpu_count()},
        "versions": {
            "visviva": visviva.__version__,
            "torch": torch.__version__,
            "warp": wp.__version__,
            "pinocchio": pin.__version__,
            "mujoco": mujoco.__version__,
        },
        "states": given.states,
        "rows": rows,
        "ratios of medians": {
            "warp float64 to pinocchio, one thread": round(once["median"] / base["median"], 2),
            "warp float64 on two threads to twice pinocchio": round(twice["median"] / (2 * base["median"]), 2),
            "time of forward with backward to forward, warp float64": round(
                once["median"] / rows["warp, float64, 1 thread, with backward"]["median"], 2
            ),
        },
    }
    print(json.dumps(result, indent=1))
    output = Path(given.output)
    partial = output.with_name(output.name + ".tmp")
    partial.write_text(json.dumps(result, indent=1) + "\n")
    os.replace(partial, output)


if __name__ == "__main__":
    main()
