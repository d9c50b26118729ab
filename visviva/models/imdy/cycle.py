"""The forward net of ImDyS, used in training only: from the past and the forces to where the markers are next."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from visviva.models.imdy.windows import PAST, SPEED, treadmill

STEP = 0.01
"""Unit of what forces change in a frame [m]."""


class ForwardDynamics(nn.Module):
    """Where markers are in the next frame: ``2 x_t - x_{t-1}`` plus what a decoder says of torques and ground forces.

    Queries are the three frames up to the current one of each marker; they look at the markers' tokens, one token per torque
    and one per ground force. Everything is from the past: velocities are backward differences, as a central one would give the
    answer away (the paper's net predicts places; the step beyond constant velocity is ours).

    Args:
        joints, touching: as `InverseDynamics` has them.

    Example::

        net = ForwardDynamics()
        net(torch.randn(8, 6, 40, 3), torch.zeros(8, 21, 3), torch.zeros(8, 2, 4, 3)).shape  # (8, 40, 3)
    """

    def __init__(self, joints: int = 21, touching: int = 4, width: int = 64, heads: int = 4, layers: int = 3) -> None:
        super().__init__()
        self.embed = nn.Linear(3 * (PAST + 1) + 3 * PAST, width)
        self.torque = nn.Linear(3, width)
        self.force = nn.Linear(3, width)
        self.which = nn.Parameter(torch.randn(joints + 2 * touching, width) * 0.02)
        layer = nn.TransformerDecoderLayer(width, heads, 2 * width, dropout=0.0, batch_first=True)
        self.decoder = nn.TransformerDecoder(layer, layers, norm=nn.LayerNorm(width))
        self.head = nn.Linear(width, 3)

    def forward(
        self, window: Float[Tensor, "B S K 3"], torque: Float[Tensor, "B J 3"], force: Float[Tensor, "B 2 G 3"]
    ) -> Float[Tensor, "B K 3"]:
        """Return the markers' places after the current frame [m]; frames of the window after it are not looked at."""
        seen = window[:, : PAST + 1]
        speed = seen.diff(dim=1)
        inner = torch.cat([treadmill(seen), SPEED * speed], 1).movedim(1, 2).flatten(2)
        markers = self.embed(inner)
        loads = torch.cat([self.torque(torque), self.force(force.flatten(1, 2))], 1) + self.which
        pushed = self.head(self.decoder(markers, torch.cat([markers, loads], 1)))
        return seen[:, -1] + speed[:, -1] + STEP * pushed
