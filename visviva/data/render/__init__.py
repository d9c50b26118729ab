"""Pictures of people and bodies: skeletons and meshes over time, ray traced on a floor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from visviva.data.render.camera import Camera
    from visviva.data.render.figure import Figure, together
    from visviva.data.render.people import segments, skeleton
    from visviva.data.render.pictures import BACKENDS, Pictures, render
    from visviva.data.render.skin import skinned
    from visviva.data.render.stage import Stage
    from visviva.data.render.views import VIEWS, view

_HOMES = {
    "Camera": "camera", "Figure": "figure", "together": "figure", "segments": "people", "skeleton": "people",
    "BACKENDS": "pictures", "Pictures": "pictures", "render": "pictures", "skinned": "skin", "Stage": "stage",
    "VIEWS": "views", "view": "views",
}  # fmt: skip
__all__ = [
    "BACKENDS", "VIEWS", "Camera", "Figure", "Pictures", "Stage", "render", "segments", "skeleton", "skinned", "together",
    "view",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"visviva.data.render.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
