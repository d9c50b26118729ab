"""Dynamics of a 24-link body: states per second of the torch routines, the Warp kernels, Pinocchio and MuJoCo.

    python benchmarks/dynamics.py                                            # one thread and two
    python benchmarks/dynamics.py --device cuda                              # torch and Warp on a GPU as well
    python benchmarks/dynamics.py --routines mass_matrix forward_dynamics    # these alone; what else the file has stays

A random tree of 24 links with a free root and ball joints (75 degrees of freedom, as SMPL's), the same random states for all,
in one process and in turn; the fastest and the median of several rounds. Pinocchio (`rnea`, `crba`, `aba`) and MuJoCo take one
state per call from a Python loop, whose own cost is measured with a call that does nothing and taken off; `crba` fills one
triangle of one matrix that stays in the cache, ours a new and whole one per state. Two threads of ours are held against twice
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
from visviva.physics.dynamics import forward_dynamics, inverse_dynamics, mass_matrix, place

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "physics"))
from trees import for_pinocchio, mjcf, pinocchio_model, state, tree

ROUNDS = 9
ROUTINES = {"inverse_dynamics": inverse_dynamics, "mass_matrix": mass_matrix, "forward_dynamics": forward_dynamics}
CALLS = {"inverse_dynamics": pin.rnea, "mass_matrix": pin.crba, "forward_dynamics": pin.aba}
INPUTS = {"inverse_dynamics": 3, "mass_matrix": 1, "forward_dynamics": 3}
"""How many of configuration, velocity, and acceleration or force each takes."""


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


def references(body: Any, routine: str, states: list[torch.Tensor]) -> dict[str, dict[str, float]]:
    """Pinocchio, and MuJoCo's inverse dynamics, on the same states, Pinocchio's results held against ours."""
    model = pinocchio_model(body)
    data = model.createData()
    call, rows = CALLS[routine], as_pinocchio(body, routine, states)
    wanted = ROUTINES[routine](body, *states[: INPUTS[routine]])[:20]
    theirs = torch.stack([torch.from_numpy(np.array(call(model, data, *row))) for row in rows[:20]])
    theirs, wanted = (x[:, 6:, 6:].triu() if x.ndim > 2 else x[:, 6:] for x in (theirs, wanted))  # of the joints
    if float((theirs - wanted).abs().max() / wanted.abs().max()) > 1e-9:
        raise SystemExit(f"Pinocchio disagrees with {routine}")

    def pinocchio() -> None:
        for one in rows:
            call(model, data, *one)

    found = {"pinocchio, one thread": rate(pinocchio, len(rows), loop_cost(rows))}
    return found | (in_mujoco(body, states) if routine == "inverse_dynamics" else {})


def as_pinocchio(body: Any, routine: str, states: list[torch.Tensor]) -> list[Any]:
    """The states as Pinocchio's routine takes them; the force on a free root in its own frame."""
    rows = [for_pinocchio(body, *one) for one in zip(*states, strict=True)]
    if routine != "forward_dynamics":
        return [row[: INPUTS[routine]] for row in rows]
    force = states[2].clone()
    force[:, :3] = (place(body, states[0]).rotation[:, 0].mT @ force[:, :3, None])[..., 0]
    return [(q, v, tau.numpy()) for (q, v, _), tau in zip(rows, force, strict=True)]


def in_mujoco(body: Any, states: list[torch.Tensor]) -> dict[str, dict[str, float]]:
    """Its inverse dynamics."""
    model = mujoco.MjModel.from_xml_string(mjcf(body))
    scene, rows = mujoco.MjData(model), [tuple(x.numpy() for x in one) for one in zip(*states, strict=True)]

    def work() -> None:
        for one in rows:
            scene.qpos, scene.qvel, scene.qacc = one
            mujoco.mj_inverse(model, scene)

    return {"mujoco mj_inverse, one thread": rate(work, len(rows), loop_cost(rows))}


def ours(body: Any, routine: str, states: list[torch.Tensor], threads: int) -> dict[str, dict[str, float]]:
    """The torch routine and the kernels, in both precisions, forward, and forward with backward."""
    torch.set_num_threads(threads)
    found, call = {}, ROUTINES[routine]
    where = f"{threads} thread{'s' * (threads > 1)}" if states[0].device.type == "cpu" else "GPU"
    for dtype in (torch.float64, torch.float32):
        one, given = body.to(dtype), [x.to(dtype) for x in states[: INPUTS[routine]]]
        asking = [x.clone().requires_grad_() for x in given]
        for method in ("torch", "warp"):

            def forward(one: Any = one, given: Any = given, method: Any = method) -> None:
                with torch.no_grad():
                    call(one, *given, method=method)
                _wait(given[0])

            def both(one: Any = one, asking: Any = asking, method: Any = method) -> None:
                torch.autograd.grad(call(one, *asking, method=method).sum(), asking)
                _wait(asking[0])

            name = f"{method}, {str(dtype)[6:]}, {where}"
            found[name] = rate(forward, len(given[0]))
            found[f"{name}, with backward"] = rate(both, len(given[0]))
    return found


def _wait(tensor: torch.Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize()


def measured(routine: str, given: argparse.Namespace) -> dict[str, Any]:
    """Everything about one routine."""
    body = tree(24, 0, kinds=("ball",))
    states = list(state(body, given.states))
    rows = references(body, routine, states)
    for threads in (1, 2):
        rows |= ours(body, routine, states, threads)
    device = platform.processor() or platform.machine()
    if given.device != "cpu":
        device = torch.cuda.get_device_name()
        count = given.gpu_states // (1 if routine != "mass_matrix" else 8)  # whose results are 45 kB each
        wide = [x.repeat(max(1, count // len(x)), 1).to(given.device) for x in states]
        rows |= ours(body.to(given.device), routine, wide, torch.get_num_threads())
    once, twice = (rows[f"warp, float64, {n}"] for n in ("1 thread", "2 threads"))
    base = rows["pinocchio, one thread"]
    return {
        "what": f"{routine.replace('_', ' ')} of a body of 24 links and 75 degrees of freedom, thousands of states per second",
        "command": command(routine, given),
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
            "warp to torch, float64, one thread": round(once["median"] / rows["torch, float64, 1 thread"]["median"], 2),
            "warp to torch, float64, one thread, with backward": round(
                rows["warp, float64, 1 thread, with backward"]["median"]
                / rows["torch, float64, 1 thread, with backward"]["median"],
                2,
            ),
        },
    }


def command(routine: str, given: argparse.Namespace) -> str:
    """What measures this routine alone."""
    more = "".join(
        f" --{name} {value}" for name, value, usual in (("device", given.device, "cpu"), ("states", given.states, 4096))
        if value != usual
    )  # fmt: skip
    return f"python benchmarks/dynamics.py --routines {routine}{more}"


def main() -> None:
    """Measure, print, write: inverse dynamics at the top of the file, as ever, the others under their names."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--routines", nargs="+", default=list(ROUTINES), choices=list(ROUTINES))
    options.add_argument("--states", type=int, default=4096)
    options.add_argument("--device", default="cpu")
    options.add_argument("--gpu-states", type=int, default=2**20)
    options.add_argument("--output", default="benchmarks/results/dynamics.json")
    given = options.parse_args()
    wp.config.quiet = True
    output = Path(given.output)
    result = json.loads(output.read_text()) if output.is_file() else {}
    for routine in given.routines:
        found = measured(routine, given)
        result = result | (found if routine == "inverse_dynamics" else {routine: found})
        print(json.dumps({routine: found}, indent=1))
    partial = output.with_name(output.name + ".tmp")
    partial.write_text(json.dumps(result, indent=1) + "\n")
    os.replace(partial, output)


if __name__ == "__main__":
    main()
