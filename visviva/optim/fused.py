"""AdamW by torch's own kernel: where a chain is AdamW and nothing else, one pass that no compiled program here beats.

It runs on unsharded float32 weights with float32 states on a CPU, compiled or not; every other case takes the chain.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from visviva.optim.arena import Segment
from visviva.optim.moments import Ema, RmsDivide, SecondMoment
from visviva.optim.transform import Transform
from visviva.optim.weights import Apply

LISTS = 1024
"""From how many weights per tensor on gradients are read where they lie; shorter ones are copied together first."""


def is_adamw(chain: Sequence[Transform]) -> bool:
    """Return whether a chain is AdamW with all options as in torch."""
    if tuple(map(type, chain)) != (Ema, SecondMoment, RmsDivide, Apply):
        return False
    ema, second, divide, apply = (vars(transform) for transform in chain)
    plain = Ema(ema["beta"]), SecondMoment(second["beta"]), RmsDivide(divide["eps"]), Apply(apply["weight_decay"])
    return tuple(chain) == plain


def fits(segment: Segment, lr: Any) -> bool:
    """Return whether torch's kernel takes a segment."""
    buffers = (segment.p, *segment.state.values())
    plain = type(segment) is Segment and not segment.sharded and not isinstance(lr, Tensor)
    return plain and segment.device.type == "cpu" and all(b.dtype == torch.float32 for b in buffers)


def gradients(segment: Segment) -> list[Tensor]:
    """Return the gradients as the kernel takes them: where they lie, or one flat vector."""
    lie_apart = not segment.direct and not segment.adopted and segment.size >= LISTS * len(segment.parameters)
    if lie_apart and all(map(Tensor.is_contiguous, segment.gradients)):
        found, segment.gradients = segment.gradients, []
        return found
    return [segment.gather()]


def step(segment: Segment, grads: list[Tensor], chain: Sequence[Any], lr: float, t: float) -> None:
    """Do step ``t`` (from 1) of AdamW on a segment."""
    ema, second, divide, apply = chain
    whole = [[segment.p], *([state] for state in segment.state.values())]
    weights, first, squares = whole if len(grads) == 1 else segment.apart
    torch._fused_adamw_(
        weights,
        grads,
        first,
        squares,
        [],
        [torch.tensor(t)] * len(grads),
        lr=lr,
        beta1=ema.beta,
        beta2=second.beta,
        weight_decay=apply.weight_decay,
        eps=divide.eps,
        amsgrad=False,
        maximize=False,
    )
