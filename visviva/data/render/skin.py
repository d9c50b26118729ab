"""People with the skin of a model of the SMPL family, moved by linear blend skinning (`smplx`)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.data.bodies.smpl import SMPLModel
from visviva.data.motions.amass import NAMES, OFFSETS, PARENTS
from visviva.data.motions.motion import HumanMotion, forward_kinematics
from visviva.data.render.figure import SKIN, Figure
from visviva.errors import InputError, optional
from visviva.physics.bodies.posing import locals_of, posed

AT_ONCE = 64
"""Frames that are skinned together."""


def skinned(
    model: SMPLModel,
    motion: HumanMotion,
    betas: Float[Tensor, " b"] | None = None,
    colour: tuple[float, float, float] = SKIN,
) -> Figure:
    """Return the mesh of a model that follows a motion, its pelvis at the motion's.

    Motions without rotations get those of `visviva.physics.bodies.posing.posed`: SMPL's, but for twist about single bones,
    which joints do not show. Fingers and face are at rest.

    Args:
        model: SMPL, SMPL-H or SMPL-X.
        motion: with SMPL's 24 joints or HumanML3D's 22.
        betas: shape; None: the mean.
        colour: sRGB.

    Raises:
        InputError: a motion of another skeleton, betas that the model refuses, or `smplx` is not installed (extra ``smpl``).

    Example::

        figure = skinned(read_smpl("SMPL_NEUTRAL.npz"), read_motion("walk_poses.npz"))
    """
    lbs = optional("smplx.lbs", "smpl").lbs
    turns = _turns(motion, len(model.parents)).to(model.template)
    shape = torch.zeros(1) if betas is None else betas
    model.mesh(shape)  # refuses betas that are none
    directions = model.directions[..., : len(shape)]
    correctives = torch.from_numpy(model.arrays["posedirs"]).to(model.template).flatten(0, 1).mT
    parents = torch.tensor(model.parents, device=model.template.device)
    pelvis, found = motion.positions[:, :1].to(model.template), []
    for t in range(0, len(motion), AT_ONCE):
        turn = turns[t : t + AT_ONCE]
        vertices, joints = lbs(
            shape.to(model.template).expand(len(turn), -1), turn, model.template, directions, correctives, model.regressor,
            parents, model.weights, pose2rot=False,
        )  # fmt: skip
        found.append(vertices + pelvis[t : t + AT_ONCE] - joints[:, :1])
    return Figure.mesh(torch.cat(found), model.faces, colour, model.kind)


def _turns(motion: HumanMotion, joints: int) -> Tensor:
    """Local rotations of the model's joints, (T, joints, 3, 3)."""
    count = len(motion.names)
    if tuple(motion.names) != NAMES[:count] or count not in (22, 24):
        raise InputError(
            f"{motion.source or 'the motion'} has {count} joints that are not SMPL's 24 or HumanML3D's 22, so no model of that "
            "family can follow it; draw its skeleton (leave out --body)"
        )
    if motion.rotations is None:
        still = torch.eye(3).expand(count, 3, 3)
        rest, _ = forward_kinematics(still, OFFSETS[:count], PARENTS[:count])
        turns = locals_of(PARENTS[:count], posed(PARENTS[:count], rest.to(motion.positions), motion.positions))
    else:
        turns = motion.rotations
    kept = min(22 if joints != 24 else 24, count)
    rest = torch.eye(3).to(turns).expand(len(turns), joints - kept, 3, 3)
    return torch.cat((turns[:, :kept], rest), 1)
