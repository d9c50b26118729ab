"""The kernels of `visviva.physics.dynamics.warped`: Newton-Euler of one state per thread, and its gradient.

The gradient is written by hand: rotations answer with one vector, the torque that turns them, instead of nine numbers, and one
walk up and down the tree gives those of all states. All vectors are in the world's frame.
"""

# Warp reads the annotations, which name types made here: they are not postponed, and no type checker knows them.
# mypy: ignore-errors
# ruff: noqa: ANN202

from functools import lru_cache
from typing import Any

import warp as wp

from visviva.physics.dynamics.links import BALL, FREE, HINGE, SLIDE, module_of, parts, scratch, struct

INNER = {"rotation": (3, 3)} | dict.fromkeys(("position", "spin", "whirl", "gain", "force", "moment"), (3,))
"""Numbers of each link that the forward kernel leaves behind: its frame, angular velocity and acceleration, acceleration of its
origin against gravity, force and moment on it and all that it carries."""

BACK = dict.fromkeys(("to_force", "to_moment", "to_gain", "to_whirl", "to_spin", "to_turn", "to_lever"), (3,))
"""Gradients of these, and of the link's orientation and of the way from its parent."""


@lru_cache(maxsize=2)
def kernels(real: Any) -> tuple[Any, Any, dict[str, Any]]:
    """Return the kernel, that of its gradient, and their structs, for float32 or float64, compiled at their first launch."""
    shared, module = parts(real), module_of(__name__, real)
    vec, Links, frame, angular, linear = shared.vec, shared.Links, shared.frame, shared.angular, shared.linear
    three, put, put_quaternion = shared.three, shared.put, shared.put_quaternion
    rows, vecs = wp.array2d(dtype=real), wp.array2d(dtype=vec)
    States = struct("States", q=rows, v=rows, a=rows, push=vecs, twist=vecs, tau=rows)
    Inner, Back = scratch("Inner", INNER, real), scratch("Back", BACK, real)

    @wp.func
    def move(x: Links, given: States, inner: Inner, s: int, g: int):
        """From the root on: frames, velocities, accelerations; forces begin at zero."""
        for i in range(x.parent.shape[0]):
            p, k, by, axis = x.parent[i], x.kind[i], x.first_v[i], x.axis[i]
            own, r = frame(x, given.q, g, i)
            way = x.rest[i] * axis
            w, dw = angular(k, axis, given.v, g, by), angular(k, axis, given.a, g, by)
            dslid = linear(k, way, given.a, g, by)
            inner.force[s, i] = vec()
            inner.moment[s, i] = vec()
            if p < 0:
                inner.rotation[s, i] = own
                inner.position[s, i] = r
                inner.spin[s, i] = own * w
                inner.whirl[s, i] = own * dw
                inner.gain[s, i] = dslid - x.gravity
            else:
                up, turning, turned = inner.rotation[s, p], inner.spin[s, p], inner.whirl[s, p]
                here = up * own
                lever, moved = up * r, up * linear(k, way, given.v, g, by)
                ours = here * w
                inner.rotation[s, i] = here
                inner.position[s, i] = inner.position[s, p] + lever
                inner.spin[s, i] = turning + ours
                inner.whirl[s, i] = turned + here * dw + wp.cross(turning, ours)
                rate = wp.cross(turning, lever) + real(2.0) * moved
                inner.gain[s, i] = inner.gain[s, p] + wp.cross(turned, lever) + wp.cross(turning, rate) + up * dslid

    @wp.func
    def push_back(x: Links, given: States, inner: Inner, s: int, g: int, outside: int):
        """From the leaves on: the force and moment that each link needs, and what the joints give of it."""
        links = x.parent.shape[0]
        for j in range(links):
            b = links - 1 - j
            p, k, by = x.parent[b], x.kind[b], x.first_v[b]
            whole, turns, bends = inner.rotation[s, b], inner.spin[s, b], inner.whirl[s, b]
            back, arm = wp.transpose(whole), whole * x.com[b]
            f = x.mass[b] * (inner.gain[s, b] + wp.cross(bends, arm) + wp.cross(turns, wp.cross(turns, arm)))
            t = (
                whole * (x.inertia[b] * (back * bends))
                + wp.cross(turns, whole * (x.inertia[b] * (back * turns)))
                + wp.cross(arm, f)
            )
            f = f + inner.force[s, b]
            t = t + inner.moment[s, b]
            if outside == 1:
                f = f - given.push[g, b]
                t = t - given.twist[g, b]
            inner.force[s, b] = f
            inner.moment[s, b] = t
            m = back * t
            if k == FREE:
                put(given.tau, g, by, f)
                put(given.tau, g, by + 3, m)
            if k == BALL:
                put(given.tau, g, by, m)
            if k == HINGE:
                given.tau[g, by] = wp.dot(x.axis[b], m)
            if k == SLIDE:
                given.tau[g, by] = wp.dot(x.axis[b], back * f)
            if p >= 0:
                inner.force[s, p] = inner.force[s, p] + f
                inner.moment[s, p] = inner.moment[s, p] + t + wp.cross(inner.position[s, b] - inner.position[s, p], f)

    @wp.func
    def answer(x: Links, wanted: States, inner: Inner, to: Back, s: int, g: int, outside: int):
        """From the root on: gradients by forces, and by what moves each link there. ``wanted.tau`` is that of the result."""
        for b in range(x.parent.shape[0]):
            p, k, by = x.parent[b], x.kind[b], x.first_v[b]
            whole, turns, bends = inner.rotation[s, b], inner.spin[s, b], inner.whirl[s, b]
            back, arm, inertia, mass = wp.transpose(whole), whole * x.com[b], x.inertia[b], x.mass[b]
            t = whole * angular(k, x.axis[b], wanted.tau, g, by)
            f, lever = vec(), vec()
            turn = wp.cross(t, inner.moment[s, b])
            if k == FREE:
                f = three(wanted.tau, g, by)
            if k == SLIDE:
                f = whole * (x.axis[b] * wanted.tau[g, by])
                turn = wp.cross(f, inner.force[s, b])
            if p >= 0:
                above = to.to_moment[s, p]
                lever = wp.cross(inner.force[s, b], above)
                f = f + to.to_force[s, p] + wp.cross(above, inner.position[s, b] - inner.position[s, p])
                t = t + above
            to.to_force[s, b] = f
            to.to_moment[s, b] = t
            to.to_lever[s, b] = lever
            if outside == 1:
                wanted.push[g, b] = -f
                wanted.twist[g, b] = -t
            swept = wp.cross(turns, arm)
            thrust = mass * (inner.gain[s, b] + wp.cross(bends, arm) + wp.cross(turns, swept))
            f = mass * (f + wp.cross(t, arm))
            round, sweep = wp.cross(t, turns), wp.cross(f, turns)
            to_arm = wp.cross(thrust, t) + wp.cross(f, bends) + wp.cross(sweep, turns)
            bent, held = whole * (inertia * (back * bends)), whole * (inertia * (back * turns))
            of_t, of_round = whole * (inertia * (back * t)), whole * (inertia * (back * round))
            to.to_gain[s, b] = f
            to.to_whirl[s, b] = wp.cross(arm, f) + of_t
            to.to_spin[s, b] = wp.cross(swept, f) + wp.cross(arm, sweep) + wp.cross(held, t) + of_round
            to.to_turn[s, b] = (
                turn + wp.cross(arm, to_arm) + wp.cross(bent, t) - wp.cross(bends, of_t)
                + wp.cross(held, round) - wp.cross(turns, of_round)
            )  # fmt: skip

    @wp.func
    def collect(x: Links, given: States, wanted: States, inner: Inner, to: Back, s: int, g: int):
        """From the leaves on: gradients by what moves each link, and by the states of its joint."""
        links = x.parent.shape[0]
        for j in range(links):
            b = links - 1 - j
            p, k, at, by = x.parent[b], x.kind[b], x.first_q[b], x.first_v[b]
            here, axis, rest = inner.rotation[s, b], x.axis[b], x.rest[b]
            g_gain = to.to_gain[s, b]
            g_whirl = to.to_whirl[s, b]
            g_spin = to.to_spin[s, b]
            ours = here * angular(k, axis, given.v, g, by)
            to_ours = vec(g_spin)
            turn = to.to_turn[s, b] + wp.cross(here * angular(k, axis, given.a, g, by), g_whirl)
            to_r, to_slid, to_dslid, to_own = vec(), vec(), vec(g_gain), vec()
            if p >= 0:
                up, turning, turned = inner.rotation[s, p], inner.spin[s, p], inner.whirl[s, p]
                way, frame = rest * axis, wp.transpose(up)
                lever = inner.position[s, b] - inner.position[s, p]
                moved = up * linear(k, way, given.v, g, by)
                rate, to_rate = wp.cross(turning, lever) + real(2.0) * moved, wp.cross(g_gain, turning)
                to_moved = real(2.0) * to_rate
                to_lever = to.to_lever[s, b] + wp.cross(g_gain, turned) + wp.cross(to_rate, turning)
                to_ours = to_ours + wp.cross(g_whirl, turning)
                turn = turn + wp.cross(ours, to_ours)
                to.to_gain[s, p] = to.to_gain[s, p] + g_gain
                to.to_whirl[s, p] = to.to_whirl[s, p] + g_whirl + wp.cross(lever, g_gain)
                to.to_spin[s, p] = (
                    to.to_spin[s, p] + g_spin + wp.cross(rate, g_gain) + wp.cross(lever, to_rate) + wp.cross(ours, g_whirl)
                )
                to.to_turn[s, p] = (
                    to.to_turn[s, p] + turn + wp.cross(lever, to_lever) + wp.cross(moved, to_moved)
                    + wp.cross(up * linear(k, way, given.a, g, by), g_gain)
                )  # fmt: skip
                to_r, to_slid, to_dslid = frame * to_lever, frame * to_moved, frame * g_gain
                to_own = frame * turn
            else:
                turn = turn + wp.cross(ours, to_ours)
                to_own = turn
            to_own = wp.transpose(rest) * to_own
            back = wp.transpose(here)
            to_w, to_dw = back * to_ours, back * g_whirl
            if k == FREE:
                put(wanted.q, g, at, to_r)
                put_quaternion(wanted.q, given.q, g, at + 3, to_own)
                put(wanted.v, g, by, to_slid)
                put(wanted.v, g, by + 3, to_w)
                put(wanted.a, g, by, to_dslid)
                put(wanted.a, g, by + 3, to_dw)
            if k == BALL:
                put_quaternion(wanted.q, given.q, g, at, to_own)
                put(wanted.v, g, by, to_w)
                put(wanted.a, g, by, to_dw)
            if k == HINGE:
                wanted.q[g, at] = wp.dot(axis, to_own)
                wanted.v[g, by] = wp.dot(axis, to_w)
                wanted.a[g, by] = wp.dot(axis, to_dw)
            if k == SLIDE:
                wanted.q[g, at] = wp.dot(rest * axis, to_r)
                wanted.v[g, by] = wp.dot(rest * axis, to_slid)
                wanted.a[g, by] = wp.dot(rest * axis, to_dslid)

    @wp.kernel(enable_backward=False, module=module)
    def newton_euler(start: int, outside: int, x: Links, given: States, inner: Inner):
        s = wp.tid()
        move(x, given, inner, s, start + s)
        push_back(x, given, inner, s, start + s, outside)

    @wp.kernel(enable_backward=False, module=module)
    def gradient(start: int, outside: int, x: Links, given: States, inner: Inner, wanted: States, to: Back):
        s = wp.tid()
        move(x, given, inner, s, start + s)
        push_back(x, given, inner, s, start + s, outside)
        answer(x, wanted, inner, to, s, start + s, outside)
        collect(x, given, wanted, inner, to, s, start + s)

    return newton_euler, gradient, {"Links": Links, "States": States, "Inner": Inner, "Back": Back}
