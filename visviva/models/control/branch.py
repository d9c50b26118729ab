"""The control branch: the backbone's first blocks once more, reading latents and forces, added to it through zeros.

Force Prompting (arXiv 2505.19386) for CogVideoX: encoded forces are concatenated to the noisy and first-frame latents, a *new*
patch embedding and copies of the first 6 blocks read them, and a zero-initialised layer per block adds what they make to the
backbone's tokens. Here the same for Wan: forces come as 32 further input channels behind the model's own, so they pass through
guidance, checkpoints and caches with the latents; the branch's tokens travel behind the backbone's. With the layers at zero the
output is the backbone's, bit by bit, whatever the force.
"""

from __future__ import annotations

import copy
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from visviva.errors import InputError
from visviva.models.attention.grid import place, refuse_adapters
from visviva.models.control.encoder import CHANNELS


class ControlBlock(nn.Module):
    """What one block of the backbone got: a copy of itself, and what leads back, zero at first."""

    def __init__(self, block: Any, width: int, last: bool) -> None:
        super().__init__()
        self.copied, self.last = copy.deepcopy(block).requires_grad_(True), last
        self.inject = nn.Linear(width, width).to(block.attn1.to_q.weight)
        nn.init.zeros_(self.inject.weight)
        nn.init.zeros_(self.inject.bias)


class Embedding(nn.Module):
    """The backbone's patch embedding of its own channels, and behind it in time a new one of these and the forces'.

    Attributes:
        plain: the backbone's; ``control``: the new one, which begins as the backbone's and blind to the forces.
    """

    def __init__(self, plain: nn.Conv3d) -> None:
        super().__init__()
        self.plain = plain
        self.control = nn.Conv3d(
            plain.in_channels + CHANNELS, plain.out_channels, plain.kernel_size, stride=plain.stride  # type: ignore[arg-type]
        ).to(plain.weight)  # fmt: skip
        with torch.no_grad():
            self.control.weight.zero_()
            self.control.weight[:, : plain.in_channels] = plain.weight
            if plain.bias is not None and self.control.bias is not None:
                self.control.bias.copy_(plain.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, D, 2 F, h, w): the backbone's tokens, then the branch's."""
        own = self.plain.in_channels
        if x.shape[1] != own + CHANNELS:
            raise InputError(
                f"latents of {x.shape[1]} channels; with force control the transformer takes {own} of its own and {CHANNELS} "
                "of the force encoder"
            )
        return torch.cat([self.plain(x[:, :own]), self.control(x)], 2)


def force_control(transformer: Any, blocks: int = 6) -> list[nn.Module]:
    """Put the control branch beside a Wan transformer, in place; return what is to be trained: embedding and blocks.

    Args:
        transformer: diffusers' ``WanTransformer3DModel``; it then takes 32 more input channels.
        blocks: how many blocks are copied (the paper: 6), at most all.

    Raises:
        InputError: another class, no such number of blocks, a branch that is there already, or adapters, which would be copied.

    Example::

        encoder, parts = ForceEncoder(8, 4), force_control(transformer)
        forces = encoder(control([Wind(angle=90, speed=0.5)], 81, 480, 832)[None])
        transformer(torch.cat([latents, forces], 1), timestep, text)
    """
    if type(transformer).__name__ != "WanTransformer3DModel":
        raise InputError(f"no force control for {type(transformer).__name__}; it is there for WanTransformer3DModel")
    if isinstance(transformer.patch_embedding, Embedding):
        raise InputError("this transformer has force control already; take it off with plain_control first")
    if not 1 <= blocks <= len(transformer.blocks):
        raise InputError(f"{blocks} copied blocks; this transformer has {len(transformer.blocks)}, give 1 to as many")
    if hasattr(transformer.blocks[0], "physics"):
        raise InputError("this transformer has a physical branch; force control beside it is not supported")
    refuse_adapters(transformer)
    width = transformer.config.num_attention_heads * transformer.config.attention_head_dim
    transformer.patch_embedding = Embedding(transformer.patch_embedding)
    parts: list[nn.Module] = [transformer.patch_embedding.control]
    for i in range(blocks):
        block = transformer.blocks[i]
        part = ControlBlock(block, width, last=i == blocks - 1)
        part.plain = block.forward  # type: ignore[assignment]
        block.control = part
        block.forward = MethodType(_forward, block)
        parts.append(part)
    transformer._control_handles = place(transformer)
    return parts


def plain_control(transformer: Any) -> None:
    """Take the branch off again, in place."""
    for block in transformer.blocks:
        if hasattr(block, "control"):
            del block.control
            del block.forward  # the class's own is seen again
    if isinstance(transformer.patch_embedding, Embedding):
        transformer.patch_embedding = transformer.patch_embedding.plain
    for handle in transformer.__dict__.pop("_control_handles", []):
        handle.remove()


def _forward(block: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, temb: Tensor, rotary_emb: Any) -> Tensor:
    """A block of the backbone and its copy; tokens of the branch come behind those of the backbone, and go on so."""
    part, grid = block.control, rotary_emb.grid
    count = grid[0] * grid[1] * grid[2]
    x, branch = hidden_states[:, :count], hidden_states[:, count:]
    branch = part.copied(branch, encoder_hidden_states, temb, rotary_emb)
    x = part.plain(x, encoder_hidden_states, temb, rotary_emb) + part.inject(branch)
    return x if part.last else torch.cat([x, branch], 1)
