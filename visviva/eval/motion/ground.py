"""Feet and ground: penetration, floating, skating, Phys-Err, skating ratio, PFC. Batched, z up, metres in.

Definitions as coded where code is public (card: motion, section 10.4; evaluation, C3): UHC/SMPLSim for `penetration` and
`skate`, GMD/OmniControl for `skating_ratio`, EDGE (arXiv 2211.10658) for `pfc`. PhysDiff (arXiv 2212.02500) published no code:
`penetrate`, `float_height` and their sum are reconstructed from its text. Points are vertices of a mesh or, where there is no
mesh, joints.

A clip that does not move, or holds nothing in contact, has no skating: read `skate`, `sliding` and `skating_ratio` beside the
time in contact and the speed, as `visviva.eval.motion.measure` does.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from visviva.errors import InputError

MM = 1000.0
TOLERANCE = 0.005
"""What PhysDiff forgives below and above the floor [m]."""


def floor_height(points: Float[Tensor, "*batch T N 3"], share: float = 0.05) -> Float[Tensor, "*batch"]:
    """Return the height of the floor [m], estimated: the lowest point's height over time, its ``share`` quantile.

    Never the minimum, which one bad frame sets. A body that floats all the time has its floor under its feet: floating
    cannot be measured without knowing the floor.
    """
    return points[..., 2].amin(-1).quantile(share, dim=-1)


def penetrate(points: Float[Tensor, "*batch T N 3"], floor: Tensor | float = 0.0) -> Float[Tensor, "*batch"]:
    """Return the depth of the lowest point below the floor where it is more than 5 mm, mean over frames [mm]."""
    depth = _above(floor, points) - points[..., 2].amin(-1)
    return torch.where(depth > TOLERANCE, depth, 0.0).mean(-1) * MM


def float_height(
    points: Float[Tensor, "*batch T N 3"], floor: Tensor | float = 0.0, airborne: Bool[Tensor, "*batch T"] | None = None
) -> Float[Tensor, "*batch"]:
    """Return the height of the lowest point above the floor where it is more than 5 mm, mean over frames [mm].

    Args:
        airborne: frames of true flight (`visviva.eval.motion.contact.airborne`), which are left out: PhysDiff's number counts
            jumps as floating. With no other frame the result is NaN.
    """
    height = points[..., 2].amin(-1) - _above(floor, points)
    found = torch.where(height > TOLERANCE, height, 0.0)
    if airborne is None:
        return found.mean(-1) * MM
    return (found * ~airborne).sum(-1) / (~airborne).sum(-1) * MM


def penetration(points: Float[Tensor, "*batch T N 3"], floor: Tensor | float = 0.0) -> Float[Tensor, "*batch"]:
    """Return the mean depth of all points below the floor (0 without one), mean over frames [mm]; SMPLSim's.

    It can fall when more points sink, for the mean is over those that do: read `penetrate` too.
    """
    depth = _above(floor, points)[..., None] - points[..., 2]
    below = depth > 0
    return ((depth * below).sum(-1) / below.sum(-1).clamp(min=1)).mean(-1) * MM


def skate(points: Float[Tensor, "*batch T N 3"], floor: Tensor | float = 0.0, height: float = 0.0) -> Float[Tensor, "*batch"]:
    """Return the mean horizontal displacement of points at most ``height`` above the floor in two frames, per step [mm].

    Mean over steps; SMPLSim's with the default height; steps without such a point count 0.
    """
    low = points[..., 2] <= _above(floor, points)[..., None] + height
    both = low[..., 1:, :] & low[..., :-1, :]
    moved = points[..., :2].diff(dim=-3).norm(dim=-1)
    return ((moved * both).sum(-1) / both.sum(-1).clamp(min=1)).mean(-1) * MM


def phys_err(points: Float[Tensor, "*batch T N 3"], floor: Tensor | float = 0.0) -> Float[Tensor, "*batch"]:
    """Return Penetrate + Float + Skate [mm], skating points being within 5 mm of the floor (PhysDiff, reconstructed)."""
    return penetrate(points, floor) + float_height(points, floor) + skate(points, floor, TOLERANCE)


def sliding(
    feet: Float[Tensor, "*batch T F 3"], fps: float, floor: Tensor | float = 0.0, height: float = 0.05
) -> Float[Tensor, "*batch"]:
    """Return the mean horizontal speed of feet lower than ``height`` above the floor in two frames [m/s]; NaN without one."""
    low = feet[..., 2] < _above(floor, feet)[..., None] + height
    both = low[..., 1:, :] & low[..., :-1, :]
    speed = feet[..., :2].diff(dim=-3).norm(dim=-1) * fps
    return (speed * both).sum((-2, -1)) / both.sum((-2, -1))


def support_speed(
    feet: Float[Tensor, "*batch T F 3"], fps: float, airborne: Bool[Tensor, "*batch T"] | None = None
) -> Float[Tensor, "*batch"]:
    """Return the horizontal speed of the slowest foot joint, mean over steps outside of flight [m/s]; NaN with none.

    Who is not in the air stands on something that does not move: some joint of a foot should be at rest. Unlike heights this
    needs no floor, and a foot that swings close to the ground does not count. Recorded walks have 0.03 m/s. One foot
    that stands hides the other that slides: read `sliding` too.

    Args:
        airborne: frames of flight (`visviva.eval.motion.contact.airborne`), which are left out.
    """
    speed = feet[..., :2].diff(dim=-3).norm(dim=-1).amin(-1) * fps
    if airborne is None:
        return speed.mean(-1)
    grounded = ~(airborne[..., 1:] | airborne[..., :-1])
    return (speed * grounded).sum(-1) / grounded.sum(-1)


def skating_ratio(
    feet: Float[Tensor, "*batch T F 3"],
    fps: float = 20.0,
    floor: Tensor | float = 0.0,
    *,
    height: float = 0.05,
    speed: float = 0.5,
) -> Float[Tensor, "*batch"]:
    """Return the share of frames in which a foot skates (GMD, OmniControl: toe joints 10 and 11, 20 frames/s).

    A foot skates where it is lower than ``height`` [m] in two frames and its horizontal speed, and its 5-frame moving average
    (zeros beyond the ends), are above ``speed`` [m/s].
    """
    low = feet[..., 2] < _above(floor, feet)[..., None] + height
    both = low[..., 1:, :] & low[..., :-1, :]
    pace = feet[..., :2].diff(dim=-3).norm(dim=-1) * fps
    padded = torch.nn.functional.pad(pace, (0, 0, 2, 2))
    mean = padded.unfold(-2, 5, 1).mean(-1)
    return (both & (pace > speed) & (mean > speed)).any(-1).to(feet.dtype).mean(-1)


def pfc(root: Float[Tensor, "*batch T 3"], feet: Float[Tensor, "*batch T 4 3"], fps: float = 30.0) -> Float[Tensor, "*batch"]:
    """Return EDGE's physical foot contact score: mean of ``a_t / max a  min(left ankle, toe) min(right ankle, toe) x 10^4``.

    ``a_t`` is the root's acceleration with its upward part clamped at 0 or more, the feet's factors are horizontal
    displacements per frame [m], so the value changes with the frame rate. NaN where the root does not accelerate: it is divided
    by the maximum.

    Args:
        feet: left ankle, left toe, right ankle, right toe.

    Raises:
        InputError: fewer than 3 frames.
    """
    if root.shape[-2] < 3:
        raise InputError(f"PFC needs accelerations: 3 frames or more, not {root.shape[-2]}")
    change = root.diff(dim=-2) * fps
    acceleration = change.diff(dim=-2) * fps
    up = acceleration[..., 2:].clamp(min=0)
    size = torch.cat((acceleration[..., :2], up), -1).norm(dim=-1)
    share = size / size.amax(-1, keepdim=True)
    moved = feet[..., 1:, :, :2].diff(dim=-3).norm(dim=-1)
    still = moved[..., :2].amin(-1) * moved[..., 2:].amin(-1)
    return (share * still).mean(-1) * 1e4


def _above(floor: Tensor | float, points: Tensor) -> Tensor:
    """Return the floor's height with a dimension for frames, (*batch, 1)."""
    return torch.as_tensor(floor, dtype=points.dtype, device=points.device).expand(points.shape[:-3])[..., None]
