"""``visviva export``: trained adapters for ComfyUI (`visviva.models.backbones.comfy`), counted."""

from __future__ import annotations

import sys

from visviva.configs.export import ExportRecipe
from visviva.errors import InputError
from visviva.models.backbones.comfy import LAYERS, Written, write
from visviva.models.backbones.lora import lora_files, weight_files


def run(recipe: ExportRecipe) -> list[Written]:
    """Write the recipe's adapters, print how many modules each file holds and what stays behind; return the counts.

    Raises:
        InputError: no adapters or no family given, or what `visviva.models.backbones.comfy.write` refuses.

    Example::

        from visviva.configs.export import ExportRecipe
        from visviva.pipelines import export

        export.run(ExportRecipe(adapters="runs/newton/lora-ema", family="wan", output="newton.safetensors"))
    """
    if not recipe.adapters or not recipe.family:
        raise InputError(f"give the folder of the adapters, and --family, the model that was trained: {', '.join(LAYERS)}")
    written = write(recipe.adapters, recipe.output, recipe.family)
    for file, modules, layers in written:
        sys.stdout.write(f"{file}: {modules} adapted modules in {layers} layers of ComfyUI's {recipe.family} model\n")
    for file in weight_files(recipe.adapters)[len(lora_files(recipe.adapters)) :]:
        sys.stdout.write(f"not written: {file}, which ComfyUI has no place for; the model was trained with it\n")
    return written
