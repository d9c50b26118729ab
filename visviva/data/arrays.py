"""The ground truth of a clip in one ``.npz``: written with equal bytes for equal clips, and checked whole when it is read.

Symbols: T frames, N objects, H and W pixels. What each array holds is said at `visviva.data.clip.Clip`.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from visviva.data.files import whole
from visviva.errors import InputError, closest

FORMAT = 1
SHAPES: dict[str, tuple[str, ...]] = {
    "masks": ("T", "N", "H", "W"),
    "flow": ("T-1", "2", "H", "W"),
    "flow_valid": ("T-1", "H", "W"),
    "depth": ("T", "H", "W"),
    "trajectory": ("T", "N", "2"),
    "visible": ("T", "N"),
    "metres_per_pixel": ("N",),
    "contact": ("T",),
    "state_position": ("T", "N", "3"),
    "state_velocity": ("T", "N", "3"),
    "state_quaternion": ("T", "N", "4"),
    "state_angular_velocity": ("T", "N", "3"),
}
"""The arrays that a file may hold, with their shapes; the ``state_`` arrays are the states of rigid bodies."""
ABOUT: dict[str, tuple[type, ...]] = {
    "format": (int,),
    "fps": (int, float),
    "caption": (str,),
    "meta": (dict,),
    "contact_times": (list,),
    "width": (int,),
}
_BITS = ("masks", "flow_valid")
_REMEDY = "simulate or copy it again"


@dataclass(frozen=True)
class Arrays:
    """What a ``.npz`` of ground truth holds: arrays by the names of `SHAPES`, and the notes beside them (`ABOUT`)."""

    tensors: dict[str, Tensor]
    about: dict[str, Any]

    @property
    def frames(self) -> int | None:
        """T; None if no array tells it."""
        missing = {"T": 0, "T-1": 1}
        lengths = [len(x) + missing[first] for name, x in self.tensors.items() if (first := SHAPES[name][0]) in missing]
        return lengths[0] if lengths else None

    def first(self, count: int) -> dict[str, Tensor]:
        """Return the arrays of the first ``count`` frames."""
        cut = {"T": count, "T-1": count - 1}
        return {name: x[: cut[SHAPES[name][0]]] if SHAPES[name][0] != "N" else x for name, x in self.tensors.items()}


def write_arrays(path: str | Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write arrays and notes to one ``.npz``: ``depth`` in half precision, ``masks`` and ``flow_valid`` as bits."""
    content = {name: _pack(name, value.cpu().numpy()) for name, value in tensors.items()}
    content["about"] = np.array(json.dumps({"format": FORMAT, **about}))
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **content)  # type: ignore[arg-type]
    with whole(path) as part:
        part.write_bytes(buffer.getvalue())


def read_arrays(path: str | Path) -> Arrays:
    """Read a ``.npz`` that `write_arrays` wrote.

    Raises:
        InputError: the file cannot be read, is of a newer format, lacks or misstates a note, holds an array of an unknown name,
            or arrays whose shapes contradict each other.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as stored:
            content = {name: stored[name] for name in stored.files}
        about = json.loads(str(content.pop("about")))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not a readable ground-truth file ({error}); {_REMEDY}") from error
    _check_about(path, about)
    unknown = next((name for name in content if name not in SHAPES), None)
    if unknown is not None:
        raise InputError(f"{path}: holds an unknown array {unknown!r}{closest(unknown, SHAPES)}; known: {', '.join(SHAPES)}")
    tensors = {name: _unpacked(path, name, value, about["width"]) for name, value in content.items()}
    _check_shapes(path, tensors)
    return Arrays(tensors, about)


def _check_about(path: Path, about: Any) -> None:
    if isinstance(about, dict) and isinstance(about.get("format"), int) and about["format"] > FORMAT:
        raise InputError(f"{path}: written by a newer version (format {about['format']}, known {FORMAT}); update visviva")
    given = about if isinstance(about, dict) else {}
    bad = [key for key, kinds in ABOUT.items() if not isinstance(given.get(key), kinds)]
    if bad:
        raise InputError(f"{path}: its notes lack or misstate {', '.join(bad)}; {_REMEDY}")
    if not 0 < about["fps"] < math.inf:
        raise InputError(f"{path}: fps = {about['fps']} in its notes is not a positive number; {_REMEDY}")


def _check_shapes(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raise where an array has not the rank of its kind, or two arrays disagree on T, N, H or W."""
    found: dict[str, tuple[int, str]] = {}
    for name, tensor in tensors.items():
        shape = SHAPES[name]
        if tensor.ndim != len(shape):
            raise InputError(f"{path}: {name} has shape {tuple(tensor.shape)}, expected ({', '.join(shape)}); {_REMEDY}")
        for size, symbol in zip(tensor.shape, shape, strict=True):
            size, symbol = (size + 1, "T") if symbol == "T-1" else (size, symbol)
            known, by = (int(symbol), "") if symbol.isdigit() else found.setdefault(symbol, (size, name))
            if known != size:
                said = f"{symbol} is {known} in {by}" if by else f"{known} is expected in place of {size}"
                raise InputError(f"{path}: {name} has shape {tuple(tensor.shape)}, but {said}; {_REMEDY}")


def _pack(name: str, value: np.ndarray) -> np.ndarray:
    if name in _BITS:
        return np.packbits(value, axis=-1)
    return value.astype(np.float16) if name == "depth" else value


def _unpacked(path: Path, name: str, value: np.ndarray, width: int) -> Tensor:
    if value.dtype.kind not in "biuf":
        raise InputError(f"{path}: {name} holds {value.dtype}, not numbers; {_REMEDY}")
    if name in _BITS:
        if value.dtype != np.uint8 or not value.ndim or value.shape[-1] != -(-width // 8):
            raise InputError(f"{path}: {name} is not packed for images {width} pixels wide; {_REMEDY}")
        value = np.unpackbits(value, axis=-1, count=width).astype(bool)
    return torch.from_numpy(value.astype(np.float32) if name == "depth" else value)
