"""Gravity's direction: whatever flies in a clip is pulled the same way, and down where the camera stands upright."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from visviva.errors import InputError
from visviva.physics.kinematics import window_fit
from visviva.physics.laws.free_fall import flights
from visviva.physics.laws.law import Residual, require
from visviva.physics.laws.pendulum import circle
from visviva.physics.measurement import Measurement
from visviva.physics.runs import beyond, fit_runs, length, runs_of, sound


@dataclass(frozen=True)
class GravityDirection:
    """Share of the flights' accelerations that has another direction than gravity, dimensionless, 0 to 2.

    Accelerations come from parabolas through windows of ``window`` frames within each run between contacts. With u the common
    direction, ``sum relu(|a| - a u - noise) / sum |a|`` over the windows of all objects: 0 if all agree, 1 if they are at right
    angles, 2 if they are opposed. ``noise`` is what measurement noise adds on average, ``2 sigma_a^2 / 2 |a|`` (at most
    ``sqrt(pi / 2) sigma_a``). The common direction is image down for an ``upright`` camera, else that of the sum.

    *Applies* to clips in which an object flies: a run of ``window`` frames or more that changes its velocity by more than 4
    standard errors, on a path that a parabola misses by no more than 6 % of its extent (or by 4 times the noise that it
    shows). With an upright camera a straight path that is not vertical is a roll or a slide, and an arc that bulges downwards a
    swing: neither counts. Without, whatever accelerates counts, and at least two windows are needed. Frozen and empty clips do
    not fly, nor does white noise change its velocity.

    Attributes:
        upright: whether image down is down.
        window: frames of a fit.
        significance: standard errors of the value that are forgiven.

    Raises:
        InputError: a window that shows no acceleration.

    Example::

        GravityDirection()(Measurement(fps=fps, tracks=tracks)).value
    """

    upright: bool = True
    window: int = 7
    significance: float = 2.0

    name: ClassVar[str] = "gravity_direction"
    needs: ClassVar[frozenset[str]] = frozenset({"tracks"})
    detects: ClassVar[tuple[str, ...]] = ("jitter",)
    scenes: ClassVar[tuple[str, ...]] = ("falls",)
    trivial: ClassVar[bool] = True
    anchor: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuse windows that are too short."""
        if self.window < 4:
            raise InputError(f"window {self.window} is too short for an acceleration with its error; give 4 frames or more")

    def __call__(self, measurement: Measurement) -> Residual:
        """Return the residual of each clip; differentiable with respect to the positions."""
        require(measurement, self.name, self.needs)
        tracks, clean = sound(measurement)
        clips, frames, count = tracks.visible.shape
        if frames < self.window:
            nothing = tracks.positions.flatten(1).sum(1) * 0
            return Residual(nothing, torch.zeros_like(clean), nothing.detach())
        runs = runs_of(measurement, tracks)
        fit = fit_runs(tracks.positions, tracks.sigma, runs, 2)
        strong = fit.derivatives[..., 2, :].detach().norm(dim=-1) > 4 * fit.covariance[..., 2, 2].clamp(min=0).sqrt()
        flies = runs.spread(flights(tracks, runs, fit, self.upright, any_direction=True) & strong)
        if self.upright:
            flies = flies & ~circle(tracks)[3][:, None]
        inside = (runs.inside & flies).unfold(1, self.window, 1).all(-1) & clean[:, None, None]
        fits = window_fit(tracks.positions.flatten(2), self.window, 2)
        acceleration = fits.derivatives[:, :, 2].unflatten(2, (count, 2))
        noise = (tracks.sigma.unfold(1, self.window, 1).square().mean(-1) * fits.covariance[2, 2]).sqrt()
        weight = inside.to(noise.dtype)
        down = acceleration.new_tensor([0.0, 1.0]).expand(clips, 2)
        if not self.upright:
            total = (acceleration * weight[..., None]).sum((1, 2))
            down = total / length(total).clamp(min=1e-12)[:, None]
        size = length(acceleration)
        aside = size - torch.einsum("btnd,bd->btn", acceleration, down)
        whole = (size.detach() * weight).sum((1, 2)).clamp(min=1e-12)
        expected = torch.minimum(noise.square() / size.detach().clamp(min=1e-12), 1.2533 * noise)
        over = torch.relu((aside * weight).sum((1, 2)) - (expected * weight).sum((1, 2)))
        windows = weight.sum((1, 2))
        spread = ((expected.square() * weight).sum((1, 2)) * self.window).sqrt()
        valid = (windows >= 2) if not self.upright else windows >= 1
        value = beyond(over, spread, self.significance) / whole
        return Residual(torch.where(valid, value, 0.0), valid, torch.where(valid, spread / whole, 0.0).detach())
