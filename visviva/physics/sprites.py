"""A small compositor: object patches over a background, moved along any trajectory, with exact masks and flow.

It stands in for a simulator wherever a clip with *known* motion, or a known violation of mechanics, is wanted: in
calibration, in tests of probes (the rendering is differentiable with respect to the trajectory) and in examples. Patches
may be drawn here (`random_sprites`) or cut from a simulated clip with masks (`cut`). Units: pixels, frames; y down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError
from visviva.physics.kinematics import centroids


@dataclass(frozen=True)
class Course:
    """How bodies move: ``trajectory`` (B, T, N, 2) [px], ``angle`` (B, T, N) [rad], ``contact`` (B, T), bool."""

    trajectory: Tensor
    angle: Tensor
    contact: Tensor


@runtime_checkable
class Motion(Protocol):
    """Parameters of a motion that can be run again, such as `visviva.physics.motions.Bounces`."""

    @property
    def kind(self) -> str:
        """Name of the kind of scene."""
        ...

    def course(self) -> Course:
        """Return the motion at the times of the frames."""
        ...


@dataclass(frozen=True)
class Sprites:
    """A batch of scenes of N objects over a static background.

    Attributes:
        background: shape (B, 3, H, W).
        texture: colours of each object's patch in each frame, shape (B, T, N, 3, h, w); expand a constant one over T.
        alpha: opacity of the patch's pixels, shape (B, T, N, h, w), in [0, 1].
        trajectory: position of the patch's centre, (x, y) [px], shape (B, T, N, 2).
        scale: magnification, shape (B, T, N).
        opacity: of the whole object, shape (B, T, N), in [0, 1].
        noise: share of white noise in the frames, shape (B,); 1 is nothing but noise.
        seed: of that noise.
        contact: frames within contact windows, where known, shape (B, T); passed on, not drawn.
        angle: how far each patch is turned about its centre, clockwise as seen, shape (B, T, N) [rad]; None: not turned.
        metres: metres per pixel in the plane of the motion, where known, shape (B,) [m/px]; passed on, not drawn.
        force: commanded force over mass on each object, where known, shape (B, N, 2), in any unit; passed on, not drawn.
        motion: what the trajectory was drawn by, where it can be run again with other parameters.
    """

    background: Tensor
    texture: Tensor
    alpha: Tensor
    trajectory: Tensor
    scale: Tensor
    opacity: Tensor
    noise: Tensor
    seed: int = 0
    contact: Tensor | None = None
    angle: Tensor | None = None
    metres: Tensor | None = None
    force: Tensor | None = None
    motion: Motion | None = None

    @property
    def kind(self) -> str:
        """Kind of scene, one of `visviva.physics.motions.KINDS`; ``moves`` where nothing else is known."""
        return "moves" if self.motion is None else self.motion.kind

    def with_(self, **changes: Any) -> Sprites:
        """Return a copy with some attributes replaced."""
        return replace(self, **changes)

    def driven(self, motion: Motion) -> Sprites:
        """Return the same bodies in another motion."""
        course = motion.course()
        return self.with_(trajectory=course.trajectory, angle=course.angle, contact=course.contact, motion=motion)

    def render(self) -> Rendered:
        """Return frames, visible masks and exact flow; differentiable with respect to trajectory, texture and background.

        Masks and flow are of what can be seen: an object of opacity 0, or under nothing but noise, has neither.
        """
        steps, count = self.trajectory.shape[1:3]
        layers, covers = self._layers()
        frames = self.background[:, None].expand(-1, steps, -1, -1, -1)
        masks: list[Tensor] = []
        for n in range(count):
            cover = covers[:, :, n]
            frames = frames * (1 - cover[:, :, None]) + layers[:, :, n] * cover[:, :, None]
            masks = [mask * (1 - cover) for mask in masks] + [cover]
        visible = torch.stack(masks, dim=2) * (1 - self.noise.view(-1, 1, 1, 1, 1))
        return Rendered(self._noisy(frames), visible, self._flow(visible))

    def _layers(self) -> tuple[Tensor, Tensor]:
        height, width = self.background.shape[-2:]
        h, w = self.alpha.shape[-2:]
        patches = torch.cat([self.texture, self.alpha[..., None, :, :]], dim=-3).flatten(0, 2)
        centre, scale = self.trajectory.flatten(0, 2), self.scale.flatten().clamp(min=1e-3)
        like: dict[str, Any] = {"dtype": centre.dtype, "device": centre.device}
        xs = ((torch.arange(width, **like) - centre[:, :1]) / scale[:, None])[:, None, :].expand(-1, height, -1)
        ys = ((torch.arange(height, **like) - centre[:, 1:]) / scale[:, None])[:, :, None].expand(-1, -1, width)
        if self.angle is not None:
            cos, sin = (f(self.angle).flatten()[:, None, None] for f in (torch.cos, torch.sin))
            xs, ys = cos * xs + sin * ys, cos * ys - sin * xs
        grid = torch.stack([xs * (2 / (w - 1)), ys * (2 / (h - 1))], dim=-1)
        placed = torch.nn.functional.grid_sample(patches, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
        placed = placed.view(*self.trajectory.shape[:3], 4, height, width)
        cover = placed[:, :, :, 3] * self.opacity[..., None, None]
        return placed[:, :, :, :3], cover

    def _flow(self, visible: Tensor) -> Tensor:
        height, width = self.background.shape[-2:]
        step = self.trajectory[:, 1:] - self.trajectory[:, :-1]
        ratio = self.scale[:, 1:] / self.scale[:, :-1].clamp(min=1e-3)
        turn = torch.zeros_like(ratio) if self.angle is None else self.angle[:, 1:] - self.angle[:, :-1]
        growth, curl = (ratio * torch.cos(turn) - 1)[..., None], (ratio * torch.sin(turn))[..., None]
        like: dict[str, Any] = {"dtype": step.dtype, "device": step.device}
        dx = torch.arange(width, **like) - self.trajectory[:, :-1, :, :1]
        dy = torch.arange(height, **like) - self.trajectory[:, :-1, :, 1:]
        masks = visible[:, :-1]
        across, down = step[..., 0, None] + growth * dx, step[..., 1, None] + growth * dy
        flow = [torch.einsum("btnhw,btnw->bthw", masks, across), torch.einsum("btnhw,btnh->bthw", masks, down)]
        if self.angle is not None:
            flow[0] = flow[0] - torch.einsum("btnhw,btnh->bthw", masks, curl * dy)
            flow[1] = flow[1] + torch.einsum("btnhw,btnw->bthw", masks, curl * dx)
        return torch.stack(flow, dim=2)

    def _noisy(self, frames: Tensor) -> Tensor:
        if not bool((self.noise > 0).any()):
            return frames
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.rand(frames.shape, generator=generator, dtype=frames.dtype).to(frames.device)
        return torch.lerp(frames, noise, self.noise.view(-1, 1, 1, 1, 1))


@dataclass(frozen=True)
class Rendered:
    """What the compositor drew: frames (B, T, 3, H, W), visible masks (B, T, N, H, W), exact flow (B, T-1, 2, H, W)."""

    frames: Tensor
    masks: Tensor
    flow: Tensor


def sprites(
    background: Float[Tensor, "B 3 H W"],
    texture: Float[Tensor, "B N 3 h w"],
    alpha: Float[Tensor, "B N h w"],
    trajectory: Float[Tensor, "B T N 2"],
) -> Sprites:
    """Return scenes of rigid patches that keep their look along a trajectory [px]."""
    steps = trajectory.shape[1]
    ones = torch.ones_like(trajectory[..., 0])
    return Sprites(
        background=background,
        texture=texture[:, None].expand(-1, steps, -1, -1, -1, -1),
        alpha=alpha[:, None].expand(-1, steps, -1, -1, -1),
        trajectory=trajectory,
        scale=ones,
        opacity=ones,
        noise=torch.zeros_like(trajectory[:, 0, 0, 0]),
    )


def cut(
    frames: Float[Tensor, "B T 3 H W"],
    masks: Float[Tensor, "B T N H W"],
    trajectory: Float[Tensor, "B T N 2"] | None = None,
    margin: int = 3,
) -> Sprites:
    """Take a clip with a static camera apart into background and moving patches, so that it can be rendered otherwise.

    The background is the median over the frames in which a pixel belongs to no object; where it always does, the median
    of all frames. Patches keep each frame's own look (shading, rotation); shadows on the background are lost. The patches
    follow ``trajectory`` (the projected centre of mass), by default the centroids of the masks.
    """
    count, height, width = masks.shape[2:]
    free = masks.sum(2) < 0.05
    known = torch.where(free[:, :, None], frames, float("nan")).nanmedian(dim=1).values
    background = torch.where(torch.isnan(known), frames.median(dim=1).values, known)
    solid = masks > 0.5
    side_y, side_x = int(solid.any(-1).sum(-1).max()), int(solid.any(-2).sum(-1).max())
    if side_y == 0:
        raise InputError("the masks of the clip are empty; there is no object to cut out")
    h, w = (side + 2 * margin + 1 - side % 2 for side in (side_y, side_x))
    centre = centroids(masks)[0] if trajectory is None else trajectory
    like: dict[str, Any] = {"dtype": frames.dtype, "device": frames.device}
    xs = (centre[..., :1] + torch.arange(w, **like) - w // 2) * (2 / (width - 1)) - 1
    ys = (centre[..., 1:] + torch.arange(h, **like) - h // 2) * (2 / (height - 1)) - 1
    grid = torch.stack([xs[..., None, :].expand(*xs.shape[:-1], h, w), ys[..., :, None].expand(*ys.shape[:-1], h, w)], dim=-1)
    layers = torch.cat([frames[:, :, None].expand(-1, -1, count, -1, -1, -1), masks[:, :, :, None]], dim=3).flatten(0, 2)
    patches = torch.nn.functional.grid_sample(layers, grid.flatten(0, 2), padding_mode="border", align_corners=True)
    patches = patches.view(*masks.shape[:3], 4, h, w)
    inside = ((xs.abs() <= 1)[..., None, :] & (ys.abs() <= 1)[..., :, None]).to(frames.dtype)
    ones = torch.ones_like(centre[..., 0])
    return Sprites(
        background, patches[:, :, :, :3], patches[:, :, :, 3] * inside, centre, ones, ones, torch.zeros_like(ones[:, 0, 0])
    )


def random_texture(count: int, height: int, width: int, grain: float, generator: torch.Generator) -> Float[Tensor, "M 3 H W"]:
    """Return smooth random colour textures in [0, 1] with features about ``grain`` pixels wide."""
    cells = (max(2, math.ceil(height / grain) + 1), max(2, math.ceil(width / grain) + 1))
    coarse = torch.rand(count, 3, *cells, generator=generator)
    fine = torch.rand(count, 3, 2 * cells[0], 2 * cells[1], generator=generator)
    resize = torch.nn.functional.interpolate
    smooth = 0.7 * resize(coarse, (height, width), mode="bicubic", align_corners=True)
    return (smooth + 0.3 * resize(fine, (height, width), mode="bicubic", align_corners=True)).clamp(0, 1)


def random_sprites(
    count: int,
    seed: int,
    *,
    frames: int = 17,
    height: int = 64,
    width: int = 64,
    radius: tuple[float, float] = (5.0, 8.0),
    objects: int = 1,
    textured: bool = True,
) -> Sprites:
    """Draw scenes of textured discs and boxes in uniformly accelerated motion that stay in view; reproducible by seed.

    Half of the scenes accelerate downwards (fall, throws), half along a random direction as on a ramp. The mean speed is
    1 to 3 % of the image height per frame and the change of velocity over the clip of the same size, so that a window of
    64 pixels sees up to about 4 px/frame. Background and objects differ in colour and carry texture (unless ``textured``
    is False), as plain discs on plain ground defeat every estimate of flow.
    """
    generator = torch.Generator().manual_seed(seed)
    side = 2 * math.ceil(radius[1] * 1.5) + 1
    ground = 0.2 + 0.6 * torch.rand(count, 3, 1, 1, generator=generator)
    apart = torch.nn.functional.normalize(torch.randn(count * objects, 3, 1, 1, generator=generator), dim=1)
    paint = (ground.repeat_interleave(objects, 0) + 0.45 * apart).clamp(0.1, 0.9)
    contrast = 0.5 if textured else 0.0
    background = ground + 0.6 * contrast * (random_texture(count, height, width, 8.0, generator) - 0.5)
    texture = paint + contrast * (random_texture(count * objects, side, side, 4.0, generator) - 0.5)
    background, texture = background.clamp(0, 1), texture.clamp(0, 1)
    alpha = _shapes(count * objects, side, radius, generator)
    trajectory = _motions(count, objects, frames, height, width, radius[1], generator)
    for _ in range(200):
        crossing = _nearest(trajectory) < 2.5 * radius[1]
        if not crossing.any():
            break
        again = _motions(count, objects, frames, height, width, radius[1], generator)
        trajectory = torch.where(crossing[:, None, None, None], again, trajectory)
    return sprites(background, texture.unflatten(0, (count, objects)), alpha.unflatten(0, (count, objects)), trajectory)


def _nearest(trajectory: Tensor) -> Tensor:
    """Smallest distance between two objects in any frame [px], shape (B,); infinite for one object."""
    apart = torch.cdist(trajectory, trajectory)
    return (apart + torch.diag(torch.full_like(apart[0, 0, 0], float("inf")))).flatten(1).amin(1)


def _shapes(count: int, side: int, radius: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Discs and turned boxes with a soft edge about one pixel wide, shape (count, side, side)."""
    ys, xs = torch.meshgrid(torch.arange(side) - side // 2, torch.arange(side) - side // 2, indexing="ij")
    size, turn, kind = (torch.rand(count, 1, 1, generator=generator) for _ in range(3))
    size = radius[0] + (radius[1] - radius[0]) * size
    c, s = torch.cos(turn * math.pi), torch.sin(turn * math.pi)
    box = torch.maximum((c * xs + s * ys).abs(), (c * ys - s * xs).abs()) * 1.1
    distance = torch.where(kind < 0.5, torch.hypot(xs.float(), ys.float()), box)
    return torch.sigmoid(4 * (size - distance))


def _motions(
    count: int, objects: int, frames: int, height: int, width: int, margin: float, generator: torch.Generator
) -> Tensor:
    """Trajectories c0 + v0 t + a t^2 / 2 inside the image, shape (count, frames, objects, 2)."""
    t = torch.linspace(-0.5, 0.5, frames)[None, :, None, None]
    shape = (count, 1, objects, 1)
    angle = 2 * math.pi * torch.rand(shape, generator=generator)
    downwards = torch.rand(shape, generator=generator) < 0.5
    speed = 0.2 + 0.4 * torch.rand(shape, generator=generator)
    push = torch.where(downwards, math.pi / 2, angle)
    strength = 0.4 + 0.5 * torch.rand(shape, generator=generator)
    heading = torch.cat([speed * torch.cos(angle), speed * torch.sin(angle)], dim=-1)
    bend = torch.cat([strength * torch.cos(push), strength * torch.sin(push)], dim=-1)
    path = min(height, width) * (heading * t + bend * t.square() / 2)
    low, high = path.amin(1, keepdim=True), path.amax(1, keepdim=True)
    room = torch.tensor([width - 1.0, height - 1.0]) - 2 * margin - (high - low)
    start = margin - low + room.clamp(min=0) * torch.rand(count, 1, objects, 2, generator=generator)
    return start + path
