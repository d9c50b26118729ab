"""Simulated actions: labelled human motions from parametric controllers, put in balance by the dynamics of a body."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from visviva.data.actions.actions import ACTIONS, Actions, draw

__all__ = ["ACTIONS", "Actions", "draw"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from importlib import import_module

        return getattr(import_module("visviva.data.actions.actions"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
