"""Pictures of things in the wind: their triangles ray-traced by Warp before the same floor, wall and light as other scenes.

Cloth has the pattern of its texture where it was at rest, interpolated between its particles, and two sides; stalks and strings
are capsules, blossoms and balls are balls. Each pixel is the mean of ``SAMPLES`` x ``SAMPLES`` rays; the ray through its centre
gives depth, object and flow. Colours as in `visviva.data.scenes.shading`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from visviva.data.render.camera import Camera
from visviva.data.render.figure import Figure, together
from visviva.data.render.solids import balls, capsules
from visviva.data.render.stage import Hits, encoded, linear
from visviva.data.render.tracing import tracer
from visviva.data.scenes import cloth
from visviva.data.scenes.appearance import Texture
from visviva.data.scenes.render import SAMPLES, Images, camera_rays
from visviva.data.scenes.scene import FIELD_OF_VIEW, LENS_SHIFT, WALL_DEPTH, Scene
from visviva.data.scenes.wind import Soft

POLE, STALK, STRING = 0.03, 0.032, 0.016
"""Radii [m]."""
GREY, GREEN = (0.35, 0.33, 0.3), (0.2, 0.5, 0.2)
OTHER = "other"
"""Name of the parts that belong to no object: poles and strings."""


@dataclass(frozen=True)
class Drawn:
    """Pictures of one scene: see `Images`, without the batch; ``flow`` (T-1, 2, H, W) [px/frame], ``valid`` (T-1, H, W)."""

    frames: np.ndarray
    depth: np.ndarray
    label: np.ndarray
    flow: np.ndarray
    valid: np.ndarray


def figure(scene: Scene, places: Sequence[np.ndarray]) -> Figure:
    """Return the triangles of a scene, with the number of the object as the name of each part."""
    parts = []
    for i, (thing, path) in enumerate(zip(scene.soft, places, strict=True)):
        at = torch.from_numpy(path).float()
        parts += {"plant": _plant, "hanging_ball": _ball}.get(thing.shape, _flag)(thing, at, str(i))
    return together(parts)


def _flag(thing: Soft, at: Tensor, name: str) -> list[Figure]:
    rest = cloth.mesh(thing)
    colours = _pattern(thing.texture, torch.from_numpy(rest.points).float())
    flag = Figure.mesh(at, torch.from_numpy(rest.faces), encoded(colours), name)
    top = at.new_tensor([*thing.root[:2], thing.root[2] + 0.06]).expand(len(at), 1, 3)
    foot = at.new_tensor([*thing.root[:2], 0.0]).expand(len(at), 1, 3)
    return [flag, capsules(foot, top, at.new_full((1, 2), POLE), at.new_tensor([GREY]), [OTHER])]


def _plant(thing: Soft, at: Tensor, name: str) -> list[Figure]:
    count = at.shape[1] - 1
    stalk = capsules(at[:, :-1], at[:, 1:], at.new_full((count, 2), STALK), at.new_tensor([GREEN] * count), [name] * count)
    return [stalk, balls(at[:, -1:], at.new_tensor([thing.size[1]]), at.new_tensor([thing.texture.bright]), [name])]


def _ball(thing: Soft, at: Tensor, name: str) -> list[Figure]:
    count = at.shape[1] - 1
    string = capsules(at[:, :-1], at[:, 1:], at.new_full((count, 2), STRING), at.new_tensor([GREY] * count), [OTHER] * count)
    return [balls(at[:, -1:], at.new_tensor([thing.size[1]]), at.new_tensor([thing.texture.bright]), [name]), string]


def draw(scene: Scene, places: Sequence[np.ndarray], height: int, width: int) -> Drawn:
    """Draw a scene whose things are at ``places``: (T, K, 3) [m] each, as `cloth.move` and `stalks.move` give them."""
    shape = figure(scene, places)
    frames = len(shape)
    numbers = torch.tensor([255 if name == OTHER else int(name) for name in shape.names], dtype=torch.uint8)
    turn = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
    place = torch.tensor(scene.camera.position).float()
    camera = Camera(place.expand(frames, 3), turn.expand(frames, 3, 3), FIELD_OF_VIEW, (0.5, 0.5 - LENS_SHIFT))
    sun = torch.tensor(scene.light.direction).float()
    follow = tracer(shape, camera, None, sun)
    window = _Window.around(shape, camera, height, width)
    behind = _background(scene, height * SAMPLES, width * SAMPLES)
    pictures = encoded(behind[0].view(height, SAMPLES, width, SAMPLES, 3).mean((1, 3))).expand(frames, -1, -1, -1).clone()
    hits = follow((height * SAMPLES, width * SAMPLES), window.pixels(frames, SAMPLES))
    light = torch.where(_hidden(hits, window.of(behind[1], SAMPLES))[:, None], window.of(behind[0], SAMPLES).repeat(frames, 1),
                        _lit(hits, shape, scene))  # fmt: skip
    light = light.view(frames, window.rows, SAMPLES, window.columns, SAMPLES, 3).mean((2, 4))
    window.put(pictures, encoded(light))
    far = _background(scene, height, width)[1]
    hits = follow((height, width), window.pixels(frames, 1))
    nothing = _hidden(hits, window.of(far, 1))
    depth, label = far.view(1, height, width).repeat(frames, 1, 1), torch.full((frames, height, width), 255, dtype=torch.uint8)
    window.put(depth, torch.where(nothing, window.of(far, 1).repeat(frames), hits.depth))
    window.put(label, torch.where(nothing, 255, numbers[shape.part[hits.face]]).to(torch.uint8))
    flow, valid = _flow(hits, window.pixels(frames, 1), nothing, shape, camera, depth, label)
    frames8 = (pictures * 255 + 0.5).to(torch.uint8)
    return Drawn(frames8.numpy(), depth.numpy(), label.numpy(), flow.numpy(), valid.numpy())


@dataclass(frozen=True)
class _Window:
    """The part of the picture in which anything is ever seen, in pixels: first row and column, how many of each, the width."""

    top: int
    left: int
    rows: int
    columns: int
    height: int
    width: int

    @classmethod
    def around(cls, shape: Figure, camera: Camera, height: int, width: int) -> _Window:
        """Return the window around all vertices of all frames; one pixel in the middle where nothing is in the picture."""
        seen, _ = camera.project(shape.vertices, (height, width))
        low, high = seen.flatten(0, 1).amin(0).floor().long() - 1, seen.flatten(0, 1).amax(0).ceil().long() + 1
        (left, top), (right, bottom) = low.clamp(min=0).tolist(), high.tolist()
        left, top = min(left, width - 1), min(top, height - 1)
        return cls(top, left, max(1, min(bottom, height) - top), max(1, min(right, width) - left), height, width)

    def inside(self, samples: int) -> Tensor:
        """Return the indices (n,) of its rays in a frame."""
        i = torch.arange(self.top * samples, (self.top + self.rows) * samples)
        j = torch.arange(self.left * samples, (self.left + self.columns) * samples)
        return (i[:, None] * self.width * samples + j).flatten()

    def pixels(self, frames: int, samples: int) -> Tensor:
        """Return the indices (frames n,) of its rays in a clip."""
        return (torch.arange(frames)[:, None] * self.height * self.width * samples**2 + self.inside(samples)).flatten()

    def of(self, picture: Tensor, samples: int) -> Tensor:
        """Return what of a picture (H W, ...) lies in it."""
        return picture[self.inside(samples)]

    def put(self, clip: Tensor, values: Tensor) -> None:
        """Write values (frames n, ...) into a clip (T, H, W, ...)."""
        part = clip[:, self.top : self.top + self.rows, self.left : self.left + self.columns]
        part.copy_(values.view(part.shape))


def _hidden(hits: Hits, far: Tensor) -> Tensor:
    """Where the background is nearer than what a ray met, or it met nothing."""
    return (hits.face < 0) | (hits.depth > far.repeat(len(hits.depth) // len(far)))


def _pattern(texture: Texture, points: Tensor) -> Tensor:
    """Linear colours (..., 3) of a texture at points (..., 3)."""
    waves, amplitudes = torch.tensor(texture.waves), torch.tensor(texture.amplitudes)
    s = ((points @ waves[:, :3].T + waves[:, 3]).sin() * amplitudes).sum(-1)
    dark, bright = linear(torch.tensor(texture.dark)), linear(torch.tensor(texture.bright))
    return torch.lerp(dark, bright, (0.5 + 0.5 * torch.tanh(texture.sharpness * s))[..., None])


def _background(scene: Scene, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Linear colours (H W, 3) and depths (H W,) of floor and wall, as `visviva.data.scenes.world` builds them."""
    rays = torch.from_numpy(camera_rays(height, width)).float().view(-1, 3)
    rays = torch.stack([rays[:, 0], -rays[:, 2], rays[:, 1]], -1) / -rays[:, 2:]  # one metre deep, in the world
    place = torch.tensor(scene.camera.position).float()
    wall = WALL_DEPTH * scene.camera.view / 2.4 - place[1]
    floor = torch.where(rays[:, 2] < 0, -place[2] / rays[:, 2].clamp(max=-1e-6), torch.inf)
    depth = torch.minimum(floor, wall)
    points = place + depth[:, None] * rays
    light = torch.tensor([scene.light.direction, scene.light.colour, scene.light.ambient]).float()
    lit = [light[1] * facing.clamp(min=0) + light[2] for facing in (light[0, 2], -light[0, 1])]
    below = _pattern(scene.floor, points) * lit[0]
    return torch.where((floor < wall)[:, None], below, _pattern(scene.wall, points) * lit[1]), depth


def _lit(hits: Hits, shape: Figure, scene: Scene) -> Tensor:
    """Linear colours (n, 3) of what the rays met of the figure; black elsewhere."""
    drawn = (hits.face >= 0).nonzero()[:, 0]
    corners, weights = shape.faces[hits.face[drawn]], hits.weights[drawn]
    normal = torch.einsum("nk,nki->ni", weights, shape.normals[hits.frame[drawn, None], corners])
    normal = normal / normal.norm(dim=-1, keepdim=True).clamp(min=1e-9)
    normal = torch.where((normal * hits.ray[drawn]).sum(-1, keepdim=True) > 0, -normal, normal)  # cloth has two sides
    light = torch.tensor([scene.light.direction, scene.light.colour, scene.light.ambient]).float()
    albedo = torch.einsum("nk,nki->ni", weights, linear(shape.colours)[corners])
    out = torch.zeros(len(hits.depth), 3)
    out[drawn] = albedo * (light[1] * (normal @ light[0]).clamp(min=0)[:, None] + light[2])
    return out


def _flow(
    hits: Hits, pixels: Tensor, nothing: Tensor, shape: Figure, camera: Camera, depth: Tensor, label: Tensor
) -> tuple[Tensor, Tensor]:
    """Flow (T-1, 2, H, W) of the pixel centres and where it is valid: the target inside, and not hidden there."""
    frames, height, width = depth.shape
    flow, valid = torch.zeros(frames - 1, 2, height, width), label[1:] == label[:-1]
    here = (~nothing & (hits.frame < frames - 1)).nonzero()[:, 0]
    t, pixel = hits.frame[here], pixels[here] % (height * width)
    i, j = pixel // width, pixel % width
    moved = torch.einsum("nk,nki->ni", hits.weights[here], shape.vertices[t[:, None] + 1, shape.faces[hits.face[here]]])
    target, far = (x[0] for x in replace(camera, position=camera.position[:1], rotation=camera.rotation[:1]).project(
        moved[None], (height, width)))  # fmt: skip
    target = target - 0.5
    flow[t, :, i, j] = target - torch.stack([j, i], -1)
    u, v = target.round().long().unbind(-1)
    seen = (u >= 0) & (u < width) & (v >= 0) & (v < height)
    u, v = u.clamp(0, width - 1), v.clamp(0, height - 1)
    valid[t, i, j] = seen & ((label[t + 1, v, u] == label[t, i, j]) | (far <= depth[t + 1, v, u] * 1.001))
    return flow, valid


def batch(drawn: Sequence[Drawn]) -> Images:
    """Put pictures of several scenes together."""
    return Images(*(np.stack([getattr(one, name) for one in drawn]) for name in ("frames", "depth", "label")))
