"""Flight: what nothing carries falls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from visviva.physics.laws.law import Residual, unknown
from visviva.physics.motion_laws.body import GRAVITY, centre_of_mass, fitted, flying, frames_there, held, window_of


@dataclass(frozen=True)
class FlightGravity:
    """``|a + g e_z| / g`` of the centre of mass where no foot is near the floor, mean over such windows [g].

    Parabola fits over a quarter of a second, only where the body is in the air throughout. A body that hovers has 1. Not valid
    for motions without flight: they have nothing to obey. Bodies lower than they should be do not help themselves, for the
    heights that count as flight carry no gradient.
    """

    floor: float = 0.0
    name: ClassVar[str] = "flight_gravity"
    trivial: ClassVar[bool] = True
    anchor: ClassVar[bool] = False

    def __call__(self, joints: Float[Tensor, "B T 22 3"], fps: float, lengths: Tensor) -> Residual:
        """Return the residual of each motion."""
        joints, window = held(joints, lengths), window_of(fps)
        acceleration = fitted(centre_of_mass(joints), fps, window)[2]
        air = flying(joints, self.floor, there=frames_there(lengths, joints.shape[1])).unfold(1, window, 1).all(-1)
        counted = air & frames_there(lengths, joints.shape[1], window)
        left = acceleration + acceleration.new_tensor([0.0, 0.0, GRAVITY])
        size = (left.square().sum(-1) + 1e-12).sqrt() / GRAVITY
        value = (size * counted).sum(1) / counted.sum(1).clamp(min=1)
        return Residual(value, counted.any(1), unknown(value))
