"""Scenes: parameters in, simulated and rendered clips with exact ground truth out.

The submodules that need Newton and Warp are imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from visviva.data.scenes.primitives import PRIMITIVES, SPLITS, sample_scene
from visviva.data.scenes.scene import Scene

if TYPE_CHECKING:
    from visviva.data.scenes.simulation import Shot, simulate

__all__ = ["PRIMITIVES", "SPLITS", "Scene", "Shot", "sample_scene", "simulate"]


def __getattr__(name: str) -> Any:
    if name in ("Shot", "simulate"):
        from visviva.data.scenes import simulation

        return getattr(simulation, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
