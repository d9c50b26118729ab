"""The control branch: the backbone's first blocks once more, reading latents and forces, added to it through zeros.

Force Prompting (arXiv 2505.19386) for CogVideoX: encoded forces are concatenated to the noisy and first-frame latents, a *new*
patch embedding and copies of the first 6 blocks read them, and a zero-initialised layer per block adds what they make to the
backbone's tokens. So for CogVideoX and for Wan: forces come as 32 further input channels behind the model's own, so they pass
through guidance, checkpoints and caches with the latents; the branch's tokens travel behind the backbone's (for CogVideoX also
its own words, which its blocks change). With the layers at zero the output is the backbone's, bit by bit, whatever the force.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from visviva.errors import InputError
from visviva.models.attention.grid import place, refuse_adapters, refuse_saving
from visviva.models.branch import BranchBlock, abreast, attach, detach, refuse_count
from visviva.models.control.encoder import CHANNELS


class ControlBlock(BranchBlock):
    """What one block of the backbone got, and whether it is the first or the last with a copy."""

    def __init__(self, block: Any, width: int, first: bool, last: bool) -> None:
        super().__init__(block, width)
        self.first, self.last = first, last


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


class JointEmbedding(nn.Module):
    """The same for CogVideoX, whose patch embedding also projects the words: these, the backbone's tokens, the branch's.

    Attributes:
        plain: the backbone's; ``control``: the new one of video alone, with the same positions.
    """

    def __init__(self, plain: Any) -> None:
        super().__init__()
        self.plain, self.control = plain, copy.deepcopy(plain)
        self.control.text_proj = nn.Identity()
        old = plain.proj
        more = CHANNELS * old.weight[0].numel() // _channels(plain)  # numbers of a patch of encoded forces
        if isinstance(old, nn.Linear):  # 1.5: the numbers of a patch in a row, channel by channel
            new: Any = nn.Linear(old.in_features + more, old.out_features, bias=old.bias is not None)
        else:
            width = old.in_channels + CHANNELS
            new = nn.Conv2d(width, old.out_channels, old.kernel_size, stride=old.stride, bias=old.bias is not None)
        self.control.proj = new.to(old.weight)
        with torch.no_grad():
            new.weight.zero_()
            new.weight[:, : old.weight.shape[1]] = old.weight
            if old.bias is not None:
                new.bias.copy_(old.bias)
        self.control.requires_grad_(True)

    def forward(self, text_embeds: Tensor, image_embeds: Tensor) -> Tensor:
        """Return (B, L + 2 N, D) of words (B, L, D') and latents (B, F, C, h, w)."""
        own = _channels(self.plain)
        if image_embeds.shape[2] != own + CHANNELS:
            raise InputError(
                f"latents of {image_embeds.shape[2]} channels; with force control the transformer takes {own} of its own and "
                f"{CHANNELS} of the force encoder"
            )
        plain = self.plain(text_embeds, image_embeds[:, :, :own])
        words = text_embeds.shape[1]
        nothing = plain.new_zeros(len(plain), words, plain.shape[-1])
        return torch.cat([plain, self.control(nothing, image_embeds)[:, words:]], 1)


def _channels(embedding: Any) -> int:
    """Channels that a CogVideoX patch embedding takes."""
    proj, patch = embedding.proj, embedding.patch_size**2
    return int(proj.in_features // (patch * embedding.patch_size_t) if isinstance(proj, nn.Linear) else proj.in_channels)


KINDS = {
    "WanTransformer3DModel": ("patch_embedding", "blocks"),
    "CogVideoXTransformer3DModel": ("patch_embed", "transformer_blocks"),
}
"""Transformers that can have the branch, and the names of their patch embedding and their blocks."""


def force_control(transformer: Any, blocks: int = 6) -> list[nn.Module]:
    """Put the control branch beside a transformer, in place; return what is to be trained: embedding and blocks.

    Args:
        transformer: diffusers' ``WanTransformer3DModel`` or ``CogVideoXTransformer3DModel``; it then takes 32 more channels.
        blocks: how many blocks are copied (the paper: 6), at most all.

    Raises:
        InputError: another class, no such number of blocks, a branch that is there already, or adapters, which would be copied.

    Example::

        encoder, parts = ForceEncoder(8, 4), force_control(transformer)
        forces = encoder(control([Wind(angle=90, speed=0.5)], 81, 480, 832)[None])
        transformer(torch.cat([latents, forces], 1), timestep, text)
    """
    kind = type(transformer).__name__
    if kind not in KINDS:
        raise InputError(f"no force control for {kind}; it is there for {', '.join(KINDS)}")
    embedding, own = getattr(transformer, KINDS[kind][0]), getattr(transformer, KINDS[kind][1])
    if isinstance(embedding, (Embedding, JointEmbedding)):
        raise InputError("this transformer has force control already; take it off with plain_control first")
    refuse_count(blocks, own)
    if hasattr(own[0], "physics"):
        raise InputError("this transformer has a physical branch; force control beside it is not supported")
    refuse_adapters(transformer)
    wan = kind == "WanTransformer3DModel"
    new = Embedding(embedding) if wan else JointEmbedding(embedding)
    setattr(transformer, KINDS[kind][0], new)
    parts: list[nn.Module] = [new.control]
    for i in range(blocks):
        parts.append(_beside(own[i], transformer.config, i == 0, i == blocks - 1, _forward if wan else _joint_forward))
    refuse_saving(transformer)
    transformer._control_handles = place(transformer) if wan else []
    return parts


def _beside(block: Any, config: Any, first: bool, last: bool, forward: Any) -> ControlBlock:
    part = ControlBlock(block, config.num_attention_heads * config.attention_head_dim, first, last)
    attach(block, "control", part, forward)
    return part


def plain_control(transformer: Any) -> None:
    """Take the branch, and the force encoder where there is one, off again, in place."""
    if hasattr(transformer, "force_encoder"):
        del transformer.force_encoder
    embedding, blocks = KINDS[type(transformer).__name__]
    detach(transformer, getattr(transformer, blocks), "control")
    if isinstance(getattr(transformer, embedding), (Embedding, JointEmbedding)):
        setattr(transformer, embedding, getattr(transformer, embedding).plain)


def _forward(block: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, temb: Tensor, rotary_emb: Any) -> Tensor:
    return abreast(block.control, block.control.last, hidden_states, encoder_hidden_states, temb, rotary_emb)


def _joint_forward(
    block: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, temb: Tensor, image_rotary_emb: Any = None,
    attention_kwargs: Any = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The same for CogVideoX: behind the backbone's tokens come the branch's, and from its second block on its words."""
    part, more = block.control, (temb, image_rotary_emb, attention_kwargs)
    behind = 0 if part.first else encoder_hidden_states.shape[1]
    count = (hidden_states.shape[1] - behind) // 2
    x, branch, words = hidden_states.split([count, count, behind], 1)
    branch, words = part.copied(branch, encoder_hidden_states if part.first else words, *more)
    x, encoder_hidden_states = part.plain(x, encoder_hidden_states, *more)
    x = x + part.inject(branch)
    return (x if part.last else torch.cat([x, branch, words], 1)), encoder_hidden_states
