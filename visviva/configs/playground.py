"""The settings of ``visviva playground``: which model, and where its page is."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from visviva.configs.objectives import Law
from visviva.configs.schema import Recipe


class PlaygroundRecipe(Recipe):
    """A page in the browser: draw arrows on a first frame, see the clip in which the forces act, and how well it obeys laws."""

    verb: Literal["playground"] = "playground"
    """Which verb this recipe is for."""
    model: str = "tiny"
    """The video model: the shipped one, a local folder in diffusers format, or a hub id. It must take first frames."""
    lora: str = ""
    """Adapters with force control beside them: tiny-force (shipped, for the shipped model), or the folder lora or lora-ema of
    'visviva posttrain --config posttrain-force'. Without, the page makes clips from first frames and prompts, and refuses
    arrows and wind."""
    port: int = Field(7860, ge=1024, le=65535)
    """The page is at http://127.0.0.1:PORT, for this machine alone, and loads nothing from elsewhere; Ctrl-C ends it.
    It needs the extra 'playground': pip install 'visviva[playground]'."""
    output: str = "runs/playground"
    """Folder of what the page makes: 0001/, 0002/, ... each with first.png, prompts.jsonl and clip.mp4."""
    steps: int = Field(8, ge=1, le=100)
    """Sampler steps that the page begins with."""
    guidance_scale: float = Field(1.0, ge=0)
    """Classifier-free guidance; 1 is none."""
    laws: list[Law] = Field([Law(name="constant_acceleration"), Law(name="motion_floor")], min_length=1)
    """What the clip's objects are held against; the flow is measured by OpenCV DIS, the objects found by their motion."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Dtype of the weights."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to generate; "auto" takes the accelerator if there is one."""
