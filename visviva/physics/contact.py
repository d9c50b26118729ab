"""Contacts found in tracks alone: instants at which a path keeps its place and changes its velocity within one frame.

Between two frames c and c + 1 the frames before and those after are fitted each by a polynomial of second degree, in windows
of several lengths on either side. A kink is a contact where, in at least one pair of windows,

- both fits hold: the squares left agree with the noise of the track;
- the velocities that they reach differ by more than ``significance`` standard errors, and by more than four times what the
  accelerations beside the gap do in one frame;
- the fits meet inside the gap: a path that jumps is a teleport, not a contact, and is left to the laws;
- one smooth polynomial with as many coefficients fits worse, so does one parabola whose acceleration changes somewhere, and
  all narrower windows agree on the change of velocity: neither a path that bends quickly but smoothly (a swing) nor one whose
  acceleration alone changes (a body that slides to rest) is in contact.

A change of velocity says nothing of its cause: a ball kicked in mid-air by a generator looks like a bounce. What the change may
be is up to the laws (energy, momentum). Not seen: contacts within 3 frames of the ends of a track (the frames beside them are
cut out where the third difference of the path leaps) or 4 of each other, soft contacts that last several frames, and sliding
contact without an impact.

Detection has no gradient. Symbols as in `visviva.physics.measurement`; the method is ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from visviva.errors import InputError
from visviva.physics.measurement import Measurement
from visviva.physics.tracks import Tracks

GROUND, WALL, OBJECT = 1, 2, 3
"""Kinds of contact: the change of velocity points up (within 45 degrees), elsewhere, or another object is within reach."""

SIDES = (3, 4, 6, 9, 13)
"""Lengths of the windows beside the gap [frames]."""

LEFT_OVER = (1.5, 4.0)
"""Fits hold whose mean square left, in units of the noise, is at most the first plus the second times its standard error."""

CURVED = 10.0
"""By how much a smooth curve must fit worse, in squared standard errors of one sample."""

SUDDEN = 4.0
"""The least change of velocity, in units of what the accelerations on either side do in one frame."""

DISAGREEMENT = 3.0
"""Largest difference from a narrower pair of windows, in standard errors."""

REACH = 1.25
"""Two objects touch if their centres are at most this many sums of their radii apart."""


@dataclass(frozen=True)
class Contacts:
    """Contacts of N objects in T frames of B clips.

    Attributes:
        instant: True in the frame nearest to a contact, shape (B, T, N), bool.
        near: True in the frame before and the frame after each contact, shape (B, T, N), bool: what to cut out. Also beside a
            sudden change within 3 frames of an end, of which too little is seen to say what it is.
        time: when, relative to the frame where ``instant`` is True, shape (B, T, N) [frames]; 0 elsewhere.
        kind: `GROUND`, `WALL` or `OBJECT`, 0 where there is no contact, shape (B, T, N).
        partner: the other object of an object's contact, -1 otherwise, shape (B, T, N).
        change: velocity after minus before, shape (B, T, N, 2) [px/frame]; 0 elsewhere, and where an object is in contact only
            because another one hits it and its own path shows no kink above its noise.
    """

    instant: Tensor
    near: Tensor
    time: Tensor
    kind: Tensor
    partner: Tensor
    change: Tensor

    @property
    def frames(self) -> Bool[Tensor, "B T"]:
        """Frames next to a contact of any object, as `Measurement.contact` has them."""
        return self.near.any(-1)


def contacts(tracks: Tracks, significance: float = 5.0) -> Contacts:
    """Find the contacts of each track; detached, batched over clips and objects.

    Measured on simulated bounces and collisions (24-60 fps, noise of 0.1-0.3 px): F1 of 0.9 and more within one frame, see
    ``tests/physics/test_contact.py``.

    Args:
        tracks: positions with their standard errors; areas tell which objects touch.
        significance: standard errors by which the velocity must change.

    Raises:
        InputError: ``significance`` that is not positive.

    Example::

        found = contacts(measurement.tracked())
        measurement.with_(contact=found.frames)
    """
    if not significance > 0:
        raise InputError(f"significance {significance} must be positive; 5 standard errors are the default")
    position = tracks.positions.detach().double()
    clips, frames, count = position.shape[:3]
    none = torch.zeros(clips, frames, count, dtype=torch.bool, device=position.device)
    if frames < 2 * SIDES[0] or count == 0:
        empty = none.to(tracks.positions.dtype)
        return Contacts(none, none, empty, none.long(), none.long() - 1, empty[..., None].expand(-1, -1, -1, 2))
    sigma = track_noise(tracks).double()
    score, change, offset, reach = _best_kink(position, sigma, tracks.visible, significance)
    gap = _peaks(score, reach)
    late = gap & (offset > 0)
    instant = _frames(gap & ~late, late)
    time = _frames(torch.where(gap & ~late, offset + 0.5, 0.0), torch.where(late, offset - 0.5, 0.0)).to(tracks.positions.dtype)
    change = _frames(change * (gap & ~late)[..., None], change * late[..., None]).to(tracks.positions.dtype)
    partner = _partners(position, tracks, instant)
    other = (partner[..., None] == torch.arange(count, device=partner.device)) & instant[..., None]
    struck = other.any(2) & ~_soon(instant)
    instant = instant | struck
    up = -change[..., 1] > change[..., 0].abs()
    kind = torch.where(partner >= 0, OBJECT, torch.where(up, GROUND, WALL)) * instant
    near = _frames(gap, gap) | struck | _loose_ends(position, sigma, tracks.visible)
    return Contacts(instant, near, time, kind, torch.where(instant, partner, -1), change)


def contact_frames(measurement: Measurement) -> Bool[Tensor, "B T N"]:
    """Return the frames to cut out for each object: the measurement's ``contact`` where it was given, detected otherwise."""
    tracks = measurement.tracked()
    if measurement.contact is not None:
        return measurement.contact.to(tracks.visible.device)[:, :, None].expand_as(tracks.visible)
    return contacts(tracks).near


def track_noise(tracks: Tracks) -> Float[Tensor, "B N"]:
    """Return the noise of one coordinate of each track [px]: its standard error, or its scatter where that is larger.

    The scatter is the 30th percentile of the lengths of the third differences, which few kinks do not reach and in which a
    free flight vanishes, divided by what it is for white noise of unit variance (Rayleigh's distribution).
    """
    position, seen = tracks.positions.detach(), tracks.visible
    stated = tracks.mean_seen(tracks.sigma.detach()).clamp(min=1e-3)
    if position.shape[1] < 8 or not position.shape[2]:
        return stated
    third = position.diff(n=3, dim=1).norm(dim=-1)
    whole = seen[:, 3:] & seen[:, 2:-1] & seen[:, 1:-2] & seen[:, :-3]
    typical = torch.nanquantile(torch.where(whole, third, float("nan")), 0.3, dim=1)
    return torch.maximum(stated, torch.nan_to_num(typical) / ((-2 * math.log(0.7)) ** 0.5 * 20**0.5))


@lru_cache(maxsize=64)
def _kink(left: int, right: int, shared: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Weights (4, n) of one pair of windows of n samples, their covariance, residual projectors (3, n, n), switches (n - 4, n).

    The weights give, at the middle of the gap: jump of place, jump of velocity, acceleration before, acceleration after. The
    projectors are those of the two fits beside the gap, of one polynomial with as many coefficients across it, and of a
    parabola. The squared component along a switch is what a change of acceleration at one of the inner samples takes off the
    parabola's squares.
    """
    time = np.arange(left + right) - left + 0.5
    after = (time > 0).astype(float)
    columns = [np.ones_like(time), time, time**2 / 2, after, after * time] + ([] if shared else [after * time**2 / 2])
    design = np.stack(columns, axis=1)
    inverse = np.linalg.pinv(design)
    bend = inverse[2] if shared else inverse[2] + inverse[5]
    weights = np.stack([inverse[3], inverse[4], inverse[2], bend])
    smooth = (time / len(time) * 2)[:, None] ** np.arange(design.shape[1])
    projectors = np.stack([np.eye(len(time)) - x @ np.linalg.pinv(x) for x in (design, smooth, smooth[:, :3])])
    switches = np.clip(time - time[2:-2, None], 0, None) ** 2 @ projectors[2]
    switches /= np.linalg.norm(switches, axis=1, keepdims=True)
    return weights, weights @ weights.T, projectors, switches


def _pairs(frames: int) -> list[tuple[int, int, bool]]:
    """Pairs of windows that fit into a clip, narrowest first; narrow ones share one acceleration."""
    both = [(a, b, True) for a in SIDES for b in SIDES] + [(a, b, False) for a in SIDES[1:] for b in SIDES[1:]]
    return sorted((pair for pair in both if sum(pair[:2]) <= frames), key=lambda pair: (sum(pair[:2]), not pair[2]))


def _best_kink(position: Tensor, sigma: Tensor, visible: Tensor, significance: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Score of the best pair of windows at every gap (0 where none holds), its change of velocity, when its fits meet, reach.

    Shapes (B, T-1, N), (B, T-1, N, 2), (B, T-1, N), (B, T-1, N, 2); the time is relative to the middle of the gap.
    """
    pad = torch.nn.functional.pad
    gaps = position.shape[1] - 1
    score, change = torch.zeros_like(position[:, 1:, :, 0]), torch.zeros_like(position[:, 1:])
    offset, reach = torch.zeros_like(score), torch.zeros_like(change)
    ladder: list[tuple[int, Tensor, float]] = []
    for left, right, shared in _pairs(position.shape[1]):
        found, kick, meet, unit = _kinks(position, sigma, visible, (left, right, shared), significance)
        around = (0, 0, left - 1, gaps - left + 1 - kick.shape[1])
        found, kick, meet = pad(found, around), pad(kick, (0, 0, *around)), pad(meet, around)
        for side, narrow, error in ladder:
            if side <= min(left, right) and side < max(left, right):
                most = DISAGREEMENT * max(error**2 - unit**2, 0.0) ** 0.5 * sigma[:, None] + 1e-6
                found = torch.where((narrow - kick).norm(dim=-1) < most, found, 0.0)
        if left == right and shared:
            ladder.append((left, kick, unit))
        better = found > score
        score, offset = torch.where(better, found, score), torch.where(better, meet, offset)
        change = torch.where(better[..., None], kick, change)
        reach = torch.where(better[..., None], position.new_tensor([left, right]), reach)
    return score, change, offset, reach


def _kinks(
    position: Tensor, sigma: Tensor, visible: Tensor, pair: tuple[int, int, bool], significance: float
) -> tuple[Tensor, Tensor, Tensor, float]:
    """Score at the gaps that one pair of windows fits around, change of velocity, when the fits meet, unit error of change."""
    left, right, shared = pair
    weights, covariance, projectors, switches = (torch.as_tensor(a).to(position) for a in _kink(*pair))
    window, noise = position.unfold(1, left + right, 1), sigma[:, None]
    jump, kick, before, after = torch.einsum("btndw,kw->kbtnd", window, weights)
    squares = torch.einsum("btndw,kwv->kbtndv", window, projectors).square().sum((-1, -2)) / noise.square()
    switched = squares[2] - torch.einsum("btndw,kw->kbtnd", window, switches).square().sum(-1).amax(0) / noise.square()
    errors = covariance.diagonal().sqrt()[:, None, None, None] * noise
    size = kick.norm(dim=-1).clamp(min=1e-12)
    meet = -(jump * kick).sum(-1) / size.square()
    apart = (jump + kick * meet[..., None]).norm(dim=-1)
    bend = torch.maximum(before.norm(dim=-1) - 2 * errors[2], after.norm(dim=-1) - 2 * errors[3])
    freedom = max(2 * (left + right - (5 if shared else 6)), 1)
    fits = squares[0] < freedom * (LEFT_OVER[0] + LEFT_OVER[1] * (2 / freedom) ** 0.5)
    sudden = (
        (size > significance * errors[1]) & (size > SUDDEN * bend) & (torch.minimum(squares[1], switched) > squares[0] + CURVED)
    )
    joined = (meet.abs() < 0.5 + 3 * errors[0] / size) & (apart < 4 * errors[0])
    holds = visible.unfold(1, left + right, 1).all(-1) & fits & sudden & joined
    return torch.where(holds, size / errors[1], 0.0), kick, meet.clamp(-0.5, 0.5), float(_kink(*pair)[1][1, 1]) ** 0.5


def _loose_ends(position: Tensor, sigma: Tensor, visible: Tensor) -> Tensor:
    """The two frames beside a kink in the first or last 3 frames, shape (B, T, N), bool: a third difference out of line.

    It must be above 5 of its standard errors and 4 times the one before it, so that a path that bends smoothly has none.
    """
    if position.shape[1] < 7:
        return torch.zeros_like(visible)
    ends = []
    for path, seen in ((position, visible), (position.flip(1), visible.flip(1))):
        third = path[:, -7:].diff(n=3, dim=1).norm(dim=-1)
        whole = seen[:, -7:].unfold(1, 4, 1).all(-1)
        quiet = torch.maximum(5 * 20**0.5 * sigma[:, None], 4 * third[:, :-1])
        kink = whole[:, 1:] & whole[:, :-1] & (third[:, 1:] > quiet)
        beside = torch.nn.functional.pad(kink, (0, 0, position.shape[1] - 3, 0))
        ends.append(beside | torch.nn.functional.pad(beside[:, 1:], (0, 0, 0, 1)))
    return ends[0] | ends[1].flip(1)


def _peaks(score: Tensor, reach: Tensor) -> Tensor:
    """Gaps with a score above those of all gaps inside their own windows and within 3 gaps, shape (B, T-1, N), bool."""
    flat = score.transpose(1, 2)
    local = torch.nn.functional.max_pool1d(flat, 7, 1, 3) == flat
    standing = torch.where(local, flat, 0.0)
    most = max(SIDES) - 1
    near = torch.nn.functional.pad(standing, (most, most)).unfold(-1, 2 * most + 1, 1)
    ahead = torch.arange(-most, most + 1, device=score.device)
    before, after = reach.transpose(1, 2).unbind(-1)
    inside = (ahead > -before[..., None]) & (ahead < after[..., None]) & (ahead != 0)
    rival = torch.where(inside, near, 0.0).amax(-1)
    return ((standing > 0) & (standing > rival)).transpose(1, 2)


def _frames(early: Tensor, late: Tensor) -> Tensor:
    """Put what gaps hold into frames: ``early`` into the frame before the gap, ``late`` into the one after it."""
    rest = (0, 0) * (early.ndim - 2)
    before, after = torch.nn.functional.pad(early, (*rest, 0, 1)), torch.nn.functional.pad(late, (*rest, 1, 0))
    return before | after if early.dtype == torch.bool else before + after


def _soon(instant: Tensor) -> Tensor:
    """Frames within one frame of an instant, same shape (B, T, N)."""
    return torch.nn.functional.max_pool1d(instant.double().transpose(1, 2), 3, 1, 1).transpose(1, 2) > 0


def _partners(position: Tensor, tracks: Tracks, instant: Tensor) -> Int[Tensor, "B T N"]:
    """The nearest object within reach in each frame, -1 where there is none; without areas, one that kinks within a frame."""
    clips, frames, count = instant.shape
    if count < 2:
        return torch.full_like(instant, -1, dtype=torch.long)
    apart = torch.cdist(position, position)
    if tracks.area is None:
        near = _soon(instant)[:, :, None, :].expand(clips, frames, count, count)
    else:
        radius = (tracks.area.detach().double().clamp(min=0) / torch.pi).sqrt()
        near = apart <= REACH * (radius[..., :, None] + radius[..., None, :]) + 1
    own = torch.eye(count, dtype=torch.bool, device=apart.device)
    seen = tracks.visible[:, :, None, :] & tracks.visible[:, :, :, None]
    apart = torch.where(near & seen & ~own, apart, float("inf"))
    nearest = apart.min(-1)
    return torch.where(torch.isfinite(nearest.values), nearest.indices, -1)
