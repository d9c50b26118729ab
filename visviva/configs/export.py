"""The settings of ``visviva export``: trained adapters in, a file for ComfyUI out."""

from __future__ import annotations

from typing import Literal

from tyro.conf import Positional

from visviva.configs.schema import Recipe


class ExportRecipe(Recipe):
    """Write trained adapters for ComfyUI, every one under the name of its layer there, and count them."""

    verb: Literal["export"] = "export"
    """Which verb this recipe is for."""
    adapters: Positional[str] = ""
    """Folder lora or lora-ema of a run of 'visviva posttrain', or a .safetensors file of adapters in diffusers format."""
    family: Literal["", "wan", "ltx-video", "cogvideox", "hunyuan-video", "mochi"] = ""
    """The model that was trained."""
    output: str = "adapters-comfyui.safetensors"
    """The new file, such as ComfyUI/models/loras/newton.safetensors. Adapters of two experts (Wan 2.2 A14B) become two files,
    newton-high-noise.safetensors and newton-low-noise.safetensors."""
