"""Second time differences of velocity: how far it is from changing linearly, of objects by lines, of pixels directly.

What `visviva.physics.laws.acceleration` averages. B clips, T frames, N objects.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor

from visviva.physics.kinematics import displaced, projection, window_fit
from visviva.physics.laws.law import finite, unknown

CACHE = 2**17
"""Numbers that each thread of a CPU is given at once where there are several passes over them: they stay in its cache."""


def squared_over_pixels(flow: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the squared second differences over the pixels, (B, T-3), and which clips are finite.

    Flow without gradient is not copied to clean it: the sums of clips that are not finite are not finite either.
    """
    if flow.requires_grad:
        flow, clean = finite(flow)
        return _squares(flow), clean
    squares = _squares(flow)
    return squares, torch.isfinite(squares).all(1)


def _squares(flow: Tensor) -> Tensor:
    """On a CPU without gradient piece by piece, clips or strips of pictures, so that what is between stays in the cache."""
    clip, row = flow[:1].numel(), flow[:1, :, :, :1].numel()
    if flow.device.type != "cpu" or flow.requires_grad or not clip or torch.compiler.is_compiling():
        return _added([flow])
    room = CACHE * torch.get_num_threads()
    clips, rows = max(1, room // clip), max(1, room // row)
    return torch.cat([_added(part.split(rows, 3)) for part in flow.split(clips)])


def _added(strips: Iterable[Tensor]) -> Tensor:
    found = []
    for strip in strips:
        second = (strip[:, 2:] + strip[:, :-2]).sub_(strip[:, 1:-1], alpha=2)
        found.append(torch.linalg.vector_norm(second.flatten(2), dim=2).square())
    return torch.stack(found).sum(0)


def lines_in_windows(velocity: Tensor, seen: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """Six times the squares left by a line through every window and its degrees of freedom, at the window's centre.

    velocity (B, T-1, N, 2), seen (B, T-1, N) -> two of shape (B, T-1, N); zero where the window is not all seen.
    """
    squared = window_fit(velocity.flatten(2), window, 1).squared.unflatten(2, velocity.shape[2:]).sum(-1)
    whole = seen.unfold(1, window, 1).all(-1).to(velocity.dtype)
    before = (window - 1) // 2
    around = (0, 0, before, window - 1 - before)
    pad = torch.nn.functional.pad
    return pad(6 * squared * whole, around), pad((window - 2) * whole, around)


def lines_in_runs(velocity: Tensor, seen: Tensor, ask: bool = False) -> tuple[Tensor, Tensor]:
    """As `lines_in_windows`, each uninterrupted run of seen samples being one window; its samples share its freedom.

    ``ask``: look whether all are seen, which is quicker where they are and on a GPU would have to be waited for.
    """
    steps, inside = velocity.shape[1], seen.to(velocity.dtype)
    if ask and steps >= 3 and bool(seen.all()):
        rest = torch.as_tensor(projection(steps, 1)[2], dtype=velocity.dtype, device=velocity.device)
        left = (rest @ velocity.flatten(2)).unflatten(2, velocity.shape[2:]).square().sum(-1)
        return 6 * left, torch.full_like(left, (steps - 2) / steps)
    run = (~seen).cumsum(1)

    def total(*parts: Tensor) -> tuple[Tensor, ...]:
        """Sums over the run of each sample."""
        x = torch.stack(parts, -1)
        at = run[..., None].expand_as(x)
        return x.new_zeros(x.shape[0], steps + 1, *x.shape[2:]).scatter_add(1, at, x).gather(1, at).unbind(-1)

    time = torch.arange(steps, dtype=velocity.dtype, device=velocity.device)[:, None] * inside
    along, across = (velocity * inside[..., None]).unbind(-1)
    count, *sums = total(inside, time, along, across)
    t, x, y = ((part - whole / count.clamp(min=1)) * inside for part, whole in zip((time, along, across), sums, strict=True))
    spread, tx, ty = total(t.square(), t * x, t * y)
    spread = spread.clamp(min=0.5)
    left = (x - tx / spread * t).square() + (y - ty / spread * t).square()
    long = (count >= 3).to(velocity.dtype) * inside
    return 6 * left * long, long * (count - 2) / count.clamp(min=1)


def standard_error(value: Tensor, noise: Tensor | None, freedom: Tensor) -> Tensor:
    """Standard error of ``6 SSE / freedom`` (two coordinates) when each velocity has the standard error ``noise``."""
    if noise is None:
        return unknown(value)
    variance = 24 * torch.relu(value.detach() - 12 * noise.square()) * noise.square() + 144 * noise**4
    return (variance / freedom.clamp(min=1)).sqrt()


def squared_along_motion(flow: Tensor, interior: Tensor, confidence: Tensor | None, smooth: int) -> tuple[Tensor, Tensor]:
    """Squared second difference along the motion and its weight, both (B, T-3, H, W)."""
    clips, steps = flow.shape[0], flow.shape[1] - 2
    before, here, after = (flow[:, i : steps + i].flatten(0, 1) for i in range(3))
    inside = interior[:, :, None].to(flow.dtype)
    inside_before, inside_here, inside_after = (inside[:, i : steps + i].flatten(0, 1) for i in range(3))
    back = -here
    for _ in range(3):
        back = -displaced(before, back)
    second = displaced(after, here) - 2 * here - back
    weight = inside_here * torch.maximum(displaced(inside_after, here.detach()), displaced(inside_before, back.detach()))
    if confidence is not None:
        weight = weight * confidence[:, 1:-1].flatten(0, 1)
    weight = weight.detach()
    if smooth:
        mean = partial(torch.nn.functional.avg_pool2d, kernel_size=2 * smooth + 1, stride=1, padding=smooth)
        second = mean(second * weight) / mean(weight).clamp(min=1e-6)
    return second.square().sum(1).unflatten(0, (clips, steps)), weight[:, 0].unflatten(0, (clips, steps))
