"""Pictures of figures: one interface over two backends, Warp's ray tracer and, where it is installed, PyTorch3D."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from visviva.data.render import rasterizing
from visviva.data.render.camera import Camera, Size
from visviva.data.render.figure import Figure
from visviva.data.render.stage import Hits, Stage, encoded, shade
from visviva.errors import InputError, closest
from visviva.physics.quiet import quiet

BACKENDS = ("warp", "pytorch3d")
LARGEST = 4096
"""Largest side of a picture [px]."""
STEP = 0.03
"""Neighbouring pixels of one part whose depths differ by more than this have an edge between them [m]."""
AT_ONCE = {"cpu": 1 << 19, "cuda": 1 << 24}
"""Rays that are followed together, by kind of device."""


@dataclass(frozen=True)
class Pictures:
    """A figure as a camera sees it.

    Attributes:
        frames: sRGB in [0, 1], (T, 3, H, W), one ray a pixel, and the mean of ``samples`` x ``samples``
            at the edges of what is seen.
        depth: at the pixels' centres, along the camera's axis [m], infinite in the sky.
        label: index of the part of the figure at the pixels' centres, -1 for floor and sky.
        names: of the parts.
    """

    frames: Float[Tensor, "T 3 H W"]
    depth: Float[Tensor, "T H W"]
    label: Int[Tensor, "T H W"]
    names: tuple[str, ...]

    @property
    def mask(self) -> Bool[Tensor, "T 1 H W"]:
        """Where the figure is seen."""
        return (self.label >= 0)[:, None]

    @property
    def masks(self) -> Bool[Tensor, "T N H W"]:
        """Where each of the N parts is seen."""
        return self.label[:, None] == torch.arange(len(self.names), device=self.label.device)[:, None, None]


def render(
    figure: Figure,
    camera: Camera,
    size: Size = (256, 256),
    stage: Stage | None = None,
    backend: str = "warp",
    samples: int = 2,
) -> Pictures:
    """Draw all frames of a figure, on its device.

    Nothing is differentiable: the edges of what is seen have no gradient.

    Args:
        figure: triangles over time, of `skeleton`, `segments`, `skinned` or `Figure.mesh`.
        camera: one per frame, or one that stands.
        size: height and width [px].
        stage: floor and light; None: a checkered floor at height 0. Not drawn where ``floor`` is None.
        backend: warp (ray traced), or pytorch3d (rasterised, if it is installed): the same picture but for single pixels.
        samples: of a pixel, along each side.

    Raises:
        InputError: an unknown or missing backend, a size that is none, a camera in the floor or of another number of frames.

    Example::

        motion = read_motion("walk.npz")
        pictures = render(skeleton(motion), view(motion, "follow"), (256, 256))
        write_video("walk.mp4", pictures.frames, motion.fps)
    """
    stage = Stage() if stage is None else stage
    backend_of = _backend(backend)
    if not (min(size) >= 1 and max(size) <= LARGEST and samples in range(1, 9)):
        raise InputError(
            f"pictures of {size[0]} x {size[1]} pixels with {samples} samples; 1 to {LARGEST} pixels and 1 to 8 samples a side"
        )
    figure = replace(figure, vertices=figure.vertices.detach().float(), colours=figure.colours.float())
    camera = camera.to(figure.vertices.device, torch.float32).over(len(figure))
    stage.check(camera)
    sun = stage.towards_sun(camera)
    step = max(1, AT_ONCE["cpu" if figure.vertices.device.type == "cpu" else "cuda"] // (size[0] * size[1]))
    with quiet():
        chunks = [(figure.cut(t, t + step), camera.cut(t, t + step)) for t in range(0, len(figure), step)]
        parts = [_drawn(*chunk, size, stage, backend_of, samples, sun) for chunk in chunks]
    frames, depth, label = (torch.cat(column) for column in zip(*parts, strict=True))
    return Pictures(frames, depth, label, figure.names)


Backend = Callable[[Figure, Camera, float | None, Tensor], Callable[[Size, Tensor], Hits]]


def _backend(name: str) -> Backend:
    if name == "pytorch3d":
        rasterizing.pytorch3d("structures")
        return rasterizing.tracer
    if name == "warp":
        from visviva.data.render import tracing

        return tracing.tracer
    raise InputError(f"no backend {name!r}{closest(name, BACKENDS)}; there are {', '.join(BACKENDS)}")


def _drawn(
    figure: Figure, camera: Camera, size: Size, stage: Stage, backend: Backend, samples: int, sun: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Frames, depth and label of some frames: a ray through each pixel's centre, and more where that shows an edge."""
    shape = (len(figure), *size)
    follow, normals, focal = backend(figure, camera, stage.floor, sun), figure.normals, camera.focal(size)
    hits = follow(size, torch.arange(shape[0] * size[0] * size[1], device=figure.vertices.device))
    label = torch.where(hits.face < 0, -1, figure.part[hits.face.clamp(min=0)])
    light = shade(hits, figure, normals, camera, stage, focal, sun)
    if samples > 1:
        edge = _edges(hits, label, shape)
        fine = (size[0] * samples, size[1] * samples)
        more = shade(follow(fine, _finer(edge, size, samples)), figure, normals, camera, stage, focal, sun)
        light[edge] = more.unflatten(0, (len(edge), samples**2)).mean(1)
    frames = encoded(light).view(*shape, 3).movedim(-1, 1)
    return frames.contiguous(), hits.depth.view(shape), label.view(shape)


def _edges(hits: Hits, label: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Indices of the pixels beside which is another part, the floor's shadow, or a step of depth."""
    kind = torch.where(hits.face < 0, -1 - hits.floor.long() - hits.shadow.long(), label).view(shape)
    depth = torch.where(hits.face < 0, 0.0, hits.depth).view(shape)
    edge = torch.zeros(shape, dtype=torch.bool, device=label.device)
    for axis in (1, 2):
        count = shape[axis] - 1
        a, b = (kind.narrow(axis, start, count) for start in (0, 1))
        near, far = (depth.narrow(axis, start, count) for start in (0, 1))
        step = (a != b) | ((near - far).abs() > STEP)
        for start in (0, 1):
            edge.narrow(axis, start, count).logical_or_(step)
    return edge.flatten().nonzero()[:, 0]


def _finer(edge: Tensor, size: Size, samples: int) -> Tensor:
    """Indices of the samples of pixels in the pictures that have all samples as pixels, pixel after pixel."""
    height, width = size
    frame, row, column = edge // (height * width), edge // width % height, edge % width
    a, b = (x.flatten() for x in torch.meshgrid(*[torch.arange(samples, device=edge.device)] * 2, indexing="ij"))
    rows, columns = row[:, None] * samples + a, column[:, None] * samples + b
    return ((frame[:, None] * height * samples + rows) * width * samples + columns).flatten()
