"""Plants in the wind: stalks of rods on elastic hinges, with a blossom, by Newton's MuJoCo solver, all stalks stepped together.

Wind and stalks move in the picture's plane, so the hinges turn about the view axis. A rod of bending stiffness B, cut into
pieces of length h, has hinges of stiffness B / h (the lowest 2 B / h, half a piece above the clamp). Every piece feels the
wind's force on a strip of its length, the blossom that on a ball.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from visviva.data.scenes.scene import GRAVITY, Scene
from visviva.data.scenes.wind import FULL, RATIO, TANGENT, Soft

if TYPE_CHECKING:
    import newton

LINKS = 6
"""Pieces of a stalk."""
STEP = 1.0 / 512.0
LINE, BLOSSOM = 0.08, 0.12
"""Mass of a stalk [kg/m] and of its blossom of 0.15 m [kg]; that of others goes with the square of the radius."""
RIGIDITY, DAMPING = 1.1, 0.02
"""Bending stiffness [N m^2] of a stalk of 1.1 m (with the square of the height: all bend alike), and damping over it [s]."""


def move(scenes: Sequence[Scene], frames: int, device: str = "cpu", seconds: float = 0.5) -> list[list[np.ndarray]]:
    """Simulate scenes of plants; return each scene's stalks: their joints from foot to blossom (T, LINKS + 1, 3).

    ``seconds`` is how long the clip lasts in the lengths of `visviva.data.scenes.wind`, those of a clip of 0.5 s.
    """
    things = [thing for scene in scenes for thing in scene.soft]
    winds = np.array([scene.wind.velocity if scene.wind else np.zeros(3) for scene in scenes for _ in scene.soft])
    record = _simulate(things, winds, frames, device, seconds)
    place, found = iter(range(len(things))), []
    for scene in scenes:
        found.append([record[:, next(place)] for _ in scene.soft])
    return found


def blossom(thing: Soft) -> float:
    """Return the mass of a plant's blossom [kg]."""
    return BLOSSOM * (thing.size[1] / 0.15) ** 2


def rigidity(thing: Soft) -> float:
    """Return the bending stiffness of a stalk [N m^2]."""
    return RIGIDITY * (thing.size[0] / 1.1) ** 2 * blossom(thing) / BLOSSOM


def _build(things: Sequence[Soft], device: str) -> newton.Model:
    import newton
    import warp as wp

    builder = newton.ModelBuilder(up_axis=newton.Axis.Z, gravity=(0.0, 0.0, -GRAVITY))
    newton.solvers.SolverMuJoCo.register_custom_attributes(builder)
    bare = newton.ModelBuilder.ShapeConfig(density=0.0, has_shape_collision=False, has_particle_collision=False)
    for thing in things:
        builder.begin_world()
        h = thing.size[0] / LINKS
        joints, parent = [], -1
        for i in range(LINKS):
            mass = LINE * h + (blossom(thing) if i == LINKS - 1 else 0.0)
            centre = (LINE * h * h / 2 + (mass - LINE * h) * h) / mass
            around = LINE * h * ((h / 2 - centre) ** 2 + h * h / 12) + (mass - LINE * h) * (h - centre) ** 2
            inertia = wp.mat33(np.diag([around, around, 0.01 * around + 1e-7]).astype(np.float32))
            link = builder.add_link(mass=mass, com=wp.vec3(0.0, 0.0, centre), inertia=inertia, lock_inertia=True)
            builder.add_shape_sphere(link, radius=0.01, cfg=bare)
            stiff = rigidity(thing) / h * (2.0 if i == 0 else 1.0)
            at = wp.vec3(*thing.root) if i == 0 else wp.vec3(0.0, 0.0, h)
            joints.append(
                builder.add_joint_revolute(
                    parent, link, parent_xform=wp.transform(at, wp.quat_identity()), axis=newton.Axis.Y, target_q=0.0,
                    target_ke=stiff, target_kd=DAMPING * stiff, armature=0.0, friction=0.0,
                    actuator_mode=newton.JointTargetMode.POSITION_VELOCITY,
                )
            )  # fmt: skip
            parent = link
        builder.add_articulation(joints)
        builder.end_world()
    return builder.finalize(device=device)


def _simulate(things: Sequence[Soft], winds: np.ndarray, frames: int, device: str, seconds: float) -> np.ndarray:
    """Return the joints (T, N, LINKS + 1, 3) of stalks that stand straight when the wind sets in."""
    import newton

    model = _build(things, device)
    solver = newton.solvers.SolverMuJoCo(
        model, integrator="implicitfast", disable_contacts=True, njmax=8, nconmax=1, iterations=4
    )
    now, later, control = model.state(), model.state(), model.control()
    newton.eval_fk(model, now.joint_q, now.joint_qd, now)
    count = max(1, math.ceil(seconds / (frames - 1) / STEP))
    length = np.array([thing.size[0] / LINKS for thing in things])[:, None]
    masses = np.array([blossom(thing) for thing in things])
    record = [_joints(now, length)]
    for k in range((frames - 1) * count):
        now.body_f.assign(_forces(now, winds, length, masses).reshape(-1, 6))
        solver.step(now, later, control, None, seconds / (frames - 1) / count)
        now, later = later, now
        if (k + 1) % count == 0:
            record.append(_joints(now, length))
    return np.stack(record)


def _frame(state: newton.State, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the feet (N, L, 3) and directions (N, L, 3) of the pieces."""
    pose = state.body_q.numpy().reshape(count, LINKS, 7).astype(np.float64)
    x, y, z, w = np.moveaxis(pose[..., 3:], -1, 0)
    return pose[..., :3], np.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], -1)


def _joints(state: newton.State, length: np.ndarray) -> np.ndarray:
    foot, along = _frame(state, len(length))
    return np.concatenate([foot, foot[:, -1:] + length[..., None] * along[:, -1:]], 1)


def _forces(state: newton.State, winds: np.ndarray, length: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """Force and torque about the centre of mass (N, L, 6) that the wind puts on pieces and blossoms, in the world."""
    _, along = _frame(state, len(length))
    speed = state.body_qd.numpy().reshape(len(length), LINKS, 6).astype(np.float64)
    light = LINE * length
    heavy = np.zeros_like(light + np.zeros(LINKS))
    heavy[:, -1] = masses
    centre = (light * length / 2 + heavy * length) / (light + heavy)
    out = np.zeros((len(length), LINKS, 6), np.float32)
    for offset, mass, tangent in ((length / 2, light + 0 * heavy, TANGENT), (length + 0 * heavy, heavy, 1.0)):
        arm = (offset - centre)[..., None] * along
        u = winds[:, None] - (speed[..., :3] + np.cross(speed[..., 3:], arm))
        lengthwise = (u * along).sum(-1, keepdims=True) * along
        pull = (RATIO["plant"] * GRAVITY / FULL * mass)[..., None] * (u - lengthwise + tangent * lengthwise)
        out[..., :3] += pull
        out[..., 3:] += np.cross(arm, pull)
    return out
