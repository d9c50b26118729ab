"""The inverse net of ImDyS: a bag of marker tokens, one learned query, a decoder of three layers, and a linear head."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from visviva.errors import InputError
from visviva.models.imdy.windows import SPAN, tokens, treadmill


@dataclass(frozen=True)
class Predicted:
    """Directions, magnitudes and contacts, in the network's units.

    Attributes:
        torque_way: unit vectors (B, J, 3); ``torque_size``: (B, J), in each joint's own unit.
        force_way: (B, 2, G, 3) of the current and the next frame; ``force_size``: (B, 2, G) [body weights].
        contact: logits (B, 2, G).
    """

    torque_way: Tensor
    torque_size: Tensor
    force_way: Tensor
    force_size: Tensor
    contact: Tensor

    @property
    def torque(self) -> Float[Tensor, "B J 3"]:
        """Torques in the joints' units."""
        return self.torque_way * self.torque_size[..., None]

    @property
    def force(self) -> Float[Tensor, "B 2 G 3"]:
        """Ground forces [body weights]."""
        return self.force_way * self.force_size[..., None]


class InverseDynamics(nn.Module):
    """Torques of J joints and ground forces at G joints from windows of any number of markers, in any order.

    Linear 36 -> width, a learned query, a transformer decoder (3 layers, 4 heads, FFN of twice the width, LayerNorm), a linear
    head (arXiv 2410.17610 and its published code). Magnitudes are ``softplus``, torques' at most ``limit``; both are in
    units of ``unit`` per joint, which make all joints count alike (ours; the paper has limits in the simulator's units).

    Args:
        joints: with torques.
        touching: that the ground may push.
        width, heads, layers: of the decoder.

    Example::

        InverseDynamics()(torch.randn(8, 6, 40, 3)).torque.shape  # (8, 21, 3)
    """

    unit: Tensor
    limit: Tensor

    def __init__(self, joints: int = 21, touching: int = 4, width: int = 64, heads: int = 4, layers: int = 3) -> None:
        super().__init__()
        self.joints, self.touching = joints, touching
        self.embed = nn.Linear(6 * SPAN, width)
        self.query = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        layer = nn.TransformerDecoderLayer(width, heads, 2 * width, dropout=0.0, batch_first=True)
        self.decoder = nn.TransformerDecoder(layer, layers, norm=nn.LayerNorm(width))
        self.head = nn.Linear(width, 4 * joints + 2 * 5 * touching)
        self.register_buffer("unit", torch.ones(joints))
        self.register_buffer("limit", torch.full((joints,), 10.0))

    def forward(self, window: Float[Tensor, "B 6 K 3"]) -> Predicted:
        """Return what moves the body in the windows' current frames (and pushes it in the next).

        Raises:
            InputError: windows of another length.
        """
        if window.ndim != 4 or window.shape[1] != SPAN or window.shape[-1] != 3:
            raise InputError(f"windows of the shape {tuple(window.shape)}; (B, {SPAN}, K, 3) is wanted")
        memory = self.embed(tokens(treadmill(window)))
        feature = self.decoder(self.query.expand(len(window), 1, -1), memory)[:, 0]
        out = self.head(feature)
        j, g = self.joints, self.touching
        way, size, push = out[:, : 3 * j], out[:, 3 * j : 4 * j], out[:, 4 * j :].unflatten(1, (2, g, 5))
        return Predicted(
            functional.normalize(way.unflatten(1, (j, 3)), dim=-1),
            torch.minimum(functional.softplus(size), self.limit),
            functional.normalize(push[..., :3], dim=-1),
            functional.softplus(push[..., 3]),
            push[..., 4],
        )
