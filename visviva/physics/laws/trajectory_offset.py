"""Trajectory offset: how far objects are from where the paired true clip has them, with more weight near collisions.

The reward of PhysRVG (arXiv 2601.11087) weighs each frame's distance from the true trajectory 1, 2 or 3: ordinary, beside a
collision, at a collision. Its exact reduction is not published (the weights are): the mean below is our reconstruction, and so
is its scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from visviva.errors import InputError
from visviva.physics.contact import contact_frames
from visviva.physics.laws.law import Residual, require
from visviva.physics.measurement import Measurement
from visviva.physics.runs import length, sound


@dataclass(frozen=True)
class TrajectoryOffset:
    """Weighted distance from the reference's tracks over how far these go, ``sum w |P - P_ref| / sum w |P_ref - P_ref(0)|``.

    Dimensionless: 0 on the reference's path, about 1 for a clip that stands still. The weights w are ``weights`` for frames
    away from, within ``beside`` frames of, and at the reference's contacts (given, or found by `visviva.physics.contact`).
    Distances that the noise of both tracks explains are taken off in the square; of a track that says to be less certain than
    the reference no more than a tenth of the mean way, so that a blurred object is not excused from moving. An object that is
    lost where the reference has it counts as standing where it was seen first, but never as nearer than its first distance;
    frames in which the reference is hidden do not count.

    *Applies* to clips whose reference moves: farther from its beginning, on average, than 4 standard errors.

    Attributes:
        weights: ordinary, beside a contact, at a contact.
        beside: frames around a contact that count as beside it.

    Raises:
        InputError: no tracks, no reference, or a reference of another length or number of objects.

    Example::

        TrajectoryOffset()(measurement.with_(reference=measurement)).value  # zeros
    """

    weights: tuple[float, float, float] = (1.0, 2.0, 3.0)
    beside: int = 2

    name: ClassVar[str] = "trajectory_offset"
    needs: ClassVar[frozenset[str]] = frozenset({"tracks", "reference"})
    detects: ClassVar[tuple[str, ...]] = (
        "teleport",
        "freeze",
        "dead_stop",
        "float",
        "vanish",
        "empty",
        "energy_gain",
        "reversed_time",
    )
    scenes: ClassVar[tuple[str, ...]] = ("bounces", "collides")
    trivial: ClassVar[bool] = False
    anchor: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse weights that reward being elsewhere."""
        if len(self.weights) != 3 or min(self.weights) < 0 or self.weights[0] == 0:
            raise InputError(f"weights {self.weights} are not three numbers of which the first is positive and none negative")

    def __call__(self, measurement: Measurement) -> Residual:
        """Return the offset of each clip; differentiable with respect to the positions, the reference is detached."""
        require(measurement, self.name, self.needs)
        reference = measurement.reference
        if reference is None or (reference.tracks is None and reference.masks is None):
            raise InputError(f"the law {self.name!r} needs tracks of the reference; measure it with the same probe")
        tracks, clean = sound(measurement)
        true, clean_true = sound(reference.detach())
        if tracks.positions.shape != true.positions.shape:
            raise InputError(
                f"tracks of shape {tuple(tracks.positions.shape)} do not fit the reference's {tuple(true.positions.shape)}; "
                "measure clips of one length with the same objects in the same order"
            )
        if tracks.positions.shape[2] == 0:
            nothing = tracks.positions.new_zeros(len(tracks.positions))
            return Residual(nothing, nothing.bool(), nothing)
        weight = self._weights(reference.with_(tracks=true)) * true.visible
        begins = _first(true.positions, true.visible)
        way = (true.positions - begins[:, None]).norm(dim=-1)
        usual = (way * true.visible).sum(1) / true.visible.sum(1).clamp(min=1)
        forgiven = torch.minimum(tracks.sigma, torch.maximum(true.sigma, 0.1 * usual[:, None]))
        noise = forgiven.square() + true.sigma.square()
        square = (tracks.positions - true.positions).square().sum(-1)
        apart = torch.relu(square - 2 * noise)
        apart = (apart + 1e-12).sqrt() - 1e-6
        lost = torch.maximum(way, length(_first(tracks.positions, tracks.visible) - begins)[:, None].detach())
        apart = torch.where(tracks.visible, apart, lost)
        far = (weight * way).sum((1, 2)).clamp(min=1e-6)
        value = (weight * apart).sum((1, 2)) / far
        sigma = (weight.square() * (tracks.sigma.square() + true.sigma.square())).sum((1, 2)).sqrt() / far
        still = (weight * true.sigma).sum((1, 2))
        valid = clean & clean_true & (far > 4 * still) & (weight.sum((1, 2)) > 0)
        return Residual(torch.where(valid, value, 0.0), valid, torch.where(valid, sigma, 0.0).detach())

    def _weights(self, reference: Measurement) -> Tensor:
        """The weight of each frame of each object, shape (B, T, N)."""
        struck = contact_frames(reference)
        width = 2 * self.beside + 1
        near = torch.nn.functional.max_pool1d(struck.double().transpose(1, 2), width, 1, self.beside).transpose(1, 2) > 0
        ordinary, beside, at = self.weights
        like = reference.tracked().positions
        return torch.where(struck, at, torch.where(near, beside, ordinary)).to(like)


def _first(positions: Tensor, visible: Tensor) -> Tensor:
    """Where each object is seen first, shape (B, N, 2); the origin if it never is."""
    first = visible & (visible.long().cumsum(1) == 1)
    return (positions * first[..., None]).sum(1)
