"""Joints as a body with bones of fixed length: SMPL rotations and root, and the joints that these give."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import roma
import torch
from jaxtyping import Float
from torch import Tensor

from visviva.data.files import whole
from visviva.data.motions.humanml3d import NAMES, PARENTS
from visviva.data.motions.motion import HumanMotion, forward_kinematics
from visviva.errors import InputError
from visviva.eval.motion.dynamics import mean_rest
from visviva.physics.bodies.posing import locals_of, posed


def rigid(joints: Float[Tensor, "T 22 3"], fps: float, source: str = "") -> tuple[HumanMotion, float]:
    """Return the motion of a body with bones of fixed length that follows joints, and how far it is off at most [m].

    Rest offsets have the directions of SMPL's mean shape and the joints' median lengths; rotations are those of
    `visviva.physics.bodies.posing.posed`: SMPL's, but for twist about single bones, which joints do not show.
    """
    mean = mean_rest("smpl")[:22].to(joints)
    world = posed(PARENTS, mean, joints)
    rotations = locals_of(PARENTS, world)
    parents = list(PARENTS[1:])
    offsets = mean[1:] - mean[parents]
    length = (joints[:, 1:] - joints[:, parents]).norm(dim=-1).median(0).values
    rest = torch.cat((torch.zeros_like(mean[:1]), offsets / offsets.norm(dim=-1, keepdim=True) * length[:, None]))
    places = rest.expand(len(joints), -1, -1).clone()
    places[:, 0] = joints[:, 0]
    found, _ = forward_kinematics(rotations, places, PARENTS)
    motion = HumanMotion(found, NAMES, PARENTS, fps, rotations=rotations, rest=rest, floor=0.0, source=source)
    return motion, float((found - joints).norm(dim=-1).max())


def write_smpl(path: str | Path, motion: HumanMotion) -> Path:
    """Write SMPL parameters as AMASS has them: ``poses`` (T, 72) axis-angle, ``trans`` (T, 3), the pelvis's place, ``betas`` 0.

    The body model's own pelvis is some centimetres off ``trans`` by its shape; hands are flat.
    """
    if motion.rotations is None:
        raise InputError(f"{motion.source or 'the motion'}: has no rotations, so no SMPL parameters; see `rigid`")
    vectors = roma.rotmat_to_rotvec(motion.rotations.double()).flatten(1)
    poses = torch.cat((vectors, vectors.new_zeros(len(vectors), 6)), 1)
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        poses=poses.float().numpy(),
        trans=motion.positions[:, 0].float().numpy(),
        betas=np.zeros(10, np.float32),
        gender="neutral",
        mocap_framerate=motion.fps,
    )
    path = Path(path)
    with whole(path) as part:
        part.write_bytes(buffer.getvalue())
    return path
