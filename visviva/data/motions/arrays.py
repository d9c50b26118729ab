"""Motions in numpy files: joints (T, J, 3) or HumanML3D features (T, 263) in .npy, named arrays in .npz; never pickled.

A ``.npz`` holds SMPL parameters (`amass`), or ``positions`` (also called ``joints``), ``fps`` and, where known, ``names``,
``parents``, ``rotations``, ``rest``, ``visible``, ``contacts``, ``floor``: what `write_npz` writes.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from struct import error as struct_error
from tokenize import TokenError
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from visviva.data.files import whole
from visviva.data.motions import amass, humanml3d
from visviva.data.motions.axes import Reading, overruled, rate_of
from visviva.data.motions.motion import HumanMotion
from visviva.data.motions.plausible import jumps, near
from visviva.data.motions.text import LARGEST, present
from visviva.data.motions.world import to_world
from visviva.errors import InputError

H36M = (
    "hip", "right_hip", "right_knee", "right_foot", "left_hip", "left_knee", "left_foot", "spine", "thorax", "neck", "head",
    "left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist",
)  # fmt: skip
H36M_PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15)
SKELETONS = {
    22: (humanml3d.NAMES, humanml3d.PARENTS, "HumanML3D's 22"),
    24: (amass.NAMES, amass.PARENTS, "SMPL's 24"),
    17: (H36M, H36M_PARENTS, "Human3.6M's 17"),
}
"""Skeletons that are told by their number of joints."""
DAMAGED = (OSError, ValueError, EOFError, KeyError, SyntaxError, TokenError, MemoryError, NotImplementedError, RuntimeError)
BROKEN = (*DAMAGED, zipfile.BadZipFile, zlib.error, struct_error)
"""What numpy and zipfile raise on damaged files."""
KEYS = {"poses", "root_orient", "pose_body", "trans", "betas", "mocap_framerate", "mocap_frame_rate", "fps", "axes", "kind"}
KEYS |= {
    "positions",
    "joints",
    "motion",
    "names",
    "parents",
    "rotations",
    "rest",
    "visible",
    "contacts",
    "contact_joints",
    "floor",
}
"""What is read of a .npz; other arrays are not opened."""
CLAIMED = {"zup": "written by visviva: metres, z up, right-handed"}


def read_npy(path: str | Path, reading: Reading | None = None) -> HumanMotion:
    """Read joints (T, J, 3) or features (T, 263) from a .npy file.

    22 joints are taken for HumanML3D's (y up, 20 frames/s), 24 for SMPL's, 17 for Human3.6M's; these two need ``reading.fps``.

    Raises:
        InputError: a pickled or damaged file, other shapes, other numbers of joints, no frame rate, values that are not finite.
    """
    where = str(present(path))
    try:
        array = np.load(where, mmap_mode="r", allow_pickle=False)  # the shape is held against the file's size
    except BROKEN as error:
        raise InputError(
            f"{where}: not a readable .npy of numbers ({_short(error)}); save plain arrays (allow_pickle=False)"
        ) from error
    return from_array(array, where, reading)


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def from_array(array: NDArray[Any], source: str = "", reading: Reading | None = None) -> HumanMotion:
    """Return the motion of joints (T, J, 3) or features (T, 263); see `read_npy`."""
    reading = reading or Reading()
    values = _numbers(array, "the array", source)
    if values.ndim == 2 and values.shape[1] == 263:
        return humanml3d.from_features(values, source, reading)
    _is_joints(values, source)
    count = values.shape[1]
    if count == 22 and reading.up is None and reading.fps in (None, humanml3d.FPS):
        return humanml3d.from_joints(values, source, reading)
    names, parents, said = _skeleton(count, source, reading.fps)
    if reading.fps is None:
        raise InputError(f"{source}: joints without a frame rate; give it (--fps)")
    return to_world(values, names, parents, reading.fps, source, reading=reading, notes=[said])


def _is_joints(values: Tensor, source: str) -> None:
    if values.ndim == 3 and values.shape[-1] == 3:
        return
    hint = "joints are (frames, joints, 3), HumanML3D features (frames, 263)"
    if values.ndim == 4:
        hint = "it looks like a batch: save one motion per file, (frames, joints, 3)"
    elif values.ndim == 2 and values.shape[1] in (66, 72, 156, 165):
        hint = "it looks like SMPL poses: save an .npz with poses, trans and mocap_framerate"
    raise InputError(f"{source}: an array of the shape {tuple(values.shape)} is no motion; {hint}")


def _skeleton(count: int, source: str, fps: float | None) -> tuple[Sequence[str], Sequence[int], str]:
    if count in SKELETONS:
        names, parents, called = SKELETONS[count]
        return names, parents, f"joints: taken for {called}, from their number"
    known = ", ".join(called for _, _, called in sorted(SKELETONS.values(), key=lambda skeleton: len(skeleton[0])))
    lacking = "" if fps else ", and give the frame rate (fps, or --fps)"
    raise InputError(
        f"{source}: {count} joint{'s' * (count != 1)} of an unknown layout; without names only {known} are known: "
        f"save an .npz with positions, names and parents{lacking}"
    )


def _numbers(array: Any, name: str, source: str) -> Tensor:
    array = np.asarray(array)
    if array.dtype.kind not in "fiu":
        raise InputError(f"{source}: {name} holds {array.dtype}, not numbers")
    return torch.from_numpy(np.ascontiguousarray(array.astype(np.float32)))


def read_npz(path: str | Path, reading: Reading | None = None) -> HumanMotion:
    """Read SMPL parameters or named joints from a .npz file.

    Raises:
        InputError: a pickled, damaged or huge file, arrays missing or of other shapes, no frame rate, values not finite.
    """
    where = str(present(path))
    try:
        with zipfile.ZipFile(where) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > LARGEST:
            raise InputError(f"{where}: unpacks to {size / 1e9:.1f} GB, more than a motion of one person needs; cut it")
        with np.load(where, allow_pickle=False) as file:
            stored = {key: file[key] for key in file.files if key in KEYS}
            held = ", ".join(file.files) or "nothing"
    except BROKEN as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{where}: not a readable .npz of numbers ({_short(error)}); save plain arrays (allow_pickle=False)"
        ) from error
    if amass.is_amass(set(stored)):
        return amass.from_amass(stored, where, reading)
    return from_arrays(stored, where, reading, held)


def from_arrays(stored: dict[str, Any], source: str = "", reading: Reading | None = None, held: str = "") -> HumanMotion:
    """Return the motion of named arrays (see the file's head); ``held`` is said where there are none."""
    reading = reading or Reading()
    key = next((k for k in ("positions", "joints", "motion") if k in stored), None)
    if key is None:
        raise InputError(
            f"{source}: holds {held or ', '.join(stored) or 'nothing'}; SMPL files have poses, trans; others positions, fps"
        )
    values = _numbers(stored[key], key, source)
    if values.ndim == 2 and values.shape[1] == 263:
        return humanml3d.from_features(values, source, reading)
    _is_joints(values, source)
    own = rate_of(stored, ("fps",))
    fps, told = reading.fps or own, overruled(reading, own)
    names: Sequence[str] = [str(name) for name in stored.get("names", ())]
    parents: Sequence[int] = [int(p) for p in stored["parents"]] if "parents" in stored else [-1] * len(names)
    said = ""
    if "names" not in stored:
        names, parents, said = _skeleton(values.shape[1], source, fps)
    if fps is None:
        raise InputError(f"{source}: holds no fps; give the frame rate (--fps)")
    if str(stored.get("axes", "")) == "zup" and not (reading.up or reading.units or reading.stature or reading.hand):
        motion = _ours(values, tuple(names), tuple(parents), fps, stored, source)
        near(values, source)
        return motion.noted(*told, *jumps(values, fps))
    further: dict[str, Any] = {k: _numbers(stored[k], k, source) for k in ("rotations", "rest") if k in stored}
    told += [said] if said else []
    return to_world(values, names, parents, fps, source, reading=reading, usual_up="y", notes=told, **further)


def _ours(
    values: Tensor, names: tuple[str, ...], parents: tuple[int, ...], fps: float, stored: dict[str, Any], source: str
) -> HumanMotion:
    further: dict[str, Any] = {k: _numbers(stored[k], k, source) for k in ("rotations", "rest") if k in stored}
    further |= {k: torch.from_numpy(np.asarray(stored[k]).astype(bool)) for k in ("visible", "contacts") if k in stored}
    if "contact_joints" in stored:
        further["contact_joints"] = tuple(int(k) for k in stored["contact_joints"])
    floor = float(stored["floor"]) if "floor" in stored else None
    kind, notes = str(stored.get("kind", "joints")), (CLAIMED["zup"],)
    return HumanMotion(values, names, parents, fps, kind=kind, floor=floor, source=source, notes=notes, **further)


def write_npz(path: str | Path, motion: HumanMotion) -> Path:
    """Write a motion to a .npz that `read_npz` reads back without loss (force plates apart), and return its path."""
    content: dict[str, Any] = {
        "positions": motion.positions.cpu().numpy(),
        "fps": motion.fps,
        "axes": "zup",
        "kind": motion.kind,
    }
    content |= {"names": np.array(motion.names), "parents": np.array(motion.parents)}
    for name in ("rotations", "rest", "visible", "contacts"):
        value = getattr(motion, name)
        content |= {} if value is None else {name: value.cpu().numpy()}
    content |= {} if motion.floor is None else {"floor": motion.floor}
    content |= {"contact_joints": np.array(motion.contact_joints)} if motion.contact_joints else {}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **content)
    path = Path(path)
    with whole(path) as part:
        part.write_bytes(buffer.getvalue())
    return path
