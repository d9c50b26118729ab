"""The five Newtonian motion primitives: sampled scenes whose caption and first frame determine the motion.

Each primitive has one exact constant acceleration in the image plane (x right, z up, g = 9.81 m/s^2):

    free_fall         a = (0, -g),                       v0 = 0
    horizontal_throw  a = (0, -g),                       v0 = (v, 0)
    parabolic_throw   a = (0, -g),                       v0 = v (cos angle, sin angle)
    ramp_down         a = g (sin theta - mu cos theta)   down the slope, v0 = 0
    ramp_up           a = -g (sin theta + mu cos theta)  along the slope until rest, then as ramp_down

The five primitives and the out-of-distribution axes (release height, initial speed, friction) are those of
NewtonBench-60K (NewtonRewards, arXiv 2512.00425); its numeric ranges are not public, the ones here are our own, chosen
so that nothing lands or leaves the view within a clip of 0.5 s. A clip of another duration T is the same picture under
Froude scaling: lengths grow with (T / 0.5 s)^2 and speeds with T / 0.5 s, so that g stays what it is.

Every number that the caption states is rounded to the printed grid *before* it is simulated: equal captions and equal
first frames imply equal motion.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, field

import numpy as np

from visviva.data.scenes.appearance import Light, Texture, sample_light, sample_texture
from visviva.errors import InputError, closest

GRAVITY = 9.81
PRIMITIVES = ("free_fall", "horizontal_throw", "parabolic_throw", "ramp_down", "ramp_up")
SPLITS = ("id", "ood")
SHAPES = ("ball", "box", "cylinder", "capsule")
FIELD_OF_VIEW = math.radians(30.0)
LENS_SHIFT = 0.3
WALL_DEPTH = 1.3


@dataclass(frozen=True)
class Ranges:
    """Sampling intervals of one split for a clip of 0.5 s (SI units, degrees)."""

    height: tuple[float, float] = (1.56, 1.82)
    throw_speed: tuple[float, float] = (0.6, 1.8)
    parabolic_speed: tuple[float, float] = (1.0, 2.2)
    angle: tuple[int, int] = (30, 70)
    friction: tuple[float, float] = (0.05, 0.25)
    slope: tuple[int, int] = (22, 40)
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


@dataclass(frozen=True)
class Body:
    """One moving object. ``size`` [m]: ball (radius, 0, 0), box half extents, cylinder and capsule (radius, half height, 0)."""

    shape: str
    size: tuple[float, float, float]
    position: tuple[float, float, float]
    quaternion: tuple[float, float, float, float]
    velocity: tuple[float, float, float]
    texture: Texture


@dataclass(frozen=True)
class Ramp:
    """A fixed tilted box; ``slope`` [rad] falls towards +x where ``side`` is +1, towards -x where it is -1."""

    centre: tuple[float, float, float]
    half: tuple[float, float, float]
    slope: float
    side: int
    texture: Texture


@dataclass(frozen=True)
class Camera:
    """Shift-lens pinhole: looks along +y, image plane parallel to the plane of motion y = 0 (uniform scale there).

    ``view`` [m] is the height of the plane y = 0 that the image shows, ``centre`` its middle (x, z) [m].
    """

    view: float
    centre: tuple[float, float]

    @property
    def position(self) -> tuple[float, float, float]:
        """Pinhole position (x, y, z) [m]."""
        distance = self.view / (2.0 * math.tan(FIELD_OF_VIEW / 2.0))
        return (self.centre[0], -distance, self.centre[1] + LENS_SHIFT * self.view)


@dataclass(frozen=True)
class Scene:
    """All that determines one clip. ``numbers`` are the stated conditions (rounded), in SI units and degrees."""

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


def sample_scene(
    primitive: str, seed: int, index: int, *, split: str = "id", duration: float = 0.5, aspect: float = 1.0, objects: int = 3
) -> Scene:
    """Draw scene ``index`` of a primitive; it depends on its arguments only, not on how many scenes are drawn.

    Args:
        primitive: one of `PRIMITIVES`.
        seed: the seed of the whole set.
        index: which scene of the set.
        split: ``"id"`` or ``"ood"``; out of distribution on the axis `AXIS` of the primitive.
        duration: length of the clip [s]; sets the Froude scale.
        aspect: image width over height.
        objects: largest number of objects in falls and throws.
    """
    if primitive not in PRIMITIVES:
        raise InputError(f"unknown primitive {primitive!r}; allowed: {', '.join(PRIMITIVES)}{closest(primitive, PRIMITIVES)}")
    if split not in SPLITS:
        raise InputError(f"unknown split {split!r}; allowed: {', '.join(SPLITS)}")
    key = zlib.crc32(f"{primitive}/{split}".encode())
    rng = np.random.default_rng([seed, key, index])
    draw = _Draw(rng, primitive, split, (duration / 0.5) ** 2, aspect, objects)
    return draw.scene(f"{primitive}-{split}-{seed}-{index}")


class _Draw:
    """One scene's random draws, in a fixed order."""

    def __init__(self, rng: np.random.Generator, primitive: str, split: str, scale: float, aspect: float, objects: int) -> None:
        self.rng, self.primitive, self.split, self.scale, self.aspect, self.objects = (
            rng,
            primitive,
            split,
            scale,
            aspect,
            objects,
        )
        self.duration = 0.5 * math.sqrt(scale)

    def range(self, name: str) -> tuple[float, float]:
        split = self.split if name in AXIS[self.primitive] else "id"
        low, high = getattr(RANGES[split], name)
        factor = {"height": self.scale, "angle": 1.0, "slope": 1.0, "friction": 1.0}.get(name, math.sqrt(self.scale))
        return low * factor, high * factor

    def number(self, name: str, digits: int) -> float:
        low, high = self.range(name)
        return round(float(self.rng.uniform(low, high)), digits)

    def scene(self, name: str) -> Scene:
        view = round(float(self.rng.uniform(2.16, 2.64)) * self.scale, 2)
        side = 1 if self.rng.random() < 0.5 else -1
        make = self.ramp if self.primitive.startswith("ramp") else self.flight
        parts = make(view, side)
        return Scene(
            primitive=self.primitive,
            split=self.split,
            name=name,
            light=sample_light(self.rng),
            wall=sample_texture(self.rng, "wall", self.scale),
            floor=sample_texture(self.rng, "floor", self.scale),
            **parts,
        )

    def flight(self, view: float, side: int) -> dict:
        numbers: dict[str, float] = {"view": view}
        vx = vz = 0.0
        if self.primitive == "horizontal_throw":
            numbers |= {"speed": self.number("throw_speed", 2), "side": side}
            vx = side * numbers["speed"]
        elif self.primitive == "parabolic_throw":
            numbers |= {"speed": self.number("parabolic_speed", 2), "angle": self.number("angle", 0), "side": side}
            vx = side * numbers["speed"] * math.cos(math.radians(numbers["angle"]))
            vz = numbers["speed"] * math.sin(math.radians(numbers["angle"]))
        time = np.linspace(0.0, self.duration, 65)
        path_x, path_z = vx * time, vz * time - 0.5 * GRAVITY * time**2
        view = max(view, self.least_view(path_x, path_z))
        numbers["view"] = view
        camera = Camera(view, (0.0, float(self.rng.uniform(1.0, 1.1)) * self.scale))
        bodies = self.place(camera, path_x, path_z, (vx, 0.0, vz))
        bodies.sort(key=lambda b: b.position[0])
        numbers |= {f"height_{i}": b.position[2] for i, b in enumerate(bodies)} if self.primitive == "free_fall" else {}
        if self.primitive == "free_fall":
            top = max(b.position[2] + extent(b)[2] for b in bodies) + 0.05 * view
            camera = Camera(view, (0.0, max(camera.centre[1], top - view / 2)))
        return {"bodies": tuple(bodies), "camera": camera, "numbers": numbers}

    def least_view(self, path_x: np.ndarray, path_z: np.ndarray) -> float:
        # the largest body is 0.64 m across (a box on its corner); 0.92 of the view is used
        wide, high = np.ptp(path_x) + 0.7 * self.scale, np.ptp(path_z) + 0.7 * self.scale
        return math.ceil(100 * max(wide / self.aspect, high) / 0.92) / 100

    def place(self, camera: Camera, path_x: np.ndarray, path_z: np.ndarray, velocity: tuple[float, float, float]) -> list[Body]:
        wanted = min(self.objects, int(self.rng.choice([1, 2, 3], p=[0.6, 0.28, 0.12])))
        bodies: list[Body] = []
        for _ in range(200):
            body = self.body(velocity)
            room = self.room(camera, body, path_x, path_z)
            if room is None:
                continue
            (x_low, x_high), (z_low, z_high) = room
            x, z = round(float(self.rng.uniform(x_low, x_high)), 3), round(float(self.rng.uniform(z_low, z_high)), 2)
            placed = _moved(body, (x, 0.0, z))
            if all(_apart(placed, other) for other in bodies):
                bodies.append(placed)
            if len(bodies) == wanted:
                return bodies
        if bodies:
            return bodies
        raise InputError(
            f"no place for an object of {self.primitive!r} in a view of {camera.view} m; lower the range of its speed"
        )

    def room(self, camera: Camera, body: Body, path_x: np.ndarray, path_z: np.ndarray) -> tuple | None:
        ex, _, ez = extent(body)
        half_h = 0.46 * camera.view
        half_w = half_h * self.aspect
        x = (-half_w + ex - path_x.min(), half_w - ex - path_x.max())
        floor = ez - path_z.min() + 0.02 * self.scale
        if self.primitive == "free_fall":
            z_low, z_high = self.range("height")
            z = (max(z_low, floor), z_high)
        else:
            low = max(floor, camera.centre[1] - half_h + ez - path_z.min())
            z = (low, camera.centre[1] + half_h - ez - path_z.max())
        return (x, z) if x[0] < x[1] and z[0] < z[1] else None

    def body(self, velocity: tuple[float, float, float]) -> Body:
        rng, s = self.rng, self.scale
        shape = str(rng.choice(SHAPES))
        size = {
            "ball": (rng.uniform(0.2, 0.25), 0.0, 0.0),
            "box": tuple(rng.uniform(0.18, 0.225, 3)),
            "cylinder": (rng.uniform(0.19, 0.23), rng.uniform(0.175, 0.22), 0.0),
            "capsule": (rng.uniform(0.18, 0.2), rng.uniform(0.07, 0.12), 0.0),
        }[shape]
        roll, yaw = rng.uniform(-math.pi, math.pi), rng.uniform(-0.5, 0.5)
        quaternion = multiply(axis_angle((0, 1, 0), roll), axis_angle((0, 0, 1), yaw))
        texture = sample_texture(rng, "object", s)
        return Body(shape, tuple(float(v) * s for v in size), (0.0, 0.0, 0.0), quaternion, velocity, texture)

    def ramp(self, view: float, side: int) -> dict:
        rng, s = self.rng, self.scale
        friction = self.number("friction", 2)
        steepest = math.ceil(math.degrees(math.atan(1.3 * friction)))
        low, high = self.range("slope")
        slope_degrees = int(rng.integers(max(int(low), steepest), int(high) + 1))
        slope = math.radians(slope_degrees)
        numbers = {"view": view, "slope": slope_degrees, "friction": friction, "side": side}
        down = GRAVITY * (math.sin(slope) - friction * math.cos(slope))
        up = GRAVITY * (math.sin(slope) + friction * math.cos(slope))
        time = np.linspace(0.0, self.duration, 65)
        travel = 0.5 * down * time**2
        speed = 0.0
        if self.primitive == "ramp_up":
            speed = numbers["speed"] = self.number("ramp_speed", 2)
            stop = speed / up
            rise = -speed * time + 0.5 * up * time**2
            back = -(speed**2) / (2 * up) + 0.5 * down * np.maximum(time - stop, 0.0) ** 2
            travel = np.where(time < stop, rise, back)
        d = np.array([side * math.cos(slope), 0.0, -math.sin(slope)])
        n = np.array([side * math.sin(slope), 0.0, math.cos(slope)])
        half = np.array([rng.uniform(0.2, 0.24), rng.uniform(0.18, 0.22), rng.uniform(0.175, 0.2)]) * s
        reach = (travel.min() + travel.max()) / 2
        span = (travel.max() - travel.min()) / 2
        camera = Camera(view, (0.0, float(rng.uniform(1.0, 1.1)) * s))
        middle = np.array([rng.uniform(-0.2, 0.2) * s, 0.0, camera.centre[1] + rng.uniform(-0.25, 0.1) * s])
        position = middle + n * half[2] - d * reach
        length = span + half[0] + rng.uniform(0.25, 0.5) * s
        shift = rng.uniform(-0.1, 0.1) * s
        depth = 1.2 * s
        ramp_half = (float(length), 0.45 * s, depth)
        centre = middle + d * shift - n * depth
        quaternion = axis_angle((0, 1, 0), side * slope)
        body = Body(
            "box",
            tuple(float(v) for v in half),
            tuple(round(float(v), 4) for v in position),
            quaternion,
            tuple(float(v) for v in -speed * d),
            sample_texture(rng, "object", s),
        )
        # the rounded position moves the object along and off the slope by at most 0.05 mm; the ramp follows it
        centre = centre + n * float((np.array(body.position) - position) @ n)
        ramp = Ramp(tuple(float(v) for v in centre), ramp_half, slope, side, sample_texture(rng, "ramp", s))
        return {"bodies": (body,), "camera": camera, "numbers": numbers, "ramp": ramp, "friction": friction}


def axis_angle(axis: tuple[float, float, float], angle: float) -> tuple[float, float, float, float]:
    """Quaternion (w, x, y, z) of a rotation by ``angle`` [rad] about a unit axis."""
    s = math.sin(angle / 2)
    return (math.cos(angle / 2), axis[0] * s, axis[1] * s, axis[2] * s)


def multiply(a: tuple[float, ...], b: tuple[float, ...]) -> tuple[float, float, float, float]:
    """Quaternion product a b, both (w, x, y, z)."""
    w, x, y, z = a
    p, q, r, s = b
    return (
        w * p - x * q - y * r - z * s,
        w * q + x * p + y * s - z * r,
        w * r - x * s + y * p + z * q,
        w * s + x * r - y * q + z * p,
    )


def rotation_matrix(q: tuple[float, ...]) -> np.ndarray:
    """Rotation matrix (3, 3) of a unit quaternion (w, x, y, z): world = matrix @ local."""
    w, x, y, z = q
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def radius(body: Body) -> float:
    """Radius of the sphere around the body [m]."""
    a, b, _ = body.size
    return {"ball": a, "box": math.hypot(*body.size), "cylinder": math.hypot(a, b), "capsule": a + b}[body.shape]


def extent(body: Body) -> np.ndarray:
    """Half size of the body's bounding box along the world axes (3,) [m]."""
    matrix = rotation_matrix(body.quaternion)
    if body.shape == "ball":
        return np.full(3, body.size[0])
    if body.shape == "box":
        return np.abs(matrix) @ np.array(body.size)
    axis = np.abs(matrix[:, 2])
    radius, half = body.size[:2]
    return radius + half * axis if body.shape == "capsule" else radius * np.sqrt(1 - np.minimum(axis, 1) ** 2) + half * axis


def _moved(body: Body, position: tuple[float, float, float]) -> Body:
    return Body(body.shape, body.size, position, body.quaternion, body.velocity, body.texture)


def _apart(a: Body, b: Body) -> bool:
    gap = np.abs(np.array(a.position) - np.array(b.position)) - 1.08 * (extent(a) + extent(b))
    return bool(max(gap[0], gap[2]) > 0)
