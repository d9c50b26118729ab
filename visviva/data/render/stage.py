"""Where a figure stands and in what light: a checkered floor that fades into the sky, one sun, colours in linear light.

    colour = albedo (sky (1 + n_z) / 2 + sun max(0, n . l))

in linear RGB, encoded to sRGB; without the sun's share where the figure's shadow falls on the floor. The
squares lose their contrast where one pixel covers several.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from visviva.data.render.camera import Camera
from visviva.data.render.figure import Figure
from visviva.errors import InputError

LEAST_SUN = 0.1
"""The sun is at least so high: the sine of its elevation."""


@dataclass(frozen=True)
class Stage:
    """Floor, light and background.

    Attributes:
        floor: its height [m], or None for no floor.
        tile: side of a square of the floor [m].
        light, dark: colours of the squares, sRGB.
        sky: of the background, sRGB.
        sun: direction towards it; None: over the camera's left shoulder in the first frame.
        strength: of sun and of sky light.
        fade: distance at which two thirds of the floor's own colour are lost in the sky's [m].

    Raises:
        InputError: squares of no size, a sun that does not stand above the horizon.
    """

    floor: float | None = 0.0
    tile: float = 0.5
    light: tuple[float, float, float] = (0.86, 0.87, 0.89)
    dark: tuple[float, float, float] = (0.70, 0.73, 0.76)
    sky: tuple[float, float, float] = (0.93, 0.95, 0.97)
    sun: tuple[float, float, float] | None = None
    strength: tuple[float, float] = (0.75, 0.45)
    fade: float = 18.0

    def __post_init__(self) -> None:
        """Refuse what cannot be lit."""
        if not (self.tile > 0 and self.fade > 0):
            raise InputError(f"a floor of squares of {self.tile:g} m that fades over {self.fade:g} m; both are more than 0")
        if self.sun is not None and not self.sun[2] > LEAST_SUN * math.hypot(*self.sun):
            raise InputError(
                f"the sun is at {self.sun}; its z, towards the zenith, must be more than {LEAST_SUN} of its length"
            )
        if self.floor is not None and not math.isfinite(self.floor):
            raise InputError(f"the floor is at {self.floor} m; give a height, or None for no floor")

    def towards_sun(self, camera: Camera) -> Float[Tensor, "3"]:
        """Return the unit vector to the sun."""
        if self.sun is not None:
            way = camera.position.new_tensor(self.sun)
        else:
            right, _, forward = camera.rotation[0]
            way = -0.8 * forward - 0.7 * right
            way = torch.cat((way[:2], way.new_tensor([1.3])))
        return way / way.norm()

    def check(self, camera: Camera) -> None:
        """Refuse a camera that does not stand above the floor (`InputError`)."""
        if self.floor is None:
            return
        under = camera.position[:, 2] < self.floor + 0.02
        if bool(under.any()):
            frame = int(under.nonzero()[0])
            raise InputError(
                f"the camera is at a height of {float(camera.position[frame, 2]):.3g} m in frame {frame}, in or under the "
                f"floor at {self.floor:.3g} m; raise it, lower the floor, or draw without one (floor=None)"
            )


@dataclass(frozen=True)
class Hits:
    """What n rays meet first.

    Attributes:
        frame: which frame's ray it is.
        ray: its direction in the world, one metre deep along the camera's axis.
        depth: along the camera's axis [m], infinite where there is nothing.
        face: of the figure, -1 for the floor and the sky.
        weights: of the face's corners at the hit; their sum is 1.
        shadow: the floor, in the figure's shadow.
    """

    frame: Int[Tensor, " n"]
    ray: Float[Tensor, "n 3"]
    depth: Float[Tensor, " n"]
    face: Int[Tensor, " n"]
    weights: Float[Tensor, "n 3"]
    shadow: Bool[Tensor, " n"]

    @property
    def floor(self) -> Bool[Tensor, " n"]:
        """Whether the ray meets the floor."""
        return (self.face < 0) & self.depth.isfinite()


def shade(hits: Hits, figure: Figure, normals: Tensor, camera: Camera, stage: Stage, focal: float, sun: Tensor) -> Tensor:
    """Return linear RGB of what the rays met, (n, 3); ``focal`` is the length in pixels for which squares are blurred."""
    image = linear(hits.depth.new_tensor(stage.sky)).expand(len(hits.depth), 3).clone()
    if stage.floor is not None:
        ground = hits.floor.nonzero()[:, 0]
        image[ground] = _floor(hits, ground, camera, stage, focal, sun)
    drawn = (hits.face >= 0).nonzero()[:, 0]
    corners, weights = figure.faces[hits.face[drawn]], hits.weights[drawn]
    normal = torch.einsum("nk,nki->ni", weights, normals[hits.frame[drawn, None], corners])
    normal = normal / normal.norm(dim=-1, keepdim=True).clamp(min=1e-9)
    albedo = linear(torch.einsum("nk,nki->ni", weights, figure.colours[corners]))
    lit = stage.strength[0] * (normal @ sun).clamp(min=0) + stage.strength[1] * (1 + normal[:, 2]) / 2
    image[drawn] = albedo * lit[:, None]
    return image


def _floor(hits: Hits, ground: Tensor, camera: Camera, stage: Stage, focal: float, sun: Tensor) -> Tensor:
    """Colours of the rays that meet the floor, (m, 3)."""
    depth, way = hits.depth[ground], hits.depth[ground, None] * hits.ray[ground]
    point = camera.position[hits.frame[ground], :2] + way[:, :2]
    wide = depth * depth / (focal * -way[:, 2])  # what a pixel covers of the floor, along the view
    wave = torch.sin(torch.pi / stage.tile * point).prod(-1)
    mix = 0.5 + 0.5 * torch.tanh(wave * (0.5 * stage.tile / wide))
    light, dark, sky = (linear(depth.new_tensor(colour)) for colour in (stage.light, stage.dark, stage.sky))
    lit = stage.strength[1] + stage.strength[0] * sun[2] * (~hits.shadow[ground])
    fade = torch.exp(-((depth / stage.fade) ** 2))
    return sky + torch.lerp(dark, light, mix[:, None]) * (lit * fade)[:, None] - sky * fade[:, None]


def linear(colour: Tensor) -> Tensor:
    """Return sRGB values in [0, 1] as linear light."""
    return torch.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)


def encoded(light: Tensor) -> Tensor:
    """Return linear light as sRGB values in [0, 1]."""
    light = light.clamp(0, 1)
    return torch.where(light <= 0.0031308, 12.92 * light, 1.055 * light.clamp(min=1e-9) ** (1 / 2.4) - 0.055)
