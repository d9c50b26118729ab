"""Momentum: what one body loses at a contact another gains, along one line, and bodies part no faster than they met.

At a contact of two bodies ``m_i dv_i + m_j dv_j = 0`` in both axes, and the relative velocity along the line of their centres
is turned round by a coefficient of restitution between 0 and 1. Velocities on both sides come from parabolas through the
nearest frames (`visviva.physics.runs.crossings`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from visviva.physics.contact import REACH
from visviva.physics.laws.energy import DENSE, relative_masses
from visviva.physics.laws.law import Residual, require
from visviva.physics.measurement import Measurement
from visviva.physics.runs import Crossing, beyond, check_significance, crossings, length, runs_of_clips, sound
from visviva.physics.tracks import Tracks


@dataclass(frozen=True)
class Momentum:
    """Momentum that is not exchanged and restitution outside [0, 1], dimensionless, mean over contacts; all beyond 2 sigma.

    *Exchange*, per pair in contact: ``|dv_i + mu dv_j| / (|dv_i| + mu |dv_j|)``, mu = m_j / m_i. Masses are not seen: mu is the
    one that fits best among those that the areas allow to bodies of one density, from the ratio of the areas (discs seen flat)
    to its power 1.5 (balls). Forces from outside during the contact (a third body, the ground under a ball that is hit from
    above) are neglected.

    *Restitution*: with n the line of the centres, ``e = -(w_j - w_i) n / (v_j - v_i) n`` (w after, v before) must not exceed 1
    (energy from nothing) nor be negative (the bodies go through each other). Of a single body that hits the ground or a wall, n
    is the direction of its change of velocity, and only ``e > 1`` can be told. Pairs that meet with less than 3 standard errors
    of speed are not judged, nor are single bodies that do.

    Two bodies are in contact where the measurement says that the clip is in contact (or `visviva.physics.contact` finds it) and
    they are within 1.25 sums of their radii plus a pixel. Bodies that pass behind one another look like going through; going
    through without any change of velocity is only seen where contacts are given.

    *Applies* to clips with a contact and 3 frames or more on both sides of it, for at least one object; areas tell pairs, so
    without areas only single bodies are judged. Frozen, empty and noise clips have no contact and are not judged.

    Attributes:
        significance: standard errors that are forgiven.

    Example::

        Momentum()(Measurement(fps=fps, masks=masks, contact=contact)).value
    """

    significance: float = 2.0

    name: ClassVar[str] = "momentum"
    needs: ClassVar[frozenset[str]] = frozenset({"tracks"})
    detects: ClassVar[tuple[str, ...]] = ("momentum_gain", "energy_gain")
    scenes: ClassVar[tuple[str, ...]] = ("collides",)
    trivial: ClassVar[bool] = True
    anchor: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuse to forgive less than nothing."""
        check_significance(self.significance)

    def __call__(self, measurement: Measurement) -> Residual:
        """Return the violations of each clip; differentiable with respect to the positions."""
        require(measurement, self.name, self.needs)
        tracks, clean = sound(measurement)
        crossing = crossings(tracks, runs_of_clips(measurement, tracks))
        pair = pairs(tracks, crossing)
        exchange, sigma = self._exchange(tracks, crossing, pair)
        bounce, sigma_bounce, met = self._restitution(crossing, pair)
        alone, sigma_alone, hit = self._alone(crossing, pair)
        shares = ((exchange, sigma, pair), (bounce, sigma_bounce, met), (alone, sigma_alone, hit))
        value = tracks.positions.flatten(1).sum(1) * 0
        variance = value.detach()
        judged = torch.zeros_like(clean)
        for share, error, where in shares:
            count = where.flatten(1).sum(1)
            value = value + (share * where).flatten(1).sum(1) / count.clamp(min=1)
            variance = variance + (error * where).square().flatten(1).sum(1) / count.clamp(min=1).square()
            judged = judged | (count > 0)
        valid = judged & clean
        sigma = torch.where(valid, variance.sqrt(), 0.0).detach()
        return Residual(torch.where(valid, value, 0.0), valid, sigma)

    def _exchange(self, tracks: Tracks, crossing: Crossing, pair: Tensor) -> tuple[Tensor, Tensor]:
        """Share of the momentum that is not exchanged and its standard error, shape (B, R-1, N, N); (i, j) with i < j."""
        change, noise = crossing.change, crossing.sigma
        mass = relative_masses(tracks)
        bounds = torch.stack([(mass[:, None, :] / mass[:, :, None]) ** power for power in DENSE])
        low, high = bounds.amin(0)[:, None], bounds.amax(0)[:, None]
        one, two = change[:, :, :, None], change[:, :, None]
        best = -(one * two).sum(-1) / two.square().sum(-1).clamp(min=1e-12)
        ratio = torch.minimum(torch.maximum(best.detach(), low), high)
        left = length(one + ratio[..., None] * two)
        size = (length(one) + ratio * length(two)).detach()
        error = (noise[:, :, :, None].square() + (ratio * noise[:, :, None]).square()).sqrt()
        size = torch.maximum(size, 3 * error).clamp(min=1e-6)
        return beyond(left, error, self.significance) / size * pair, error / size * pair

    def _restitution(self, crossing: Crossing, pair: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Restitution of pairs outside [0, 1], its standard error and where it is known, shape (B, R-1, N, N)."""
        normal = crossing.place[:, :, None] - crossing.place[:, :, :, None]
        normal = normal / length(normal).clamp(min=1e-6)[..., None]
        before = ((crossing.before[:, :, None] - crossing.before[:, :, :, None]) * normal).sum(-1)
        after = ((crossing.after[:, :, None] - crossing.after[:, :, :, None]) * normal).sum(-1)
        error_before = _joint(crossing.sigma_before)
        error = (error_before.square() + _joint(crossing.sigma_after).square()).sqrt()
        met = pair & (before.detach() < -3 * error_before)
        meeting = before.detach().abs().clamp(min=1e-6)
        outside = torch.relu(after + before) + torch.relu(-after)
        sigma = torch.where(after.detach() < 0, _joint(crossing.sigma_after), error)
        return beyond(outside, sigma, self.significance) / meeting * met, sigma / meeting * met, met

    def _alone(self, crossing: Crossing, pair: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Restitution above 1 of bodies that hit no other body, its standard error and where it is known, shape (B, R-1, N)."""
        change = crossing.change.detach()
        normal = torch.nn.functional.normalize(change, dim=-1)
        before, after = (crossing.before * normal).sum(-1), (crossing.after * normal).sum(-1)
        paired = (pair | pair.transpose(-1, -2)).any(-1)
        struck = change.norm(dim=-1) > 5 * crossing.sigma
        hit = crossing.known & ~paired & struck & (before.detach() < -3 * crossing.sigma_before)
        meeting = before.detach().abs().clamp(min=1e-6)
        share = beyond(torch.relu(after + before), crossing.sigma, self.significance) / meeting
        return share * hit, crossing.sigma / meeting * hit, hit


def pairs(tracks: Tracks, crossing: Crossing) -> Tensor:
    """Return which pairs i < j are within reach at each contact, shape (B, R-1, N, N), bool."""
    count = tracks.visible.shape[2]
    both = crossing.known[:, :, None] & crossing.known[:, :, :, None]
    if tracks.area is None:
        return torch.zeros_like(both)
    area = tracks.mean_seen(torch.nan_to_num(tracks.area.detach()).to(tracks.positions.dtype))
    radius = (area.clamp(min=0) / torch.pi).sqrt()
    apart = torch.cdist(crossing.place.detach(), crossing.place.detach())
    reach = REACH * (radius[:, :, None] + radius[:, None]) + 1
    upper = torch.ones(count, count, dtype=torch.bool, device=apart.device).triu(1)
    return both & (apart <= reach[:, None]) & upper


def _joint(sigma: Tensor) -> Tensor:
    """Standard error of the difference of two objects, (B, R-1, N) -> (B, R-1, N, N)."""
    return (sigma[:, :, None].square() + sigma[:, :, :, None].square()).sqrt()
