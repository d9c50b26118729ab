"""ProPhy's physical branch beside a Wan transformer: tokens with the prompt's physics go through copies of its first blocks.

It is a branch as in `visviva.models.branch`; b_0 = SemanticExperts(x), and after the last copy come the refinement experts.
Reconstructed (arXiv 2512.05564, secondary notes): how many blocks are copied is unknown.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from visviva.errors import InputError
from visviva.models.attention.grid import place, refuse_adapters
from visviva.models.branch import BranchBlock, abreast, attach, detach, refuse_count
from visviva.models.experts.prophy import FineAlignment, RefinementExperts, SemanticExperts


class PhysicalBlock(BranchBlock):
    """What one block of the backbone got: a copy of itself, what leads back, and experts at either end of the branch.

    Attributes:
        copied: the copy; ``inject``: back into the backbone, zero at first.
        semantic: where the branch begins; ``refinement``: where it ends; else None.
        told: beside the latter, what reads phenomena from its routing; ``phenomena``: their names. None and () without.
    """

    def __init__(self, block: Any, width: int, semantic: SemanticExperts | None, refinement: RefinementExperts | None) -> None:
        super().__init__(block, width)
        like = self.inject.weight
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
    refuse_count(blocks, transformer.blocks)
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
        attach(block, "physics", part, _forward)
        parts.append(part)
    transformer._physics_handles = place(transformer)
    return nn.ModuleList(parts)


def plain_blocks(transformer: Any) -> None:
    """Take the branch off again, in place."""
    detach(transformer, transformer.blocks, "physics")


def parts_of(transformer: Any) -> Iterator[PhysicalBlock]:
    """Return the branch's parts, in order."""
    return (block.physics for block in transformer.blocks if hasattr(block, "physics"))


def _forward(block: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, temb: Tensor, rotary_emb: Any) -> Tensor:
    part, given = block.physics, (hidden_states, encoder_hidden_states, temb, rotary_emb)
    return abreast(part, part.refinement is not None, *given, begin=part.semantic, end=part.refinement)
