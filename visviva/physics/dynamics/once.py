"""Gradients that can be taken once: a second derivative through them is an error, never a silent zero.

torch's ``once_differentiable`` says so only where the gradient's own ``backward`` is called: ``torch.autograd.grad(..., q)``
does not come by it and leaves the second-order part out. Here a gradient hangs on all that it was computed from.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from visviva.errors import InputError


class Once(torch.autograd.Function):
    """Returns gradients as they are, hung on the tensors that they depend on; differentiating them raises an `InputError`.

    Example::

        by_q, by_v = Once.apply(2, by_q, by_v, q, v, wanted)
    """

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return the first ``count`` tensors; the others are what they were computed from."""
        return tuple(None if x is None else x.view_as(x) for x in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *wanted: Tensor | None) -> tuple[None, ...]:
        """Raise."""
        raise InputError("Warp's dynamics has first derivatives only; take method='torch' for second ones")
