"""The kernels of the mass matrix, `visviva.physics.dynamics.warped_mass`: composite bodies of one state per thread.

Featherstone, Rigid Body Dynamics Algorithms (2008), table 6.2. With the motion s_k of degree k, and mass, first moment and
inertia of its link and all that it carries, I_k,

    F_k = I_k s_k,  M_jk = s_j . F_k  for every j on the way from the root to k.

For the gradient by the configuration, L = sum G_jk M_jk with g = G + G^T, turn and shift link b and what it carries by d: only
the motions above b, those of P_b, stay. Then dL = d . T_b, with the wrench

    T_b = -sum_(j in P_b, k at b or below) g_jk s_j x* F_k - sum_(j, k in P_b) g_jk s_j x* I_b s_k.

The first sum is gathered pair by pair: what enters at the link of k leaves at that of j. The second needs, besides I_b, only
``sum g_jk w_j w_k^T`` and ``sum g_jk w_j x v_k`` of the motions' angular and linear parts w and v, which grow along the way. A
free joint slides along the world's axes, then turns: its slides are above its turns. All lengths are relative to links, so that
nothing depends on how far from the origin the body is.
"""

# Warp reads the annotations, which name types made here: they are not postponed, and no type checker knows them.
# mypy: ignore-errors
# ruff: noqa: ANN202, SIM109

from functools import lru_cache
from typing import Any

import warp as wp

from visviva.physics.dynamics.links import BALL, FREE, HINGE, SLIDE, WELD, module_of, parts, scratch

INNER = {"rotation": (3, 3), "lever": (3,), "mass": (), "first": (3,), "second": (3, 3)}
"""Numbers of each link: its rotation, the way from its parent; mass, first moment and inertia of it and all that it carries,
about its origin."""

BACK = {"spread": (3, 3), "swirl": (3,), "to_force": (3,), "to_moment": (3,)}
"""The two sums over what moves a link, and the wrench T."""


@lru_cache(maxsize=2)
def kernels(real: Any) -> tuple[Any, Any, dict[str, Any]]:
    """Return the kernel, that of its gradient, and their structs, for float32 or float64, compiled at their first launch."""
    shared, module = parts(real), module_of(__name__, real)
    vec, mat, Links, frame, put, put_quaternion = (
        shared.vec, shared.mat, shared.Links, shared.frame, shared.put, shared.put_quaternion
    )  # fmt: skip
    Inner, Back = scratch("Composites", INNER, real), scratch("Sums", BACK, real)
    rows = wp.array2d(dtype=real)

    @wp.func
    def degrees(k: int):
        found = 1
        if k == FREE:
            found = 6
        if k == BALL:
            found = 3
        if k == WELD:
            found = 0
        return found

    @wp.func
    def turns(k: int, d: int):
        return k == BALL or k == HINGE or (k == FREE and d > 2)

    @wp.func
    def way(k: int, d: int, whole: mat, axis: vec):
        """Direction of a degree of freedom in the world."""
        if k == FREE and d < 3:
            unit = vec()
            unit[d] = real(1.0)
            return unit
        if k == FREE:
            return vec(whole[0, d - 3], whole[1, d - 3], whole[2, d - 3])
        if k == BALL:
            return vec(whole[0, d], whole[1, d], whole[2, d])
        return whole * axis

    @wp.func
    def about(r: vec, h: vec, m: real):
        """What an inertia about a point gains for a point that is at -r from it; h: first moment about the former."""
        square = wp.outer(h, r) + wp.outer(r, h) + m * wp.outer(r, r)
        return wp.trace(square) * wp.identity(n=3, dtype=real) - square

    @wp.func
    def gather(x: Links, q: rows, inner: Inner, s: int, g: int):
        """Frames from the root on, composite bodies from the leaves on."""
        links = x.parent.shape[0]
        for b in range(links):
            own, r = frame(x, q, g, b)
            if x.parent[b] >= 0:
                up = inner.rotation[s, x.parent[b]]
                own = up * own
                r = up * r
            arm, mass = own * x.com[b], x.mass[b]
            inner.rotation[s, b] = own
            inner.lever[s, b] = r
            inner.mass[s, b] = mass
            inner.first[s, b] = mass * arm
            inner.second[s, b] = own * x.inertia[b] * wp.transpose(own) + about(arm, vec(), mass)
        for j in range(links):
            b = links - 1 - j
            p = x.parent[b]
            if p >= 0:
                to, h, m = inner.lever[s, b], inner.first[s, b], inner.mass[s, b]
                inner.mass[s, p] = inner.mass[s, p] + m
                inner.first[s, p] = inner.first[s, p] + h + m * to
                inner.second[s, p] = inner.second[s, p] + inner.second[s, b] + about(to, h, m)

    @wp.func
    def carried(turning: bool, e: vec, inner: Inner, s: int, b: int):
        """F of a degree of freedom: moment about the link's origin, and force."""
        if turning:
            return inner.second[s, b] * e, wp.cross(e, inner.first[s, b])
        return wp.cross(inner.first[s, b], e), inner.mass[s, b] * e

    @wp.func
    def entry(matrix: wp.array3d(dtype=real), g: int, row: int, column: int, value: real):
        matrix[g, row, column] = value
        matrix[g, column, row] = value

    @wp.func
    def entries(matrix: wp.array3d(dtype=real), g: int, row: int, column: int, values: vec):
        for c in range(3):
            entry(matrix, g, row, column + c, values[c])

    @wp.func
    def fill(x: Links, inner: Inner, matrix: wp.array3d(dtype=real), s: int, g: int):
        """What the joints on the way to the root feel of F, degree by degree."""
        for b in range(x.parent.shape[0]):
            for d in range(degrees(x.kind[b])):
                row = x.first_v[b] + d
                t, f = carried(turns(x.kind[b], d), way(x.kind[b], d, inner.rotation[s, b], x.axis[b]), inner, s, b)
                i = int(b)
                while i >= 0:
                    k, by, axis, back = x.kind[i], x.first_v[i], x.axis[i], wp.transpose(inner.rotation[s, i])
                    if k == SLIDE:
                        entry(matrix, g, row, by, wp.dot(axis, back * f))
                    if k == HINGE:
                        entry(matrix, g, row, by, wp.dot(axis, back * t))
                    if k == BALL:
                        entries(matrix, g, row, by, back * t)
                    if k == FREE:
                        entries(matrix, g, row, by, f)
                        entries(matrix, g, row, by + 3, back * t)
                    t = t + wp.cross(inner.lever[s, i], f)
                    i = x.parent[i]

    @wp.func
    def both(wanted: wp.array3d(dtype=real), g: int, row: int, at: int):
        """Three numbers of the matrix's gradient and those opposite."""
        return vec(
            wanted[g, row, at] + wanted[g, at, row],
            wanted[g, row, at + 1] + wanted[g, at + 1, row],
            wanted[g, row, at + 2] + wanted[g, at + 2, row],
        )

    @wp.func
    def mixed(k: int, whole: mat, axis: vec, wanted: wp.array3d(dtype=real), g: int, row: int, by: int):
        """``sum_j g_jk s_j`` over the degrees j of a joint: angular and linear part."""
        turn, shift = vec(), vec()
        if k == FREE:
            shift = both(wanted, g, row, by)
            turn = whole * both(wanted, g, row, by + 3)
        if k == BALL:
            turn = whole * both(wanted, g, row, by)
        if k == HINGE:
            turn = whole * axis * (wanted[g, row, by] + wanted[g, by, row])
        if k == SLIDE:
            shift = whole * axis * (wanted[g, row, by] + wanted[g, by, row])
        return turn, shift

    @wp.func
    def pairs(x: Links, wanted: wp.array3d(dtype=real), inner: Inner, to: Back, s: int, g: int):
        """From the root on: the sums over what moves each link, and what enters and leaves of the wrenches."""
        half = real(0.5)
        for b in range(x.parent.shape[0]):
            p, k, by, whole = x.parent[b], x.kind[b], x.first_v[b], inner.rotation[s, b]
            spread, swirl, own_t, own_f = mat(), vec(), vec(), vec()
            if p >= 0:
                r = inner.lever[s, b]
                spread = spread + to.spread[s, p]
                swirl = to.swirl[s, p] + spread * r - wp.trace(spread) * r
            for d in range(degrees(k)):
                e, row = way(k, d, whole, x.axis[b]), by + d
                t, f = carried(turns(k, d), e, inner, s, b)
                w, v, tt, ff, reach = vec(), vec(), vec(t), vec(f), vec()
                i = int(b)
                while x.parent[i] >= 0:
                    tt = tt + wp.cross(inner.lever[s, i], ff)
                    reach = reach + inner.lever[s, i]
                    i = x.parent[i]
                    turn, shift = mixed(x.kind[i], inner.rotation[s, i], x.axis[i], wanted, g, row, x.first_v[i])
                    w = w + turn
                    v = v + shift + wp.cross(turn, reach)
                    if x.kind[i] == FREE:
                        shift = vec()
                    to.to_moment[s, i] = to.to_moment[s, i] + wp.cross(turn, tt) + wp.cross(shift, ff)
                    to.to_force[s, i] = to.to_force[s, i] + wp.cross(turn, ff)
                if k == FREE and d > 2:
                    v = v + both(wanted, g, row, by)
                own_t = own_t - wp.cross(w, t) - wp.cross(v, f)
                own_f = own_f - wp.cross(w, f)
                if turns(k, d):  # of the pairs of a joint's own degrees half, as both come by; slides with turns come by once
                    turn, shift = mixed(k, whole, x.axis[b], wanted, g, row, by)
                    w = w + half * turn
                    spread = spread + wp.outer(e, w) + wp.outer(w, e)
                    swirl = swirl + wp.cross(e, v)
                else:
                    swirl = swirl + wp.cross(w, e)
            to.spread[s, b] = spread
            to.swirl[s, b] = swirl
            to.to_moment[s, b] = own_t
            to.to_force[s, b] = own_f

    @wp.func
    def collect(x: Links, q: rows, to_q: rows, inner: Inner, to: Back, s: int, g: int):
        """From the leaves on: wrenches, and gradients by the numbers of each joint."""
        links = x.parent.shape[0]
        for j in range(links):
            b = links - 1 - j
            p, k, at, axis, r = x.parent[b], x.kind[b], x.first_q[b], x.axis[b], inner.lever[s, b]
            t, f, up = vec(to.to_moment[s, b]), vec(to.to_force[s, b]), mat(x.rest[b])
            if p >= 0:
                to.to_moment[s, p] = to.to_moment[s, p] + t + wp.cross(r, f)
                to.to_force[s, p] = to.to_force[s, p] + f
                spread, h = to.spread[s, p], inner.first[s, b]
                swirl = to.swirl[s, p] + spread * r - wp.trace(spread) * r
                whirl = spread * inner.second[s, b]
                t = t - vec(whirl[1, 2] - whirl[2, 1], whirl[2, 0] - whirl[0, 2], whirl[0, 1] - whirl[1, 0])
                t = t - wp.cross(h, swirl)
                f = f - inner.mass[s, b] * swirl + wp.trace(spread) * h - spread * h
                up = inner.rotation[s, p] * up
            turn = wp.transpose(up) * t
            if k == FREE:
                put(to_q, g, at, vec())
                put_quaternion(to_q, q, g, at + 3, turn)
            if k == BALL:
                put_quaternion(to_q, q, g, at, turn)
            if k == HINGE:
                to_q[g, at] = wp.dot(axis, turn)
            if k == SLIDE:
                to_q[g, at] = wp.dot(up * axis, f)

    @wp.kernel(enable_backward=False, module=module)
    def composite(start: int, x: Links, q: rows, inner: Inner, matrix: wp.array3d(dtype=real)):
        s = wp.tid()
        gather(x, q, inner, s, start + s)
        fill(x, inner, matrix, s, start + s)

    @wp.kernel(enable_backward=False, module=module)
    def gradient(start: int, x: Links, q: rows, inner: Inner, wanted: wp.array3d(dtype=real), to: Back, to_q: rows):
        s = wp.tid()
        gather(x, q, inner, s, start + s)
        pairs(x, wanted, inner, to, s, start + s)
        collect(x, q, to_q, inner, to, s, start + s)

    return composite, gradient, {"Links": Links, "Inner": Inner, "Back": Back}
