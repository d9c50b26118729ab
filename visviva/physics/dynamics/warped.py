"""Inverse dynamics as one kernel: a thread per state, on a processor or a GPU, with gradients.

The algorithm of `visviva.physics.dynamics.inverse` link after link instead of level by level, so that what belongs to a state
stays in the cache. The backward pass is a kernel of its own, which begins with the forward one.
"""

from __future__ import annotations

from typing import Any

import torch
import warp as wp
from torch import Tensor

from visviva.physics.bodies.body import Body
from visviva.physics.dynamics.kernel import BACK, INNER, kernels
from visviva.physics.dynamics.launch import REAL, check, launched, links_of, scratch, tensors_of
from visviva.physics.dynamics.links import kind
from visviva.physics.dynamics.once import Once
from visviva.physics.quiet import quiet


def inverse_dynamics(body: Body, q: Tensor, v: Tensor, a: Tensor, wrench: Tensor | None) -> Tensor:
    """Return the forces that `visviva.physics.dynamics.inverse_dynamics` returns, for many states in a fraction of the time.

    Raises:
        InputError: another dtype than float32 and float64, or a body that asks for gradients.
    """
    check(body, q.dtype, "inverse dynamics")
    shared, flat, outside = flattened(body, (q, v, a), wrench)
    with quiet():
        wp.init()
        tau = _Inverse.apply(body, *flat, outside)
    return tau.reshape(*shared, body.nv)


def flattened(body: Body, rows: tuple[Tensor, ...], wrench: Tensor | None) -> tuple[torch.Size, list[Tensor], Tensor | None]:
    """Return the states' common batch, their numbers (states, ..) and wrenches (2, states, n, 3): forces, then moments."""
    shared = torch.broadcast_shapes(*(x.shape[:-1] for x in rows), () if wrench is None else wrench.shape[:-2])
    flat = [x.expand(*shared, x.shape[-1]).reshape(shared.numel(), x.shape[-1]).contiguous() for x in rows]
    if wrench is not None:
        wrench = wrench.expand(*shared, len(body), 6).reshape(shared.numel(), len(body), 2, 3).movedim(-2, 0).contiguous()
    return shared, flat, wrench


class _Inverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, body: Body, q: Tensor, v: Tensor, a: Tensor, wrench: Tensor | None) -> Tensor:
        ctx.body = body
        ctx.save_for_backward(q, v, a, wrench, *tensors_of(body))
        return forces(body, q, v, a, wrench)

    @staticmethod
    def backward(ctx: Any, wanted: Tensor) -> tuple[Tensor | None, ...]:
        q, v, a, wrench, *_ = ctx.saved_tensors
        with torch.no_grad():
            found = gradients(ctx.body, q, v, a, wrench, wanted)
        return None, *Once.apply(4, *found, q, v, a, wrench, wanted)


def forces(body: Body, q: Tensor, v: Tensor, a: Tensor, wrench: Tensor | None) -> Tensor:
    """Return forces (states, nv) of states as `flattened` gives them, without the armature's."""
    tau = torch.empty_like(v)
    forward, _, structs = kernels(REAL[q.dtype])
    links, given = links_of(structs["Links"], body, q), _states(structs["States"], [q, v, a, wrench], tau)

    def inputs() -> tuple[list[Any], list[Tensor]]:
        inner, kept = scratch(structs["Inner"], INNER, body, q)
        return [int(wrench is not None), links, given, inner], kept

    launched(forward, q, inputs)
    return tau


def gradients(body: Body, q: Tensor, v: Tensor, a: Tensor, wrench: Tensor | None, wanted: Tensor) -> list[Tensor | None]:
    """Return the gradients by q, v, a and the wrenches of ``forces . wanted``."""
    states = [q, v, a, wrench]
    grads = [None if x is None else torch.zeros_like(x) for x in states]
    _, backward, structs = kernels(REAL[q.dtype])
    links, given = links_of(structs["Links"], body, q), _states(structs["States"], states, torch.empty_like(v))
    to = _states(structs["States"], grads, wanted.contiguous())

    def inputs() -> tuple[list[Any], list[Tensor]]:
        inner, kept = scratch(structs["Inner"], INNER, body, q)
        back, also = scratch(structs["Back"], BACK, body, q)
        return [int(wrench is not None), links, given, inner, to, back], kept + also

    with quiet():
        launched(backward, q, inputs)
    return grads


def _states(struct: Any, states: list[Tensor | None], tau: Tensor) -> Any:
    """States, the two halves of the wrenches (or what stands for none) and forces, as Warp's."""
    q, v, a, wrench = states
    vec, found = kind((3,), REAL[tau.dtype]), struct()
    found.q, found.v, found.a, found.tau = (wp.from_torch(x, requires_grad=False) for x in (q, v, a, tau))
    halves = tau.new_zeros(2, 1, 1, 3) if wrench is None else wrench
    found.push, found.twist = (wp.from_torch(half, dtype=vec, requires_grad=False) for half in halves)
    return found
