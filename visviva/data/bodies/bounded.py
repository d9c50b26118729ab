"""Files from strangers, of a bounded size."""

from __future__ import annotations

from pathlib import Path

from visviva.errors import InputError

BYTES = 64 * 2**20
"""Largest file that is read [bytes]."""


def read_bounded(path: Path) -> bytes:
    """Return the content of a file that describes a body.

    Raises:
        InputError: a file that cannot be read, or of more than 64 MiB.

    Example::

        read_bounded(Path("model.osim"))
    """
    try:
        size = path.stat().st_size
        if size > BYTES:
            raise InputError(f"{path}: {size / 2**20:.0f} MiB; descriptions of bodies are read up to {BYTES // 2**20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
