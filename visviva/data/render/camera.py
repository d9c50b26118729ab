"""A pinhole camera over time: where it stands, which way it looks, and where in the picture a point of the world lies.

Camera axes are x right, y down, z forward (into the picture), so with ``R`` of rows right, down, forward and the place ``c``

    (X, Y, Z) = R (x - c)        u = c_x + f X / Z        v = c_y + f Y / Z        f = H / (2 tan(field_of_view / 2))

u and v in pixels from the left and upper edge of the picture: the centre of its first pixel is at (0.5, 0.5). Z is the depth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError

NEAR = 0.01
"""What is nearer to the camera than this is not drawn [m]."""
FIELD_OF_VIEW = math.radians(40)
"""The usual angle between the upper and lower edge of the picture."""
Size = tuple[int, int]
"""Height and width of a picture [px]."""


@dataclass(frozen=True)
class Camera:
    """A camera that stands (T of 1) or moves.

    Attributes:
        position: (T, 3) [m], z up.
        rotation: from the world to camera axes, (T, 3, 3): rows right, down, forward.
        field_of_view: vertical [rad].
        centre: of projection in the picture, as shares of its width and height.

    Raises:
        InputError: shapes that do not fit, numbers that are not finite, rows that are no right-handed frame, a field of view
            that is not between 0 and pi.

    Example::

        camera = Camera.look_at(torch.tensor([3.0, 0.0, 1.5]), torch.tensor([0.0, 0.0, 1.0]))
        pixels, depth = camera.project(motion.positions, (256, 256))  # (T, J, 2) px, (T, J) m
    """

    position: Float[Tensor, "T 3"]
    rotation: Float[Tensor, "T 3 3"]
    field_of_view: float = FIELD_OF_VIEW
    centre: tuple[float, float] = (0.5, 0.5)

    def __post_init__(self) -> None:
        """Refuse what is no camera."""
        frames = len(self.position)
        if tuple(self.position.shape) != (frames, 3) or tuple(self.rotation.shape) != (frames, 3, 3) or not frames:
            raise InputError(
                f"a camera of positions {tuple(self.position.shape)} and rotations {tuple(self.rotation.shape)}; (T, 3) and "
                "(T, 3, 3) are wanted, T of 1 for one that stands"
            )
        if not bool(self.position.isfinite().all() & self.rotation.isfinite().all()):
            raise InputError("the camera's position or rotation is not finite; does it look at the point where it stands?")
        square = self.rotation @ self.rotation.mT - torch.eye(3).to(self.rotation)
        if float(square.abs().max()) > 1e-3 or bool((torch.linalg.det(self.rotation) < 0).any()):
            raise InputError("the camera's axes are no right-handed frame; its rows are right, down, forward (Camera.look_at)")
        if not 0 < self.field_of_view < math.pi:
            raise InputError(f"a field of view of {self.field_of_view:g} rad; it is between 0 and pi (40 degrees are 0.7)")

    def __len__(self) -> int:
        return len(self.position)

    @classmethod
    def look_at(
        cls,
        position: Float[Tensor, "*T 3"],
        target: Float[Tensor, "*S 3"],
        field_of_view: float = FIELD_OF_VIEW,
        up: tuple[float, float, float] = (0.0, 0.0, 1.0),
    ) -> Camera:
        """Return the camera at a place, or at one per frame, that has the target in the middle of its upright picture.

        Raises:
            InputError: it stands at its target, or looks along ``up``.
        """
        position, target = torch.broadcast_tensors(position.reshape(-1, 3), target.reshape(-1, 3).to(position))
        forward = target - position
        forward = forward / forward.norm(dim=-1, keepdim=True)
        right = torch.linalg.cross(forward, forward.new_tensor(up).expand_as(forward))
        if not bool((right.norm(dim=-1) > 1e-4).all()):
            raise InputError("the camera stands at its target or looks straight up or down; move it, or give another up")
        right = right / right.norm(dim=-1, keepdim=True)
        down = torch.linalg.cross(forward, right)
        return cls(position.contiguous(), torch.stack((right, down, forward), -2), field_of_view)

    def to(self, *where: torch.device | torch.dtype | str) -> Camera:
        """Return the camera on a device, or in a dtype."""
        moved = {name: getattr(self, name).to(*where) for name in ("position", "rotation")}
        return replace(self, **moved)

    def over(self, frames: int) -> Camera:
        """Return the camera of so many frames: itself, or one that stands repeated.

        Raises:
            InputError: it moves over another number of frames.
        """
        if len(self) not in (1, frames):
            raise InputError(f"a camera of {len(self)} frames for {frames} frames; give one per frame, or one that stands")
        if len(self) == frames:
            return self
        return replace(self, position=self.position.expand(frames, 3), rotation=self.rotation.expand(frames, 3, 3))

    def cut(self, start: int, stop: int) -> Camera:
        """Return the frames from ``start`` to before ``stop``."""
        return replace(self, position=self.position[start:stop], rotation=self.rotation[start:stop])

    def focal(self, size: Size) -> float:
        """Return the focal length in pixels."""
        return size[0] / (2 * math.tan(self.field_of_view / 2))

    def intrinsics(self, size: Size) -> Float[Tensor, "3 3"]:
        """Return the matrix that takes camera axes to homogeneous pixels."""
        focal, (x, y) = self.focal(size), self.centre
        return self.position.new_tensor([[focal, 0, x * size[1]], [0, focal, y * size[0]], [0, 0, 1]])

    def seen(self, points: Float[Tensor, "T N 3"]) -> Float[Tensor, "T N 3"]:
        """Return points of the world in camera axes [m]; their z is the depth."""
        return (points - self.position[:, None]) @ self.rotation.mT

    def project(self, points: Float[Tensor, "T N 3"], size: Size) -> tuple[Float[Tensor, "T N 2"], Float[Tensor, "T N"]]:
        """Return pixels (u, v) and depth [m] of points; of those behind the camera the pixels mean nothing.

        Differentiable.

        Args:
            points: in the world, of as many frames as the camera's, or it stands.
            size: height and width of the picture.
        """
        inside = self.seen(points)
        flat = inside @ self.intrinsics(size).to(inside).mT
        return flat[..., :2] / flat[..., 2:], inside[..., 2]

    def rays(self, size: Size) -> Float[Tensor, "T H W 3"]:
        """Return the directions of the pixels' centres in the world, one metre deep each: ``position + depth * ray``."""
        height, width = size
        v, u = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        pixels = torch.stack((u + 0.5, v + 0.5, torch.ones_like(u)), -1).to(self.position)
        inside = pixels @ torch.linalg.inv(self.intrinsics(size)).mT
        return torch.einsum("hwi,tij->thwj", inside, self.rotation)
