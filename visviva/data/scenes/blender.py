"""Photoreal pictures of the same scenes with Blender's path tracer (optional), behind the interface of the ray tracer.

Blender runs as a program of its own, since its Python packages pin an older numpy than this one needs: either the executable
``blender``, or a Python that has ``bpy`` (``python -m venv blender-env && blender-env/bin/pip install bpy``). It is looked for
in ``$VISVIVA_BLENDER``, in this Python, and on the path. Depth and labels come from the ray tracer: the geometry is the same.
Unlike there, objects cast soft shadows, whose motion the exact flow does not describe.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from visviva.data.scenes import render as ray_tracer
from visviva.data.scenes.dynamics import Motion
from visviva.data.scenes.render import Images
from visviva.data.scenes.rotation import axis_angle
from visviva.data.scenes.scene import FIELD_OF_VIEW, LENS_SHIFT, WALL_DEPTH, Scene
from visviva.errors import InputError

if TYPE_CHECKING:
    import newton

SAMPLES = 48
STAGE = Path(__file__).with_name("blender_stage.py")


def render(scenes: Sequence[Scene], motion: Motion, height: int, width: int, model: newton.Model) -> Images:
    """Draw all frames of scenes of one layout with Cycles; depth and label are the ray tracer's.

    Raises:
        InputError: Blender is not found, or it failed.
    """
    command = blender_command()
    truth = ray_tracer.render(scenes, motion, height, width, model)
    with tempfile.TemporaryDirectory(prefix="visviva-blender-") as folder:
        job = {"size": [height, width], "samples": SAMPLES, "output": folder}
        job["scenes"] = [_describe(scene, motion, i) for i, scene in enumerate(scenes)]
        (Path(folder) / "job.json").write_text(json.dumps(job))
        done = subprocess.run([*command, str(Path(folder) / "job.json")], capture_output=True, text=True)
        if done.returncode != 0:
            last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no message"]
            raise InputError(f"Blender ({command[0]}) failed: {last[0]}; try another version with VISVIVA_BLENDER")
        return replace(truth, frames=_read(Path(folder), truth.frames.shape))


def blender_command() -> list[str]:
    """The command that runs the stage script in Blender; raises an `InputError` that says how to get it."""
    chosen = os.environ.get("VISVIVA_BLENDER") or ""
    if not chosen and importlib.util.find_spec("bpy") is not None:
        chosen = sys.executable
    chosen = shutil.which(chosen or "blender") or ""
    if not chosen:
        raise InputError(
            "the photoreal renderer needs Blender, which was not found; install bpy beside this package "
            "(pip install 'visviva[blender]') or, where its numpy does not suit, in a Python of its own "
            "(python -m venv blender-env && blender-env/bin/pip install bpy) and set VISVIVA_BLENDER=blender-env/bin/python"
        )
    if "python" in Path(chosen).name:
        return [chosen, str(STAGE)]
    return [chosen, "--background", "--factory-startup", "--python-exit-code", "1", "--python", str(STAGE), "--"]


def _describe(scene: Scene, motion: Motion, index: int) -> dict[str, Any]:
    """The scene as plain numbers: boxes and bodies with their materials, camera, light, poses per frame."""
    s = scene.camera.view / 2.4
    front, back = -3.0 * s, WALL_DEPTH * s
    still: list[dict[str, Any]] = [
        {"size": [8 * s, (back - front) / 2, 0.5 * s], "place": [0, (front + back) / 2, -0.5 * s], "texture": scene.floor},
        {"size": [8 * s, 0.5 * s, 8 * s], "place": [0, back + 0.5 * s, 0], "texture": scene.wall},
    ]
    if scene.ramp is not None:
        turn = axis_angle((0, 1, 0), scene.ramp.side * scene.ramp.slope)
        still.append({"size": scene.ramp.half, "place": scene.ramp.centre, "turn": turn, "texture": scene.ramp.texture})
    for part in still:
        part |= {"turn": part.get("turn", [1, 0, 0, 0]), "local": "turn" in part, "texture": asdict(part["texture"])}
    bodies = [{"shape": b.shape, "size": b.size, "texture": asdict(b.texture)} for b in scene.bodies]
    camera = {"place": scene.camera.position, "field_of_view": FIELD_OF_VIEW, "shift": -LENS_SHIFT}
    poses = np.concatenate([motion.position[index], motion.quaternion[index]], axis=-1).tolist()
    return {"still": still, "bodies": bodies, "camera": camera, "light": asdict(scene.light), "poses": poses}


def _read(folder: Path, shape: tuple[int, ...]) -> np.ndarray:
    import cv2

    frames = np.empty(shape, np.uint8)
    for scene in range(shape[0]):
        for t in range(shape[1]):
            picture = cv2.imread(str(folder / f"{scene:04d}-{t:04d}.png"), cv2.IMREAD_COLOR)
            if picture is None or picture.shape != shape[2:]:
                raise InputError(
                    f"Blender left no picture of frame {t} of scene {scene}; try another version with VISVIVA_BLENDER"
                )
            frames[scene, t] = picture[..., ::-1]
    return frames
