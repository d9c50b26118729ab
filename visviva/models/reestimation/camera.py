"""A still pinhole camera without roll: projection, points as a level camera would see them, and where a lifted body stands.

World: x right, y ahead of the camera, z up [m], the camera at the origin, looking ahead, tilted down by an angle. Image points
are measured from the image's middle in image heights, u right, v down. On the plane one metre ahead of a *level* camera the
same ray meets (a, c), so that a joint at (x, y, z) has ``x = a y`` and ``z = c y`` whatever the tilt.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError


@dataclass(frozen=True)
class Camera:
    """What is known of the camera.

    Attributes:
        view: vertical angle of view [degrees]; a number, or (*batch,).
        tilt: down from the horizon [degrees]; the same.

    Raises:
        InputError: angles that no camera has.

    Example::

        camera = Camera(view=50.0, tilt=10.0)
        plane = camera.levelled(pixels_to_heights)
    """

    view: Tensor | float = 50.0
    tilt: Tensor | float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is no camera."""
        view, tilt = torch.as_tensor(self.view), torch.as_tensor(self.tilt)
        if not bool(((view > 1) & (view < 170)).all() & (tilt.abs() < 85).all()):
            raise InputError(f"a view of {self.view} and a tilt of {self.tilt} degrees; 1 to 170 and -85 to 85 are allowed")

    def _angles(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        view, tilt = (torch.as_tensor(x, dtype=like.dtype, device=like.device)[..., None, None] for x in (self.view, self.tilt))
        return 0.5 / torch.tan(view * math.pi / 360), torch.cos(tilt * math.pi / 180), torch.sin(tilt * math.pi / 180)

    def project(self, points: Float[Tensor, "*batch T J 3"]) -> Float[Tensor, "*batch T J 2"]:
        """Return where points are in the image [image heights from its middle]; they must be ahead of the camera."""
        focal, cosine, sine = self._angles(points)
        x, y, z = points.unbind(-1)
        depth, down = cosine * y - sine * z, -cosine * z - sine * y
        return torch.stack([focal * x / depth, focal * down / depth], -1)

    def levelled(self, image: Float[Tensor, "*batch T J 2"]) -> Float[Tensor, "*batch T J 2"]:
        """Return the points (a, c) on the plane one metre ahead of a level camera."""
        focal, cosine, sine = self._angles(image)
        u, v = (image / focal[..., None]).unbind(-1)
        ahead = cosine - sine * v
        return torch.stack([u / ahead, (-cosine * v - sine) / ahead], -1)


def placed(
    pose: Float[Tensor, "*batch T J 3"], plane: Float[Tensor, "*batch T J 2"], weight: Float[Tensor, "*batch T J"] | None = None
) -> Float[Tensor, "*batch T J 3"]:
    """Return a pose, known but for its place, where its joints are nearest to their rays: ``x + X = a (y + Y)``, and z with c.

    Least squares for (X, Y, Z) in every frame, in the plane one metre ahead times the distance.

    Args:
        pose: joints about the root, x right, y ahead, z up [m].
        plane: rays of a level camera (`Camera.levelled`); ``weight``: of each joint.

    Example::

        joints = placed(lifted, camera.levelled(image), confidence)  # (T, 17, 3), the camera at the origin
    """
    weight = torch.ones_like(plane[..., 0]) if weight is None else weight
    one, zero = torch.ones_like(plane[..., 0]), torch.zeros_like(plane[..., 0])
    rows = torch.stack([torch.stack([one, -plane[..., 0], zero], -1), torch.stack([zero, -plane[..., 1], one], -1)], -2)
    wanted = plane * pose[..., 1:2] - pose[..., [0, 2]]
    normal = torch.einsum("...j,...jki,...jkl->...il", weight, rows, rows)
    right = torch.einsum("...j,...jki,...jk->...i", weight, rows, wanted)
    return pose + torch.linalg.solve(normal, right)[..., None, :]
