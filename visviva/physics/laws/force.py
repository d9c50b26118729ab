"""Force response: measured accelerations are the commanded forces over the masses, in direction, in ratio, and where told.

Newton's second law for force prompts (Force Prompting, arXiv 2505.19386, judges this by people; the residual is ours). A force
that acts from rest during the first ``push`` of a clip of duration T moves a body by ``a s(t)``,

    s(t) = t^2 / 2 for t < push T,    push T (t - push T / 2) after,

so the acceleration a is the least-squares slope of the measured positions against s; what s does not explain of them, a body
that starts late or stops, is motion that was not commanded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError
from visviva.physics.laws.law import Residual, finite_clips, require
from visviva.physics.measurement import Measurement
from visviva.physics.runs import sound
from visviva.physics.tracks import Tracks

CLEAR = 3.0
"""Accelerations below so many standard errors of themselves are none."""


@dataclass(frozen=True)
class ForceResponse:
    """Share of the motion that is not the commanded one, over all objects of a clip together; in [0, 1].

    With a and f the accelerations [px/frame^2] and the commanded forces over masses of all N objects, each as one vector of
    2 N numbers, ``1 - (a . f)_+^2 / ((|a|^2 + r^2) |f|^2)``, the squared sine of the angle between what was commanded and the
    whole motion, where r is what s(t) does not explain of the positions, in units of an acceleration: 0 where every object
    answers at once, in its direction, in the ratio of the forces over the masses, and what is not pushed stays; 1 for a clip
    that stands still, moves the other way, or has lost its objects. It does not change when the picture is turned, zoomed or
    played at another rate. What the noise of the tracks explains is taken off. With ``response`` the strength counts too:
    ``(|a - response f|^2 + r^2) / |response f|^2``, at most 1.

    *Applies* to clips with objects and a force on at least one of them. An object that is seen in fewer than 3 frames counts as
    not moving.

    Attributes:
        push: share of the clip during which forces act; 1 for the whole.
        response: acceleration per unit of commanded force over mass [px/frame^2]; None: any positive one.

    Raises:
        InputError: no tracks, no forces, other numbers of objects, a push outside (0, 1], or a response that is not positive.

    Example::

        ForceResponse()(measurement.with_(force=commanded(measurement.tracked(), points, forces))).value
    """

    push: float = 0.25
    response: float | None = None

    name: ClassVar[str] = "force_response"
    needs: ClassVar[frozenset[str]] = frozenset({"tracks", "force"})
    detects: ClassVar[tuple[str, ...]] = (
        "self_start", "wrong_mass", "wrong_way", "bystander", "reversed_time", "freeze", "empty",
    )  # fmt: skip
    scenes: ClassVar[tuple[str, ...]] = ("pushes",)
    trivial: ClassVar[bool] = False
    anchor: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse pushes and responses that are none."""
        if not 0 < self.push <= 1:
            raise InputError(f"push {self.push} is no share of a clip; give a number in (0, 1]")
        if self.response is not None and not self.response > 0:
            raise InputError(f"response {self.response} is no answer to a force; give a positive number, or None for any")

    def __call__(self, measurement: Measurement) -> Residual:
        """Return the residual of each clip; differentiable with respect to the positions."""
        require(measurement, self.name, self.needs)
        tracks, clean = sound(measurement)
        given = measurement.force
        if given is not None and not tracks.positions.shape[2]:
            given = given[:, :0]
        if given is None or given.shape[:2] != (tracks.positions.shape[0], tracks.positions.shape[2]):
            raise InputError(f"force of shape {None if given is None else tuple(given.shape)}; give (B, N, 2), one per track")
        told = torch.nan_to_num(given.detach(), 0.0, 0.0, 0.0).to(tracks.positions).flatten(1)
        found, variance, rest = _fitted(tracks, self.push)
        found, noise, rest = found.flatten(1), 2 * variance.sum(1), rest.sum(1)
        strength = told.square().sum(1)
        valid = clean & finite_clips(given) & (strength > 0)
        strength = torch.where(strength > 0, strength, 1.0)
        if self.response is None:
            size = torch.maximum(found.square().sum(1), CLEAR**2 * noise).clamp(min=1e-12) + rest
            answered = torch.relu((found * told).sum(1)).square() / strength / size
            value = torch.relu(1 - answered - noise / size)
        else:
            size = self.response**2 * strength
            wrong = torch.relu((found - self.response * told).square().sum(1) - torch.minimum(noise, 0.1 * size))
            value = ((wrong + rest) / size).clamp(max=1)
        sigma = 2 * (noise / size).sqrt()
        return Residual(torch.where(valid, value, 0.0), valid, torch.where(valid, sigma, 0.0).detach())


def accelerations(tracks: Tracks, push: float = 0.25) -> tuple[Float[Tensor, "B N 2"], Float[Tensor, "B N"]]:
    """Return accelerations during the push [px/frame^2] and the variance of one coordinate; 0 for objects hardly seen."""
    return _fitted(tracks, push)[:2]


def _fitted(tracks: Tracks, push: float) -> tuple[Tensor, Tensor, Tensor]:
    """Accelerations (B, N, 2), the variance of one coordinate (B, N) and r^2 of each object (B, N)."""
    count = tracks.frames
    t = torch.arange(count, device=tracks.positions.device, dtype=tracks.positions.dtype)
    end = push * (count - 1)
    shape = torch.where(t < end, t.square() / 2, end * (t - end / 2))
    weight = tracks.visible.to(tracks.positions.dtype)
    seen = weight.sum(1)
    enough = seen >= 3
    mean = (weight * shape[:, None]).sum(1) / seen.clamp(min=1)
    centred = weight * (shape[:, None] - mean[:, None])
    spread = (centred * shape[:, None]).sum(1)
    enough = enough & (spread > 1e-9)
    spread = torch.where(enough, spread, 1.0)
    slope = (centred[..., None] * tracks.positions).sum(1) / spread[..., None]
    noise = weight * tracks.sigma.square()
    variance = (centred.square() * tracks.sigma.square()).sum(1) / spread.square()
    place = (weight[..., None] * tracks.positions).sum(1) / seen.clamp(min=1)[..., None]
    off = weight[..., None] * (tracks.positions - place[:, None]) - centred[..., None] * slope[:, None]
    rest = torch.relu(off.square().sum((1, 3)) - 2 * noise.sum(1) * (1 - 2 / seen.clamp(min=2))) / spread
    return slope * enough[..., None], variance * enough, rest * enough


def commanded(
    tracks: Tracks, points: Float[Tensor, "B M 2"], forces: Float[Tensor, "B M 2"], masses: Float[Tensor, "B N"] | None = None
) -> Float[Tensor, "B N 2"]:
    """Return the force over mass on each object: every force acts on the object whose first position is nearest to its point.

    Args:
        tracks: where objects are, at least in frame 0.
        points: where forces act, (x, y) [px], y down; forces: which, in the same axes, in any unit; rows of zeros are none.
        masses: relative masses; None: all alike.
    """
    apart = (points[:, :, None] - tracks.positions[:, :1].detach()).norm(dim=-1)
    apart = torch.where(tracks.visible[:, :1], apart, torch.inf)
    nearest = torch.nn.functional.one_hot(apart.argmin(-1), apart.shape[-1]).to(forces)
    total = torch.einsum("bmn,bmd->bnd", nearest, forces)
    return total if masses is None else total / masses[..., None]
