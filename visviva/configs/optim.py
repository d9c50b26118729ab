"""The settings of ``visviva optim``: what the optimizers are, and how fast they are on this machine."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from tyro.conf import Positional

from visviva.configs.schema import Recipe

Shapes = Literal["large", "mid", "small", "tiny", "wan-block", "wan-1.3b"]


class OptimRecipe(Recipe):
    """List the optimizers (list), or time them against other implementations and the memory's speed (bench)."""

    verb: Literal["optim"] = "optim"
    """Which verb this recipe is for."""
    action: Positional[Literal["list", "bench"]] = "list"
    """What to do."""
    optimizers: list[str] = ["adamw", "sgdm", "lion", "adabelief", "exadam", "spam", "adan", "adamp", "sgdp", "sgd_sai", "muon"]
    """Which optimizers to time, by the names that 'visviva optim list' shows."""
    shapes: list[Shapes] = ["large", "mid", "small", "tiny"]
    """Weights to time them on: 16 x 1024^2 (large), 8 x 512^2 (mid), 400 x (32, 64) (small), 2000 x (64,) (tiny), the
    matrices of one block of the Wan 1.3B transformer (wan-block; 46e6 weights), or all its parameters (wan-1.3b; 1.4e9)."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of weights and gradients."""
    device: str = "cpu"
    """Where to run, such as cuda:0."""
    threads: int = Field(1, ge=1)
    """CPU threads."""
    repetitions: int = Field(50, ge=3)
    """Timed steps of each case; slow ones stop after two seconds, with three steps at least. The fastest one counts."""
    peers: bool = True
    """Also time torch.optim, and pytorch_optimizer and heavyball where they are installed."""
    cold: bool = True
    """Also time the first step of each optimizer in a new process with an empty compiler cache (some ten seconds each)."""
    output: str = "optim-bench"
    """Folder to write optim.json and optim.png to."""
