"""The probe of objects: masks, and tracks with uncertainty and appearance, in one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxtyping import Float
from torch import Tensor

from visviva.models.probes.masks import TrackedMasks
from visviva.models.probes.objects.ground import ground
from visviva.models.probes.objects.positions import object_tracks
from visviva.models.probes.objects.segmentation import Moving
from visviva.physics.measurement import Measurement, check_frames

MaskSource = Callable[[Tensor, Tensor | None], Tensor]


class Objects:
    """Measures the masks and the tracks of the objects of a clip with a static camera.

    Masks of all frames that are given are taken as they are; masks of the first frame are followed (`TrackedMasks`); without
    any the ``objects`` things that move most are found (`Moving`). Tracks come from masks and frames (`object_tracks`).
    Gradients of masks, positions, areas and moments reach the frames through their colours.

    Args:
        objects: how many to find where no masks are given.
        masks: another source of masks, such as ``SAM2Masks(path, start=Moving())``; differentiable unless it says
            otherwise.
        options: of `object_tracks`, such as ``least_share``.

    Example::

        measured = Objects(objects=2)(frames, fps)
        measured.tracks.positions, measured.tracks.sigma, measured.tracks.visible
        probe = Combined(LucasKanade(), masks=Objects(objects=2))  # adds flow, for the laws that need it
    """

    name = "objects"
    measures = frozenset({"masks", "tracks"})

    def __init__(self, objects: int = 1, masks: MaskSource | None = None, **options: Any) -> None:
        self.objects, self.masks, self.options = objects, masks, options

    @property
    def differentiable(self) -> bool:
        """Whether gradients of the masks reach the frames."""
        return bool(getattr(self.masks, "differentiable", True))

    def __call__(
        self, frames: Float[Tensor, "B T 3 H W"], fps: Float[Tensor, " B"], masks: Float[Tensor, "B t N H W"] | None = None
    ) -> Measurement:
        """Measure; ``masks`` (B, t, N, H, W) of all frames, or of the first one, where they are known."""
        check_frames(frames, fps, least=3)
        if masks is not None and masks.shape[1] == frames.shape[1]:
            found, bare = masks, ground(frames)
        elif self.masks is not None:
            found, bare = self.masks(frames, masks), ground(frames)
        elif masks is not None:
            found, bare = TrackedMasks()(frames, masks), ground(frames)
        else:
            found, bare = Moving(objects=self.objects).find(frames)
        return Measurement(fps=fps, masks=found, tracks=object_tracks(frames, found, bare, **self.options))
