"""Motion floor: the anchor that keeps a clip from obeying the kinematic laws by standing still or by losing its object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from visviva.errors import InputError
from visviva.physics.laws.law import Residual, finite, require, unknown
from visviva.physics.measurement import Measurement


@dataclass(frozen=True)
class MotionFloor:
    """How far the mean speed stays below a floor: ``relu(m0 - m) / m0`` with m the mean of |flow|; in [0, 1].

    m is the mean over the objects' masks where masks were measured (a lost object moves at speed zero), over all pixels
    otherwise [px/frame]. The floor m0 is ``least`` [px/frame], or ``fraction`` times the same mean of the reference clip.
    Where the reference itself does not move the anchor does not apply.

    Attributes:
        least: absolute floor [px/frame]; used when ``fraction`` is None.
        fraction: floor relative to the reference's clip; needs ``reference``.

    Example::

        MotionFloor(least=0.5)(Measurement(fps=torch.tensor([30.0]), flow=torch.zeros(1, 8, 2, 32, 32))).value  # tensor([1.])
    """

    least: float = 0.5
    fraction: float | None = None

    name: ClassVar[str] = "motion_floor"
    detects: ClassVar[tuple[str, ...]] = ("freeze", "empty", "vanish")
    trivial: ClassVar[bool] = False
    anchor: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse floors that do not hold anything up."""
        if self.fraction is None and self.least <= 0:
            raise InputError(f"least {self.least} is no floor; give a positive speed [px/frame]")
        if self.fraction is not None and not 0 < self.fraction <= 1:
            raise InputError(f"fraction {self.fraction} of the reference's motion is no floor; give a number in (0, 1]")

    @property
    def needs(self) -> frozenset[str]:
        """Measurement fields that must be there."""
        return frozenset({"flow"}) if self.fraction is None else frozenset({"flow", "reference"})

    def __call__(self, measurement: Measurement) -> Residual:
        """Return the shortfall of each clip; differentiable with respect to the flow."""
        require(measurement, self.name, self.needs)
        speed, valid = mean_speed(measurement)
        if self.fraction is None:
            floor = torch.full_like(speed, self.least)
        else:
            reference = measurement.reference
            if reference is None or (measurement.masks is None) != (reference.masks is None):
                raise InputError(f"the law {self.name!r} compares speeds: measure masks of the clip and its reference, or of neither")
            wanted, known = mean_speed(reference.detach())
            floor = self.fraction * wanted
            valid = valid & known & (floor > 1e-3)
        value = torch.relu(floor - speed) / floor.clamp(min=1e-3)
        return Residual(torch.where(valid, value, 0.0), valid, unknown(value))


def mean_speed(measurement: Measurement) -> tuple[Tensor, Tensor]:
    """Return the mean |flow| [px/frame] over objects' masks (all pixels without masks) and whether it is finite, both (B,)."""
    if measurement.flow is None:
        raise InputError("speed needs flow, which was not measured; use a probe that measures flow")
    flow, clean = finite(measurement.flow)
    speed = (flow.square().sum(2) + 1e-12).sqrt()
    if measurement.masks is None:
        return speed.flatten(1).mean(1), clean
    masks, clean_masks = finite(measurement.masks[:, :-1].detach())
    area = masks.sum((-2, -1))
    per_object = torch.einsum("bthw,btnhw->btn", speed, masks) / area.clamp(min=1.0)
    return per_object.flatten(1).mean(1), clean & clean_masks
