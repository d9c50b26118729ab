"""2D poses to a motion: read them from arrays or find them in a video, and lift them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from visviva.configs.motion import MotionRecipe
from visviva.data.motions.arrays import BROKEN
from visviva.data.motions.motion import HumanMotion
from visviva.data.motions.resample import resampled
from visviva.data.motions.text import present
from visviva.errors import InputError
from visviva.eval.motion.dynamics import rest_of, skeleton
from visviva.models.reestimation.camera import Camera, placed
from visviva.models.reestimation.joints import NAMES, PARENTS, h36m
from visviva.models.reestimation.poses import MediaPipe, Poses, PoseSource, ViTPose, given
from visviva.models.reestimation.reestimator import Reestimator
from visviva.physics.bodies import standing_height

FILMS = (".mp4", ".mov", ".mkv", ".webm", ".avi")
POINTS = ("points", "keypoints", "poses2d", "positions")
SCORES = ("confidence", "scores")


def in_two(path: Path) -> bool:
    """Return whether a file holds 2D poses: a film, or an array (frames, joints, 2)."""
    if path.suffix.lower() in FILMS:
        return True
    return path.suffix.lower() in (".npy", ".npz") and _stored(path) is not None


def _stored(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays of a file of 2D poses, or None where it holds something else."""
    try:
        with present(path).open("rb"):
            pass
        if path.suffix.lower() == ".npy":
            stored = {"points": np.load(path, allow_pickle=False)}
        else:
            with np.load(path, allow_pickle=False) as file:
                stored = {key: file[key] for key in file.files if key in (*POINTS, *SCORES, "fps", "width", "height", "layout")}
    except BROKEN as error:
        if isinstance(error, InputError):
            raise
        return None  # the reader of motions says what is wrong with it
    key = next((k for k in POINTS if k in stored and stored[k].ndim == 3 and stored[k].shape[-1] == 2), None)
    return None if key is None else stored | {"points": stored[key]}


def poses_of(path: Path, recipe: MotionRecipe) -> tuple[Poses, float]:
    """Return a file's 2D poses and their frames per second.

    Raises:
        InputError: no size of the pictures or no frame rate, arrays without numbers, a film without a detector, what `given`
            refuses.
    """
    if path.suffix.lower() in FILMS:
        return _filmed(path, recipe)
    stored = _stored(path) or {}
    width, height = recipe.picture or (_one(path, stored, "width"), _one(path, stored, "height"))
    if not (width and height):
        raise InputError(f"{path}: holds 2D poses without the pictures' size; give it: --picture WIDTH HEIGHT")
    fps = recipe.frame_rate or _one(path, stored, "fps")
    if not fps:
        raise InputError(f"{path}: holds 2D poses without a frame rate; give it (--fps)")
    sure = next((torch.from_numpy(_numbers(path, stored, k)).float() for k in SCORES if k in stored), None)
    layout = recipe.layout or (str(stored["layout"]) if "layout" in stored else None)
    return given(torch.from_numpy(_numbers(path, stored, "points")).float(), height, width, sure, layout), fps


def _numbers(path: Path, stored: dict[str, np.ndarray], key: str) -> np.ndarray:
    values = np.asarray(stored[key])
    if values.dtype.kind not in "fiub":
        raise InputError(f"{path}: {key} is of the type {values.dtype}, no numbers; save plain arrays of numbers")
    return values.astype(np.float64)


def _one(path: Path, stored: dict[str, np.ndarray], key: str) -> float:
    """A number of the file; 0 where it has none."""
    if key not in stored:
        return 0.0
    values = _numbers(path, stored, key).ravel()
    if len(values) != 1:
        raise InputError(f"{path}: {key} has {len(values)} numbers; save one")
    return float(values[0])


def _filmed(path: Path, recipe: MotionRecipe) -> tuple[Poses, float]:
    from visviva.data.video import read_video

    if not recipe.pose_model:
        raise InputError(
            f"{path}: a film needs a detector of poses; give --pose-model FOLDER (ViTPose) or FILE.task (MediaPipe)"
        )
    mediapipe = Path(recipe.pose_model).suffix == ".task"
    source: PoseSource = MediaPipe(recipe.pose_model) if mediapipe else ViTPose(recipe.pose_model)
    film = read_video(path)
    return source(film.frames.float() / 255.0), recipe.frame_rate or film.fps


def lifted(path: Path, recipe: MotionRecipe, model: Reestimator) -> tuple[HumanMotion, torch.Tensor]:
    """Return a file's 2D poses as a motion at the lifter's frame rate, seen from the camera, and the joints' confidence.

    Raises:
        InputError: what `poses_of` refuses, or a clip shorter than the lifter's windows.
    """
    poses, fps = poses_of(path, recipe)
    flat = HumanMotion(torch.cat([poses.image, poses.confidence[..., None]], -1).float(), NAMES, PARENTS, fps, source=str(path))
    seen = (resampled(flat, model.fps) if abs(fps - model.fps) > 1e-3 else flat).positions
    camera, sure = Camera(recipe.view, recipe.tilt), seen[..., 2].clamp(0.01, 1)
    plane = camera.levelled(seen[..., :2])
    _check_apart(plane, path)
    _check_length(len(plane), model, recipe, path)
    pose = model.lift(plane, sure)
    notes = [f"lifted from 2D: camera taken for level to {recipe.tilt:g} degrees down, {recipe.view:g} degrees of view"]
    notes.append(f"lifted at {model.fps:g} frames/s")
    if recipe.stature:
        tall = float(standing_height(rest_of("h36m", pose.double()), "h36m"))
        pose = pose * (recipe.stature / tall)
        notes.append(f"stature: {tall:.2f} m scaled to {recipe.stature:g} m")
    joints = placed(pose, plane, sure)
    return replace(flat, positions=joints, fps=model.fps, notes=tuple(notes)), sure


def _check_apart(plane: torch.Tensor, path: Path) -> None:
    """Raise an `InputError` where all joints of a frame are at one point."""
    lost = ((plane - plane[:, :1]).abs().amax((1, 2)) < 1e-6).nonzero()[:, 0].tolist()
    if lost:
        raise InputError(
            f"{path}: all joints of frame {lost[0]} are at one point ({len(lost)} such frames); leave them out as nan"
        )


def _check_length(frames: int, model: Reestimator, recipe: MotionRecipe, path: Path) -> None:
    """Raise an `InputError` for clips that are shorter than the windows of the lifter or, where it is asked, of PhysNet."""
    least = model.lifter.frames if recipe.method == "analytic" else max(model.lifter.frames, model.physics.frames)
    if frames < least:
        raise InputError(
            f"{path}: {frames / model.fps:.2g} s of poses; the method {recipe.method} takes {least / model.fps:.2g} s or more "
            f"({least} frames at {model.fps:g}/s)"
        )


def learned(motion: HumanMotion, model: Reestimator, flat: bool = False) -> tuple[HumanMotion, HumanMotion]:
    """Return a motion in Human3.6M's joints, and as PhysNet re-estimates it, at the motion's frame rate.

    ``flat``: it was lifted from 2D, and is smoothed first.
    """
    name, joints = skeleton(motion)
    plain = HumanMotion(
        h36m(joints, name).float(), NAMES, PARENTS, motion.fps, floor=motion.floor, source=motion.source, notes=motion.notes
    )
    other = abs(motion.fps - model.fps) > 1e-3
    slow = resampled(plain, model.fps) if other else plain
    seen = model.calmed(slow.positions) if flat else slow.positions
    found = slow.noted("re-estimated: learned (PhysNet)", positions=model(seen))
    if not other:
        return plain, found
    back = resampled(found, motion.fps)
    frames = min(len(back), len(plain))
    return plain.cut(0, frames), back.cut(0, frames)
