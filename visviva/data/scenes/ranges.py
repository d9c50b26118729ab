"""Sampling ranges of the primitives, in and out of distribution, and the draws from them.

The out-of-distribution axes (release height, initial speed, friction) are those of NewtonBench-60K (NewtonRewards, arXiv
2512.00425); its numeric ranges are not public, the ones here are our own, chosen so that nothing lands or leaves the view
within a clip of 0.5 s. A clip of another duration T is the same picture under Froude scaling: lengths grow with
(T / 0.5 s)^2 and speeds with T / 0.5 s, so that g stays what it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ranges:
    """Intervals of one split for a clip of 0.5 s: heights [m], speeds [m/s], angle of throw and slope of ramp [degrees]."""

    height: tuple[float, float] = (1.56, 1.82)
    throw_speed: tuple[float, float] = (0.6, 1.8)
    parabolic_speed: tuple[float, float] = (1.0, 2.2)
    angle: tuple[float, float] = (30, 70)
    friction: tuple[float, float] = (0.05, 0.25)
    slope: tuple[float, float] = (22, 40)
    ramp_speed: tuple[float, float] = (2.0, 3.0)


RANGES = {
    "id": Ranges(),
    "ood": Ranges(
        height=(1.82, 2.15), throw_speed=(1.8, 2.8), parabolic_speed=(2.2, 3.2), friction=(0.25, 0.45), ramp_speed=(3.0, 3.6)
    ),
}
AXIS = {
    "free_fall": ("height",),
    "horizontal_throw": ("throw_speed",),
    "parabolic_throw": ("parabolic_speed",),
    "ramp_down": ("friction",),
    "ramp_up": ("friction", "ramp_speed"),
}
"""What is out of distribution in the split ``"ood"`` of each primitive; everything else keeps its training range."""


@dataclass(frozen=True)
class Draw:
    """The random numbers of one scene, drawn in a fixed order, and the scale of its lengths."""

    rng: np.random.Generator
    primitive: str
    split: str
    duration: float
    aspect: float
    objects: int

    @property
    def scale(self) -> float:
        """Lengths relative to a clip of 0.5 s."""
        return (self.duration / 0.5) ** 2

    def range(self, name: str) -> tuple[float, float]:
        """The interval of a quantity in this split, scaled to the duration."""
        low, high = getattr(RANGES[self.split if name in AXIS[self.primitive] else "id"], name)
        factor = {"height": self.scale, "angle": 1.0, "slope": 1.0, "friction": 1.0}.get(name, math.sqrt(self.scale))
        return low * factor, high * factor

    def number(self, name: str, digits: int) -> float:
        """A quantity drawn from its interval and rounded to the grid on which the caption prints it."""
        low, high = self.range(name)
        return round(float(self.rng.uniform(low, high)), digits)
