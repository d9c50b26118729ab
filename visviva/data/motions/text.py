"""Text files of numbers, read with limits: what is no text, too large, or cut short is refused in a sentence."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from visviva.data.files import read_text
from visviva.errors import InputError

NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|nan|inf(?:inity)?)", re.IGNORECASE)
LARGEST = 1 << 30
"""Bytes of the largest motion file that is read: an hour of a hundred joints at 240 Hz as text."""


def present(path: str | Path) -> Path:
    """Return the path of a file that is there and of a size that can be a motion.

    Raises:
        InputError: no file, an empty one, or one beyond `LARGEST`.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the path of a motion file")
    size = path.stat().st_size
    if not size:
        raise InputError(f"{path}: the file is empty; export the motion again")
    if size > LARGEST:
        raise InputError(f"{path}: {size / 1e9:.1f} GB are more than a motion of one person needs (limit 1.07 GB); cut it")
    return path


def text_of(path: str | Path) -> str:
    """Return the text of a motion file, without the byte-order mark that some programs begin it with."""
    return read_text(present(path))


def numbers(text: str, where: str) -> NDArray[np.float64]:
    """Return the numbers of a text separated by white space.

    Raises:
        InputError: a word that is no number.
    """
    if not text.strip():
        return np.zeros(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # older numpy stops at such a word with this warning
            return np.fromstring(text, sep=" ")
    except (ValueError, DeprecationWarning) as error:
        bad = next((word for word in text.split() if not _is_number(word)), "")
        raise InputError(f"{where}: {bad[:40]!r} is no number; the file is damaged or of another format") from error


def _is_number(word: str) -> bool:
    return NUMBER.fullmatch(word) is not None
