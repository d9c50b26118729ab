"""Where each object is in every frame, with its uncertainty, size, shape and spin: what the laws of bodies are about.

Symbols as in `visviva.physics.measurement`: B clips, T frames, N objects. Image y points down: angles grow clockwise as seen.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError
from visviva.physics.kinematics import centroids

CENTROID_NOISE = 0.3
"""Standard error [px] of where a mask's edge is, pixel by pixel, that `tracks_of_masks` assumes where none is given."""

LEAST_PEAK = 0.2
"""An object is not seen in a soft mask that nowhere reaches this: many pixels that might be it do not make one."""


@dataclass(frozen=True)
class Tracks:
    """Paths of N objects through the T frames of B clips.

    Attributes:
        positions: centre of mass (x, y), shape (B, T, N, 2) [px]; finite everywhere, meaningless where not ``visible``.
        visible: where the object was found, shape (B, T, N), bool. A hidden object is *not* interpolated.
        sigma: standard error of one coordinate of ``positions``, shape (B, T, N) [px]; detached.
        area: shape (B, T, N) [px^2]; None where not measured.
        moments: covariance of the object's pixels, shape (B, T, N, 2, 2) [px^2]: its axes and its orientation.
        spin: rotation rate from frame t to t+1, shape (B, T-1, N) [rad/frame], clockwise as seen.
        spin_sigma: standard error of ``spin``, same shape; detached.
        look: appearance of the object, shape (B, T, N, D), unit length; what identity is told by.

    Raises:
        InputError: shapes that disagree.

    Example::

        Tracks(torch.zeros(1, 9, 1, 2), torch.ones(1, 9, 1, dtype=torch.bool), torch.full((1, 9, 1), 0.1)).frames  # 9
    """

    positions: Tensor
    visible: Tensor
    sigma: Tensor
    area: Tensor | None = None
    moments: Tensor | None = None
    spin: Tensor | None = None
    spin_sigma: Tensor | None = None
    look: Tensor | None = None

    def __post_init__(self) -> None:
        """Refuse quantities that cannot belong to the same objects."""
        if self.positions.ndim != 4 or self.positions.shape[-1] != 2:
            raise InputError(f"track positions have shape {tuple(self.positions.shape)}; give (B, T, N, 2)")
        clips, steps, count = self.positions.shape[:3]
        per_frame, between = (clips, steps, count), (clips, steps - 1, count)
        wanted = {
            "visible": per_frame,
            "sigma": per_frame,
            "area": per_frame,
            "moments": (*per_frame, 2, 2),
            "spin": between,
            "spin_sigma": between,
        }
        for name, shape in wanted.items():
            value = getattr(self, name)
            if value is not None and tuple(value.shape) != shape:
                raise InputError(f"the tracks' {name} has shape {tuple(value.shape)}, which does not fit; give shape {shape}")
        if self.look is not None and tuple(self.look.shape[:3]) != per_frame:
            raise InputError(
                f"the tracks' look has shape {tuple(self.look.shape)}, which does not fit; give {per_frame} + (D,)"
            )

    @property
    def frames(self) -> int:
        """Number of frames T."""
        return self.positions.shape[1]

    def mean_seen(self, x: Float[Tensor, "B T N"]) -> Float[Tensor, "B N"]:
        """Return the mean of a quantity over the frames in which each object is seen; 0 where it never is."""
        seen = self.visible.to(self.positions.dtype)
        return (x * seen).sum(1) / seen.sum(1).clamp(min=1)

    def with_(self, **changes: Any) -> Tracks:
        """Return a copy with some quantities replaced."""
        return replace(self, **changes)

    def detach(self) -> Tracks:
        """Return a copy without gradient."""
        return self._each(lambda value: value.detach())

    def to(self, device: torch.device | str) -> Tracks:
        """Return a copy on another device."""
        return self._each(lambda value: value.to(device))

    def __getitem__(self, clips: Any) -> Tracks:
        """Return the tracks of a slice of the batch."""
        return self._each(lambda value: value[clips])

    def _each(self, change: Any) -> Tracks:
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: change(value) for name, value in given.items() if value is not None})


def tracks_of_masks(
    masks: Float[Tensor, "B T N H W"],
    flow: Float[Tensor, "B t 2 H W"] | None = None,
    least_area: float = 4.0,
    edge_noise: float = CENTROID_NOISE,
) -> Tracks:
    """Return the tracks of soft masks: centroid, area, second moments and, where flow is given, spin.

    Differentiable with respect to the masks and the flow. The centre of a mask of area A whose edge pixels are each uncertain
    by ``e`` [px] is uncertain by ``e sqrt(perimeter / 2) r / A``, with r and the perimeter those of a disc of the same area.
    The spin is half the curl of the least-squares affine motion of the flow inside the mask,
    ``sum(m (x X v)) / sum(m |x|^2)`` about the centre; exact for a rotating body seen along its axis. Of a clip whose masks
    (for the spin: masks or flow) hold NaN or infinity everything is NaN, without spoiling the gradient of the others.

    Example::

        tracks_of_masks(torch.rand(1, 8, 2, 32, 32)).positions.shape  # torch.Size([1, 8, 2, 2])
    """
    masks, clean = _clean(masks)
    positions, area = centroids(masks)
    safe = area.clamp(min=1e-6)
    height, width = masks.shape[-2:]
    ys = torch.arange(height, dtype=masks.dtype, device=masks.device) - positions[..., 1, None]
    xs = torch.arange(width, dtype=masks.dtype, device=masks.device) - positions[..., 0, None]
    columns, rows = masks.sum(-2), masks.sum(-1)
    xx, yy = (columns * xs.square()).sum(-1) / safe, (rows * ys.square()).sum(-1) / safe
    xy = (torch.einsum("btnhw,btnw->btnh", masks, xs) * ys).sum(-1) / safe
    moments = torch.stack([torch.stack([xx, xy], -1), torch.stack([xy, yy], -1)], -2)
    radius = (safe.detach() / torch.pi).sqrt()
    sigma = edge_noise * (torch.pi * radius).sqrt() * radius / safe.detach()
    visible = (area.detach() >= least_area) & (masks.detach().amax((-2, -1)) >= LEAST_PEAK)
    tracks = Tracks(_spoilt(positions, clean), visible, sigma, _spoilt(area, clean), _spoilt(moments, clean))
    if flow is None:
        return tracks
    flow, clean_flow = _clean(flow)
    return tracks.with_(spin=_spoilt(_spin(masks, flow, xs, ys, (xx + yy) * safe), clean & clean_flow))


def _clean(x: Tensor) -> tuple[Tensor, Tensor]:
    """Zeros instead of clips that hold NaN or infinity, and which clips hold none, shape (B,)."""
    clean = torch.isfinite(x.detach()).flatten(1).all(1)
    return torch.where(clean.view(-1, *[1] * (x.ndim - 1)), x, 0.0), clean


def _spoilt(x: Tensor, clean: Tensor) -> Tensor:
    return torch.where(clean.view(-1, *[1] * (x.ndim - 1)), x, float("nan"))


def _spin(masks: Tensor, flow: Tensor, xs: Tensor, ys: Tensor, inertia: Tensor) -> Tensor:
    """Return sum(m (x v_y - y v_x)) / sum(m r^2) for each object and pair of frames, shape (B, T-1, N)."""
    m, xs, ys = masks[:, :-1], xs[:, :-1], ys[:, :-1]
    along = torch.einsum("btnhw,bthw,btnw->btn", m, flow[:, :, 1], xs)
    across = torch.einsum("btnhw,bthw,btnh->btn", m, flow[:, :, 0], ys)
    return (along - across) / inertia[:, :-1].clamp(min=1e-6)
