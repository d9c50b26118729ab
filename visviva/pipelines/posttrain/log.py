"""What a run writes down: ``metrics.jsonl`` (one line per update and validation, flushed), and accelerate's trackers.

The file is cut back to the checkpoint when a killed run is continued, so no update stands in it twice.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from visviva.data.files import whole, writing


class Log:
    """Writes on the main process only.

    Args:
        path: the metrics file.
        step: finished updates; later lines of an earlier run are dropped.
        accelerator: passes numbers on to its trackers; None for none.
    """

    def __init__(self, path: Path, step: int, accelerator: Any = None, main: bool = True) -> None:
        self.path, self.accelerator, self.main = path, accelerator, main
        if main:
            kept = [line for line in read(path) if line["update"] <= step]
            with whole(path) as part:
                part.write_text("".join(json.dumps(line) + "\n" for line in kept))

    def write(self, update: int, kind: str, values: Mapping[str, float | str]) -> None:
        """Append one line and pass it to the trackers, with ``kind/`` before the names unless it is "train"."""
        if not self.main:
            return
        clean = {n: v if isinstance(v, str) or math.isfinite(v) else None for n, v in values.items()}
        with writing(self.path), self.path.open("a") as file:
            file.write(json.dumps({"update": update, "kind": kind, **clean}) + "\n")
            file.flush()
        if self.accelerator is not None:
            known = {n: v for n, v in clean.items() if v is not None}
            self.accelerator.log({n if kind == "train" else f"{kind}/{n}": v for n, v in known.items()}, step=update)


def read(path: Path) -> list[dict[str, Any]]:
    """Return the complete lines of a metrics file; the last one may have been cut off by a kill."""
    lines = []
    if path.is_file():
        for line in path.read_text().splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:
                break
    return lines
