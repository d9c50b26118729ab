"""Motion floor: the anchor that keeps a clip from obeying the kinematic laws by standing still or by losing its object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from visviva.errors import InputError
from visviva.physics.laws.law import Residual, finite, require, unknown
from visviva.physics.measurement import Measurement

CAP = 1.5
"""What one frame may count, in floors. A free fall from rest then still passes a floor of 0.8 of its own mean speed (1.05
floors); an object that is seen in every other frame reaches 0.75 at most."""


@dataclass(frozen=True)
class MotionFloor:
    """How far the mean speed stays below a floor: ``relu(m0 - m) / m0`` with ``m = mean min(|flow|, 1.5 m0)``; in [0, 1].

    |flow| is averaged over each object's mask where masks were measured (a lost object moves at speed zero), over all
    pixels otherwise, and then capped at `CAP` floors in each frame, because the flow of the one frame in which an object
    vanishes or jumps is huge and would pay for all the others. The floor m0 is ``least`` [px/frame], or ``fraction`` times
    the mean speed of the reference clip, or what the reference reaches under the same cap, if that is less: a clip never falls
    short of itself. Where the reference itself does not move (its objects no faster than the noise)
    the anchor does not apply. Without masks a panning or scrolling picture moves, too: measure masks where there are objects.

    Attributes:
        least: absolute floor [px/frame]; used when ``fraction`` is None.
        fraction: floor relative to the reference's clip; needs ``reference``.

    Example::

        MotionFloor(least=0.5)(Measurement(fps=torch.tensor([30.0]), flow=torch.zeros(1, 8, 2, 32, 32))).value  # tensor([1.])
    """

    least: float = 0.5
    fraction: float | None = None

    name: ClassVar[str] = "motion_floor"
    detects: ClassVar[tuple[str, ...]] = ("freeze", "empty")
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
        speed, valid = speeds(measurement)
        if self.fraction is None:
            floor = asked = torch.full_like(speed[:, 0, 0], self.least)
        else:
            reference = measurement.reference
            if reference is None or (measurement.masks is None) != (reference.masks is None):
                raise InputError(
                    f"the law {self.name!r} compares speeds: measure masks of the clip and of its reference, or of neither"
                )
            wanted, known = speeds(reference.detach())
            floor = self.fraction * wanted.mean((1, 2))
            asked = torch.minimum(floor, torch.minimum(wanted, CAP * floor[:, None, None]).mean((1, 2)))
            known_noise = reference.masks is not None and reference.noise is not None
            still = reference.noise.clamp(min=1e-3) if known_noise else 1e-3  # type: ignore[union-attr]
            valid = valid & known & (floor > still)
        speed = torch.minimum(speed, CAP * floor[:, None, None]).mean((1, 2))
        value = torch.relu(asked - speed) / floor.clamp(min=1e-3)
        return Residual(torch.where(valid, value, 0.0), valid, unknown(value))


def speeds(measurement: Measurement) -> tuple[Tensor, Tensor]:
    """Return the mean |flow| over each object's mask (over all pixels without masks), shape (B, T-1, N) [px/frame].

    The second value says which clips have finite flow and masks, shape (B,); the others have speed 0.
    """
    if measurement.flow is None:
        raise InputError("speed needs flow, which was not measured; use a probe that measures flow")
    flow, clean = finite(measurement.flow)
    speed = (flow.square().sum(2) + 1e-12).sqrt()
    if measurement.masks is None:
        return speed.mean((2, 3))[:, :, None], clean
    masks, clean_masks = finite(measurement.masks[:, :-1].detach())
    if not masks.shape[2]:  # no object to be held up, and none that moves
        return speed.mean((2, 3))[:, :, None] * 0, torch.zeros_like(clean)
    area = masks.sum((-2, -1))
    return torch.einsum("bthw,btnhw->btn", speed, masks) / area.clamp(min=1.0), clean & clean_masks
