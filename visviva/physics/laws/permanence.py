"""Permanence: bodies do not vanish, appear, fade or exchange their looks, unless the border or another body hides them.

Four things are asked of every object, all dimensionless:

- **mass**: its visible area stays what it is, ``relu(|1 - A / A_0| - slack)`` with A_0 the median of the frames in which it
  is seen whole. A frame in which it is hidden, or not a tenth of what was seen of it at most is left, counts as A = 0, unless
  it was last seen (or is seen for the first time) at the border, or touching another object that is still seen itself.
- **path**: it does not vanish here and appear there, ``relu(jump / (2 r) - 1)``, at most 1, with jump the second difference
  of its place and 2 r its diameter, away from contacts. Smaller jumps are left to the kinematic laws.
- **places**: two objects do not exchange theirs from one frame to the next. With d_ij the distance of i's place from where j
  was or, at constant velocity, would be, ``relu((d_ii + d_jj - d_ij - d_ji) / |p_i - p_j| - 1)``, at most 1; d_ii + d_jj is
  small in a collision, twice the distance in an exchange. Objects that overlap (one behind the other) are not compared.
- **identity**, where the looks of two or more objects are known: it resembles its own first look more than another's,
  ``relu(max_m l.l0_m - l.l0_n) / (1 - l0_m.l0_n)``, 1 for a full exchange.

Sources: none; the choice is ours. The first is the mass conservation of NewtonRewards (arXiv 2512.00425) without a reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from visviva.errors import InputError
from visviva.physics.contact import contact_frames
from visviva.physics.laws.law import Residual, finite, require, unknown, weighted_mean
from visviva.physics.laws.rigid_shape import at_another, at_border
from visviva.physics.measurement import Measurement
from visviva.physics.runs import length
from visviva.physics.tracks import Tracks

REST = 0.1
"""Share of an object's largest area; what is left of it below that is not the object, but a few pixels that look like it."""


@dataclass(frozen=True)
class Permanence:
    """Mean over frames and objects of the missing mass and of the lost identity, plus the jumps, dimensionless.

    Attributes:
        slack: relative change of area that masks of honest clips show, forgiven.
        alike: two looks whose cosine is above 1 - alike are not told apart.

    Raises:
        InputError: no tracks and no masks; tracks without area.

    Example::

        Permanence()(measurement).value  # (B,)
    """

    slack: float = 0.15
    alike: float = 0.05

    name: ClassVar[str] = "permanence"
    needs: ClassVar[frozenset[str]] = frozenset({"tracks"})
    detects: ClassVar[tuple[str, ...]] = ("vanish", "swapped_identity", "empty", "fade", "shrink")
    scenes: ClassVar[tuple[str, ...]] = ("moves", "bounces", "collides", "spins")
    trivial: ClassVar[bool] = True  # a frozen clip obeys
    anchor: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuse tolerances that forgive everything."""
        if not 0 <= self.slack < 1 or not 0 < self.alike < 1:
            raise InputError(f"slack {self.slack} must lie in [0, 1) and alike {self.alike} in (0, 1)")

    def __call__(self, measurement: Measurement) -> Residual:
        """Return the residual of each clip; differentiable with respect to area, positions (or masks) and looks."""
        require(measurement, self.name, self.needs)
        tracks = measurement.tracked()
        if tracks.area is None:
            raise InputError(f"the law {self.name!r} needs the area of the tracks; use a probe that measures masks")
        area, clean = finite(tracks.area)
        place, clean_place = finite(tracks.positions)
        clean = clean & clean_place
        visible = tracks.visible & clean[:, None, None] & (area.detach() > REST * area.detach().amax(1, keepdim=True))
        tracks = tracks.with_(visible=visible)
        border = at_border(tracks, measurement.pixels)
        other = at_another(tracks)
        whole = visible & ~border & ~other
        usual = torch.where(whole, area.detach(), float("nan")).nanmedian(dim=1, keepdim=True).values
        known = ~usual.isnan()
        usual = torch.nan_to_num(usual).clamp(min=1.0)
        hides = visible | visible.any(-1, keepdim=True)
        excused = _excused(visible, border) | (_excused(visible, other) & hides)
        counted = (known & ~excused).to(area.dtype)
        seen = torch.where(visible, area, area * 0)
        value = weighted_mean(torch.relu((1 - seen / usual).abs() - self.slack), counted)
        value = value + weighted_mean(self._lost_identity(tracks, whole), whole.to(area.dtype))
        valid = counted.flatten(1).any(1) & clean
        value = value + self._jumps(place, visible & ~contact_frames(measurement), usual) + _exchanges(place, visible, usual)
        return Residual(torch.where(valid, value, 0.0), valid, unknown(value))

    def _jumps(self, place: Tensor, free: Tensor, usual: Tensor) -> Tensor:
        """Jumps beyond an object's own diameter, summed over time, mean over objects, at most 1 each; shape (B,)."""
        bend = (place[:, 2:] - 2 * place[:, 1:-1] + place[:, :-2]).square().sum(-1).add(1e-12).sqrt()
        three = (free[:, 2:] & free[:, 1:-1] & free[:, :-2]).to(place.dtype)
        across = 2 * (usual / torch.pi).sqrt()
        return (torch.relu(bend / across - 1).clamp(max=1) * three).sum(1).clamp(max=1).mean(1)

    def _lost_identity(self, tracks: Tracks, whole: Tensor) -> Tensor:
        """How much more each object looks like another one did at first than like itself, shape (B, T, N)."""
        none = torch.zeros_like(tracks.positions[..., 0])
        if tracks.look is None or tracks.look.shape[2] < 2:
            return none
        look, clean = finite(tracks.look)
        early = (whole & (whole.cumsum(1) <= 3)).to(look.dtype)
        first = torch.nn.functional.normalize((look.detach() * early[..., None]).sum(1), dim=-1)
        likeness = torch.einsum("btnd,bmd->btnm", look, first)
        apart = 1 - torch.einsum("bnd,bmd->bnm", first, first)
        own = likeness.diagonal(dim1=-2, dim2=-1)[..., None]
        met = early.any(1) & clean[:, None]
        told = (apart > self.alike) & met[:, :, None] & met[:, None]
        lost = torch.relu(likeness - own) / apart.clamp(min=self.alike)[:, None] * told[:, None]
        return lost.amax(-1).clamp(max=1)


def _exchanges(place: Tensor, visible: Tensor, usual: Tensor) -> Tensor:
    """Exchanges of places, summed over time, mean over objects, at most 1 each; shape (B,)."""
    if place.shape[1] < 3 or place.shape[2] < 2:
        return place.flatten(1).sum(1) * 0
    now, later = place[:, 1:-1], place[:, 2:]
    ahead = 2 * now - place[:, :-2]
    off = torch.minimum(*(length(later[:, :, :, None] - origin[:, :, None]) for origin in (now, ahead)))
    own = off.diagonal(dim1=-2, dim2=-1)
    apart = length(now[:, :, :, None] - now[:, :, None]).detach()
    radius = (usual / torch.pi).sqrt()
    seen = visible[:, 2:] & visible[:, 1:-1] & visible[:, :-2]
    judged = seen[..., :, None] & seen[..., None, :] & (apart > 0.7 * (radius[..., :, None] + radius[..., None, :]))
    judged = judged & ~torch.eye(place.shape[2], dtype=torch.bool, device=place.device)
    gain = own[..., :, None] + own[..., None, :] - off - off.transpose(-1, -2)
    swap = torch.relu(gain / apart.clamp(min=1.0) - 1).clamp(max=1) * judged
    return swap.amax(-1).sum(1).clamp(max=1).mean(1)


def _excused(visible: Tensor, edge: Tensor) -> Tensor:
    """Frames (B, T, N) in which an object is at an edge, or hidden after it was last seen or before it is first seen there."""
    time = torch.arange(visible.shape[1], device=visible.device)[None, :, None]
    last = torch.where(visible, time, -1).cummax(1).values
    following = torch.where(visible, time, visible.shape[1]).flip(1).cummin(1).values.flip(1)
    entering = edge.gather(1, following.clamp(max=visible.shape[1] - 1)) & (following < visible.shape[1])
    return torch.where(last >= 0, edge.gather(1, last.clamp(min=0)), entering)
