"""The five Newtonian motion primitives: sampled scenes whose caption and first frame determine the motion.

Each primitive has one exact constant acceleration in the image plane (x right, z up, g = 9.81 m/s^2):

    free_fall         a = (0, -g),                       v0 = 0
    horizontal_throw  a = (0, -g),                       v0 = (v, 0)
    parabolic_throw   a = (0, -g),                       v0 = v (cos angle, sin angle)
    ramp_down         a = g (sin theta - mu cos theta)   down the slope, v0 = 0
    ramp_up           a = -g (sin theta + mu cos theta)  along the slope until rest, then as ramp_down

They are those of NewtonBench-60K (NewtonRewards, arXiv 2512.00425). Every number that the caption states is rounded to the
printed grid *before* it is simulated: equal captions and equal first frames imply equal motion.
"""

from __future__ import annotations

import zlib

import numpy as np

from visviva.data.scenes.appearance import sample_light, sample_texture
from visviva.data.scenes.flight import flight
from visviva.data.scenes.ranges import Draw
from visviva.data.scenes.scene import Scene
from visviva.data.scenes.slide import slide
from visviva.errors import InputError, closest

PRIMITIVES = ("free_fall", "horizontal_throw", "parabolic_throw", "ramp_down", "ramp_up")
SPLITS = ("id", "ood")


def sample_scene(
    primitive: str, seed: int, index: int, *, split: str = "id", duration: float = 0.5, aspect: float = 1.0, objects: int = 3
) -> Scene:
    """Draw scene ``index`` of a primitive; it depends on its arguments only, not on how many scenes are drawn.

    Args:
        primitive: one of `PRIMITIVES`.
        seed: the seed of the whole set.
        index: which scene of the set.
        split: ``"id"`` or ``"ood"``; out of distribution on the axes `visviva.data.scenes.ranges.AXIS` of the primitive.
        duration: length of the clip [s]; sets the Froude scale.
        aspect: image width over height.
        objects: largest number of objects in falls and throws.

    Raises:
        InputError: the primitive or the split is unknown, or the picture is too narrow for the path.

    >>> sample_scene("free_fall", seed=0, index=0).numbers["view"]
    2.51
    """
    if primitive not in PRIMITIVES:
        raise InputError(f"unknown primitive {primitive!r}; allowed: {', '.join(PRIMITIVES)}{closest(primitive, PRIMITIVES)}")
    if split not in SPLITS:
        raise InputError(f"unknown split {split!r}; allowed: {', '.join(SPLITS)}")
    rng = np.random.default_rng([seed, zlib.crc32(f"{primitive}/{split}".encode()), index])
    draw = Draw(rng, primitive, split, duration, aspect, objects)
    view = round(float(rng.uniform(2.16, 2.64)) * draw.scale, 2)
    side = 1 if rng.random() < 0.5 else -1
    parts = (slide if primitive.startswith("ramp") else flight)(draw, view, side)
    return Scene(
        primitive=primitive,
        split=split,
        name=f"{primitive}-{split}-{seed}-{index}",
        light=sample_light(rng),
        wall=sample_texture(rng, "wall", draw.scale),
        floor=sample_texture(rng, "floor", draw.scale),
        **parts,
    )
