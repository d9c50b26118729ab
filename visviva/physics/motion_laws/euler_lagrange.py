"""Euler-Lagrange: the wrench that the motion needs from outside, less what a ground under the standing feet can give.

The root rows of the equations of motion, for a body of point masses (`visviva.physics.motion_laws.body`):

    F = sum m (a + g e_z),   M = sum m (r - c) x (a + g e_z)           about the centre of mass c
    left = (F, M / R) - sum_p (f_p, (x_p - c) x f_p / R)               f_p in friction cones at heel, ankle and toe

with accelerations from parabola fits over a quarter of a second and R the radius of gyration. What is left, over body weight,
is the violation: 0 for what a ground can carry, 1 for a body at rest in mid-air. It is `visviva.eval.motion.dynamics` without
rotations of links, batched over bodies of any size, and differentiable (which feet stand is not).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.physics.dynamics.ground import contact_forces
from visviva.physics.laws.law import Residual, unknown
from visviva.physics.motion_laws.body import FEET, GRAVITY, fitted, frames_there, held, point_masses, standing, window_of

HEEL = 0.3
"""How far the heel is behind the ankle, and the toes' tip before the toe joint, of the distance between the two."""


@dataclass(frozen=True)
class EulerLagrange:
    """What no ground explains, mean over windows [body weights].

    Attributes:
        friction: of the ground; ``steps``: of the solver of the ground's forces.
        floor: height [m].

    Example::

        EulerLagrange()(joints, 20.0, torch.tensor([60])).value  # (B,)
    """

    friction: float = 0.8
    steps: int = 60
    floor: float = 0.0
    name: ClassVar[str] = "euler_lagrange"
    trivial: ClassVar[bool] = True
    anchor: ClassVar[bool] = False

    def __call__(self, joints: Float[Tensor, "B T 22 3"], fps: float, lengths: Tensor) -> Residual:
        """Return the residual of each motion."""
        window = window_of(fps)
        counted = frames_there(lengths, joints.shape[1], window)
        size = (self.left(held(joints, lengths), fps, lengths).square().sum(-1) + 1e-12).sqrt()
        value = (size * counted).sum(1) / counted.sum(1).clamp(min=1)
        return Residual(value, counted.any(1), unknown(value))

    def left(self, joints: Float[Tensor, "B T 22 3"], fps: float, lengths: Tensor) -> Float[Tensor, "B F 6"]:
        """Return force and moment that no ground can give [body weights], of the middle frame of each window."""
        return self.unexplained(joints, fitted(point_masses(joints)[0], fps, window_of(fps))[2], fps, lengths)

    def unexplained(
        self, joints: Float[Tensor, "B T 22 3"], a: Float[Tensor, "B F S 3"], fps: float, lengths: Tensor
    ) -> Float[Tensor, "B F 6"]:
        """Return what no ground can give [body weights] if the point masses accelerate with a [m/s^2] at the middle frames."""
        window = window_of(fps)
        r, mass = _masses_at(joints, fps, window)
        pull = (a + a.new_tensor([0.0, 0.0, GRAVITY])) * (mass / GRAVITY)[:, None]
        centre = (r * mass[:, None]).sum(-2, keepdim=True)
        radius = ((r - centre).square().sum(-1) * mass).sum(-1).sqrt()[..., None]
        moment = torch.linalg.cross(r - centre, pull).sum(-2) / radius
        wanted = torch.cat((pull.sum(-2), moment), -1)
        arm, contact = self._points(joints, fps, window, frames_there(lengths, joints.shape[1]))
        arm = (arm - centre) / radius[..., None]
        force = contact_forces(wanted, arm, contact, a.new_tensor([0.0, 0.0, 1.0]), self.friction, self.steps)
        return wanted - torch.cat((force.sum(-2), torch.linalg.cross(arm, force).sum(-2)), -1)

    def allowed(
        self, joints: Float[Tensor, "B T 22 3"], a: Float[Tensor, "B F 22 3"], fps: float, lengths: Tensor
    ) -> Float[Tensor, "B F 22 3"]:
        """Return the accelerations that gravity and this ground can cause, nearest to those given (Gauss's least constraint).

        Muscles may move limbs against each other as given; only the six root rows must agree, so that of all point masses'
        accelerations that need the ground's wrench the nearest, weighed by mass, differ by a rigid one:
        ``a - F / m - (I^-1 M) x (x - c)`` with F and M what is left.

        Args:
            joints: z up [m].
            a: wanted accelerations of the joints at the middle frames of the windows of `window_of` [m/s^2].
            fps: frames per second; ``lengths``: of the motions [frames], (B,).

        Example::

            law.allowed(joints, fitted(joints, fps, window_of(fps))[2], fps, lengths)  # standing: 0; in mid-air: -g
        """
        joints = held(joints, lengths)
        left = GRAVITY * self.unexplained(joints, point_masses(a)[0], fps, lengths)
        r, mass = _masses_at(joints, fps, window_of(fps))
        centre = (r * mass[:, None]).sum(-2, keepdim=True)
        r = r - centre
        spread = torch.einsum("bfsi,bfsj,s->bfij", r, r, mass)
        total = spread.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
        turn = torch.linalg.solve(total * torch.eye(3).to(a) - spread, total.sqrt()[..., 0] * left[..., 3:])
        arm = fitted(joints, fps, window_of(fps))[0] - centre
        return a - left[..., None, :3] - torch.linalg.cross(turn[..., None, :].expand_as(arm), arm)

    def _points(self, joints: Tensor, fps: float, window: int, there: Tensor) -> tuple[Tensor, Tensor]:
        """Heel, ankle, toe and tip of each foot on the floor (B, F, 8, 3), and which of them may carry (B, F, 8)."""
        half = window // 2
        feet = joints[:, half : joints.shape[1] - half, FEET]
        ankle, toe = feet[:, :, 0::2], feet[:, :, 1::2]
        along = toe - ankle
        points = torch.cat((ankle - HEEL * along, ankle, toe, toe + HEEL * along), 2)
        points = torch.cat((points[..., :2], torch.full_like(points[..., :1], self.floor)), -1)
        stands = standing(joints, fps, self.floor, there=there)[:, half : joints.shape[1] - half].unflatten(-1, (2, 2)).any(-1)
        return points, stands.repeat(1, 1, 4)


def _masses_at(joints: Tensor, fps: float, window: int) -> tuple[Tensor, Tensor]:
    """Point masses at the middle frames (B, F, S, 3), and their shares (S,)."""
    places, mass = point_masses(joints)
    return fitted(places, fps, window)[0], mass
