"""Datasets of clips on disk: a folder with ``metadata.jsonl``, a folder of plain videos, or a JSON-lines list."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, overload

from visviva.data.clip import Clip
from visviva.data.files import read_text, whole
from visviva.errors import InputError

VIDEOS = (
    *(".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".gif", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".3gp", ".ogv"),
    *(".webp", ".apng"),
)


class ClipDataset(Sequence[Clip]):
    """Clips read from disk one at a time.

    Args:
        source: a folder that holds ``metadata.jsonl`` (as `visviva simulate` writes it), a folder of videos with their
            captions in ``.txt`` files beside them, or a ``.jsonl`` with rows ``{"video": path, "caption": text}``
            (``file_name`` and ``prompt`` are accepted too; paths are relative to the list).
        limit: keep only the first rows.
        where: keep rows whose fields equal these values, e.g. ``{"primitive": "free_fall"}``.

    Attributes:
        rows: the metadata of each clip.
        fingerprint: hash of the rows; changes when the set changes.

    Example::

        dataset = ClipDataset("data/train", where={"primitive": "ramp_up"})
        clip = dataset[0]
    """

    def __init__(self, source: str | Path, limit: int | None = None, where: dict[str, Any] | None = None) -> None:
        self.source = Path(source)
        self.root, rows = _find(self.source)
        for key in where or {}:
            if not any(key in row for row in rows):
                raise InputError(f"{self.source}: no row has the field {key!r}; fields: {', '.join(sorted(rows[0]))}")
        self.rows = [row for row in rows if all(row.get(k) == v for k, v in (where or {}).items())][:limit]
        if not self.rows:
            raise InputError(f"{self.source}: no clip matches {where}; loosen the filter")

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the rows, in hexadecimal (16 digits)."""
        return hashlib.sha256(json.dumps(self.rows, sort_keys=True).encode()).hexdigest()[:16]

    def path(self, index: int) -> Path:
        """Path of the video of clip ``index``."""
        return self.root / self.rows[index]["file_name"]

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Clip: ...
    @overload
    def __getitem__(self, index: slice) -> list[Clip]: ...
    def __getitem__(self, index: int | slice) -> Clip | list[Clip]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row = self.rows[index]
        clip = Clip.read(self.path(index))
        clip.caption = row.get("caption") or clip.caption
        clip.meta = clip.meta | {k: v for k, v in row.items() if k not in ("file_name", "arrays", "caption")}
        return clip


def _find(source: Path) -> tuple[Path, list[dict[str, Any]]]:
    if source.is_dir():
        listed = source / "metadata.jsonl"
        if listed.is_file():
            return source, read_rows(listed)
        videos = sorted(p for p in source.rglob("*") if p.suffix.lower() in VIDEOS and not p.name.startswith("."))
        if not videos:
            raise InputError(
                f"{source}: the folder holds neither metadata.jsonl nor videos ({', '.join(VIDEOS)}) nor frames: "
                "several pictures, named in their order"
            )
        return source, [_plain(video, source) for video in videos]
    if source.is_file() and source.suffix == ".jsonl":
        return source.parent, read_rows(source)
    raise InputError(f"no dataset {str(source)!r}; give a folder of clips or a .jsonl list")


def _plain(video: Path, root: Path) -> dict[str, Any]:
    text = video.with_suffix(".txt")
    return {"file_name": str(video.relative_to(root)), "caption": read_text(text).strip() if text.is_file() else ""}


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """Read a JSON-lines list of clips; every row gets ``file_name`` and ``caption``; errors name the line."""
    path = Path(path)
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}, line {number}: not valid JSON ({error.msg}); each line holds one object") from error
        name = row.get("file_name") or row.get("video") if isinstance(row, dict) else None
        if not name:
            raise InputError(f"{path}, line {number}: needs a field 'file_name' or 'video' with the path of the clip")
        rows.append({**row, "file_name": str(name), "caption": row.get("caption") or row.get("prompt") or ""})
    if not rows:
        raise InputError(f"{path}: the list is empty; write one JSON object per clip")
    return rows


def write_rows(path: str | Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write ``metadata.jsonl`` at once, or not at all."""
    with whole(path) as part:
        part.write_text("".join(json.dumps(row) + "\n" for row in rows))
