"""Reference flow: the clip must move as its paired true clip moves, pixel by pixel (the flow reward of PISA, arXiv 2503.09595).

Unlike constant acceleration it teaches the value of g, but only where a true clip from the same first frame exists.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from visviva.errors import InputError
from visviva.physics.laws.law import Residual, finite, require, unknown
from visviva.physics.measurement import Measurement


@dataclass(frozen=True)
class ReferenceFlow:
    """Mean absolute difference of the flow from the reference's flow, ``mean |phi - phi_ref|`` [px/frame].

    Attributes:
        within: mean over the whole ``frame`` (PISA), or over the union of the objects' masks of both clips (``mask``), so
            that small objects are not diluted by the background.

    Raises:
        InputError: no flow, no reference, masks missing, or a reference of another length or size.
    """

    within: str = "frame"

    name: ClassVar[str] = "reference_flow"
    detects: ClassVar[tuple[str, ...]] = (
        "jitter",
        "dead_stop",
        "float",
        "speed_up",
        "teleport",
        "vanish",
        "freeze",
        "empty",
        "noise",
    )
    trivial: ClassVar[bool] = False
    anchor: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse an unknown region."""
        if self.within not in ("frame", "mask"):
            raise InputError(f"within {self.within!r} is not a region of reference flow; use 'frame' or 'mask'")

    @property
    def needs(self) -> frozenset[str]:
        """Measurement fields that must be there."""
        return frozenset({"flow", "reference"}) | (frozenset({"masks"}) if self.within == "mask" else frozenset())

    def __call__(self, measurement: Measurement) -> Residual:
        """Return the difference of each clip; differentiable with respect to its flow, the reference is detached."""
        require(measurement, self.name, self.needs)
        reference = measurement.reference
        if measurement.flow is None or reference is None or reference.flow is None:
            raise InputError(f"the law {self.name!r} needs the flow of the reference; measure it with the same probe")
        if measurement.flow.shape != reference.flow.shape:
            raise InputError(
                f"the flow has shape {tuple(measurement.flow.shape)} but the reference's {tuple(reference.flow.shape)}; "
                "give clips of one size and length"
            )
        flow, clean = finite(measurement.flow)
        wanted, clean_reference = finite(reference.flow.detach())
        apart = (flow - wanted).abs().mean(2)
        if self.within == "frame":
            value = apart.flatten(1).mean(1)
        else:
            if measurement.masks is None or reference.masks is None:
                raise InputError(f"the law {self.name!r} within masks needs masks of the reference; measure them as well")
            here, clean_here = finite(measurement.masks[:, :-1].detach())
            there, clean_there = finite(reference.masks[:, :-1].detach())
            both = torch.cat([here, there], 2)
            weight = both.amax(2) if both.shape[2] else torch.zeros_like(apart)
            value = (apart * weight).flatten(1).sum(1) / weight.flatten(1).sum(1).clamp(min=1.0)
            clean = clean & clean_here & clean_there & (both.shape[2] > 0)
        valid = clean & clean_reference
        return Residual(torch.where(valid, value, 0.0), valid, unknown(value), apart.detach())
