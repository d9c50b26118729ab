"""Draw motions: one video of each, of its skeleton or of a body model that follows it, on a floor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from tqdm import tqdm

from visviva.configs.motion import MotionRecipe
from visviva.data.bodies.smpl import SMPLModel, read_smpl
from visviva.data.manifest import output_folder
from visviva.data.motions.axes import Reading
from visviva.data.motions.motion import HumanMotion
from visviva.data.motions.reading import read_motion
from visviva.data.motions.resample import resampled
from visviva.data.render import Stage, render, skeleton, skinned, view
from visviva.data.video import write_video
from visviva.errors import InputError
from visviva.eval.motion.measure import without_rest_pose
from visviva.pipelines.motion.evaluate import collect, distinct, reasons, refused, stems, tally

FASTEST = 30.0
"""Frames per second of a video at most; faster motions are resampled, but for 0.1 %."""
LONGEST = 60.0
"""How much of a motion is drawn [s]."""
AT_ONCE = 64
"""Frames whose pictures are held as numbers with fractions."""


def draw(recipe: MotionRecipe) -> Path:
    """Draw the recipe's motions and return the folder that holds a video of each.

    Raises:
        InputError: no file is given, none can be drawn (every one's reason), a body model that cannot be read.
    """
    files = collect(recipe.files, recipe.action)
    model = read_smpl(recipe.body) if recipe.body else None
    output, console = output_folder(recipe.output), Console(highlight=False, soft_wrap=True)
    written, failures = [], {}
    bar = tqdm(files, desc="motions", disable=len(files) < 2)
    for file, name, stem in zip(bar, distinct(files), stems(files), strict=True):
        path = output / f"{stem}.mp4"
        try:
            said = one(file, path, recipe, model)
        except InputError as error:
            failures[name] = str(error)
            continue
        written.append(path)
        console.print(f"{path}: {said}", markup=False)
    if not written:
        raise refused(failures, "drawn")
    for line in [*(f"not drawn: {reason}" for reason in reasons(failures)), *tally(failures, len(files), "drawn")]:
        console.print(line, markup=False)
    return output


def one(file: Path, path: Path, recipe: MotionRecipe, model: SMPLModel | None = None) -> str:
    """Read and draw one file, and return what there is to say of it."""
    reading = Reading(recipe.units, recipe.stature, recipe.up, recipe.hand, recipe.frame_rate)
    motion = without_rest_pose(read_motion(file, reading))
    shown, notes = shortened(motion)
    frames = pictures(shown, recipe, model)
    write_video(path, frames, shown.fps, crf=16)
    return "; ".join([f"{len(frames)} frames, {shown.fps:g} a second", *notes])


def shortened(motion: HumanMotion) -> tuple[HumanMotion, list[str]]:
    """Return what of a motion goes into a video, and what was changed for it."""
    notes = []
    if motion.seconds > LONGEST:
        notes.append(f"the first {LONGEST:g} s of {motion.seconds:.1f} s")
        motion = motion.cut(0, round(LONGEST * motion.fps))
    if FASTEST < motion.fps <= 1.001 * FASTEST:  # a BVH that says 0.033333 s a frame
        motion = motion.noted(fps=FASTEST)
    if motion.fps > FASTEST:
        notes.append(f"resampled from {motion.fps:g} a second")
        motion = resampled(motion, FASTEST)
    return motion, notes


def pictures(motion: HumanMotion, recipe: MotionRecipe, model: SMPLModel | None = None) -> torch.Tensor:
    """Return frames (T, 3, size, size) uint8 of a motion, as the recipe's camera, size, body, floor and backend say."""
    figure = skinned(model, motion) if model is not None else skeleton(motion)
    floor = recipe.floor if recipe.floor is not None else motion.floor
    if floor is None or model is not None:  # a model's pelvis is some centimetres off the motion's
        floor = figure.ground() if recipe.floor is None else recipe.floor
    size = (recipe.size, recipe.size)
    camera = view(motion, recipe.camera, size, figure)
    stage = Stage(floor)
    stage = replace(stage, sun=tuple(stage.towards_sun(camera).tolist()))  # of the first frame, for all chunks
    drawn = []
    for t in range(0, len(figure), AT_ONCE):
        part = camera if len(camera) == 1 else camera.cut(t, t + AT_ONCE)
        frames = render(figure.cut(t, t + AT_ONCE), part, size, stage, recipe.backend).frames
        drawn.append((255 * frames + 0.5).to(torch.uint8))
    return torch.cat(drawn)
