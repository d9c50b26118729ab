"""The physical branch beside a model's adapters: one file with its options and its weights.

Plain diffusers loads the adapters without it and knows no experts; ``visviva generate --lora FOLDER`` puts it back.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from visviva.models import beside
from visviva.models.experts.branch import parts_of, physics_experts

FILE = "physics_experts.safetensors"
"""Name of the file."""


def is_expert(name: str) -> bool:
    """Whether a parameter of a transformer, by its name, is the physical branch's."""
    return ".physics." in name


def options_of(transformer: Any) -> dict[str, Any] | None:
    """Return the options that the transformer's branch was made with, None if it has none."""
    parts = list(parts_of(transformer)) if hasattr(transformer, "blocks") else []
    if not parts:
        return None
    first, last = parts[0].semantic, parts[-1].refinement
    return {
        "blocks": len(parts),
        "semantic": len(first.maps),  # type: ignore[union-attr]
        "refinement": len(last.weight),  # type: ignore[union-attr]
        "active": last.active,  # type: ignore[union-attr]
        **({"phenomena": list(parts[-1].phenomena)} if parts[-1].phenomena else {}),
    }


def save(transformer: nn.Module, weights: Mapping[str, Tensor], folder: Path) -> int:
    """Write the branch among the named weights to ``folder``; return how many tensors there are. Without any, write nothing."""
    own = {name: tensor for name, tensor in weights.items() if is_expert(name)}
    return beside.write(own, folder / FILE, "physics_experts", options_of(transformer)) if own else 0


def load(transformer: Any, folder: Path) -> bool:
    """Put the branch that ``folder`` holds beside a transformer without adapters; return whether there is any.

    Raises:
        InputError: a file that is none of these, or that was trained beside another model.
    """
    path = folder / FILE
    found = beside.read(path, "physics_experts")
    if found is None:
        return False
    options, given = found
    beside.put(path, lambda: physics_experts(transformer, **options), transformer, is_expert, given)
    for part in parts_of(transformer):
        part.requires_grad_(False)
    return True
