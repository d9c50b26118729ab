"""Pendulum: a body that swings on a circle obeys ``theta'' = -k sin(theta) - b theta'`` with friction b >= 0.

The pivot is fitted to the path; k and b are fitted to the angle in weak form: the equation is multiplied by bumps phi that
vanish with two derivatives at the ends of their windows and integrated by parts, so that no angle is differentiated:

    int phi'' theta = -k int phi sin(theta) + b int phi' theta

`swing` returns the fits with their lengths and periods for evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from visviva.errors import InputError
from visviva.physics.contact import contact_frames
from visviva.physics.laws.law import Residual, require
from visviva.physics.laws.rigid_shape import at_border
from visviva.physics.measurement import Measurement
from visviva.physics.runs import beyond, sound
from visviva.physics.tracks import Tracks


@dataclass(frozen=True)
class Swing:
    """What a pendulum's track says of it.

    Attributes:
        pivot: shape (B, N, 2) [px]; radius: shape (B, N) [px]; sigma_radius: its standard error.
        theta: angle from hanging straight down, positive to the right, shape (B, T, N) [rad]; 0 where hidden.
        stiffness: k = g / length of a point pendulum, shape (B, N) [1/frame^2]; sigma_stiffness: its standard error.
        damping: b, shape (B, N) [1/frame], may be negative; sigma_damping: its standard error.
        residual: share of the weak equation that is left, 1 - R^2 without intercept, what noise explains taken off, (B, N).
        amplitude: largest |theta|, shape (B, N) [rad].
        valid: whether the track is a swing, shape (B, N), bool: see `Pendulum`. Elsewhere the numbers mean nothing.
    """

    pivot: Tensor
    radius: Tensor
    sigma_radius: Tensor
    theta: Tensor
    stiffness: Tensor
    sigma_stiffness: Tensor
    damping: Tensor
    sigma_damping: Tensor
    residual: Tensor
    amplitude: Tensor
    valid: Tensor

    @property
    def period(self) -> Float[Tensor, "B N"]:
        """Period of a swing of this amplitude [frames], ``2 pi / sqrt(k) (1 + A^2 / 16 + 11 A^4 / 3072)``; NaN if k <= 0."""
        a = self.amplitude.square()
        small = 2 * math.pi / torch.where(self.stiffness > 0, self.stiffness, float("nan")).sqrt()
        return small * (1 + a / 16 + 11 * a.square() / 3072)

    def gravity(self, fps: Float[Tensor, " B"], scale: Float[Tensor, " B"]) -> Float[Tensor, "B N"]:
        """Return ``k radius scale fps^2`` [m/s^2]: g for a small heavy bob on a light string."""
        return self.stiffness * self.radius * (scale * fps.square())[:, None]


@dataclass(frozen=True)
class Pendulum:
    """How far a swing is from a damped pendulum, dimensionless: ``(1 - R^2) + T / 2 relu(-b - 2 sigma_b)``, mean over swings.

    R^2 is the share of the weak equation that the best k and b explain. The second term is the growth of the logarithm of the
    amplitude over the T frames from where the body is first seen to where it is last: one that swings ever wider has b < 0.

    What looks like a contact beside the border of the image is none: the centroid there is that of what is in view.

    *Applies* to objects without contact (given, or found by `visviva.physics.contact`), seen in 12 frames or more, whose path
    is an arc that passes below the pivot: bulging downwards by more than 8 standard errors, the radius known to 20 %, the
    distance from the fitted circle within 10 % of the chord. A ball in flight bulges upwards, a roll does not bulge. A frozen,
    empty or noise clip has no arc and is not judged.

    Attributes:
        window: frames of a bump, odd; about a third of a period is best.
        significance: standard errors of the damping that are forgiven.

    Raises:
        InputError: a window that is even or shorter than 5.

    Example::

        residual = Pendulum()(Measurement(fps=fps, tracks=tracks))
        swing(tracks).period  # [frames]
    """

    window: int = 9
    significance: float = 2.0

    name: ClassVar[str] = "pendulum"
    needs: ClassVar[frozenset[str]] = frozenset({"tracks"})
    detects: ClassVar[tuple[str, ...]] = ("energy_gain", "jitter", "float")
    scenes: ClassVar[tuple[str, ...]] = ("swings",)
    trivial: ClassVar[bool] = True
    anchor: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuse windows that no bump fits into."""
        if self.window < 5 or self.window % 2 == 0:
            raise InputError(f"window {self.window} does not hold a bump; give an odd number of frames, 5 or more")

    def __call__(self, measurement: Measurement) -> Residual:
        """Return the residual of each clip; differentiable with respect to the positions."""
        require(measurement, self.name, self.needs)
        tracks, clean = sound(measurement)
        if tracks.positions.shape[2] == 0:
            nothing = tracks.positions.new_zeros(len(tracks.positions))
            return Residual(nothing, nothing.bool(), nothing)
        found = swing(tracks, self.window)
        half = _span(tracks.visible).to(found.damping) / 2
        growth = beyond(torch.relu(-found.damping), found.sigma_damping, self.significance) * half
        touched = contact_frames(measurement.with_(tracks=tracks))
        struck = (touched & ~_beside_border(tracks, measurement.pixels)).any(1)
        swings = (found.valid & clean[:, None] & ~struck).to(growth.dtype)
        count = swings.sum(1).clamp(min=1)
        value = ((found.residual + growth) * swings).sum(1) / count
        sigma = (found.sigma_damping * half * swings).sum(1) / count
        valid = swings.sum(1) > 0
        return Residual(torch.where(valid, value, 0.0), valid, torch.where(valid, sigma, 0.0).detach())


def _beside_border(tracks: Tracks, pixels: tuple[int | None, int | None]) -> Bool[Tensor, "B T N"]:
    """Frames within 2 of one in which the object reaches the border of the image."""
    border = at_border(tracks, pixels).to(tracks.positions.dtype).transpose(1, 2)
    return torch.nn.functional.max_pool1d(border, 5, 1, 2).transpose(1, 2) > 0


def _span(seen: Bool[Tensor, "B T N"]) -> Tensor:
    """Frames from the first in which an object is seen to the last, shape (B, N)."""
    return (seen.cumsum(1) > 0).sum(1) + (seen.flip(1).cumsum(1) > 0).sum(1) - seen.shape[1]


def swing(tracks: Tracks, window: int = 9) -> Swing:
    """Fit a pivot and a damped pendulum to each track; differentiable with respect to the positions."""
    seen = tracks.visible
    pivot, radius, sigma_radius, arc = circle(tracks)
    arm = tracks.positions - pivot[:, None]
    hanging = torch.tensor([0.0, 1.0]).to(arm)
    arm = torch.where(seen[..., None], arm, hanging)
    theta = torch.atan2(arm[..., 0], arm[..., 1])
    safe = radius.detach().clamp(min=1e-6)
    noise = tracks.sigma / safe[:, None]
    stiffness, damping, errors, residual = _weak_fit(theta, noise, seen, window)
    theta = torch.where(seen, theta, 0.0)
    amplitude = theta.abs().amax(1)
    valid = arc & _passes(theta.detach(), noise, seen) & (seen.sum(1) >= max(12, window + 3))
    return Swing(pivot, radius, sigma_radius, theta, stiffness, errors[0], damping, errors[1], residual, amplitude, valid)


def circle(tracks: Tracks) -> tuple[Tensor, Tensor, Tensor, Bool[Tensor, "B N"]]:
    """Fit a circle to each path (Kasa's linear fit, the noise taken off its normal equations).

    Returns centre (B, N, 2), radius (B, N), its standard error and whether the path is an arc that bulges downwards.
    """
    weight = tracks.visible.to(tracks.positions.dtype)
    count = weight.sum(1).clamp(min=1)
    mean = (tracks.positions * weight[..., None]).sum(1) / count[..., None]
    near = (tracks.positions - mean[:, None]) * weight[..., None]
    variance = (tracks.sigma.square() * weight).sum(1) / count
    eye = torch.eye(2, dtype=near.dtype, device=near.device)
    scatter = torch.einsum("btni,btnj->bnij", near, near) / count[..., None, None] - variance[..., None, None] * eye
    square = near.square().sum(-1)
    right = torch.einsum("btni,btn->bni", near, square) / count[..., None] / 2
    determinant = scatter[..., 0, 0] * scatter[..., 1, 1] - scatter[..., 0, 1].square()
    good = (determinant > 0) & (scatter[..., 0, 0] > 0)
    centre = torch.linalg.solve_ex(torch.where(good[..., None, None], scatter, eye), right[..., None]).result[..., 0]
    centre = centre * good[..., None]
    radius = (centre.square().sum(-1) + square.sum(1) / count - 2 * variance).clamp(min=1e-12).sqrt()
    values = torch.linalg.eigvalsh(torch.where(good[..., None, None], scatter, eye).detach())
    bulge = (values[..., 0] * 180 / 16).clamp(min=0).sqrt()
    off = ((near - centre[:, None]).norm(dim=-1) - radius[:, None]).detach() * weight
    scattered = (off.square().sum(1) / count).sqrt()
    chord = (12 * values[..., 1].clamp(min=0)).sqrt()
    noise = variance.sqrt()
    relative = noise / bulge.clamp(min=1e-12) * (11.25 / count).sqrt()
    down = (-centre[..., 1] > 0.5 * centre.norm(dim=-1)).detach()
    close = scattered < torch.maximum(0.1 * chord, 2.5 * noise)
    arc = good & down & (bulge > 8 * noise / count.sqrt()) & (relative < 0.2) & (chord > 8 * noise) & close
    return mean + centre, radius, (radius * relative).detach(), arc


@lru_cache(maxsize=16)
def _bump(window: int) -> np.ndarray:
    """A bump (1 - s^2)^4 on s in (-1, 1) and its first two derivatives per frame, sampled, shape (3, window)."""
    half = (window + 1) / 2
    s = (np.arange(window) - (window - 1) / 2) / half
    u = 1 - s**2
    return np.stack([u**4, -8 * s * u**3 / half, (-8 * u**3 + 48 * s**2 * u**2) / half**2])


def _weak_fit(theta: Tensor, noise: Tensor, seen: Tensor, window: int) -> tuple[Tensor, Tensor, Sequence[Tensor], Tensor]:
    """Stiffness, damping (B, N), their standard errors and the share that is left, all from windows fully seen."""
    if theta.shape[1] < window:
        none = torch.zeros_like(theta[:, 0])
        return none, none, (none, none), none
    bump = torch.as_tensor(_bump(window)).to(theta)
    whole = seen.unfold(1, window, 1).all(-1).to(theta.dtype)
    sine = torch.einsum("btnw,w->btn", theta.sin().unfold(1, window, 1), bump[0]) * whole
    first, second = (torch.einsum("btnw,w->btn", theta.unfold(1, window, 1), bump[k]) * whole for k in (1, 2))
    design = torch.stack([-sine, first], dim=-1)
    normal = torch.einsum("btni,btnj->bnij", design, design)
    eye = torch.eye(2, dtype=theta.dtype, device=theta.device)
    good = torch.linalg.det(normal.detach()) > 1e-12 * normal.detach().diagonal(dim1=-2, dim2=-1).prod(-1).clamp(min=1e-30)
    inverse = torch.linalg.inv_ex(torch.where(good[..., None, None], normal, eye)).inverse * good[..., None, None]
    solution = torch.einsum("bnij,btnj,btn->bni", inverse, design, second)
    left = second - torch.einsum("btni,bni->btn", design, solution)
    one = torch.ones_like(solution[..., :1])
    mixed = torch.cat([one, solution.detach() * torch.tensor([1.0, -1.0]).to(one)], dim=-1) @ bump[[2, 0, 1]]
    expected = (noise.square().unfold(1, window, 1) * mixed[:, None].square()).sum(-1)
    total = second.detach().square().sum(1).clamp(min=1e-30)
    residual = torch.relu(left.square().sum(1) - (expected * whole).sum(1)) / total
    errors = _errors(inverse, design.detach(), mixed, noise)
    return solution[..., 0], solution[..., 1], errors, residual.clamp(max=1)


def _errors(inverse: Tensor, design: Tensor, filters: Tensor, noise: Tensor) -> Sequence[Tensor]:
    """Standard errors of both coefficients, shape (B, N): each angle's error enters through all windows that hold it."""
    clips, steps, count = design.shape[:3]
    tracks = clips * count
    rows = design.permute(0, 2, 3, 1).reshape(1, 2 * tracks, steps)
    kernel = filters.reshape(tracks, 1, -1).repeat_interleave(2, 0)
    shares = torch.nn.functional.conv_transpose1d(rows, kernel, groups=2 * tracks).reshape(clips, count, 2, -1)
    inner = torch.einsum("bnis,bnjs,bsn->bnij", shares, shares, noise.square())
    return (inverse.detach() @ inner @ inverse.detach()).diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt().unbind(-1)


def _passes(theta: Tensor, noise: Tensor, seen: Tensor) -> Tensor:
    """Whether a body is seen on both sides of the lowest point and moves by more than its noise, shape (B, N)."""
    high = torch.where(seen, theta, float("-inf")).amax(1)
    low = torch.where(seen, theta, float("inf")).amin(1)
    typical = (noise * seen).sum(1) / seen.sum(1).clamp(min=1)
    return torch.isfinite(high - low) & (high - low > 12 * typical) & (high > 0) & (low < 0)
