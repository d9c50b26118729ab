"""Force control on a backbone, and beside its adapters: one file with the branch, its encoder and the number of blocks.

Plain diffusers loads the adapters without it and knows no forces; ``visviva generate --lora FOLDER`` puts it back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from visviva.errors import InputError
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


def save(transformer: nn.Module, weights: Mapping[str, Tensor], folder: Path) -> int:
    """Write the control among the named weights to ``folder``; return how many there are. Without any, write nothing."""
    from safetensors.torch import save_file

    own = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items() if is_control(name)}
    if own:
        blocks = len({name.split(".")[1] for name in own if name.startswith(("blocks.", "transformer_blocks."))})
        folder.mkdir(parents=True, exist_ok=True)
        save_file(own, folder / FILE, metadata={"force_control": json.dumps({"blocks": blocks})})
    return len(own)


def load(backbone: Any, folder: Path) -> bool:
    """Put the control that ``folder`` holds onto a backbone without adapters; return whether there is any.

    Raises:
        InputError: a file that is none of these, or that was trained on another model.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / FILE
    if not path.is_file():
        return False
    try:
        with safe_open(path, "pt") as content:
            blocks = int(json.loads((content.metadata() or {})["force_control"])["blocks"])
            given = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: no force control ({error}); write it with visviva posttrain") from error
    transformer = backbone.transformer
    add_control(backbone, blocks)
    there = {name: parameter for name, parameter in transformer.named_parameters() if is_control(name)}
    wrong = sorted(set(there) ^ set(given)) or sorted(n for n in there if there[n].shape != given[n].shape)
    if wrong:
        raise InputError(f"{path}: {wrong[0]!r} does not fit this {backbone.family} model; it was trained on another one")
    for name, value in given.items():
        there[name].data.copy_(value)
    transformer.requires_grad_(False)
    return True
