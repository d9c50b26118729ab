"""A projection of motions onto what a floor and gravity allow: standing feet stay, no foot sinks, bodies in the air fall.

PhysDiff (arXiv 2212.02500) projects with a policy in a simulator; this is kinematic and knows no torques. In this order:

1. flight: in frames in which no foot is near the floor the whole body is moved up or down so that its centre of mass is on the
   parabola of gravity through the frames before and after;
2. foot lock: each foot joint that stands keeps its mean place of that time; between two stances a foot is moved by a straight
   blend of what the two need, so that nothing jumps;
3. floor: a foot that sinks is lifted out;
4. legs: two-bone inverse kinematics puts the ankles where 2 and 3 want them, with bones of the same length and the knee in its
   plane; a place out of reach is approached.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from visviva.physics.motion_laws.body import GRAVITY, centre_of_mass, flying, frames_there, standing

LEGS = ((1, 4, 7, 10), (2, 5, 8, 11))
"""Hip, knee, ankle and toe of each leg."""
SLOW = 0.35
"""Speed below which a low foot joint is taken to stand [m/s]; a faster one is rolling off or landing."""


def settled(joints: Float[Tensor, "B T 22 3"], fps: float, lengths: Tensor, floor: float = 0.0) -> Float[Tensor, "B T 22 3"]:
    """Return the projected motions; those that already obey are unchanged but for rounding.

    Example::

        settled(joints, 20.0, torch.tensor([60]))
    """
    there = frames_there(lengths, joints.shape[1])
    joints = fallen(joints, fps, there, floor)
    stands = standing(joints, fps, floor, SLOW, there)
    moved = joints.clone()
    for leg, (first, last) in zip(LEGS, ((0, 2), (2, 4)), strict=True):
        feet = joints[:, :, leg[2:]]
        shift = locked(feet[..., :2], stands[:, :, first:last])
        depth = torch.relu(floor - feet[..., 2].amin(-1, keepdim=True))
        moved[:, :, leg] = stepped(joints[:, :, leg], torch.cat((shift, depth), -1))
    return torch.where(there[..., None, None], moved, joints)


def fallen(
    joints: Float[Tensor, "B T 22 3"], fps: float, there: Bool[Tensor, "B T"], floor: float = 0.0
) -> Float[Tensor, "B T 22 3"]:
    """Return the motions with every flight on the parabola of gravity through its ends; flights without both ends stay."""
    air = flying(joints, floor, there=there)
    frames = torch.arange(joints.shape[1], device=joints.device).expand_as(air)
    start, stop = _neighbours(~air & there)
    known = air & (start >= 0) & (stop < joints.shape[1])
    height = centre_of_mass(joints)[..., 2]
    first, last = (height.gather(1, k.clamp(0, joints.shape[1] - 1)) for k in (start, stop))
    since, whole = (frames - start) / fps, (stop - start).clamp(min=1) / fps
    wanted = first + (last - first) * since / whole + GRAVITY / 2 * since * (whole - since)
    lift = torch.where(known, wanted - height, 0.0)
    return torch.cat((joints[..., :2], joints[..., 2:] + lift[..., None, None]), -1)


def locked(feet: Float[Tensor, "B T 2 2"], stands: Bool[Tensor, "B T 2"]) -> Float[Tensor, "B T 2"]:
    """Return the horizontal shift of a foot (ankle, toe) that holds each joint where it stands, blended in between."""
    offset = torch.stack([_held(feet[:, :, k], stands[:, :, k]) for k in (0, 1)], 2)
    weight = stands.to(feet)[..., None]
    mean = (offset * weight).sum(2) / weight.sum(2).clamp(min=1)
    return _between(mean, stands.any(-1))


def _held(place: Float[Tensor, "B T 2"], stands: Bool[Tensor, "B T"]) -> Float[Tensor, "B T 2"]:
    """Shift to the mean place of the stance that each frame belongs to; 0 elsewhere."""
    begins = stands & ~torch.nn.functional.pad(stands[:, :-1], (1, 0))
    number = torch.where(stands, begins.long().cumsum(1), 0)
    total = place.new_zeros(len(place), place.shape[1] + 1, 3)
    total = total.scatter_add(1, number[..., None].expand(-1, -1, 3), torch.cat((place, torch.ones_like(place[..., :1])), -1))
    mean = (total[..., :2] / total[..., 2:].clamp(min=1)).gather(1, number[..., None].expand(-1, -1, 2))
    return torch.where(stands[..., None], mean - place, 0.0)


def _neighbours(known: Bool[Tensor, "B T"]) -> tuple[Tensor, Tensor]:
    """Index of the last known frame up to each frame (-1: none) and of the first from it on (T: none)."""
    frames = torch.arange(known.shape[1], device=known.device).expand_as(known)
    last = torch.where(known, frames, -1).cummax(1).values
    later = torch.where(known, frames, known.shape[1]).flip(1).cummin(1).values.flip(1)
    return last, later


def _between(value: Float[Tensor, "B T C"], known: Bool[Tensor, "B T"]) -> Float[Tensor, "B T C"]:
    """Fill in unknown frames by the straight line between the known ones; held at the ends, 0 where nothing is known."""
    last, later = _neighbours(known)
    before, after = torch.where(last < 0, later, last), torch.where(later >= known.shape[1], last, later)
    span = (after - before).clamp(min=1)
    frames = torch.arange(known.shape[1], device=known.device)
    share = ((frames - before) / span).clamp(0, 1)[..., None].to(value)

    def at(index: Tensor) -> Tensor:
        return value.gather(1, index.clamp(0, known.shape[1] - 1)[..., None].expand_as(value))

    found = at(before) * (1 - share) + at(after) * share
    return torch.where(known.any(1)[:, None, None], found, 0.0)


def stepped(leg: Float[Tensor, "*batch 4 3"], shift: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 4 3"]:
    """Return hip, knee, ankle and toe with ankle and toe shifted, bones of the same length, the knee in its plane.

    What the leg cannot reach is approached along the line from the hip.
    """
    hip, knee, ankle, toe = leg.unbind(-2)
    upper, lower = (knee - hip).norm(dim=-1, keepdim=True), (ankle - knee).norm(dim=-1, keepdim=True)
    line = ankle + shift - hip
    far = line.norm(dim=-1, keepdim=True).clamp(min=1e-6)
    reach = torch.minimum(far, torch.maximum((upper + lower) * 0.9999, (ankle - hip).norm(dim=-1, keepdim=True)))
    along = line / far
    bend = knee - hip
    bend = bend - (bend * along).sum(-1, keepdim=True) * along
    front = toe - ankle  # where the knee of a straight leg goes
    front = front - (front * along).sum(-1, keepdim=True) * along
    pole = bend + 1e-4 * front
    pole = pole / pole.norm(dim=-1, keepdim=True).clamp(min=1e-9)
    down = (upper.square() - lower.square() + reach.square()) / (2 * reach)
    out = (upper.square() - down.square()).clamp(min=0).sqrt()
    still = shift.abs().amax(-1, keepdim=True) < 1e-9
    new_ankle = torch.where(still, ankle, hip + reach * along)
    new_knee = torch.where(still, knee, hip + down * along + out * pole)
    return torch.stack((hip, new_knee, new_ankle, toe + new_ankle - ankle), -2)
