"""ProPhy's physical branch beside a Wan transformer: tokens with the prompt's physics go through copies of its first blocks.

    b_0 = SemanticExperts(x)      b_{i+1} = copy of block i (b_i)      x_{i+1} = block i (x_i) + W_i b_{i+1},  W_i = 0 at first

and after the last copy the refinement experts. The branch's tokens travel behind those of the backbone through the blocks that
have a copy, so checkpoints and several shapes in flight are as safe as without it. With W_i = 0 the output is the backbone's,
bit by bit. Reconstructed (arXiv 2512.05564, secondary notes): how many blocks are copied is unknown.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from visviva.errors import InputError
from visviva.models.attention.grid import place, refuse_adapters
from visviva.models.experts.prophy import FineAlignment, RefinementExperts, SemanticExperts


class PhysicalBlock(nn.Module):
    """What one block of the backbone got: a copy of itself, what leads back, and experts at either end of the branch.

    Attributes:
        copied: the copy; ``inject``: back into the backbone, zero at first.
        semantic: where the branch begins; ``refinement``: where it ends; else None.
        told: beside the latter, what reads phenomena from its routing; ``phenomena``: their names. None and () without.
    """

    def __init__(self, block: Any, width: int, semantic: SemanticExperts | None, refinement: RefinementExperts | None) -> None:
        super().__init__()
        like = block.attn1.to_q.weight
        self.copied, self.inject = copy.deepcopy(block).requires_grad_(True), nn.Linear(width, width).to(like)
        nn.init.zeros_(self.inject.weight)
        nn.init.zeros_(self.inject.bias)
        self.semantic = None if semantic is None else semantic.to(like)
        self.refinement = None if refinement is None else refinement.to(like)
        self.told: FineAlignment | None = None
        self.phenomena: tuple[str, ...] = ()


def physics_experts(
    transformer: Any,
    blocks: int = 2,
    semantic: int = 5,
    refinement: int = 5,
    active: int = 2,
    phenomena: Sequence[str] = (),
) -> nn.ModuleList:
    """Put the physical branch beside a Wan transformer, in place; return its parts, one for each of the first ``blocks``.

    Args:
        transformer: diffusers' ``WanTransformer3DModel``.
        blocks: how many blocks are copied.
        semantic, refinement: numbers of experts per clip and per token; ``active``: of the latter, how many see a token.
        phenomena: names of what the latter's routing is to be aligned with (`visviva.models.experts.alignment`), if with any.

    The parts' parameters are the transformer's (``blocks.0.physics...``), to be trained and saved with it; they ask for
    gradients, also where the transformer is frozen.

    Raises:
        InputError: another class, more blocks than there are, a branch that is there already, or adapters, which would
            be copied.

    Example::

        parts = physics_experts(pipeline.transformer)
        routed = parts[0].semantic.weights          # after a forward pass: (B, experts)
    """
    if type(transformer).__name__ != "WanTransformer3DModel":
        raise InputError(f"no physical branch for {type(transformer).__name__}; it is there for WanTransformer3DModel")
    if not 1 <= blocks <= len(transformer.blocks):
        raise InputError(f"{blocks} copied blocks; this transformer has {len(transformer.blocks)}, give 1 to as many")
    if hasattr(transformer.blocks[0], "physics"):
        raise InputError("this transformer has a physical branch already; take it off with plain_blocks first")
    if hasattr(transformer.blocks[0], "control"):
        raise InputError("this transformer has force control; a physical branch beside it is not supported")
    refuse_adapters(transformer)
    width = transformer.config.num_attention_heads * transformer.config.attention_head_dim
    parts = []
    for i in range(blocks):
        block = transformer.blocks[i]
        first = SemanticExperts(width, width, semantic) if i == 0 else None
        last = RefinementExperts(width, refinement, active) if i == blocks - 1 else None
        part = PhysicalBlock(block, width, first, last)
        if last is not None and phenomena:
            part.told, part.phenomena = FineAlignment(refinement, len(phenomena)).to(part.inject.weight), tuple(phenomena)
        part.plain = block.forward  # type: ignore[assignment]
        block.physics = part
        block.forward = MethodType(_forward, block)
        parts.append(part)
    transformer._physics_handles = place(transformer)
    return nn.ModuleList(parts)


def plain_blocks(transformer: Any) -> None:
    """Take the branch off again, in place."""
    for block in transformer.blocks:
        if hasattr(block, "physics"):
            del block.physics
            del block.forward  # the class's own is seen again
    for handle in transformer.__dict__.pop("_physics_handles", []):
        handle.remove()


def parts_of(transformer: Any) -> Iterator[PhysicalBlock]:
    """Return the branch's parts, in order."""
    return (block.physics for block in transformer.blocks if hasattr(block, "physics"))


def _forward(block: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, temb: Tensor, rotary_emb: Any) -> Tensor:
    """A block of the backbone and its copy; tokens of the branch come behind those of the backbone, and go on so."""
    part, grid = block.physics, rotary_emb.grid
    count = grid[0] * grid[1] * grid[2]
    x, branch = hidden_states[:, :count], hidden_states[:, count:]
    if part.semantic is not None:
        branch = part.semantic(x, encoder_hidden_states, grid)
    branch = part.copied(branch, encoder_hidden_states, temb, rotary_emb)
    if part.refinement is not None:
        branch = part.refinement(branch)
    x = part.plain(x, encoder_hidden_states, temb, rotary_emb) + part.inject(branch)
    return x if part.refinement is not None else torch.cat([x, branch], 1)
