"""What the kernels of dynamics share: a body as they see it, and what each kind of joint does.

All of it comes once for float32 and once for float64, from `parts`. Vectors are in the world's frame unless said otherwise.
"""

# Warp reads the annotations, which name types made here: they are not postponed, and no type checker knows them.
# mypy: ignore-errors
# ruff: noqa: ANN202

from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import warp as wp

FREE, BALL, HINGE, SLIDE, WELD = range(5)
KIND = {"free": FREE, "ball": BALL, "hinge": HINGE, "slide": SLIDE, "weld": WELD}
"""Number of each kind of joint."""


def struct(name: str, **fields: Any) -> Any:
    """Return a struct of Warp's with these fields."""
    return wp.struct(type(name, (), {"__annotations__": fields, "__module__": __name__}))


def scratch(name: str, shapes: dict[str, tuple[int, ...]], real: Any) -> Any:
    """Return a struct of intermediate numbers: for each state and link a number (), a vector (3,) or a matrix (3, 3)."""
    return struct(name, **{field: wp.array2d(dtype=kind(shape, real)) for field, shape in shapes.items()})


def module_of(name: str, real: Any) -> Any:
    """Return Warp's module for the kernels of a file in one precision, so that each is compiled when it is wanted, and once."""
    return wp.get_module(f"{name}.{real.__name__}")


def kind(shape: tuple[int, ...], real: Any) -> Any:
    """Return Warp's type of a number (), a vector (n,) or a matrix (n, m)."""
    return real if not shape else wp.types.vector(*shape, real) if len(shape) == 1 else wp.types.matrix(shape, real)


@lru_cache(maxsize=2)
def parts(real: Any) -> SimpleNamespace:
    """Return types, the struct ``Links`` and functions of joints, for float32 or float64.

    Example::

        shared = parts(wp.float64)
        frame, three = shared.frame, shared.three  # kernels see plain names only
    """
    vec, mat = wp.types.vector(3, real), wp.types.matrix((3, 3), real)
    numbers = wp.array(dtype=int)
    links = {"offset": vec, "rest": mat, "axis": vec, "mass": real, "com": vec, "inertia": mat}
    Links = struct(
        "Links", **dict.fromkeys(("parent", "kind", "first_q", "first_v"), numbers),
        **{name: wp.array(dtype=kind) for name, kind in links.items()}, gravity=vec,
    )  # fmt: skip

    @wp.func
    def turn_of(w: real, x: real, y: real, z: real):
        s = real(2.0) / (w * w + x * x + y * y + z * z)
        one = real(1.0)
        return mat(
            one - s * (y * y + z * z), s * (x * y - w * z), s * (x * z + w * y),
            s * (x * y + w * z), one - s * (x * x + z * z), s * (y * z - w * x),
            s * (x * z - w * y), s * (y * z + w * x), one - s * (x * x + y * y),
        )  # fmt: skip

    @wp.func
    def turn_about(axis: vec, angle: real):
        half = real(0.5) * angle
        s = wp.sin(half)
        return turn_of(wp.cos(half), s * axis[0], s * axis[1], s * axis[2])

    @wp.func
    def three(values: wp.array2d(dtype=real), s: int, at: int):
        return vec(values[s, at], values[s, at + 1], values[s, at + 2])

    @wp.func
    def put(values: wp.array2d(dtype=real), s: int, at: int, x: vec):
        for k in range(3):
            values[s, at + k] = x[k]

    @wp.func
    def put_quaternion(values: wp.array2d(dtype=real), q: wp.array2d(dtype=real), s: int, at: int, torque: vec):
        """Gradient by a quaternion of any length, from the torque on what it turns."""
        w, x = q[s, at], three(q, s, at + 1)
        scale = real(2.0) / (w * w + wp.dot(x, x))
        values[s, at] = -scale * wp.dot(x, torque)
        put(values, s, at + 1, scale * (w * torque - wp.cross(x, torque)))

    @wp.func
    def angular(k: int, axis: vec, values: wp.array2d(dtype=real), s: int, by: int):
        """What a joint's numbers (of ``v``, ``a`` or forces) are as an angular vector in its own frame."""
        found = vec()
        if k == FREE:
            found = three(values, s, by + 3)
        if k == BALL:
            found = three(values, s, by)
        if k == HINGE:
            found = axis * values[s, by]
        return found

    @wp.func
    def linear(k: int, way: vec, values: wp.array2d(dtype=real), s: int, by: int):
        """What a joint's numbers are as a linear vector in its parent's frame, where a slide goes along ``way``."""
        found = vec()
        if k == FREE:
            found = three(values, s, by)
        if k == SLIDE:
            found = way * values[s, by]
        return found

    @wp.func
    def frame(x: Links, q: wp.array2d(dtype=real), s: int, b: int):
        """Rotation and origin of a link in its parent's frame."""
        k, at, axis = x.kind[b], x.first_q[b], x.axis[b]
        own = x.rest[b]
        r = x.offset[b]
        if k == FREE:
            r = r + three(q, s, at)
            own = own * turn_of(q[s, at + 3], q[s, at + 4], q[s, at + 5], q[s, at + 6])
        if k == BALL:
            own = own * turn_of(q[s, at], q[s, at + 1], q[s, at + 2], q[s, at + 3])
        if k == HINGE:
            own = own * turn_about(axis, q[s, at])
        if k == SLIDE:
            r = r + x.rest[b] * axis * q[s, at]
        return own, r

    return SimpleNamespace(
        vec=vec,
        mat=mat,
        Links=Links,
        three=three,
        put=put,
        put_quaternion=put_quaternion,
        angular=angular,
        linear=linear,
        frame=frame,
    )
