"""How late are a recorded stride's torques? Sagittal leg torques from markers and plates against the recorded ones, by delay.

    python benchmarks/stride.py STRIDE.npz --out benchmarks/results/stride.json

The file is bioptim's gait (75 markers without names, wrenches of both legs, torques; 106 frames of 10 ms). For each delay the
forces are those of that many frames before, at points that stay on the feet. The delay of each leg is chosen on the other leg
(the highest mean r of its three joints), so no leg's r is the best of several. ``slope`` is of the recorded on ours: 1 is equal
size. ``smoothed`` fits parabolas over 0.16 s to the recorded torques, as ours are by their accelerations.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from visviva.eval.motion.legs import Legs, legs
from visviva.eval.run import provenance
from visviva.physics.dynamics import place
from visviva.physics.kinematics import projection

FPS, WINDOW, LATEST = 100.0, 0.16, 8
LEFT, RIGHT = (12, 15, 16), (6, 9, 10)
"""Rows of hip flexion, knee and ankle among the recorded coordinates."""


def main() -> None:
    """Compare at each delay, and at the delay chosen on the other leg."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stride", type=Path)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    markers, wrench, torque = recorded(given.stride)
    found = legs(markers, mass=float(wrench[..., 8].sum(1).mean()) / 9.81)
    rows = [compared(found, wrench, torque, delay) for delay in range(LATEST + 1)]
    means = np.array([row["smoothed"]["r"] for row in rows]).mean(-1)
    chosen = [int(means[:, other].argmax()) for other in (1, 0)]
    result = {
        "stride": given.stride.name,
        "by_delay_in_frames": rows,
        "delay_chosen_on_the_other_leg": dict(zip(("left", "right"), chosen, strict=True)),
        "each_leg_so": {
            kind: {of: [rows[d][kind][of][side] for side, d in enumerate(chosen)] for of in ("r", "slope")}
            for kind in ("smoothed", "raw")
        },
        "made_with": provenance(),
    }
    print(json.dumps({name: result[name] for name in ("delay_chosen_on_the_other_leg", "each_leg_so")}, indent=1))
    if given.out:
        given.out.write_text(json.dumps(result, indent=1) + "\n")


def recorded(file: Path) -> tuple[Tensor, Tensor, Tensor]:
    """Return markers (T, 75, 3), wrenches (T, 2, 9: point, moment, force) and torques (T, 2, 3: hip, knee, ankle)."""
    data = np.load(file, allow_pickle=False)
    wrench = torch.from_numpy(np.stack([data[f"f_ext_{side}_leg"].T for side in ("left", "right")], 1))
    torque = torch.from_numpy(data["tau_exp"][[*LEFT, *RIGHT]].T.copy()).unflatten(1, (2, 3))
    return torch.from_numpy(data["markers_exp"].transpose(2, 1, 0).copy()), wrench, torque


def late(found: Legs, wrench: Tensor, frames: int) -> Tensor:
    """Return wrenches of ``frames`` before (the first ones repeat the first), at points that stay on the feet."""
    pose = place(found.body, found.q)
    turn, at = pose.rotation[:, [3, 6]], pose.position[:, [3, 6]]
    then = (torch.arange(len(wrench)) - frames).clamp(min=0)
    within = (turn.mT @ (wrench[..., :3] - at)[..., None])[then]
    return torch.cat([(turn @ within)[..., 0] + at, wrench[then, :, 3:]], -1)


def compared(found: Legs, wrench: Tensor, torque: Tensor, delay: int) -> dict[str, Any]:
    """Return r and slope of each leg and joint, and r of all pooled, against the recorded torques, smoothed and not."""
    wrench = late(found, wrench, delay)
    own, frames = found.torques(FPS, wrench[..., 6:], wrench[..., :3], wrench[..., 3:6], window=WINDOW)
    if frames.start < delay:
        raise ValueError(f"a delay of {delay} frames, but only the first {frames.start} are left out")
    length = round(WINDOW * FPS) + 1
    smooth = torque.unfold(0, length, 1) @ torch.as_tensor(projection(length, 2)[0][0])
    others = {"smoothed": smooth, "raw": torque[frames.start : frames.stop]}
    return {"delay": delay} | {kind: alike(own, other) for kind, other in others.items()}


def alike(own: Tensor, other: Tensor) -> dict[str, Any]:
    """Return correlations and slopes over frames, (2, 3) each, the pooled correlation, and the pooled error [N m]."""
    one, two = own - own.mean(0), other - other.mean(0)
    return {
        "r": ((one * two).sum(0) / (one.norm(dim=0) * two.norm(dim=0))).tolist(),
        "slope": ((one * two).sum(0) / one.square().sum(0)).tolist(),
        "pooled_r": float(torch.corrcoef(torch.stack([own.flatten(), other.flatten()]))[0, 1]),
        "rms_error": float((own - other).square().mean().sqrt()),
    }


if __name__ == "__main__":
    main()
