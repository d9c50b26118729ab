"""What the torques of bioptim's stride were made from: its own model, `wholebody_model.bioMod` of the same project.

Used by `stride.py --model`. With that model and the recorded angles, the recorded torques are linear in the wrenches on the two
feet, ``tau = tau_0(q, v, a) + A(q) w``: 34 equations a frame for 12 unknowns, of which 18 (root and legs) see the feet. Solving
them gives the wrenches that were used. Where the rows that are compared (hips, knees and ankles in the sagittal plane) are left
out, 12 are left for 12 unknowns: the root, the other turns of the hips, the subtalar joints.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from visviva.data.bodies import BiomodModel, read_biomod
from visviva.physics.dynamics import place

FEET = ("calcn_l", "calcn_r")
PITCH = 3
"""Coordinate of the pelvis' pitch."""
ENDS = slice(3, -3)
"""Frames that are judged: accelerations are differences of the recorded velocities, one-sided at the ends."""


@dataclass(frozen=True)
class Recording:
    """The stride as its own model says it: ``q``, ``v``, ``a`` and ``tau``, (T, 34) each, and markers (T, 75, 3)."""

    model: BiomodModel
    q: Tensor
    v: Tensor
    a: Tensor
    tau: Tensor
    markers: Tensor

    def torques(self, wrench: Tensor | None = None) -> Tensor:
        """Return the model's torques for wrenches (T, 2, 9: point, moment, force); None: without any."""
        body = self.model.coupled
        if wrench is None:
            return body.inverse_dynamics(self.q, self.v, self.a)
        feet = zip(FEET, wrench.unbind(1), strict=True)
        total = [body.wrench(self.q, name, one[:, 6:], one[:, :3], one[:, 3:6]) for name, one in feet]
        return body.inverse_dynamics(self.q, self.v, self.a, total[0] + total[1])

    def needed(self, rows: list[int]) -> tuple[Tensor, Tensor]:
        """Return the wrenches (T, 2, 9) that explain the recorded torques in some rows, and what is left in all, (T, 34)."""
        body = self.model.coupled
        feet = [body.body.names.index(name) for name in FEET]
        unit = torch.zeros(12, len(body.body), 6).double()
        for k in range(12):
            unit[k, feet[k // 6], k % 6] = 1
        states = [x[:, None].expand(-1, 12, -1) for x in (self.q, self.v, self.a)]
        free = self.torques()
        effect = (body.inverse_dynamics(*states, unit.expand(len(self.q), -1, -1, -1)) - free[:, None]).mT
        wanted = (self.tau - free)[..., None]
        found = torch.linalg.lstsq(effect[:, rows], wanted[:, rows], driver="gelsd").solution
        left = (effect @ found - wanted)[..., 0]
        force, moment = found[..., 0].unflatten(1, (2, 6)).split(3, -1)
        return torch.cat([place(body.body, self.q).position[:, feet], moment, force], -1), left


def recording(stride: Path, model: Path) -> Recording:
    """Read the stride and its model."""
    data = np.load(stride, allow_pickle=False)
    q, v, tau = (torch.from_numpy(data[key].T.copy()) for key in ("q_exp", "qdot_exp", "tau_exp"))
    step = float(data["phase_time"]) / int(data["n_shooting"])
    markers = torch.from_numpy(data["markers_exp"].transpose(2, 1, 0).copy())
    return Recording(read_biomod(model), q, v, torch.gradient(v, spacing=step, dim=0)[0], tau, markers)


def explained(made: Recording, wrench: Tensor, compared: list[int], latest: int) -> tuple[dict[str, Any], Tensor]:
    """Return how well the model explains the recording, and the wrenches found without the compared rows, (T, 2, 9)."""
    _, left = made.needed(list(range(34)))
    found, other = made.needed([k for k in range(34) if k not in compared])
    apart = (made.model.place_markers(made.q) - made.markers).norm(dim=-1)
    pelvis = [made.model.markers.index(name) for name in ("RASIS", "LASIS", "LPSIS", "RPSIS")]
    front, back = (made.markers[:, pelvis[k : k + 2]].mean(1) for k in (0, 2))
    pitch = torch.atan2((front - back)[:, 2], (front - back)[:, :2].norm(dim=-1))
    late = [_alike(found[latest + 3 : -3, :, 8], wrench[latest + 3 - d : len(wrench) - 3 - d, :, 8]) for d in range(latest + 1)]
    return {
        "markers_mm": {"all": float(1e3 * apart.mean()), "pelvis": float(1e3 * apart[:, pelvis].mean())},
        "pelvis_pitches_degrees": {"markers": _range(pitch), "recorded angle": _range(made.q[:, PITCH])},
        "hips_towards_their_side_mm": _hips(made),
        "left_rms": {"of rows that see the feet": _rms(left[:, :18]), "of the others": _rms(left[:, 18:])},
        "left_of_compared_rows_rms": other[ENDS][:, compared].square().mean(0).sqrt().tolist(),
        "vertical_r_by_delay": late,
        "centre_of_pressure_off_mm": {
            "now": _pressure(found, wrench, 0),
            **{f"{d} frames before": _pressure(found, wrench, d) for d in (5, 6)},
        },
    }, found


def _hips(made: Recording) -> list[float]:
    """How far the model's left and right hip are from the pelvis' middle towards their own side, about 80 mm in people."""
    body, markers = made.model.coupled.body, made.model.place_markers(made.q)
    names = made.model.markers
    left, right = (markers[:, names.index(name)] for name in ("LASIS", "RASIS"))
    across = torch.nn.functional.normalize(left - right, dim=-1)
    hips = place(body, made.q).position[:, [body.names.index(f"femur_{side}_parent_offset") for side in "lr"]]
    away = ((hips - (left + right)[:, None] / 2) * across[:, None]).sum(-1).mean(0)
    return [float(1e3 * away[0]), float(-1e3 * away[1])]


def _range(angle: Tensor) -> float:
    return float((angle.max() - angle.min()).rad2deg())


def _rms(left: Tensor) -> float:
    return float(left[ENDS].square().mean().sqrt())


def _alike(one: Tensor, other: Tensor) -> list[float]:
    """Correlation of each foot."""
    return [float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in zip(one.unbind(1), other.unbind(1), strict=True)]


def _pressure(found: Tensor, wrench: Tensor, late: int) -> float:
    """How far along the walk the wrenches' centre of pressure is from the recorded one of some frames before, at the median."""
    here = found[late:] if late else found
    then = wrench[: len(wrench) - late]
    moment = here[..., 3:6] + torch.linalg.cross(here[..., :3], here[..., 6:])
    on = (here[..., 8] > 200) & (then[..., 8] > 200)
    return float(1e3 * (-moment[..., 1] / here[..., 8] - then[..., 0])[on].abs().median())
