"""Mean flow inside objects as one kernel for processors: each number is looked at once, and what is not object is passed over.

Masks are zero nearly everywhere. Thirty-two pixels are told to be zero by their bits; only where they are not, masks are eroded
and flow is read, eight pixels at a time. One thread works: to wake a second costs as much as it saves. Without gradients: laws
that score many clips whose flow and masks are there already gain (`benchmarks/evaluate_speed.py`), training does not.
"""

from functools import lru_cache
from typing import Any

import torch
import warp as wp
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError
from visviva.physics.kinematics import refuse_shapes
from visviva.physics.quiet import quiet

STRIDES = (32, 16)
"""Pixels that are passed over at once, as many as the picture's width is a multiple of."""

EIGHT = wp.types.vector(length=8, dtype=wp.float32)


@lru_cache(maxsize=2)
def _kernel(stride: int) -> Any:
    """Return the kernel that passes over so many pixels at once."""
    eights = wp.constant(stride // 8)
    BITS = wp.types.vector(length=stride // 2, dtype=wp.uint64)

    @wp.kernel(enable_backward=False, module="unique")
    def sums(
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
        place = int(wp.tid())  # type: ignore[arg-type]
        frame = place // objects
        begin = (((frame // steps) * frames + frame % steps) * objects + place % objects) * height * width
        flows = frame * 2 * height * width
        whole, area, along, across = EIGHT(), EIGHT(), EIGHT(), EIGHT()
        for y in range(height):
            row = begin + y * width
            above = begin + wp.max(y - 1, 0) * width
            below = begin + wp.min(y + 1, height - 1) * width
            for group in range(width // eights):
                b = bits[row // eights + group]
                seen = b[0]
                for k in range(1, wp.static(stride // 2)):
                    seen = seen | b[k]
                if seen != wp.uint64(0):
                    for part in range(eights):
                        if (b[4 * part] | b[4 * part + 1] | b[4 * part + 2] | b[4 * part + 3]) != wp.uint64(0):
                            x = eights * group + part
                            m = masks[row + x]
                            inner = m
                            if erode == 1:
                                inner = wp.min(m, wp.min(masks[above + x], masks[below + x]))
                                if x == 0:  # the picture's border does not erode
                                    inner = wp.min(inner, EIGHT(m[0], m[0], m[1], m[2], m[3], m[4], m[5], m[6]))
                                else:
                                    inner = wp.min(inner, left[row + x])
                                if x == width - 1:
                                    inner = wp.min(inner, EIGHT(m[1], m[2], m[3], m[4], m[5], m[6], m[7], m[7]))
                                else:
                                    inner = wp.min(inner, right[row + x])
                            whole += m
                            area += inner
                            along += wp.cw_mul(inner, flow[flows + y * width + x])
                            across += wp.cw_mul(inner, flow[flows + (height + y) * width + x])
        for k in range(8):
            out[place, 0] += whole[k]
            out[place, 1] += area[k]
            out[place, 2] += along[k]
            out[place, 3] += across[k]

    wp.load_module(sums.module, device="cpu")
    return sums, BITS


def sums_inside(
    flow: Float[Tensor, "B t 2 H W"], masks: Float[Tensor, "B T N H W"], pixels: int
) -> tuple[Float[Tensor, "B t N"], Float[Tensor, "B t N"], Float[Tensor, "B t N 2"]]:
    """Return the sums of each mask, of the mask less its outermost ``pixels``, and of the flow weighted with that.

    float32 on a CPU, without gradient. Flow that is not finite inside an object, or within 32 pixels of it, makes its sums not
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
    with quiet():
        wp.init()
        kernel, bits = _kernel(next(stride for stride in STRIDES if width % stride == 0))
        given = (
            *(pixels, frames, flow.shape[1], objects, height, width // 8),
            _seen_as(bits, masks),
            *(_seen_as(EIGHT, masks, shift) for shift in (0, -4, 4)),  # each mask, its left and right neighbours
            _seen_as(EIGHT, flow),
            wp.from_torch(out.view(-1, 4)),
        )
        wp.launch(kernel, dim=out[..., 0].numel(), inputs=given, device="cpu")
    return out[..., 0], out[..., 1], out[..., 2:]


def _seen_as(kind: Any, x: Tensor, shift: int = 0) -> Any:
    """An array of vectors where a tensor's numbers lie, or so many bytes further on."""
    length = 4 * x.numel() // wp.types.type_size_in_bytes(kind)
    return wp.array(ptr=x.data_ptr() + shift, dtype=kind, shape=(length,), device="cpu", copy=False)


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
    if masks.shape[-1] % STRIDES[-1]:
        raise InputError(f"pictures {masks.shape[-1]} pixels wide; the kernel takes multiples of {STRIDES[-1]}{remedy}")
