"""Drawn scenes with exact optical flow: textured and plain layers in affine motion over a background, by the batch.

A layer is a look (a texture of a bank under a random colour map, or plain), a shape (a signed distance of a bank) and a motion:
a point x of the first frame is at ``c + t + M (x - c)`` in the second, and the camera's affine map comes on top. Frames are
composed from back to front; the flow of a pixel is the motion of the uppermost layer that covers more than half of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

TEXELS, REACH = 64, 1.6
"""Side of a texture and of a shape, and how far a shape's map reaches, in radii."""


@dataclass(frozen=True)
class Bank:
    """What to draw: textures (K, 3, 64, 64) of zero mean; shapes (K, 1, 64, 64), signed distances over [-REACH, REACH]^2."""

    textures: Tensor
    shapes: Tensor

    def to(self, device: str) -> Bank:
        """Return the bank on a device."""
        return Bank(self.textures.to(device), self.shapes.to(device))


@dataclass(frozen=True)
class Pair:
    """Two frames (M, 3, H, W) in [0, 1] and the flow from the first to the second (M, 2, H, W) [px]."""

    first: Tensor
    second: Tensor
    flow: Tensor


def bank(count: int, seed: int) -> Bank:
    """Draw a bank of looks and shapes.

    Textures are noise with a power spectrum ``f^-a``, smooth, hardened to patches, or stripes and checks; shapes are
    superellipses (from diamonds over ellipses to boxes) with a wavy outline.
    """
    rng = torch.Generator().manual_seed(seed)
    f = torch.fft.fftfreq(TEXELS)
    frequency = torch.hypot(f[:, None], f[None]).clamp(min=1 / TEXELS)
    exponent = 0.5 + 2.2 * torch.rand(count, 1, 1, 1, generator=rng)
    noise = torch.fft.fft2(torch.randn(count, 4, TEXELS, TEXELS, generator=rng)) * frequency**-exponent
    noise = torch.fft.ifft2(noise * (frequency < 0.35)).real
    noise = noise[:, :3] * torch.rand(count, 1, 1, 1, generator=rng) + noise[:, 3:]
    at = torch.linspace(0, 2 * math.pi, TEXELS + 1)[:-1]
    waves = torch.randint(1, 9, (count, 4, 1, 1), generator=rng).float()
    stripes = torch.sin(waves[:, :1] * at[:, None] + waves[:, 1:2] * at) + torch.sin(
        waves[:, 2:3] * at[:, None] - waves[:, 3:] * at
    )
    kind = torch.rand(count, 1, 1, 1, generator=rng)
    textures = torch.where(kind < 0.2, stripes.expand(-1, 3, -1, -1) + 0.2 * _standard(noise), noise)
    hard = torch.rand(count, 1, 1, 1, generator=rng) < 0.4
    textures = _standard(torch.where(hard, torch.tanh(4 * _standard(textures)), textures))
    return Bank(textures, _shapes(count, rng))


def _standard(maps: Tensor) -> Tensor:
    maps = maps - maps.mean((-2, -1), keepdim=True)
    return maps / maps.square().mean((-3, -2, -1), keepdim=True).sqrt().clamp(min=1e-6)


def _shapes(count: int, rng: torch.Generator) -> Tensor:
    at = torch.linspace(-REACH, REACH, TEXELS)
    ys, xs = torch.meshgrid(at, at, indexing="ij")
    aspect = torch.exp(0.9 * (torch.rand(count, 1, 1, generator=rng) - 0.5))
    power = torch.tensor([1.3, 2.0, 2.0, 2.0, 4.0, 12.0])[torch.randint(6, (count, 1, 1), generator=rng)]
    radius = ((xs.abs() / aspect) ** power + (ys.abs() * aspect) ** power) ** (1 / power)
    waves = torch.randint(2, 7, (count, 1, 1), generator=rng)
    depth = 0.35 * torch.rand(count, 1, 1, generator=rng) * (torch.rand(count, 1, 1, generator=rng) < 0.4)
    turn = 2 * math.pi * torch.rand(count, 1, 1, generator=rng)
    return (1 - radius / (1 + depth * torch.cos(waves * torch.atan2(ys, xs) + turn)))[:, None]


@dataclass(frozen=True)
class Layers:
    """B scenes of L layers, the first of them the background.

    Attributes:
        looks, shapes: which of the bank's, (B, L).
        paint, contrast: mean colour and strength of the texture, (B, L, 3).
        grain: texels per pixel, (B, L); turn: angle of look and shape, (B, L); radius: of the shape, (B, L) [px].
        centre, shift, growth: c, t and M - 1 of the motion, (B, L, 2), (B, L, 2), (B, L, 2, 2) [px].
        pan, zoom: of the camera, about the middle of the image, (B, 1, 2), (B, 1, 2, 2).
        side: of the square image [px].
    """

    bank: Bank
    looks: Tensor
    shapes: Tensor
    paint: Tensor
    contrast: Tensor
    grain: Tensor
    turn: Tensor
    radius: Tensor
    centre: Tensor
    shift: Tensor
    growth: Tensor
    pan: Tensor
    zoom: Tensor
    side: int

    def frame(self, time: float) -> tuple[Tensor, Tensor]:
        """Return the picture at a time, 0 the first and 1 the second frame, (B, 3, H, W), and the uppermost layer (B, H, W)."""
        scenes, count = self.looks.shape
        grid = self._local(time)
        look = self.bank.textures[self.looks.flatten()]
        scale = self.grain.view(-1, 1, 1, 1) * (2 / TEXELS)
        colour = grid_sample(look, grid * scale, padding_mode="reflection", align_corners=False)
        colour = self.paint[..., None, None] + self.contrast[..., None, None] * colour.unflatten(0, (scenes, count))
        shape, radius = self.bank.shapes[self.shapes.flatten()], self.radius.view(-1, 1, 1, 1)
        apart = grid_sample(shape, grid / (radius * REACH), padding_mode="border", align_corners=True) * radius
        cover = (apart + 0.5).clamp(0, 1).unflatten(0, (scenes, count))
        picture, top = colour[:, 0], torch.zeros(scenes, self.side, self.side, dtype=torch.long, device=colour.device)
        for layer in range(1, count):
            picture = torch.lerp(picture, colour[:, layer], cover[:, layer])
            top = torch.where(cover[:, layer, 0] > 0.5, layer, top)
        return picture.clamp(0, 1), top

    def _local(self, time: float) -> Tensor:
        """Coordinates of the pixels in each layer's own frame [px], (B L, H, W, 2)."""
        eye, middle = torch.eye(2, device=self.pan.device), (self.side - 1) / 2
        camera = torch.linalg.inv(eye + time * self.zoom)
        back = _rotation(self.turn) @ torch.linalg.inv(eye + time * self.growth)
        seen = torch.einsum("blij,blj->bli", camera, middle + time * self.pan)
        constant = torch.einsum("blij,blj->bli", back, middle - self.centre - time * self.shift - seen)
        return _affine(back @ camera, constant, self.side)

    def pair(self, shutter: float = 0.0) -> Pair:
        """Return both frames and the flow; each frame is the mean of three instants, ``shutter`` of the interval long."""
        (first, top), (second, _) = self.frame(0.0), self.frame(1.0)
        for away in (-shutter / 2, shutter / 2) if shutter else ():
            first, second = first + self.frame(away)[0], second + self.frame(1 + away)[0]
        if shutter:
            first, second = first / 3, second / 3
        eye, middle = torch.eye(2, device=self.pan.device), (self.side - 1) / 2
        grown, camera = eye + self.growth, eye + self.zoom
        fixed = self.centre + self.shift - torch.einsum("blij,blj->bli", grown, self.centre) - middle
        constant = middle + self.pan + torch.einsum("blij,blj->bli", camera, fixed)
        every = _affine(camera @ grown - eye, constant, self.side).unflatten(0, self.looks.shape)
        chosen = top[:, None, :, :, None].expand(-1, 1, -1, -1, 2)
        return Pair(first, second, every.gather(1, chosen)[:, 0].movedim(-1, 1))


def _rotation(angle: Tensor) -> Tensor:
    cos, sin = torch.cos(angle), torch.sin(angle)
    return torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)


def _affine(linear: Tensor, constant: Tensor, side: int) -> Tensor:
    """``linear x + constant`` at every pixel x, (B L, H, W, 2)."""
    at = torch.arange(side, dtype=torch.float32, device=linear.device)
    pixels = torch.stack([at[None].expand(side, side), at[:, None].expand(side, side)], -1).view(1, -1, 2)
    return (pixels @ linear.flatten(0, 1).mT + constant.flatten(0, 1)[:, None]).view(-1, side, side, 2)


def draw(scenes: int, side: int, bank: Bank, rng: torch.Generator) -> Layers:
    """Draw scenes of one to six objects; motions from a fiftieth of a pixel to a fifth of the image, many things at rest.

    ``rng`` is a generator of the processor; the layers are where the bank is.
    """
    count = 1 + int(torch.randint(1, 7, (), generator=rng))
    shape = (scenes, count)

    def uniform(low: float, high: float, *more: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, *more, generator=rng)

    def chance(share: float, *more: int) -> Tensor:
        return (torch.rand(*shape, *more, generator=rng) < share).float()

    def direction() -> Tensor:
        angle = uniform(0, 2 * math.pi)
        return torch.stack([torch.cos(angle), torch.sin(angle)], -1)

    radius = torch.exp(uniform(math.log(3.0), math.log(0.33 * side)))
    still = torch.cat([torch.ones(scenes, 1), chance(0.15)[:, 1:]], 1)
    speed = side * torch.exp(uniform(math.log(0.003), math.log(0.2))) * (1 - still)
    turning = (0.15 * torch.randn(shape, generator=rng)) * chance(0.4) * (1 - still)
    stretch = 0.06 * torch.randn(*shape, 2, 2, generator=rng) * (chance(0.3) * (1 - still))[..., None, None]
    growth = _rotation(turning) @ (torch.eye(2) + stretch) - torch.eye(2)
    pan, zoom = _camera(scenes, side, rng)
    plain = chance(0.25)[..., None]
    contrast = torch.exp(uniform(math.log(0.02), math.log(0.3), 1)) * uniform(0.5, 1.0, 3) * (1 - plain)
    paint = torch.lerp(torch.rand(scenes, 1, 3, generator=rng), uniform(0.05, 0.95, 3), uniform(0.15, 1.0, 1))
    drawn = {
        "looks": torch.randint(len(bank.textures), shape, generator=rng),
        "shapes": torch.randint(len(bank.shapes), shape, generator=rng),
        "paint": paint,
        "contrast": contrast,
        "grain": torch.exp(uniform(math.log(0.25), math.log(1.1))),
        "turn": uniform(0, 2 * math.pi),
        "radius": radius,
        "centre": uniform(-0.05 * side, 1.05 * side, 2),
        "shift": speed[..., None] * direction(),
        "growth": growth,
        "pan": pan,
        "zoom": zoom,
    }
    device = bank.textures.device
    return Layers(bank=bank, side=side, **{name: tensor.to(device) for name, tensor in drawn.items()})


def _camera(scenes: int, side: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pan and zoom of the camera; it stands still in a little more than half of the scenes."""
    moving = (torch.rand(scenes, 1, generator=rng) < 0.45).float()
    size = side * torch.exp(math.log(0.002) + math.log(50.0) * torch.rand(scenes, 1, generator=rng)) * moving
    angle = 2 * math.pi * torch.rand(scenes, 1, generator=rng)
    pan = size[..., None] * torch.stack([torch.cos(angle), torch.sin(angle)], -1)
    roll = 0.03 * torch.randn(scenes, 1, generator=rng) * moving
    nearer = 1 + 0.02 * torch.randn(scenes, 1, 1, 1, generator=rng) * moving[..., None, None]
    return pan, nearer * _rotation(roll) - torch.eye(2)
