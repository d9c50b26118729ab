"""Energy: mechanical energy may be lost to friction and impacts, but it never comes from nothing.

Per unit mass it is ``E = |v|^2 / 2 + g h``. At a contact the place does not change, so only the kinetic part counts and no g is
needed. Between contacts g is fitted: kinetic energy is regressed on height and time, and what grows with time is the gain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from visviva.physics.kinematics import window_fit
from visviva.physics.laws.free_fall import G
from visviva.physics.laws.law import Residual, require
from visviva.physics.measurement import Measurement
from visviva.physics.runs import Crossing, Runs, beyond, check_significance, crossings, runs_of_clips, sound
from visviva.physics.tracks import Tracks

WINDOW = 5
"""Frames of one velocity fit between contacts."""

LONGEST = 12
"""Frames between two runs whose energies are compared: a body may bounce twice in them, its energy must not grow."""

DENSE = (1.0, 1.5)
"""Powers of the area by which masses of one density may go: discs seen flat, balls."""


@dataclass(frozen=True)
class Energy:
    """Gains of mechanical energy in units of the largest kinetic energy, ``sum relu(dE - 2 sigma) / max E_kin``, dimensionless.

    *At contacts* velocities on both sides come from parabolas through the nearest 9 frames, taken where these meet; the energy
    of all objects of the clip is summed, with masses as the areas to the power of 1 (discs) or 1.5 (balls of one density),
    whichever is kinder (equal masses where areas are not measured); hops of fewer than 3 frames belong to the contact.
    *Between contacts* velocities come from parabolas through windows of 5 frames. Within each run
    ``v^2 / 2 = e + gamma y + p t`` is fitted, with one gamma >= 0 for all runs of a track (and at most g / scale where the
    scale is known: a rolling body has less than g, none has more); the power p times the length of the run is the gain.

    Assumes an upright camera, no motion in depth, rotation that carries little energy (a ball that turns spin into speed at a
    bounce gains), and no hand, motor or wind.

    *Applies* to clips with a run of 7 frames or more, or a contact with 3 frames or more on both sides, in which an object
    moves: its velocity reaches 5 standard errors. A track whose height does not change by 5 standard errors has gamma = 0.
    What trembles without a trend gains nothing either: frozen, empty and noise clips are for an anchor.

    Attributes:
        significance: standard errors that are forgiven.

    Example::

        Energy()(Measurement(fps=fps, tracks=tracks)).value  # zeros for a ball that bounces lower each time
    """

    significance: float = 2.0

    name: ClassVar[str] = "energy"
    needs: ClassVar[frozenset[str]] = frozenset({"tracks"})
    detects: ClassVar[tuple[str, ...]] = ("energy_gain", "reversed_time", "self_start")
    scenes: ClassVar[tuple[str, ...]] = ("collides", "bounces", "swings")
    trivial: ClassVar[bool] = True
    anchor: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuse to forgive less than nothing."""
        check_significance(self.significance)

    def __call__(self, measurement: Measurement) -> Residual:
        """Return the gains of each clip; differentiable with respect to the positions."""
        require(measurement, self.name, self.needs)
        tracks, clean = sound(measurement)
        runs = runs_of_clips(measurement, tracks, least=3)
        crossing = crossings(tracks, runs, longest=LONGEST)
        most = _most_gamma(measurement, tracks)
        gain, error, judged, kinetic = between(tracks, runs, most)
        kinetic = torch.maximum(kinetic, _fastest(crossing))
        mass = relative_masses(tracks)
        values, variances = [], []
        for power in DENSE:
            weight = mass**power
            top = (weight * kinetic).sum(1).detach().clamp(min=1e-12)
            inside = (beyond(torch.relu(gain), error, self.significance) * weight[:, None]).sum((1, 2))
            across, sigma = _at_contacts(crossing, weight)
            values.append((inside + beyond(torch.relu(across), sigma, self.significance).sum(1)) / top)
            spread = (error * weight[:, None]).square().sum((1, 2)) + sigma.square().sum(1)
            variances.append(spread / top.square())
        value, chosen = torch.stack(values).min(0)
        error_of = torch.stack(variances).gather(0, chosen[None])[0].sqrt()
        whole = (crossing.known | ~tracks.visible.any(1)[:, None]).all(-1) & crossing.known.any(-1)
        moves = _moves(kinetic, tracks)
        valid = clean & moves & (judged.flatten(1).any(1) | whole.any(1))
        return Residual(torch.where(valid, value, 0.0), valid, torch.where(valid, error_of, 0.0).detach())


def relative_masses(tracks: Tracks) -> Tensor:
    """Return each object's mean area over the clip's mean, shape (B, N), detached; ones where no area was measured."""
    if tracks.area is None:
        return torch.ones_like(tracks.positions[:, 0, :, 0])
    area = tracks.mean_seen(torch.nan_to_num(tracks.area.detach()).to(tracks.positions.dtype))
    present = (area > 0).to(area)
    mean = (area * present).sum(1, keepdim=True) / present.sum(1, keepdim=True).clamp(min=1)
    return torch.where(area > 0, area / mean.clamp(min=1e-12), 1.0)


def between(tracks: Tracks, runs: Runs, most: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Energy per mass that grows with time in each run: gain, its standard error, whether known, shape (B, R, N).

    The last value is the largest kinetic energy per mass, shape (B, N). ``most``: the largest gamma, shape (B, N).
    """
    frames = tracks.frames
    if frames < WINDOW:
        none = tracks.positions.new_zeros(len(tracks.sigma), runs.count, tracks.sigma.shape[2])
        return none, none, none.bool(), none[:, 0]
    seen = _Windows.of(tracks, runs)
    lines = _Lines.of(seen.runs, seen.kinetic)
    (curved, power), (height, fall) = lines.split(seen.kinetic), lines.split(seen.height)
    heights = height.square().sum(1)
    gamma = torch.minimum(torch.relu((curved * height).sum(1) / heights.clamp(min=1e-12)), most)
    sloped = _extent(seen.height.detach(), seen.runs.inside) > 5 * seen.noise.mean(1).sqrt()
    gamma = gamma * sloped
    length, judged = (lines.number - 1).clamp(min=0), lines.number >= 3
    variance = seen.variance(gamma.detach())
    unsure = torch.minimum(seen.gamma_error(height.detach(), variance), most - gamma.detach()) * sloped
    error = length * lines.slope_error(variance) / lines.spread
    error = (error.square() + (unsure[:, None] * fall.detach() * length).square()).sqrt().clamp(max=1e6)
    top = (seen.kinetic.detach() * seen.runs.inside).amax(1)
    return (power - gamma[:, None] * fall) * length * judged, error * judged, judged, torch.relu(top)


@dataclass(frozen=True)
class _Windows:
    """What parabolas through windows of 5 frames say of each object: height (down), squared speed, noise of a coordinate.

    All of shape (B, W, N); ``covariance``: of the fits, (3, 3), for unit noise.
    """

    runs: Runs
    height: Tensor
    speed2: Tensor
    noise: Tensor
    covariance: Tensor

    @classmethod
    def of(cls, tracks: Tracks, runs: Runs) -> _Windows:
        fit, count = window_fit(tracks.positions.flatten(2), WINDOW, 2), tracks.sigma.shape[2]
        place, velocity = (fit.derivatives[:, :, k].unflatten(2, (count, 2)) for k in (0, 1))
        number = runs.number[:, WINDOW // 2 : tracks.frames - WINDOW // 2]
        inside = runs.inside.unfold(1, WINDOW, 1).all(-1)
        noise = tracks.sigma.unfold(1, WINDOW, 1).square().mean(-1)
        return cls(Runs(number, inside, runs.count), place[..., 1], velocity.square().sum(-1), noise, fit.covariance)

    @property
    def kinetic(self) -> Tensor:
        """Energy per mass, without what noise adds."""
        return self.speed2 / 2 - self.noise * self.covariance[1, 1]

    def variance(self, gamma: Tensor) -> Tensor:
        """Of the energy with its share of height, detached."""
        fast = self.speed2.detach() * (self.noise * self.covariance[1, 1])
        return fast + gamma.square()[:, None] * self.noise * self.covariance[0, 0]

    def gamma_error(self, height: Tensor, variance: Tensor) -> Tensor:
        """Standard error of gamma, shape (B, N), from the heights about their trends."""
        of_noise = (self.noise * self.runs.inside).sum(1) * self.covariance[0, 0]
        certain = torch.relu(height.square().sum(1) - of_noise).clamp(min=1e-12)
        return ((self.runs.inside * height.square() * variance).sum(1) * WINDOW).sqrt() / certain


@dataclass(frozen=True)
class _Lines:
    """Straight lines in time through each run: number of windows, time since their mean, its sum of squares."""

    runs: Runs
    number: Tensor
    time: Tensor
    spread: Tensor

    @classmethod
    def of(cls, runs: Runs, like: Tensor) -> _Lines:
        number = runs.total(torch.ones_like(like))
        time = torch.arange(like.shape[1], dtype=like.dtype, device=like.device)[None, :, None].expand_as(like)
        time = time - runs.spread(runs.total(time) / number.clamp(min=1))
        return cls(runs, number, time, runs.total(time.square()).clamp(min=0.5))

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return what x is off its line, (B, W, N), and the line's slope, (B, R, N)."""
        x = x - self.runs.spread(self.runs.total(x) / self.number.clamp(min=1))
        slope = self.runs.total(x * self.time) / self.spread
        return (x - self.runs.spread(slope) * self.time) * self.runs.inside, slope

    def slope_error(self, variance: Tensor) -> Tensor:
        """Return the standard error of a slope times `spread`; neighbouring windows share their frames."""
        return (self.runs.total(self.time.square() * variance) * WINDOW).sqrt()


def _extent(x: Tensor, inside: Tensor) -> Tensor:
    """Largest minus smallest x among the frames inside, shape (B, N); 0 where there are none."""
    large = torch.where(inside, x, float("-inf")).amax(1)
    return torch.nan_to_num(large - torch.where(inside, x, float("inf")).amin(1), nan=0.0, neginf=0.0)


def _at_contacts(crossing: Crossing, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Energy gained by the objects of a clip at each contact and its standard error, shape (B, R-1)."""
    known = crossing.known.to(weight.dtype) * weight[:, None]
    after, before = crossing.after.square().sum(-1), crossing.before.square().sum(-1)
    gain = (known * ((after / 2 - crossing.sigma_after.square()) - (before / 2 - crossing.sigma_before.square()))).sum(-1)
    variance = after * crossing.sigma_after.square() + before * crossing.sigma_before.square()
    return gain, (known.square() * variance).sum(-1).detach().sqrt()


def _fastest(crossing: Crossing) -> Tensor:
    """Largest kinetic energy per mass on either side of a contact, shape (B, N), detached."""
    both = torch.maximum(crossing.before.square().sum(-1), crossing.after.square().sum(-1)).detach() / 2
    both = torch.nn.functional.pad(both * crossing.known, (0, 0, 0, 1))
    return both.amax(1)


def _most_gamma(measurement: Measurement, tracks: Tracks) -> Tensor:
    """g [px/frame^2] where the scale is known, infinity elsewhere, shape (B, N)."""
    like = torch.full_like(tracks.positions[:, 0, :, 0].detach(), float("inf"))
    if measurement.scale is None:
        return like
    known = torch.isfinite(measurement.scale) & (measurement.scale > 0)
    pixels = torch.where(known, G / (torch.where(known, measurement.scale, 1.0) * measurement.fps.square()), float("inf"))
    return torch.minimum(like, pixels.to(like)[:, None])


def _moves(kinetic: Tensor, tracks: Tracks, significance: float = 5.0) -> Tensor:
    """Whether any object reaches so many standard errors of a window's velocity, shape (B,)."""
    noise = tracks.mean_seen(tracks.sigma.square())
    return (2 * kinetic > significance**2 * noise * 12 / (WINDOW * (WINDOW**2 - 1))).any(-1)
