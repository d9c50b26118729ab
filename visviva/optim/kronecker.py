"""Inverse Kronecker factors by rank-one updates: the exact, the printed and the released rule of MKOR (arXiv 2306.01685).

Of every linear and convolution layer, with the mean input ``a`` (d_in, +1 for a bias) and mean output gradient ``g`` (d_out)::

    L^-1 <- (gamma L + (1-gamma) g g^T)^-1 = (1/gamma) (L^-1 - (1-gamma) u u^T / (gamma + (1-gamma) g^T u)),   u = L^-1 g
    R^-1 likewise with a;    D = L^-1 G R^-1 (d_out, d_in);    the backend's gradient is D ||G|| / ||D||

``update="exact"`` is this (Sherman-Morrison). ``"printed"`` is the paper's ``gamma L^-1 + (1-gamma) / (gamma^2 (1 + gamma
(1-gamma) g^T u)) u u^T`` (primary), which is *wrong*: it grows along g, where the inverse shrinks; it is here for comparison
only. ``"released"`` is what the authors' code computes (primary): ``N = gamma L^-1 + (1-gamma) I``, ``N - w w^T / (1 + g^T w)``
with ``w = N g``, both factors back to I when an entry passes the threshold, gradient norms of weight and bias added.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Update = Literal["exact", "printed", "released"]


def updated(
    inverse: Float[Tensor, "n n"], v: Float[Tensor, " n"], gamma: float, update: Update = "exact"
) -> Float[Tensor, "n n"]:
    """Return the inverse factor after it has taken in the vector ``v``, by one of the three rules of this module."""
    if update == "released":
        inverse = gamma * inverse + (1 - gamma) * eye(inverse)
    u = inverse @ v
    along = (v @ u).clamp_min(0.0)
    if update == "released":
        return inverse - torch.outer(u, u) / (1 + along)
    if update == "printed":
        return gamma * inverse + (1 - gamma) / (gamma**2 * (1 + gamma * (1 - gamma) * along)) * torch.outer(u, u)
    return (inverse - (1 - gamma) / (gamma + (1 - gamma) * along) * torch.outer(u, u)) / gamma


def norm_ratio(before: list[Tensor], after: list[Tensor], together: bool) -> Tensor:
    """Return ``||before|| / ||after||`` (1 where after is zero), of all parts as one vector, or with their norms added."""
    norms = [torch.stack([torch.linalg.vector_norm(p.contiguous()) for p in parts]) for parts in (before, after)]
    old, new = (torch.linalg.vector_norm(n) if together else n.sum() for n in norms)
    return torch.where(new > 0, old / new, torch.ones_like(new))


def eye(like: Tensor) -> Tensor:
    """Return the identity of a square matrix's size, dtype and device."""
    return torch.eye(like.shape[0], dtype=like.dtype, device=like.device)
