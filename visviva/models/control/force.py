"""Force prompts as pictures over time: a pushed point is a blob that moves off, wind is three constant channels.

Force Prompting (arXiv 2505.19386; encoding as in its paper and code). Angles: 0 is right, 90 up. Heights count from the lower
edge. The tensors are causal signals and no tracks: a blob leaves the object and need not coincide with where pixels go; even a
force of 0 moves it by an eighth of the width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError, closest

SIGMA = 20 / 720
"""Standard deviation of a blob, of the width (20 px at the paper's 720)."""
MOST = 8
"""Most forces on one clip."""


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

    def __str__(self) -> str:
        """Return it as `parse_force` reads it."""
        return f"point:x={self.x:g},y={self.y:g},angle={self.angle:g},magnitude={self.magnitude:g}"

    def __post_init__(self) -> None:
        """Refuse what is no push of something in the picture."""
        _refuse(self)
        for name in ("x", "y"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"a force at {name} = {getattr(self, name)}, outside the picture; give shares in [0, 1]")
        if not 0 <= self.magnitude <= 1:
            raise InputError(f"a force of magnitude {self.magnitude}; give a number in [0, 1], 1 being the strongest trained")


@dataclass(frozen=True)
class Wind:
    """Wind over the whole picture.

    Attributes:
        angle: where it blows to [degrees], 0 right, 90 up.
        speed: in [0, 1], relative to the weakest and strongest wind of the training data.
    """

    angle: float
    speed: float

    def __str__(self) -> str:
        """Return it as `parse_force` reads it."""
        return f"wind:angle={self.angle:g},speed={self.speed:g}"

    def __post_init__(self) -> None:
        """Refuse what is no wind."""
        _refuse(self)
        if not 0 <= self.speed <= 1:
            raise InputError(f"wind of speed {self.speed}; give a number in [0, 1], 1 being the strongest trained")


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
    return pictures(table(forces)[None], frames, height, width)[0]


def table(forces: Sequence[Force]) -> Float[Tensor, "8 5"]:
    """Return forces as numbers: a row (kind, x, y, angle, strength) each, kind 1 a point, 2 wind, and 0 in the rows left over.

    No force at all is a table of zeros and gives black pictures.

    Raises:
        InputError: more than 8 forces, or wind together with anything else.
    """
    if len(forces) > MOST:
        raise InputError(f"{len(forces)} forces at once; at most {MOST} are taken")
    if len(forces) > 1 and any(isinstance(force, Wind) for force in forces):
        raise InputError("wind together with another force is nothing that a model was trained on; give one wind, or points")
    rows = [[1, f.x, f.y, f.angle, f.magnitude] if isinstance(f, Point) else [2, 0.0, 0.0, f.angle, f.speed] for f in forces]
    return torch.tensor([*rows, *[[0.0] * 5] * (MOST - len(rows))])


def pictures(tables: Float[Tensor, "B 8 5"], frames: int, height: int, width: int) -> Float[Tensor, "B T 3 H W"]:
    """Return the control tensors of a batch of `table` s.

    A point: a blob that moves by ``width / 8 + (width / 2 - width / 8) magnitude`` over the clip, the same in three channels.
    Wind: ``-1 + 2 speed``, ``cos angle``, ``sin angle`` in every pixel of every frame. Forces add up.
    """
    kind, x, y, angle, strength = tables.double().unbind(-1)
    angle = angle.deg2rad()
    share = torch.arange(frames, device=x.device) / max(1, frames - 1)
    way = (width / 8 + (width / 2 - width / 8) * strength)[..., None] * share
    across = (x * width)[..., None] + way * angle.cos()[..., None]
    down = ((1 - y) * height)[..., None] - way * angle.sin()[..., None]
    xs, ys = (torch.arange(size, device=x.device) for size in (width, height))
    spread = 2 * (SIGMA * width) ** 2  # a blob is the product of one along the rows and one along the columns
    rows = torch.exp(-(ys - down[..., None]).square() / spread) * (kind == 1)[..., None, None]
    columns = torch.exp(-(xs - across[..., None]).square() / spread)
    blobs = torch.einsum("bmth,bmtw->bthw", rows, columns)[:, :, None].expand(-1, -1, 3, -1, -1)
    wind = (torch.stack([-1 + 2 * strength, angle.cos(), angle.sin()], -1) * (kind == 2)[..., None]).sum(1)
    return (blobs + wind[:, None, :, None, None]).float()


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


def read_forces(given: Any, where: str) -> list[Force]:
    """Read the ``forces`` of a row: a list of texts as `parse_force` takes them.

    Raises:
        InputError: no list of texts, or a text that is no force; it begins with ``where``.
    """
    if not isinstance(given, list) or not all(isinstance(text, str) for text in given):
        raise InputError(f"{where}: forces is {given!r}; give a list of texts such as point:x=0.4,y=0.6,angle=30,magnitude=0.8")
    try:
        forces = [parse_force(text) for text in given]
        table(forces)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    return forces


def _refuse(force: Force) -> None:
    for field in fields(force):
        if not math.isfinite(getattr(force, field.name)):
            raise InputError(f"a force with {field.name} = {getattr(force, field.name)}; give finite numbers")
