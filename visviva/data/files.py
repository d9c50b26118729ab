"""Files that appear complete or not at all, and text that is text."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from visviva.errors import InputError


@contextlib.contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """Yield a hidden path in the same folder to write to; it takes the name ``path`` only if the block ends well.

    The folder is made where it is missing. An error of the file system (full disk, a path under a file, no permission) is an
    `InputError` that names ``path``.

    Example::

        with whole("clips/metadata.jsonl") as part:
            part.write_text(text)
    """
    path = Path(path)
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield part
            os.replace(part, path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turn errors of the file system within the block into an `InputError` that names ``path`` (the system often does not)."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror or error}); free space or choose another folder"
        ) from error


def read_text(path: str | Path) -> str:
    """Return the text of a file without a byte-order mark; bytes that are no UTF-8 are an `InputError` that names it."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file ({error.reason} at byte {error.start}); write it as UTF-8 text") from error
