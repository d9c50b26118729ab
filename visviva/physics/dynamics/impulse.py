"""Impulse and momentum: the weak form of a body's equation of motion, without accelerations.

Over a window, what acts from outside gives a body its change of momentum, whatever its joints do (card: motion, section 13,
point 2; the discrete form is ours):

    d/dt (m c') = m g + sum_i f_i,    d/dt L = sum_i [t_i + (x_i - c) x f_i]

with the centre of mass c, the angular momentum L about it, and wrenches (f_i, t_i) at the links' origins x_i. Multiplied by a
test function phi that is 0 at the window's ends and summed by parts, derivatives leave the momentum p = (m c', L):

    r = -sum_k (phi_{k+1} - phi_k) p_{k+1/2} - dt sum_k phi_k F_k

p is that of the steps between frames: m c' from the centres of two frames, exact in free flight however the joints move, and L
of the mean configuration that turns into the next one in dt. r is 0 up to dt^2.

With phi = 1 inside (``box``), r is the momentum of the last step less that of the first, less the impulse. The ``bump``
``(h^2 - k^2) ((h+1)^2 - k^2)``, k counted from the middle of 2 h + 1 frames, is the best one for independent errors of the
frames: for forces, r is exactly m times the acceleration of the parabola fitted to c, of standard deviation
``sqrt(720 / (N (N^2-1) (N^2-4))) sigma / dt^2``, N = 2 h + 1; the box's is ``2 sigma / ((N-2) dt^2)``, N > 3. With N = 3 both
are the strong form, a second difference.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError
from visviva.physics.bodies.body import Body
from visviva.physics.dynamics.derivatives import check_window, differences
from visviva.physics.dynamics.inverse import check_wrench
from visviva.physics.dynamics.mass import momentum
from visviva.physics.dynamics.motion import Pose, check_configuration, cross, integrate, move, place

WEIGHTS = ("bump", "box")
"""Test functions."""


def impulse_residual(
    body: Body,
    q: Float[Tensor, "*batch T nq"],
    fps: float,
    window: int,
    wrench: Float[Tensor, "*batch2 n 6"] | None = None,
    weight: str = "bump",
) -> Float[Tensor, "*batch3 M 6"]:
    """Return what gravity and known wrenches leave unexplained of the change of momentum in every window of frames.

    Args:
        body: the tree. What carries a body without a free root counts as unknown; an armature's momentum is left out.
        q: configurations at evenly spaced instants.
        fps: frames per second.
        window: frames, odd, 3 or more; ``M = T - window + 1``. Boxes' impulses add up
            if every ``window - 2``-th is taken.
        wrench: what acts on the links at each frame beside gravity, (*batch, T, n, 6) or one for all, as `inverse_dynamics`
            takes it (`point_wrenches` makes it of forces at points); of a quickly changing one the mean over 1 / fps.
            The first and last frame of a window do not count.
        weight: the test function, ``bump`` or ``box``, of mean 1 over the window's inner frames.

    Returns:
        Impulse [N s] and angular impulse about the centre of mass [N m s], in the world. Divided by ``(window - 2) / fps`` they
        are the mean unexplained force and moment: f for a constant f. Differentiable.

    Raises:
        InputError: an even or too short window, fewer frames than that, a rate that is not positive, an unknown test function,
            wrenches of another shape.

    Example::

        left = impulse_residual(body, q, fps=30, window=15, wrench=point_wrenches(body, place(body, q), soles, force))
        (left[..., :3].norm(dim=-1) * 30 / 13) / (9.81 * body.total_mass)  # body weights
    """
    check_configuration(body, q)
    check_window(q.shape[-2], fps, window)
    wrench = check_wrench(body, wrench, q.shape[:-1])
    phi = weights(window, weight).to(q)
    pose = place(body, q)
    centre = pose.centre_of_mass(body)
    steps = momenta(body, q, centre, fps).unfold(-2, window - 1, 1)
    outside = total_wrench(body, pose, centre, wrench).unfold(-2, window, 1)
    return steps @ (phi[:-1] - phi[1:]) - outside @ phi / fps


def momenta(body: Body, q: Tensor, centre: Tensor, fps: float) -> Float[Tensor, "*batch t 6"]:
    """Return linear and angular momentum of the steps between frames, t = T - 1 [kg m/s, kg m^2/s]."""
    step = differences(body, q[..., :-1, :], q[..., 1:, :])
    middle = integrate(body, q[..., :-1, :], step, 0.5)
    _, angular = momentum(body, move(body, middle, step * fps))
    return torch.cat([body.mass.sum() * fps * (centre[..., 1:, :] - centre[..., :-1, :]), angular], -1)


def total_wrench(body: Body, pose: Pose, centre: Tensor, wrench: Tensor | None) -> Float[Tensor, "*batch T 6"]:
    """Return force, gravity's included, and moment about the centre of mass of all that acts from outside [N, N m]."""
    weight = (body.mass.sum() * body.down).expand_as(centre)
    if wrench is None:
        return torch.cat([weight, torch.zeros_like(weight)], -1)
    force, moment = wrench[..., :3], wrench[..., 3:]
    moment = moment + cross(pose.position - centre[..., None, :], force)
    return torch.cat(torch.broadcast_tensors(weight + force.sum(-2), moment.sum(-2)), -1)


def weights(window: int, weight: str) -> Float[Tensor, " window"]:
    """Return a test function at a window's frames: 0 at both ends, of mean 1 between them, float64."""
    if weight not in WEIGHTS:
        raise InputError(f"no test function {weight!r}; there are {', '.join(WEIGHTS)}")
    half = window // 2
    square = (torch.arange(window, dtype=torch.float64) - half).square()
    phi = (half**2 - square) * ((half + 1) ** 2 - square) if weight == "bump" else (square < half**2).double()
    return phi * (window - 2) / phi.sum()
