"""Simulated clips with ground truth: sample scenes, move them, draw them, many worlds at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import torch

from visviva.data.clip import Clip
from visviva.data.scenes import dynamics, render, truth, world
from visviva.data.scenes.caption import caption
from visviva.data.scenes.primitives import PRIMITIVES, Scene, sample_scene
from visviva.errors import InputError

BATCH = 128


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
) -> list[Clip]:
    """Simulate ``n`` clips of the primitives in turn (clip i is of primitive i modulo their number).

    Clip i depends on the arguments and i alone: the first clips of a longer set are the clips of a shorter one.

    Args:
        primitive: one of `PRIMITIVES`, or several.
        n: number of clips.
        seed: seed of the set.
        split: ``"id"`` or ``"ood"`` (see `visviva.data.scenes.primitives.RANGES`).
        height: image height [px].
        width: image width [px].
        frames: frames per clip.
        fps: frames per second; (frames - 1) / fps is the duration, which sets the scale of the scene.
        objects: largest number of objects in falls and throws.
        device: Warp device, ``"cpu"`` or ``"cuda:0"``.
        flow: also compute optical flow and its validity.

    Example::

        clips = simulate("parabolic_throw", n=8, seed=1)
        clips[0].caption, clips[0].frames.shape
    """
    chosen = [primitive] if isinstance(primitive, str) else list(primitive)
    found = stream(chosen, range(n), seed, split=split, size=(height, width), frames=frames, fps=fps, objects=objects, device=device, flow=flow)
    clips = dict(found)
    return [clips[i] for i in range(n)]


def stream(
    primitives: Sequence[str],
    indices: Sequence[int],
    seed: int,
    *,
    split: str,
    size: tuple[int, int],
    frames: int,
    fps: float,
    objects: int = 3,
    device: str = "cpu",
    flow: bool = True,
    batch: int = BATCH,
) -> Iterator[tuple[int, Clip]]:
    """Yield (index, clip) for the given indices of a set, batch by batch; the order is by layout, not by index."""
    if frames < 2 or fps <= 0:
        raise InputError(f"a clip needs frames >= 2 and fps > 0; given frames {frames} and fps {fps}")
    height, width = size
    duration, aspect = (frames - 1) / fps, width / height
    scenes: list[tuple[int, Scene]] = []
    for i in indices:
        name, k = primitives[i % len(primitives)], i // len(primitives)
        scenes.append((i, sample_scene(name, seed, k, split=split, duration=duration, aspect=aspect, objects=objects)))
    scenes.sort(key=lambda pair: world.layout(pair[1]))
    for _, group in groupby(scenes, key=lambda pair: world.layout(pair[1])):
        members = list(group)
        for start in range(0, len(members), batch):
            part = members[start : start + batch]
            yield from zip([i for i, _ in part], _shoot([s for _, s in part], seed, size, frames, fps, device, flow), strict=True)


def _shoot(scenes: list[Scene], seed: int, size: tuple[int, int], frames: int, fps: float, device: str, flow: bool) -> Iterator[Clip]:
    model = world.build(scenes, device)
    motion = dynamics.move(scenes, frames, fps, model)
    images = render.render(scenes, motion, *size, model)
    for i, scene in enumerate(scenes):
        yield _clip(scene, motion, images, i, fps, flow)


def _clip(scene: Scene, motion: dynamics.Motion, images: render.Images, i: int, fps: float, with_flow: bool) -> Clip:
    frames = torch.from_numpy(images.frames[i]).permute(0, 3, 1, 2).float() / 255.0
    count, height, width = frames.shape[0], frames.shape[2], frames.shape[3]
    flow, valid = truth.flow(scene, motion, images, i) if with_flow else (None, None)
    masks = torch.from_numpy(truth.masks(images, i, len(scene.bodies)))
    times = truth.reversal(scene, motion, i, fps)
    return Clip(
        frames=frames,
        fps=fps,
        caption=caption(scene),
        masks=masks,
        flow=None if flow is None else torch.from_numpy(flow),
        flow_valid=None if valid is None else torch.from_numpy(valid),
        depth=torch.from_numpy(images.depth[i]),
        trajectory=torch.from_numpy(truth.project(motion.position[i], scene.camera, height, width)).float(),
        visible=masks.flatten(2).any(-1),
        states={name: torch.from_numpy(getattr(motion, name)[i]) for name in dynamics.STATES},
        metres_per_pixel=torch.from_numpy(truth.metres_per_pixel(scene, height)).float(),
        contact=torch.from_numpy(truth.near(times, count, fps)),
        contact_times=times,
        meta={"primitive": scene.primitive, "split": scene.split, "scene": scene.name, **scene.numbers},
    )
