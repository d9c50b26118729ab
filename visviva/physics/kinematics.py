"""Velocities and accelerations from sampled motion: differences, local polynomial fits, constant-acceleration fits, centroids.

All functions are differentiable, batched over leading dimensions and work in the dtype and on the device of their input.
Positions and velocities carry whatever length unit they come in (pixels or metres); times are in whatever unit ``times`` has.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import factorial

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from visviva.errors import InputError
from visviva.physics.boxes import around


def difference(x: Float[Tensor, "B T *D"], order: int = 1) -> Float[Tensor, "B t *D"]:
    """Return the forward difference of the given order along time: T - order samples, per sample interval.

    ``difference(position, 3)`` of a uniformly accelerated motion is zero; of ``k t^3`` it is ``6 k``.
    """
    if x.shape[1] <= order:
        raise InputError(f"a difference of order {order} needs at least {order + 1} samples, not {x.shape[1]}")
    for _ in range(order):
        x = x[:, 1:] - x[:, :-1]
    return x


@lru_cache(maxsize=64)
def projection(window: int, degree: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return weights (degree+1, window) of derivatives at a window's centre, their covariance, the residual projector."""
    if degree < 0 or window <= degree:
        raise InputError(f"a polynomial of degree {degree} needs a window of at least {degree + 1} samples, not {window}")
    time = np.arange(window) - (window - 1) / 2
    design = np.stack([time**k / factorial(k) for k in range(degree + 1)], axis=1)
    weights = np.linalg.pinv(design)
    return weights, weights @ weights.T, np.eye(window) - design @ weights


@dataclass(frozen=True)
class WindowFit:
    """Polynomials fitted to every window of consecutive samples; the k-th coefficient is the k-th derivative at its centre.

    Attributes:
        derivatives: shape (B, T-w+1, degree+1, D), per sample interval to the power k.
        covariance: of the derivatives per unit variance of one sample, shape (degree+1, degree+1).
        squared: sum over the window of squared residuals, shape (B, T-w+1, D).
        freedom: degrees of freedom left, w - degree - 1; ``squared / freedom`` estimates the variance of one sample.
    """

    derivatives: Tensor
    covariance: Tensor
    squared: Tensor
    freedom: int


def window_fit(x: Float[Tensor, "B T D"], window: int, degree: int) -> WindowFit:
    """Fit a polynomial to every window by least squares: derivatives without differencing noise twice (a weak form).

    Projecting the samples on the polynomials of one window is the weak form of differentiation with the window as the
    support of the test function: integration by parts moves the derivative off the noisy samples. For white noise of
    standard deviation s the k-th derivative has variance ``covariance[k, k] s^2``, which falls as ``window^-(2k+1)``.

    Example: ``window_fit(position, 7, 2).derivatives[:, :, 2] * fps**2`` is the acceleration [length / s^2].
    """
    if x.shape[1] < window:
        raise InputError(f"the window of {window} samples is longer than the {x.shape[1]} samples given; use a shorter window")
    weights, covariance, projector = (torch.as_tensor(a, dtype=x.dtype, device=x.device) for a in projection(window, degree))
    windows = x.unfold(1, window, 1)
    derivatives = torch.einsum("btdw,kw->btkd", windows, weights)
    squared = (windows @ projector).square().sum(-1)
    return WindowFit(derivatives, covariance, squared, window - degree - 1)


@dataclass(frozen=True)
class AccelerationFit:
    """A motion ``c(t) = c0 + v0 t + a t^2 / 2`` fitted to a trajectory; time is counted from ``origin``.

    Attributes:
        position, velocity, acceleration: c0, v0, a, shape (B, D), in length, length/time, length/time^2.
        covariance: of (c0, v0, a) for each coordinate, scaled by that coordinate's residual variance, shape (B, D, 3, 3).
        residual: root mean squared distance from the fit per degree of freedom, shape (B, D); 0 where three samples are used.
        samples: number of valid samples, shape (B,).
        valid: at least three distinct valid samples, shape (B,); elsewhere everything is 0.
        origin: time at which c0 and v0 hold (mean of the valid times), shape (B,).
    """

    position: Tensor
    velocity: Tensor
    acceleration: Tensor
    covariance: Tensor
    residual: Tensor
    samples: Tensor
    valid: Tensor
    origin: Tensor

    def at(self, times: Float[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """Return the fitted positions at the given times."""
        t = (times - self.origin[:, None])[:, :, None]
        return self.position[:, None] + self.velocity[:, None] * t + self.acceleration[:, None] * t.square() / 2


def acceleration_fit(
    positions: Float[Tensor, "B T D"],
    times: Float[Tensor, "B T"],
    valid: Bool[Tensor, "B T"] | None = None,
) -> AccelerationFit:
    """Fit ``c0 + v0 t + a t^2 / 2`` to each coordinate of each trajectory by least squares over the valid samples.

    Uneven times are used as they are. The covariance is the ordinary least-squares one, ``s^2 (X^T X)^-1`` with s^2 the
    residual variance with n - 3 degrees of freedom, so it assumes independent errors; for real tracks compare windows too.
    """
    weight = torch.ones_like(times) if valid is None else valid.to(times.dtype)
    count = weight.sum(1)
    origin = (times * weight).sum(1) / count.clamp(min=1)
    t = (times - origin[:, None]) * weight
    span = t.abs().amax(1).clamp(min=torch.finfo(t.dtype).tiny)
    s = t / span[:, None]
    design = torch.stack([weight, s, s.square() / 2], dim=-1)
    normal = design.mT @ design
    distinct = (count >= 3) & (torch.linalg.eigvalsh(normal.detach())[:, 0] > 1e-9 * count.clamp(min=1))
    eye = torch.eye(3, dtype=t.dtype, device=t.device)
    inverse = torch.linalg.inv_ex(torch.where(distinct[:, None, None], normal, eye)).inverse
    samples = torch.where((weight > 0)[:, :, None], positions, 0.0) * distinct[:, None, None]
    solution = inverse @ design.mT @ samples
    left = (design @ solution - samples).square().sum(1) / (count - 3).clamp(min=1)[:, None]
    unit = torch.stack([torch.ones_like(span), 1 / span, 1 / span.square()], dim=1)
    covariance = left[:, :, None, None] * inverse[:, None] * (unit[:, None, :, None] * unit[:, None, None, :])
    position, velocity, acceleration = (solution * unit[:, :, None]).unbind(1)
    residual = left.clamp(min=torch.finfo(left.dtype).tiny).sqrt()
    return AccelerationFit(position, velocity, acceleration, covariance, residual, count, distinct, origin)


def centroids(masks: Float[Tensor, "B T N H W"]) -> tuple[Float[Tensor, "B T N 2"], Float[Tensor, "B T N"]]:
    """Return the centres (x, y) [px] of soft masks and their areas [px^2]; pixel (0, 0) has its centre at (0, 0).

    Differentiable with respect to the masks. An empty mask has area 0 and its centre at the middle of the image.
    """
    height, width = masks.shape[-2:]
    ys = torch.arange(height, dtype=masks.dtype, device=masks.device) - (height - 1) / 2
    xs = torch.arange(width, dtype=masks.dtype, device=masks.device) - (width - 1) / 2
    columns, rows = masks.sum(-2), masks.sum(-1)
    area = columns.sum(-1)
    moments = torch.stack([columns @ xs, rows @ ys], dim=-1)
    middle = torch.tensor([(width - 1) / 2, (height - 1) / 2], dtype=masks.dtype, device=masks.device)
    return middle + moments / area.clamp(min=1e-6)[..., None], area


def object_velocity(
    flow: Float[Tensor, "B t 2 H W"],
    masks: Float[Tensor, "B t N H W"],
    confidence: Float[Tensor, "B t 1 H W"] | None = None,
) -> tuple[Float[Tensor, "B t N 2"], Float[Tensor, "B t N"]]:
    """Return the mask-weighted mean flow of each object [px/frame] and the mask areas [px^2] (velocity 0 where area is 0).

    ``sum(w flow) / sum(w)`` with ``w = mask * confidence``: the sum of the weights is fixed, so a low confidence everywhere
    changes nothing. An object that no pixel is confident about falls back to its plain mask.
    """
    area = masks.sum((-2, -1))
    return _weighted_mean(flow, masks, area, confidence), area


def _weighted_mean(flow: Tensor, masks: Tensor, area: Tensor, confidence: Tensor | None) -> Tensor:
    """Mean of the flow, (B, t, 2, H, W) or (B, t, N, 2, H, W), under the weights."""
    weight, total = masks, area
    if confidence is not None:
        weight = masks * confidence
        total = weight.sum((-2, -1))
        doubtful = total < 1e-3 * area
        weight, total = torch.where(doubtful[..., None, None], masks, weight), torch.where(doubtful, area, total)
    weight = weight.flatten(-2) if flow.ndim == 5 else weight.flatten(-2)[..., None, :]
    summed = (weight @ flow.flatten(-2).mT).view(*area.shape, 2)
    return summed / total.clamp(min=1e-6)[..., None]


def inner_velocity(
    flow: Float[Tensor, "B t 2 H W"],
    masks: Float[Tensor, "B T N H W"],
    confidence: Float[Tensor, "B t 1 H W"] | None = None,
    pixels: int = 1,
    method: str = "torch",
) -> tuple[Float[Tensor, "B t N 2"], Float[Tensor, "B t N"], Bool[Tensor, " B"]]:
    """Return `object_velocity` inside the masks less their outermost ``pixels``, the area there, and which clips are finite.

    Flow is that of the body only away from its edge. Objects that erosion would halve keep their whole mask. The masks are
    detached; flow outside of all masks is not looked at. Clips that hold NaN or infinity in a mask, or in the flow inside one,
    have velocity 0. On a CPU only boxes around the objects are worked on where these are small (`visviva.physics.boxes`); the
    result is the same. ``method`` "warp": the kernel of `visviva.physics.inner_flow`, for flow without gradient on a CPU.

    Example::

        velocity, area, clean = inner_velocity(measured.flow, measured.masks)  # T = t + 1, or t
    """
    if method not in ("torch", "warp"):
        raise InputError(f"no method {method!r}; use 'torch' or 'warp'")
    refuse_shapes(flow, masks)
    if method == "warp":
        found = _by_kernel(flow, masks, confidence, pixels)
        if found is not None:
            return found
    masks, steps = masks.detach(), flow.shape[1]
    rows = masks[:, :steps].sum(-1)
    clean = torch.isfinite(rows.flatten(1).sum(1))
    boxes = around(masks[:, :steps], rows, pixels)
    if boxes is None:
        masks = masks[:, :steps]
    else:
        flow, masks = boxes.cut(flow[:, :, None]), boxes.cut(masks[:, :, :, None])[:, :, :, 0]
        confidence = None if confidence is None else boxes.cut(confidence[:, :, None])[:, :, :, 0]
    told = boxes is not None  # on a CPU, where asking costs nothing
    if not (told and bool(clean.all())):
        masks = torch.where(clean[:, None, None, None, None], masks, 0.0)
    inner = erode(masks, pixels)
    area, whole = inner.sum((-2, -1)), masks.sum((-2, -1))
    enough = area >= 0.5 * whole
    if not (told and bool(enough.all())):
        inner, area = torch.where(enough[..., None, None], inner, masks), torch.where(enough, area, whole)
    velocity = _weighted_mean(flow, inner, area, confidence)
    if not (told and bool(velocity.isfinite().all())):
        flow = torch.where((masks != 0)[:, :, :, None] if told else (masks != 0).any(2, keepdim=True), flow, 0.0)
        velocity = _weighted_mean(flow, inner, area, confidence)
    clean = clean & velocity.detach().isfinite().flatten(1).all(1)
    return torch.where(clean[:, None, None, None], velocity, 0.0), area, clean


def refuse_shapes(flow: Tensor, masks: Tensor) -> None:
    """Raise an `InputError` for masks that are not of the flow's clips, frames and size: a kernel would read beyond them."""
    alike = flow.ndim == masks.ndim == 5 and flow.shape[2] == 2
    if not alike or flow.shape[0] != masks.shape[0] or flow.shape[3:] != masks.shape[3:] or flow.shape[1] > masks.shape[1]:
        raise InputError(
            f"flow of shape {tuple(flow.shape)} with masks of shape {tuple(masks.shape)}; give (B, t, 2, H, W) and "
            "(B, T, N, H, W) of the same clips and size, T being t + 1 or t"
        )


def _by_kernel(flow: Tensor, masks: Tensor, confidence: Tensor | None, pixels: int) -> tuple[Tensor, Tensor, Tensor] | None:
    """What `inner_velocity` returns, by the kernel; None where numbers are not finite, which it cannot place."""
    if confidence is not None:
        raise InputError("flow with confidence; the kernel does not weigh by it: use method='torch'")
    from visviva.physics.inner_flow import sums_inside

    whole, area, summed = sums_inside(flow, masks, pixels)
    enough = area >= 0.5 * whole
    if not bool(enough.all()):
        _, _, uneroded = sums_inside(flow, masks, 0)
        area, summed = torch.where(enough, area, whole), torch.where(enough[..., None], summed, uneroded)
    if not bool(summed.isfinite().all()) or not bool(whole.isfinite().all()):
        return None
    clean = torch.ones(len(flow), dtype=torch.bool)
    return summed / area.clamp(min=1e-6)[..., None], area, clean


def erode(masks: Float[Tensor, "B T N H W"], pixels: int) -> Float[Tensor, "B T N H W"]:
    """Shrink masks by the given number of pixels (grey-scale erosion with a diamond; the image border does not erode)."""
    for _ in range(pixels):
        inner = masks.clone()
        inner[..., 1:, :].clamp_(max=masks[..., :-1, :])
        inner[..., :-1, :].clamp_(max=masks[..., 1:, :])
        inner[..., 1:].clamp_(max=masks[..., :-1])
        inner[..., :-1].clamp_(max=masks[..., 1:])
        masks = inner
    return masks


def displaced(field: Float[Tensor, "M C H W"], by: Float[Tensor, "M 2 H W"]) -> Float[Tensor, "M C H W"]:
    """Return ``field(x + by(x))``, bilinear, the border value outside; differentiable with respect to both.

    ``displaced(second_frame, flow)`` is the second frame warped back onto the first.
    """
    height, width = field.shape[-2:]
    ys = torch.arange(height, dtype=field.dtype, device=field.device)[:, None] + by[:, 1]
    xs = torch.arange(width, dtype=field.dtype, device=field.device) + by[:, 0]
    grid = torch.stack([xs * (2 / max(width - 1, 1)) - 1, ys * (2 / max(height - 1, 1)) - 1], dim=-1)
    return torch.nn.functional.grid_sample(field, grid, mode="bilinear", padding_mode="border", align_corners=True)
