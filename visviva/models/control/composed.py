"""Several forces at once with a network that was trained on one: each acts by itself, and what they change is added.

    v = v(none) + sum_k [v(force k) - v(none)]

As composed diffusion adds the scores of concepts (Liu et al., arXiv 2206.01714, eq. 11, weights of 1; the use for forces is
ours). Newton's forces add up as long as the bodies do not meet. A step costs one evaluation more than there are forces.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


class Composed:
    """A backbone with force control whose forces act each by themselves; where no clip has two it is the backbone.

    Example::

        latents = sample(Composed(backbone), condition, noise, steps=4)  # visviva.models.backbones.flow_matching
    """

    def __init__(self, backbone: Any) -> None:
        self.backbone = backbone

    def hold(self, latents: Tensor, condition: Any) -> Tensor:
        """Write the given first latent frame into the latents, as the backbone does."""
        held: Tensor = self.backbone.hold(latents, condition)
        return held

    def velocity(
        self, latents: Float[Tensor, "B C F h w"], sigma: Float[Tensor, " B"], condition: Any, guidance_scale: float = 1.0
    ) -> Float[Tensor, "B C F h w"]:
        """Return v of all forces of ``condition.forces`` together; see `Backbone.velocity`."""

        def of(forces: Tensor | None) -> Tensor:
            found: Tensor = self.backbone.velocity(latents, sigma, replace(condition, forces=forces), guidance_scale)
            return found

        forces = condition.forces
        count = 0 if forces is None else int((forces[..., 0] != 0).sum(1).max())
        if count < 2:
            return of(forces)
        nothing = of(torch.zeros_like(forces))
        return nothing + torch.stack([of(_alone(forces, k)) - nothing for k in range(count)]).sum(0)


def _alone(forces: Tensor, k: int) -> Tensor:
    """Return tables (B, 8, 5) with the k-th force of each clip alone."""
    alone = torch.zeros_like(forces)
    alone[:, 0] = forces[:, k]
    return alone
