"""An append-only, crash-safe list of finished items: what a long run has done, so that it can be killed and continued.

One folder holds one ``manifest-<shard>.jsonl`` per process. Its first line is the header (format version, request); every
further line is one finished item, appended and flushed to disk **after** the item's files are in place. So a line means
"done", a file without a line is made again and replaced, and a line that a kill cut short is dropped and made again.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from visviva.data.files import writing
from visviva.errors import InputError

FORMAT = 1
"""Version of the manifest's format; a manifest with a higher one was written by a newer visviva and is refused."""


_REMEDY = "remove the file to make its items again, or choose another output folder"


def output_folder(path: str | Path) -> Path:
    """Make the folder that a run writes to, where it is not there yet, or say in one sentence why it cannot be."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the output folder {str(path)!r} cannot be made ({error.strerror}); choose another one") from error
    return path


class Manifest:
    """The finished items in a folder, and the line writer of this process. Use as a context manager.

    ``request`` is what the items depend on (model, settings): a folder begun with another request refuses to be mixed, and
    the error names the settings that differ. Items are mappings with a string ``id``.

    Example::

        with Manifest(folder, {"model": "0f3c", "steps": 8}) as manifest:
            for item in items:
                if item["id"] not in manifest.done:
                    make_the_files_of(item)
                    manifest.add(item)
        rows = Manifest.read(folder)
    """

    def __init__(self, folder: str | Path, request: Mapping[str, Any], shard: int = 0) -> None:
        self.folder = output_folder(folder)
        self.path = self.folder / f"manifest-{shard:05d}.jsonl"
        self.request = json.loads(json.dumps(request))
        self.done: dict[str, dict[str, Any]] = {}
        for path in sorted(self.folder.glob("manifest-*.jsonl")):
            header, rows = _read(path)
            if header is not None:
                self._refuse_other_request(path, header)
            self.done.update({row["id"]: row for row in rows})
        self._file = open(self.path, "ab")  # noqa: SIM115 (closed by __exit__)
        try:
            self._lock()
            self._mend()
        except BaseException:
            self._file.close()
            raise

    def add(self, row: Mapping[str, Any]) -> None:
        """Append one finished item and return when it is on the disk; an id that is already there is a bug in the caller."""
        if row["id"] in self.done:
            raise ValueError(f"the item {row['id']!r} is already in {self.path}")
        self._write(row)
        self.done[row["id"]] = dict(row)

    def close(self) -> None:
        """Close the file and let another process write it."""
        self._file.close()

    @staticmethod
    def read(folder: str | Path) -> list[dict[str, Any]]:
        """Return the finished items of every shard in a folder, each id once."""
        rows = [row for path in sorted(Path(folder).glob("manifest-*.jsonl")) for row in _read(path)[1]]
        return list({row["id"]: row for row in rows}.values())

    def __enter__(self) -> Manifest:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _write(self, row: Mapping[str, Any]) -> None:
        with writing(self.path):
            self._file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"another run is writing to {str(self.folder)!r}; wait until it ends or choose another output folder"
            ) from None

    def _mend(self) -> None:
        """Cut off a last line that was never finished; write the header where there is none."""
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            self._file.truncate(whole)
        if whole == 0:
            self._write({"format": FORMAT, "request": self.request})

    def _refuse_other_request(self, path: Path, header: Mapping[str, Any]) -> None:
        old = header["request"]
        changed = [key for key in sorted({*old, *self.request}) if old.get(key) != self.request.get(key)]
        if changed:
            pairs = "; ".join(f"{key}: {_short(old.get(key))} there, {_short(self.request.get(key))} now" for key in changed)
            raise InputError(
                f"{path} was begun with other settings ({pairs}); restore them to continue, or choose another output folder"
            )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _read(path: Path) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """Return the header (None if not even that was finished) and the finished items of one shard."""
    lines = path.read_bytes().split(b"\n")[:-1]  # what follows the last newline was cut off by a kill
    try:
        content = [json.loads(line) for line in lines]
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); {_REMEDY}") from None
    if not content:
        return None, []
    header, *rows = content
    if not (isinstance(header, dict) and isinstance(header.get("format"), int) and isinstance(header.get("request"), dict)):
        raise InputError(f"{path} is no visviva manifest (its first line has no 'format' and 'request'); {_REMEDY}")
    if header["format"] > FORMAT:
        raise InputError(
            f"{path} was written by a newer visviva (format {header['format']}, this one reads up to {FORMAT}); "
            "upgrade visviva or choose another output folder"
        )
    if not all(isinstance(row, dict) and isinstance(row.get("id"), str) for row in rows):
        raise InputError(f"{path} is damaged (an item without an 'id'); {_REMEDY}")
    return header, rows
