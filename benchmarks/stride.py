"""Sagittal leg torques from markers and plates against the torques that a stride was published with, and why they differ.

    python benchmarks/stride.py STRIDE.npz --out benchmarks/results/stride.json

The file is bioptim's gait (75 markers without names, wrenches of both legs, torques; 106 frames of 10 ms). The recorded
torques are taken as they are. Ours are made from the markers and from the wrench on each foot, about its ankle as inverse
dynamics takes it, in several ways:

- ``as measured``; ``filtered both ways``: a Butterworth filter of second order and 6 Hz, forwards and backwards, which does not
  delay; ``filtered forwards``: the same once, which does (by 37 ms at low frequencies). 6 Hz and second order are what gait
  laboratories usually take. That forwards alone is tried was suggested by the delay found below, on this stride.
- ``by delay``: wrenches of some frames before on the present pose. The delay of each leg is chosen on the other leg (the
  highest mean r of its three joints), so that no leg's r is the best of several.
- ``whole torque late``, ``whole torque filtered forwards``, the rivals: pose and wrench alike.

``slope`` is of the recorded on ours: 1 is equal size.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.signal import butter, filtfilt, lfilter
from torch import Tensor

from visviva.eval.motion.legs import FEET, Legs, legs
from visviva.eval.run import provenance
from visviva.physics.dynamics import place

FPS, WINDOW, LATEST = 100.0, 0.16, 8
LOW, ORDER = 6.0, 2
"""Of the filter: corner frequency [Hz] and order."""
LEFT, RIGHT = (12, 15, 16), (6, 9, 10)
"""Rows of hip flexion, knee and ankle among the recorded coordinates."""
Change = Callable[[Tensor], Tensor]


def main() -> None:
    """Compare in all ways."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stride", type=Path)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    markers, wrench, torque = recorded(given.stride)
    found = legs(markers, mass=float(wrench[..., 8].sum(1).mean()) / 9.81)
    delays = range(LATEST + 1)
    late = [compared(found, wrench, torque, lambda x, d=d: delayed(x, d)) for d in delays]
    means = np.array([row["r"] for row in late]).mean(-1)
    chosen = [int(means[:, other].argmax()) for other in (1, 0)]
    result: dict[str, Any] = {
        "stride": given.stride.name,
        "as measured": late[0],
        "filtered both ways": compared(found, wrench, torque, lambda x: filtered(x, both=True)),
        "filtered forwards": compared(found, wrench, torque, filtered),
        "by delay in frames": late,
        "delay chosen on the other leg": {
            side: {"frames": d} | {of: late[d][of][k] for of in ("r", "slope")}
            for k, (side, d) in enumerate(zip(("left", "right"), chosen, strict=True))
        },
        "whole torque filtered forwards": compared(found, wrench, torque, lambda x: x, after=filtered),
        "whole torque late, by frames": [compared(found, wrench, torque, lambda x: x, d) for d in delays],
    }
    for name, row in result.items():
        print(f"{name}: {json.dumps(row)}")
    if given.out:
        given.out.write_text(json.dumps(result | {"made_with": provenance()}, indent=1) + "\n")


def recorded(file: Path) -> tuple[Tensor, Tensor, Tensor]:
    """Return markers (T, 75, 3), wrenches (T, 2, 9: point, moment, force) and torques (T, 2, 3: hip, knee, ankle)."""
    data = np.load(file, allow_pickle=False)
    wrench = torch.from_numpy(np.stack([data[f"f_ext_{side}_leg"].T for side in ("left", "right")], 1))
    torque = torch.from_numpy(data["tau_exp"][[*LEFT, *RIGHT]].T.copy()).unflatten(1, (2, 3))
    return torch.from_numpy(data["markers_exp"].transpose(2, 1, 0).copy()), wrench, torque


def delayed(signal: Tensor, frames: int) -> Tensor:
    """Return what was ``frames`` before; the first ones repeat the first."""
    return signal[(torch.arange(len(signal)) - frames).clamp(min=0)]


def filtered(signal: Tensor, both: bool = False) -> Tensor:
    """Return the signal through the low-pass filter, forwards or both ways, from its first value on."""
    b, a = butter(ORDER, LOW / (FPS / 2))
    rest = (signal - signal[:1]).numpy()
    return torch.from_numpy((filtfilt if both else lfilter)(b, a, rest, axis=0).copy()) + signal[:1]


def compared(
    found: Legs, wrench: Tensor, torque: Tensor, change: Change, late: int = 0, after: Change = lambda x: x
) -> dict[str, Any]:
    """Return how alike torques are: ours with changed wrenches about the ankles, or changed ``after``, or ``late`` [frames]."""
    ankles = place(found.body, found.q).position[:, FEET]
    moment = wrench[..., 3:6] + torch.linalg.cross(wrench[..., :3] - ankles, wrench[..., 6:])
    own, frames = found.torques(FPS, change(wrench[..., 6:]), ankles, change(moment), window=WINDOW)
    kept = min(len(frames), len(torque) - frames.start - late)
    return alike(after(own)[:kept], torque[frames.start + late :][:kept])


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
