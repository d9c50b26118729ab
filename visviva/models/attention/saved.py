"""Momentum attention beside a model's adapters: one small file with its options and, where they are learned, its strengths.

Plain diffusers loads the adapters without it and knows no momentum; `visviva generate --lora FOLDER` puts it back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from visviva.errors import InputError
from visviva.models.attention.momentum import MomentumAttention, momentum_attention

FILE = "momentum_attention.safetensors"
"""Name of the file."""
SUFFIX = ".processor.gamma"
"""How the learned strengths are called in a transformer."""


def options_of(transformer: nn.Module) -> dict[str, Any] | None:
    """Return the options that the transformer's momentum attention was made with, None if it has none."""
    found = next((module for module in transformer.modules() if isinstance(module, MomentumAttention)), None)
    if found is None:
        return None
    return {
        "gamma": 0.0 if isinstance(found.gamma, nn.Parameter) else float(found.gamma[0]),
        "learned": isinstance(found.gamma, nn.Parameter),
        "sides": found.sides,
        "before_rope": found.before_rope,
        "difference": found.difference,
        "zero_first": found.zero_first,
    }


def save(transformer: nn.Module, weights: Mapping[str, Tensor], folder: Path) -> int:
    """Write the transformer's momentum attention to ``folder``; return how many of the named weights went into it.

    ``weights``: trained tensors by name; those of strengths are taken. Nothing is written where there is no momentum.
    """
    from safetensors.torch import save_file

    options = options_of(transformer)
    if options is None:
        return 0
    own = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items() if name.endswith(SUFFIX)}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(own, folder / FILE, metadata={"momentum_attention": json.dumps(options)})
    return len(own)


def load(transformer: nn.Module, folder: Path) -> bool:
    """Put the momentum attention that ``folder`` holds onto a transformer; return whether there is any.

    Raises:
        InputError: a file that is none of these, or whose strengths the transformer does not have.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / FILE
    if not path.is_file():
        return False
    try:
        with safe_open(path, "pt") as content:
            options = json.loads((content.metadata() or {})["momentum_attention"])
            strengths = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
        momentum_attention(transformer, **options)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: no momentum attention ({error}); write it with visviva posttrain") from error
    there = {name: tensor for name, tensor in transformer.named_parameters() if name.endswith(SUFFIX)}
    if set(there) != set(strengths) or any(there[name].shape != value.shape for name, value in strengths.items()):
        raise InputError(
            f"{path}: strengths of {len(strengths)} attentions, this model has {len(there)} of other names or heads"
        )
    for name, value in strengths.items():
        there[name].data.copy_(value)
    return True
