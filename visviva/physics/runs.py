"""Runs: stretches of a track that no contact and no hidden frame interrupts, and polynomials fitted to each of them.

One fit per run is the weakest form of a derivative that the run allows: all its frames enter, weighted by their standard
errors, and nothing is differenced. Everything is batched over clips and objects: runs are numbered and summed by scattering,
whatever their lengths. Symbols as in `visviva.physics.measurement`; R is the number of runs there is room for.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import factorial

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from visviva.errors import InputError
from visviva.physics.contact import contact_frames
from visviva.physics.measurement import Measurement
from visviva.physics.tracks import Tracks

LEAST_SIGMA = 1e-3
"""Standard errors below this [px] are taken for this, so that exact tracks do not divide by zero."""


@dataclass(frozen=True)
class Runs:
    """Which run each frame of each track belongs to.

    Attributes:
        number: shape (B, T, N), long, from 0; only meaningful where ``inside``.
        inside: False for frames that belong to no run (contact, hidden), shape (B, T, N), bool.
        count: R.
    """

    number: Tensor
    inside: Tensor
    count: int

    def total(self, x: Float[Tensor, "B T N *D"]) -> Float[Tensor, "B R N *D"]:
        """Return the sum of x over the frames of each run."""
        weighted = x * self.inside.view(*self.inside.shape, *[1] * (x.ndim - 3)).to(x.dtype)
        out = torch.zeros(x.shape[0], self.count, *x.shape[2:], dtype=x.dtype, device=x.device)
        return out.scatter_add(1, self._index(x), weighted)

    def spread(self, y: Shaped[Tensor, "B R N *D"]) -> Shaped[Tensor, "B T N *D"]:
        """Return what y says of each frame's run."""
        steps = self.number.shape[1]
        return y.gather(1, self._index(y[:, :1].expand(-1, steps, *[-1] * (y.ndim - 2))))

    def within(self, chosen: Bool[Tensor, "B T N"]) -> Runs:
        """Return the same runs with only the chosen frames inside."""
        return Runs(self.number, self.inside & chosen, self.count)

    def _index(self, like: Tensor) -> Tensor:
        return self.number.view(*self.number.shape, *[1] * (like.ndim - 3)).expand_as(like)


@dataclass(frozen=True)
class RunFit:
    """One polynomial per run: derivatives at ``origin``.

    Attributes:
        derivatives: shape (B, R, N, degree + 1, D), [length / frame^k].
        covariance: of the derivatives of one coordinate, from the samples' standard errors, (B, R, N, degree + 1, degree + 1).
        squares: squares left over the squared standard errors, summed over samples and coordinates, shape (B, R, N).
        samples: number of frames, shape (B, R, N). freedom: degrees of freedom left, same shape.
        origin: mean time; first, last: times of the run's ends, shape (B, R, N) [frames].
        valid: more frames than coefficients, shape (B, R, N), bool; elsewhere everything is 0.
    """

    derivatives: Tensor
    covariance: Tensor
    squares: Tensor
    samples: Tensor
    freedom: Tensor
    origin: Tensor
    first: Tensor
    last: Tensor
    valid: Tensor

    def at(self, time: Float[Tensor, "B R N"], order: int = 0) -> tuple[Float[Tensor, "B R N D"], Float[Tensor, "B R N"]]:
        """Return the derivative of the given order at a time of each run [frames], and its standard error per coordinate."""
        degree, t = self.derivatives.shape[3] - 1, time - self.origin
        powers = [t ** (k - order) / factorial(k - order) if k >= order else torch.zeros_like(t) for k in range(degree + 1)]
        row = torch.stack(powers, dim=-1)
        variance = torch.einsum("brnk,brnkl,brnl->brn", row.detach(), self.covariance, row.detach())
        return torch.einsum("brnk,brnkd->brnd", row, self.derivatives), variance.clamp(min=0).sqrt()


def sound(measurement: Measurement) -> tuple[Tracks, Bool[Tensor, " B"]]:
    """Return the tracks with hidden zeros in clips that hold NaN or infinity, and which clips are clean."""
    tracks = measurement.tracked()
    finite = torch.isfinite(tracks.positions.detach()).all(-1) & torch.isfinite(tracks.sigma)
    clean = finite.flatten(1).all(1)
    keep = clean[:, None, None]
    positions = torch.where(keep[..., None], torch.nan_to_num(tracks.positions), 0.0)
    sigma = torch.where(keep, torch.nan_to_num(tracks.sigma.detach()), 1.0).clamp(min=LEAST_SIGMA)
    return tracks.with_(positions=positions, sigma=sigma, visible=tracks.visible & keep), clean


def runs_between(apart: Bool[Tensor, "B T N"]) -> Runs:
    """Number the stretches of frames that are not ``apart``; R is the most that so many frames can have, known beforehand.

    Example::

        runs_between(torch.tensor([[[False], [False], [True], [False]]])).number[0, :, 0]  # tensor([0, 0, 0, 1])
    """
    inside = ~apart
    begins = inside.clone()
    begins[:, 1:] &= ~inside[:, :-1]
    number = (begins.cumsum(1) - 1).clamp(min=0)
    return Runs(number, inside, max(1, (apart.shape[1] + 1) // 2))


def runs_of(measurement: Measurement, tracks: Tracks) -> Runs:
    """Return the runs of each track between contacts: those of the measurement where it has some, detected ones otherwise."""
    return runs_between(contact_frames(measurement.with_(tracks=tracks)) | ~tracks.visible)


def fit_runs(x: Float[Tensor, "B T N D"], sigma: Float[Tensor, "B T N"], runs: Runs, degree: int) -> RunFit:
    """Fit a polynomial to every run by least squares with weights 1 / sigma^2; differentiable with respect to x.

    Example::

        tracks, clean = sound(measurement)
        fit = fit_runs(tracks.positions, tracks.sigma, runs_of(measurement, tracks), degree=2)
        fit.derivatives[:, :, :, 2]  # accelerations [px/frame^2], shape (B, R, N, 2)
    """
    ones = torch.ones_like(sigma)
    count = runs.total(ones)
    time = torch.arange(x.shape[1], dtype=x.dtype, device=x.device)[None, :, None].expand_as(ones)
    origin = runs.total(time) / count.clamp(min=1)
    early = torch.where(runs.inside, time, float("inf"))
    first = torch.full_like(count, float("inf")).scatter_reduce(1, runs.number, early, "amin")
    first = torch.where(count > 0, first, 0.0)
    last = first + (2 * (origin - first)).round()
    half = ((last - first) / 2).clamp(min=1)
    s = (time - runs.spread(origin)) / runs.spread(half)
    weight = runs.spread(count / runs.total(sigma.reciprocal().square()).clamp(min=1e-12)) / sigma.square()
    design = torch.stack([s**k / factorial(k) for k in range(degree + 1)], dim=-1)
    weighted = design * weight[..., None]
    normal = runs.total(weighted[..., :, None] * design[..., None, :])
    valid = count > degree
    eye = torch.eye(degree + 1, dtype=x.dtype, device=x.device)
    inverse = torch.linalg.inv_ex(torch.where(valid[..., None, None], normal, eye)).inverse * valid[..., None, None]
    mean = runs.total(x) / count.clamp(min=1)[..., None]
    centred = x - runs.spread(mean)
    solution = inverse @ runs.total(weighted[..., :, None] * centred[..., None, :])
    left = centred - (runs.spread(solution) * design[..., None]).sum(-2)
    squares = runs.total((left.square().sum(-1)) / sigma.square()) * valid
    unit = torch.stack([half.pow(-k) for k in range(degree + 1)], dim=-1)
    derivatives = solution * unit[..., None]
    derivatives = torch.cat(
        [derivatives[..., :1, :] + (mean * valid[..., None])[..., None, :], derivatives[..., 1:, :]], dim=-2
    )
    variance = count / runs.total(sigma.reciprocal().square()).clamp(min=1e-12)
    covariance = inverse * (unit[..., :, None] * unit[..., None, :]) * variance[..., None, None]
    freedom = (x.shape[-1] * (count - degree - 1)).clamp(min=0)
    return RunFit(derivatives, covariance, squares, count, freedom, origin, first, last, valid)


def beyond(x: Tensor, sigma: Tensor, significance: float) -> Tensor:
    """Return what of x >= 0 exceeds ``significance`` standard errors, 0 where nothing does."""
    return torch.relu(x - significance * sigma.detach())


def check_significance(significance: float) -> None:
    """Refuse to forgive less than nothing.

    Raises:
        InputError: below 0.
    """
    if significance < 0:
        raise InputError(f"significance {significance} must be 0 or more standard errors; 2 is the default")


def length(x: Float[Tensor, "*S D"]) -> Float[Tensor, "*S"]:
    """Return the norm over the last dimension, with a gradient of 0 instead of NaN at 0."""
    return (x.square().sum(-1) + torch.finfo(x.dtype).tiny ** 0.5).sqrt()


def runs_of_clips(measurement: Measurement, tracks: Tracks, least: int = 1) -> Runs:
    """Return runs that are cut for all objects of a clip where any of them is in contact, so that they count alike.

    A hidden object is outside; it does not shift the numbers. Runs of fewer than ``least`` frames belong to the contacts.
    """
    cut = contact_frames(measurement.with_(tracks=tracks)).any(-1, keepdim=True).expand_as(tracks.visible)
    runs = runs_between(cut)
    short = runs.spread(runs.total(torch.ones_like(tracks.sigma))) < least
    return runs_between(cut | short).within(tracks.visible)


@dataclass(frozen=True)
class Crossing:
    """What each object does at the contact after each run.

    Attributes:
        before, after: velocities at the contact, shape (B, R-1, N, 2) [px/frame]; sigma_before, sigma_after: standard errors of
            one coordinate, shape (B, R-1, N).
        place: position at the contact, shape (B, R-1, N, 2) [px].
        known: whether both sides are, shape (B, R-1, N), bool.
    """

    before: Tensor
    after: Tensor
    sigma_before: Tensor
    sigma_after: Tensor
    place: Tensor
    known: Tensor

    @property
    def change(self) -> Tensor:
        """Velocity after minus before, shape (B, R-1, N, 2)."""
        return self.after - self.before

    @property
    def sigma(self) -> Tensor:
        """Standard error of one coordinate of ``change``, shape (B, R-1, N)."""
        return (self.sigma_before.square() + self.sigma_after.square()).sqrt()


def crossings(tracks: Tracks, runs: Runs, reach: int = 9, longest: int = 5) -> Crossing:
    """Return the velocities on both sides of the contacts between runs, from parabolas through the nearest ``reach`` frames.

    Both are taken at the instant where the parabolas meet (midway if they do not part), so that what a body gains on the way
    from one frame to the next is not taken for the contact's doing. Gaps of more than ``longest`` frames are not contacts, and
    across more than 5 the parabolas must meet within 4 standard errors.
    """
    time = torch.arange(tracks.frames, dtype=tracks.positions.dtype, device=tracks.positions.device)[None, :, None]
    ends = fit_runs(tracks.positions, tracks.sigma, runs, 0)
    late = time > runs.spread(ends.last) - reach
    early = time < runs.spread(ends.first) + reach
    one, two = (fit_runs(tracks.positions, tracks.sigma, runs.within(side), 2) for side in (late, early))
    left, right = (_slots(one, slice(None, -1)), _slots(two, slice(1, None)))
    middle = (left.last + right.first) / 2
    jump = right.at(middle)[0] - left.at(middle)[0]
    (before, error), (after, other) = left.at(middle, 1), right.at(middle, 1)
    kick = after - before
    sharp = kick.detach().norm(dim=-1) > 4 * (error.square() + other.square()).sqrt()
    half = ((right.first - left.last) / 2).clamp(min=0)
    instant = middle
    for _ in range(3):  # Newton's steps to where the parabolas meet
        offset = instant - middle - (jump * kick).sum(-1) / kick.square().sum(-1).clamp(min=1e-12)
        instant = middle + torch.minimum(torch.maximum(offset, -half), half) * sharp
        (start, unsure), (end, uncertain) = left.at(instant), right.at(instant)
        (before, error), (after, other) = left.at(instant, 1), right.at(instant, 1)
        jump, kick = end - start, after - before
    gap = right.first - left.last
    meets = jump.detach().norm(dim=-1) < 4 * (unsure.square() + uncertain.square()).sqrt() + LEAST_SIGMA
    known = left.valid & right.valid & (gap > 0) & (gap <= longest) & ((gap <= 5) | (meets & sharp))
    return Crossing(before, after, error, other, (left.at(instant)[0] + right.at(instant)[0]) / 2, known)


def _slots(fit: RunFit, part: slice) -> RunFit:
    return RunFit(*(getattr(fit, field.name)[:, part] for field in fields(fit)))
