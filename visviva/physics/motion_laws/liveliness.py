"""Liveliness: the anchor that keeps a motion from obeying the laws by standing still."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError
from visviva.physics.laws.law import Residual, unknown
from visviva.physics.motion_laws.body import frames_there, held

CAP = 2.0
"""What one joint may count in one frame, in mean speeds asked for: a single flying hand does not pay for a body that stands."""


@dataclass(frozen=True)
class Liveliness:
    """How far the mean speed of the joints stays below what is asked: ``relu(v0 - v) / v0``, in [0, 1].

    Attributes:
        least: v0 [m/s], where no reference is given.
        fraction: v0 as a share of the reference's mean speed, under the same cap.
    """

    least: float = 0.2
    fraction: float = 0.9
    name: ClassVar[str] = "liveliness"
    trivial: ClassVar[bool] = False
    anchor: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse floors that do not hold anything up."""
        if self.least <= 0 or not 0 < self.fraction <= 1:
            raise InputError(f"least {self.least}, fraction {self.fraction}: give a positive speed, and a share in (0, 1]")

    def __call__(
        self, joints: Float[Tensor, "B T 22 3"], fps: float, lengths: Tensor, reference: Float[Tensor, "B T 22 3"] | None = None
    ) -> Residual:
        """Return the shortfall of each motion; ``reference``: the same motion before it was changed."""
        counted = frames_there(lengths, joints.shape[1])[:, 1:, None]
        speed = (held(joints, lengths).diff(dim=1).square().sum(-1) + 1e-12).sqrt() * fps

        def mean(x: Tensor) -> Tensor:
            return (x * counted).sum((1, 2)) / (counted.sum((1, 2)).clamp(min=1) * x.shape[2])

        asked = torch.full_like(speed[:, 0, 0], self.least)
        if reference is not None:
            theirs = held(reference.detach(), lengths).diff(dim=1).norm(dim=-1) * fps
            asked = self.fraction * mean(torch.minimum(theirs, CAP * mean(theirs)[:, None, None]))
        found = mean(torch.minimum(speed, CAP * asked[:, None, None]))
        value = torch.relu(asked - found) / asked.clamp(min=1e-3)
        return Residual(value, asked > 1e-3, unknown(value))
