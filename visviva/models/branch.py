"""A branch beside a transformer's first blocks: copies of them, whose tokens travel behind the backbone's.

    b_{i+1} = copy of block i (b_i)      x_{i+1} = block i (x_i) + W_i b_{i+1},  W_i = 0 at first

So checkpoints and several shapes in flight are as safe as without it, and with W_i = 0 the output is the backbone's, bit by
bit. Force control and physical experts are branches; what b_0 is, and what is done at either end, is theirs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from visviva.errors import InputError


class BranchBlock(nn.Module):
    """What one block of the backbone got: a copy of itself, and what leads back, zero at first.

    Attributes:
        copied: the copy; ``inject``: back into the backbone; ``plain``: the block's own forward, once it is `attach` ed.
    """

    plain: Callable[..., Any]

    def __init__(self, block: Any, width: int) -> None:
        super().__init__()
        self.copied = copy.deepcopy(block).requires_grad_(True)
        self.inject = nn.Linear(width, width).to(block.attn1.to_q.weight)
        nn.init.zeros_(self.inject.weight)
        nn.init.zeros_(self.inject.bias)


def refuse_count(blocks: int, own: Any) -> None:
    """Raise an `InputError` unless so many of the transformer's blocks can be copied."""
    if not 1 <= blocks <= len(own):
        raise InputError(f"{blocks} copied blocks; this transformer has {len(own)}, give 1 to as many")


def attach(block: Any, name: str, part: BranchBlock, forward: Callable[..., Any]) -> None:
    """Put a part beside a block as its attribute ``name`` and let the block be ``forward(block, ...)``, in place."""
    part.plain = block.forward
    setattr(block, name, part)
    block.forward = MethodType(forward, block)


def detach(transformer: Any, blocks: Iterable[Any], name: str) -> None:
    """Take the parts called ``name`` off again, and the hooks that belong to them, in place."""
    for block in blocks:
        if hasattr(block, name):
            delattr(block, name)
            del block.forward  # the class's own is seen again
    for handle in transformer.__dict__.pop(f"_{name}_handles", []):
        handle.remove()


def abreast(
    part: BranchBlock,
    last: bool,
    hidden_states: Tensor,
    encoder_hidden_states: Tensor,
    temb: Tensor,
    rotary_emb: Any,
    begin: Callable[..., Tensor] | None = None,
    end: Callable[..., Tensor] | None = None,
) -> Tensor:
    """Run a block of a Wan transformer and its copy; tokens of the branch come behind those of the backbone, and go on so.

    ``begin`` makes the branch's tokens of the backbone's, the words and the grid; ``end`` is the last thing done to them.
    """
    frames, rows, columns = rotary_emb.grid
    x, branch = hidden_states[:, : frames * rows * columns], hidden_states[:, frames * rows * columns :]
    if begin is not None:
        branch = begin(x, encoder_hidden_states, rotary_emb.grid)
    branch = part.copied(branch, encoder_hidden_states, temb, rotary_emb)
    if end is not None:
        branch = end(branch)
    x = part.plain(x, encoder_hidden_states, temb, rotary_emb) + part.inject(branch)
    return x if last else torch.cat([x, branch], 1)
