"""A body of 22 joints as point masses, and derivatives of its motion by fits.

Each limb is a dumb-bell, two half masses at its centre of mass plus and minus its transverse radius of gyration along the bone
(de Leva 1996): mass, centre and transverse inertia are the table's, only spin about the long axis is left out. Trunk: from the
middle of the shoulders to that of the hips; the head and neck at the head joint, hands at the wrists.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from visviva.errors import InputError
from visviva.physics.bodies.deleva import segment

GRAVITY = 9.81
FEET = (7, 10, 8, 11)
"""Left ankle, left toe, right ankle, right toe."""
WINDOW = 0.25
"""Length of the fits [s]."""
LIMBS = (
    *(("upper_arm", a, b) for a, b in ((16, 18), (17, 19))),
    *(("forearm", a, b) for a, b in ((18, 20), (19, 21))),
    *(("thigh", a, b) for a, b in ((1, 4), (2, 5))),
    *(("shank", a, b) for a, b in ((4, 7), (5, 8))),
)


@cache
def _masses(sex: float = 0.5) -> tuple[list[float], list[list[float]]]:
    """Masses (sum 1) and the weights of the joints that place them."""
    mass, rows = [], []

    def put(share: float, places: Sequence[tuple[int, float]]) -> None:
        row = [0.0] * 22
        for joint, weight in places:
            row[joint] += weight
        mass.append(share)
        rows.append(row)

    def dumb_bell(name: str, first: Sequence[int], second: Sequence[int]) -> None:
        known = segment(name, sex)
        for way in (-1, 1):
            at = known.com + way * known.radii[1]
            ends = [(j, (1 - at) / len(first)) for j in first] + [(j, at / len(second)) for j in second]
            put(known.mass / 2, ends)

    for name, a, b in LIMBS:
        dumb_bell(name, (a,), (b,))
    dumb_bell("trunk_shoulder", (16, 17), (1, 2))
    put(segment("head_neck", sex).mass, [(15, 1.0)])
    for side in (0, 1):
        put(segment("hand", sex).mass, [((20, 21)[side], 1.0)])
        put(segment("foot", sex).mass, [((7, 8)[side], 0.5), ((10, 11)[side], 0.5)])
    total = sum(mass)
    return [m / total for m in mass], rows


def point_masses(joints: Float[Tensor, "*batch 22 3"]) -> tuple[Float[Tensor, "*batch S 3"], Float[Tensor, " S"]]:
    """Return the places of the body's point masses [m], and the masses as shares of the whole."""
    mass, rows = _masses()
    return joints.new_tensor(rows) @ joints, joints.new_tensor(mass)


def centre_of_mass(joints: Float[Tensor, "*batch 22 3"]) -> Float[Tensor, "*batch 3"]:
    """Return the centre of mass [m]."""
    places, mass = point_masses(joints)
    return (places * mass[:, None]).sum(-2)


def window_of(fps: float, seconds: float = WINDOW) -> int:
    """Return the odd number of frames of a fit, 5 at least."""
    return max(5, 2 * round(seconds * fps / 2) + 1)


def fitted(x: Float[Tensor, "B T *rest"], fps: float, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return value, velocity and acceleration of a parabola fitted to each window of ``length`` frames, at its middle frame.

    Shapes (B, T - length + 1, ...). Exact for parabolas; see the card, section 13, for why not differences.
    """
    if x.shape[1] < length:
        raise InputError(f"{x.shape[1]} frames; fits of {length} frames at {fps:g} frames/s need that many: give more")
    t = (torch.arange(length, dtype=torch.float64) - (length - 1) / 2) / fps
    basis = torch.stack((torch.ones_like(t), t, t * t), 1)
    rows = torch.linalg.pinv(basis).to(x)  # (3, length)
    seen = x.unfold(1, length, 1)  # (B, F, ..., length)
    value, velocity, half = (seen @ rows[k] for k in range(3))
    return value, velocity, 2 * half


def frames_there(lengths: Tensor, count: int, window: int = 1) -> Bool[Tensor, "B F"]:
    """Return the windows of ``window`` frames that lie before the end of each motion."""
    last = torch.arange(count - window + 1, device=lengths.device) + window - 1
    return last < lengths[:, None]


def held(joints: Float[Tensor, "B T J 3"], lengths: Tensor) -> Float[Tensor, "B T J 3"]:
    """Return the motions with their last frame in place of whatever is beyond their end: zeros there have no derivatives."""
    there = frames_there(lengths, joints.shape[1])[..., None, None]
    last = (lengths - 1).clamp(0, joints.shape[1] - 1)
    return torch.where(there, joints, joints[torch.arange(len(joints), device=joints.device), last][:, None])


def pace(points: Float[Tensor, "B T F 3"], fps: float, there: Bool[Tensor, "B T"] | None = None) -> Float[Tensor, "B T F"]:
    """Return each point's horizontal speed, the smaller of those to the frame before and after [m/s].

    Steps from or to frames that are not ``there`` do not count; a point without any has an infinite speed.
    """
    step = (points[..., :2].diff(dim=1).square().sum(-1) + 1e-12).sqrt() * fps
    if there is not None:
        step = step.masked_fill(~(there[:, 1:] & there[:, :-1])[..., None], torch.inf)
    return torch.minimum(torch.cat((step[:, :1], step), 1), torch.cat((step, step[:, -1:]), 1))


def at_rest(
    height: Float[Tensor, "B T 4"], floor: float = 0.0, there: Bool[Tensor, "B T"] | None = None
) -> Float[Tensor, "B 1 4"]:
    """Return the height at rest of each of `FEET` [m]: its 5 % quantile over the frames that are there.

    Where it is never that low, 3 cm (toe) and 10 cm (ankle) above the floor: a body that hovers is not at rest.
    """
    count = torch.full((len(height),), height.shape[1], device=height.device) if there is None else there.sum(1)
    low = height if there is None else height.masked_fill(~there[..., None], torch.inf)
    at = 0.05 * (count - 1).clamp(min=0)
    below, above = (k.long()[:, None, None].expand(-1, 1, len(FEET)) for k in (at.floor(), at.ceil()))
    ordered, share = low.sort(dim=1).values, (at - at.floor())[:, None, None].to(height)
    own = ordered.gather(1, below).lerp(ordered.gather(1, above), share)
    return torch.minimum(own, floor + own.new_tensor([0.10, 0.03, 0.10, 0.03]))


def standing(
    joints: Float[Tensor, "B T 22 3"],
    fps: float,
    floor: float = 0.0,
    speed: float = 0.6,
    there: Bool[Tensor, "B T"] | None = None,
) -> Bool[Tensor, "B T 4"]:
    """Return which of `FEET` stand: within 6 cm of their height `at_rest`, and slower than ``speed`` [m/s].

    Frames that are not ``there`` (None: all are) say nothing of the others, and nobody stands in them. Not differentiable.
    """
    feet = joints.detach()[:, :, FEET]
    low = feet[..., 2] < at_rest(feet[..., 2], floor, there) + 0.06
    return low & (pace(feet, fps, there) < speed)


def flying(
    joints: Float[Tensor, "B T 22 3"],
    floor: float = 0.0,
    height: float = 0.06,
    least: int = 3,
    there: Bool[Tensor, "B T"] | None = None,
) -> Bool[Tensor, "B T"]:
    """Return the frames in which every foot joint is ``height`` above its height `at_rest`, ``least`` or more in a row.

    Frames that are not ``there`` (None: all are) say nothing of the others, and nobody flies in them. Not differentiable.
    Whether that is a flight or a hovering is for `FlightGravity`.
    """
    feet = joints.detach()[:, :, FEET, 2]
    up = (feet > at_rest(feet, floor, there) + height).all(-1)
    up = (up if there is None else up & there).float()[:, None]
    if least <= 1:
        return up[:, 0] > 0
    eroded = -torch.nn.functional.max_pool1d(-up, least, 1)  # windows that are up throughout
    grown = torch.nn.functional.max_pool1d(torch.nn.functional.pad(eroded, (least - 1, least - 1)), least, 1)
    return grown[:, 0] > 0
