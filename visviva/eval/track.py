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
What it does not do: several objects at once, an object that stays in one place for most of the clip (it becomes background), a
camera that walks. Units: pixels of the given frames (of the reference frame, if the camera moved), seconds, y down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from visviva.errors import InputError
from visviva.eval.camera import CameraMotion, camera_motion, stabilised

WORKING = 640
"""Longest side [px] of the image that objects are detected in; positions are refined at full resolution."""


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
    images = [cv2.resize(_image(f), size, interpolation=cv2.INTER_AREA) for f in frames]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def _image(frame: Tensor) -> NDArray[np.uint8]:
    return np.ascontiguousarray(frame.permute(1, 2, 0).numpy())


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
    path = _smoothest_path(_detections(working), working.shape[1:3])
    if len(path) < 5:
        raise Unmeasurable("nothing moves along a smooth path through this clip, so there is no object to measure")
    return _refined(frames, times.double().numpy(), path, scale, camera)


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


@dataclass(frozen=True)
class _Blob:
    frame: int
    x: float
    y: float
    area: float


def _detections(frames: NDArray[np.uint8], most: int = 10) -> list[list[_Blob]]:
    """Return the largest regions of each frame that differ from the temporal median by more than its noise."""
    sample = frames[:: max(1, len(frames) // 40)]
    background = np.median(sample, axis=0).astype(np.float32)
    spread = np.median(np.abs(sample - background).max(-1), axis=0)
    threshold = np.clip(6 * 1.48 * cv2.GaussianBlur(spread.astype(np.float32), (0, 0), 2), 14, 60)
    found = []
    for k, frame in enumerate(frames):
        changed = (np.abs(frame - background).max(-1) > threshold).astype(np.uint8)
        changed = cv2.morphologyEx(changed, cv2.MORPH_OPEN, np.ones((2, 2), np.uint8))
        changed = cv2.morphologyEx(changed, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
        count, _, stats, centres = cv2.connectedComponentsWithStats(changed)
        order = 1 + np.argsort(-stats[1:count, cv2.CC_STAT_AREA])[:most]
        least = max(6.0, 1e-4 * changed.size)
        areas = stats[:, cv2.CC_STAT_AREA]
        chosen = [i for i in order if least <= areas[i] < 0.25 * changed.size]
        found.append([_Blob(k, float(centres[i][0]), float(centres[i][1]), float(areas[i])) for i in chosen])
    return found


def _smoothest_path(found: list[list[_Blob]], shape: tuple[int, ...]) -> list[_Blob]:
    """Return the path that travels farthest with the smallest second differences, by dynamic programming over links.

    A link joins detections at most three frames apart. Two links that share a detection cost the squared change of velocity
    over a gate of 20 % of the speed plus 40 % of the object's size plus 1.5 px, per frame; each link earns up to 1 by how far
    it moved compared with a quarter of its size, so flicker in one place earns nothing, times its size over the clip's largest
    regions, so that a long row of specks does not beat a ball.
    """
    largest = math.sqrt(np.quantile([max((b.area for b in blobs), default=1.0) for blobs in found], 0.95))
    reach = 0.2 * math.hypot(*shape)
    links: dict[tuple[int, int], list[tuple[float, int | None, tuple[int, int]]]] = {}
    best, last = 0.0, None
    for k in range(len(found)):
        for j, blob in enumerate(found[k]):
            arriving = []
            for gap in (1, 2, 3):
                for i, before in enumerate(found[k - gap] if k >= gap else []):
                    step = math.hypot(blob.x - before.x, blob.y - before.y)
                    if step < reach * gap and 1 / 3 < blob.area / before.area < 3:
                        value, via = _extend(found, links, before, blob, (k - gap, i), largest)
                        arriving.append((value, via, (k - gap, i)))
                        if value > best:
                            best, last = value, ((k, j), len(arriving) - 1)
            links[k, j] = arriving
    return _trace(found, links, last)


def _extend(
    found: list, links: dict, before: _Blob, blob: _Blob, node: tuple[int, int], largest: float
) -> tuple[float, int | None]:
    gap = blob.frame - before.frame
    vx, vy = (blob.x - before.x) / gap, (blob.y - before.y) / gap
    speed = math.hypot(vx, vy)
    size = math.sqrt(blob.area)
    share = min(1.0, size / largest)
    worth = share * (speed**2 / (speed**2 + (0.25 * size) ** 2) - 0.5 * (gap - 1))
    value, via = worth - share, None
    for n, (score, _, (f, i)) in enumerate(links.get(node, [])):
        earlier = found[f][i]
        h = before.frame - earlier.frame
        change = math.hypot(vx - (before.x - earlier.x) / h, vy - (before.y - earlier.y) / h)
        cost = (change / (1.5 + 0.2 * speed + 0.4 * size)) ** 2 + math.log(blob.area / before.area) ** 2
        if cost < 1.5 and score + worth - share * cost > value:
            value, via = score + worth - share * cost, n
    return value, via


def _trace(found: list, links: dict, last: tuple[tuple[int, int], int] | None) -> list[_Blob]:
    path: list[_Blob] = []
    node, arriving = last if last is not None else (None, None)
    while node is not None:
        path.append(found[node[0]][node[1]])
        if arriving is None:
            break
        _, via, previous = links[node][arriving]
        node, arriving = previous, via
    return path[::-1]


def _refined(frames: Tensor, times: NDArray, path: list[_Blob], scale: float, camera: CameraMotion) -> Track:
    """Measure the path at full resolution and cut what is not a free, whole object."""
    height, width = frames.shape[2:]
    background = _background(frames, camera)
    crops = {b.frame: _crop(frames[b.frame], background, camera.transforms[b.frame], b, scale) for b in path}
    colour = _Colour.of(list(crops.values()))
    count = len(frames)
    positions, boxes = np.full((count, 2), np.nan), np.full((count, 4), np.nan)
    area, across, soft = np.full(count, np.nan), np.full(count, np.nan), np.full(count, np.nan)
    cut: dict[int, str] = {}
    for blob in path:
        k = blob.frame
        measured = _opacity_moments(crops[k], colour)
        if measured is None:
            cut[k] = "the object cannot be told from the background"
            continue
        (x, y), area[k], (across[k], soft[k]), boxes[k] = measured
        turn, shift = camera.transforms[k][:, :2], camera.transforms[k][:, 2]
        positions[k] = np.linalg.solve(turn, np.array([x, y]) - shift)
        x0, y0, w, h = boxes[k]
        if x0 <= 1 or y0 <= 1 or x0 + w >= width - 1 or y0 + h >= height - 1:
            cut[k] = "the object touches the image border"
    whole = [k for k in crops if k not in cut]
    for k in whole:
        near = [n for n in whole if abs(n - k) <= 15]
        if not 0.6 < area[k] / np.nanmedian(area[near]) < 1.6 or not 0.7 < across[k] / np.nanmedian(across[near]) < 1.4:
            cut[k] = "the visible object changes size (occluded, or merged with something else)"
    positions[list(cut)] = np.nan
    if np.isfinite(positions[:, 0]).sum() < 5:
        raise Unmeasurable(
            "the moving object is hidden, cut by the border or merged with something else in all but a few frames"
        )
    return Track(positions, max(_noise(positions), 0.02), times, area, across, soft, camera, (width, height), boxes, cut)


def _background(frames: Tensor, camera: CameraMotion) -> NDArray[np.float32]:
    step = max(1, len(frames) // 24)
    sample = np.ascontiguousarray(frames[::step].permute(0, 2, 3, 1).numpy())
    if camera.verdict == "compensated":
        sample = stabilised(sample, camera.transforms[::step])
    rows = np.array_split(np.arange(sample.shape[1]), max(1, sample.shape[1] // 128))
    return np.concatenate([np.median(sample[:, r], axis=0) for r in rows]).astype(np.float32)


@dataclass(frozen=True)
class _Crop:
    image: NDArray[np.float32]
    background: NDArray[np.float32]
    x: int
    y: int


def _crop(frame: Tensor, background: NDArray, transform: NDArray, blob: _Blob, scale: float) -> _Crop:
    """Cut the neighbourhood of a detection out of the raw frame and out of the background as that frame saw it."""
    height, width = frame.shape[1:]
    centre = transform[:, :2] @ np.array([(blob.x + 0.5) / scale - 0.5, (blob.y + 0.5) / scale - 0.5]) + transform[:, 2]
    half = int(1.5 * math.sqrt(blob.area) / scale + 6)
    x0, y0 = max(0, int(centre[0]) - half), max(0, int(centre[1]) - half)
    x1, y1 = min(width, int(centre[0]) + half + 1), min(height, int(centre[1]) + half + 1)
    shifted = transform.copy()
    shifted[:, 2] -= (x0, y0)
    behind = cv2.warpAffine(background, shifted, (max(1, x1 - x0), max(1, y1 - y0)), borderMode=cv2.BORDER_REPLICATE)
    return _Crop(_image(frame[:, y0:y1, x0:x1]).astype(np.float32), behind.astype(np.float32), x0, y0)


@dataclass(frozen=True)
class _Colour:
    """The direction in colour space that best tells the object from the backgrounds along its path, and its value there."""

    direction: NDArray[np.float64]
    value: float
    contrast: float

    @classmethod
    def of(cls, crops: list[_Crop]) -> _Colour:
        cores, behind, contrasts = [], [], []
        for crop in crops:
            change = np.linalg.norm(crop.image - crop.background, axis=-1)
            core = change >= np.quantile(change, 0.95)
            cores.append(crop.image[core])
            behind.append(crop.background.reshape(-1, 3)[:: max(1, change.size // 200)])
            contrasts.append(float(change[core].mean()))
        clear = [c for c, contrast in zip(cores, contrasts, strict=True) if contrast >= np.median(contrasts)]
        inside, outside = np.concatenate(clear).astype(np.float64), np.concatenate(behind).astype(np.float64)
        scatter = np.cov(inside.T) + np.cov(outside.T) + 4.0**2 * np.eye(3)
        direction = np.linalg.solve(scatter, np.median(inside, axis=0) - outside.mean(0))
        value = float(np.quantile([np.quantile(crop.image @ direction, 0.97) for crop in crops], 0.75))
        return cls(direction, value, value - float(np.median(outside @ direction)))

    def opacity(self, crop: _Crop) -> NDArray[np.float64]:
        """Return alpha per pixel in [0, 1]."""
        full = np.maximum(self.value - crop.background @ self.direction, 0.4 * self.contrast)
        return np.clip((crop.image - crop.background) @ self.direction / full, 0, 1)


def _opacity_moments(crop: _Crop, colour: _Colour) -> tuple[tuple[float, float], float, tuple[float, float], NDArray] | None:
    """Return centroid [px of the raw frame], opacity area, width and its softness, and bounding box; None if invisible."""
    alpha = colour.opacity(crop)
    solid = (cv2.GaussianBlur(alpha, (0, 0), 1.0) > 0.15).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(solid)
    if count < 2:
        return None
    mass = np.bincount(labels.ravel(), alpha.ravel(), minlength=count)
    label = 1 + int(np.argmax(mass[1:]))
    near = cv2.dilate((labels == label).astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    weight = np.where(near, alpha, 0.0).astype(np.float64)
    total = float(weight.sum())
    if total < 4:
        return None
    ys, xs = np.mgrid[: weight.shape[0], : weight.shape[1]]
    x, y = float((weight * xs).sum() / total), float((weight * ys).sum() / total)
    left, top, w, h = stats[label, :4]
    box = np.array([left + crop.x, top + crop.y, w, h], dtype=np.float64)
    return (x + crop.x, y + crop.y), total, _width(weight), box


def _width(weight: NDArray) -> tuple[float, float]:
    """Return the widest chord across the longest axis, between 25 % and 50 % of the peak opacity, and half their difference
    [px]."""
    ys, xs = np.nonzero(weight)
    inside = weight[ys, xs]
    points = np.stack([xs, ys]) - np.average(np.stack([xs, ys]), axis=1, weights=inside)[:, None]
    along = np.linalg.eigh(np.cov(points, aweights=inside, ddof=0))[1][:, 1] @ points
    bins = np.round(along - along.min()).astype(int)
    peak = np.quantile(inside, 0.9)
    wide, narrow = (float(np.quantile(np.bincount(bins[inside > f * peak]), 0.9)) for f in (0.25, 0.5))
    return (wide + narrow) / 2, (wide - narrow) / 2


def _noise(positions: NDArray) -> float:
    """Return the robust standard deviation of one coordinate of one frame, from third differences (variance 20 times
    larger)."""
    third = np.diff(positions, n=3, axis=0)
    third = third[np.isfinite(third).all(1)]
    return 1.4826 * float(np.median(np.abs(third))) / math.sqrt(20) if len(third) else 0.5
