"""Poses as a detector sees them: filmed by a random camera, with noise that is not white, outliers and lost joints.

The noise of a coordinate is the sum of a white part and of one that lasts (first-order, half a second), both scaled by the
person's size in the picture and by the joint (hands and feet more, hips half as much again); one joint in a hundred is far off
with full confidence, and joints are lost for a few frames at a time, with low confidence and eight times the noise. All sizes
are ours; 2D detectors on people of 300 px err by 4 to 10 px, which is what they give.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.models.reestimation.camera import Camera

JOINTS = (1.0, 1.3, 1.0, 1.4, 1.3, 1.0, 1.4, 1.0, 1.0, 1.0, 0.8, 1.0, 1.2, 1.6, 1.0, 1.2, 1.6)
"""Noise of each of Human3.6M's joints, relative."""


@dataclass(frozen=True)
class Detector:
    """How a detector errs, in sizes of the person.

    Attributes:
        white, lasting: standard deviations of the parts of a coordinate's noise. memory: of the lasting one [s].
        outliers: share of joints; far: their distance. lost: share of frames in which a joint is lost; span: for how long [s].
    """

    white: float = 0.010
    lasting: float = 0.010
    memory: float = 0.5
    outliers: float = 0.01
    far: float = 0.15
    lost: float = 0.03
    span: float = 0.2


def detected(
    points: Float[Tensor, "B T J C"],
    size: Float[Tensor, "B"],
    fps: float,
    rng: torch.Generator,
    detector: Detector | None = None,
) -> tuple[Float[Tensor, "B T J C"], Float[Tensor, "B T J"]]:
    """Return noisy points and the detector's confidence in each, 0 to 1.

    Args:
        points: Human3.6M's joints, 2D or 3D; ``size``: of the person in their unit.
    """
    d = detector or Detector()
    batch, frames, joints, _ = points.shape
    scale = points.new_tensor(JOINTS)[:, None] * size[:, None, None, None]
    quality = (0.5 * torch.randn(batch, 1, 1, 1, generator=rng)).exp()  # some clips are worse
    white = torch.randn(points.shape, generator=rng)
    keep = torch.tensor(-1 / (fps * d.memory)).exp()
    drift = [torch.randn(points[:, 0].shape, generator=rng)]
    for _ in range(frames - 1):
        drift.append(keep * drift[-1] + (1 - keep**2).sqrt() * torch.randn(points[:, 0].shape, generator=rng))
    noise = quality * (d.white * white + d.lasting * torch.stack(drift, 1))
    long = max(1, round(d.span * fps))
    begun = torch.rand(batch, 1, joints, frames, generator=rng).squeeze(1) < d.lost / long
    lost = torch.nn.functional.max_pool1d(begun.float(), long, 1, long // 2)[..., :frames].mT > 0
    noise = torch.where(lost[..., None], 8 * noise, noise)
    off = torch.rand(batch, frames, joints, generator=rng) < d.outliers
    noise = torch.where(off[..., None], d.far * torch.randn(points.shape, generator=rng), noise)
    sure = 0.6 + 0.4 * torch.rand(batch, frames, joints, generator=rng)
    return points + scale * noise, torch.where(lost, 0.05 + 0.25 * torch.rand(lost.shape, generator=rng), sure)


@dataclass(frozen=True)
class Filmed:
    """B clips before random cameras: true joints (B, T, J, 3) with the camera at the origin, looking along y; what was seen."""

    joints: Tensor
    camera: Camera
    image: Tensor
    confidence: Tensor


def filmed(joints: Float[Tensor, "B T J 3"], fps: float, rng: torch.Generator, detector: Detector | None = None) -> Filmed:
    """Return clips turned and placed at random before still cameras, and what a detector sees.

    3 to 6 m away (further where the clip would leave the picture), 0.8 to 2.2 m above the floor, 40 to 70 degrees of view,
    tilted towards the person to 5 degrees.
    """
    batch = len(joints)

    def even(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(batch, generator=rng)

    turned = joints @ turn(even(0, 2 * torch.pi))[:, None].mT
    middle = (turned.amin((1, 2)) + turned.amax((1, 2))) / 2
    reach = (turned - middle[:, None, None])[..., :2].norm(dim=-1).amax((1, 2))
    view, height = even(40, 70), even(0.8, 2.2)
    away = torch.maximum(even(3, 6), reach + (reach + 0.5) / torch.tan(view * torch.pi / 360) * 0.7)
    there = torch.stack([torch.zeros(batch), away, -height], -1) - middle * torch.tensor([1.0, 1.0, 0.0])
    seen = turned + there[:, None, None]
    tilt = torch.atan2(height - middle[:, 2], away) * 180 / torch.pi + 5 * torch.randn(batch, generator=rng).clamp(-2, 2)
    camera = Camera(view, tilt)
    image = camera.project(seen)
    size = (image[..., 1].amax(-1) - image[..., 1].amin(-1)).quantile(0.5, dim=-1)
    return Filmed(seen, camera, *detected(image, size, fps, rng, detector))


def turn(angle: Float[Tensor, "B"]) -> Float[Tensor, "B 3 3"]:
    """Return rotations about the vertical axis."""
    c, s, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    return torch.stack([c, -s, zero, s, c, zero, zero, zero, zero + 1], -1).unflatten(-1, (3, 3))
