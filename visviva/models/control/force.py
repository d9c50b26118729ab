"""Force prompts as pictures over time: a pushed point is a blob that moves off, wind is three constant channels.

Force Prompting (arXiv 2505.19386; encoding as in its paper and code). Angles: 0 is right, 90 up. Heights count from the lower
edge. The tensors are causal signals and no tracks: a blob leaves the object and need not coincide with where pixels go; even a
force of 0 moves it by an eighth of the width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError, closest

SIGMA = 20 / 720
"""Standard deviation of a blob, of the width (20 px at the paper's 720)."""


@dataclass(frozen=True)
class Point:
    """A point that is pushed.

    Attributes:
        x, y: where, shares of width and height, from the left and from the *lower* edge.
        angle: direction of the force [degrees], 0 right, 90 up.
        magnitude: in [0, 1], relative to the weakest and strongest force of the training data.

    Raises:
        InputError: a place outside the picture, a magnitude outside [0, 1], or what is not finite.
    """

    x: float
    y: float
    angle: float
    magnitude: float

    def __post_init__(self) -> None:
        """Refuse what is no push of something in the picture."""
        _refuse(self)
        for name in ("x", "y"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"a force at {name} = {getattr(self, name)}, outside the picture; give shares in [0, 1]")
        if not 0 <= self.magnitude <= 1:
            raise InputError(f"a force of magnitude {self.magnitude}; give a number in [0, 1], 1 being the strongest trained")

    def picture(self, frames: int, height: int, width: int) -> Float[Tensor, "T 3 H W"]:
        """Return a blob that moves by ``width / 8 + (width / 2 - width / 8) magnitude`` over the clip, three times."""
        share = torch.arange(frames) / max(1, frames - 1)
        distance = width / 8 + (width / 2 - width / 8) * self.magnitude
        angle = math.radians(self.angle)
        x = self.x * width + share * distance * math.cos(angle)
        y = (1 - self.y) * height - share * distance * math.sin(angle)
        ys, xs = torch.arange(height)[:, None], torch.arange(width)
        off = (xs - x[:, None, None]).square() + (ys - y[:, None, None]).square()
        return torch.exp(-off / (2 * (SIGMA * width) ** 2))[:, None].expand(-1, 3, -1, -1)


@dataclass(frozen=True)
class Wind:
    """Wind over the whole picture.

    Attributes:
        angle: where it blows to [degrees], 0 right, 90 up.
        speed: in [0, 1], relative to the weakest and strongest wind of the training data.
    """

    angle: float
    speed: float

    def __post_init__(self) -> None:
        """Refuse what is no wind."""
        _refuse(self)
        if not 0 <= self.speed <= 1:
            raise InputError(f"wind of speed {self.speed}; give a number in [0, 1], 1 being the strongest trained")

    def picture(self, frames: int, height: int, width: int) -> Float[Tensor, "T 3 H W"]:
        """Return ``-1 + 2 speed``, ``cos angle``, ``sin angle``, the same in every pixel of every frame."""
        angle = math.radians(self.angle)
        channels = torch.tensor([-1 + 2 * self.speed, math.cos(angle), math.sin(angle)])
        return channels.view(1, 3, 1, 1).expand(frames, 3, height, width)


Force = Point | Wind


def control(forces: Sequence[Force], frames: int, height: int, width: int) -> Float[Tensor, "T 3 H W"]:
    """Return the control tensor of a clip: the sum of its points' blobs, or its wind.

    Raises:
        InputError: no force, or wind together with anything else, which no model was trained on.

    Example::

        control([Point(0.4, 0.6, angle=30, magnitude=0.8)], 49, 480, 720).shape  # (49, 3, 480, 720)
    """
    if not forces:
        raise InputError("no force; give a point or wind")
    if len(forces) > 1 and any(isinstance(force, Wind) for force in forces):
        raise InputError("wind together with another force is nothing that a model was trained on; give one wind, or points")
    return torch.stack([force.picture(frames, height, width) for force in forces]).sum(0)


def parse_force(text: str) -> Force:
    """Read ``point:x=0.4,y=0.6,angle=30,magnitude=0.8`` or ``wind:angle=90,speed=0.5``.

    Raises:
        InputError: another kind, a missing, doubled or unknown name, or a value that is no number.
    """
    kinds = {"point": Point, "wind": Wind}
    kind, _, rest = text.partition(":")
    if kind not in kinds:
        raise InputError(f"force {text!r}: no kind {kind!r}{closest(kind, kinds)}; write point:... or wind:...")
    wanted = [field.name for field in fields(kinds[kind])]
    given: dict[str, float] = {}
    for part in rest.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or name not in wanted or name in given:
            problem = f"{name!r} stands twice" if name in given else f"{part!r} is not understood{closest(name, wanted)}"
            raise InputError(f"force {text!r}: {problem}; a {kind} has {', '.join(f'{n}=...' for n in wanted)}")
        try:
            given[name] = float(value)
        except ValueError as error:
            raise InputError(f"force {text!r}: {name} = {value!r} is no number") from error
    missing = [name for name in wanted if name not in given]
    if missing:
        raise InputError(f"force {text!r}: {', '.join(missing)} missing; a {kind} has {', '.join(wanted)}")
    return kinds[kind](**given)


def _refuse(force: Force) -> None:
    for field in fields(force):
        if not math.isfinite(getattr(force, field.name)):
            raise InputError(f"a force with {field.name} = {getattr(force, field.name)}; give finite numbers")
