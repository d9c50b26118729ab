"""What to generate: prompts and first frames, from a table (.jsonl, .csv), a list of prompts (.txt, one per line), or the
captions and clips of a data set.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.data.dataset import ClipDataset
from visviva.data.files import read_text
from visviva.data.video import RATES, read_video
from visviva.errors import InputError, closest

COLUMNS = ("id", "prompt", "caption", "image", "video", "seed", "fps")
"""The columns of a table that mean something here; all others are passed on to the generated clips' metadata."""
OWN = frozenset({*COLUMNS, "file_name", "arrays", "frames", "height", "width", "timestamps"})
"""Columns that describe the row's own files, which the clip generated from it does not inherit."""


@dataclass(frozen=True)
class Prompt:
    """One clip to generate.

    Attributes:
        id: its name, unique in the list; names the file and, with the recipe's seed, the noise.
        caption: the text prompt.
        source: image or video whose first frame conditions the clip; None for text alone.
        seed: the noise seed, if the row fixes it.
        fps: frame rate [frames/s], if the row gives it.
        columns: further columns (scene, primitive, split, ...), passed on to the metadata.
    """

    id: str
    caption: str
    source: Path | None = None
    seed: int | None = None
    fps: float | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)

    @property
    def file_stem(self) -> str:
        """The id as a file name: itself where it is safe, else a safe part and a hash, so that no two ids share a file."""
        if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", self.id):
            return self.id
        safe = re.sub(r"[^A-Za-z0-9_-]+", "-", self.id).strip("-")[:60]
        return f"{safe}-{hashlib.sha256(self.id.encode()).hexdigest()[:12]}"

    def first_frame(self) -> Float[Tensor, "3 H W"]:
        """Read the first frame, in [0, 1]."""
        if self.source is None:
            raise InputError(f"{self.id!r} has no first frame; give an image or video column")
        if self.source.suffix.lower() in _IMAGES:
            return _read_image(self.source)
        return read_video(self.source, max_frames=2).frames[0].float() / 255


_RANGES: Mapping[str, tuple[float, float]] = {"seed": (0, 2**63 - 1), "fps": RATES}
_IMAGES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})


def read_prompts(path: str | Path, where: Mapping[str, Any] | None = None, limit: int | None = None) -> list[Prompt]:
    """Read the rows of a table or the clips of a data set, those that match ``where``, at most ``limit``.

    Raises:
        InputError: no such file, an unknown kind of file, a row without a prompt, a first frame that is not there, two rows
            with one id, or nothing left to generate; the message names file and row.

    Example::

        for prompt in read_prompts("prompts.jsonl"):
            print(prompt.id, prompt.caption, prompt.source)
    """
    path = Path(path)
    rows = _rows(path)
    chosen = [row for row in rows if all(_same(row[1].get(key), value) for key, value in (where or {}).items())][:limit]
    if not chosen:
        known = sorted({key for _, row in rows for key in row})
        hint = "".join(closest(key, known) for key in where or {} if key not in known)
        raise InputError(f"{path}: none of its {len(rows)} rows matches {dict(where or {})}{hint or '; nothing to generate'}")
    prompts: dict[str, Prompt] = {}
    for place, row in chosen:
        prompt = _prompt(place, row, path if path.is_dir() else path.parent)
        if prompt.id in prompts:
            raise InputError(f"{place}: the id {prompt.id!r} stands twice; ids must differ, the files are named after them")
        prompts[prompt.id] = prompt
    return list(prompts.values())


def _rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return (where it stands, row) for every row of the source."""
    if path.is_dir():
        dataset = ClipDataset(path)
        return [(f"{path}: {row['file_name']}", _of_clip(row)) for row in dataset.rows]
    if not path.is_file():
        raise InputError(
            f"prompts {str(path)!r}: no such file or folder; give a .jsonl, .csv or .txt file, or a folder of clips"
        )
    readers = {".jsonl": _jsonl, ".csv": _csv, ".txt": _txt}
    if path.suffix.lower() not in readers:
        raise InputError(
            f"{path}: not a kind of prompt file that is read here; give .jsonl, .csv or .txt, or a folder of clips"
        )
    rows = list(readers[path.suffix.lower()](path))
    named = [
        {"id": f"{number:06d}", **{k: v for k, v in row.items() if v not in (None, "")}} for number, row in enumerate(rows)
    ]
    return [(f"{path}, row {number}", row) for number, row in enumerate(named, start=1)]


def _jsonl(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"{path}, line {number}: not valid JSON ({error})") from None
        if not isinstance(row, dict):
            raise InputError(f'{path}, line {number}: expected an object like {{"prompt": "..."}}, found {line[:40]!r}')
        yield _of_clip(row) if "file_name" in row else row


def _of_clip(row: Mapping[str, Any]) -> dict[str, Any]:
    """Turn a data set's row into a row to generate from; the seed of its scene is not the seed of the noise."""
    kept = {key: value for key, value in row.items() if key != "seed"}
    return {"id": Path(row["file_name"]).stem, "caption": "", **kept, "video": row["file_name"]}


def _txt(path: Path) -> Iterator[dict[str, Any]]:
    return ({"prompt": line.strip()} for line in read_text(path).splitlines() if line.strip())


def _csv(path: Path) -> Iterator[dict[str, Any]]:
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path), newline="")))
    except csv.Error as error:
        raise InputError(f"{path}: not a readable table ({error}); write it as CSV with a header") from error
    for row in rows:
        if None in row:
            raise InputError(f"{path}: a row has more cells than the header ({row[None]}); quote cells that contain commas")
        yield dict(row)


def _prompt(place: str, row: Mapping[str, Any], folder: Path) -> Prompt:
    if "prompt" not in row and "caption" not in row:
        raise InputError(f"{place}: no prompt; give the column 'prompt' or 'caption' (found: {', '.join(row)})")
    if "image" in row and "video" in row:
        raise InputError(f"{place}: both an image and a video for the first frame; keep one of the two columns")
    source = row.get("image", row.get("video"))
    source = None if source is None else folder / str(source)
    if source is not None and not source.is_file():
        raise InputError(f"{place}: no file {str(source)!r} for the first frame; paths are relative to {str(folder)!r}")
    return Prompt(
        id=str(row["id"]),
        caption=str(row.get("prompt", row.get("caption"))),
        source=source,
        seed=_number(place, "seed", row, int),
        fps=_number(place, "fps", row, float),
        columns={key: value for key, value in row.items() if key not in OWN},
    )


def _number(place: str, column: str, row: Mapping[str, Any], kind: type) -> Any:
    if column not in row:
        return None
    try:
        value = kind(row[column])
    except (TypeError, ValueError):
        raise InputError(f"{place}: {column} = {row[column]!r} is not a number of type {kind.__name__}") from None
    low, high = _RANGES[column]
    if not low <= value <= high:
        raise InputError(f"{place}: {column} = {row[column]!r} is out of range; allowed are {low:g} to {high:g}")
    return value


def _same(value: Any, wanted: Any) -> bool:
    return value == wanted or str(value) == str(wanted)


def _read_image(path: Path) -> Tensor:
    import cv2

    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    if pixels is None:
        raise InputError(f"{path}: cannot be read as an image; give a PNG, JPEG, WebP, BMP or TIFF file")
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
