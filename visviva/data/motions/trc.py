"""TRC files (Motion Analysis, OpenSim): trajectories of markers as a text table; an empty field is a hidden marker."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from visviva.data.motions.axes import SPELLED, UNITS, Reading, overruled
from visviva.data.motions.motion import HumanMotion
from visviva.data.motions.text import numbers, text_of
from visviva.data.motions.world import to_world
from visviva.errors import InputError


def read_trc(path: str | Path, reading: Reading | None = None) -> HumanMotion:
    """Read a TRC file as markers; the header's units count unless ``reading.units`` says otherwise.

    Raises:
        InputError: no TRC file, a header that contradicts the table (frames, markers, rate), a file cut short, no rate.

    Example::

        motion = read_trc("walk.trc")
        heel = motion.joint("R.Heel")  # (T, 3) m, z up
    """
    reading, where = reading or Reading(), str(path)
    lines = text_of(path).splitlines()
    if len(lines) < 6 or not lines[0].startswith("PathFileType"):
        raise InputError(
            f"{where}: does not begin with PathFileType and a header of 5 lines; this is no TRC file, or it is cut short"
        )
    header = dict(zip(lines[1].split(), lines[2].split(), strict=False))
    names = [word.strip() for word in lines[3].split("\t")[2:] if word.strip()]
    names = names or lines[3].split()[2:]
    frames, count, rate = (_number(header, key, where) for key in ("NumFrames", "NumMarkers", "DataRate"))
    if count != len(names):
        raise InputError(f"{where}: the header says {count:g} markers, but {len(names)} are named; repair the header")
    rows = [line for line in lines[5:] if line.strip()]
    table = np.stack([_row(row, len(names), where) for row in rows]) if rows else np.zeros((0, 2 + 3 * len(names)))
    if len(table) != frames:
        raise InputError(
            f"{where}: the header says {frames:g} frames, the table has {len(table)}; the file is cut short or damaged"
        )
    units = header.get("Units", "").lower()
    units = SPELLED.get(units, units)
    if units not in UNITS:
        raise InputError(f"{where}: unknown units {units!r} in the header; known: {', '.join(UNITS)}")
    fps, notes = _rate(table[:, 1], rate, reading, where)
    points = torch.from_numpy(table[:, 2:]).reshape(len(table), len(names), 3).float()
    return to_world(
        points, _distinct(names), [-1] * len(names), fps, where, reading=reading, declared=units, kind="markers", notes=notes
    )


def _number(header: dict[str, str], key: str, where: str) -> float:
    try:
        return float(header[key])
    except (KeyError, ValueError):
        raise InputError(f"{where}: the header has no number {key} ({header.get(key)!r}); repair the header") from None


def _row(line: str, markers: int, where: str) -> NDArray[np.float64]:
    """Return frame, time and 3 numbers per marker; hidden ones are NaN."""
    cells = line.rstrip("\r\n").split("\t") if "\t" in line else line.split()
    cells = [cell.strip() or "nan" for cell in cells]
    wanted = 2 + 3 * markers
    while len(cells) > wanted and cells[-1] == "nan":
        cells.pop()
    cells += ["nan"] * (wanted - len(cells) if "\t" in line and len(cells) > 2 else 0)
    if len(cells) != wanted:
        raise InputError(f"{where}: a row of {len(cells)} numbers, {wanted} are wanted for {markers} markers: {line[:40]!r}")
    found = numbers(" ".join(cells), where)
    if len(found) != wanted:
        raise InputError(f"{where}: a row of {len(found)} numbers, {wanted} are wanted for {markers} markers: {line[:40]!r}")
    return found


def _rate(times: NDArray[np.float64], rate: float, reading: Reading, where: str) -> tuple[float, list[str]]:
    if reading.fps is not None:
        return reading.fps, overruled(reading, rate)
    steps = np.diff(times)
    step = float(np.median(steps)) if len(steps) else 0.0
    if len(steps) and (not np.isfinite(steps).all() or (steps <= 0).any()):
        raise InputError(f"{where}: the times do not rise; sort the frames, or give the frame rate (--fps)")
    if rate > 0 and step > 0 and abs(step * rate - 1) > 0.1 and abs(step - 1 / rate) > 2e-3:
        raise InputError(f"{where}: the header says {rate:g} frames/s, the times {1 / step:g}; give the right one (--fps)")
    return rate, []


def _distinct(names: list[str]) -> list[str]:
    return [name if name not in names[:k] else f"{name}_{k}" for k, name in enumerate(names)]
