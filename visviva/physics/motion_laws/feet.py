"""Feet and floor: someone stands, and nobody sinks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.physics.laws.law import Residual, unknown
from visviva.physics.motion_laws.body import FEET, flying, frames_there, held


@dataclass(frozen=True)
class Skating:
    """Horizontal speed of the slowest foot joint outside of flight [m/s]: who is not in the air stands on something.

    A soft minimum over ankles and toes, ``-s log mean exp(-v / s)``, so that gradients reach the foot that is about to stand.
    No height decides which foot counts, so lifting the feet or sliding faster does not help. A frozen motion satisfies it, and
    a body that hovers has no feet to skate with: `EulerLagrange` and `FlightGravity` see that, one of them belongs beside it.

    Attributes:
        softness: s [m/s]; ``floor``: height [m].
    """

    softness: float = 0.05
    floor: float = 0.0
    name: ClassVar[str] = "skating"
    trivial: ClassVar[bool] = True
    anchor: ClassVar[bool] = False

    def __call__(self, joints: Float[Tensor, "B T 22 3"], fps: float, lengths: Tensor) -> Residual:
        """Return the residual of each motion; not valid where the body flies all the time."""
        joints = held(joints, lengths)
        step = (joints[:, :, FEET, :2].diff(dim=1).square().sum(-1) + 1e-12).sqrt() * fps
        slowest = -self.softness * ((-step / self.softness).logsumexp(-1))
        there = frames_there(lengths, joints.shape[1])
        air = flying(joints, self.floor, there=there)
        counted = there[:, 1:] & ~(air[:, 1:] | air[:, :-1])
        value = (slowest.clamp(min=0) * counted).sum(1) / counted.sum(1).clamp(min=1)
        return Residual(value, counted.any(1), unknown(value))


@dataclass(frozen=True)
class Penetration:
    """How far foot joints are below the floor, the sum over ankles and toes, mean over frames [m].

    Joints are not soles: a toe joint lies some centimetres above its sole, so a little of a sinking is not seen.
    """

    floor: float = 0.0
    name: ClassVar[str] = "penetration"
    trivial: ClassVar[bool] = True
    anchor: ClassVar[bool] = False

    def __call__(self, joints: Float[Tensor, "B T 22 3"], fps: float, lengths: Tensor) -> Residual:
        """Return the residual of each motion."""
        there = frames_there(lengths, joints.shape[1])
        depth = torch.relu(self.floor - held(joints, lengths)[:, :, FEET, 2]).sum(-1)
        value = (depth * there).sum(1) / there.sum(1).clamp(min=1)
        return Residual(value, there.any(1), unknown(value))
