"""What stands behind a moving object: the median over time, of the frames in which the object is elsewhere."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor

from visviva.eval.blobs import Blob
from visviva.eval.camera import CameraMotion, stabilised


def background_of(
    frames: UInt8[Tensor, "T 3 H W"], camera: CameraMotion, path: list[Blob], scale: float
) -> NDArray[np.float32]:
    """Return the temporal median; of an object that rests (``path`` not empty), of the frames in which it is elsewhere."""
    steps = _spread(len(frames), path)
    sample = np.ascontiguousarray(frames[steps].permute(0, 2, 3, 1).numpy())
    if camera.verdict == "compensated":
        sample = stabilised(sample, camera.transforms[steps])
    here = {b.frame: b for b in path}
    chunks = []
    for rows in np.array_split(np.arange(sample.shape[1]), max(1, sample.shape[1] // 128)):
        part = sample[:, rows]
        chunks.append(_median_elsewhere(part, rows, [here.get(int(k)) for k in steps], scale) if path else np.median(part, 0))
    return np.concatenate(chunks).astype(np.float32)


def _spread(count: int, path: list[Blob]) -> NDArray[np.int64]:
    """Return about 24 frames: evenly in time or, along the path of an object that rests, evenly in where it is."""
    if not path:
        return np.arange(0, count, max(1, count // 24))
    place = np.cumsum([0.0, *(math.hypot(b.x - a.x, b.y - a.y) + 1e-3 for a, b in pairwise(path))])
    at = np.searchsorted(place, np.linspace(0, place[-1], 24)).clip(max=len(path) - 1)
    return np.unique([path[i].frame for i in at])


def _median_elsewhere(part: NDArray, rows: NDArray, blobs: list[Blob | None], scale: float) -> NDArray[np.float64]:
    """Return the median over the frames whose object does not cover the pixel (of all, where it always does)."""
    covered = np.zeros(part.shape[:3], bool)
    columns = np.arange(part.shape[2])
    for i, blob in enumerate(blobs):
        if blob is not None:
            radius = 1.3 * math.sqrt(blob.area / math.pi) / scale + 4
            covered[i] = np.hypot(columns[None] - blob.x / scale, rows[:, None] - blob.y / scale) < radius
    covered &= ~covered.all(0)
    ordered = np.sort(np.where(covered[..., None], 256, part.astype(np.int16)), axis=0)
    middle = ((~covered).sum(0) - 1) // 2
    return np.take_along_axis(ordered, np.broadcast_to(middle[None, ..., None], (1, *part.shape[1:])), axis=0)[0].astype(
        np.float64
    )
