"""Optical flow without weights: coarse-to-fine iterative Lucas-Kanade in plain torch, differentiable and batched over pairs.

At each level of a Gaussian pyramid the second frame is warped back by the current flow and the 2x2 normal equations of
brightness constancy are solved under a Gaussian window (Lucas and Kanade 1981; pyramidal scheme of Bouguet 2001):

    A = window * (g g^T) + tikhonov I,   b = window * (g d),   flow <- flow - A^-1 b

with g the gradient of the average of first and warped second frame, d their difference (warped second minus first), both
summed over colour channels. Only the last update carries gradient: at a converged fixed point u = Phi(u, I) the update is
Newton-like (dPhi/du near 0), so its gradient is already the implicit one; ``unroll`` carries more. Damping shrinks that
gradient by A / (A + tikhonov) and changes nothing at a fixed point, where b = 0: the last update is damped ten times less.
Gradient lives on image edges; a textureless interior gets none (aperture problem). Everything runs in float32, also under
autocast: normal equations lose sub-pixel precision in bf16.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from visviva.errors import InputError
from visviva.physics.kinematics import displaced
from visviva.physics.measurement import Measurement, check_frames

CHUNK = 2**24
"""Pixels of image pairs that are worked on at once; larger clips go in parts, whose last update is recomputed in backward."""


class LucasKanade:
    """Differentiable flow probe.

    Args:
        levels: pyramid levels, each half the size; None takes as many as keep the short side at 16 pixels or more, at most
            4, which follows about 20 px/frame. More levels follow faster motion and spread it further over plain ground.
        iterations: updates per level.
        window: standard deviation of the Gaussian window at the finest level [px]; None takes 1/64 of the short side,
            within [2, 4]. The coarser levels use at most 2, so that motion is not spread over plain ground.
        tikhonov: regularisation of the normal equations, for squared gradients summed over three colours in [0, 1].
        unroll: how many of the last updates at the finest level carry gradient.
        noise: standard error of an object's measured velocity per coordinate [px/frame], as measured on simulated clips.

    Example::

        measured = LucasKanade()(frames, torch.tensor([30.0]))
        measured.flow  # (B, T-1, 2, H, W) px/frame
    """

    name = "lucas_kanade"
    differentiable = True
    measures = frozenset({"flow", "confidence", "noise"})

    def __init__(
        self,
        levels: int | None = None,
        iterations: int = 4,
        window: float | None = None,
        tikhonov: float = 1e-3,
        unroll: int = 1,
        noise: float = 0.05,
    ) -> None:
        if iterations < 1 or not 1 <= unroll <= iterations:
            raise InputError(f"iterations {iterations} and unroll {unroll} do not fit; use iterations >= unroll >= 1")
        self.levels, self.iterations, self.window = levels, iterations, window
        self.tikhonov, self.unroll, self.noise = tikhonov, unroll, noise

    def __call__(
        self, frames: Float[Tensor, "B T 3 H W"], fps: Float[Tensor, " B"], masks: Float[Tensor, "B T N H W"] | None = None
    ) -> Measurement:
        """Measure flow and confidence; ``masks`` are passed on."""
        check_frames(frames, fps)
        clips, steps = frames.shape[0], frames.shape[1] - 1
        with torch.autocast(frames.device.type, enabled=False):
            frames = frames.float()
            flow, confidence = self.pairs(frames[:, :-1].flatten(0, 1), frames[:, 1:].flatten(0, 1))
        noise = torch.full((clips,), self.noise, dtype=flow.dtype, device=flow.device)
        flow, confidence = flow.unflatten(0, (clips, steps)), confidence.unflatten(0, (clips, steps))
        return Measurement(fps=fps, flow=flow, confidence=confidence, masks=masks, noise=noise)

    def pairs(
        self, first: Float[Tensor, "M C H W"], second: Float[Tensor, "M C H W"]
    ) -> tuple[Float[Tensor, "M 2 H W"], Float[Tensor, "M 1 H W"]]:
        """Return the flow from first to second images [px] and its confidence in [0, 1], detached."""
        side = min(first.shape[-2:])
        if side < 8:
            raise InputError(f"images of {side} pixels are too small for Lucas-Kanade; give at least 8 x 8")
        levels = max(1, min(self.levels or 4, int(math.log2(side / (16 if self.levels is None else 4))) + 1))
        window = self.window or min(max(side / 64, 2.0), 4.0)
        chunk = max(1, CHUNK // (first.shape[-2] * first.shape[-1]))
        parts = []
        with _full_precision():
            for one, two in zip(first.split(chunk), second.split(chunk), strict=True):
                with torch.no_grad():
                    flow = self._approach(one, two, levels, window)
                if len(first) > chunk and torch.is_grad_enabled():
                    parts.append(checkpoint(self._refine, one, two, flow, window, use_reentrant=False))
                else:
                    parts.append(self._refine(one, two, flow, window))
        flows, confidences = zip(*parts, strict=True)
        return torch.cat(flows), torch.cat(confidences)

    def _approach(self, first: Tensor, second: Tensor, levels: int, window: float) -> Tensor:
        """All updates that carry no gradient, from the coarsest level down."""
        pyramid = [(first, second)]
        for _ in range(levels - 1):
            pyramid.append((_half(pyramid[-1][0]), _half(pyramid[-1][1])))
        flow = first.new_zeros(first.shape[0], 2, *pyramid[-1][0].shape[-2:])
        for level in reversed(range(levels)):
            one, two = (_blur(image, 0.7) for image in pyramid[level])
            height, width = one.shape[-2:]
            if flow.shape[-2:] != one.shape[-2:]:
                growth = flow.new_tensor([width / flow.shape[-1], height / flow.shape[-2]])
                flow = torch.nn.functional.interpolate(flow, (height, width), mode="bilinear") * growth[:, None, None]
            for _ in range(self.iterations - (self.unroll if level == 0 else 0)):
                flow = self._update(one, two, flow, window if level == 0 else min(window, 2.0), self.tikhonov)[0]
        return flow

    def _refine(self, one: Tensor, two: Tensor, flow: Tensor, window: float) -> tuple[Tensor, Tensor]:
        one, two = _blur(one, 0.7), _blur(two, 0.7)
        for _ in range(self.unroll):
            flow, smaller = self._update(one, two, flow, window, self.tikhonov / 10)
        return flow, smaller / (smaller + self.tikhonov)

    def _update(self, one: Tensor, two: Tensor, flow: Tensor, window: float, damping: float) -> tuple[Tensor, Tensor]:
        warped = displaced(two, flow)
        gx, gy = _gradient((one + warped) / 2)
        apart = warped - one
        products = torch.stack(
            [(gx * gx).sum(1), (gx * gy).sum(1), (gy * gy).sum(1), (gx * apart).sum(1), (gy * apart).sum(1)], 1
        )
        a, b, c, p, q = _blur(products, window).unbind(1)
        a, c = a + damping, c + damping
        determinant = a * c - b * b
        step = torch.stack([c * p - b * q, a * q - b * p], dim=1) / determinant[:, None]
        half, middle = (a - c).detach() / 2, (a + c).detach() / 2
        smaller = (middle - (half * half + b.detach().square()).sqrt() - damping).clamp(min=0)
        return flow - step, smaller[:, None]


@contextmanager
def _full_precision() -> Iterator[None]:
    """No TensorFloat-32 in matrix products: ten bits of mantissa are not enough for the normal equations."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@lru_cache(maxsize=64)
def _kernel(size: int, sigma: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Gaussian blur of a line of ``size`` pixels as a matrix; weights at the border are renormalised."""
    at = torch.arange(size, dtype=torch.float64)
    weights = torch.exp(-((at[:, None] - at).square()) / (2 * sigma**2))
    weights = weights * ((at[:, None] - at).abs() <= math.ceil(4 * sigma))
    return (weights / weights.sum(1, keepdim=True)).to(dtype=dtype, device=device)


def _blur(images: Tensor, sigma: float) -> Tensor:
    """Separable Gaussian blur as two matrix products, which on a CPU beats convolution at these sizes."""
    rows = _kernel(images.shape[-2], sigma, images.dtype, images.device)
    columns = _kernel(images.shape[-1], sigma, images.dtype, images.device)
    return rows @ images @ columns.T


def _half(images: Tensor) -> Tensor:
    return torch.nn.functional.interpolate(_blur(images, 1.0), scale_factor=0.5, mode="bilinear", align_corners=False)


def _gradient(images: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences along x and y, one-sided at the border [per px]."""
    pad = torch.nn.functional.pad(images, (1, 1, 1, 1), mode="replicate")
    return (pad[..., 1:-1, 2:] - pad[..., 1:-1, :-2]) / 2, (pad[..., 2:, 1:-1] - pad[..., :-2, 1:-1]) / 2
