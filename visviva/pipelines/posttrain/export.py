"""Write what was trained where users expect it: adapters for ``pipe.load_lora_weights``, or a whole diffusers pipeline.

Sharded weights are gathered first, so one file comes out whatever the number of processes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from visviva.errors import InputError
from visviva.models.attention import saved
from visviva.models.backbones.backbone import Backbone
from visviva.models.control import saved as control
from visviva.models.experts import saved as experts


def lora(backbone: Backbone, weights: Mapping[str, Tensor], folder: Path) -> int:
    """Write adapters (whole tensors by trainable name) to ``folder``; return the number of tensors written.

    ``folder/pytorch_lora_weights.safetensors`` is for ``pipe.load_lora_weights(folder)``; a second expert goes to
    ``folder/transformer_2`` for ``load_lora_weights(..., load_into_transformer_2=True)``. Momentum attention, force control
    and physical experts stand beside them (``saved`` of `visviva.models.attention`, ``control`` and ``experts``).

    Raises:
        InputError: fewer tensors were written than trained, or the disk is full.
    """
    from peft.utils import get_peft_model_state_dict

    written = 0
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        for name, network in backbone.networks().items():
            own = {n.removeprefix(f"{name}."): t for n, t in weights.items() if n.startswith(f"{name}.")}
            beside = {n for n in own if n.endswith(saved.SUFFIX) or control.is_control(n) or experts.is_expert(n)}
            adapters = {n: t for n, t in own.items() if n not in beside}
            place = temporary if name == "transformer" else temporary / name
            layers = get_peft_model_state_dict(network, state_dict=adapters)
            type(backbone.pipeline).save_lora_weights(
                place,
                transformer_lora_layers=layers,
                transformer_lora_adapter_metadata=network.peft_config["default"].to_dict(),
            )
            written += len(layers) + saved.save(network, own, place) + control.save(own, place)
            written += experts.save(network, own, place)
        _swap(temporary, folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise InputError(f"cannot write the adapters to {str(folder)!r}: {error}; free some space and start again") from error
    if written != len(weights):
        raise InputError(f"only {written} of {len(weights)} trained tensors are adapters that diffusers can load")
    return written


def pipeline(backbone: Backbone, weights: Mapping[str, Tensor], folder: Path) -> None:
    """Write the whole pipeline with these denoiser weights (whole tensors by trainable name) in diffusers format."""
    clean = {}
    for name, network in backbone.networks().items():
        with torch.device("meta"):
            clean[name] = type(network).from_config(network.config)
        own = {n.removeprefix(f"{name}."): t for n, t in weights.items() if n.startswith(f"{name}.")}
        clean[name].load_state_dict(own, assign=True)
    trained = backbone.networks()
    try:
        backbone.pipeline.register_modules(**clean)
        backbone.save(folder)
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot write the model to {str(folder)!r}: {error}; free some space and start again") from error
    finally:
        backbone.pipeline.register_modules(**trained)


def _swap(new: Path, target: Path) -> None:
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        os.replace(target, old)
    os.replace(new, target)
    shutil.rmtree(old, ignore_errors=True)
