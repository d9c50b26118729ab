"""A motion at another frame rate."""

from __future__ import annotations

import numpy as np
import roma
import torch

from visviva.data.motions.motion import HumanMotion
from visviva.errors import InputError


def resampled(motion: HumanMotion, fps: float) -> HumanMotion:
    """Return the motion at ``fps`` frames per second over the same time, from its first frame on.

    Positions follow a cubic spline through the frames (fourth-order accurate between them), rotations the shortest arc,
    contacts and visibility the nearest frame; bones therefore keep their length but for the spline's error. A lower rate is not
    low-passed first: movements faster than half of it fold back. Force plates keep their own rate.

    Raises:
        InputError: a rate that is not positive, or a motion shorter than two frames of it.

    Example::

        features = to_features(resampled(read_motion("walk_poses.npz"), 20.0))
    """
    if not 0 < fps < float("inf"):
        raise InputError(f"a frame rate of {fps} is not positive; give frames per second")
    from scipy.interpolate import CubicSpline

    span = (len(motion) - 1) / motion.fps
    count = int(np.floor(span * fps + 1e-6)) + 1
    if count < 2:
        raise InputError(f"{motion.source or 'the motion'}: lasts {span:.3g} s, less than two frames at {fps:g} frames/s")
    at = np.minimum(np.arange(count) * motion.fps / fps, len(motion) - 1)
    spline = CubicSpline(np.arange(len(motion)), motion.positions.double().cpu().numpy())
    positions = torch.from_numpy(spline(at)).to(motion.positions)
    nearest = torch.from_numpy(at.round().astype(np.int64)).to(motion.positions.device)
    rotations = motion.rotations
    if rotations is not None:
        low = torch.from_numpy(np.minimum(at.astype(np.int64), len(motion) - 2)).to(rotations.device)
        share = torch.from_numpy(at).to(rotations) - low
        step = roma.rotmat_to_rotvec(rotations[low].mT @ rotations[low + 1])
        rotations = rotations[low] @ roma.rotvec_to_rotmat(step * share[:, None, None])
    picked = {name: getattr(motion, name) for name in ("visible", "contacts")}
    picked = {name: value if value is None else value[nearest] for name, value in picked.items()}
    return motion.noted(
        f"frame rate: {motion.fps:g} resampled to {fps:g}", positions=positions, rotations=rotations, fps=fps, **picked
    )
