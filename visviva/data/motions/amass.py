"""AMASS and SMPL parameter files (.npz): rotations and translation to joints, of the mean skeleton without a body model.

Poses are axis-angle vectors, joint after joint: SMPL 24 x 3, SMPL-H 52 x 3 (AMASS) and SMPL-X 55 x 3; the first 22 joints are
the same body in all of them. Without a licensed body model the shape cannot be computed: the joints are those of the mean shape
(offsets as published in the BSD-licensed MJCF humanoid of PHC), the pelvis is put at ``trans``, and notes say both. Heights are
then off by a constant, so the floor is not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import roma
import torch
from numpy.typing import NDArray
from torch import Tensor

from visviva.data.motions.axes import Reading, overruled, rate_of
from visviva.data.motions.humanml3d import NAMES as BODY
from visviva.data.motions.motion import HumanMotion, forward_kinematics
from visviva.data.motions.world import to_world
from visviva.errors import InputError

NAMES = (*BODY, "left_hand", "right_hand")
PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
OFFSETS = torch.tensor(
    [
        [0.0, 0.0, 0.0],
        [0.0695, -0.0914, -0.0068],
        [-0.0677, -0.0905, -0.0043],
        [-0.0025, 0.1090, -0.0267],
        [0.0343, -0.3752, -0.0045],
        [-0.0383, -0.3826, -0.0089],
        [0.0055, 0.1352, 0.0011],
        [-0.0136, -0.3980, -0.0437],
        [0.0158, -0.3984, -0.0423],
        [0.0015, 0.0529, 0.0254],
        [0.0264, -0.0558, 0.1193],
        [-0.0254, -0.0481, 0.1233],
        [-0.0028, 0.2139, -0.0429],
        [0.0788, 0.1217, -0.0341],
        [-0.0818, 0.1188, -0.0386],
        [0.0052, 0.0650, 0.0513],
        [0.0910, 0.0305, -0.0089],
        [-0.0960, 0.0326, -0.0091],
        [0.2596, -0.0128, -0.0275],
        [-0.2537, -0.0133, -0.0214],
        [0.2492, 0.0090, -0.0012],
        [-0.2553, 0.0078, -0.0056],
        [0.0840, -0.0082, -0.0149],
        [-0.0846, -0.0061, -0.0103],
    ]
)
"""Mean-shape offsets to the parent, x left, y up, z forward [m]."""
LONGEST = 7.0
"""Rotation vectors of more, a turn and a tenth, are counted [rad]; those of motion files are mostly of half a turn."""
WOUND = 0.1
"""Share of them, over frames and the body's 22 joints, above which poses are not in radians; a root that winds is 1 in 22."""
WIDTHS = {66: "22 joints", 72: "SMPL", 156: "SMPL-H", 165: "SMPL-X"}


def is_amass(keys: set[str]) -> bool:
    """Return whether the arrays of a file are SMPL parameters."""
    return "poses" in keys or {"root_orient", "pose_body"} <= keys


def from_amass(stored: Mapping[str, Any], source: str = "", reading: Reading | None = None) -> HumanMotion:
    """Return the motion of SMPL parameters: 24 joints with local rotations.

    Args:
        stored: ``poses`` (T, 72, 156 or 165) or ``root_orient`` (T, 3) and ``pose_body`` (T, 63), ``trans`` (T, 3) and
            ``mocap_framerate`` (or ``mocap_frame_rate``, ``fps``).

    Raises:
        InputError: arrays missing or of another width, no frame rate, values that are not finite.

    Example::

        with np.load("walk_poses.npz", allow_pickle=False) as file:
            motion = from_amass({key: file[key] for key in file.files}, "walk_poses.npz")
    """
    reading, poses = reading or Reading(), _poses(stored, source)
    trans = np.asarray(stored["trans"], dtype=np.float32) if "trans" in stored else np.zeros((len(poses), 3), np.float32)
    if trans.shape != (len(poses), 3):
        raise InputError(f"{source}: trans has the shape {trans.shape}, poses have {len(poses)} frames; (frames, 3) is wanted")
    own = rate_of(stored, ("mocap_framerate", "mocap_frame_rate", "fps"))
    fps = reading.fps or own
    if fps is None:
        raise InputError(f"{source}: holds no mocap_framerate; give the frame rate (--fps)")
    rotations = _rotations(torch.from_numpy(poses))
    offsets = OFFSETS.expand(len(poses), -1, -1).clone()
    offsets[:, 0] = torch.from_numpy(trans)
    positions, _ = forward_kinematics(rotations, offsets, PARENTS)
    notes = [*overruled(reading, own), "joints: of the mean shape, pelvis at trans (no body model)"]
    notes += ["shape: betas are not used"] if np.any(np.asarray(stored.get("betas", 0.0))) else []
    given = replace(reading, hand=reading.hand or "right")  # the mean body has its left on the left
    given = given if given.units or given.stature else replace(given, units="m")
    return to_world(
        positions, NAMES, PARENTS, fps, source, reading=given, usual_up="z", rotations=rotations,
        rest=OFFSETS.clone(), notes=notes,
    )  # fmt: skip


def _poses(stored: Mapping[str, Any], source: str) -> NDArray[np.float32]:
    if "poses" in stored:
        poses = np.asarray(stored["poses"], dtype=np.float32)
    else:
        poses = np.concatenate([np.asarray(stored[k], dtype=np.float32) for k in ("root_orient", "pose_body")], axis=-1)
    poses = poses.reshape(len(poses), -1) if poses.ndim == 3 else poses
    if poses.ndim != 2 or poses.shape[1] not in WIDTHS:
        known = ", ".join(f"{width} ({name})" for width, name in WIDTHS.items())
        raise InputError(f"{source}: poses have the shape {poses.shape}; (frames, n) with n of {known} is wanted")
    if not np.isfinite(poses).all():
        raise InputError(f"{source}: poses are not finite in frame {int(np.argwhere(~np.isfinite(poses))[0, 0])}; cut it")
    _radians(poses, source)
    return poses


def _radians(poses: NDArray[np.float32], source: str) -> None:
    """Refuse rotation vectors of the body that are far longer than a turn: a joint may wind, a tenth of them does not."""
    turns = np.linalg.norm(poses[:, :66].reshape(len(poses), 22, 3), axis=-1)
    long = float((turns > LONGEST).mean()) if turns.size else 0.0
    if long > WOUND:
        raise InputError(
            f"{source}: {100 * long:.0f} % of the poses' rotation vectors are longer than a turn ({LONGEST:g} rad), up to "
            f"{float(turns.max()):.4g}; they look like degrees: write radians (numpy.deg2rad(poses))"
        )


def _rotations(poses: Tensor) -> Tensor:
    """Return local rotations of the 24 joints; hands of bodies with fingers follow the wrists."""
    count = 24 if poses.shape[1] == 72 else 22
    turns = roma.rotvec_to_rotmat(poses[:, : 3 * count].unflatten(1, (count, 3)))
    still = torch.eye(3).expand(len(poses), 24 - count, 3, 3)
    return torch.cat((turns, still), 1)
