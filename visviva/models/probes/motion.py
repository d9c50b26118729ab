"""Where the moving objects are in a clip with a static camera, when nothing is known: motion segmentation.

Per pixel the median over the frames in which nothing changes nearby is taken as background; pixels unlike it form
connected components in each frame, and components that overlap or follow each other are linked into objects. Components in
which the flow stays below a tenth of a pixel per frame are dropped (flicker, exposure), and all but the `MOST` largest of a
frame (speckle). A plain or slow object that covers the same pixels for more than half of the clip becomes background: give its
first mask to `track_masks` instead.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError

MOST = 64
"""Components of one frame that are followed, the largest."""


@dataclass(frozen=True)
class MotionMasks:
    """Mask source for `Combined` that needs no masks: the ``objects`` largest things that move.

    Attributes:
        objects: number of objects N to return; missing ones have empty masks.
        threshold: colour distance from the background at which a pixel is foreground with probability 1/2, in [0, 1].
        softness: width of that transition; the masks are differentiable with respect to the frames through it.
        least_area: smaller components are dropped [px^2].

    Example::

        masks = MotionMasks(objects=2)(frames, None)  # (B, T, 2, H, W) in [0, 1]
    """

    objects: int = 1
    threshold: float = 0.12
    softness: float = 0.02
    least_area: int = 9

    def __call__(
        self, frames: Float[Tensor, "B T 3 H W"], masks: Float[Tensor, "B t N H W"] | None, flow: Tensor | None = None
    ) -> Tensor:
        """Return masks (B, T, N, H, W); masks of all frames that are already known are returned as they are."""
        if masks is not None and masks.shape[1] == frames.shape[1]:
            return masks
        if frames.shape[1] < 3:
            raise InputError(f"motion segmentation needs at least 3 frames to tell the background, not {frames.shape[1]}")
        background = _background(frames.detach())
        apart = (frames - background).square().sum(2).add(1e-12).sqrt()
        foreground = torch.sigmoid((apart - self.threshold) / self.softness)
        hard = (foreground.detach() > 0.5).cpu().numpy().astype(np.uint8)
        still = None if flow is None else (flow.detach().norm(dim=2) < 0.1).cpu().numpy()
        labels = [self._objects(clip, None if still is None else still[i]) for i, clip in enumerate(hard)]
        regions = torch.from_numpy(np.stack(labels)).to(frames)
        near = torch.nn.functional.max_pool2d(regions.flatten(0, 1), 3, stride=1, padding=1).view_as(regions)
        return near * foreground[:, :, None]

    def _objects(self, hard: np.ndarray, still: np.ndarray | None) -> np.ndarray:
        """Regions of the largest linked components of one clip, shape (T, objects, H, W), 0 or 1."""
        tracks: list[list[_Component]] = []
        for time, image in enumerate(hard):
            recent = [track for track in tracks if time - track[-1].time <= 2]
            for component in self._components(time, image, None if still is None or time >= len(still) else still[time]):
                if not _linked(recent, component):
                    tracks.append([component])
        tracks.sort(key=lambda track: -sum(len(component.pixels) for component in track))
        regions = np.zeros((len(hard), self.objects, hard[0].size), np.float32)
        for number, track in enumerate(tracks[: self.objects]):
            for component in track:
                regions[component.time, number, component.pixels] = 1
        return regions.reshape(len(hard), self.objects, *hard.shape[1:])

    def _components(self, time: int, image: np.ndarray, still: np.ndarray | None) -> list[_Component]:
        import cv2

        closed = cv2.morphologyEx(image, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
        count, labels, stats, centres = cv2.connectedComponentsWithStats(closed, connectivity=8)
        area = stats[:, cv2.CC_STAT_AREA]
        sorted_pixels = np.split(np.argsort(labels, axis=None, kind="stable"), np.cumsum(area)[:-1])
        large = [i for i in range(1, count) if area[i] >= self.least_area]
        if still is not None:
            large = [i for i in large if still.flat[sorted_pixels[i]].mean() < 0.9]
        kept = sorted(sorted(large, key=lambda i: -area[i])[:MOST])
        return [_Component(time, sorted_pixels[i], centres[i]) for i in kept]


@dataclass(frozen=True)
class _Component:
    """A connected component of one frame: its flat pixel indices in order, and its middle (x, y) [px]."""

    time: int
    pixels: np.ndarray
    middle: np.ndarray


def _background(still: Tensor) -> Tensor:
    """Median colour of each pixel over the frames in which it and its surroundings stay as they are, (B, 1, 3, H, W)."""
    change = (still[:, 1:] - still[:, :-1]).abs().amax(2) > 0.04
    off = torch.zeros_like(change[:, :1])
    moving = (torch.cat([off, change], dim=1) | torch.cat([change, off], dim=1)).to(still.dtype)
    moving = torch.nn.functional.max_pool2d(moving, 5, stride=1, padding=2)[:, :, None] > 0
    calm = torch.where(moving, float("nan"), still).nanmedian(dim=1, keepdim=True).values
    return torch.where(torch.isnan(calm), still.median(dim=1, keepdim=True).values, calm)


def _linked(tracks: list[list[_Component]], component: _Component) -> bool:
    """Add a component to the track whose last sighting it overlaps most or is nearest to; False if there is none."""
    best, merit = None, -1.5
    size = len(component.pixels) ** 0.5
    for track in tracks:
        before = track[-1]
        if before.time == component.time:
            continue
        distance = float(np.linalg.norm(component.middle - before.middle)) / size
        if 1 - distance <= merit:  # not even a full overlap would do
            continue
        shared = len(np.intersect1d(component.pixels, before.pixels, assume_unique=True))
        overlap = shared / min(len(component.pixels), len(before.pixels))
        if overlap - distance > merit:
            best, merit = track, overlap - distance
    if best is not None:
        best.append(component)
    return best is not None
