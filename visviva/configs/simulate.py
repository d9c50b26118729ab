"""The settings of ``visviva simulate``: ground-truth clips of the five Newtonian motion primitives."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from tyro.conf import Positional

from visviva.configs.schema import Recipe

Primitive = Literal[
    "free_fall", "horizontal_throw", "parabolic_throw", "ramp_down", "ramp_up",
    "push", "push_two", "flag", "plant", "pennant", "hanging_ball",
]  # fmt: skip


class SimulateRecipe(Recipe):
    """Make ground-truth clips of the five Newtonian motion primitives: videos, metadata.jsonl, and arrays beside them."""

    verb: Literal["simulate"] = "simulate"
    """Which verb this recipe is for."""
    output: Positional[str] = "data/primitives"
    """Folder to write: clips/NNNNNN.mp4, clips/NNNNNN.npz and metadata.jsonl. A folder begun with the same settings is
    continued."""
    clips: int = Field(1000, ge=1)
    """How many clips; clip i shows primitive i modulo their number, and does not depend on how many there are."""
    primitives: list[Primitive] = ["free_fall", "horizontal_throw", "parabolic_throw", "ramp_down", "ramp_up"]
    """Which primitives, in turn; push and push_two show balls on a table, one or two of them pushed; flag, plant, pennant and
    hanging_ball things in the wind (see docs/forces.md). One named twice comes twice as often."""
    split: Literal["id", "ood"] = "id"
    """Ranges of height, speed and friction: in distribution, or beyond it."""
    seed: int = Field(0, ge=0)
    """Seed of the set; equal settings give equal bytes (on a GPU: equal up to rounding)."""
    height: int = Field(64, ge=16, multiple_of=2)
    """Image height [px]."""
    width: int = Field(64, ge=16, multiple_of=2)
    """Image width [px]."""
    frames: int = Field(17, ge=2)
    """Frames per clip; with fps this gives the duration, and the scene grows with it so that nothing lands."""
    fps: float = Field(32.0, ge=0.1, le=10_000)
    """Frames per second."""
    objects: int = Field(3, ge=1, le=3)
    """Largest number of objects in falls, throws, pushes and winds."""
    arrays: Literal["all", "small", "none"] = "all"
    """Ground truth beside each clip: everything; masks, trajectories and states without flow and depth; or nothing."""
    crf: int = Field(12, ge=0, le=51)
    """Quality of the H.264 videos: 0 is lossless, 12 visually so, larger is smaller."""
    renderer: Literal["warp", "blender"] = "warp"
    """Newton's ray tracer with Warp, or Blender (the extra 'blender'): photoreal and thousands of times slower."""
    device: str = "cpu"
    """Warp device: cpu or cuda:0."""
    workers: int = Field(0, ge=0)
    """Processes; 0 takes one per CPU core, at most 4, and one on a GPU."""
    batch: int = Field(128, ge=1)
    """Worlds that are simulated and drawn together; more is faster on a GPU and takes more memory."""
