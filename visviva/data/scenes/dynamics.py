"""Rigid-body motion of a batch of scenes with Newton's MuJoCo solver, all worlds stepped together.

Free flight is integrated with RK4, which is exact for a constant acceleration. On a ramp the contact is soft (MuJoCo's
constraint model): before the clip the box settles into its contact while it is held at its starting place and speed,
then it slides with small implicit steps. Bodies start without spin and turn as the solver gives it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from visviva.data.scenes.primitives import Scene

if TYPE_CHECKING:
    import newton

CONTACT_STEP = 1.0 / 1024.0
SETTLE_STEPS = 128
STATES = ("position", "velocity", "quaternion", "angular_velocity")


@dataclass(frozen=True)
class Motion:
    """States at the frame times, float32: ``position`` and ``velocity`` (B, T, N, 3) [m, m/s] of the centres of mass,
    ``quaternion`` (B, T, N, 4) as (w, x, y, z), ``angular_velocity`` (B, T, N, 3) [rad/s], world frame.
    """

    position: np.ndarray
    velocity: np.ndarray
    quaternion: np.ndarray
    angular_velocity: np.ndarray


def move(scenes: Sequence[Scene], frames: int, fps: float, model: newton.Model) -> Motion:
    """Simulate scenes of one layout for ``frames`` frames at ``fps`` on the model that `world.build` made of them."""
    import newton
    from newton.solvers import SolverMuJoCo

    ramp = scenes[0].ramp is not None
    if ramp:
        solver = SolverMuJoCo(model, cone="elliptic", njmax=32, nconmax=8, iterations=50, ls_iterations=50)
        steps = max(1, round(1.0 / fps / CONTACT_STEP))
    else:
        solver = SolverMuJoCo(model, integrator="rk4", disable_contacts=True, njmax=1, nconmax=1)
        steps = 1
    now, later, control = model.state(), model.state(), model.control()
    start = np.array([[(*b.velocity, 0.0, 0.0, 0.0) for b in s.bodies] for s in scenes], np.float32)
    now.joint_qd.assign(start.reshape(-1))
    newton.eval_fk(model, now.joint_q, now.joint_qd, now)
    if ramp:
        now, later = _settle(scenes, solver, now, later, control, start)
    record = [_read(now, len(scenes))]
    for _ in range(frames - 1):
        for _ in range(steps):
            solver.step(now, later, control, None, 1.0 / fps / steps)
            now, later = later, now
        record.append(_read(now, len(scenes)))
    poses, speeds = (np.stack(part, axis=1) for part in zip(*record, strict=True))
    return Motion(poses[..., :3].copy(), speeds[..., :3].copy(), poses[..., [6, 3, 4, 5]].copy(), speeds[..., 3:].copy())


def _read(state: newton.State, worlds: int) -> tuple[np.ndarray, np.ndarray]:
    poses = state.body_q.numpy().reshape(worlds, -1, 7).copy()
    return poses, state.body_qd.numpy().reshape(worlds, -1, 6).copy()


def _settle(scenes: Sequence[Scene], solver, now, later, control, start: np.ndarray) -> tuple:  # noqa: ANN001
    """Let each box sink into its contact while position along the slope, and speed, are held; planar by construction."""
    import newton

    model = solver.model
    first = now.joint_q.numpy().reshape(len(scenes), 7).copy()
    normal = np.array([[s.ramp.side * np.sin(s.ramp.slope), 0.0, np.cos(s.ramp.slope)] for s in scenes])
    for step in range(SETTLE_STEPS):
        solver.step(now, later, control, None, CONTACT_STEP)
        now, later = later, now
        q, qd = now.joint_q.numpy().reshape(-1, 7).copy(), now.joint_qd.numpy().reshape(-1, 6).copy()
        sink = ((q[:, :3] - first[:, :3]) * normal).sum(1, keepdims=True)
        away = (qd[:, :3] * normal).sum(1, keepdims=True)
        q[:, :3] = first[:, :3] + sink * normal
        qd[:, :3] = start[:, 0, :3] + away * normal
        q[:, [3, 5]] = first[:, [3, 5]]
        q[:, 3:] /= np.linalg.norm(q[:, 3:], axis=1, keepdims=True)
        qd[:, [3, 5]] = 0.0
        if step == SETTLE_STEPS - 1:  # what normal or turning speed is left would become an error of mu times it along the slope
            qd = start[:, 0].copy()
        now.joint_q.assign(q.astype(np.float32).reshape(-1))
        now.joint_qd.assign(qd.astype(np.float32).reshape(-1))
        newton.eval_fk(model, now.joint_q, now.joint_qd, now)
    return now, later
