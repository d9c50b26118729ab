"""Rigid shape: what is seen of a rigid body changes by place, rotation and a slow change of scale only.

Two numbers per object and frame say its shape whatever its orientation, from the area A and the second moments M of its mask:

    a = log A,    e = 1 - 4 det M / (tr M)^2,

the size and the elongation (0 for a disc). A rotation in the image plane changes neither; approaching the camera changes a
slowly and steadily. Sources: none; the choice of invariants is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from visviva.errors import InputError
from visviva.physics.laws.law import Residual, finite, require, weighted_mean
from visviva.physics.measurement import Measurement
from visviva.physics.tracks import Tracks


@dataclass(frozen=True)
class RigidShape:
    """Variance of size and elongation over time, plus the drift of the size, dimensionless.

    ``mean_t (a - line)^2 + mean_t (e - mean e)^2 + relu(|slope| (T - 1) - slow)^2`` averaged over objects, the line being
    the straight line fitted to the object's ``a``. Frames in which an object touches the border of the image or another
    object are left out: what is seen of it there is not its shape. Bodies that turn out of the image plane, and soft ones,
    violate it honestly.

    Attributes:
        slow: change of log area over the clip that perspective may cause, forgiven; 0.1 is 5 % in length.
        least_frames: frames in which an object must be seen whole.
        edge_noise: noise of a mask's edge [px]; the variance of log area that it causes is subtracted.

    Raises:
        InputError: no tracks and no masks; tracks without area or moments.

    Example::

        RigidShape()(measurement).value  # (B,)
    """

    slow: float = 0.1
    least_frames: int = 4
    edge_noise: float = 0.3

    name: ClassVar[str] = "rigid_shape"
    needs: ClassVar[frozenset[str]] = frozenset({"tracks"})
    detects: ClassVar[tuple[str, ...]] = ("size_drift", "shrink")
    scenes: ClassVar[tuple[str, ...]] = ("moves", "bounces", "collides", "spins")
    trivial: ClassVar[bool] = True
    anchor: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuse tolerances that cannot be meant."""
        if self.slow < 0 or self.edge_noise < 0 or self.least_frames < 3:
            raise InputError(
                f"slow {self.slow} and edge_noise {self.edge_noise} must not be negative, and least_frames "
                f"{self.least_frames} must be 3 or more"
            )

    def __call__(self, measurement: Measurement) -> Residual:
        """Return the residual of each clip; differentiable with respect to area and moments (or masks)."""
        require(measurement, self.name, self.needs)
        tracks = measurement.tracked()
        if tracks.area is None or tracks.moments is None:
            raise InputError(f"the law {self.name!r} needs area and moments of the tracks; use a probe that measures masks")
        area, clean_area = finite(tracks.area)
        moments, clean_moments = finite(tracks.moments)
        clean = clean_area & clean_moments
        touched = at_border(tracks, measurement.pixels) | at_another(tracks)
        whole = tracks.visible & ~touched & clean[:, None, None]
        weight = whole.to(area.dtype)
        count = weight.sum(1)
        size, noise = torch.log(area.clamp(min=1.0)), self._noise(area)
        trace = (moments[..., 0, 0] + moments[..., 1, 1]).clamp(min=1e-3)
        determinant = moments[..., 0, 0] * moments[..., 1, 1] - moments[..., 0, 1].square()
        shape = (1 - 4 * determinant / trace.square()).clamp(0, 1)
        bend, slope = _line(size, weight)
        drift = torch.relu(slope.abs() * (area.shape[1] - 1) - self.slow).square()
        warp = (shape - _mean(shape, weight)[:, None]).square()
        loose = torch.relu(_mean(bend.square(), weight) - _mean(noise, weight)) + _mean(warp, weight)
        enough = (count >= self.least_frames).to(area.dtype)
        value = weighted_mean(loose + drift, enough)
        sigma = weighted_mean(_mean(noise, weight) * (2 / count.clamp(min=1)).sqrt(), enough).detach()
        valid = enough.sum(1) > 0
        return Residual(torch.where(valid, value, 0.0), valid, torch.where(valid, sigma, 0.0))

    def _noise(self, area: Tensor) -> Tensor:
        """Variance of log area where each of the pixels along a disc's edge is off by ``edge_noise``."""
        around = 2 * (torch.pi * area.detach().clamp(min=1.0)).sqrt()
        return self.edge_noise**2 * around / area.detach().clamp(min=1.0).square()


def at_border(tracks: Tracks, pixels: tuple[int | None, int | None], margin: float = 1.5) -> Tensor:
    """Where an object reaches the border of the image, shape (B, T, N), bool; detached.

    An object is taken to reach twice the standard deviation of its pixels from its centre along each image axis, which is
    exact for an upright ellipse. Without pixels (tracks alone) no border is known, without moments no reach.
    """
    height, width = pixels
    if tracks.moments is None or height is None or width is None:
        return torch.zeros_like(tracks.visible)
    place = torch.nan_to_num(tracks.positions.detach())
    spread = torch.nan_to_num(tracks.moments.detach()).diagonal(dim1=-2, dim2=-1).clamp(min=0)
    reach = 2 * spread.sqrt() + margin
    size = torch.tensor([width - 1.0, height - 1.0]).to(place)
    return ((place - reach < 0) | (place + reach > size)).any(-1)


def at_another(tracks: Tracks, margin: float = 1.5) -> Tensor:
    """Where an object touches another one that is visible, shape (B, T, N), bool; detached. Both are taken to be round."""
    if tracks.moments is None or tracks.positions.shape[2] < 2:
        return torch.zeros_like(tracks.visible)
    place = torch.nan_to_num(tracks.positions.detach())
    trace = torch.nan_to_num(tracks.moments.detach()).diagonal(dim1=-2, dim2=-1).sum(-1)
    radius = (2 * trace.clamp(min=0)).sqrt()
    near = torch.cdist(place, place) < radius[..., :, None] + radius[..., None, :] + margin
    other = ~torch.eye(place.shape[2], dtype=torch.bool, device=place.device)
    return (near & other & tracks.visible[..., None, :]).any(-1)


def _mean(x: Tensor, weight: Tensor) -> Tensor:
    """Mean over time, (B, T, N) -> (B, N)."""
    return (x * weight).sum(1) / weight.sum(1).clamp(min=1)


def _line(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """What a straight line in time leaves of x (B, T, N), and its slope per frame (B, N)."""
    time = torch.arange(x.shape[1], dtype=x.dtype, device=x.device)[None, :, None]
    t, y = time - _mean(time.expand_as(x), weight)[:, None], x - _mean(x, weight)[:, None]
    slope = (weight * t * y).sum(1) / (weight * t.square()).sum(1).clamp(min=1)
    return y - slope[:, None] * t, slope
