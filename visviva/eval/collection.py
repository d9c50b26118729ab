"""The clips of an evaluation: video files, folders of videos and data sets, each clip with its ground truth if there is one.

The truth of a clip is, in this order: the clip of the same scene in a reference data set; its own arrays; those of the clip
that it was generated from. A clip whose row promises a truth that is not there is an error, not a recording.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from visviva.data.clip import Clip
from visviva.data.dataset import VIDEOS, ClipDataset
from visviva.data.stills import is_frame_folder
from visviva.errors import InputError, closest


@dataclass(frozen=True)
class Item:
    """One clip to evaluate.

    Attributes:
        key: what it is called in tables; unique in a collection (`collect`).
        path: its video.
        clip: reads it.
        true: reads its true clip; None: a recording without ground truth.
        arrays: the true clip's file of arrays, from which a clip that cannot be read gets its penalties.
        source: the folder, as it was named, that the clip was found in.
        name: what it is called as a recording, its file name; unique in a collection too.
        labels: scene, primitive, split and caption.
    """

    key: str
    path: Path
    clip: Callable[[], Clip]
    true: Callable[[], Clip] | None
    labels: dict[str, Any]
    arrays: Path | None = None
    source: str = ""
    name: str = ""


def collect(
    sources: Sequence[str], reference: str = "", where: Mapping[str, Any] | None = None, limit: int | None = None
) -> list[Item]:
    """Return the clips that the sources hold, each with its ground truth if there is one, under unique keys.

    A key that several clips share is qualified by the source, and where that does not tell them apart by the path.

    Args:
        sources: video files, folders of videos, data sets.
        reference: a data set with the true clips, paired by scene; empty: each clip's own truth.
        where: only rows of data sets with these values.
        limit: only the first clips.

    Raises:
        InputError: nothing named, a path that is not there, a clip named twice, a reference without the clips' scenes, a truth
            that is gone.
    """
    if not sources:
        raise InputError("nothing to evaluate: name video files, folders of videos, or data sets")
    true = _Reference(reference) if reference else None
    items = [replace(item, source=_folder(source)) for source in sources for item in _items(Path(source), where or {}, true)]
    if not items:
        raise InputError(f"no clip matches where = {dict(where or {})}; loosen the filter")
    return _told_apart(items[:limit])


def _told_apart(items: list[Item]) -> list[Item]:
    keys = _unique(items, lambda item: item.key, lambda item: str(item.path.with_suffix("")))
    names = _unique(items, lambda item: item.path.name, lambda item: str(item.path))
    return [replace(item, key=key, name=name) for item, key, name in zip(items, keys, names, strict=True)]


def _unique(items: list[Item], short: Callable[[Item], str], full: Callable[[Item], str]) -> list[str]:
    """Return the short names, where several clips share one with their source, and where that does not help the path."""
    found: dict[int, str] = {}
    for way in (short, lambda item: str(Path(item.source) / short(item)), full, lambda item: str(item.path)):
        counts = Counter(map(way, items))
        for k, item in enumerate(items):
            if k not in found and counts[way(item)] == 1 and way(item) not in found.values():
                found[k] = way(item)
    twice = next((item.path for k, item in enumerate(items) if k not in found), None)
    if twice is not None:
        raise InputError(f"the clip {str(twice)!r} is named twice; name each clip, and each folder that holds it, once")
    return [found[k] for k in range(len(items))]


def labels(row: Mapping[str, Any], caption: str) -> dict[str, str]:
    """Return scene, primitive, split and caption of a data set's row, as `visviva.eval.newtonbench.ClipScore` keeps them."""
    return {
        "scene": _scene(row),
        "primitive": _said(row, "primitive", ""),
        "split": _said(row, "split", ""),
        "caption": caption,
    }


class _Reference:
    """True clips by scene."""

    def __init__(self, source: str) -> None:
        self.source, self.dataset = source, ClipDataset(source)
        self.index = {_scene(row): k for k, row in reversed(list(enumerate(self.dataset.rows)))}

    def find(self, row: Mapping[str, Any], source: Path) -> tuple[Callable[[], Clip], Path]:
        scene = _scene(row)
        if scene not in self.index:
            raise InputError(
                f"{source}: the clip {row['file_name']!r} shows scene {scene!r}, which the reference {self.source!r} does not "
                f"hold{closest(scene, self.index)}; give the data set that the clips were generated from"
            )
        k = self.index[scene]
        return partial(self.dataset.__getitem__, k), self.dataset.path(k).with_suffix(".npz")


def _folder(source: str) -> str:
    """Return what qualifies the names of a source's clips: the data set as it was named, of a file its folder."""
    path = Path(source)
    return str(path.parent if path.is_file() else path)


def _scene(row: Mapping[str, Any]) -> str:
    return _said(row, "scene", Path(row["file_name"]).stem)


def _said(row: Mapping[str, Any], name: str, otherwise: str) -> str:
    """Return a field of a row as text; one that is null or empty says nothing."""
    value = row.get(name)
    return otherwise if value is None or value == "" else str(value)


def _items(source: Path, where: Mapping[str, Any], reference: _Reference | None) -> list[Item]:
    if not source.exists():
        raise InputError(f"no clip or folder {str(source)!r}; check the path")
    if source.is_file() and source.suffix != ".jsonl":
        if source.suffix.lower() not in (*VIDEOS, ".png"):
            raise InputError(f"{source}: not a video file by its name; known: {', '.join(VIDEOS)}")
        return [_file(source)]
    if is_frame_folder(source):
        return [_file(source)]
    dataset = ClipDataset(source)
    keep = [k for k, row in enumerate(dataset.rows) if all(row.get(f) == v for f, v in where.items())]
    return [_row(dataset.rows[k], dataset.path(k), partial(dataset.__getitem__, k), reference) for k in keep]


def _file(path: Path) -> Item:
    own = path.with_suffix(".npz")
    read = partial(Clip.read, path)
    return Item(path.stem, path, read, read if own.is_file() else None, labels({"file_name": path.name}, ""), own)


def _row(row: Mapping[str, Any], path: Path, read: Callable[[], Clip], reference: _Reference | None) -> Item:
    key = _said(row, "id", Path(row["file_name"]).stem)
    source = _beside(path, row) / str(row["source"]) if row.get("source") else None
    true: Callable[[], Clip] | None = None
    arrays = path.with_suffix(".npz")
    if reference is not None:
        true, arrays = reference.find(row, path)
    elif arrays.is_file() or row.get("arrays"):
        true = read
    elif source is not None and source.with_suffix(".npz").is_file():
        true, arrays = partial(Clip.read, source), source.with_suffix(".npz")
    elif source is not None and source.suffix.lower() in VIDEOS and not source.is_file():
        raise InputError(
            f"{path}: the clip {key!r} was generated from {str(source)!r}, which is no longer there; name the data set with "
            "its true clip (--reference), or name the video file itself to measure it as a recording"
        )
    return Item(key, path, read, true, labels(row, _said(row, "caption", "")), arrays)


def _beside(path: Path, row: Mapping[str, Any]) -> Path:
    """Return the folder that the row's paths are relative to: the data set's, or that of a clip named by its whole path."""
    name = Path(row["file_name"])
    return path.parent if name.is_absolute() else path.parents[len(name.parts) - 1]
