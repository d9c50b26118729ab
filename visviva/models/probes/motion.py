"""Where the moving objects are in a clip with a static camera, when nothing is known: motion segmentation.

Per pixel the median over the frames in which nothing changes nearby is taken as background; pixels unlike it form
connected components in each frame, and components that overlap or follow each other are linked into objects. Components in
which the flow stays below a tenth of a pixel per frame are dropped (flicker, exposure). A plain or slow object that covers
the same pixels for more than half of the clip becomes background: give its first mask to `track_masks` instead.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError


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
        tracks: list[list[tuple[int, np.ndarray]]] = []
        for time, image in enumerate(hard):
            for component in self._components(image, None if still is None or time >= len(still) else still[time]):
                _link(tracks, time, component)
        tracks.sort(key=lambda track: -sum(int(component.sum()) for _, component in track))
        regions = np.zeros((len(hard), self.objects, *hard.shape[1:]), np.float32)
        for number, track in enumerate(tracks[: self.objects]):
            for time, component in track:
                regions[time, number][component] = 1
        return regions

    def _components(self, image: np.ndarray, still: np.ndarray | None) -> list[np.ndarray]:
        import cv2

        closed = cv2.morphologyEx(image, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
        count, labels, stats, _ = cv2.connectedComponentsWithStats(closed, connectivity=8)
        found = [labels == i for i in range(1, count) if stats[i, cv2.CC_STAT_AREA] >= self.least_area]
        return found if still is None else [component for component in found if still[component].mean() < 0.9]


def _background(still: Tensor) -> Tensor:
    """Median colour of each pixel over the frames in which it and its surroundings stay as they are, (B, 1, 3, H, W)."""
    change = (still[:, 1:] - still[:, :-1]).abs().amax(2) > 0.04
    off = torch.zeros_like(change[:, :1])
    moving = (torch.cat([off, change], dim=1) | torch.cat([change, off], dim=1)).to(still.dtype)
    moving = torch.nn.functional.max_pool2d(moving, 5, stride=1, padding=2)[:, :, None] > 0
    calm = torch.where(moving, float("nan"), still).nanmedian(dim=1, keepdim=True).values
    return torch.where(torch.isnan(calm), still.median(dim=1, keepdim=True).values, calm)


def _link(tracks: list[list[tuple[int, np.ndarray]]], time: int, component: np.ndarray) -> None:
    """Add a component to the track whose last sighting it overlaps most or is nearest to, or start a new track."""
    best, merit = None, -1.5
    size = np.sqrt(component.sum())
    middle = np.argwhere(component).mean(0)
    for track in tracks:
        last, before = track[-1]
        if not 0 < time - last <= 2:
            continue
        overlap = (component & before).sum() / min(component.sum(), before.sum())
        distance = np.linalg.norm(middle - np.argwhere(before).mean(0)) / size
        if overlap - distance > merit:
            best, merit = track, overlap - distance
    if best is None:
        tracks.append([(time, component)])
    else:
        best.append((time, component))
