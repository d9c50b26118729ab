"""Balls that roll on a table under momentary forces: Newton's MuJoCo solver, all worlds stepped together.

Gravity points along +y, away from the camera, into the table. Steps of at most 1/1024 s: the way of a pushed ball is 0.1 %
longer than the closed form of `visviva.data.scenes.push` (at 1/512 s: 0.2 %), balls at rest stay within 0.1 mm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from visviva.data.scenes.dynamics import Motion
from visviva.data.scenes.scene import GRAVITY, Scene

if TYPE_CHECKING:
    import newton

STEP = 1.0 / 1024.0
FRICTION, STIFFNESS, DAMPING = 1.2, 1.0e4, 200.0


def build(scenes: Sequence[Scene], device: str = "cpu") -> newton.Model:
    """Build the Newton model of scenes with equally many balls: per world an unseen floor, the table, the balls."""
    import newton
    import warp as wp

    builder = newton.ModelBuilder(up_axis=newton.Axis.Z, gravity=(0.0, GRAVITY, 0.0))
    newton.solvers.SolverMuJoCo.register_custom_attributes(builder)
    touching = {"ke": STIFFNESS, "kd": DAMPING, "mu": FRICTION}
    solid = newton.ModelBuilder.ShapeConfig(density=0.0, has_particle_collision=False, **touching)
    unseen = newton.ModelBuilder.ShapeConfig(density=0.0, has_particle_collision=False, has_shape_collision=False)
    for scene in scenes:
        s, radius, height = scene.camera.view / 2.4, scene.bodies[0].size[0], scene.camera.centre[1]
        builder.begin_world()
        builder.add_shape_box(-1, xform=_at(0.0, 0.0, -s), hx=s, hy=s, hz=0.1 * s, cfg=unseen)
        builder.add_shape_box(-1, xform=_at(0.0, radius + 0.5 * s, height), hx=8 * s, hy=0.5 * s, hz=8 * s, cfg=solid)
        for i, ball in enumerate(scene.bodies):
            index = builder.add_body(xform=wp.transform(wp.vec3(*ball.position), wp.quat_identity()))
            density = scene.numbers[f"mass_{i}"] / (4 / 3 * math.pi * radius**3)
            builder.add_shape_sphere(index, radius=radius, cfg=replace(solid, density=density))
        builder.end_world()
    return builder.finalize(device=device)


def move(scenes: Sequence[Scene], frames: int, fps: float, model: newton.Model) -> Motion:
    """Simulate scenes; the forces act while the clip's first quarter lasts."""
    import newton

    worlds, count = len(scenes), max(1, math.ceil(1.0 / fps / STEP))
    step, duration = 1.0 / fps / count, (frames - 1) / fps
    options = {"cone": "elliptic", "njmax": 32, "nconmax": 16, "iterations": 20, "ls_iterations": 20}
    solver = newton.solvers.SolverMuJoCo(model, **options)
    now, later = model.state(), model.state()
    newton.eval_fk(model, now.joint_q, now.joint_qd, now)
    force = _forces(scenes)
    record = [_read(now, worlds)]
    for k in range((frames - 1) * count):
        on = max(0.0, min(1.0, duration / 4 / step - k))  # the share of this step during which the force acts
        now.body_f.assign((on * force).reshape(-1, 6))
        solver.step(now, later, None, None, step)
        now, later = later, now
        if (k + 1) % count == 0:
            record.append(_read(now, worlds))
    poses, speeds = (np.stack(part, axis=1) for part in zip(*record, strict=True))
    return Motion(poses[..., :3].copy(), speeds[..., :3].copy(), poses[..., [6, 3, 4, 5]].copy(), speeds[..., 3:].copy())


def _forces(scenes: Sequence[Scene]) -> np.ndarray:
    """Force and torque (B, N, 6) on each ball [N, N m], in the world."""
    force = np.zeros((len(scenes), len(scenes[0].bodies), 6), np.float32)
    for i, scene in enumerate(scenes):
        for push in scene.pushes:
            angle = math.radians(push.angle)
            force[i, push.body, [0, 2]] = push.newtons * np.array([math.cos(angle), math.sin(angle)])
    return force


def _read(state: newton.State, worlds: int) -> tuple[np.ndarray, np.ndarray]:
    return state.body_q.numpy().reshape(worlds, -1, 7).copy(), state.body_qd.numpy().reshape(worlds, -1, 6).copy()


def _at(x: float, y: float, z: float) -> object:
    import warp as wp

    return wp.transform(wp.vec3(x, y, z), wp.quat_identity())
