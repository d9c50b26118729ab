"""Human3.6M's 17 joints, in which poses are lifted and re-estimated, from the joints of other skeletons and detectors."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError
from visviva.physics.bodies import SKELETONS

NAMES, PARENTS = SKELETONS["h36m"].names, SKELETONS["h36m"].parents
MIRROR = (0, 4, 5, 6, 1, 2, 3, 7, 8, 9, 10, 14, 15, 16, 11, 12, 13)
"""The joint on the other side of each."""
LIMBS = {  # right hip, knee, ankle, left hip, knee, ankle; left shoulder, elbow, wrist, right shoulder, elbow, wrist; head
    "humanml3d": ((2, 5, 8, 1, 4, 7), (16, 18, 20, 17, 19, 21), (15,)),
    "smpl": ((2, 5, 8, 1, 4, 7), (16, 18, 20, 17, 19, 21), (15,)),
    "coco": ((12, 14, 16, 11, 13, 15), (5, 7, 9, 6, 8, 10), (0, 1, 2, 3, 4)),
}
COUNTS = {"h36m": 17, "humanml3d": 22, "smpl": 24, "coco": 17}
"""Joints of each layout."""
TOP = 0.4
"""How much further above the shoulders than the middle of COCO's face the top of the head is, a share."""


def h36m(points: Float[Tensor, "*batch J C"], layout: str) -> Float[Tensor, "*batch 17 C"]:
    """Return Human3.6M's joints of points in another layout, 2D or 3D.

    The hip is the middle of the hips, the thorax that of the shoulders, the spine between them, the neck 0.4 of the way from
    thorax to head, as `visviva.eval.motion.dynamics.skeleton` has it.

    Args:
        points: of `COUNTS` joints.
        layout: h36m, humanml3d, smpl, or coco (ViTPose and most detectors).

    Raises:
        InputError: an unknown layout, or another number of joints.

    Example::

        h36m(keypoints, "coco")  # (T, 17, 2)
    """
    if layout not in COUNTS or points.shape[-2] != COUNTS[layout]:
        known = ", ".join(f"{count} ({name})" for name, count in COUNTS.items())
        raise InputError(f"{points.shape[-2]} joints in the layout {layout!r}; known are {known}")
    if layout == "h36m":
        return points
    legs, arms, face = (points[..., list(which), :] for which in LIMBS[layout])
    hips, chest = legs[..., [0, 3], :].mean(-2), arms[..., [0, 3], :].mean(-2)
    head = face.mean(-2)
    head = head + TOP * (head - chest) if layout == "coco" else head
    middle = torch.stack([(hips + chest) / 2, chest, torch.lerp(chest, head, 0.4), head], -2)
    return torch.cat([hips[..., None, :], legs, middle, arms], -2)
