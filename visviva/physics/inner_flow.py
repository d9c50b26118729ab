"""Mean flow inside objects as one kernel for processors: each number is looked at once, and what is not object is passed over.

Masks are zero nearly everywhere. Sixteen pixels are told to be zero by their bits; only where they are not, masks are eroded
and flow is read, eight pixels at a time. As many threads work as torch may use. Without gradients: laws that score many clips
whose flow and masks are there already gain (`benchmarks/evaluate_speed.py`), training does not.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import torch
import warp as wp
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError
from visviva.physics.kinematics import refuse_shapes
from visviva.physics.quiet import quiet

STRIDE = 16
"""Pixels that are passed over at once; a picture's width must be a multiple of it."""

EIGHT = wp.types.vector(length=STRIDE // 2, dtype=wp.float32)
BITS = wp.types.vector(length=STRIDE // 2, dtype=wp.uint64)


@wp.kernel(enable_backward=False, module="unique")
def _sums(
    first: int,
    erode: int,
    frames: int,
    steps: int,
    objects: int,
    height: int,
    width: int,
    bits: wp.array(dtype=BITS),  # type: ignore[valid-type]
    masks: wp.array(dtype=EIGHT),  # type: ignore[valid-type]
    left: wp.array(dtype=EIGHT),  # type: ignore[valid-type]
    right: wp.array(dtype=EIGHT),  # type: ignore[valid-type]
    flow: wp.array(dtype=EIGHT),  # type: ignore[valid-type]
    out: wp.array2d(dtype=wp.float32),  # type: ignore[valid-type]
) -> None:
    """Sum one object's mask in one frame, its eroded mask, and the flow times that; ``width`` counts eights of pixels."""
    place = first + wp.tid()  # type: ignore[operator]
    frame = place // objects
    begin = (((frame // steps) * frames + frame % steps) * objects + place % objects) * height * width
    flows = frame * 2 * height * width
    whole, area, along, across = EIGHT(), EIGHT(), EIGHT(), EIGHT()
    for y in range(height):
        row = begin + y * width
        above = begin + wp.max(y - 1, 0) * width
        below = begin + wp.min(y + 1, height - 1) * width
        for pair in range(width // 2):
            b = bits[row // 2 + pair]
            if (b[0] | b[1] | b[2] | b[3] | b[4] | b[5] | b[6] | b[7]) != wp.uint64(0):
                for x in range(2 * pair, 2 * pair + 2):
                    mask = masks[row + x]
                    inner = mask
                    if erode == 1:
                        inner = wp.min(mask, wp.min(masks[above + x], masks[below + x]))
                        if x == 0:  # the picture's border does not erode
                            inner = wp.min(inner, EIGHT(mask[0], mask[0], mask[1], mask[2], mask[3], mask[4], mask[5], mask[6]))
                        else:
                            inner = wp.min(inner, left[row + x])
                        if x == width - 1:
                            inner = wp.min(inner, EIGHT(mask[1], mask[2], mask[3], mask[4], mask[5], mask[6], mask[7], mask[7]))
                        else:
                            inner = wp.min(inner, right[row + x])
                    whole += mask
                    area += inner
                    along += wp.cw_mul(inner, flow[flows + y * width + x])
                    across += wp.cw_mul(inner, flow[flows + (height + y) * width + x])
    for k in range(8):
        out[place, 0] += whole[k]
        out[place, 1] += area[k]
        out[place, 2] += along[k]
        out[place, 3] += across[k]


def sums_inside(
    flow: Float[Tensor, "B t 2 H W"], masks: Float[Tensor, "B T N H W"], pixels: int
) -> tuple[Float[Tensor, "B t N"], Float[Tensor, "B t N"], Float[Tensor, "B t N 2"]]:
    """Return the sums of each mask, of the mask less its outermost ``pixels``, and of the flow weighted with that.

    float32 on a CPU, without gradient. Flow that is not finite inside an object, or within 16 pixels of it, makes its sums not
    finite.

    Raises:
        InputError: another device or dtype, flow that asks for gradients, more than one pixel to erode, a width that is no
            multiple of 16, masks of other clips, frames or sizes than the flow.
    """
    _refuse(flow, masks, pixels)
    flow, masks = flow.detach().contiguous(), masks.detach().contiguous()
    clips, frames, objects, height, width = masks.shape
    out = torch.zeros(clips, flow.shape[1], objects, 4)
    if not out.numel() or not masks.numel():
        return out[..., 0], out[..., 1], out[..., 2:]
    at, size = masks.data_ptr(), masks.numel()
    with quiet():
        wp.init()
        _run(
            pixels,
            *(frames, flow.shape[1], objects, height, width // 8),
            _seen_as(BITS, at, size // STRIDE),
            *(_seen_as(EIGHT, at + shift, size // 8) for shift in (0, -4, 4)),  # each mask, its left and right neighbours
            _seen_as(EIGHT, flow.data_ptr(), flow.numel() // 8),
            wp.from_torch(out.view(-1, 4)),
        )
    return out[..., 0], out[..., 1], out[..., 2:]


def _run(*given: Any) -> None:
    """Launch the kernel, a part of the objects on each thread."""
    count = len(given[-1])
    wp.load_module(_sums.module, device="cpu")
    threads = max(1, min(torch.get_num_threads(), count // 16))
    begins = [count * k // threads for k in range(threads + 1)]

    def part(k: int) -> None:
        wp.launch(_sums, dim=begins[k + 1] - begins[k], inputs=[begins[k], *given], device="cpu")

    if threads == 1:
        part(0)
    else:
        list(_pool(threads, os.getpid()).map(part, range(threads)))


@lru_cache(maxsize=1)
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Threads of this process; a forked child has none of its parent's."""
    return ThreadPoolExecutor(threads)


def _seen_as(kind: Any, address: int, count: int) -> Any:
    """An array of vectors where a tensor's numbers lie."""
    return wp.array(ptr=address, dtype=kind, shape=(count,), device="cpu", copy=False)


def _refuse(flow: Tensor, masks: Tensor, pixels: int) -> None:
    refuse_shapes(flow, masks)
    remedy = "; use method='torch'"
    for name, x in (("flow", flow), ("masks", masks)):
        if x.device.type != "cpu" or x.dtype != torch.float32:
            raise InputError(f"{name} of {x.dtype} on {x.device}; the kernel takes float32 on a CPU{remedy}")
    if flow.requires_grad and torch.is_grad_enabled():
        raise InputError(f"flow that asks for gradients; the kernel has none{remedy}")
    if pixels not in (0, 1):
        raise InputError(f"masks eroded by {pixels} pixels; the kernel erodes by 0 or 1{remedy}")
    if masks.shape[-1] % STRIDE:
        raise InputError(f"pictures {masks.shape[-1]} pixels wide; the kernel takes multiples of {STRIDE}{remedy}")
