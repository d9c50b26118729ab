"""C3D files (biomechanics): markers, analog channels and force plates; Intel, DEC and MIPS numbers, integers or reals.

Read after the format's user guide (C3D.org): a parameter section in blocks of 512 bytes, then frames of points (x, y, z and a
word whose sign says that the point was not seen) with the analog samples of the frame behind them.

    point = raw POINT:SCALE (integers)      analog = (raw - OFFSET) SCALE GEN_SCALE

Force plates of type 1 (force and centre of pressure), 2 (force and moment), 3 (Kistler, eight channels) and 4 (2 with a
calibration matrix) are turned into the world by their corners. Files differ in whether they hold the force on the plate or that
on the body: the sign is the one that pushes the body up, and a note says so.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visviva.data.motions.axes import SPELLED, UNITS, Reading, overruled
from visviva.data.motions.motion import HumanMotion, Plate
from visviva.data.motions.text import present
from visviva.data.motions.world import to_world
from visviva.errors import InputError

BLOCK = 512
INTEL, DEC, MIPS = 84, 85, 86
LOADED = 20.0
"""Vertical force above which a centre of pressure means something [N]."""
CHANNELS = {1: 6, 2: 6, 3: 8, 4: 6}


@dataclass(frozen=True)
class C3D:
    """What a C3D file holds, in its own units and axes.

    Attributes:
        points: (T, P, 3), NaN where a point was not seen; ``labels``: P names; ``rate``: frames per second.
        analog: by name, samples (T k,), scaled; ``analog_rate``: samples per second.
        parameters: ``GROUP:NAME`` to number, text, list or array (first axis fastest, as the file counts).
    """

    points: NDArray[np.float64]
    labels: list[str]
    rate: float
    analog: dict[str, NDArray[np.float64]]
    analog_rate: float
    parameters: dict[str, Any]


def read_c3d(path: str | Path, reading: Reading | None = None) -> HumanMotion:
    """Read a C3D file as markers with force plates.

    Raises:
        InputError: no C3D file, one cut short, one without points, without a rate, or with units that are not known.

    Example::

        motion = read_c3d("gait.c3d")
        vertical = sum(plate.force[:, 2] for plate in motion.plates)  # N
    """
    reading, where = reading or Reading(), str(path)
    file = open_c3d(path)
    if not file.points.shape[1]:
        raise InputError(
            f"{where}: holds no points, only {len(file.analog)} analog channels; export the trial with its markers"
        )
    units = str(file.parameters.get("POINT:UNITS") or "mm").strip(" \0").lower()
    units = SPELLED.get(units, units)
    if units not in UNITS:
        raise InputError(f"{where}: unknown POINT:UNITS {units!r}; known: {', '.join(UNITS)}")
    plates, notes = _plates(file, UNITS[reading.units or units], where)
    notes = overruled(reading, file.rate) + notes
    vertical = str(file.parameters.get("POINT:Y_SCREEN") or "+z").strip().lower().lstrip("+")
    points = torch.from_numpy(file.points).float()
    motion = to_world(
        points, file.labels, [-1] * len(file.labels), reading.fps or file.rate, where, reading=reading, usual_up=vertical,
        declared=units, kind="markers", plates=plates, notes=notes,
    )  # fmt: skip
    return _pushing_up(motion)


def _pushing_up(motion: HumanMotion) -> HumanMotion:
    total = sum(float(plate.force[:, 2].sum()) for plate in motion.plates)
    if not motion.plates or total > 0:
        return motion
    turned = tuple(Plate(-plate.force, plate.centre, plate.fps, plate.corners) for plate in motion.plates)
    return motion.noted("forces: the file holds those on the plates; turned into those on the body", plates=turned)


def open_c3d(path: str | Path) -> C3D:
    """Read everything a C3D file holds; raises `InputError` where it is none or is cut short."""
    raw, where = present(path).read_bytes(), str(path)
    if len(raw) < 2 * BLOCK or raw[1] != 0x50:
        raise InputError(f"{where}: no C3D file (the second byte is {raw[1] if len(raw) > 1 else 'missing'}, 80 is wanted)")
    start = (raw[0] - 1) * BLOCK
    processor = raw[start + 3] if start + 4 <= len(raw) else 0
    if processor not in (INTEL, DEC, MIPS):
        raise InputError(
            f"{where}: unknown number format {processor} of a C3D file; 84 (Intel), 85 (DEC) and 86 (MIPS) are known"
        )
    try:
        parameters = _parameters(raw, start, processor)
        return _data(raw, parameters, processor, where)
    except (struct.error, IndexError, ValueError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{where}: the file is damaged or cut short ({error}); export the trial again") from error


def reals(raw: bytes, processor: int) -> NDArray[np.float64]:
    """Return 4-byte reals of a number format: IEEE little or big endian, or VAX F.

    A VAX F number has its words exchanged and is a quarter of what IEEE reads then.
    """
    if processor == DEC:
        words = np.frombuffer(raw, "<u2").reshape(-1, 2)
        return words[:, ::-1].copy().view("<f4")[:, 0].astype(np.float64) / 4
    return np.frombuffer(raw, ">f4" if processor == MIPS else "<f4").astype(np.float64)


def _parameters(raw: bytes, start: int, processor: int) -> dict[str, Any]:
    order, groups, found, at = ">" if processor == MIPS else "<", {}, [], start + 4
    while at + 2 <= len(raw):
        length, group = struct.unpack_from("bb", raw, at)
        length = abs(length)
        if not length or not group:
            break
        name = raw[at + 2 : at + 2 + length].decode("latin-1").strip(" \0").upper()
        here = at + 2 + length
        (step,) = struct.unpack_from(order + "h", raw, here)
        if group < 0:
            groups[-group] = name
        else:
            found.append((group, name, _value(raw, here + 2, processor)))
        if not step:
            break
        at = here + step
    return {f"{groups.get(group, group)}:{name}": value for group, name, value in found}


def _value(raw: bytes, at: int, processor: int) -> Any:
    size, rank = struct.unpack_from("bB", raw, at)
    shape = list(raw[at + 2 : at + 2 + rank])
    count, at = int(np.prod(shape)) if rank else 1, at + 2 + rank
    body = raw[at : at + count * abs(size)]
    if len(body) < count * abs(size):
        raise ValueError("a parameter is cut short")
    if size == -1:
        text = body.decode("latin-1")
        width = shape[0] if rank else 1
        cells = [text[k : k + width].strip(" \0") for k in range(0, len(text), width)] if width else []
        return (cells[0] if cells else "") if rank < 2 else cells
    kind = {1: "u1", 2: ">i2" if processor == MIPS else "<i2"}.get(size)
    values = reals(body, processor) if kind is None else np.frombuffer(body, kind).astype(np.float64)
    return float(values[0]) if not rank else values.reshape(shape, order="F")


def _number(parameters: dict[str, Any], name: str, default: float) -> float:
    value = parameters.get(name, default)
    value = value.flat[0] if isinstance(value, np.ndarray) and value.size else value
    return float(value) if isinstance(value, int | float) else default


def _data(raw: bytes, parameters: dict[str, Any], processor: int, where: str) -> C3D:
    order = ">" if processor == MIPS else "<"
    points, per_frame, first, last = struct.unpack_from(order + "HHHH", raw, 2)
    block = int(_number(parameters, "POINT:DATA_START", 0)) % 65536 or struct.unpack_from(order + "H", raw, 16)[0]
    rate = _number(parameters, "POINT:RATE", 0.0) or float(reals(raw[20:24], processor)[0])
    scale = _number(parameters, "POINT:SCALE", float(reals(raw[12:16], processor)[0]))
    width, frames = 4 * points + per_frame, _frame_count(parameters, first, last)
    real = scale < 0
    bytes_needed = frames * width * (4 if real else 2)
    body = raw[(block - 1) * BLOCK :][:bytes_needed]
    if not frames or len(body) < bytes_needed:
        raise InputError(f"{where}: {len(body)} bytes of data where {frames} frames need {bytes_needed}; the file is cut short")
    if real:
        table = reals(body, processor)
    else:
        unsigned = str(parameters.get("ANALOG:FORMAT", "")).upper() == "UNSIGNED"
        table = np.frombuffer(body, order + "i2").astype(np.float64)
    table = table.reshape(frames, width)
    analog = table[:, 4 * points :]
    if not real and unsigned:
        analog = analog % 65536
    cloud = table[:, : 4 * points].reshape(frames, points, 4)
    places = cloud[..., :3] * (1.0 if real else abs(scale))
    places = np.where(cloud[..., 3:] < 0, np.nan, places)
    channels = int(_number(parameters, "ANALOG:USED", 0))
    labels = _labels(parameters, "POINT", points)
    return C3D(places, labels, rate, *_analog(analog, channels, parameters, rate), parameters)


def _frame_count(parameters: dict[str, Any], first: int, last: int) -> int:
    start, end = (parameters.get(f"TRIAL:ACTUAL_{name}_FIELD") for name in ("START", "END"))
    if isinstance(start, np.ndarray) and isinstance(end, np.ndarray) and start.size == end.size == 2:
        low, high = (int(v[0] % 65536) + 65536 * int(v[1] % 65536) for v in (start, end))
        if high >= low > 0:
            return high - low + 1
    if last == 65535:
        return max(int(_number(parameters, "POINT:FRAMES", 0)) % 65536, last - first + 1)
    return last - first + 1


def _labels(parameters: dict[str, Any], group: str, count: int) -> list[str]:
    found: list[str] = []
    for name in ("LABELS", "LABELS2", "LABELS3"):
        value = parameters.get(f"{group}:{name}", [])
        found += [value] if isinstance(value, str) else list(value)
    found = [name or f"{group.lower()}{k}" for k, name in enumerate(found[:count])]
    found += [f"{group.lower()}{k}" for k in range(len(found), count)]
    return [name if name not in found[:k] else f"{name}_{k}" for k, name in enumerate(found)]


def _analog(
    table: NDArray[np.float64], channels: int, parameters: dict[str, Any], rate: float
) -> tuple[dict[str, NDArray[np.float64]], float]:
    if not channels or not table.shape[1]:
        return {}, 0.0
    samples = table.shape[1] // channels
    values = table[:, : samples * channels].reshape(-1, channels)
    general = _number(parameters, "ANALOG:GEN_SCALE", 1.0)

    def column(name: str, default: float) -> NDArray[np.float64]:
        given = np.atleast_1d(np.asarray(parameters.get(f"ANALOG:{name}", default), dtype=np.float64)).ravel()[:channels]
        return np.concatenate((given, np.full(channels - len(given), default)))

    values = (values - column("OFFSET", 0.0)) * column("SCALE", 1.0) * general
    return dict(zip(_labels(parameters, "ANALOG", channels), values.T, strict=True)), rate * samples


def _plates(file: C3D, metres: float, where: str) -> tuple[tuple[Plate, ...], list[str]]:
    """Return the force plates in metres and newtons, in the file's axes, and what could not be read."""
    given, found, notes = file.parameters, [], []
    used = int(_number(given, "FORCE_PLATFORM:USED", 0))
    kinds, channel = (np.asarray(given.get(f"FORCE_PLATFORM:{name}", [])) for name in ("TYPE", "CHANNEL"))
    columns = list(file.analog.values())
    for index in range(used):
        kind = int(kinds.ravel()[index]) if index < kinds.size else 0
        if kind not in CHANNELS or channel.ndim != 2 or index >= channel.shape[1]:
            notes.append(f"force plate {index + 1} is of type {kind}, which is not read (1 to 4 are)")
            continue
        places = channel[: CHANNELS[kind], index].astype(int) - 1
        if (places < 0).any() or (places >= len(columns)).any():
            raise InputError(f"{where}: force plate {index + 1} names analog channels {places + 1}, there are {len(columns)}")
        raw = np.stack([columns[k] for k in places], axis=1)
        found.append(_plate(raw, kind, index, given, metres, file.analog_rate))
    return tuple(found), notes


def _plate(raw: NDArray[Any], kind: int, index: int, given: dict[str, Any], metres: float, rate: float) -> Plate:
    corners = np.asarray(given["FORCE_PLATFORM:CORNERS"])[:, :, index].T * metres
    origin = np.asarray(given["FORCE_PLATFORM:ORIGIN"])[:, index] * metres
    if kind == 4:
        raw = raw @ np.asarray(given["FORCE_PLATFORM:CAL_MATRIX"])[:, :, index].T
    if kind == 3:
        force, moment = _kistler(raw, origin, metres)
        origin = np.array([0.0, 0.0, origin[2]])
    else:
        force, moment = raw[:, :3], raw[:, 3:] * metres
    at = np.zeros_like(force)
    loaded = np.abs(force[:, 2]) > LOADED
    if kind == 1:
        at[loaded, :2] = moment[loaded, :2]
    else:
        surface = moment - np.cross(origin, force)
        at[loaded, 0] = -surface[loaded, 1] / force[loaded, 2]
        at[loaded, 1] = surface[loaded, 0] / force[loaded, 2]
    axes = _axes(corners)
    force = force - _baseline(force, given)
    centre = np.where(loaded[:, None], corners.mean(0) + at @ axes, 0.0)
    return Plate(_tensor(force @ axes), _tensor(centre), rate, _tensor(corners))


def _tensor(values: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).float()


def _baseline(force: NDArray[Any], given: dict[str, Any]) -> NDArray[Any]:
    """Return what the plate shows in the samples of FORCE_PLATFORM:ZERO, where it is not loaded then; else nothing."""
    first, last = (int(x) for x in (*np.ravel(given.get("FORCE_PLATFORM:ZERO", [])), 0, 0)[:2])
    shown = force[first - 1 : last].mean(0) if 1 <= first < last else np.zeros(3)
    return shown if abs(shown[2]) < LOADED else np.zeros(3)


def _kistler(raw: NDArray[Any], origin: NDArray[Any], metres: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return force and moment of a plate with a sensor in each corner, at (a, b) from its centre."""
    x12, x34, y14, y23, z1, z2, z3, z4 = raw.T
    a, b = origin[0], origin[1]
    force = np.stack((x12 + x34, y14 + y23, z1 + z2 + z3 + z4), axis=1)
    moment = (b * (z1 + z2 - z3 - z4), a * (-z1 + z2 + z3 - z4), b * (-x12 + x34) + a * (y14 - y23))
    return force, np.stack(moment, axis=1)


def _axes(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the plate's axes as rows, from its corners (+x +y), (-x +y), (-x -y), (+x -y)."""
    x = corners[[0, 3]].mean(0) - corners[[1, 2]].mean(0)
    y = corners[[0, 1]].mean(0) - corners[[2, 3]].mean(0)
    x /= np.linalg.norm(x)
    y -= x * (x @ y)
    y /= np.linalg.norm(y)
    return np.stack((x, y, np.cross(x, y)))
