"""Bidirectional central-difference updating (FinePhys, arXiv 2505.13437, figures 2 and 3: primary).

    q_{t+1} = q''_t dt^2 + 2 q_t - q_{t-1}        forward, from the past
    q_{t-1} = q''_t dt^2 + 2 q_t - q_{t+1}        inverse, from the future

(the forward formula printed inside figure 3 has a slip of the pen, ``- q_{t+1}``). Both estimates of a frame are averaged
equally, as published. `bidirectional` steps once from what is there (teacher-forced: of independent errors sigma the mean of
both has the variance 2.5 sigma^2); `rollouts` goes on from its own steps, where equal averaging is poor near the ends and a
linear cross-fade (ours) halves the error.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError


def step(
    q: Float[Tensor, "*batch D"], other: Float[Tensor, "*batch D"], acceleration: Float[Tensor, "*batch D"], dt: float
) -> Float[Tensor, "*batch D"]:
    """Return the frame on the far side of q from ``other``: forward with the frame before, inverse with the frame after."""
    return acceleration * dt**2 + 2 * q - other


def bidirectional(
    forward: Float[Tensor, "*batch T D"],
    forward_acceleration: Float[Tensor, "*batch T D"],
    inverse: Float[Tensor, "*batch T D"],
    inverse_acceleration: Float[Tensor, "*batch T D"],
    dt: float,
) -> Float[Tensor, "*batch T D"]:
    """Return one step from both sides for every frame, averaged equally; the first and last two frames have one side only.

    Args:
        forward, inverse: encodings q_t of both directions.
        forward_acceleration, inverse_acceleration: q''_t of both.
        dt: time between frames [s].

    Raises:
        InputError: fewer than 5 frames.
    """
    if forward.shape[-2] < 5:
        raise InputError(f"{forward.shape[-2]} frames; updating from both sides needs 5 or more")
    ahead = step(forward[..., 1:-1, :], forward[..., :-2, :], forward_acceleration[..., 1:-1, :], dt)
    back = step(inverse[..., 1:-1, :], inverse[..., 2:, :], inverse_acceleration[..., 1:-1, :], dt)
    both = (ahead[..., :-2, :] + back[..., 2:, :]) / 2
    return torch.cat([back[..., :2, :], both, ahead[..., -2:, :]], -2)


def rollouts(
    q: Float[Tensor, "*batch T D"], acceleration: Float[Tensor, "*batch T D"], dt: float, average: str = "equal"
) -> Float[Tensor, "*batch T D"]:
    """Return the mean of a forward rollout from the first two frames and an inverse one from the last two.

    Args:
        q: frames, of which the first and last two are used; ``acceleration``: of every frame (the ends are not used).
        dt: time between frames [s].
        average: ``equal`` (published) or ``linear``: each side weighs 1 at its own end and 0 at the other.

    Raises:
        InputError: fewer than 3 frames, or an unknown average.
    """
    frames = q.shape[-2]
    if frames < 3 or average not in ("equal", "linear"):
        raise InputError(f"{frames} frames, average {average!r}; rollouts need 3 frames or more, 'equal' or 'linear'")
    ahead, back = _rolled(q, acceleration, dt), _rolled(q.flip(-2), acceleration.flip(-2), dt).flip(-2)
    share = torch.linspace(1, 0, frames).to(q)[:, None] if average == "linear" else 0.5
    return share * ahead + (1 - share) * back


def _rolled(q: Tensor, acceleration: Tensor, dt: float) -> Tensor:
    """Central differences as two running sums."""
    first = q[..., 1:2, :] - q[..., :1, :]
    steps = torch.cat([first, first + (acceleration[..., 1:-1, :] * dt**2).cumsum(-2)], -2)
    return torch.cat([q[..., :1, :], q[..., :1, :] + steps.cumsum(-2)], -2)
