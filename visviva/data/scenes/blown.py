"""Clips of things in the wind, with ground truth: moved by Newton, drawn, and scaled to the clip's duration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from visviva.data.clip import Clip
from visviva.data.scenes import cloth, stalks, truth, wind_pictures
from visviva.data.scenes.caption import caption
from visviva.data.scenes.scene import Scene
from visviva.data.scenes.wind import UNIT, Soft
from visviva.errors import InputError

if TYPE_CHECKING:
    from visviva.data.scenes.simulation import Shot


def film(scenes: Sequence[Scene], shot: Shot) -> list[Clip]:
    """Move and draw scenes of `visviva.data.scenes.wind.sample_wind`, plants alone or none of them.

    Trajectories and positions are the mean of a cloth's particles, a plant's blossom, a ball's centre.

    Raises:
        InputError: another renderer than Warp's.
    """
    if shot.renderer != "warp":
        raise InputError(f"renderer {shot.renderer!r} draws no cloth and no rods; take warp for things in the wind")
    move = stalks.move if scenes[0].primitive == "plant" else cloth.move
    places = move(scenes, shot.frames, shot.device)
    return [_clip(scene, own, shot) for scene, own in zip(scenes, places, strict=True)]


def _clip(scene: Scene, places: list[np.ndarray], shot: Shot) -> Clip:
    """Draw a scene and collect what is known of it; lengths grow with the square of the clip's duration."""
    drawn = wind_pictures.draw(scene, places, *shot.size)
    grown, height = (shot.duration / UNIT) ** 2, shot.size[0]
    position = np.stack([_middle(thing, path) for thing, path in zip(scene.soft, places, strict=True)], 1)
    velocity = np.gradient(position, UNIT / (shot.frames - 1), axis=0)
    masks = torch.from_numpy(drawn.label)[:, None] == torch.arange(len(scene.soft))[:, None, None]
    return Clip(
        frames=torch.from_numpy(drawn.frames).permute(0, 3, 1, 2).float() / 255.0,
        fps=shot.fps,
        caption=caption(scene),
        masks=masks,
        flow=torch.from_numpy(drawn.flow) if shot.flow else None,
        flow_valid=torch.from_numpy(drawn.valid) if shot.flow else None,
        depth=torch.from_numpy(drawn.depth) * grown,
        trajectory=torch.from_numpy(truth.project(position, scene.camera, *shot.size)).float(),
        visible=masks.flatten(2).any(-1),
        states={
            "position": torch.from_numpy(position * grown).float(),
            "velocity": torch.from_numpy(velocity * grown**0.5).float(),
        },
        metres_per_pixel=torch.full((len(scene.soft),), scene.camera.view * grown / height),
        contact=torch.zeros(shot.frames, dtype=torch.bool),
        meta={
            "primitive": scene.primitive,
            "split": scene.split,
            "scene": scene.name,
            **scene.numbers,
            "forces": [] if scene.wind is None else [scene.wind.prompt],
        },
    )


def _middle(thing: Soft, path: np.ndarray) -> np.ndarray:
    """The place (T, 3) that stands for a thing in a unit scene: the mean of cloth, the blossom, the ball."""
    return path.mean(1) if thing.shape in ("flag", "pennant") else path[:, -1]
