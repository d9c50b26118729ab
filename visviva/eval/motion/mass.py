"""The centre of mass from joints alone: de Leva's (1996) segments between named joints, mean of both sexes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.data.motions.anatomy import parts, split
from visviva.physics.kinematics import projection

LIMBS = (  # from, to, share of mass, place of the centre of mass from the first joint
    ("shoulder", "elbow", 0.0263, 0.576),
    ("elbow", "wrist", 0.0150, 0.457),
    ("wrist", "wrist", 0.00585, 0.0),
    ("hip", "knee", 0.1447, 0.385),
    ("knee", "ankle", 0.0457, 0.437),
    ("ankle", "toe", 0.0133, 0.421),
)
TRUNK, TRUNK_CENTRE, HEAD = 0.43015, 0.4046, 0.0681
"""Shares of the trunk (mid-shoulder to mid-hip) and of the head; the trunk's centre from the shoulders."""


def centre_of_mass(positions: Float[Tensor, "*batch T J 3"], names: Sequence[str]) -> Float[Tensor, "*batch T 3"] | None:
    """Return the centre of mass [m], or None where hips, knees, ankles, shoulders, elbows or wrists are not all named.

    The head is a point at the head joint (or the neck, or the shoulders' middle); a hand is at the wrist, a foot without a
    toe at the ankle. These choices move the centre by centimetres, its acceleration by little. For dynamics build a body.
    """
    found = parts(names)
    wanted = [f"{side}_{part}" for side in ("left", "right") for part in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")]
    if any(name not in found for name in wanted):
        return None

    def at(side: str, part: str) -> Tensor:
        joint = found.get(f"{side}_{part}", found[f"{side}_ankle"] if part == "toe" else -1)
        return positions[..., joint, :]

    shoulders, hips = (0.5 * (at("left", part) + at("right", part)) for part in ("shoulder", "hip"))
    top = next((positions[..., found[name], :] for name in ("head", "neck") if name in found), shoulders)
    total = TRUNK * torch.lerp(shoulders, hips, TRUNK_CENTRE) + HEAD * top
    for side in ("left", "right"):
        for first, second, share, place in LIMBS:
            total = total + share * torch.lerp(at(side, first), at(side, second), place)
    return total / (TRUNK + HEAD + 2 * sum(share for _, _, share, _ in LIMBS))


def centre_over_pelvis(positions: Float[Tensor, "*batch T J 3"], names: Sequence[str]) -> Float[Tensor, "*batch T 3"] | None:
    """Return a centre of mass [m] from pelvis and legs alone, the rest of the body carried by the pelvis rigidly.

    Its place is that of the pelvis with the legs' share, not the body's: take its acceleration, not its height. The pelvis is
    the mean of the iliac spines' markers, or of the hips. None where hips, knees and ankles are not all named.
    """
    found = parts(names)
    if any(f"{side}_{part}" not in found for side in ("left", "right") for part in ("hip", "knee", "ankle")):
        return None
    spines = [index for index, name in enumerate(names) if split(name)[1] in ("asis", "psis")]
    pelvis = positions[..., spines or [found["left_hip"], found["right_hip"]], :].mean(-2)
    total, left = torch.zeros_like(pelvis), 1.0
    for side in ("left", "right"):
        for first, second, share, place in LIMBS[3:]:
            start, end = (
                found[f"{side}_{part}"] if f"{side}_{part}" in found else found[f"{side}_ankle"] for part in (first, second)
            )
            total = total + share * torch.lerp(positions[..., start, :], positions[..., end, :], place)
            left -= share
    return total + left * pelvis


def vertical_reaction(centre: Float[Tensor, "*batch T 3"], fps: float, window: float = 0.2) -> Float[Tensor, "*batch M"]:
    """Return the vertical ground reaction [body weights] of a centre of mass: ``1 + z'' / g``, parabolas over ``window`` [s].

    The M values are of the frames that have a whole window.
    """
    length = max(3, 2 * round(window * fps / 2) + 1)
    weights = torch.as_tensor(projection(length, 2)[0][2], dtype=centre.dtype, device=centre.device)
    return 1 + fps**2 * (centre[..., 2].unfold(-1, length, 1) @ weights) / 9.81
