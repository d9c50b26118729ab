"""Scenes in a steady wind in the picture's plane: flags (cloth) and plants (rods); pennants and hanging balls, never trained.

All hang or stand at rest in the first frame; from then on the wind blows at full strength, as in the flags of Force Prompting
(arXiv 2505.19386, section 4), whose kept frames begin when the wind sets in. A wind w pulls a surface of normal n, area A and
velocity v with

    F = c A [(n.u) n + TANGENT (u - (n.u) n)],     u = w - v,

linear in the speed, and a ball with F = c_b u. The coefficients follow from `RATIO`: force over weight at full wind, across the
surface. So a surface that hangs from its upper edge comes to rest at tan(angle) = RATIO share, with no further constant. Sizes,
coefficients and colours are ours. All lengths of these scenes are those of a clip of 0.5 s. A clip of another
duration T is the same picture in Froude scale: lengths grow with T^2, speeds with T.
"""

from __future__ import annotations

import colorsys
import math
import zlib
from dataclasses import dataclass, replace

import numpy as np

from visviva.data.scenes.appearance import Texture, sample_light, sample_texture
from visviva.data.scenes.rotation import Vector
from visviva.data.scenes.scene import Camera, Scene
from visviva.errors import InputError

WINDS = ("flag", "plant", "pennant", "hanging_ball")
"""Kinds of scene; the last two are for tests of what was never trained."""
RATIO = {"flag": 3.0, "plant": 1.6, "pennant": 3.0, "hanging_ball": 2.0}
"""Force of the full wind over the weight of cloth, of a plant's blossom, of a ball."""
TANGENT = 0.3
"""Force along a surface over that across it, at equal speeds."""
FULL = 8.0
"""Speed of the full wind [m/s] in a clip of 0.5 s."""
STILL = 0.08
"""Share of scenes without wind."""
VIEW, HEIGHT = 2.4, 1.12
UNIT = 0.5
"""Duration of the clip whose lengths these are [s]."""


@dataclass(frozen=True)
class Soft:
    """A thing that bends.

    Attributes:
        shape: one of `WINDS`.
        root: where it is held: the upper end of a flag's side, the foot of a stalk, the hook of a string [m].
        size: length and height of a flag; height of a stalk, radius of its blossom; length of a string, radius of its ball [m].
        turn: direction of a flag's length as it is sewn on, about the vertical [rad]; it then hangs down.
        held: a flag's whole ``"edge"``, its two ``"corners"``, or (a banner) all of its ``"top"``; for others nothing.
        texture: colours and pattern.
    """

    shape: str
    root: Vector
    size: tuple[float, float]
    turn: float
    held: str
    texture: Texture


@dataclass(frozen=True)
class Breeze:
    """Wind of all of a clip: ``angle`` [degrees], whereto, 0 right, 90 up; ``speed`` in [0, 1], of `FULL`."""

    angle: float
    speed: float

    @property
    def prompt(self) -> str:
        """The force prompt, as ``visviva generate --force`` takes it."""
        return f"wind:angle={self.angle:g},speed={self.speed:g}"

    @property
    def velocity(self) -> np.ndarray:
        """Velocity (3,) [m/s] in a clip of 0.5 s."""
        angle = math.radians(self.angle)
        return FULL * self.speed * np.array([math.cos(angle), 0.0, math.sin(angle)])


def sample_wind(kind: str, seed: int, index: int, *, duration: float = 0.5, objects: int = 3) -> Scene:
    """Draw scene ``index`` of a kind of `WINDS`; it depends on its arguments only.

    Args:
        kind: see `WINDS`.
        seed: the seed of the whole set; ``index``: which scene of it.
        duration: length of the clip [s].
        objects: largest number of stalks; of flags there are one or, where that is 2 or more, two.

    Raises:
        InputError: no such kind.
    """
    if kind not in WINDS:
        raise InputError(f"no scene {kind!r} in the wind; kinds are {', '.join(WINDS)}")
    rng = np.random.default_rng([seed, zlib.crc32(kind.encode()), index])
    s = (duration / UNIT) ** 2
    speed = 0.0 if rng.random() < STILL else float(rng.uniform())
    wind = Breeze(round(float(rng.uniform(0, 360)), 2), round(speed, 4))
    things = _stalks(rng, objects) if kind == "plant" else _hung(kind, rng, objects)
    return Scene(
        primitive=kind,
        split="id",
        name=f"{kind}-{seed}-{index}",
        bodies=(),
        camera=Camera(VIEW, (0.0, HEIGHT)),
        light=sample_light(rng),
        wall=sample_texture(rng, "wall"),
        floor=sample_texture(rng, "floor"),
        numbers={"view": VIEW * s},
        soft=things,
        wind=wind,
    )


def _hung(kind: str, rng: np.random.Generator, objects: int) -> tuple[Soft, ...]:
    """Draw one thing that hangs, or two smaller ones side by side."""
    two = objects > 1 and rng.random() < 0.3
    things = []
    for side in (-1, 1) if two else (0,):
        scale = 0.7 if two else 1.0
        x, turn = 0.62 * side + rng.uniform(-0.1, 0.1) * (1 if two else 2.5), rng.uniform(-0.6, 0.6) + math.pi * rng.integers(2)
        if kind == "hanging_ball":
            root, size = (x, 0.0, 2.2), (rng.uniform(0.8, 1.25), scale * rng.uniform(0.15, 0.22))
        else:
            low = (0.45, 0.62) if kind == "flag" else (0.4, 0.5)
            root, size = (x, 0.0, rng.uniform(1.45, 1.6)), (scale * rng.uniform(0.72, 0.95), scale * rng.uniform(*low))
        held = str(rng.choice(["edge", "corners"])) if kind == "flag" else ""
        things.append(Soft(kind, root, size, float(turn), held, _plain(rng)))
    return tuple(things)


def _stalks(rng: np.random.Generator, objects: int) -> tuple[Soft, ...]:
    """Draw stalks with blossoms that stand side by side."""
    count = int(rng.integers(1, objects + 1))
    gap = 1.3 / count
    things = []
    for i in range(count):
        x = gap * (i - (count - 1) / 2) + rng.uniform(-0.3, 0.3) * gap
        size = (rng.uniform(0.85, 1.35), rng.uniform(0.12, 0.19))
        things.append(Soft("plant", (x, 0.15 * (i % 2), 0.0), size, 0.0, "", _plain(rng)))
    return tuple(things)


def _plain(rng: np.random.Generator) -> Texture:
    """Draw a pattern in two shades of one hue."""
    hue = rng.uniform()
    dark = colorsys.hsv_to_rgb(hue, rng.uniform(0.85, 1.0), rng.uniform(0.35, 0.55))
    bright = colorsys.hsv_to_rgb(hue, rng.uniform(0.5, 0.8), rng.uniform(0.85, 1.0))
    return replace(sample_texture(rng, "object", 2.0), dark=dark, bright=bright)
