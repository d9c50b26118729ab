"""A plan: what a controller wants of the body over time, before dynamics have their say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float
from torch import Tensor

GRAVITY = 9.81


@dataclass
class Plan:
    """Wishes for B clips at T times: lengths in metres of a figure of 1.70 m, angles in radians; index 0 is left, 1 right.

    Attributes:
        times: (T,) [s]; what is before 0 and after the clip's end is cut off later.
        size: stature over 1.70 m, (B,).
        ballistic: whether ``height`` is that of the centre of mass, (B,); else it is the pelvis's.
        pelvis: wanted place on the floor, (B, T, 2); dynamics move it.
        height: above that of standing, (B, T).
        yaw, pitch, roll: of the pelvis: to the left, forward, to the right, (B, T).
        spine, neck: flexion, lean to the right, twist to the left, (B, T, 3).
        place: of the floor below each ankle, (B, T, 2, 2); ``lift``: of the foot, ``turn``: its yaw, ``point``: its pitch, toes
            down positive; ``heel``: 1 where it turns about its heel, 0 about its toe joint, (B, T, 2).
        load: share of the weight that each foot should carry, (B, T, 2).
        splay: yaw of the knees outward, (B, T, 2).
        arms: swing forward, lift to the side, twist, bend of the elbow, (B, T, 2, 4).
    """

    times: Tensor
    size: Tensor
    ballistic: Tensor
    pelvis: Tensor
    height: Tensor
    yaw: Tensor
    pitch: Tensor
    roll: Tensor
    spine: Tensor
    neck: Tensor
    place: Tensor
    lift: Tensor
    turn: Tensor
    point: Tensor
    heel: Tensor
    load: Tensor
    splay: Tensor
    arms: Tensor

    @property
    def gravity(self) -> Float[Tensor, "B 1"]:
        """Gravity for a figure of 1.70 m whose lengths are scaled to the clip's stature [m/s^2]."""
        return GRAVITY / self.size[:, None]


def standing(
    times: Float[Tensor, " T"],
    size: Float[Tensor, " B"],
    width: Float[Tensor, " B"] | float = 0.2,
    ahead: Float[Tensor, " B"] | float = 0.0,
    ballistic: bool = False,
) -> Plan:
    """Return the plan of standing at the origin, facing +x, the feet ``width`` apart and the left one ``ahead``."""
    shape = (len(size), len(times))
    width, ahead = (torch.as_tensor(x).to(size).expand_as(size) for x in (width, ahead))
    left = torch.stack([ahead / 2, width / 2], -1)
    place = torch.stack([left, -left], 1)[:, None].repeat(1, len(times), 1, 1)
    arms = size.new_tensor([0.05, 0.18, 0.0, 0.3]).expand(*shape, 2, 4).clone()
    turn = size.new_tensor([0.12, -0.12]).expand(*shape, 2).clone()

    def zero(*more: int) -> Tensor:
        return size.new_zeros(*shape, *more)

    flying: Bool[Tensor, " B"] = torch.full(size.shape, ballistic)
    return Plan(
        times, size, flying, zero(2), zero(), zero(), zero(), zero(), zero(3), zero(3), place, zero(2), turn, zero(2),
        zero(2), zero(2) + 0.5, turn.clone(), arms,
    )  # fmt: skip


def joined(plans: Sequence[Plan]) -> Plan:
    """Return one plan of the clips of all, at the same times."""
    names = [field.name for field in fields(Plan) if field.name != "times"]
    return Plan(plans[0].times, *(torch.cat([getattr(plan, name) for plan in plans]) for name in names))


MOVING = tuple(field.name for field in fields(Plan) if field.name not in ("times", "size", "ballistic"))
"""What of a plan is over time."""
