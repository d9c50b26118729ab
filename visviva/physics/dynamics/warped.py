"""Inverse dynamics as one kernel: a thread per state, on a processor or a GPU, with gradients.

The algorithm of `visviva.physics.dynamics.inverse` link after link instead of level by level, so that what belongs to a state
stays in the cache. The backward pass runs the kernel again and then its adjoint; memory for it does not grow with the number of
states. On a processor as many threads work as torch may use.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
import warp as wp
from torch import Tensor
from torch.autograd.function import once_differentiable

from visviva.errors import InputError
from visviva.physics.bodies.body import JOINTS, SHAPES, Body
from visviva.physics.dynamics.kernel import KIND, kernel
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
    """Fill ``tau``, or with ``back`` (its gradient and where those of the states go) run the adjoint, in parts."""
    size = min(CHUNK[tau.device.type], len(tau))
    starts = list(range(0, len(tau), max(size, 1)))
    program, constants = kernel(REAL[tau.dtype]), _constants(body, tau)
    inputs = _arrays(states, tau)
    adjoint = None if back is None else _arrays(back[1], back[0])

    def work(mine: list[int]) -> None:
        inner = [_scratch(body, size, tau), *([] if back is None else [_scratch(body, size, tau)])]
        sums = [*inner[0][0][-2:], *(tensor for tensors, _ in inner[1:] for tensor in tensors)]
        for start in mine:
            torch._foreach_zero_(sums)
            given = [start, int(states[3] is not None), *inputs[:5], *constants, *inner[0][1], inputs[5]]
            where = {"dim": min(size, len(tau) - start), "device": wp.device_from_torch(tau.device)}
            wp.launch(program, inputs=given, **where)
            if adjoint is not None:
                taken = [None, None, *adjoint[:5], *[None] * len(constants), *inner[1][1], adjoint[5]]
                wp.launch(program, inputs=given, adj_inputs=taken, adjoint=True, **where)

    if tau.is_cuda:
        with wp.ScopedStream(wp.stream_from_torch(torch.cuda.current_stream(tau.device))):
            work(starts)
        return
    wp.load_module(program.module, device="cpu")
    threads = max(1, min(torch.get_num_threads(), len(starts)))
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, [starts[k::threads] for k in range(threads)]))


def _arrays(states: list[Tensor | None], tau: Tensor) -> list[Any]:
    """States, the two halves of the wrenches (or what stands for none) and forces, as Warp's."""
    wrench = states[3]
    vec = wp.types.vector(3, REAL[tau.dtype])
    halves = tau.new_zeros(2, 1, 1, 3) if wrench is None else wrench
    numbers = [wp.from_torch(x, requires_grad=False) for x in states[:3] if x is not None]
    return [
        *numbers,
        *(wp.from_torch(half, dtype=vec, requires_grad=False) for half in halves),
        wp.from_torch(tau, requires_grad=False),
    ]


def _scratch(body: Body, states: int, like: Tensor) -> tuple[list[Tensor], list[Any]]:
    """Intermediate numbers: those of a state close together on a processor, those of neighbouring threads on a GPU."""
    real = REAL[like.dtype]
    vec, mat = wp.types.vector(3, real), wp.types.matrix((3, 3), real)
    kinds = [((3, 3), mat), *[((3,), vec)] * 6]
    if like.is_cuda:
        tensors = [like.new_empty(len(body), states, *shape).transpose(0, 1) for shape, _ in kinds]
    else:
        tensors = [like.new_empty(states, len(body), *shape) for shape, _ in kinds]
    return tensors, [wp.from_torch(x, dtype=kind, requires_grad=False) for x, (_, kind) in zip(tensors, kinds, strict=True)]


def _constants(body: Body, like: Tensor) -> list[Any]:
    """The body as the kernel takes it."""
    real, device = REAL[like.dtype], wp.device_from_torch(like.device)
    vec, mat = wp.types.vector(3, real), wp.types.matrix((3, 3), real)
    kinds = {"offset": vec, "rest": mat, "axis": vec, "mass": real, "com": vec, "inertia": mat}
    first_q, first_v = ([sum(JOINTS[j][k] for j in body.joints[:i]) for i in range(len(body))] for k in (0, 1))
    whole = [body.parents, [KIND[joint] for joint in body.joints], first_q, first_v]
    own = [wp.from_torch(getattr(body, name).to(like).contiguous(), dtype=kind) for name, kind in kinds.items()]
    return [*(wp.array(list(x), dtype=int, device=device) for x in whole), *own, vec(*body.down.tolist())]
