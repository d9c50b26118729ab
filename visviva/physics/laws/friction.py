"""Friction: a body that slides or rolls slows down at one rate until it rests, and what rests stays at rest.

Coulomb friction and rolling resistance decelerate by a constant, ``mu g cos(slope)``, whatever the speed; on a slope gravity
adds another constant. So the way along the straight path is one parabola while the body moves, its speed reaches zero
smoothly, and it speeds up only downhill.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from visviva.errors import InputError
from visviva.physics.contact import OBJECT, contacts, track_noise
from visviva.physics.kinematics import window_fit
from visviva.physics.laws.law import Residual, require
from visviva.physics.measurement import Measurement
from visviva.physics.runs import RunFit, Runs, beyond, fit_runs, runs_between, sound
from visviva.physics.tracks import Tracks

WINDOW = 5
"""Frames of one velocity fit that tells motion from rest."""


PAUSE = 5
"""Windows in a row in which a body must rest before it can start by itself: a turning point is shorter."""

VERTICAL = math.radians(10)
"""Paths that close to vertical, downwards, are held for falls."""


@dataclass(frozen=True)
class Friction:
    """Violations of sliding and rolling friction on straight paths, dimensionless: four shares, summed over a track's runs.

    With v the mean speed of a moving run, L its length in frames, all beyond 2 standard errors:

    - *uneven*: ``|a_late - a_early| L / v``, the change of the acceleration along the run (its cubic coefficient times L): the
      coefficient of friction must be the same in its windows;
    - *driven*: ``a L / v`` where the acceleration has the direction of the velocity, unless that points downhill;
    - *stopped*: the speed that the run's parabola still has when the body comes to rest, over v;
    - *self start*: the way that a body which has rested goes without being touched, over the whole way.

    The contacts that count as being touched are those the measurement gives; where it gives none, impacts between objects that
    `visviva.physics.contact` finds: a sudden stop without anything that could have caused it is a violation here. Give contacts
    where bodies hit walls.

    *Applies* to objects whose path is straight (across it at most 1.5 times the noise of the track or 1.5 % of its length),
    longer than 10 times that noise, seen moving in 6 frames in a row or more. Paths straight down (within 10 degrees) are held
    for falls. A body moves in a window of 5 frames where its speed exceeds 4 standard errors and 4 % of its largest. Frozen,
    empty and noise clips are not judged.

    Attributes:
        slope: paths flatter than this are level [radians]: nothing speeds up on them.
        overhead: the camera looks down on a level plane: no path is downhill, none a fall.
        significance: standard errors that are forgiven.

    Example::

        Friction()(Measurement(fps=fps, tracks=tracks)).value
    """

    slope: float = 0.03
    overhead: bool = False
    significance: float = 2.0

    name: ClassVar[str] = "friction"
    needs: ClassVar[frozenset[str]] = frozenset({"tracks"})
    scenes: ClassVar[tuple[str, ...]] = ("slides",)
    trivial: ClassVar[bool] = True
    anchor: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuse slopes that are none."""
        if not 0 <= self.slope < math.pi / 2:
            raise InputError(f"slope {self.slope} is no angle of a plane [radians]; give one from 0 to 1.5")

    @property
    def detects(self) -> tuple[str, ...]:
        """Violations that it must separate from true clips; what speeds up may go downhill unless seen from above."""
        return ("self_start", "reversed_time") if self.overhead else ("self_start",)

    def __call__(self, measurement: Measurement) -> Residual:
        """Return the violations of each clip; differentiable with respect to the positions."""
        require(measurement, self.name, self.needs)
        tracks, clean = sound(measurement)
        if tracks.positions.shape[2] == 0:
            nothing = tracks.positions.new_zeros(len(tracks.positions))
            return Residual(nothing, nothing.bool(), nothing)
        heading, way, straight = line(tracks)
        if not self.overhead:
            straight = straight & ~_falls(tracks, heading)
        moves, rests = moving(tracks)
        touched = _touched(measurement, tracks)
        runs = runs_between(touched | ~moves)
        fit = fit_runs(way[..., None], tracks.sigma, runs, 3)
        long = fit.valid & (fit.samples >= 6)
        judged = straight & long.any(1) & clean[:, None]
        value, sigma = self._of_runs(fit, heading, long)
        stopped, sigma_stopped = self._stops(way, tracks, runs, rests, long)
        started, sigma_started = _starts(way, tracks, rests, touched, self.significance)
        value = (value + stopped).sum(1) + started
        error = ((sigma.square() + sigma_stopped.square()).sum(1) + sigma_started.square()).sqrt()
        count = judged.sum(1).clamp(min=1)
        valid = judged.any(1)
        value, error = (value * judged).sum(1) / count, (error * judged).square().sum(1).sqrt() / count
        return Residual(torch.where(valid, value, 0.0), valid, torch.where(valid, error, 0.0).detach())

    def _of_runs(self, fit: RunFit, heading: Tensor, long: Tensor) -> tuple[Tensor, Tensor]:
        """The uneven and the driven share of each run and their standard error, shape (B, R, N)."""
        span = (fit.last - fit.first).clamp(min=1)
        speed, bend, change = (fit.derivatives[..., k, 0] for k in (1, 2, 3))
        errors = fit.covariance.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()
        mean = torch.maximum(speed.detach().abs(), errors[..., 1]).clamp(min=1e-6)
        uneven = beyond(change.abs() * span, errors[..., 3] * span, self.significance) * span / mean
        forwards = torch.sign(speed.detach())
        falls = forwards * heading[:, None, :, 1] > math.sin(self.slope)
        driven = beyond(torch.relu(forwards * bend), errors[..., 2], self.significance) * span / mean
        driven = driven * (~falls if not self.overhead else torch.ones_like(falls))
        sigma = span / mean * (errors[..., 2].square() + (errors[..., 3] * span).square()).sqrt()
        return (uneven + driven) * long, sigma * long

    def _stops(self, way: Tensor, tracks: Tracks, runs: Runs, rests: Tensor, long: Tensor) -> tuple[Tensor, Tensor]:
        """Speed at the end of each run that rest follows, over its mean speed, and its standard error, shape (B, R, N)."""
        fit = fit_runs(way[..., None], tracks.sigma, runs, 2)
        after = torch.nn.functional.pad(rests[:, 3:], (0, 0, 0, 3))
        number = fit.last.long().clamp(min=0, max=tracks.frames - 1)
        rested = after.gather(1, number)
        speed, error = fit.at(fit.last + 0.5, 1)
        mean = torch.maximum(fit.derivatives[..., 1, 0].detach().abs(), error).clamp(min=1e-6)
        coming = torch.relu(speed[..., 0] * torch.sign(fit.derivatives[..., 1, 0].detach()))
        bend = fit.derivatives[..., 2, 0].detach().abs()
        share = beyond(torch.relu(coming - 2 * bend), error, self.significance) / mean
        chosen = long & rested
        return share * chosen, error / mean * chosen


def line(tracks: Tracks) -> tuple[Tensor, Tensor, Tensor]:
    """Return the direction of each path (B, N, 2), the way along it (B, T, N) and whether it is straight (B, N)."""
    weight = tracks.visible.to(tracks.positions.dtype)
    count = weight.sum(1).clamp(min=1)
    mean = (tracks.positions * weight[..., None]).sum(1) / count[..., None]
    near = (tracks.positions - mean[:, None]) * weight[..., None]
    scatter = torch.einsum("btni,btnj->bnij", near, near).detach() / count[..., None, None]
    eye = torch.diag(torch.tensor([1.0, 2.0])).to(scatter)
    values, axes = torch.linalg.eigh(torch.where(count[..., None, None] > 2, scatter, eye))
    heading = axes[..., 1]
    way = torch.einsum("btni,bni->btn", near, heading)
    extent = (way.amax(1) - way.amin(1)).detach()
    noise = track_noise(tracks)
    across = torch.relu(values[..., 0]).sqrt()
    straight = (across < torch.maximum(1.5 * noise, 0.015 * extent)) & (extent > 10 * noise) & (count > 2)
    return heading, way, straight


def moving(tracks: Tracks) -> tuple[Tensor, Tensor]:
    """Return which frames are the middle of a window in which the body moves, and of one in which it rests, (B, T, N), bool."""
    frames, count = tracks.frames, tracks.positions.shape[2]
    if frames < WINDOW:
        none = torch.zeros_like(tracks.visible)
        return none, none
    fit = window_fit(tracks.positions.detach().flatten(2), WINDOW, 1)
    speed = fit.derivatives[:, :, 1].unflatten(2, (count, 2)).norm(dim=-1)
    noise = (tracks.sigma.unfold(1, WINDOW, 1).square().mean(-1) * fit.covariance[1, 1]).sqrt()
    whole = tracks.visible.unfold(1, WINDOW, 1).all(-1)
    top = (speed * whole).amax(1, keepdim=True)
    moves = whole & (speed > torch.maximum(4 * noise, 0.04 * top))
    half = WINDOW // 2
    rests = whole & (speed < torch.maximum(2.5 * noise, 0.02 * top))
    around = (0, 0, half, half)
    return torch.nn.functional.pad(moves, around), torch.nn.functional.pad(rests, around)


def _falls(tracks: Tracks, heading: Tensor) -> Tensor:
    """Whether a path is vertical and its end lies below its beginning, shape (B, N)."""
    seen = tracks.visible
    first = seen & (seen.long().cumsum(1) == 1)
    last = seen & (seen.long().flip(1).cumsum(1).flip(1) == 1)
    y = tracks.positions[..., 1].detach()
    return (heading[..., 1].abs() > math.cos(VERTICAL)) & ((y * last).sum(1) > (y * first).sum(1))


def _touched(measurement: Measurement, tracks: Tracks) -> Tensor:
    if measurement.contact is not None:
        return measurement.contact.to(tracks.visible.device)[:, :, None].expand_as(tracks.visible)
    found = contacts(tracks)
    struck = (found.kind == OBJECT).double().transpose(1, 2)
    return torch.nn.functional.max_pool1d(struck, 3, 1, 1).transpose(1, 2) > 0


def _starts(way: Tensor, tracks: Tracks, rests: Tensor, touched: Tensor, significance: float) -> tuple[Tensor, Tensor]:
    """Way gone after a rest without being touched, over the whole way, and its standard error, shape (B, N)."""
    rests = torch.nn.functional.pad(rests, (0, 0, PAUSE - 1, 0)).unfold(1, PAUSE, 1).all(-1)
    rested = rests.long().cummax(1).values.bool()
    free = rested & ~(touched & rested).long().cummax(1).values.bool()
    seen = tracks.visible
    first = rests & (rests.long().cumsum(1) == 1)
    start = (way * first).sum(1, keepdim=True)
    moved = torch.where(free & seen, (way - start).abs(), 0.0)
    gone = beyond(moved, tracks.sigma, 2 * significance).amax(1)
    extent = (way.amax(1) - way.amin(1)).detach().clamp(min=1e-6)
    noise = (tracks.sigma * seen).sum(1) / seen.sum(1).clamp(min=1)
    return gone / extent, noise / extent
