"""Clips and where they come from: files, datasets, manifests, simulated scenes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from visviva.data.clip import Clip
    from visviva.data.dataset import ClipDataset
    from visviva.data.video import Video, read_video, write_video

__all__ = ["Clip", "ClipDataset", "Video", "read_video", "write_video"]

_HOMES = {"Clip": "clip", "ClipDataset": "dataset", "Video": "video", "read_video": "video", "write_video": "video"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"visviva.data.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
