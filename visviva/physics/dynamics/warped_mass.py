"""The mass matrix as one kernel: a thread per state, on a processor or a GPU, with a gradient by the configuration.

The algorithm of `visviva.physics.dynamics.mass` link after link; formulas in `visviva.physics.dynamics.composite`.
"""

from __future__ import annotations

from typing import Any

import torch
import warp as wp
from torch import Tensor

from visviva.physics.bodies.body import Body
from visviva.physics.dynamics.composite import BACK, INNER, kernels
from visviva.physics.dynamics.launch import REAL, check, launched, links_of, scratch, tensors_of
from visviva.physics.dynamics.once import Once
from visviva.physics.quiet import quiet


def mass_matrix(body: Body, q: Tensor) -> Tensor:
    """Return the matrix (*batch, nv, nv) that `visviva.physics.dynamics.mass_matrix` returns, without the armature.

    Raises:
        InputError: another dtype than float32 and float64, or a body that asks for gradients.

    Example::

        matrix = mass_matrix(body, q)  # [kg, kg m, kg m^2]
    """
    check(body, q.dtype, "mass matrix")
    batch = q.shape[:-1]
    with quiet():
        wp.init()
        matrix = _Matrix.apply(body, q.reshape(batch.numel(), body.nq).contiguous())
    return matrix.reshape(*batch, body.nv, body.nv)


class _Matrix(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, body: Body, q: Tensor) -> Tensor:
        ctx.body = body
        ctx.save_for_backward(q, *tensors_of(body))
        matrix = q.new_zeros(len(q), body.nv, body.nv)
        program, _, structs = kernels(REAL[q.dtype])
        _launched(program, structs, body, q, matrix, None)
        return matrix

    @staticmethod
    def backward(ctx: Any, wanted: Tensor) -> tuple[None, Tensor]:
        q, *_ = ctx.saved_tensors
        grad = torch.empty_like(q)
        _, program, structs = kernels(REAL[q.dtype])
        with quiet(), torch.no_grad():
            _launched(program, structs, ctx.body, q, wanted.contiguous(), grad)
        return None, *Once.apply(1, grad, q, wanted)


def _launched(program: Any, structs: dict[str, Any], body: Body, q: Tensor, matrix: Tensor, grad: Tensor | None) -> None:
    """Fill the matrix, or the gradient by q from the matrix's."""
    links = links_of(structs["Links"], body, q)
    states, square = (wp.from_torch(x, requires_grad=False) for x in (q, matrix))
    back = None if grad is None else wp.from_torch(grad, requires_grad=False)

    def inputs() -> tuple[list[Any], list[Tensor]]:
        inner, kept = scratch(structs["Inner"], INNER, body, q)
        if back is None:
            return [links, states, inner, square], kept
        to, also = scratch(structs["Back"], BACK, body, q)
        return [links, states, inner, square, to, back], kept + also

    launched(program, q, inputs)
