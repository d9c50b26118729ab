"""How physical the simulated actions are, by the metrics that recorded motions are measured with, and how fast they are drawn.

    python benchmarks/actions.py --out benchmarks/results/actions.json

Per action: Euler-Lagrange violation (mean and 95 % interval over clips) and its noise floor, speed of the standing foot,
penetration, ground reaction, and, at 240 frames/s, the smallest vertical acceleration of the figure's own centre of mass
and the share of the time in which it falls freely (within 2 %).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from visviva.data.actions import ACTIONS, Actions, draw
from visviva.data.actions.figure import STATURE, masses
from visviva.data.motions.humanml3d import PARENTS
from visviva.data.motions.motion import forward_kinematics
from visviva.eval.motion.measure import measure
from visviva.eval.run import provenance

SCORES = ("el_violation", "el_floor", "support", "sliding", "skating_ratio", "penetrate", "ground_peak", "torque_peak", "jerk")


def main() -> None:
    """Measure every action and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fps", type=float, default=20.0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    table = {name: measured(name, given.clips, given.seed, given.fps) for name in ACTIONS}
    for name, row in table.items():
        print(f"{name:13s}", "  ".join(f"{k} {v:.3g}" for k, v in row.items()))
    result = {
        "clips": given.clips,
        "seed": given.seed,
        "fps": given.fps,
        "actions": table,
        "speed": speed(),
        "made_with": provenance(),
    }
    print(result["speed"])
    if given.out:
        given.out.write_text(json.dumps(result, indent=1) + "\n")


def measured(name: str, clips: int, seed: int, fps: float) -> dict[str, float]:
    """Return the means of one action's clips, and the half interval of the violation."""
    batch = draw([name] * clips, seed=seed, fps=fps)
    scores = [measure(batch.motion(k)).scores for k in range(clips)]
    values = torch.tensor([[score[key].value for key in SCORES] for score in scores], dtype=torch.float64)
    row = dict(zip(SCORES, values.nanmean(0).tolist(), strict=True))
    row["el_violation_half"] = float(1.96 * values[:, 0].std() / clips**0.5)
    row["el_violation_most"] = float(values[:, 0].max())
    row["lowest"] = float(batch.joints[..., 2].min())
    fall = vertical(draw([name] * clips, seed=seed, fps=240.0))
    return row | {"least_acceleration": float(fall.min()), "falling": float(((fall + 9.81).abs() < 0.2).double().mean())}


def vertical(batch: Actions) -> torch.Tensor:
    """Vertical acceleration of the figure's centre of mass, (B, T - 2) [m/s^2]."""
    mass, com, _ = masses()
    _, world = forward_kinematics(batch.rotations.double(), batch.rest[:, None].double(), PARENTS)
    size = batch.stature.double()[:, None, None, None] / STATURE
    centre = (mass[:, None] * (batch.joints.double() + (world @ com[..., None])[..., 0] * size)).sum(2)
    return centre[..., 2].diff(n=2, dim=1) * batch.fps**2


def speed(count: int = 120) -> dict[str, Any]:
    """Clips of three seconds per minute of one core's time."""
    names = [list(ACTIONS)[k % len(ACTIONS)] for k in range(count)]
    draw(names[:15], seed=0)
    began = time.process_time()
    draw(names, seed=0)
    return {"clips_per_core_minute": 60 * count / (time.process_time() - began), "threads": 1}


if __name__ == "__main__":
    main()
