"""Motions of people: one noun, `HumanMotion`, and readers and writers of the files that hold it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from visviva.data.motions.motion import HumanMotion, Plate
    from visviva.data.motions.reading import read_motion

__all__ = ["HumanMotion", "Plate", "read_motion"]

_HOMES = {"HumanMotion": "motion", "Plate": "motion", "read_motion": "reading"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"visviva.data.motions.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
