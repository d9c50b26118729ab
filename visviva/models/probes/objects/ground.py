"""What the ground of a clip with a static camera looks like, also where an object rests for part of the clip.

A pixel is *quiet* in the frames in which nothing moves nearby. Before the first and after the last disturbance it shows one
colour each; where an object merely passed they agree, where it stopped or set off they differ, and the majority in time
(the median of background subtraction) says nothing about which one is the ground. The edge along the outline of the region
in which they differ does: the picture that holds the object has it, the bare ground has not.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.models.probes.objects.components import components

STRANGE = 0.25
"""Colour distance from the ground beside at which a pixel that showed one colour only may be an object."""


@dataclass(frozen=True)
class Ground:
    """The bare ground.

    Attributes:
        colour: shape (B, 3, H, W), detached.
        known: where it was ever seen free, shape (B, 1, H, W), 0 or 1.
        doubt: where two colours contend for it, same shape.
        grain: standard deviation of a static pixel from frame to frame, per colour, shape (B,).
        moving: pixels near which something moves, shape (B, T, H, W), bool.
    """

    colour: Tensor
    known: Tensor
    doubt: Tensor
    grain: Tensor
    moving: Tensor


def ground(frames: Float[Tensor, "B T 3 H W"]) -> Ground:
    """Return the ground of clips with a static camera; detached from the frames.

    Example::

        bare = ground(frames)
        apart = (frames - bare.colour[:, None]).square().sum(2).sqrt()
    """
    still = frames.detach()
    grain = _grain(still)
    moving = _moving(still, grain)
    time = torch.arange(still.shape[1], device=still.device).view(1, -1, 1, 1)
    first = torch.where(moving, time, still.shape[1]).amin(1, keepdim=True)
    last = torch.where(moving, time, -1).amax(1, keepdim=True)
    before, after = _median(still, time < first), _median(still, time > last)
    early, late = ~torch.isnan(before[:, 0]), ~torch.isnan(after[:, 0])
    before, after = torch.nan_to_num(before), torch.nan_to_num(after)
    calm = ~moving.any(1)
    outside = _reaching_border(calm)
    apart = (before - after).square().sum(1).sqrt()
    contested = early & late & (apart > 0.08 + 3 * grain[:, None, None])
    beside = _beside((before * early[:, None] + after * ~early[:, None]), outside)
    late_wins = _further(before, after, beside, contested)
    colour = torch.where((early & ~late_wins)[:, None], before, after)
    colour = torch.where((early & late & ~contested)[:, None], (before + after) / 2, colour)
    strange = (colour - beside).square().sum(1).sqrt() > STRANGE
    known = (early | late) & ~(calm & ~outside) & ~(strange & ~(early & late))
    colour = torch.where(known[:, None], colour, beside)
    return Ground(colour, known[:, None].to(still.dtype), contested[:, None].to(still.dtype), grain, moving)


def _grain(still: Tensor) -> Tensor:
    """Robust standard deviation of one colour of a pixel, from differences of consecutive frames."""
    apart = (still[:, 1:] - still[:, :-1]).abs().flatten(1)
    return 1.4826 / 2**0.5 * apart.median(1).values


def _moving(still: Tensor, grain: Tensor) -> Tensor:
    """Pixels that change between a frame and one of its neighbours, and all within 2 px of them, shape (B, T, H, W)."""
    soft = torch.nn.functional.avg_pool2d(still.flatten(0, 1), 3, stride=1, padding=1, count_include_pad=False)
    soft = soft.unflatten(0, still.shape[:2])
    change = (soft[:, 1:] - soft[:, :-1]).abs().amax(2) > 0.025 + 2.2 * grain.view(-1, 1, 1, 1)
    off = torch.zeros_like(change[:, :1])
    either = torch.cat([off, change], dim=1) | torch.cat([change, off], dim=1)
    return torch.nn.functional.max_pool2d(either.to(still.dtype), 5, stride=1, padding=2) > 0


def _median(still: Tensor, keep: Tensor) -> Tensor:
    """Median colour over the frames that are kept; NaN where none is, shape (B, 3, H, W)."""
    return torch.where(keep[:, :, None], still, float("nan")).nanmedian(dim=1).values


def _reaching_border(calm: Tensor) -> Tensor:
    """The calm pixels whose region reaches the border of the image; what lies within traces of motion may be an object."""
    labels = components(calm)
    edge = torch.cat([labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1]], dim=1)
    reached = torch.zeros(labels.shape[0], labels[0].numel() + 1, dtype=torch.bool, device=calm.device)
    reached.scatter_(1, edge, True)
    return reached.gather(1, labels.flatten(1)).view_as(calm) & calm


def _beside(picture: Tensor, outside: Tensor) -> Tensor:
    """Mean colour of the calm ground near each pixel: averages over cells of 4, 8, 16, ... px, the smallest that hold some."""
    size = picture.shape[-2:]
    sure = outside[:, None].to(picture.dtype)
    cells = [
        torch.nn.functional.avg_pool2d(torch.cat([picture * sure, sure], dim=1), 4, ceil_mode=True, count_include_pad=False)
    ]
    while max(cells[-1].shape[-2:]) > 1:
        cells.append(torch.nn.functional.avg_pool2d(cells[-1], 2, ceil_mode=True, count_include_pad=False))
    found = cells[-1][:, :3] / cells[-1][:, 3:].clamp(min=1e-6)
    for cell in reversed(cells[:-1]):
        wider = torch.nn.functional.interpolate(found, cell.shape[-2:], mode="bilinear", align_corners=False)
        found = (cell[:, :3] + 0.05 * wider) / (cell[:, 3:] + 0.05)
    return torch.nn.functional.interpolate(found, size, mode="bilinear", align_corners=False)


def _further(before: Tensor, after: Tensor, beside: Tensor, contested: Tensor) -> Tensor:
    """Contested pixels that, with those around, are further from the ground beside in ``before`` than in ``after``."""
    gap = (before - beside).square().sum(1) - (after - beside).square().sum(1)
    return (torch.nn.functional.avg_pool2d(gap * contested, 5, stride=1, padding=2) > 0) & contested
