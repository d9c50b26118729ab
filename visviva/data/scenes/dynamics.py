"""Rigid-body motion of a batch of scenes with Newton's MuJoCo solver, all worlds stepped together.

Free flight is integrated with RK4, which is exact for a constant acceleration. On a ramp the contact is soft (MuJoCo's
constraint model, elliptic friction cone) and a fast box hops by micrometres: in that model the normal force grows with
the slip speed. Small steps keep the hops small, and before the clip the box settles into its contact while place and
speed along the slope are held, so that no normal speed is left that would turn into an error of mu times it along the
slope. Bodies start without spin and turn as the solver gives it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from visviva.data.scenes.scene import Scene

if TYPE_CHECKING:
    import newton

CONTACT_STEP = 1.0 / 2048.0
SETTLE_PAIRS = 96
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
    stepper = _Slide(scenes, fps, model) if scenes[0].ramp is not None else _Flight(scenes, fps, model)
    record = [stepper.read()]
    for _ in range(frames - 1):
        stepper.advance()
        record.append(stepper.read())
    poses, speeds = (np.stack(part, axis=1) for part in zip(*record, strict=True))
    return Motion(poses[..., :3].copy(), speeds[..., :3].copy(), poses[..., [6, 3, 4, 5]].copy(), speeds[..., 3:].copy())


class _Flight:
    """Bodies that touch nothing: one RK4 step per frame."""

    def __init__(self, scenes: Sequence[Scene], fps: float, model: newton.Model) -> None:
        import newton

        self.solver = newton.solvers.SolverMuJoCo(model, integrator="rk4", disable_contacts=True, njmax=1, nconmax=1)
        self.worlds, self.step = len(scenes), 1.0 / fps
        self.now, self.later = _start(scenes, model)

    def advance(self) -> None:
        self.solver.step(self.now, self.later, None, None, self.step)
        self.now, self.later = self.later, self.now

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        poses = self.now.body_q.numpy().reshape(self.worlds, -1, 7).copy()
        return poses, self.now.body_qd.numpy().reshape(self.worlds, -1, 6).copy()


class _Slide(_Flight):
    """Boxes on ramps: pairs of small implicit steps, recorded once as a graph and replayed."""

    def __init__(self, scenes: Sequence[Scene], fps: float, model: newton.Model) -> None:
        import newton
        import warp as wp
        from mujoco_warp import OverflowType

        options = {"cone": "elliptic", "njmax": 32, "nconmax": 8, "iterations": 50, "ls_iterations": 50}
        self.solver = newton.solvers.SolverMuJoCo(model, **options)
        # a line search that stops at its limit is no fault here (the accelerations are tested), and it prints at every step
        self.solver.mjw_model.opt.warn_overflow &= ~OverflowType.LS_ITERATIONS
        self.pairs = max(1, round(1.0 / fps / CONTACT_STEP / 2))
        self.worlds, self.step = len(scenes), 1.0 / fps / self.pairs / 2
        self.now, self.later = _start(scenes, model)
        self.pair()  # loads the kernels, so that the capture finds them
        with wp.ScopedCapture(device=model.device) as capture:
            self.pair()
        self.graph = capture.graph
        self.settle(scenes, model)

    def pair(self) -> None:
        self.solver.step(self.now, self.later, None, None, self.step)
        self.solver.step(self.later, self.now, None, None, self.step)

    def advance(self) -> None:
        import warp as wp

        for _ in range(self.pairs):
            wp.capture_launch(self.graph)

    def settle(self, scenes: Sequence[Scene], model: newton.Model) -> None:
        """Let each box sink into its contact while its place and speed along the slope are held, in the plane of motion."""
        import warp as wp

        first, _ = _start(scenes, model)
        place, speed = (x.numpy().reshape(self.worlds, -1).astype(np.float64) for x in (first.joint_q, first.joint_qd))
        normal = np.array([scene.ramp.normal for scene in scenes if scene.ramp])
        self.put(model, place, speed)
        for k in range(SETTLE_PAIRS):
            wp.capture_launch(self.graph)
            q, qd = (x.numpy().reshape(self.worlds, -1).astype(np.float64) for x in (self.now.joint_q, self.now.joint_qd))
            sink = ((q[:, :3] - place[:, :3]) * normal).sum(1, keepdims=True)
            away = (qd[:, :3] * normal).sum(1, keepdims=True) * (k + 1 < SETTLE_PAIRS)
            q[:, :3] = place[:, :3] + sink * normal
            q[:, [3, 5]] = place[:, [3, 5]]
            q[:, 3:] /= np.linalg.norm(q[:, 3:], axis=1, keepdims=True)
            spin = speed[:, 3:] + [[0.0, 1.0, 0.0]] * qd[:, 3:] * (k + 1 < SETTLE_PAIRS)
            self.put(model, q, np.concatenate([speed[:, :3] + away * normal, spin], axis=1))

    def put(self, model: newton.Model, q: np.ndarray, qd: np.ndarray) -> None:
        import newton

        self.now.joint_q.assign(q.astype(np.float32).reshape(-1))
        self.now.joint_qd.assign(qd.astype(np.float32).reshape(-1))
        newton.eval_fk(model, self.now.joint_q, self.now.joint_qd, self.now)


def _start(scenes: Sequence[Scene], model: newton.Model) -> tuple[newton.State, newton.State]:
    import newton

    now, later = model.state(), model.state()
    speeds = np.array([[(*b.velocity, 0.0, 0.0, 0.0) for b in s.bodies] for s in scenes], np.float32)
    now.joint_qd.assign(speeds.reshape(-1))
    newton.eval_fk(model, now.joint_q, now.joint_qd, now)
    return now, later
