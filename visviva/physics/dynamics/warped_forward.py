"""Forward dynamics as kernels: a thread per state, on a processor or a GPU, with gradients.

The forces of velocities, gravity and wrenches come from the kernel of inverse dynamics, ``a = M^-1 (tau - h)`` from that of
articulated bodies (`visviva.physics.dynamics.articulated`). Its gradient needs no other kernel: ``tau(q, v, a) = M a + h``, so
with g the gradient by a,

    lambda = M^-1 g,  dtau = lambda,  (dq, dv, dwrench) = -lambda . d tau(q, v, a, wrench) / d(q, v, wrench).
"""

from __future__ import annotations

from typing import Any

import torch
import warp as wp
from torch import Tensor

from visviva.physics.bodies.body import Body
from visviva.physics.dynamics.articulated import INNER, kernels
from visviva.physics.dynamics.forward import refuse
from visviva.physics.dynamics.launch import REAL, check, launched, links_of, scratch, tensors_of
from visviva.physics.dynamics.layout import layout_of
from visviva.physics.dynamics.once import Once
from visviva.physics.dynamics.warped import flattened, forces, gradients
from visviva.physics.quiet import quiet


def forward_dynamics(body: Body, q: Tensor, v: Tensor, tau: Tensor, wrench: Tensor | None) -> Tensor:
    """Return the accelerations that `visviva.physics.dynamics.forward_dynamics` returns, for many states in less time.

    Raises:
        InputError: another dtype than float32 and float64, a body that asks for gradients, or joints that move no inertia.
    """
    check(body, q.dtype, "forward dynamics", "armature")
    shared, flat, outside = flattened(body, (q, v, tau), wrench)
    with quiet():
        wp.init()
        a = _Forward.apply(body, *flat, outside)
    return a.reshape(*shared, body.nv)


class _Forward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, body: Body, q: Tensor, v: Tensor, tau: Tensor, wrench: Tensor | None) -> Tensor:
        a = _solved(body, q, tau - forces(body, q, v, torch.zeros_like(v), wrench))
        ctx.body = body
        ctx.save_for_backward(q, v, tau, a, wrench, *tensors_of(body, "armature"))
        return a

    @staticmethod
    def backward(ctx: Any, wanted: Tensor) -> tuple[Tensor | None, ...]:
        q, v, tau, a, wrench, *_ = ctx.saved_tensors
        with quiet(), torch.no_grad():
            back = _solved(ctx.body, q, wanted.contiguous())
            by_q, by_v, _, by_wrench = gradients(ctx.body, q, v, a, wrench, -back)
        return None, *Once.apply(4, by_q, by_v, back, by_wrench, q, v, tau, wrench, wanted)


def _solved(body: Body, q: Tensor, tau: Tensor) -> Tensor:
    """The accelerations a of ``M(q) a = tau``, the armature in M."""
    a, failed = torch.empty_like(tau), torch.zeros(len(body), dtype=torch.int32, device=q.device)
    program, structs = kernels(REAL[q.dtype])
    links = links_of(structs["Links"], body, q)
    rotor = tau.new_zeros(body.nv) if body.armature is None else body.armature.to(tau).contiguous()
    armature, states, given, flags, found = (wp.from_torch(x, requires_grad=False) for x in (rotor, q, tau, failed, a))

    def inputs() -> tuple[list[Any], list[Tensor]]:
        inner, kept = scratch(structs["Inner"], INNER, body, q)
        return [links, armature, states, given, inner, flags, found], kept

    launched(program, q, inputs)
    if bool(failed.any()):
        first = next(level for level in reversed(layout_of(body).levels) if bool(failed[level].any()))
        refuse(body, first[failed[first].bool()])
    return a
