"""The biodynamic network: accelerations from pose, velocity and muscles by a modified Euler-Lagrange equation (reconstructed).

    a_phys = Minv(z) (F(z, emg) - C(z, v))

with ``Minv = L L^T + eps I``, symmetric and positive: a force never accelerates backwards. The paper names three networks for
inertia, external force and Coriolis with gravity; everything else is a reconstruction (card: motion, section 2).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from visviva.errors import InputError

GRAIN = 1e-4
"""Added to the diagonal of the inverse mass."""


def physical_acceleration(
    factor: Float[Tensor, "#*batch d r"],
    force: Float[Tensor, "*batch d"],
    bias: Float[Tensor, "*batch d"],
    grain: float = GRAIN,
) -> Float[Tensor, "*batch d"]:
    """Return ``(L L^T + grain I) (F - C)`` of d coordinates.

    Args:
        factor: L, of any number of columns r.
        force: F; ``bias``: C, what velocities and gravity take.
        grain: added to the diagonal.

    Example::

        physical_acceleration(torch.eye(3) / m**0.5, m * g, torch.zeros(3), grain=0.0)  # g: free fall
    """
    left = (force - bias)[..., None]
    return (factor @ (factor.mT @ left))[..., 0] + grain * left[..., 0]


class EulerLagrange(nn.Module):
    """Accelerations of J joints from their places and velocities, with or without EMG.

    Places are taken relative to the first joint over the ground, so that where the body stands does not matter; heights are
    kept. Accelerations are in units of `UNIT`.

    Args:
        joints: J; d = 3 J.
        emg: numbers of the muscles' embedding.
        hidden: width of the three networks.
        rank: columns of L that are learned (the inverse mass of many markers has few large directions).

    Example::

        net = EulerLagrange(22, emg=64)
        net(position, velocity).shape, net(position, velocity, emg).shape  # (B, 22, 3): without and with muscles
    """

    UNIT = 5.0
    """Of accelerations [m/s^2]."""

    def __init__(self, joints: int = 22, emg: int = 64, hidden: int = 128, rank: int = 24) -> None:
        super().__init__()
        self.joints, self.rank, self.hidden = joints, rank, hidden
        size = 3 * joints
        self.inverse_mass = _network(size, hidden, size * rank)
        self.force = _network(2 * size + emg + 1, hidden, size)
        self.bias = _network(2 * size, hidden, size)
        self.masked = nn.Parameter(torch.zeros(emg))

    def forward(
        self,
        position: Float[Tensor, "B J 3"],
        velocity: Float[Tensor, "B J 3"],
        emg: Float[Tensor, "B E"] | None = None,
        seen: Tensor | None = None,
    ) -> Float[Tensor, "B J 3"]:
        """Return accelerations [m/s^2].

        Args:
            position: of the joints, z up [m].
            velocity: [m/s].
            emg: embedding of the muscles; None: the mask token stands for it.
            seen: which of the batch have EMG (B,), bool; the others get the mask token. None: all, where there is EMG.

        Raises:
            InputError: another number of joints.
        """
        if position.shape[1:] != (self.joints, 3) or velocity.shape != position.shape:
            raise InputError(f"places {tuple(position.shape)}, velocities {tuple(velocity.shape)}; (B, {self.joints}, 3) each")
        count = len(position)
        ground = torch.cat([position[:, :1, :2], torch.zeros_like(position[:, :1, 2:])], -1)
        place, speed = (position - ground).flatten(1), velocity.flatten(1) / 2
        token = self.masked.expand(count, -1)
        there = torch.zeros(count, 1, dtype=torch.bool, device=place.device)
        if emg is not None:
            there = there | True if seen is None else seen[:, None]
            token = torch.where(there, emg, token)
        factor = self.inverse_mass(place).unflatten(1, (-1, self.rank)) / self.rank**0.5
        force = self.force(torch.cat([place, speed, token, there.to(place)], 1))
        left = physical_acceleration(factor, force, self.bias(torch.cat([place, speed], 1)))
        return self.UNIT * left.unflatten(1, (self.joints, 3))


def _network(entering: int, hidden: int, leaving: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(entering, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, leaving)
    )
