"""When feet stand and when the body flies: contact from height and speed, flight, and contact from measured forces."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

HEIGHT, SPEED = 0.05, 0.6


def contacts(
    feet: Float[Tensor, "*batch T F 3"], fps: float, *, height: float = HEIGHT, speed: float = SPEED
) -> Bool[Tensor, "*batch T F"]:
    """Return whether each foot joint stands: low and slow.

    Low: less than ``height`` [m] above the joint's own low (its 5 % quantile over time, so that ankles count as well as toes).
    Slow: the smaller of its speeds to the frame before and after below ``speed`` [m/s].
    """
    low = feet[..., 2] - feet[..., 2].quantile(0.05, dim=-2, keepdim=True) < height
    return low & (_pace(feet, fps) < speed)


def airborne(
    feet: Float[Tensor, "*batch T F 3"], fps: float, floor: Tensor | float = 0.0, height: float = HEIGHT, least: int = 3
) -> Bool[Tensor, "*batch T"]:
    """Return the frames in which all feet are more than ``height`` [m] above their own low for ``least`` frames or more.

    Feet that stay slow up there (below 0.3 m/s for 0.15 s, three times as long as at the top of a jump) stand on something:
    such frames, on a box or a stair, are no flight. Whether a flight obeys gravity is `flight_acceleration`'s question.
    """
    lows = feet[..., 2].quantile(0.05, dim=-2, keepdim=True)
    lows = torch.maximum(lows, torch.as_tensor(floor, dtype=feet.dtype, device=feet.device)[..., None, None].expand_as(lows))
    up = (feet[..., 2] - lows > height).all(-1)
    held = opened(_pace(feet, fps).amin(-1) < 0.3, max(2, round(0.15 * fps)))
    return opened(up & ~held, least)


def _pace(feet: Tensor, fps: float) -> Tensor:
    """Return the smaller of each joint's speeds to the frame before and after, (..., T, F) [m/s]."""
    pace = feet.diff(dim=-3).norm(dim=-1) * fps
    return torch.minimum(torch.cat((pace[..., :1, :], pace), -2), torch.cat((pace, pace[..., -1:, :]), -2))


def opened(flags: Bool[Tensor, "*batch T"], least: int) -> Bool[Tensor, "*batch T"]:
    """Return the flags without runs shorter than ``least``."""
    frames = torch.arange(flags.shape[-1], device=flags.device)
    before = torch.where(flags, -1, frames).cummax(-1).values
    after = torch.where(flags, flags.shape[-1], frames).flip(-1).cummin(-1).values.flip(-1)
    return flags & (after - before - 1 >= least)


def runs(flags: Bool[Tensor, "T"]) -> list[tuple[int, int]]:
    """Return (first, one past the last) frame of each run of true flags."""
    padded = torch.nn.functional.pad(flags.to(torch.int8), (1, 1)).diff()
    starts, ends = (padded == 1).nonzero()[:, 0].tolist(), (padded == -1).nonzero()[:, 0].tolist()
    return list(zip(starts, ends, strict=True))


def flight_acceleration(height: Float[Tensor, "T"], fps: float, flags: Bool[Tensor, "T"], least: float = 0.15) -> float | None:
    """Return the vertical acceleration of the centre of mass in flight [m/s^2], -9.81 for a body that obeys gravity.

    A parabola is fitted to each run of ``flags`` of ``least`` seconds and five frames or more, without its first and last
    frame; the mean is weighted by duration to the fifth power over variance's law (sigma ~ N^-2.5). None without such a run.
    """
    total, weight = 0.0, 0.0
    for start, end in runs(flags):
        inner = height[start + 1 : end - 1].double()
        if end - start < least * fps or len(inner) < 5:
            continue
        t = (torch.arange(len(inner), dtype=torch.float64) - (len(inner) - 1) / 2) / fps
        basis = torch.stack((torch.ones_like(t), t, t * t), 1)
        a = 2 * float(torch.linalg.lstsq(basis, inner[:, None]).solution[2, 0])
        total, weight = total + a * len(inner) ** 5, weight + len(inner) ** 5
    return total / weight if weight else None


def no_flight(fps: float) -> str:
    """Return what is said where no flight is long enough: 0.15 s, and seven frames."""
    return f"no flight of {max(0.15, 7 / fps):.2g} s" + (f" (7 frames at {fps:.4g} frames/s)" if 7 / fps > 0.15 else "")


def flights(force: Float[Tensor, "S"], fps: float, threshold: float = 20.0, least: float = 0.1) -> list[tuple[float, float]]:
    """Return (take-off, landing) [s] of every flight that a force plate saw: unloaded below ``threshold`` [N] between loads."""
    spans = runs(opened(force < threshold, max(1, round(least * fps))))
    return [(start / fps, end / fps) for start, end in spans if start > 0 and end < len(force)]
