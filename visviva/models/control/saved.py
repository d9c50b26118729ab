"""Force control on a backbone, and beside its adapters: one file with the branch, its encoder and the number of blocks.

Plain diffusers loads the adapters without it and knows no forces; ``visviva generate --lora FOLDER`` puts it back.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from visviva.errors import InputError
from visviva.models import beside
from visviva.models.control.branch import force_control
from visviva.models.control.encoder import ForceEncoder

FILE = "force_control.safetensors"
"""Name of the file."""


def is_control(name: str) -> bool:
    """Whether a parameter of a transformer, by its name, is the branch's or its encoder's."""
    return name.startswith(("force_encoder.", "patch_embedding.control.", "patch_embed.control.")) or ".control." in name


def add_control(backbone: Any, blocks: int = 6) -> list[nn.Module]:
    """Put a force encoder and a branch of ``blocks`` copied blocks onto a backbone, in place; return what is to be trained.

    The transformer then takes forces through ``Condition.forces``.

    Raises:
        InputError: a family without force control, or a model of two experts; see also `force_control`.
    """
    if backbone.transformer_2 is not None:
        raise InputError(f"no force control for the two experts of a {backbone.family} model; take one of a single network")
    parts = force_control(backbone.transformer, blocks)
    weight = next(parts[1].parameters())
    backbone.transformer.force_encoder = ForceEncoder(backbone.spatial_ratio, backbone.temporal_ratio).to(weight)
    return [backbone.transformer.force_encoder, *parts]


def controlled(transformer: nn.Module) -> bool:
    """Whether a transformer takes forces."""
    return hasattr(transformer, "force_encoder")


def save(weights: Mapping[str, Tensor], folder: Path) -> int:
    """Write the control among the named weights to ``folder``; return how many there are. Without any, write nothing."""
    own = {name: tensor for name, tensor in weights.items() if is_control(name)}
    blocks = len({name.split(".")[1] for name in own if name.startswith(("blocks.", "transformer_blocks."))})
    return beside.write(own, folder / FILE, "force_control", {"blocks": blocks}) if own else 0


def load(backbone: Any, folder: Path) -> bool:
    """Put the control that ``folder`` holds onto a backbone without adapters; return whether there is any.

    Raises:
        InputError: a file that is none of these, or that was trained on another model.
    """
    path = folder / FILE
    found = beside.read(path, "force_control")
    if found is None:
        return False
    options, given = found
    beside.put(path, lambda: add_control(backbone, **options), backbone.transformer, is_control, given)
    backbone.transformer.requires_grad_(False)
    return True
