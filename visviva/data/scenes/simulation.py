"""Simulated clips with ground truth: sample scenes, move them, draw them, many worlds at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch

from visviva.data.clip import Clip
from visviva.data.scenes import blown, dynamics, render, rolling, truth, world
from visviva.data.scenes.caption import caption
from visviva.data.scenes.primitives import PRIMITIVES, sample_scene
from visviva.data.scenes.push import PUSHES, sample_push
from visviva.data.scenes.scene import Scene
from visviva.data.scenes.wind import WINDS, sample_wind
from visviva.errors import InputError, closest
from visviva.physics.quiet import quiet

BATCH = 128


@dataclass(frozen=True)
class Shot:
    """How the clips of a set are made; all of it but ``device`` determines the pictures.

    Attributes:
        size: image height and width [px].
        frames: frames per clip.
        fps: frames per second; (frames - 1) / fps is the duration, which sets the scale of the scene.
        objects: largest number of objects in falls and throws.
        split: ``"id"`` or ``"ood"`` (see `visviva.data.scenes.ranges.RANGES`).
        seed: seed of the set.
        device: Warp device, ``"cpu"`` or ``"cuda:0"``.
        flow: also compute optical flow and its validity.
        renderer: ``"warp"`` or ``"blender"``.
    """

    size: tuple[int, int] = (64, 64)
    frames: int = 17
    fps: float = 32.0
    objects: int = 3
    split: str = "id"
    seed: int = 0
    device: str = "cpu"
    flow: bool = True
    renderer: str = "warp"

    @property
    def duration(self) -> float:
        """Time from the first to the last frame [s]."""
        return (self.frames - 1) / self.fps

    def scene(self, primitive: str, index: int) -> Scene:
        """Scene ``index`` of a primitive in this set."""
        aspect = self.size[1] / self.size[0]
        if primitive in PUSHES:
            return sample_push(primitive, self.seed, index, duration=self.duration, aspect=aspect, objects=self.objects)
        if primitive in WINDS:
            return sample_wind(primitive, self.seed, index, duration=self.duration, objects=self.objects)
        return sample_scene(
            primitive, self.seed, index, split=self.split, duration=self.duration, aspect=aspect, objects=self.objects
        )


Slot = tuple[int, str, int]
"""Index of a clip in its set, its primitive, and its index among the clips of that primitive."""


def simulate(
    primitive: str | Sequence[str] = PRIMITIVES,
    n: int = 5,
    seed: int = 0,
    *,
    split: str = "id",
    height: int = 64,
    width: int = 64,
    frames: int = 17,
    fps: float = 32.0,
    objects: int = 3,
    device: str = "cpu",
    flow: bool = True,
    renderer: str = "warp",
) -> list[Clip]:
    """Simulate ``n`` clips of the primitives in turn (clip i is of primitive i modulo their number).

    Clip i depends on the arguments and i alone: the first clips of a longer set are the clips of a shorter one.
    ``primitive`` is one of `PRIMITIVES`, `PUSHES` and `WINDS` or several, one named twice comes twice as often;
    the other arguments are those of `Shot`.

    Example::

        clips = simulate("parabolic_throw", n=8, seed=1)
        clips[0].caption, clips[0].frames.shape
    """
    shot = Shot((height, width), frames, fps, objects, split, seed, device, flow, renderer)
    chosen = [primitive] if isinstance(primitive, str) else list(primitive)
    with quiet():
        clips = dict(pair for batch in plan(shot, chosen, range(n), BATCH) for pair in shoot(shot, batch))
    return [clips[i] for i in range(n)]


def plan(shot: Shot, primitives: Sequence[str], indices: Iterable[int], batch: int) -> list[list[Slot]]:
    """Divide the clips of a set into batches of at most ``batch`` clips that can be simulated together."""
    if shot.frames < 2 or shot.fps <= 0:
        raise InputError(f"a clip needs frames >= 2 and fps > 0; given frames {shot.frames} and fps {shot.fps}")
    known = (*PRIMITIVES, *PUSHES, *WINDS)
    for name in primitives:
        if name not in known:
            raise InputError(f"unknown primitive {name!r}; allowed: {', '.join(known)}{closest(name, known)}")
    slots = [_slot(i, primitives) for i in indices]
    kinds = [[s for s in slots if _kind(s[1]) == kind] for kind in sorted({_kind(name) for name in primitives})]
    return [kind[i : i + batch] for kind in kinds for i in range(0, len(kind), batch)]


def _slot(index: int, primitives: Sequence[str]) -> Slot:
    """What clip ``index`` shows; a primitive named twice goes on counting."""
    turn, place = divmod(index, len(primitives))
    name = primitives[place]
    return index, name, turn * primitives.count(name) + primitives[:place].count(name)


def _kind(name: str) -> str:
    """Scenes of equal kinds are simulated together."""
    if name in WINDS:
        return "plants" if name == "plant" else "cloth and strings"
    if name in PUSHES:
        return "pushes"
    return "ramps" if name.startswith("ramp") else "flights"


def shoot(shot: Shot, batch: Sequence[Slot]) -> Iterator[tuple[int, Clip]]:
    """Yield (index, clip) of one batch; scenes of one layout run together."""
    if batch and batch[0][1] in WINDS:
        scenes = [shot.scene(name, k) for _, name, k in batch]
        yield from zip([i for i, _, _ in batch], blown.film(scenes, shot), strict=True)
        return
    pairs = sorted(((i, shot.scene(name, k)) for i, name, k in batch), key=lambda pair: world.layout(pair[1]))
    for _, group in groupby(pairs, key=lambda pair: world.layout(pair[1])):
        members = list(group)
        scenes = [scene for _, scene in members]
        pushed = scenes[0].primitive in PUSHES
        model = (rolling if pushed else world).build(scenes, shot.device)
        motion = (rolling if pushed else dynamics).move(scenes, shot.frames, shot.fps, model)
        images = _renderer(shot.renderer)(scenes, motion, *shot.size, model)
        for position, (index, scene) in enumerate(members):
            yield index, describe(scene, motion, images, position, shot)


def _renderer(name: str) -> Callable[..., render.Images]:
    if name == "warp":
        return render.render
    if name == "blender":
        from visviva.data.scenes.blender import render as photoreal

        return photoreal
    raise InputError(f"unknown renderer {name!r}; allowed: warp, blender")


def _commanded(scene: Scene, height: int, width: int) -> dict[str, Any]:
    """What pushes, as force prompts; and where one alone does, in the columns of ``evaluate --benchmark force``."""
    pushes = scene.pushes
    columns: dict[str, Any] = {"forces": [push.prompt for push in pushes], "newtons": [push.newtons for push in pushes]}
    if len(scene.pushes) == 1:
        push = scene.pushes[0]
        columns |= {"force_angle": push.angle, "force_magnitude": push.magnitude}
        columns |= {"x": round(push.x * width - 0.5, 2), "y": round((1 - push.y) * height - 0.5, 2)}
    return columns


def describe(scene: Scene, motion: dynamics.Motion, images: render.Images, i: int, shot: Shot) -> Clip:
    """Collect picture and ground truth of scene ``i`` of a batch in a `Clip`."""
    frames = torch.from_numpy(images.frames[i]).permute(0, 3, 1, 2).float() / 255.0
    count, height, width = frames.shape[0], frames.shape[2], frames.shape[3]
    flow, valid = truth.flow(scene, motion, images, i) if shot.flow else (None, None)
    masks = torch.from_numpy(truth.masks(images, i, len(scene.bodies)))
    times = truth.reversal(scene, motion, i, shot.fps)
    forces = _commanded(scene, height, width) if scene.primitive in PUSHES else {}
    return Clip(
        frames=frames,
        fps=shot.fps,
        caption=caption(scene),
        masks=masks,
        flow=None if flow is None else torch.from_numpy(flow),
        flow_valid=None if valid is None else torch.from_numpy(valid),
        depth=torch.from_numpy(images.depth[i]),
        trajectory=torch.from_numpy(truth.project(motion.position[i], scene.camera, height, width)).float(),
        visible=masks.flatten(2).any(-1),
        states={name: torch.from_numpy(getattr(motion, name)[i]) for name in dynamics.STATES},
        metres_per_pixel=torch.from_numpy(truth.metres_per_pixel(scene, height)).float(),
        contact=torch.from_numpy(truth.near(times, count, shot.fps)),
        contact_times=times,
        meta={"primitive": scene.primitive, "split": scene.split, "scene": scene.name, **scene.numbers, **forces},
    )
