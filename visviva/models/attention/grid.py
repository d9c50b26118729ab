"""Where tokens lie: the grid of frames, rows and columns, travelling with the rotary embedding through every block.

A block of a video transformer gets tokens in a row and no word about their grid. Kept on the block it would be wrong as soon as
two shapes are in flight before a backward pass, or a checkpoint runs a block again; an embedding reaches it every time.
"""

from __future__ import annotations

from typing import Any

from torch import nn

Grid = tuple[int, int, int]


class Placed(tuple):
    """A rotary embedding that knows the grid of its tokens: frames, rows, columns."""

    grid: Grid

    def __new__(cls, embedding: Any, grid: Grid) -> Placed:
        """Return the embedding, a tuple of tensors, with its grid."""
        found = super().__new__(cls, embedding)
        found.grid = grid
        return found


def place(transformer: Any) -> list[Any]:
    """Let the grid reach every block of a diffusers video transformer; return the hooks' handles.

    With the rotary embedding, or for CogVideoX, which may have none, as ``attention_kwargs["grid"]``.
    """
    kind = type(transformer).__name__
    if kind == "CogVideoXTransformer3DModel":
        return [transformer.register_forward_pre_hook(_beside, with_kwargs=True)]

    def after(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], embedding: Any) -> Placed:
        if kind in ("LTXVideoTransformer3DModel", "MochiTransformer3DModel"):
            return Placed(embedding, tuple(int(n) for n in args[1:4]))  # type: ignore[arg-type]
        x, config = args[0], transformer.config
        patch = config.patch_size
        size = patch if isinstance(patch, (tuple, list)) else (config.patch_size_t, patch, patch)
        return Placed(embedding, tuple(n // p for n, p in zip(x.shape[2:], size, strict=True)))  # type: ignore[arg-type]

    return [transformer.rope.register_forward_hook(after, with_kwargs=True)]


def _beside(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    x = args[0] if args else kwargs["hidden_states"]
    size, steps = module.config.patch_size, module.config.patch_size_t or 1
    grid = (x.shape[1] // steps, x.shape[3] // size, x.shape[4] // size)
    return args, {**kwargs, "attention_kwargs": {**(kwargs.get("attention_kwargs") or {}), "grid": grid}}
