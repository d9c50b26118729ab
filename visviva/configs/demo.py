"""The settings of ``visviva demo``: the main job once, on the shipped model."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from tyro.conf import Positional

from visviva.configs.schema import Recipe


class DemoRecipe(Recipe):
    """Generate from held-out conditions, measure, post-train with Newton's laws for a short run, generate and measure again."""

    verb: Literal["demo"] = "demo"
    """Which verb this recipe is for."""
    output: Positional[str] = "runs/demo"
    """Folder of the result: report.html, metrics.json, and everything they were made from. A finished demo is not run again."""
    model: str = "tiny"
    """The model: the shipped one, or a local folder of the same kind."""
    train_clips: int = Field(200, ge=4)
    """Simulated clips to post-train on."""
    held_out_clips: int = Field(40, ge=10)
    """Simulated clips to generate again and measure, the five primitives in turn."""
    recipe: str = "posttrain-newton"
    """Recipe of the post-training: a file or a shipped recipe."""
    updates: int = Field(40, ge=1)
    """Updates of the post-training."""
    sampler_steps: int = Field(4, ge=1)
    """Sampler steps of training and generation."""
    seed: int = Field(0, ge=0)
    """Seed of everything; the model's own training and held-out sets use others."""
