"""Free fall: between contacts a body accelerates downwards by g = 9.81 m/s^2, whatever its mass and velocity.

The value of g is what constant acceleration does not teach (every constant acceleration obeys that law); it takes the clip's
scale in metres per pixel. Air drag and a tilted or approaching camera are not modelled: they count as deviations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from visviva.errors import InputError
from visviva.physics.contact import track_noise
from visviva.physics.laws.law import Residual, require
from visviva.physics.measurement import Measurement
from visviva.physics.runs import RunFit, Runs, beyond, fit_runs, length, runs_of, sound
from visviva.physics.tracks import Tracks

G = 9.81
"""Standard acceleration of free fall [m/s^2]."""


@dataclass(frozen=True)
class FreeFall:
    """Deviation of the flights' accelerations from g, ``relu(|a - g| - 2 sigma_a) / g``, dimensionless, mean over their frames.

    Each run between contacts is fitted by one parabola, ``a = scale fps^2 x''`` [m/s^2], y down. Contacts are cut out where the
    measurement has them, else where `visviva.physics.contact` finds them. 0.5 means half of g is missing, or half too much.

    *Applies* to clips with a known scale and at least one flight: a run of 4 frames or more in which the object moves by more
    than 4 standard errors, the acceleration is known to ``precision`` of g, and a parabola misses the path by no more than 6 %
    of its extent (or by the noise). With ``upright`` a straight path that is not vertical is held for a roll or a slide, and an
    acceleration by more than 60 degrees from downwards for a swing: neither is a flight. A ball that floats from the first
    frame on is thus not told from one that rolls: pair the law with an anchor.

    Attributes:
        upright: whether image down is down; if not, only the size of the acceleration counts, ``||a| - g|``.
        precision: largest standard error of a flight's acceleration, in units of g.
        significance: standard errors that are forgiven.

    Raises:
        InputError: no tracks (or masks) or no scale measured; a precision that is not positive.

    Example::

        law = FreeFall()
        law(Measurement(fps=fps, tracks=tracks, scale=torch.full_like(fps, 0.01))).value
    """

    upright: bool = True
    precision: float = 0.15
    significance: float = 2.0

    name: ClassVar[str] = "free_fall"
    needs: ClassVar[frozenset[str]] = frozenset({"tracks", "scale"})
    detects: ClassVar[tuple[str, ...]] = ("wrong_g", "float", "speed_up")
    scenes: ClassVar[tuple[str, ...]] = ("falls",)
    trivial: ClassVar[bool] = True
    anchor: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuse a precision that nothing can have."""
        if not self.precision > 0:
            raise InputError(f"precision {self.precision} must be positive, in units of g; 0.15 is the default")

    def __call__(self, measurement: Measurement) -> Residual:
        """Return the deviation of each clip; differentiable with respect to the positions."""
        require(measurement, self.name, self.needs)
        scale: Tensor = measurement.scale  # type: ignore[assignment]
        tracks, clean = sound(measurement)
        runs = runs_of(measurement, tracks)
        fit = fit_runs(tracks.positions, tracks.sigma, runs, 2)
        known = clean & torch.isfinite(scale) & (scale > 0)
        metres = torch.where(known, scale * measurement.fps.square(), 1.0).to(tracks.positions)[:, None, None]
        acceleration = fit.derivatives[..., 2, :] * metres[..., None]
        error = fit.covariance[..., 2, 2].clamp(min=0).sqrt() * metres
        if self.upright:
            deviation = length(acceleration - acceleration.new_tensor([0.0, G]))
        else:
            deviation = (length(acceleration) - G).abs()
        flies = flights(tracks, runs, fit, self.upright) & (error < self.precision * G) & known[:, None, None]
        weight = fit.samples * flies
        total = weight.sum((1, 2)).clamp(min=1)
        value = (beyond(deviation, error, self.significance) * weight).sum((1, 2)) / total / G
        sigma = (error * weight).square().sum((1, 2)).sqrt() / total / G
        valid = flies.flatten(1).any(1)
        return Residual(torch.where(valid, value, 0.0), valid, torch.where(valid, sigma, 0.0).detach())


def flights(
    tracks: Tracks, runs: Runs, fit: RunFit, upright: bool, least: int = 4, misfit: float = 0.06, any_direction: bool = False
) -> Tensor:
    """Return which runs may be free flights, shape (B, R, N), bool: see `FreeFall`.

    ``any_direction``: also those that accelerate in another direction than downwards, and by as much noise as they show.
    """
    derivatives, noise = fit.derivatives.detach(), (1 / runs.total(tracks.sigma.reciprocal().square()).clamp(min=1e-12)).sqrt()
    noise = noise * fit.samples.clamp(min=1).sqrt()
    half = (fit.last - fit.first) / 2
    velocity, acceleration = derivatives[..., 1, :], derivatives[..., 2, :]
    ends = [velocity * half[..., None] * sign + acceleration * (half.square() / 2)[..., None] for sign in (-1, 1)]
    chord = (ends[1] - ends[0]).norm(dim=-1)
    extent = torch.maximum(chord, torch.maximum(ends[0].norm(dim=-1), ends[1].norm(dim=-1)))
    left = (fit.squares.detach() / fit.freedom.clamp(min=1)).sqrt() * noise
    if any_direction:
        noise_seen = track_noise(tracks)[:, None].expand_as(noise)
        left = torch.where(left < 4 * noise_seen, 0.0, left)
    flies = fit.valid & (fit.samples >= least) & (extent > 4 * noise) & (left < torch.maximum(misfit * extent, 2.5 * noise))
    if not upright:
        return flies
    error = fit.covariance[..., 2, 2].clamp(min=0).sqrt()
    heading = torch.nn.functional.normalize(torch.where((chord > extent / 4)[..., None], ends[1] - ends[0], ends[1]), dim=-1)
    across = (acceleration[..., 0] * heading[..., 1] - acceleration[..., 1] * heading[..., 0]).abs()
    straight = across * half.square() / 2 < torch.maximum(0.02 * extent, 3 * error * half.square() / 2)
    vertical = heading[..., 1].abs() > 0.966
    strong = acceleration.norm(dim=-1) > 4 * error
    downwards = acceleration[..., 1] > 0.5 * acceleration.norm(dim=-1)
    return flies & (vertical | ~straight) & (downwards | ~strong | any_direction)
