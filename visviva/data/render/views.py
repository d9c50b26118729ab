"""Cameras for a person's motion: from the front, from the side, or walking along."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.data.motions.anatomy import parts
from visviva.data.motions.motion import HumanMotion
from visviva.data.render.camera import FIELD_OF_VIEW, Camera
from visviva.data.render.figure import Figure
from visviva.errors import InputError, closest

VIEWS = {"front": 15.0, "side": -90.0, "follow": -55.0}
"""Where the camera stands around the person, from straight ahead towards the person's left [degrees]."""
ELEVATION = math.radians(12)
"""How high above the horizon the camera stands."""
MARGIN = 0.12
"""Share of the picture that stays free around what moves."""
SMOOTH = 0.4
"""Standard deviation of what the following camera averages over [s]."""


def view(
    motion: HumanMotion,
    name: str = "follow",
    size: tuple[int, int] = (256, 256),
    figure: Figure | None = None,
    field_of_view: float = FIELD_OF_VIEW,
) -> Camera:
    """Return a camera that has the whole motion in its picture.

    Args:
        motion: whose way and facing direction the camera is placed by.
        name: front and side stand, follow moves along with the body at a constant distance and direction.
        size: height and width of the picture.
        figure: what is drawn of it; None: the camera keeps the joints and 10 cm around them in its picture.
        field_of_view: vertical [rad].

    Raises:
        InputError: an unknown view.

    Example::

        camera = view(motion, "side", (256, 384))
    """
    if name not in VIEWS:
        raise InputError(f"no view {name!r}{closest(name, VIEWS)}; there are {', '.join(VIEWS)}")
    x = motion.positions.float()
    points = _shell(x) if figure is None else figure.vertices[:, :: max(1, figure.vertices.shape[1] // 500)].to(x)
    yaw = _facing(motion) + math.radians(VIEWS[name])
    away = x.new_tensor([math.cos(yaw), math.sin(yaw), math.tan(ELEVATION)])
    away = away / away.norm()
    low, high = points.amin((0, 1)), points.amax((0, 1))
    middle = (low + high) / 2
    target = middle[None]
    if name == "follow":
        path = _smooth(x.mean(1), SMOOTH * motion.fps)
        target = torch.cat((path[:, :2], middle[2:].expand(len(path), 1)), -1)
    distance = _distance(points - target[:, None], away, size, field_of_view)
    return Camera.look_at(target + distance * away, target, field_of_view)


def _shell(x: Float[Tensor, "T J 3"]) -> Float[Tensor, "T K 3"]:
    """Points 10 cm around the joints."""
    around = 0.1 * torch.cat((torch.eye(3), -torch.eye(3))).to(x)
    return (x[:, :, None] + around).flatten(1, 2)


def _distance(points: Float[Tensor, "T K 3"], away: Float[Tensor, "3"], size: tuple[int, int], field_of_view: float) -> float:
    """The least distance from which all points, relative to the target, are inside the picture: |x| <= tan (d - z)."""
    right = torch.linalg.cross(points.new_tensor([0.0, 0.0, 1.0]), away)
    right = right / right.norm()
    up = torch.linalg.cross(away, right)
    half = math.tan(field_of_view / 2) * (1 - MARGIN)
    wide, tall = (points @ right).abs() / (half * size[1] / size[0]), (points @ up).abs() / half
    return float((torch.maximum(wide, tall) + points @ away).max())


def _facing(motion: HumanMotion) -> float:
    """Angle of the horizontal direction in which the person faces on average, or travels where the names give no hips [rad]."""
    found, x = parts(motion.names), motion.positions.float()
    pairs = [(f"left_{part}", f"right_{part}") for part in ("hip", "shoulder")]
    across = [x[:, found[left]] - x[:, found[right]] for left, right in pairs if left in found and right in found]
    if not across:
        way = x[-1].mean(0) - x[0].mean(0)
        return math.atan2(float(way[1]), float(way[0]))
    left = sum(across[1:], across[0])[:, :2]
    ahead = torch.stack((left[:, 1], -left[:, 0]), -1)  # a quarter turn clockwise seen from above
    ahead = ahead / ahead.norm(dim=-1, keepdim=True).clamp(min=1e-6)
    mean = ahead.mean(0) if float(ahead.mean(0).norm()) > 0.3 else ahead[0]  # who turns around is seen as he begins
    return math.atan2(float(mean[1]), float(mean[0]))


def _smooth(path: Float[Tensor, "T 3"], frames: float) -> Float[Tensor, "T 3"]:
    """Gaussian mean over time, of so many frames' standard deviation, of what differs from a steady walk from end to end."""
    time = torch.arange(len(path)).to(path)
    line = torch.lerp(path[0], path[-1], time[:, None] / (len(path) - 1))
    weight = torch.exp(-0.5 * ((time[:, None] - time) / frames) ** 2)
    return line + weight @ (path - line) / weight.sum(-1, keepdim=True)
