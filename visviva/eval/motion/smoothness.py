"""Speed, acceleration, jerk, and bones that keep their length. "Smoother" is not "better": compare with recorded motion.

A frozen motion has no jerk: none of these is an anchor by itself. Differences amplify noise: 5 mm at 30 frames/s are 600 m/s^3.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError

SHORTEST = 31
"""Frames that log dimensionless jerk needs to mean something: a minimum-jerk reach of so many is within 5 % of -ln 720."""


def derivative(positions: Float[Tensor, "*batch T J 3"], fps: float, order: int) -> Float[Tensor, "*batch F J 3"]:
    """Return the ``order``-th forward difference times ``fps^order`` [m/s^order], F = T - order frames."""
    if positions.shape[-3] <= order:
        raise InputError(f"a derivative of order {order} needs {order + 1} frames or more, not {positions.shape[-3]}")
    return positions.diff(n=order, dim=-3) * fps**order


def mean_size(positions: Float[Tensor, "*batch T J 3"], fps: float, order: int) -> Float[Tensor, "*batch"]:
    """Return the mean over frames and joints of |d^k x / dt^k|: speed (1), acceleration (2), jerk (3) [m/s^k]."""
    return derivative(positions, fps, order).norm(dim=-1).mean((-2, -1))


def log_dimensionless_jerk(positions: Float[Tensor, "*batch T J 3"], fps: float) -> Float[Tensor, "*batch J"]:
    """Return ``-ln(T^5 / L^2 int |jerk|^2 dt)`` per joint, L its path; higher is smoother.

    Does not change with size or duration. What begins and ends at rest has -ln 720 = -6.58 at most, the minimum-jerk reach;
    what begins or ends moving may have more. Differences miss the ends, where a reach has the largest jerk: the same reach in 5
    frames gets -5.2, in 10 -5.6, in `SHORTEST` -6.25, in 77 it is within 2 %. `visviva.eval.motion.measure` gives no number for
    fewer than `SHORTEST` frames. -inf for a joint that does not move.
    """
    jerk = derivative(positions, fps, 3)
    length = positions.diff(dim=-3).norm(dim=-1).sum(-2)
    seconds = (positions.shape[-3] - 1) / fps
    return -(seconds**5 / length.square() * jerk.square().sum(-1).sum(-2) / fps).log().nan_to_num(nan=float("inf"))


def bone_change(positions: Float[Tensor, "*batch T J 3"], bones: Sequence[tuple[int, int]]) -> Float[Tensor, "*batch B"]:
    """Return how much each bone's length changes: standard deviation over mean, in percent; 0 for rigid bones.

    Bones of no length (below 1 mm) count 0.
    """
    if not bones:
        raise InputError("no bones: markers are not tied to each other")
    parents, children = (list(x) for x in zip(*bones, strict=True))
    length = (positions[..., children, :] - positions[..., parents, :]).norm(dim=-1)
    mean = length.mean(-2)
    return torch.where(mean > 1e-3, length.std(-2, correction=0) / mean.clamp(min=1e-3), 0.0) * 100
