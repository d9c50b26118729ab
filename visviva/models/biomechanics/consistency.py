"""Consistency of accelerations in motion diffusion: the clean estimate must accelerate as forces allow (reconstructed).

    L_acc = w(t) || a_phys - a_kin ||_1,  a_kin = (x_{t+1} - 2 x_t + x_{t-1}) / dt^2

on the model's clean estimate, with ``w(t) = alpha_bar_t``: early estimates are a mean pose, of which no acceleration may be
asked (the observation of PhysDiff). The residual form moves the estimate by what is inconsistent, from nothing at the start:
``x0 <- x0 + s(t) R(x0, a_phys - a_kin)``, R zero-initialised (card: motion, section 2).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from visviva.errors import InputError


def acceleration(position: Float[Tensor, "*batch T J 3"], fps: float) -> Float[Tensor, "*batch M J 3"]:
    """Return the second differences at the M = T - 2 inner frames [m/s^2].

    Raises:
        InputError: fewer than 3 frames.
    """
    if position.shape[-3] < 3:
        raise InputError(f"{position.shape[-3]} frames have no acceleration; give three or more")
    return fps**2 * (position[..., 2:, :, :] - 2 * position[..., 1:-1, :, :] + position[..., :-2, :, :])


def acceleration_loss(
    physical: Float[Tensor, "B *rest"], kinematic: Float[Tensor, "B *rest"], weight: Float[Tensor, " B"] | None = None
) -> Float[Tensor, ""]:
    """Return the mean absolute difference of accelerations, each sample's with its weight.

    Truth has no gradient: give ``acceleration(data, fps).detach()`` where the data are the motion's own.

    Args:
        physical: what forces allow; ``kinematic``: what the motion does [m/s^2].
        weight: of each sample, such as ``alpha_bar_t``; None: 1.
    """
    each = (physical - kinematic).abs().flatten(1).mean(1)
    return each.mean() if weight is None else (weight * each).mean()


class Residual(nn.Module):
    """``x0 + s(t) R(x0, a_phys - a_kin)`` of a clip, R zero-initialised: nothing changes before it is trained.

    R is a convolution over five frames of the joints' places and inconsistencies; ends are padded with their neighbours.

    Args:
        joints: of the motion.
        hidden: channels.

    Example::

        better = Residual(22)(clean, physical - acceleration(clean, fps), alpha_bar)
    """

    UNIT = 5.0
    """Of accelerations [m/s^2]."""

    def __init__(self, joints: int = 22, hidden: int = 96) -> None:
        super().__init__()
        self.enter = nn.Conv1d(6 * joints, hidden, 5, padding=2, padding_mode="replicate")
        self.leave = nn.Conv1d(hidden, 3 * joints, 5, padding=2, padding_mode="replicate")
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias if self.leave.bias is not None else torch.zeros(1))

    def forward(
        self, clean: Float[Tensor, "B T J 3"], apart: Float[Tensor, "B M J 3"], scale: Float[Tensor, " B"] | None = None
    ) -> Float[Tensor, "B T J 3"]:
        """Return the moved estimate.

        Args:
            clean: the estimate [m]; places relative to the first joint over the ground are looked at.
            apart: ``a_phys - a_kin`` at the inner frames [m/s^2], M = T - 2.
            scale: s(t) of each sample; None: 1.
        """
        whole = torch.cat([apart[:, :1], apart, apart[:, -1:]], 1) / self.UNIT
        ground = torch.cat([clean[:, :, :1, :2], torch.zeros_like(clean[:, :, :1, 2:])], -1)
        given = torch.cat([clean - ground, whole], -1).flatten(2).mT
        moved = self.leave(torch.nn.functional.silu(self.enter(given))).mT.unflatten(-1, clean.shape[2:])
        return clean + (moved if scale is None else scale[:, None, None, None] * moved)
