"""Velocities and accelerations of sampled configurations: fits over windows of frames, on the rotations' own manifold.

In a window of N frames about frame t, every joint's rotation is ``R_t exp(phi_k)`` with ``phi_k = log(R_t^T R_{t+k})``, the
integral of the angular velocity in the link's frame. A parabola ``c0 + c1 k dt + c2 (k dt)^2`` is fitted to phi, to positions,
angles and displacements: the velocity is c1, the acceleration 2 c2 (that of a rotation to first order in c0, the distance of
frame t from the fit). With N = 3 these are the central differences ``(w+ + w-) / 2`` and ``(w+ - w-) / dt`` (card: motion).

The standard deviation of an acceleration from positions with independent errors sigma is ``sqrt(720 / (N (N^2-1) (N^2-4)))
sigma / dt^2``: sqrt(6) sigma / dt^2 for three frames, and eighty times less for fifteen. Its bias grows with (N dt)^2 and the
fourth derivative: choose the longest window over which accelerations hardly change.
"""

from __future__ import annotations

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError
from visviva.physics.bodies.body import JOINTS, Body
from visviva.physics.dynamics.motion import check_configuration
from visviva.physics.kinematics import projection


def differentiate(
    body: Body, q: Float[Tensor, "*batch T nq"], fps: float, window: int = 3
) -> tuple[Float[Tensor, "*batch M nq"], Float[Tensor, "*batch M nv"], Float[Tensor, "*batch M nv"]]:
    """Return configuration, velocity and acceleration at the ``M = T - window + 1`` frames that have a whole window.

    Args:
        body: the tree.
        q: configurations at evenly spaced instants.
        fps: frames per second.
        window: frames of a fit, odd, 3 or more.

    Returns:
        The given configurations of frames ``window // 2`` to ``T - window // 2 - 1``, with velocities and accelerations laid
        out as `visviva.physics.bodies.body` says. Differentiable.

    Raises:
        InputError: an even or too short window, fewer frames than that, a rate that is not positive.

    Example::

        q, v, a = differentiate(body, q, fps=30, window=9)
        tau = body.inverse_dynamics(q, v, a)
    """
    check_configuration(body, q)
    frames = q.shape[-2]
    check_window(frames, fps, window)
    half = window // 2
    middle = q[..., half : frames - half, :]
    apart = differences(body, middle[..., None, :], q.unfold(-2, window, 1).movedim(-1, -2))
    weights = torch.as_tensor(projection(window, 2)[0], dtype=q.dtype, device=q.device)
    _, v, a = torch.einsum("cw,...mwd->c...md", weights * q.new_tensor([1.0, fps, fps**2])[:, None], apart)
    return middle, v, a


def check_window(frames: int, fps: float, window: int) -> None:
    """Raise an `InputError` for an even or too short window, fewer frames than that, a rate that is not positive."""
    if window < 3 or window % 2 == 0:
        raise InputError(f"a window of {window} frames; it must be odd, and 3 or more")
    if frames < window:
        raise InputError(f"{frames} frames are fewer than the window of {window}; give more frames or a shorter window")
    if not 0 < fps < float("inf"):
        raise InputError(f"{fps} frames per second; the rate must be positive")


def differences(body: Body, q: Float[Tensor, "*batch nq"], other: Float[Tensor, "*batch2 nq"]) -> Float[Tensor, "*batch3 nv"]:
    """Return the velocity that leads from one configuration to the other in a unit of time: the inverse of ``integrate``.

    Positions, angles and displacements are subtracted; rotations give the vector of the turn in the link's frame.
    """
    parts, at = [], 0
    for joint in body.joints:
        one, two = (x[..., at : at + JOINTS[joint][0]] for x in (q, other))
        if joint in ("free", "ball"):
            parts += [two[..., :-4] - one[..., :-4], _turn(one[..., -4:], two[..., -4:])]
        else:
            parts.append(two - one)
        at += JOINTS[joint][0]
    return torch.cat(parts, -1)


def _turn(one: Tensor, other: Tensor) -> Tensor:
    first, second = (roma.quat_wxyz_to_xyzw(x / x.norm(dim=-1, keepdim=True)) for x in torch.broadcast_tensors(one, other))
    return roma.unitquat_to_rotvec(roma.quat_product(roma.quat_conjugation(first), second))
