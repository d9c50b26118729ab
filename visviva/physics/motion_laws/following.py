"""How far a motion moves for its accelerations to change: linear least squares in closed form.

    u = argmin |u|^2 + weight TIME^4 |D u - change|^2 = (1 + w D'D)^-1 w D' change

with D second differences over squared frame times, and the first and last change that fits know standing for those before and
after. (With the fits themselves for D, an oscillation that they do not see would cost nothing.) Nothing moves where nothing is
to change, and slow changes, which take far moves, are left undone.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError
from visviva.physics.motion_laws.body import frames_there, window_of

TIME = 0.1
"""Unit of time [s]: with weight 1 what is inconsistent faster than 1 / (2 pi TIME) = 1.6 Hz is mostly mended, slower is not."""


def followed(
    change: Float[Tensor, "B F J 3"], frames: int, fps: float, lengths: Tensor, weight: float = 1.0
) -> Float[Tensor, "B T J 3"]:
    """Return how far the joints of motions of T frames move [m]; 0 beyond the motions' ends.

    Args:
        change: of the accelerations at the middle frames of the fits' windows (`window_of`) [m/s^2].
        frames: T; ``fps``: frames per second; ``lengths``: of the motions [frames], (B,).
        weight: of accelerations against places; 0: nothing moves.

    Raises:
        InputError: a weight that is negative or not finite.

    Example::

        joints + followed(law.allowed(joints, a, fps, lengths) - a, joints.shape[1], fps, lengths)
    """
    if not 0 <= weight < float("inf"):
        raise InputError(f"a weight of accelerations of {weight}; give 0 or more")
    window = window_of(fps)
    rows = torch.eye(frames).to(change).diff(n=2, dim=0) * (fps * TIME) ** 2
    counted = frames_there(lengths, frames, 3)[..., None]
    nearest = (torch.arange(1, frames - 1, device=change.device) - window // 2).clamp(min=0)
    nearest = torch.minimum(nearest, (lengths - window).clamp(min=0)[:, None])[..., None]
    aim = TIME**2 * change.flatten(2).gather(1, nearest.expand(-1, -1, change[0, 0].numel()))
    pull = weight * (rows.T @ torch.where(counted, aim, 0.0))
    stiff = torch.eye(frames).to(change) + weight * (rows.T @ (rows * counted))
    return torch.linalg.solve(stiff, pull).unflatten(2, change.shape[2:])
