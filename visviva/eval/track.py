"""Where one freely moving object is in a real clip, without any weights: background, blobs, the smoothest long path, sub-pixel
refinement.

Steps: (1) global camera motion (`visviva.eval.camera`); (2) background = temporal median of the stabilised frames, noise = its
robust spread; (3) per frame, connected regions that differ from it; (4) regions are linked into the path that travels farthest
with the smallest second differences (dynamic programming over pairs of detections, up to two missed frames bridged without
inventing positions); (5) at full resolution each pixel's opacity ``alpha`` is solved from ``pixel = alpha * object + (1 -
alpha) * background`` along the colour direction that tells the object from the backgrounds it crosses (Fisher's discriminant),
and the position is its centroid. A motion-blurred object is thus placed at its mean position during the exposure.

Frames are *cut, never interpolated*, where the object touches the image border or its visible area or width jumps (occlusion, a
hand).
A shaded object is placed towards its lit side, by the same amount in every frame, which no velocity or acceleration sees.
An object that rests in one place for most of the clip, after moving, is followed there by its colour (`visviva.eval.blobs`).
What it does not do: several objects at once, a camera that walks. Units: pixels of the given frames (of the
reference frame, if the camera moved), seconds, y down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from visviva.errors import InputError
from visviva.eval.background import background_of
from visviva.eval.blobs import Blob, detections, followed, smoothest_path
from visviva.eval.camera import CameraMotion, camera_motion, stabilised
from visviva.eval.continuity import changed_background, double, gone, settled
from visviva.eval.ends import how_it_ends
from visviva.eval.opacity import Colour, Crop, core_colour, crop_of, image_of, opacity_moments

WORKING = 640
"""Longest side [px] of the image that objects are detected in; positions are refined at full resolution."""


UNTOLD = "the object cannot be told from the background"
"""Why a frame is cut in which something moves on along the path that does not have the object's colour."""


class Unmeasurable(InputError):
    """The clip is readable but what was asked cannot be measured in it; the message is the one sentence that says why."""


@dataclass(frozen=True)
class Track:
    """Path of one object through a clip of T frames.

    Attributes:
        positions: centroid (x, y) [px], (T, 2); NaN in frames that were cut or where the object was not found.
        sigma: standard error of one coordinate from frame to frame [px]: robust, from third differences.
        times: [s], (T,).
        area: opacity-weighted area [px^2], (T,); NaN where not found. Motion blur does not change it.
        width: width across the longest axis [px], (T,), the mean of the widest chords at 25 % and at 50 % opacity (motion blur
            lengthens an object, it does not widen it); softness: half the difference of the two [px], (T,).
        cut: frame -> why it was cut.
        camera: what the camera did.
        size: (width, height) of the frames [px].
        ends: how the path begins and ends: with the clip, at the ``border``, ``merged`` with something, ``vanished`` (nothing
            is to be seen where it should be), ``stopped`` (at rest from one frame to the next), ``rests``
            (gradually), ``jumps`` or ``skips N frames`` (found again, but not where it should be), "" (it is seen on).
        colour: of the object's core [grey values], (T, 3); NaN where not found; None: not known. Also known where something
            of its size is seen that cannot be told from the background by the object's colour.
        double: first and last frame in which a second object that looks like it is seen, come out of nothing; None: none.
        gone: (before, after): frames between which the object is followed on both sides and is not there at all.
        changed: share of the background that looks otherwise in the clip's last third than in its first.
        boxes: bounding box (x, y, w, h) [px of the raw frame] per frame, (T, 4); NaN where not found.
    """

    positions: NDArray[np.float64]
    sigma: float
    times: NDArray[np.float64]
    area: NDArray[np.float64]
    width: NDArray[np.float64]
    softness: NDArray[np.float64]
    camera: CameraMotion
    size: tuple[int, int]
    boxes: NDArray[np.float64]
    cut: dict[int, str] = field(default_factory=dict)
    ends: tuple[str, str] = ("", "")
    colour: NDArray[np.float64] | None = None
    double: tuple[int, int] | None = None
    changed: float = 0.0
    gone: tuple[tuple[int, int], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary."""
        return {
            "unit": "px",
            "sigma": self.sigma,
            "times": self.times.tolist(),
            "ends": list(self.ends),
            "positions": [[round(x, 3) for x in p] for p in self.positions.tolist()],
            "frames_used": int(self.seen.sum()),
            "frames_cut": {str(k): why for k, why in self.cut.items()},
        }

    @property
    def seen(self) -> NDArray[np.bool_]:
        """Frames that have a position, (T,)."""
        return np.isfinite(self.positions[:, 0])


def reduced(frames: UInt8[Tensor, "T 3 H W"], longest: int = WORKING) -> UInt8[Tensor, "T 3 h w"]:
    """Return the frames with their longest side at most ``longest`` pixels, by area averaging; small frames as they are."""
    scale = longest / max(frames.shape[2:])
    if scale >= 1:
        return frames
    size = (max(16, round(frames.shape[3] * scale)), max(16, round(frames.shape[2] * scale)))
    images = [cv2.resize(image_of(f), size, interpolation=cv2.INTER_AREA) for f in frames]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def track_object(
    frames: UInt8[Tensor, "T 3 H W"], times: Float[Tensor, " T"], small: UInt8[Tensor, "T 3 h w"] | None = None
) -> Track:
    """Find and follow the one object that moves farthest and smoothest through a clip.

    Args:
        frames: uint8 RGB, at least 5 frames.
        times: true timestamps [s] (multiply by the time scale first if the clip plays in slow motion).
        small: the frames at working size (`reduced`), if they are at hand.

    Errors: `Unmeasurable` with the reason: too few frames, camera motion that cannot be removed, nothing moves, no smooth path.

    Example::

        video = read_video("throw.mp4")
        track = track_object(video.frames, video.timestamps)
        track.positions[track.seen]
    """
    count, width = len(frames), frames.shape[3]
    if count < 5:
        raise Unmeasurable(f"the clip has {count} frames; following an object takes at least 5")
    if small is None:
        small = reduced(frames)
    working = np.ascontiguousarray(small.permute(0, 2, 3, 1).numpy())
    scale = working.shape[2] / width
    camera = _camera(working, scale)
    if camera.verdict == "refused":
        raise Unmeasurable(camera.sentence)
    if camera.verdict == "compensated":
        working = stabilised(working, _scaled(camera.transforms, scale))
    found = detections(working)
    path = smoothest_path(found, working.shape[1:3])
    if len(path) < 5:
        raise Unmeasurable("nothing moves along a smooth path through this clip, so there is no object to measure")
    further = followed(working, path)
    rests, lost = len(further) > 1.5 * len(path) + 10, gone(working, further)
    followed_on = further if rests or lost else path
    ends = (how_it_ends(working, path, further, -1), how_it_ends(working, path, further, 1))
    refined = _refined(frames, times.double().numpy(), followed_on, scale, camera, rests)
    second = double(working, found, further) or settled(working, found, further)
    return replace(refined, ends=ends, double=second, gone=tuple(lost), changed=changed_background(working))


def _camera(working: NDArray[np.uint8], scale: float) -> CameraMotion:
    """Estimate camera motion at up to 480 px and return transforms in full-resolution pixels."""
    height, width = working.shape[1:3]
    further = min(1.0, 480 / max(height, width))
    grey = [cv2.cvtColor(i, cv2.COLOR_RGB2GRAY) for i in working]
    if further < 1:
        grey = [cv2.resize(i, None, fx=further, fy=further, interpolation=cv2.INTER_AREA) for i in grey]
    motion = camera_motion(np.stack(grey))
    up = 1 / (further * scale)
    transforms = _scaled(motion.transforms, up)
    return CameraMotion(transforms, motion.shift * up, motion.agreement, motion.verdict, motion.sentence)


def _scaled(transforms: NDArray, scale: float) -> NDArray:
    scaled = transforms.copy()
    scaled[:, :, 2] *= scale
    return scaled


def _refined(
    frames: Tensor, times: NDArray, path: list[Blob], scale: float, camera: CameraMotion, rests: bool = False
) -> Track:
    """Measure the path at full resolution and cut what is not a free, whole object."""
    background = background_of(frames, camera, path if rests else [], scale)
    crops = {b.frame: crop_of(frames[b.frame], background, camera.transforms[b.frame], b, scale) for b in path}
    track = _unseen(times, camera, (frames.shape[3], frames.shape[2]))
    usual = float(np.median([b.area for b in path]))
    colour = _measure(track, crops, {b.frame for b in path if 0.6 < b.area / usual < 1.6})
    _cut_at_border(track)
    _cut_jumps_of_size(track, [k for k in crops if k not in track.cut])
    track.positions[list(track.cut)] = np.nan
    if track.seen.sum() < 5:
        raise Unmeasurable(
            "the moving object is hidden, cut by the border or merged with something else in all but a few frames"
        )
    return replace(track, sigma=max(_noise(track.positions), 0.02), colour=colour)


def _unseen(times: NDArray, camera: CameraMotion, size: tuple[int, int]) -> Track:
    """Return a track that knows nothing yet."""
    unknown = np.full(len(times), np.nan)
    places, boxes = np.full((len(times), 2), np.nan), np.full((len(times), 4), np.nan)
    return Track(places, math.nan, times, unknown, unknown.copy(), unknown.copy(), camera, size, boxes)


def _measure(track: Track, crops: dict[int, Crop], alike: set[int]) -> NDArray[np.float64]:
    """Write into the track what each frame's crop shows, and return the colours, (T, 3); ``alike``: frames of usual size."""
    object_colour = Colour.of(list(crops.values()))
    look = np.full((len(track.times), 3), np.nan)
    for k, crop in crops.items():
        measured = opacity_moments(crop, object_colour)
        if measured is None:
            track.cut[k] = UNTOLD
            if k in alike:
                look[k] = core_colour(crop)
            continue
        (x, y), track.area[k], (track.width[k], track.softness[k]), track.boxes[k], look[k] = measured
        turn, shift = track.camera.transforms[k][:, :2], track.camera.transforms[k][:, 2]
        track.positions[k] = np.linalg.solve(turn, np.array([x, y]) - shift)
    return look


def _cut_at_border(track: Track) -> None:
    width, height = track.size
    for k in np.flatnonzero(track.seen):
        x0, y0, w, h = track.boxes[k]
        if x0 <= 1 or y0 <= 1 or x0 + w >= width - 1 or y0 + h >= height - 1:
            track.cut[int(k)] = "the object touches the image border"


def _cut_jumps_of_size(track: Track, whole: list[int]) -> None:
    """Cut frames in which the object is much larger or smaller than in 15 frames on either side."""
    usual_area, usual_width = np.full(len(track.times), np.nan), np.full(len(track.times), np.nan)
    usual_area[whole], usual_width[whole] = track.area[whole], track.width[whole]
    for k in whole:
        near = slice(max(0, k - 15), k + 16)
        size, wide = track.area[k] / np.nanmedian(usual_area[near]), track.width[k] / np.nanmedian(usual_width[near])
        if not 0.6 < size < 1.6 or not 0.7 < wide < 1.4:
            track.cut[k] = "the visible object changes size (occluded, or merged with something else)"


def _noise(positions: NDArray) -> float:
    """Return the robust standard deviation of one coordinate of one frame, from third differences (variance 20 times
    larger)."""
    third = np.diff(positions, n=3, axis=0)
    third = third[np.isfinite(third).all(1)]
    return 1.4826 * float(np.median(np.abs(third))) / math.sqrt(20) if len(third) else 0.5
