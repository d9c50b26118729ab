"""Where tokens lie: the grid of frames, rows and columns, travelling with the rotary embedding through every block.

A block of a video transformer gets tokens in a row and no word about their grid. Kept on the block it would be wrong as soon as
two shapes are in flight before a backward pass, or a checkpoint runs a block again; an embedding reaches it every time.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

from torch import nn

from visviva.errors import InputError

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

    With the rotary embedding, or for CogVideoX, which may have none, as ``attention_kwargs["grid"]``. What uses it is no
    part of diffusers' format, so ``save_pretrained`` is refused until it is taken off.
    """
    kind = type(transformer).__name__
    refuse_saving(transformer)
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


def refuse_saving(transformer: Any) -> None:
    """Let ``save_pretrained`` of a transformer refuse as long as one of the changes named in `CHANGED` is on it."""
    transformer.save_pretrained = MethodType(_save, transformer)


def refuse_adapters(transformer: Any) -> None:
    """Raise an `InputError` where low-rank adapters lie on a transformer whose blocks are about to be copied."""
    found = next((name for name, _ in transformer.named_parameters() if ".lora_" in name), None)
    if found is not None:
        raise InputError(
            f"this transformer has adapters ({found}), which the copied blocks would get too; merge them (fuse_lora, then "
            "unload_lora_weights) or put the branch on before the adapters"
        )


CHANGED = {"_momentum_handles": "plain_attention", "_physics_handles": "plain_blocks", "_control_handles": "plain_control"}
"""What keeps the handles of a change, and what takes the change off."""


def _save(transformer: Any, *args: Any, **kwargs: Any) -> Any:
    for handles, plain in CHANGED.items():
        if hasattr(transformer, handles):
            raise InputError(
                f"save_pretrained of a {type(transformer).__name__} with {handles.split('_')[1]}: diffusers' format would lose "
                f"it in silence; take it off first ({plain}), or keep its state_dict() as safetensors"
            )
    return type(transformer).save_pretrained(transformer, *args, **kwargs)


def _beside(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    x = args[0] if args else kwargs["hidden_states"]
    size, steps = module.config.patch_size, module.config.patch_size_t or 1
    grid = (x.shape[1] // steps, x.shape[3] // size, x.shape[4] // size)
    return args, {**kwargs, "attention_kwargs": {**(kwargs.get("attention_kwargs") or {}), "grid": grid}}
