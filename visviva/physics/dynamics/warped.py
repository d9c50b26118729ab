"""Inverse dynamics as one kernel: a thread per state, on a processor or a GPU, with gradients.

The algorithm of `visviva.physics.dynamics.inverse` link after link instead of level by level, so that what belongs to a state
stays in the cache. The backward pass is a kernel of its own, which begins with the forward one; memory for it does not grow
with the number of states. On a processor as many threads work as torch may use.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
import warp as wp
from torch import Tensor
from torch.autograd.function import once_differentiable

from visviva.errors import InputError
from visviva.physics.bodies.body import JOINTS, SHAPES, Body
from visviva.physics.dynamics.kernel import BACK, INNER, KIND, kernels
from visviva.physics.quiet import quiet

REAL = {torch.float32: wp.float32, torch.float64: wp.float64}
CHUNK = {"cpu": 256, "cuda": 2**18}
"""States that are worked on at once: their intermediate numbers fit the cache of a core, or fill a GPU."""


def inverse_dynamics(body: Body, q: Tensor, v: Tensor, a: Tensor, wrench: Tensor | None) -> Tensor:
    """Return the forces that `visviva.physics.dynamics.inverse_dynamics` returns, for many states in a fraction of the time.

    Raises:
        InputError: another dtype than float32 and float64, or a body that asks for gradients.
    """
    if q.dtype not in REAL:
        raise InputError(f"states in {q.dtype}; Warp's inverse dynamics takes float32 and float64: convert, or method='torch'")
    if any(getattr(body, name).requires_grad for name in SHAPES):
        raise InputError(
            "the body's tensors ask for gradients; Warp's inverse dynamics has those of states only: method='torch'"
        )
    shared = torch.broadcast_shapes(q.shape[:-1], v.shape[:-1], a.shape[:-1], () if wrench is None else wrench.shape[:-2])
    flat = [x.expand(*shared, x.shape[-1]).reshape(-1, x.shape[-1]).contiguous() for x in (q, v, a)]
    outside = wrench
    if wrench is not None:  # forces, then moments
        outside = wrench.expand(*shared, len(body), 6).reshape(-1, len(body), 2, 3).movedim(-2, 0).contiguous()
    with quiet():
        wp.init()
        tau = _Inverse.apply(body, *flat, outside)
    return tau.reshape(*shared, body.nv)


class _Inverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, body: Body, q: Tensor, v: Tensor, a: Tensor, wrench: Tensor | None) -> Tensor:
        ctx.body = body
        ctx.save_for_backward(q, v, a, wrench)
        tau = torch.empty_like(v)
        _launched(body, [q, v, a, wrench], tau, None)
        return tau

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, wanted: Tensor) -> tuple[Tensor | None, ...]:
        states = ctx.saved_tensors
        grads = [None if x is None else torch.zeros_like(x) for x in states]
        with quiet():
            _launched(ctx.body, list(states), torch.empty_like(states[1]), (wanted.contiguous(), grads))
        return None, *grads


def _launched(body: Body, states: list[Tensor | None], tau: Tensor, back: tuple[Tensor, list[Tensor | None]] | None) -> None:
    """Fill ``tau``, or with ``back`` (its gradient and where those of the states go) compute gradients, in parts."""
    size = min(CHUNK[tau.device.type], len(tau))
    starts = list(range(0, len(tau), max(size, 1)))
    forward, backward, shapes = kernels(REAL[tau.dtype])
    program = forward if back is None else backward
    links, given = _links(shapes["Links"], body, tau), _states(shapes["States"], states, tau)
    wanted = [] if back is None else [_states(shapes["States"], back[1], back[0])]

    def work(mine: list[int]) -> None:
        inner, kept = _scratch(shapes["Inner"], INNER, body, size, tau)
        to, also = _scratch(shapes["Back"], BACK, body, size, tau) if wanted else (None, None)
        for start in mine:
            inputs = [start, int(states[3] is not None), links, given, inner, *wanted, *([to] if wanted else [])]
            wp.launch(program, dim=min(size, len(tau) - start), inputs=inputs, device=wp.device_from_torch(tau.device))
        del kept, also

    if tau.is_cuda:
        with wp.ScopedStream(wp.stream_from_torch(torch.cuda.current_stream(tau.device))):
            work(starts)
        return
    wp.load_module(program.module, device="cpu")
    threads = max(1, min(torch.get_num_threads(), len(starts)))
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, [starts[k::threads] for k in range(threads)]))


def _states(kind: Any, states: list[Tensor | None], tau: Tensor) -> Any:
    """States, the two halves of the wrenches (or what stands for none) and forces, as Warp's."""
    q, v, a, wrench = states
    vec, found = wp.types.vector(3, REAL[tau.dtype]), kind()
    found.q, found.v, found.a, found.tau = (wp.from_torch(x, requires_grad=False) for x in (q, v, a, tau))
    halves = tau.new_zeros(2, 1, 1, 3) if wrench is None else wrench
    found.push, found.twist = (wp.from_torch(half, dtype=vec, requires_grad=False) for half in halves)
    return found


def _scratch(kind: Any, names: Sequence[str], body: Body, states: int, like: Tensor) -> tuple[Any, list[Tensor]]:
    """Intermediate numbers and their tensors: a state's together on a processor, those of neighbouring threads on a GPU."""
    real, found, kept = REAL[like.dtype], kind(), []
    for name in names:
        shape = (3, 3) if name == "rotation" else (3,)
        dtype = wp.types.matrix(shape, real) if name == "rotation" else wp.types.vector(3, real)
        if like.is_cuda:
            kept.append(like.new_empty(len(body), states, *shape).transpose(0, 1))
        else:
            kept.append(like.new_empty(states, len(body), *shape))
        setattr(found, name, wp.from_torch(kept[-1], dtype=dtype, requires_grad=False))
    return found, kept


def _links(kind: Any, body: Body, like: Tensor) -> Any:
    """The body as the kernels take it."""
    real, device, found = REAL[like.dtype], wp.device_from_torch(like.device), kind()
    vec, mat = wp.types.vector(3, real), wp.types.matrix((3, 3), real)
    first_q, first_v = ([sum(JOINTS[j][k] for j in body.joints[:i]) for i in range(len(body))] for k in (0, 1))
    whole = {"parent": body.parents, "kind": [KIND[j] for j in body.joints], "first_q": first_q, "first_v": first_v}
    for name, numbers in whole.items():
        setattr(found, name, wp.array(list(numbers), dtype=int, device=device))
    for name, dtype in {"offset": vec, "rest": mat, "axis": vec, "mass": real, "com": vec, "inertia": mat}.items():
        setattr(found, name, wp.from_torch(getattr(body, name).to(like).contiguous(), dtype=dtype))
    found.gravity = vec(*body.down.tolist())
    return found
