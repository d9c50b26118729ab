"""The kernel of `visviva.physics.dynamics.warped`: Newton-Euler of one state per thread, in Warp's dialect of Python."""

# Warp reads the annotations, which name types made here: they are not postponed, and no type checker knows them.
# mypy: ignore-errors
# ruff: noqa: ANN202

from functools import lru_cache
from typing import Any

import warp as wp

FREE, BALL, HINGE, SLIDE, WELD = range(5)
KIND = {"free": FREE, "ball": BALL, "hinge": HINGE, "slide": SLIDE, "weld": WELD}
"""Number of each kind of joint."""


@lru_cache(maxsize=2)
def kernel(real: Any) -> Any:
    """Return the kernel for float32 or float64, compiled at its first launch."""
    vec, mat = wp.types.vector(3, real), wp.types.matrix((3, 3), real)

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

    @wp.kernel
    def newton_euler(
        start: int,
        outside: int,
        q: wp.array2d(dtype=real),
        v: wp.array2d(dtype=real),
        a: wp.array2d(dtype=real),
        push: wp.array2d(dtype=vec),
        twist: wp.array2d(dtype=vec),
        parent: wp.array(dtype=int),
        kind: wp.array(dtype=int),
        first_q: wp.array(dtype=int),
        first_v: wp.array(dtype=int),
        offset: wp.array(dtype=vec),
        rest: wp.array(dtype=mat),
        axis: wp.array(dtype=vec),
        mass: wp.array(dtype=real),
        com: wp.array(dtype=vec),
        inertia: wp.array(dtype=mat),
        gravity: vec,
        rotation: wp.array2d(dtype=mat),
        position: wp.array2d(dtype=vec),
        spin: wp.array2d(dtype=vec),
        whirl: wp.array2d(dtype=vec),
        gain: wp.array2d(dtype=vec),
        force: wp.array2d(dtype=vec),
        moment: wp.array2d(dtype=vec),
        tau: wp.array2d(dtype=real),
    ):
        s = wp.tid()
        g = start + s
        links = parent.shape[0]
        for i in range(links):
            p, k, at, by = parent[i], kind[i], first_q[i], first_v[i]
            own = rest[i]
            r = offset[i]
            w, dw, slid, dslid = vec(), vec(), vec(), vec()
            if k == FREE:
                r = r + three(q, g, at)
                own = own * turn_of(q[g, at + 3], q[g, at + 4], q[g, at + 5], q[g, at + 6])
                slid, dslid = three(v, g, by), three(a, g, by)
                w, dw = three(v, g, by + 3), three(a, g, by + 3)
            if k == BALL:
                own = own * turn_of(q[g, at], q[g, at + 1], q[g, at + 2], q[g, at + 3])
                w, dw = three(v, g, by), three(a, g, by)
            if k == HINGE:
                own = own * turn_about(axis[i], q[g, at])
                w, dw = axis[i] * v[g, by], axis[i] * a[g, by]
            if k == SLIDE:
                way = rest[i] * axis[i]
                r = r + way * q[g, at]
                slid, dslid = way * v[g, by], way * a[g, by]
            if p < 0:
                rotation[s, i] = own
                position[s, i] = r
                spin[s, i] = own * w
                whirl[s, i] = own * dw
                gain[s, i] = dslid - gravity
            else:
                up, turning, turned = rotation[s, p], spin[s, p], whirl[s, p]
                here = up * own
                lever, moved = up * r, up * slid
                ours = here * w
                rotation[s, i] = here
                position[s, i] = position[s, p] + lever
                spin[s, i] = turning + ours
                whirl[s, i] = turned + here * dw + wp.cross(turning, ours)
                inner = wp.cross(turning, lever) + real(2.0) * moved
                gain[s, i] = gain[s, p] + wp.cross(turned, lever) + wp.cross(turning, inner) + up * dslid
        for j in range(links):
            b = links - 1 - j
            above, joint, to = parent[b], kind[b], first_v[b]
            whole, turns, bends = rotation[s, b], spin[s, b], whirl[s, b]
            back, arm = wp.transpose(whole), whole * com[b]
            f = mass[b] * (gain[s, b] + wp.cross(bends, arm) + wp.cross(turns, wp.cross(turns, arm)))
            t = (
                whole * (inertia[b] * (back * bends))
                + wp.cross(turns, whole * (inertia[b] * (back * turns)))
                + wp.cross(arm, f)
            )
            f = f + force[s, b]
            t = t + moment[s, b]
            if outside == 1:
                f = f - push[g, b]
                t = t - twist[g, b]
            m = back * t
            if joint == FREE:
                tau[g, to] = f[0]
                tau[g, to + 1] = f[1]
                tau[g, to + 2] = f[2]
                tau[g, to + 3] = m[0]
                tau[g, to + 4] = m[1]
                tau[g, to + 5] = m[2]
            if joint == BALL:
                tau[g, to] = m[0]
                tau[g, to + 1] = m[1]
                tau[g, to + 2] = m[2]
            if joint == HINGE:
                tau[g, to] = wp.dot(axis[b], m)
            if joint == SLIDE:
                tau[g, to] = wp.dot(axis[b], back * f)
            if above >= 0:
                wp.atomic_add(force, s, above, f)
                wp.atomic_add(moment, s, above, t + wp.cross(position[s, b] - position[s, above], f))

    return newton_euler
