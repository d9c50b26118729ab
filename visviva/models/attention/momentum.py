"""Momentum attention in pretrained video transformers of diffusers: Wan, LTX-Video, CogVideoX, HunyuanVideo, Mochi.

`momentum_attention` puts a processor around that of every self-attention over video tokens; text tokens, cross-attention and
text refiners stay as they are. The original processor does all its work; what its queries and keys become on their way into
`scaled_dot_product_attention` is sheared along time (`visviva.models.attention.shear`). Which tokens are which frames travels
with the rotary embedding through every block, also when checkpoints run one again, so several shapes may be in flight.

Source: Momentum Attention (arXiv 2602.04902), where text is sheared after RoPE; frames of a video are our reading of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from visviva.errors import InputError
from visviva.models.attention.grid import Grid, place
from visviva.models.attention.shear import DIFFERENCES, shear

SIDES = ("qk", "k", "q")
FAMILIES = {
    "WanTransformer3DModel": (("blocks",), "attn1"),
    "LTXVideoTransformer3DModel": (("transformer_blocks",), "attn1"),
    "CogVideoXTransformer3DModel": (("transformer_blocks",), "attn1"),
    "HunyuanVideoTransformer3DModel": (("transformer_blocks", "single_transformer_blocks"), "attn"),
    "MochiTransformer3DModel": (("transformer_blocks",), "attn1"),
}
"""Where each family keeps the self-attention over its video tokens: lists of blocks, name in a block."""
TEXT_FIRST = frozenset({"CogVideoXTransformer3DModel"})
HEADS_FIRST = frozenset({"CogVideoXTransformer3DModel"})
"""Families whose queries are (B, heads, S, D) already where they are normalised."""


class MomentumAttention(nn.Module):
    """A processor that shears queries and keys of video tokens along time; the rest is done by the one it is put around.

    Attributes:
        gamma: the shear's strength: a number, or where it is learned a parameter with one for each head.
        inner: the original processor.
        sides: ``qk`` (the paper), ``k`` (stronger in one layer's induction) or ``q``.
        before_rope: shear before the rotary embedding instead of after it (the paper: after).
    """

    _attention_backend = None
    _parallel_config = None

    def __init__(
        self, inner: Any, heads: int, gamma: float, learned: bool, sides: str, before_rope: bool,
        difference: str, zero_first: int, kind: str,
    ) -> None:  # fmt: skip
        super().__init__()
        self.gamma = nn.Parameter(torch.full((heads,), float(gamma))) if learned else float(gamma)
        self.inner, self.sides, self.before_rope = inner, sides, before_rope
        self.difference, self.zero_first = difference, zero_first
        self.heads, self.text_first, self.heads_first = heads, kind in TEXT_FIRST, kind in HEADS_FIRST
        self.idle = not learned and gamma == 0
        self.grid: Grid | None = None
        self.met = 0

    @torch.compiler.disable  # traced, the mode below would be entered twice
    def __call__(  # type: ignore[override]
        self,
        attn: nn.Module,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        rotary_emb: Any = None,
        image_rotary_emb: Any = None,
        grid: Grid | None = None,
    ) -> Any:
        """Run the original processor with sheared queries and keys; arguments as diffusers gives them."""
        rope = rotary_emb if rotary_emb is not None else image_rotary_emb
        given = (hidden_states, encoder_hidden_states, attention_mask, rope)
        if self._parallel_config is not None:
            raise InputError("momentum attention does not know sequences that are split over processes; run it without")
        self.inner._attention_backend = self._attention_backend
        if self.idle:
            return self.inner(attn, *given)
        self.grid = getattr(rope, "grid", grid)
        if self.grid is None:
            raise InputError(
                "the grid of the tokens did not reach the attention; call the transformer that was given, not a block"
            )
        self.met = 0
        if self.before_rope:
            return self.inner(attn, *given)
        with _Sheared(self):
            found = self.inner(attn, *given)
        if not self.met:
            raise InputError(
                f"the attention backend {self._attention_backend!r} does not go through torch's scaled_dot_product_attention, "
                "where momentum enters; use the backend 'native' or before_rope=True"
            )
        return found

    def sheared(self, x: Tensor) -> Tensor:
        """Shear the video tokens of (B, heads, S, D), which text may precede or follow."""
        if self.grid is None:
            raise InputError("the grid of the tokens is not known")
        frames, rows, columns = self.grid
        count = frames * rows * columns
        first = x.shape[2] - count if self.text_first else 0
        return shear(x, frames, self.gamma, self.difference, self.zero_first, first, count)

    def after_norm(self, module: nn.Module, given: Any, x: Tensor) -> Tensor:
        """Shear what a norm of queries or keys returns: (B, S, heads D), (B, S, heads, D) or (B, heads, S, D)."""
        if self.idle:
            return x
        split = x.unflatten(2, (self.heads, -1)) if x.ndim == 3 else x
        moved = self.sheared(split if self.heads_first else split.transpose(1, 2))
        return (moved if self.heads_first else moved.transpose(1, 2)).reshape(x.shape)


class _Sheared(TorchFunctionMode):
    """Within it, queries and keys of every attention among the tokens are sheared."""

    def __init__(self, owner: MomentumAttention) -> None:
        super().__init__()
        self.owner = owner

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not torch.nn.functional.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        named = dict(zip(("query", "key"), args, strict=False)) | (kwargs or {})
        owner, query, key = self.owner, named.pop("query"), named.pop("key")
        if key.shape[2] == query.shape[2]:
            owner.met += 1
            query = owner.sheared(query) if "q" in owner.sides else query
            key = owner.sheared(key) if "k" in owner.sides else key
        return func(query, key, *args[2:], **named)


def momentum_attention(
    transformer: nn.Module,
    gamma: float = 0.0,
    learned: bool = False,
    sides: str = "qk",
    before_rope: bool = False,
    difference: str = "backward",
    zero_first: int = 1,
) -> list[MomentumAttention]:
    """Switch a pretrained video transformer to momentum attention, in place; return its new processors.

    Args:
        transformer: of diffusers, one of `FAMILIES`; a LoRA's wrapper must be taken off first.
        gamma: strength of the shear, at most a few tenths in deep models (`depth_law`); 0 is the model as it was, bit by bit.
        learned: make gamma a parameter of each head, starting at ``gamma``; 0 starts from the unmodified model.
        sides: ``qk``, ``k`` or ``q``: what is sheared.
        before_rope: shear the content, not its rotated form; needs normalised queries and keys.
        difference, zero_first: as in `shear`.

    Logits grow up to (1 + 2 gamma)^2 for what alternates from frame to frame.

    Raises:
        InputError: another class, unknown options, a gamma that is not finite, momentum that is there already.

    Example::

        processors = momentum_attention(pipeline.transformer, gamma=0.3)
        optimizer.add_param_group({"params": [p.gamma for p in processors]})  # with learned=True
    """
    kind = type(transformer).__name__
    if kind not in FAMILIES:
        raise InputError(f"no momentum attention for {kind}; it is there for {', '.join(FAMILIES)}")
    if not math.isfinite(gamma):
        raise InputError(f"gamma {gamma} of momentum attention; give a finite number, at most a few tenths in deep models")
    if sides not in SIDES or difference not in DIFFERENCES:
        raise InputError(f"sides {sides!r} and difference {difference!r}; use {', '.join(SIDES)} and {', '.join(DIFFERENCES)}")
    attentions = list(_attentions(transformer, kind))
    if any(isinstance(attention.processor, MomentumAttention) for attention in attentions):
        raise InputError("this transformer has momentum attention already; take it off with plain_attention first")
    if before_rope and any(getattr(attention, "norm_q", None) is None for attention in attentions):
        raise InputError(
            f"this {kind} does not normalise its queries and keys, where before_rope enters; use before_rope=False"
        )
    found = []
    for attention in attentions:
        options = (gamma, learned, sides, before_rope, difference, zero_first, kind)
        processor = MomentumAttention(attention.processor, attention.heads, *options)
        processor.to(next(attention.parameters()).device)
        attention.processor = processor
        handles = _hooked(attention, processor) if before_rope else []
        processor.handles = handles  # type: ignore[assignment]
        found.append(processor)
    transformer._momentum_handles = place(transformer)  # type: ignore[assignment]
    return found


def plain_attention(transformer: nn.Module) -> None:
    """Take momentum attention off again, in place; nothing happens to a transformer without."""
    attention: Any
    for attention in list(transformer.modules()):  # copies of blocks too
        if isinstance(getattr(attention, "processor", None), MomentumAttention):
            for handle in attention.processor.handles:
                handle.remove()
            inner = attention.processor.inner
            attention._modules.pop("processor", None)
            attention.processor = inner
    for handle in transformer.__dict__.pop("_momentum_handles", []):
        handle.remove()


def _attentions(transformer: nn.Module, kind: str) -> Iterator[Any]:
    lists, name = FAMILIES.get(kind, ((), ""))
    return (getattr(block, name) for blocks in lists for block in getattr(transformer, blocks))


def _hooked(attention: Any, processor: MomentumAttention) -> list[Any]:
    """Hooks as bound methods: those of a copied transformer are the copy's own."""
    norms = [getattr(attention, f"norm_{side}") for side in processor.sides]
    return [norm.register_forward_hook(processor.after_norm) for norm in norms]
