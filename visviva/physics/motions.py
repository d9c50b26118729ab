"""Motions of drawn scenes with known mechanics: what laws are calibrated on, with exact contact, scale and rotation.

`draw` makes scenes of a kind; the same seed gives the same motions at every size and frame rate. The motions themselves stand
in `visviva.physics.courses`. The motion of a scene can be run again with other parameters (`Sprites.driven`), which is how
`visviva.physics.violations` makes a body fall with a wrong g or gain energy at a bounce.

Example::

    scene = draw("bounces", 8, seed=0)
    scene.render().frames, scene.contact, scene.metres
    low = scene.driven(dataclasses.replace(scene.motion, restitution=0.1 * torch.ones(8)))
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from visviva.errors import InputError, closest
from visviva.physics.courses import BOUNCES, PUSH, SUBSTEPS, Bounces, Collides, Falls, Pushes, Rolls, Slides, Spins, Swings
from visviva.physics.sprites import Motion, Sprites, random_sprites, random_texture, sprites

__all__ = [
    "BOUNCES",
    "GRAVITY",
    "KINDS",
    "MAKERS",
    "SUBSTEPS",
    "Bounces",
    "Collides",
    "Falls",
    "Pushes",
    "Rolls",
    "Slides",
    "Spins",
    "Swings",
    "draw",
]

GRAVITY = 9.81
"""Acceleration of free fall [m/s^2], from which the scale of a scene follows."""


class _Dice:
    """Uniform random numbers in a scene's own units: ``px`` is the image's side, ``s`` the clip's length."""

    def __init__(self, count: int, objects: int, times: Tensor, size: int, thickest: float, seed: int) -> None:
        self.count, self.objects, self.times = count, objects, times
        self.px, self.s = float(size), float(times[-1])
        self.generator = torch.Generator().manual_seed(seed)
        self.radius = self(0.08, thickest, objects) * size

    def __call__(self, low: float, high: float, *shape: int) -> Tensor:
        """Return numbers of shape (count, *shape)."""
        return low + (high - low) * torch.rand(self.count, *shape, generator=self.generator)

    def sign(self) -> Tensor:
        """Return -1 or 1 for each scene."""
        return torch.sign(self(-1, 1) + 1e-9)

    def placed(self, motion: Any) -> Any:
        """Return the motion with a random start from which it stays in view, where the image is large enough for it."""
        path = replace(motion, start=torch.zeros(self.count, self.objects, 2)).course().trajectory
        low, high = path.amin(1), path.amax(1)
        edge = self.radius[..., None] + 2
        room = (self.px - 1 - 2 * edge - (high - low)).clamp(min=0)
        return replace(motion, start=edge - low + room * self(0, 1, self.objects, 2))


def _falls(dice: _Dice, kind: type[Falls] = Falls, spin: float = 0.0) -> Any:
    velocity = torch.stack([dice(-0.3, 0.3, dice.objects), dice(-0.4, 0.1, dice.objects)], dim=-1) * dice.px / dice.s
    gravity = 2 * dice(0.25, 0.55) * dice.px / dice.s**2
    turning = (dice.sign() * dice(0.35, 1.0))[:, None] * spin / dice.s * torch.ones(dice.count, dice.objects)
    return dice.placed(kind(dice.times, torch.zeros(dice.count, dice.objects, 2), velocity, gravity, turning))


def _spins(dice: _Dice) -> Any:
    return _falls(dice, Spins, spin=3.0)


def _bounces(dice: _Dice) -> Any:
    drop, floor = dice(0.2, 0.3) * dice.px, dice(0.72, 0.85) * dice.px
    gravity = 2 * drop / (dice(0.3, 0.5) * dice.s).square()
    velocity = torch.stack([dice(-0.4, 0.4, 1) * dice.px / dice.s, torch.zeros(dice.count, 1)], dim=-1)
    across = velocity[:, 0, 0] * dice.s
    edge = dice.radius[:, 0] + 2
    left = edge - across.clamp(max=0) + dice(0, 1) * (dice.px - 1 - 2 * edge - across.abs()).clamp(min=0)
    start = torch.stack([left, floor - drop], dim=-1)[:, None]
    return Bounces(dice.times, start, velocity, gravity, dice(0.3, 0.9), floor)


def _collides(dice: _Dice) -> Any:
    reach, mass = dice.radius.sum(-1), dice.radius.square()
    towards, aside = dice(0, 2 * math.pi), dice(-0.7, 0.7)
    normal = torch.stack([torch.cos(towards), torch.sin(towards)], dim=-1)
    way = -torch.stack([torch.cos(towards + aside), torch.sin(towards + aside)], dim=-1)
    closing = (dice(0.7, 1.2) * dice.px / dice.s)[:, None] * way
    common = dice(-0.15, 0.15, 2) * dice.px / dice.s
    share = torch.stack([-mass[:, 1], mass[:, 0]], dim=-1) / mass.sum(-1, keepdim=True)
    velocity = common[:, None] + share[..., None] * closing[:, None]
    touch = dice.px * dice(0.4, 0.6, 2)[:, None] + share[..., None] * (reach[:, None] * normal)[:, None]
    start = touch - velocity * (dice(0.35, 0.6) * dice.s)[:, None, None]
    return Collides(dice.times, start, velocity, dice.radius, dice(0.3, 1.0), torch.zeros(dice.count))


def _swings(dice: _Dice) -> Any:
    pivot = torch.stack([dice(0.42, 0.58), dice(0.1, 0.25)], dim=-1) * dice.px
    length, theta = dice(0.4, 0.55) * dice.px, dice.sign() * dice(0.35, 0.8)
    gravity = (2 * math.pi * dice(0.45, 0.8) / dice.s).square() * length
    return Swings(dice.times, pivot, length, gravity, dice(0.1, 0.6) / dice.s, theta, torch.zeros(dice.count))


def _slides(dice: _Dice) -> Any:
    towards, way, stop = dice(0, 2 * math.pi), dice(0.3, 0.5) * dice.px, dice(0.5, 0.85) * dice.s
    speed = 2 * way / stop
    velocity = (speed[:, None] * torch.stack([torch.cos(towards), torch.sin(towards)], dim=-1))[:, None]
    return dice.placed(Slides(dice.times, torch.zeros(dice.count, 1, 2), velocity, speed / stop))


def _rolls(dice: _Dice) -> Any:
    way, share, slope = dice(0.35, 0.55) * dice.px, dice(0.2, 0.8), dice(0.05, 0.4)
    heading = torch.stack([dice.sign() * torch.cos(slope), torch.sin(slope)], dim=-1)
    speed, acceleration = (1 - share) * way / dice.s, 2 * share * way / dice.s**2
    start = torch.zeros(dice.count, 1, 2)
    return dice.placed(Rolls(dice.times, start, heading, speed, acceleration, dice.radius[:, 0]))


def _pushes(dice: _Dice) -> Any:
    """Bodies of three masses, no two that follow each other alike; all but the first are left alone in half of the scenes."""
    towards, way = dice(0, 2 * math.pi, dice.objects), dice(0.2, 0.4, dice.objects) * dice.px
    mass = 2 ** ((dice(0, 3, 1).floor() + dice(1, 3, 1).floor() * torch.arange(dice.objects)) % 3)
    pushed = (torch.arange(dice.objects) == 0) | (dice(0, 1, 1) < 0.5)
    size = mass * way / (PUSH * (1 - PUSH / 2) * dice.s**2) * pushed
    force = size[..., None] * torch.stack([torch.cos(towards), torch.sin(towards)], dim=-1)
    return dice.placed(Pushes(dice.times, torch.zeros(dice.count, dice.objects, 2), force, mass))


MAKERS: dict[str, tuple[Callable[[_Dice], Any], int]] = {  # and the number of bodies; 0: as many as are asked for
    "falls": (_falls, 0),
    "bounces": (_bounces, 1),
    "collides": (_collides, 2),
    "swings": (_swings, 1),
    "slides": (_slides, 1),
    "rolls": (_rolls, 1),
    "spins": (_spins, 1),
    "pushes": (_pushes, 0),
}
KINDS = ("moves", *MAKERS)
"""Kinds of scenes that can be drawn; ``moves`` is `visviva.physics.sprites.random_sprites`."""


def draw(kind: str, count: int, seed: int, *, frames: int = 17, fps: float = 32.0, size: int = 64, objects: int = 1) -> Sprites:
    """Draw scenes of a kind in images of ``size`` x ``size`` pixels, reproducible by seed, with whatever is known of them.

    Bodies are textured discs (``spins``: rounded bars) with radii of 8 to 12 % of the image. ``objects`` counts only for
    ``moves``, ``falls`` and ``pushes``. Scenes with gravity carry ``metres``, for g = 9.81 m/s^2, those with pushes ``force``.

    Raises:
        InputError: no such kind; fewer than three frames.

    Example::

        draw("collides", 4, seed=0, size=128).contact.any(1)  # tensor([True, True, True, True])
    """
    if kind not in KINDS:
        raise InputError(f"no kind of scene {kind!r}; draw one of {', '.join(KINDS)}" + closest(kind, KINDS))
    if frames < 3:
        raise InputError(f"{frames} frames show no acceleration; draw at least 3")
    if kind == "moves":
        radius = (5 * size / 64, 8 * size / 64)
        return random_sprites(count, seed, frames=frames, height=size, width=size, radius=radius, objects=objects)
    make, bodies = MAKERS[kind]
    dice = _Dice(count, bodies or objects, torch.arange(frames) / fps, size, 0.1 if kind == "spins" else 0.12, seed)
    background, texture, alpha = _bodies(dice, long=kind == "spins")
    motion = _fitting(dice, make)
    if kind == "bounces":
        background = _with_floor(background, motion.floor + dice.radius[:, 0])
    still = sprites(background, texture, alpha, motion.course().trajectory)
    gravity = getattr(motion, "gravity", None)
    known = {"metres": None if gravity is None else GRAVITY / gravity, "force": getattr(motion, "commanded", None)}
    return still.with_(seed=seed, **known).driven(motion)


def _fitting(dice: _Dice, make: Callable[[_Dice], Any], tries: int = 200) -> Any:
    """Return a motion; scenes whose bodies leave the view or overlap are drawn again."""
    motion = make(dice)
    for _ in range(tries):
        bad = _unfit(motion, dice)
        if not bad.any():
            break
        motion = _either(bad, make(dice), motion)
    return motion


def _bodies(dice: _Dice, long: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Background (B, 3, H, W), textures (B, N, 3, h, w) and soft-edged opacities (B, N, h, w)."""
    size, cell = int(dice.px), dice.px / 64
    side = 2 * math.ceil(0.12 * size * 1.8) + 1
    ground = dice(0.2, 0.8, 3, 1, 1)
    apart = torch.nn.functional.normalize(torch.randn(dice.count, dice.objects, 3, 1, 1, generator=dice.generator), dim=2)
    paint = (ground[:, None] + 0.45 * apart).clamp(0.1, 0.9)
    background = ground + 0.3 * (random_texture(dice.count, size, size, 8 * cell, dice.generator) - 0.5)
    grain = random_texture(dice.count * dice.objects, side, side, 4 * cell, dice.generator) - 0.5
    texture = paint + 0.5 * grain.unflatten(0, (dice.count, dice.objects))
    across = (torch.arange(side) - side // 2).abs().float()
    if long:
        half = dice.radius[..., None, None] * torch.stack([dice(1.1, 1.5, 1), dice(0.6, 0.9, 1)])[..., None, None]
        distance = torch.maximum(across - half[0], across[:, None] - half[1])
    else:
        distance = torch.hypot(across, across[:, None]) - dice.radius[..., None, None]
    return background.clamp(0, 1), texture.clamp(0, 1), torch.sigmoid(-4 * distance)


def _with_floor(background: Tensor, top: Tensor) -> Tensor:
    """Darken the background below ``top`` (B,) [px]."""
    below = torch.arange(background.shape[-2])[None] > top[:, None]
    return background * torch.where(below, 0.7, 1.0)[:, None, :, None]


def _unfit(motion: Motion, dice: _Dice) -> Tensor:
    """Scenes in which a body leaves the view, or two overlap where they should not, shape (B,)."""
    path = motion.course().trajectory
    edge = dice.radius[:, None, :, None] + 1
    out = ((path < edge) | (path > dice.px - 1 - edge)).flatten(1).any(1)
    if path.shape[2] < 2:
        return out
    apart = torch.cdist(path, path) + torch.diag(torch.full((path.shape[2],), float("inf")))
    reach = dice.radius[:, None, :, None] + dice.radius[:, None, None]
    least = reach - 0.5 if motion.kind == "collides" else 1.3 * reach
    first = apart[:, :1] < 1.3 * reach
    return out | (apart < least).flatten(1).any(1) | first.flatten(1).any(1)


def _either(choice: Tensor, one: Any, other: Any) -> Any:
    """Return the parameters of ``one`` where ``choice`` (B,), those of ``other`` elsewhere."""
    changes = {}
    for field in fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if field.name != "times":
            changes[field.name] = torch.where(choice.view(-1, *[1] * (a.ndim - 1)), a, b)
    return replace(one, **changes)
