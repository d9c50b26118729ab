"""Momentum attention beside a model's adapters: one small file with its options and, where they are learned, its strengths.

Plain diffusers loads the adapters without it and knows no momentum; `visviva generate --lora FOLDER` puts it back.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from visviva.models import beside
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
        "gamma": 0.0 if isinstance(found.gamma, nn.Parameter) else found.gamma,
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
    options = options_of(transformer)
    if options is None:
        return 0
    own = {name: tensor for name, tensor in weights.items() if name.endswith(SUFFIX)}
    return beside.write(own, folder / FILE, "momentum_attention", options)


def load(transformer: nn.Module, folder: Path) -> bool:
    """Put the momentum attention that ``folder`` holds onto a transformer; return whether there is any.

    Raises:
        InputError: a file that is none of these, or whose strengths the transformer does not have.
    """
    path = folder / FILE
    found = beside.read(path, "momentum_attention")
    if found is None:
        return False
    options, strengths = found
    beside.put(
        path, lambda: momentum_attention(transformer, **options), transformer, lambda name: name.endswith(SUFFIX), strengths
    )
    return True
