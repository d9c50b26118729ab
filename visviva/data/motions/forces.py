"""Force-plate records beside a motion: ``.forces`` files of Motion Analysis (text, millimetres, y up)."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from visviva.data.motions.axes import upright
from visviva.data.motions.motion import Plate
from visviva.data.motions.text import numbers, text_of
from visviva.errors import InputError

COLUMNS = 7
"""Per plate: FX FY FZ [N], X Y Z of the centre of pressure [mm], MZ [N mm]."""


def read_forces(path: str | Path, up: str = "y") -> tuple[Plate, ...]:
    """Read the plates of a .forces file: the ground's force on the body, metres, z up.

    Raises:
        InputError: no such file, or one cut short.

    Example::

        motion = motion.noted(plates=read_forces("walk.forces"))
    """
    where, text = str(path), text_of(path)
    found = {key: re.search(rf"(?m)^{key}=([\d.]+)", text) for key in ("NumberOfForcePlates", "SampleRate", "NumberOfSamples")}
    values = [float(match[1]) for match in found.values() if match]
    if not text.startswith("[Force Data]") or len(values) != len(found):
        raise InputError(f"{where}: no .forces file; it begins with [Force Data], the plates, the rate and the samples")
    plates, rate, samples = int(values[0]), values[1], int(values[2])
    rows = [line for line in text.splitlines()[4:] if line.strip() and not line.startswith("#")]
    table = torch.from_numpy(numbers("\n".join(rows), where))
    width = 1 + COLUMNS * plates
    if len(rows) != samples or table.numel() != samples * width:
        raise InputError(
            f"{where}: {table.numel()} numbers where {samples} samples of {width} are wanted; the file is cut short"
        )
    blocks = table.reshape(samples, width)[:, 1:].reshape(samples, plates, COLUMNS).float()
    turn = upright(up)
    return tuple(Plate(blocks[:, p, :3] @ turn.T, blocks[:, p, 3:6] @ turn.T / 1000, rate) for p in range(plates))
