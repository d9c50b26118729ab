"""Read a motion from any file that holds one: the content decides, not the name."""

from __future__ import annotations

from pathlib import Path

from visviva.data.motions.arrays import read_npy, read_npz
from visviva.data.motions.axes import Reading
from visviva.data.motions.bvh import read_bvh
from visviva.data.motions.c3d import read_c3d
from visviva.data.motions.motion import HumanMotion
from visviva.data.motions.text import present
from visviva.data.motions.trc import read_trc
from visviva.errors import InputError

SUFFIXES = (".bvh", ".trc", ".c3d", ".npy", ".npz")
KNOWN = "BVH, TRC, C3D, .npz (AMASS/SMPL parameters, or positions and fps) and .npy (joints, HumanML3D features)"


def read_motion(path: str | Path, reading: Reading | None = None) -> HumanMotion:
    """Read a motion file: BVH, TRC, C3D, AMASS/SMPL npz, HumanML3D joints or features, joints in npy or npz.

    Args:
        path: the file.
        reading: units, stature, up axis, handedness, frame rate where they are known better than the file says.

    Raises:
        InputError: the file is missing, damaged, of no known format, or holds no motion.

    Example::

        motion = read_motion("walk.bvh")
        motion.positions  # (T, J, 3) m, z up
    """
    with present(path).open("rb") as file:
        head = file.read(512)
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if head.startswith(b"\x93NUMPY"):
        return read_npy(path, reading)
    if head.startswith(b"PK\x03\x04"):
        return read_npz(path, reading)
    if start[:9].upper() == b"HIERARCHY":
        return read_bvh(path, reading)
    if start.startswith(b"PathFileType"):
        return read_trc(path, reading)
    if len(head) > 1 and head[1] == 0x50 and 1 < head[0] < 64:
        return read_c3d(path, reading)
    raise InputError(f"{path}: {_guess(head, start)}; known are {KNOWN}")


def _guess(head: bytes, start: bytes) -> str:
    if head[:1] == b"\x80":
        return "a pickle, which may run code and is not opened: convert it to .npz with numpy.savez"
    if b"endheader" in start:
        return "an OpenSim table of coordinates or forces, which is no motion without its model"
    if start.startswith(b"[Force Data]"):
        return "forces without a motion"
    return "of no known motion format"
