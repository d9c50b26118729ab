"""A batch of scenes as one Newton model: one world per scene, the same bodies in the same order in each.

Per world the shapes are floor, wall, ramp (where there is one), then the bodies in their order. Only ramp scenes
collide: falling and thrown objects touch nothing within their clip, so their shapes may differ from world to world,
while `newton.solvers.SolverMuJoCo` wants equal collision shapes in all worlds. A box on a ramp touches it with four small
feet, spheres inside its lower corners: the contact points of a box on a box come and go from step to step, and the box
chatters (measured: 1.6 % error of the acceleration going up, 0.2 % with feet).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from visviva.data.scenes.rotation import Quaternion, axis_angle
from visviva.data.scenes.scene import GRAVITY, WALL_DEPTH, Body, Scene
from visviva.errors import InputError

if TYPE_CHECKING:
    import newton

DENSITY = 500.0
STIFFNESS = 1.0e4
DAMPING = {"ramp_down": 50.0, "ramp_up": 100.0}
FOOT = 0.1


def layout(scene: Scene) -> tuple[bool, int]:
    """What must be equal for scenes to share a model: whether there is a ramp, and the number of bodies."""
    return (scene.ramp is not None, len(scene.bodies))


def build(scenes: Sequence[Scene], device: str = "cpu") -> newton.Model:
    """Build the Newton model of scenes of one `layout` on a Warp device; bodies have free joints and SI units."""
    import newton

    if len({layout(scene) for scene in scenes}) != 1:
        raise InputError("a batch of scenes needs one layout (ramp or not, number of bodies); group them by layout first")
    builder = newton.ModelBuilder(up_axis=newton.Axis.Z, gravity=(0.0, 0.0, -GRAVITY))
    newton.solvers.SolverMuJoCo.register_custom_attributes(builder)
    for scene in scenes:
        builder.begin_world()
        _add_world(builder, scene)
        builder.end_world()
    return builder.finalize(device=device)


def _add_world(builder: newton.ModelBuilder, scene: Scene) -> None:
    import newton
    import warp as wp

    seen = newton.ModelBuilder.ShapeConfig(has_shape_collision=False, has_particle_collision=False, density=0.0)
    s = scene.camera.view / 2.4
    front, back = -3.0 * s, WALL_DEPTH * s
    upright = wp.quat_identity()
    floor = wp.transform(wp.vec3(0.0, (front + back) / 2, -0.5 * s), upright)
    builder.add_shape_box(-1, xform=floor, hx=8.0 * s, hy=(back - front) / 2, hz=0.5 * s, cfg=seen)
    wall = wp.transform(wp.vec3(0.0, back + 0.5 * s, 0.0), upright)
    builder.add_shape_box(-1, xform=wall, hx=8.0 * s, hy=0.5 * s, hz=8.0 * s, cfg=seen)
    touching = {"ke": STIFFNESS, "kd": DAMPING.get(scene.primitive, 0.0), "mu": scene.friction}
    solid = newton.ModelBuilder.ShapeConfig(density=0.0, has_particle_collision=False, **touching)
    if scene.ramp is not None:
        ramp = scene.ramp
        pose = wp.transform(wp.vec3(*ramp.centre), _xyzw(axis_angle((0, 1, 0), ramp.side * ramp.slope)))
        builder.add_shape_box(-1, xform=pose, hx=ramp.half[0], hy=ramp.half[1], hz=ramp.half[2], cfg=solid)
    for body in scene.bodies:
        index = builder.add_body(xform=wp.transform(wp.vec3(*body.position), _xyzw(body.quaternion)))
        _add_shape(builder, index, body, replace(seen, density=DENSITY))
        if scene.ramp is not None:
            _add_feet(builder, index, body, replace(solid, is_visible=False))


def _add_shape(builder: newton.ModelBuilder, index: int, body: Body, cfg: object) -> None:
    a, b, c = body.size
    if body.shape == "ball":
        builder.add_shape_sphere(index, radius=a, cfg=cfg)
    elif body.shape == "box":
        builder.add_shape_box(index, hx=a, hy=b, hz=c, cfg=cfg)
    elif body.shape == "cylinder":
        builder.add_shape_cylinder(index, radius=a, half_height=b, cfg=cfg)
    else:
        builder.add_shape_capsule(index, radius=a, half_height=b, cfg=cfg)


def _add_feet(builder: newton.ModelBuilder, index: int, body: Body, foot: object) -> None:
    import warp as wp

    a, b, c = body.size
    r = FOOT * c
    for x in (-a + r, a - r):
        for y in (-b + r, b - r):
            place = wp.transform(wp.vec3(x, y, r - c), wp.quat_identity())
            builder.add_shape_sphere(index, xform=place, radius=r, cfg=foot)


def _xyzw(quaternion: Quaternion) -> object:
    import warp as wp

    w, x, y, z = quaternion
    norm = math.sqrt(w * w + x * x + y * y + z * z)
    return wp.quat(x / norm, y / norm, z / norm, w / norm)
