"""What may change the predicted clean motion while sampling: the gradient of laws, the projection onto floor and gravity."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.data.motions.axes import upright
from visviva.data.motions.humanml3d import features, joints_of
from visviva.errors import InputError, closest
from visviva.models.guidance import norm, polyak, within
from visviva.physics.motion_laws import MOTION_LAWS, MotionTerm, MotionVerifier
from visviva.physics.motion_laws.projection import settled


@dataclass
class LawGuidance:
    """Moves the normalised clean features along the gradient of a verifier's loss, by Polyak's step of limited length.

    Attributes:
        network: whose statistics the features have.
        verifier: of joints; it may be without anchor, for the noise of the sampler decides what moves.
        scale: in Polyak steps; ``inner``: steps each time; ``radius``: longest move, as a fraction of the features' norm.
        losses: of each motion before every step, (B,), in the order taken.
    """

    network: Any
    verifier: MotionVerifier
    scale: float = 1.0
    inner: int = 1
    radius: float = 0.1
    losses: list[Tensor] = field(default_factory=list)

    def __call__(self, clean: Float[Tensor, "B T 263"], lengths: Tensor, fps: Tensor) -> Float[Tensor, "B T 263"]:
        """Return the moved features, without graph of the move."""
        start = clean.detach()
        z = start
        for _ in range(self.inner):
            loss, gradient = self._descend(z, lengths, float(fps[0]))
            self.losses.append(loss)
            z = z - self.scale * polyak(loss, gradient[..., None, None])[..., 0, 0]
        move = within((z - start)[..., None, None], self.radius * norm(start[..., None, None]))
        return clean + move[..., 0, 0]

    def _descend(self, clean: Tensor, lengths: Tensor, fps: float) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            z = clean.clone().requires_grad_(True)
            joints = joints_of(self.network.denormalised(z), fps) @ upright("y").T.to(z)
            loss = self.verifier(joints, fps, lengths).loss
            (gradient,) = torch.autograd.grad(loss.sum(), z)
        if not bool(torch.isfinite(gradient).all()):
            raise InputError("law guidance has no finite gradient here; guide fewer of the last steps (sampler.guided)")
        return loss.detach(), gradient


@dataclass(frozen=True)
class Projection:
    """Replaces the clean features by those of the projected joints (`visviva.physics.motion_laws.projection`).

    All 263 columns are computed anew from the joints, so velocities, rotations and contacts agree with them. Without graph.
    """

    network: Any

    @torch.no_grad()
    def __call__(self, clean: Float[Tensor, "B T 263"], lengths: Tensor, fps: Tensor) -> Float[Tensor, "B T 263"]:
        """Return the projected features, normalised."""
        rate = float(fps[0])
        joints = joints_of(self.network.denormalised(clean), rate) @ upright("y").T.to(clean)
        found = self.network.normalised(features_of(settled(joints, rate, lengths), rate))
        there = torch.arange(clean.shape[1], device=clean.device) < lengths[:, None]
        return torch.where(there[..., None], found, clean)


def features_of(joints: Float[Tensor, "B T 22 3"], fps: float) -> Float[Tensor, "B T 263"]:
    """Return as many rows of features as there are frames, z up: the motion goes on at the speed of its last step."""
    longer = torch.cat((joints, 2 * joints[:, -1:] - joints[:, -2:-1]), 1)
    return features(longer @ upright("y").to(joints), fps)


def verifier_of(laws: dict[str, float], floor: float = 0.0) -> MotionVerifier:
    """Return the verifier of laws by name and weight, for guidance.

    Raises:
        InputError: an unknown law.
    """
    for name in laws:
        if name not in MOTION_LAWS:
            raise InputError(f"no law of motion {name!r}{closest(name, MOTION_LAWS)}; there are {', '.join(MOTION_LAWS)}")
    terms = []
    for name, weight in laws.items():
        options = {} if name == "liveliness" else {"floor": floor}
        terms.append(MotionTerm(MOTION_LAWS[name](**options), weight))
    return MotionVerifier(terms, allow_trivial=True)
