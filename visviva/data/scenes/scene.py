"""All that determines one clip: bodies, a ramp or none, camera, light, textures, and the numbers its caption states.

World frame: SI units, x right, y away from the camera, z up. Bodies move in the plane y = 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from visviva.data.scenes.appearance import Light, Texture
from visviva.data.scenes.rotation import Quaternion, Vector, matrix

if TYPE_CHECKING:
    from visviva.data.scenes.wind import Breeze, Soft

GRAVITY = 9.81
FIELD_OF_VIEW = math.radians(30.0)
LENS_SHIFT = 0.3
WALL_DEPTH = 1.3
SHAPES = ("ball", "box", "cylinder", "capsule")


@dataclass(frozen=True)
class Body:
    """One moving object. ``size`` [m]: ball (radius, 0, 0), box half extents, cylinder and capsule (radius, half height, 0)."""

    shape: str
    size: Vector
    position: Vector
    quaternion: Quaternion
    velocity: Vector
    texture: Texture

    @property
    def radius(self) -> float:
        """Radius of the sphere around the body [m]."""
        a, b, _ = self.size
        return {"ball": a, "box": math.hypot(*self.size), "cylinder": math.hypot(a, b), "capsule": a + b}[self.shape]

    @property
    def extent(self) -> np.ndarray:
        """Half size (3,) of the bounding box along the world axes, as the body starts [m]."""
        turn = matrix(self.quaternion)
        if self.shape == "ball":
            return np.full(3, self.size[0])
        if self.shape == "box":
            return np.abs(turn) @ np.array(self.size)
        axis, (radius, half) = np.abs(turn[:, 2]), self.size[:2]
        if self.shape == "capsule":
            return radius + half * axis
        return radius * np.sqrt(1 - np.minimum(axis, 1) ** 2) + half * axis


@dataclass(frozen=True)
class Push:
    """A momentary force on the body of number ``body``: at the point ``x``, ``y`` (shares of the picture from the left and from
    the lower edge), ``angle`` [degrees] (0 right, 90 up), ``magnitude`` in [0, 1] between the set's weakest and strongest,
    ``newtons`` [N].
    """

    body: int
    x: float
    y: float
    angle: float
    magnitude: float
    newtons: float

    @property
    def prompt(self) -> str:
        """The force prompt, as ``visviva generate --force`` takes it."""
        return f"point:x={self.x:g},y={self.y:g},angle={self.angle:g},magnitude={self.magnitude:g}"


@dataclass(frozen=True)
class Ramp:
    """A fixed tilted box; ``slope`` [rad] falls towards +x where ``side`` is +1, towards -x where it is -1."""

    centre: Vector
    half: Vector
    slope: float
    side: int
    texture: Texture

    @property
    def down(self) -> np.ndarray:
        """Unit vector (3,) down the slope."""
        return np.array([self.side * math.cos(self.slope), 0.0, -math.sin(self.slope)])

    @property
    def normal(self) -> np.ndarray:
        """Unit vector (3,) out of the upper face."""
        return np.array([self.side * math.sin(self.slope), 0.0, math.cos(self.slope)])


@dataclass(frozen=True)
class Camera:
    """Shift-lens pinhole: looks along +y, image plane parallel to the plane of motion y = 0 (uniform scale there).

    ``view`` [m] is the height of the plane y = 0 that the image shows, ``centre`` its middle (x, z) [m]. The pinhole stands
    above the middle by `LENS_SHIFT` views, so that upper faces are seen while verticals stay vertical.
    """

    view: float
    centre: tuple[float, float]

    @property
    def position(self) -> Vector:
        """Pinhole position (x, y, z) [m]."""
        distance = self.view / (2.0 * math.tan(FIELD_OF_VIEW / 2.0))
        return (self.centre[0], -distance, self.centre[1] + LENS_SHIFT * self.view)


@dataclass(frozen=True)
class Scene:
    """All that determines one clip. ``numbers`` are the stated conditions (rounded), in SI units and degrees; ``side`` is +1
    for a throw to the right or a ramp that falls to the right.
    """

    primitive: str
    split: str
    name: str
    bodies: tuple[Body, ...]
    camera: Camera
    light: Light
    wall: Texture
    floor: Texture
    ramp: Ramp | None = None
    friction: float = 0.0
    numbers: dict[str, float] = field(default_factory=dict)
    pushes: tuple[Push, ...] = ()
    soft: tuple[Soft, ...] = ()
    wind: Breeze | None = None
