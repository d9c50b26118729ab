"""The physical branch beside a model's adapters: one file with its options and its weights.

Plain diffusers loads the adapters without it and knows no experts; ``visviva generate --lora FOLDER`` puts it back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from visviva.errors import InputError
from visviva.models.experts.branch import parts_of, physics_experts

FILE = "physics_experts.safetensors"
"""Name of the file."""


def is_expert(name: str) -> bool:
    """Whether a parameter of a transformer, by its name, is the physical branch's."""
    return ".physics." in name


def options_of(transformer: Any) -> dict[str, int] | None:
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
    }


def save(transformer: nn.Module, weights: Mapping[str, Tensor], folder: Path) -> int:
    """Write the branch among the named weights to ``folder``; return how many tensors there are. Without any, write nothing."""
    from safetensors.torch import save_file

    own = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items() if is_expert(name)}
    if own:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(own, folder / FILE, metadata={"physics_experts": json.dumps(options_of(transformer))})
    return len(own)


def load(transformer: Any, folder: Path) -> bool:
    """Put the branch that ``folder`` holds beside a transformer without adapters; return whether there is any.

    Raises:
        InputError: a file that is none of these, or that was trained beside another model.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / FILE
    if not path.is_file():
        return False
    try:
        with safe_open(path, "pt") as content:
            options = json.loads((content.metadata() or {})["physics_experts"])
            given = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
        physics_experts(transformer, **options)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: no physical branch ({error}); write it with visviva posttrain") from error
    there = {name: parameter for name, parameter in transformer.named_parameters() if is_expert(name)}
    wrong = sorted(set(there) ^ set(given)) or sorted(n for n in there if there[n].shape != given[n].shape)
    if wrong:
        raise InputError(f"{path}: {wrong[0]!r} does not fit this model; the branch was trained beside another one")
    for name, value in given.items():
        there[name].data.copy_(value)
        there[name].requires_grad_(False)
    return True
