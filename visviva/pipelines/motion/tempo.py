"""Tempo: the same motion played s times as fast; velocities are s times, accelerations s^2 times as large.

BioMoDiffuse (arXiv 2503.06151) separates speed from content by a learned condition; here the law is one of construction:

    x_s(t) = x(s t),   so   v_s(t) = s v(s t)   and   a_s(t) = s^2 a(s t)

`MotionPipeline` makes x at fps / s frames per second, a rate like any other to its network, and reads the frames at fps: frame
k is x(s k / fps) either way, without interpolation. What depends on the network is whether motions at fps / s are as fast per
second as those at fps. Falls have s^2 g then; the projection puts flights back on parabolas of g.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

VELOCITIES = (*range(3), *range(193, 259))
"""Columns of HumanML3D's features that are velocities (yaw, root, joints)."""


def quickened(features: Float[Tensor, "*batch 263"], ratio: float) -> Float[Tensor, "*batch 263"]:
    """Return the features (not normalised) of the same frames played ``ratio`` times as fast; ``1 / ratio`` undoes it.

    ``joints_of(quickened(f, s), fps)`` are those of ``joints_of(f, fps / s)``. Contacts stay as they are: who stands does so at
    any tempo.

    Example::

        quickened(features(joints, 20.0 / 1.3), 1.3)  # as features(joints, 20.0)
    """
    factor = torch.ones(features.shape[-1], dtype=features.dtype, device=features.device)
    factor[list(VELOCITIES)] = ratio
    return features * factor
