"""Sagittal leg torques from markers and plates against the torques that a stride was published with, and why they differ.

    python benchmarks/stride.py STRIDE.npz --model wholebody_model.bioMod --out benchmarks/results/stride.json

The file is bioptim's gait (75 markers without names, wrenches of both legs, torques; 106 frames of 10 ms); its model is
`bioptim/examples/models/wholebody_model.bioMod` of that project. The recorded torques are taken as they are. Ours are made from
the markers and from the wrench on each foot, about its ankle as inverse dynamics takes it, in several ways:

- ``as measured``;
- ``with the wrenches used``, where the model is given: those from which the recorded torques were made (`stride_model.py`),
  found without the six rows that are compared, though from other rows of the same recording; ``ours and the model``: ours with
  the recorded wrenches against the torques that the model has with them and the recorded angles, which is what the recording
  would hold had its forces not been late; ``the model against the recorded``, with wrenches on time, late at the present
  centres of pressure, and used;
- ``late by the root``: forces as late as in the recorded row of the root that carries the body's weight, which is not compared:
  what is left there is the sum of forces as recorded less the sum that was used. Needs the file alone. Late wrenches keep their
  places beside the ankles, or act at the present centres of pressure;
- ``forces late``, by frames: wrenches of before on the present pose; ``all late``, the rival: pose and wrench alike.

``slope`` is of the recorded on ours: 1 is equal size.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stride_model import explained, recording
from torch import Tensor

from visviva.eval.motion.legs import FEET, Legs, legs
from visviva.eval.run import provenance
from visviva.physics.dynamics import place

FPS, WINDOW, LATEST = 100.0, 0.16, 8
LEFT, RIGHT = (12, 15, 16), (6, 9, 10)
"""Rows of hip flexion, knee and ankle among the recorded coordinates."""
UPWARDS = 1
"""Row of the root's translation upwards."""
CLEAR = 0.6
"""Forces are taken as late where an r of `late_by_root` is higher; ours, chosen when the stride's own (.86) was known."""


def main() -> None:
    """Compare in all ways."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stride", type=Path)
    parser.add_argument("--model", type=Path, help="wholebody_model.bioMod of bioptim's examples")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    markers, wrench, torque = recorded(given.stride)
    found = legs(markers, mass=float(wrench[..., 8].sum(1).mean()) / 9.81)
    by_root = late_by_root(recorded_root(given.stride), wrench)
    frames = int(np.argmax(by_root)) if max(by_root) > CLEAR else 0
    late = [compared(found, wrench, torque, forces_late=d) for d in range(LATEST + 1)]
    result: dict[str, Any] = {
        "stride": given.stride.name,
        "as measured": late[0],
        "late by the root": {"r_by_delay": by_root, "frames": frames} | late[frames],
        "late by the root, at present centres": compared(found, wrench, torque, frames, centres_late=False),
        "forces late, by frames": late,
        "all late, by frames": [compared(found, wrench, torque, all_late=d) for d in range(LATEST + 1)],
    }
    if given.model:
        made = recording(given.stride, given.model)
        says, used = explained(made, wrench, [*LEFT, *RIGHT], LATEST)
        late_here = torch.cat([wrench[..., :3], delayed(wrench, frames)[..., 3:]], -1)
        model = {name: made.torques(w) for name, w in (("on time", wrench), ("late", late_here), ("used", used))}
        six = {name: tau[:, [*LEFT, *RIGHT]].unflatten(1, (2, 3)) for name, tau in model.items()}
        result["the recording by its own model"] = says | {
            "r_by_delay_of_its_root_on_time": late_by_root(model["on time"][:, UPWARDS], wrench)
        }
        result["with the wrenches used"] = compared(found, used, torque)
        result["ours and the model, wrenches on time"] = compared(found, wrench, six["on time"])
        for name, tau in six.items():
            result[f"the model against the recorded, wrenches {name}"] = alike(tau[LATEST:-LATEST], torque[LATEST:-LATEST])
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


def recorded_root(file: Path) -> Tensor:
    """Return the recorded upward force on the root, (T,) [N]."""
    return torch.from_numpy(np.load(file, allow_pickle=False)["tau_exp"][UPWARDS].copy())


def late_by_root(root: Tensor, wrench: Tensor) -> list[float]:
    """Return how an upward force on the root follows what late forces would leave there, r by delay [frames].

    Inverse dynamics puts on the root what its wrenches do not explain: near 0 where they are on time, the difference of the
    recorded sum of forces and the late one where not. No delay leaves nothing: its r is put at 0.
    """
    total = wrench[..., 8].sum(1)
    rows = [torch.stack([root, total - delayed(total, d)])[:, LATEST:-3] for d in range(1, LATEST + 1)]
    return [0.0, *(float(torch.corrcoef(row)[0, 1]) for row in rows)]


def delayed(signal: Tensor, frames: int) -> Tensor:
    """Return what was ``frames`` before; the first ones repeat the first."""
    return signal[(torch.arange(len(signal)) - frames).clamp(min=0)]


def compared(
    found: Legs, wrench: Tensor, torque: Tensor, forces_late: int = 0, all_late: int = 0, centres_late: bool = True
) -> dict[str, Any]:
    """Return how alike torques are: ours with wrenches of some frames before, or all of ours so late.

    Wrenches are carried along by the ankles, or act where the present ones do (``centres_late=False``).
    """
    ankles = place(found.body, found.q).position[:, FEET]
    lever = wrench[..., :3] - ankles
    lever, wrench = delayed(lever, forces_late) if centres_late else lever, delayed(wrench, forces_late)
    force = wrench[..., 6:]
    moment = wrench[..., 3:6] + torch.linalg.cross(lever, force)
    own, frames = found.torques(FPS, force, ankles, moment, window=WINDOW)
    kept = min(len(frames), len(torque) - frames.start - all_late)
    return alike(own[:kept], torque[frames.start + all_late :][:kept])


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
