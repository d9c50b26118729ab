"""Inertias as files give them, which are not always those of a rigid body."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def possible(inertia: NDArray) -> bool:
    """Return whether a rigid body can have an inertia (3, 3): no negative moment, none larger than the sum of the others."""
    low, middle, high = np.linalg.eigvalsh(inertia)
    return bool(low >= -1e-9 * abs(high) and low + middle >= high * (1 - 1e-4))


def widened(inertia: NDArray) -> NDArray:
    """Return the inertia with its smaller principal moments raised, alike, until they add up to the largest.

    What a planar model gives, one moment and two zeros, keeps the one that counts. Negative moments count as zero first.

    Example::

        widened(np.diag([0.0, 0.0, 0.04]))  # diag(0.02, 0.02, 0.04)
    """
    moments, axes = np.linalg.eigh(inertia)
    moments = moments.clip(min=0)
    moments[:2] += max(0.0, moments[2] - moments[0] - moments[1]) / 2
    return axes @ np.diag(moments) @ axes.T
