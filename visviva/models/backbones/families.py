"""Which adapter loads which diffusers pipeline, and loading any of them by path or hub id."""

from __future__ import annotations

from pathlib import Path

import torch

from visviva.errors import InputError
from visviva.models.backbones.backbone import Backbone
from visviva.models.backbones.checkpoint import read_index
from visviva.models.backbones.cogvideox import CogVideoXBackbone
from visviva.models.backbones.hunyuan import HunyuanBackbone
from visviva.models.backbones.ltx import LTXBackbone
from visviva.models.backbones.mochi import MochiBackbone
from visviva.models.backbones.wan import WanBackbone

FAMILIES: dict[str, type[Backbone]] = {
    "WanPipeline": WanBackbone,
    "WanImageToVideoPipeline": WanBackbone,
    "LTXPipeline": LTXBackbone,
    "LTXImageToVideoPipeline": LTXBackbone,
    "LTXConditionPipeline": LTXBackbone,
    "CogVideoXPipeline": CogVideoXBackbone,
    "CogVideoXImageToVideoPipeline": CogVideoXBackbone,
    "HunyuanVideoPipeline": HunyuanBackbone,
    "HunyuanVideoImageToVideoPipeline": HunyuanBackbone,
    "MochiPipeline": MochiBackbone,
}
"""Class of a pipeline, as its model_index.json names it, -> its adapter."""


def load(path: str | Path, *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu") -> Backbone:
    """Load a model of any family: ``"tiny"`` (shipped), a local folder in diffusers format, or a hub id.

    The family is the one whose pipeline class stands in model_index.json; see `Backbone.load` for the rest.

    Raises:
        InputError: no such model, a family without adapter, or weights that do not fit their config.

    Example::

        backbone = load("Lightricks/LTX-Video", dtype=torch.bfloat16, device="cuda")
    """
    return of(path).load(path, dtype=dtype, device=device)


def of(path: str | Path) -> type[Backbone]:
    """Return the adapter of the model at ``path``."""
    name = read_index(path).get("_class_name")
    if name not in FAMILIES:
        raise InputError(
            f"{path}: a {name or 'checkpoint without a class'}, for which there is no adapter; "
            f"models of these pipelines can be loaded: {', '.join(FAMILIES)}"
        )
    return FAMILIES[name]
