"""The losses of ImDyS, each by its name, with the released weights (card: motion, section 3, point 5)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from visviva.models.imdy.network import Predicted

WEIGHTS = {
    "torque": 1.0, "force": 1.0, "torque_way": 1.0, "force_way": 1.0, "torque_size": 0.01, "force_size": 0.01,
    "torque_order": 0.01, "force_order": 0.01, "contact": 1.0, "temporal": 0.01, "next_marker": 1.0,
}  # fmt: skip
"""Weights of the released configuration. Its discriminator is off there, and is left out here."""
TOUCH = 1e-4
"""Forces above this are contacts [body weights]."""


@dataclass(frozen=True)
class Truth:
    """What the windows' bodies really feel: torque (B, J, 3) in the joints' units, force (B, 2, G, 3) [body weights]."""

    torque: Tensor
    force: Tensor


def losses(found: Predicted, truth: Truth, order: Tensor | None = None) -> dict[str, Tensor]:
    """Return the losses of the inverse net by name, unweighted.

    ``*_way``: 1 - cos, where there is a true force; ``*_order``: differences of magnitudes between a batch and a permutation of
    it; ``temporal``: how much the ground force changes to the next frame.

    Args:
        found, truth: of a batch.
        order: permutation of the batch; None: it is turned by one.

    Example::

        total(losses(net(window), truth)).backward()
    """
    order = torch.arange(len(truth.torque), device=truth.torque.device).roll(1) if order is None else order
    torque_size, force_size = truth.torque.norm(dim=-1), truth.force.norm(dim=-1)
    return {
        "torque": functional.mse_loss(found.torque, truth.torque),
        "force": functional.mse_loss(found.force, truth.force),
        "torque_way": _apart(found.torque_way, truth.torque, torque_size, 0.0),
        "force_way": _apart(found.force_way, truth.force, force_size, TOUCH),
        "torque_size": functional.l1_loss(found.torque_size, torque_size),
        "force_size": functional.l1_loss(found.force_size, force_size),
        "torque_order": _order(found.torque_size, torque_size, order),
        "force_order": _order(found.force_size, force_size, order),
        "contact": functional.binary_cross_entropy_with_logits(found.contact, (force_size > TOUCH).to(force_size)),
        "temporal": functional.l1_loss(found.force[:, 1], found.force[:, 0]),
    }


def total(parts: dict[str, Tensor]) -> Float[Tensor, ""]:
    """Return the weighted sum."""
    return torch.stack([WEIGHTS[name] * value for name, value in parts.items()]).sum()


def _apart(way: Tensor, true: Tensor, size: Tensor, least: float) -> Tensor:
    there = size > least
    cosine = functional.cosine_similarity(way, true, dim=-1)
    return torch.where(there, 1 - cosine, 0.0).sum() / there.sum().clamp(min=1)


def _order(found: Tensor, true: Tensor, order: Tensor) -> Tensor:
    return functional.l1_loss(found - found[order], true - true[order])
