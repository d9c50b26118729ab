"""Rotations as unit quaternions (w, x, y, z) and matrices; both turn local vectors into world vectors."""

from __future__ import annotations

import math

import numpy as np

Vector = tuple[float, float, float]
Quaternion = tuple[float, float, float, float]


def vector(values: object) -> Vector:
    """Three numbers, of any sequence or array, as a tuple of floats."""
    x, y, z = (float(v) for v in values)  # type: ignore[attr-defined]
    return (x, y, z)


def axis_angle(axis: Vector, angle: float) -> Quaternion:
    """Quaternion of a right-handed rotation by ``angle`` [rad] about a unit axis."""
    s = math.sin(angle / 2)
    return (math.cos(angle / 2), axis[0] * s, axis[1] * s, axis[2] * s)


def multiply(a: Quaternion, b: Quaternion) -> Quaternion:
    """Quaternion product a b: first b, then a."""
    w, x, y, z = a
    p, q, r, s = b
    return (
        w * p - x * q - y * r - z * s,
        w * q + x * p + y * s - z * r,
        w * r - x * s + y * p + z * q,
        w * s + x * r - y * q + z * p,
    )


def matrix(q: Quaternion) -> np.ndarray:
    """Rotation matrix (3, 3) of a quaternion, which is normalised first: world = matrix @ local."""
    w, x, y, z = np.asarray(q, np.float64) / math.sqrt(sum(float(v) ** 2 for v in q))
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
