"""The kernel of `visviva.physics.dynamics.warped_forward`: accelerations that forces cause, ``M(q) a = tau``, state by thread.

Featherstone, Rigid Body Dynamics Algorithms (2008), table 7.1, without velocities and gravity: what those do is an inertial
force that Newton-Euler finds, and tau is what is left beside it. A link with all that it carries answers an acceleration
(angular w, linear v) of its origin with the moment ``t + A w + B v`` and the force ``f + B^T w + C v``. A joint turns by
``P (y - A w - B v)`` with ``y = tau - t`` and P, the inverse of A and the armature along its axes, and leaves to its parent

    A - A P A,  B - A P B,  C - B^T P B,  t + A P y,  f + B^T P y;

one that slides does so by ``P (y - B^T w - C v)`` with ``y = tau - f`` and P of C, and leaves

    A - B P B^T,  B - B P C,  C - C P C,  t + B P y,  f + C P y.

A free joint slides along the world's axes, then turns.
"""

# Warp reads the annotations, which name types made here: they are not postponed, and no type checker knows them.
# mypy: ignore-errors
# ruff: noqa: ANN202, SIM109

from functools import lru_cache
from typing import Any

import warp as wp

from visviva.physics.dynamics.links import BALL, FREE, HINGE, SLIDE, module_of, parts, scratch

INNER = dict.fromkeys(("rotation", "turning", "mixed", "sliding", "inverse"), (3, 3)) | dict.fromkeys(
    ("lever", "place", "moment", "force", "left", "whirl", "gain"), (3,)
)
"""Numbers of each link: its rotation, A, B, C, P; the way from its parent, its origin, t, f, y; its accelerations w and v."""


@lru_cache(maxsize=2)
def kernels(real: Any) -> tuple[Any, dict[str, Any]]:
    """Return the kernel and its structs, for float32 or float64, compiled at its first launch."""
    shared, module = parts(real), module_of(__name__, real)
    vec, mat, Links, frame = shared.vec, shared.mat, shared.Links, shared.frame
    three, put, angular = shared.three, shared.put, shared.angular
    Inner = scratch("Articulated", INNER, real)
    rows, row = wp.array2d(dtype=real), wp.array(dtype=real)

    @wp.func
    def square(x: vec):
        return wp.dot(x, x) * wp.identity(n=3, dtype=real) - wp.outer(x, x)

    @wp.func
    def inverted(m: mat):
        """Inverse of a symmetric matrix, and whether it is positive (Cholesky without roots)."""
        one = real(1.0)
        y, z = m[0, 1] / m[0, 0], m[0, 2] / m[0, 0]
        second, rest = m[1, 1] - y * m[0, 1], m[1, 2] - y * m[0, 2]
        n = rest / second
        third = m[2, 2] - z * m[0, 2] - n * rest
        low = mat(one, real(0.0), real(0.0), -y, one, real(0.0), y * n - z, -n, one)
        found = wp.transpose(low) * wp.diag(vec(one / m[0, 0], one / second, one / third)) * low
        return found, m[0, 0] > real(0.0) and second > real(0.0) and third > real(0.0)

    @wp.func
    def along(m: mat, way: mat, many: bool, axis: vec, armature: row, by: int):
        """Inverse of ``m`` along the columns of ``way``, or along one axis, with the armature; and whether it is positive."""
        if many:
            rotor = wp.diag(vec(armature[by], armature[by + 1], armature[by + 2]))
            found, good = inverted(wp.transpose(way) * m * way + rotor)
            return way * found * wp.transpose(way), good
        moved = wp.dot(axis, m * axis) + armature[by]
        return wp.outer(axis, axis) / moved, moved > real(0.0)

    @wp.func
    def begin(x: Links, q: rows, inner: Inner, s: int, g: int):
        """From the root on: frames, and each link's own inertia."""
        for b in range(x.parent.shape[0]):
            p, mass = x.parent[b], x.mass[b]
            own, r = frame(x, q, g, b)
            at = vec(r)
            if p >= 0:
                up = inner.rotation[s, p]
                own = up * own
                r = up * r
                at = inner.place[s, p] + r
            arm = own * x.com[b]
            inner.rotation[s, b] = own
            inner.lever[s, b] = r
            inner.place[s, b] = at
            inner.turning[s, b] = own * x.inertia[b] * wp.transpose(own) + mass * square(arm)
            inner.mixed[s, b] = mass * wp.skew(arm)
            inner.sliding[s, b] = mass * wp.identity(n=3, dtype=real)
            inner.moment[s, b] = vec()
            inner.force[s, b] = vec()

    @wp.func
    def after_turning(A: mat, B: mat, C: mat, P: mat, y: vec):
        U, V, z = A * P, wp.transpose(B) * P, P * y
        return A - U * A, B - U * B, C - V * B, A * z, wp.transpose(B) * z

    @wp.func
    def after_sliding(A: mat, B: mat, C: mat, P: mat, y: vec):
        U, V, z = B * P, C * P, P * y
        return A - U * wp.transpose(B), B - U * C, C - V * C, B * z, C * z

    @wp.func
    def pass_on(inner: Inner, s: int, p: int, r: vec, A: mat, B: mat, C: mat, t: vec, f: vec):
        """To the parent, about its origin, from which the link's is at r."""
        across = wp.skew(r)
        D = B + across * C
        inner.turning[s, p] = inner.turning[s, p] + A - D * across + across * wp.transpose(B)
        inner.mixed[s, p] = inner.mixed[s, p] + D
        inner.sliding[s, p] = inner.sliding[s, p] + C
        inner.moment[s, p] = inner.moment[s, p] + t + wp.cross(r, f)
        inner.force[s, p] = inner.force[s, p] + f

    @wp.func
    def inwards(
        x: Links, armature: row, tau: rows, a: rows, inner: Inner, failed: wp.array(dtype=int), s: int, g: int
    ):  # fmt: skip
        """From the leaves on: what each joint leaves to its parent; accelerations of a free joint's slides."""
        links = x.parent.shape[0]
        for j in range(links):
            b = links - 1 - j
            p, k, by, whole, place = x.parent[b], x.kind[b], x.first_v[b], inner.rotation[s, b], inner.place[s, b]
            A, B, C = mat(inner.turning[s, b]), mat(inner.mixed[s, b]), mat(inner.sliding[s, b])
            t, f, axis = vec(inner.moment[s, b]), vec(inner.force[s, b]), whole * x.axis[b]
            good = wp.isfinite(wp.dot(place, place) + wp.ddot(whole, whole))
            P, y, more, push = mat(), vec(), vec(), vec()
            if k == FREE or k == BALL or k == HINGE:
                first = int(by)
                if k == FREE:
                    first = by + 3
                P, fine = along(A, whole, k != HINGE, axis, armature, first)
                good = good and fine
                y = whole * angular(k, x.axis[b], tau, g, by) - t
                A, B, C, more, push = after_turning(A, B, C, P, y)
            if k == SLIDE:
                P, fine = along(C, whole, False, axis, armature, by)
                good = good and fine
                y = axis * tau[g, by] - f
                A, B, C, more, push = after_sliding(A, B, C, P, y)
            inner.inverse[s, b] = P
            inner.left[s, b] = y
            if k == FREE:
                Q, fine = along(C, wp.identity(n=3, dtype=real), True, axis, armature, by)
                good = good and fine
                put(a, g, by, Q * (three(tau, g, by) - f - push))
            if not good:
                failed[b] = 1
            if p >= 0:
                pass_on(inner, s, p, inner.lever[s, b], A, B, C, t + more, f + push)

    @wp.func
    def outwards(x: Links, a: rows, inner: Inner, s: int, g: int):
        """From the root on: accelerations of the joints and links."""
        for b in range(x.parent.shape[0]):
            p, k, by, whole = x.parent[b], x.kind[b], x.first_v[b], inner.rotation[s, b]
            P, y, B = inner.inverse[s, b], inner.left[s, b], inner.mixed[s, b]
            w, v, axis = vec(), vec(), whole * x.axis[b]
            if p >= 0:
                w = w + inner.whirl[s, p]
                v = inner.gain[s, p] + wp.cross(w, inner.lever[s, b])
            if k == FREE:
                v = three(a, g, by)
            if k == SLIDE:
                more = P * (y - wp.transpose(B) * w - inner.sliding[s, b] * v)
                a[g, by] = wp.dot(axis, more)
                v = v + more
            if k == FREE or k == BALL or k == HINGE:
                turn = P * (y - inner.turning[s, b] * w - B * v)
                if k == HINGE:
                    a[g, by] = wp.dot(axis, turn)
                if k == BALL:
                    put(a, g, by, wp.transpose(whole) * turn)
                if k == FREE:
                    put(a, g, by + 3, wp.transpose(whole) * turn)
                w = w + turn
            inner.whirl[s, b] = w
            inner.gain[s, b] = v

    @wp.kernel(enable_backward=False, module=module)
    def articulated(
        start: int, x: Links, armature: row, q: rows, tau: rows, inner: Inner, failed: wp.array(dtype=int), a: rows
    ):  # fmt: skip
        s = wp.tid()
        begin(x, q, inner, s, start + s)
        inwards(x, armature, tau, a, inner, failed, s, start + s)
        outwards(x, a, inner, s, start + s)

    return articulated, {"Links": Links, "Inner": Inner}
