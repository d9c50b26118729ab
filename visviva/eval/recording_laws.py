"""The laws read in one recording, over its flight or slide, with the tracked object as an ellipse."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from numpy.typing import NDArray
from torch import Tensor

from visviva.eval.laws import LawScore, read_laws
from visviva.eval.track import Track, reduced

LONGEST = 96
"""Frames that are read at most."""
WIDE = 192
"""Longest side of the frames that are read [px]."""


@dataclass(frozen=True)
class RecordingLaws:
    """What the laws say of a recording.

    Attributes:
        scores: of the laws. first: the first frame that they were read in.
        maps: ``flow``, the residual ``field`` of constant acceleration where there is one, and the ``frames`` that were read.
        notes: why not to trust them.
    """

    scores: list[LawScore]
    first: int
    maps: dict[str, Tensor]
    notes: list[str]

    @classmethod
    def of(
        cls, small: UInt8[Tensor, "T 3 h w"], fps: float, track: Track | None = None, frames: NDArray[np.int64] | None = None
    ) -> RecordingLaws:
        """Read the laws over ``frames`` of the track (at most 96 of them), or over the clip's first 96 frames without."""
        first, last = (0, len(small) - 1) if frames is None else (int(frames[0]), int(frames[-1]))
        last = min(last, first + LONGEST - 1)
        part = reduced(small[first : last + 1], WIDE).float() / 255
        masks = None if frames is None or track is None else ellipses(track, first, last, part.shape[2:])
        reading = read_laws(part, fps, masks, first_known=False)
        maps = {"flow": reading.flow} if reading.field is None else {"flow": reading.flow, "field": reading.field}
        maps["frames"] = (part * 255).to(torch.uint8)
        notes = [] if masks is None or track is None else _too_fast(track, first, last)
        return cls([_blurred(score) for score in reading.scores] if notes else reading.scores, first, maps, notes)


def _blurred(score: LawScore) -> LawScore:
    """Say at a law that is calibrated that the object is faster than what it is calibrated on."""
    why = "; ".join(filter(None, (score.beyond, "moves by more than its width in a frame")))
    return score if score.alarm is None else replace(score, beyond=why)


def _too_fast(track: Track, first: int, last: int) -> list[str]:
    step = np.linalg.norm(np.diff(track.positions[first : last + 1], axis=0), axis=1)
    if not np.nanmedian(step) > np.nanmedian(track.width):
        return []
    return [
        "The object moves farther than its own width per frame, which optical flow cannot follow: trust the track, not the "
        "laws."
    ]


def ellipses(track: Track, first: int, last: int, shape: torch.Size) -> Bool[Tensor, "T 1 h w"]:
    """Return the tracked object as the ellipse of its bounding box at a reduced size, (T, 1, h, w), bool; empty where it was
    not found."""
    height, width = shape
    scale = np.array([width / track.size[0], height / track.size[1]])
    masks = torch.zeros(last - first + 1, 1, height, width, dtype=torch.bool)
    ys, xs = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    for k in range(first, last + 1):
        if track.seen[k]:
            x, y = track.boxes[k][:2] * scale
            w, h = track.boxes[k][2:] * scale
            masks[k - first, 0] = ((xs - x - w / 2) / (w / 2)) ** 2 + ((ys - y - h / 2) / (h / 2)) ** 2 <= 1
    return masks
