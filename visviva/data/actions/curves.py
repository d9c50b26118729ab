"""Curves through keys: quintic pieces that meet with equal position, speed and acceleration (C2)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def quintic(
    times: Float[Tensor, " T"],
    at: Float[Tensor, "*batch K"],
    place: Float[Tensor, "*batch K"],
    speed: Float[Tensor, "*batch K"] | None = None,
    acceleration: Float[Tensor, "*batch K"] | None = None,
) -> Float[Tensor, "*batch T"]:
    """Return the curve through keys, at rest in each key unless told otherwise; held before the first and after the last.

    Between two keys it is the polynomial of degree five with the keys' place, speed and acceleration: between keys at rest the
    minimum-jerk curve ``10 s^3 - 15 s^4 + 6 s^5`` (Flash and Hogan 1985).

    Args:
        times: when it is wanted [s].
        at: times of the keys, ascending along the last axis [s].
        place, speed, acceleration: in the keys [x, x/s, x/s^2].

    Example::

        quintic(torch.tensor([0.5]), torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 2.0]]))  # 1.0
    """
    at, place = torch.broadcast_tensors(at, place)
    still = torch.zeros_like(place)
    wanted = times.expand(*at.shape[:-1], -1).contiguous()
    after = torch.searchsorted(at.contiguous(), wanted, right=True).clamp(1, at.shape[-1] - 1)
    t0, t1 = at.gather(-1, after - 1), at.gather(-1, after)
    h = (t1 - t0).clamp(min=1e-9)
    s = ((wanted - t0) / h).clamp(0, 1)
    ends = [still if x is None else x.expand_as(place) for x in (place, speed, acceleration)]
    (p0, p1), (v0, v1), (a0, a1) = ((x.gather(-1, after - 1), x.gather(-1, after)) for x in ends)
    s2, s3 = s * s, s * s * s
    s4, s5 = s3 * s, s3 * s2
    rise = 10 * s3 - 15 * s4 + 6 * s5
    found = p0 + (p1 - p0) * rise
    found = found + h * (v0 * (s - 6 * s3 + 8 * s4 - 3 * s5) + v1 * (-4 * s3 + 7 * s4 - 3 * s5))
    return found + h * h / 2 * (a0 * (s2 - 3 * s3 + 3 * s4 - s5) + a1 * (s3 - 2 * s4 + s5))


def keyed(
    times: Float[Tensor, " T"],
    start: Float[Tensor, " B"],
    every: Float[Tensor, " B"],
    keys: Sequence[tuple[Tensor | float, ...]],
) -> Float[Tensor, "B T"]:
    """Return a curve whose keys come again every so often, from ``start`` on.

    Args:
        start: of the first event [s].
        every: from one event to the next, longer than an event [s].
        keys: of one event, each its time after the start [s], its value, and, where it is not at rest there, speed and
            acceleration; numbers or (B,).
    """
    count = max(1, math.ceil(float(((times[-1] - start) / every).max())))
    columns = [
        torch.stack([torch.as_tensor(key[part] if part < len(key) else 0.0).to(start).expand_as(start) for key in keys], -1)
        for part in range(4)
    ]
    begin = start[:, None] + every[:, None] * torch.arange(count, dtype=start.dtype)
    at = (begin[..., None] + columns[0][:, None]).flatten(1)
    return quintic(times, at, *(column.repeat(1, count) for column in columns[1:]))


def second(values: Float[Tensor, "B T *n"], dt: float) -> Float[Tensor, "B T *n"]:
    """Return second differences over ``dt^2``, those of the ends repeated."""
    inner = values.diff(n=2, dim=1) / dt**2
    return torch.cat([inner[:, :1], inner, inner[:, -1:]], 1)


def first(values: Float[Tensor, "B T *n"], dt: float) -> Float[Tensor, "B T *n"]:
    """Return central differences over time, those of the ends repeated."""
    inner = (values[:, 2:] - values[:, :-2]) / (2 * dt)
    return torch.cat([inner[:, :1], inner, inner[:, -1:]], 1)
