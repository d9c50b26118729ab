"""Scenes of a box that slides on a ramp: down from rest, or up with a stated speed until it turns.

Ramps take boxes, because a ball would roll (5/7 g sin theta); tan theta >= 1.3 mu, so that the box slides and does not stick.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from visviva.data.scenes.appearance import sample_texture
from visviva.data.scenes.ranges import Draw
from visviva.data.scenes.rotation import axis_angle, vector
from visviva.data.scenes.scene import GRAVITY, Body, Camera, Ramp

LEAST_STEEPNESS = 1.3


def slide(draw: Draw, view: float, side: int) -> dict[str, Any]:
    """Draw box, ramp, camera and stated numbers; ``side`` is +1 for a ramp that falls to the right."""
    rng, s = draw.rng, draw.scale
    friction = draw.number("friction", 2)
    low, high = (int(v) for v in draw.range("slope"))
    low = max(low, math.ceil(math.degrees(math.atan(LEAST_STEEPNESS * friction))))
    degrees = int(rng.integers(low, high + 1))
    numbers = {"view": view, "slope": degrees, "friction": friction, "side": side}
    speed = 0.0
    if draw.primitive == "ramp_up":
        speed = numbers["speed"] = draw.number("ramp_speed", 2)
    slope = math.radians(degrees)
    travel = _travel(slope, friction, speed, np.linspace(0.0, draw.duration, 65))
    reach, span = (travel.min() + travel.max()) / 2, (travel.max() - travel.min()) / 2
    half = np.array([rng.uniform(0.2, 0.24), rng.uniform(0.18, 0.22), rng.uniform(0.175, 0.2)]) * s
    camera = Camera(view, (0.0, float(rng.uniform(1.0, 1.1)) * s))
    middle = np.array([rng.uniform(-0.2, 0.2) * s, 0.0, camera.centre[1] + rng.uniform(-0.25, 0.1) * s])
    length, shift, depth = float(span + half[0] + rng.uniform(0.25, 0.5) * s), rng.uniform(-0.1, 0.1) * s, 1.2 * s
    down = np.array([side * math.cos(slope), 0.0, -math.sin(slope)])
    normal = np.array([side * math.sin(slope), 0.0, math.cos(slope)])
    exact = middle + normal * half[2] - down * reach
    position = np.round(exact, 4)
    # rounding lifts the box off the slope by up to 0.05 mm; the ramp follows it
    centre = middle + down * shift - normal * depth + normal * float((position - exact) @ normal)
    quaternion = axis_angle((0, 1, 0), side * slope)
    box = Body("box", vector(half), vector(position), quaternion, vector(-speed * down), sample_texture(rng, "object", s))
    ramp = Ramp(vector(centre), (length, 0.45 * s, depth), slope, side, sample_texture(rng, "ramp", s))
    return {"bodies": (box,), "camera": camera, "numbers": numbers, "ramp": ramp, "friction": friction}


def _travel(slope: float, friction: float, speed: float, time: np.ndarray) -> np.ndarray:
    """Path down the slope [m] of a box that starts with ``speed`` [m/s] up the slope."""
    falling = GRAVITY * (math.sin(slope) - friction * math.cos(slope))
    braking = GRAVITY * (math.sin(slope) + friction * math.cos(slope))
    turn = speed / braking
    rise = -speed * time + 0.5 * braking * time**2
    fall = -(speed**2) / (2 * braking) + 0.5 * falling * np.maximum(time - turn, 0.0) ** 2
    return np.where(time < turn, rise, fall)
