"""Scenes of falls and throws: one to three objects of any shape that share speed and direction and touch nothing."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from visviva.data.scenes.appearance import sample_texture
from visviva.data.scenes.ranges import Draw
from visviva.data.scenes.rotation import Vector, axis_angle, multiply, vector
from visviva.data.scenes.scene import GRAVITY, SHAPES, Body, Camera
from visviva.errors import InputError

USED = 0.46
"""Half of the part of the view that the objects stay in."""
TRIES = 200
Room = tuple[tuple[float, float], tuple[float, float]]


def flight(draw: Draw, view: float, side: int) -> dict[str, Any]:
    """Draw bodies, camera and stated numbers of a fall or throw.

    ``view`` [m] is the height of the picture, which is enlarged where the path needs it; ``side`` is the direction of a throw.
    """
    numbers: dict[str, float] = {"view": view}
    vx = vz = 0.0
    if draw.primitive == "horizontal_throw":
        numbers |= {"speed": draw.number("throw_speed", 2), "side": side}
        vx = side * numbers["speed"]
    elif draw.primitive == "parabolic_throw":
        numbers |= {"speed": draw.number("parabolic_speed", 2), "angle": draw.number("angle", 0), "side": side}
        vx = side * numbers["speed"] * math.cos(math.radians(numbers["angle"]))
        vz = numbers["speed"] * math.sin(math.radians(numbers["angle"]))
    time = np.linspace(0.0, draw.duration, 65)
    path = np.stack([vx * time, vz * time - 0.5 * GRAVITY * time**2])
    numbers["view"] = view = max(view, _least_view(draw, path))
    camera = Camera(view, (0.0, float(draw.rng.uniform(1.0, 1.1)) * draw.scale))
    bodies = sorted(_bodies(draw, camera, path, (vx, 0.0, vz)), key=lambda body: body.position[0])
    if draw.primitive == "free_fall":
        numbers |= {f"height_{i}": body.position[2] for i, body in enumerate(bodies)}
        top = max(body.position[2] + body.extent[2] for body in bodies) + 0.05 * view
        camera = Camera(view, (0.0, max(camera.centre[1], top - view / 2)))
    return {"bodies": tuple(bodies), "camera": camera, "numbers": numbers}


def _least_view(draw: Draw, path: np.ndarray) -> float:
    # the largest body is a box on its corner, 0.68 m across
    wide, high = np.ptp(path, axis=1) + 0.7 * draw.scale
    return math.ceil(100 * max(wide / draw.aspect, high) / (2 * USED)) / 100


def _bodies(draw: Draw, camera: Camera, path: np.ndarray, velocity: Vector) -> list[Body]:
    wanted = min(draw.objects, int(draw.rng.choice([1, 2, 3], p=[0.6, 0.28, 0.12])))
    bodies: list[Body] = []
    for _ in range(TRIES):
        body = _body(draw, velocity)
        room = _room(draw, camera, body, path)
        if room is None:
            continue
        x, z = (round(float(draw.rng.uniform(*interval)), digits) for interval, digits in zip(room, (3, 2), strict=True))
        placed = replace(body, position=(x, 0.0, z))
        if all(_apart(placed, other) for other in bodies):
            bodies.append(placed)
        if len(bodies) == wanted:
            break
    if not bodies:
        raise InputError(f"no place for a {draw.primitive} in a picture of aspect {draw.aspect:.2f}; make it less extreme")
    return bodies


def _body(draw: Draw, velocity: Vector) -> Body:
    rng = draw.rng
    shape = str(rng.choice(SHAPES))
    size: dict[str, Any] = {
        "ball": (rng.uniform(0.2, 0.25), 0.0, 0.0),
        "box": rng.uniform(0.18, 0.225, 3),
        "cylinder": (rng.uniform(0.19, 0.23), rng.uniform(0.175, 0.22), 0.0),
        "capsule": (rng.uniform(0.18, 0.2), rng.uniform(0.07, 0.12), 0.0),
    }
    roll, yaw = rng.uniform(-math.pi, math.pi), rng.uniform(-0.5, 0.5)
    quaternion = multiply(axis_angle((0, 1, 0), roll), axis_angle((0, 0, 1), yaw))
    texture = sample_texture(rng, "object", draw.scale)
    return Body(shape, vector([v * draw.scale for v in size[shape]]), (0.0, 0.0, 0.0), quaternion, velocity, texture)


def _room(draw: Draw, camera: Camera, body: Body, path: np.ndarray) -> Room | None:
    """Intervals of x and z from which the body stays in the picture and above the floor, or None."""
    (ex, _, ez), half = body.extent, USED * camera.view
    (left, low), (right, high) = path.min(axis=1), path.max(axis=1)
    x = (-half * draw.aspect + ex - left, half * draw.aspect - ex - right)
    floor = ez - low + 0.02 * draw.scale
    if draw.primitive == "free_fall":
        lowest, highest = draw.range("height")
        z = (max(lowest, floor), highest)
    else:
        z = (max(floor, camera.centre[1] - half + ez - low), camera.centre[1] + half - ez - high)
    return (x, z) if x[0] < x[1] and z[0] < z[1] else None


def _apart(a: Body, b: Body) -> bool:
    gap = np.abs(np.array(a.position) - np.array(b.position)) - 1.08 * (a.extent + b.extent)
    return bool(max(gap[0], gap[2]) > 0)
