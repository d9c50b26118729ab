"""Generalised forces of OpenSim models in random states against the package `opensim` (pip install opensim), model by model.

Forces, constraints and controllers are taken out of the models. Prints the largest difference over the largest force, at rest
with accelerations and in motion.

    python benchmarks/opensim_states.py Models/*/*.osim --out benchmarks/results/opensim_states.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import opensim
import torch

from visviva.data.bodies import read_osim

STATES = 4


def main() -> None:
    """Compare every model given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    opensim.Logger.setLevelString("Off")
    found = {}
    for path in given.models:
        read = read_osim(path, couplers=False)
        still, moving = (compare(path, read.coupled, speed) for speed in (0.0, 1.0))
        found[path.name] = {"still": still, "moving": moving, "repaired": list(read.repaired)}
        print(f"{path.name:44s} still {still:.1e}  moving {moving:.1e}  {', '.join(read.repaired)}")
    if given.out:
        given.out.write_text(json.dumps({"opensim": opensim.GetVersion(), "states": STATES, "models": found}, indent=1) + "\n")


def compare(path: Path, coupled: Any, speed: float) -> float:
    """Return the largest difference over the largest force, in random states (seed 0)."""
    model = opensim.Model(str(path))
    for items in (model.updForceSet(), model.updConstraintSet(), model.updControllerSet()):
        items.clearAndDestroy()
    for name in coupled.names:
        coordinate = model.updCoordinateSet().get(name)
        coordinate.setDefaultLocked(False)
        coordinate.set_prescribed(False)
        coordinate.setDefaultClamped(False)
    state = model.initSystem()
    solver, order = opensim.InverseDynamicsSolver(model), tree_order(model, coupled.names)
    worst = 0.0
    for q, v, a in np.random.default_rng(0).normal(size=(STATES, 3, len(order))):
        for name, angle, rate in zip(coupled.names, 0.5 * q, speed * v, strict=True):
            coordinate = model.getCoordinateSet().get(name)
            coordinate.setValue(state, float(angle), False)
            coordinate.setSpeedValue(state, float(rate))
        gains = opensim.Vector(len(order), 0.0)
        for slot, k in enumerate(order):
            gains.set(slot, float(a[k]))
        answer = solver.solve(state, gains)
        theirs = np.empty(len(order))
        theirs[order] = [answer.get(slot) for slot in range(len(order))]
        ours = coupled.inverse_dynamics(*(torch.tensor(x) for x in (0.5 * q, speed * v, a))).numpy()
        worst = max(worst, float(np.abs(ours - theirs).max() / np.abs(theirs).max()))
    return worst


def tree_order(model: Any, names: tuple[str, ...]) -> list[int]:
    """Return the index of each of the solver's speeds: found by setting one coordinate's speed after the other."""
    state, order = model.initSystem(), {}
    for k, name in enumerate(names):
        for other in names:
            model.getCoordinateSet().get(other).setSpeedValue(state, float(other == name))
        speeds = state.getU()
        order[int(np.argmax([speeds.get(slot) for slot in range(len(names))]))] = k
    return [order[slot] for slot in range(len(names))]


if __name__ == "__main__":
    main()
