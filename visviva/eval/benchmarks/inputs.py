"""What a benchmark is run on: clips, reference, prompts, judge and encoder, as the command line or a program names them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from visviva.data.clip import Clip
from visviva.errors import InputError
from visviva.eval.benchmarks.result import ClipRow, Missing, mean_score
from visviva.eval.collection import Item, collect
from visviva.eval.score import Score
from visviva.models.probes.masks import track_masks


@dataclass(frozen=True)
class Inputs:
    """The inputs of a benchmark; what it does not need may stay empty.

    Attributes:
        clips: video files, folders of videos, data sets.
        reference: the real or true clips: a folder (physics-iq, frechet) or a data set paired by scene (the others).
        prompts: a local file or folder of a prompt suite.
        judge: a vision-language judge (`visviva.eval.benchmarks.judge.Judge`).
        encoder: clip features (frechet) or frame features (vbench-motion); None: a stand-in, labelled uncalibrated.
        experiment: what the clips of ``morpheus`` show: ``free_flight`` or ``pendulum``; empty: each row's own word for it.
        codec: pass the masks of physics-iq through lossy video, as its published pipeline does.
        where, limit: which clips (`visviva.eval.collection.collect`).
        statistics: ``resamples``, ``seed`` and ``level`` of the bootstrap.

    Example::

        run("physics-iq", Inputs(["generated/"], reference="physics-IQ-benchmark/"))
    """

    clips: list[str]
    reference: str = ""
    prompts: str = ""
    judge: Any = None
    encoder: Any = None
    experiment: str = ""
    codec: bool = False
    where: Mapping[str, Any] = field(default_factory=dict)
    limit: int | None = None
    statistics: Mapping[str, Any] = field(default_factory=dict)

    def items(self, *, paired: bool = False) -> list[Item]:
        """Return the clips; ``paired``: each with its true clip from the reference data set, or the one it names itself."""
        return collect(self.clips, self.reference if paired else "", self.where, self.limit)

    def needed(self, name: str, what: str) -> Any:
        """Return an input, or raise `Missing` with what it should be."""
        value = getattr(self, name)
        if not value:
            raise Missing(f"no {name} given: {what}")
        return value


@dataclass(frozen=True)
class Pair:
    """A generated clip, its true clip, and the objects' masks in both: (T, N, H, W) and (S, N, h, w), bool."""

    item: Item
    clip: Clip
    true: Clip
    masks: Tensor
    true_masks: Tensor


def pair(item: Item) -> Pair:
    """Read a clip and its truth, and follow the true first-frame masks through the clip.

    Raises:
        InputError: one of the two cannot be read, or the truth has no masks.
    """
    if item.true is None:
        raise InputError(f"{item.key}: has no ground truth; give --reference, a data set with the true clips and their masks")
    clip, true = item.clip(), item.true()
    if true.masks is None:
        raise InputError(f"the true clip of {item.key!r} has no masks; simulate the reference with --arrays small or all")
    return Pair(item, clip, true, followed(clip.frames, true.masks[:1]), true.masks)


@torch.no_grad()
def followed(frames: Tensor, first: Tensor) -> Tensor:
    """Return objects' masks (T, N, H, W), bool, followed from those of the first frame (1, N, h, w)."""
    first = first.float()
    if first.shape[-2:] != frames.shape[-2:]:
        first = functional.interpolate(first, size=frames.shape[-2:], mode="area")
    return track_masks(frames[None], (first > 0.5).float())[0] > 0.5


def failed(item: Item, error: Exception, numbers: dict[str, float] | None = None) -> ClipRow:
    """Return the row of a clip that could not be measured."""
    return ClipRow(item.key, str(item.labels.get("scene") or item.key), numbers or {}, failure=str(error))


def scene(item: Item) -> str:
    """Return the unit that the bootstrap resamples."""
    return str(item.labels.get("scene") or item.key)


def covered(frames: int, fps: float, true_frames: int, true_fps: float) -> float:
    """Return the share of the true clip's duration that a clip covers, at most 1: what lies beyond it is not compared.

    >>> covered(10, 8.0, 40, 16.0), covered(99, 8.0, 40, 16.0)
    (0.5, 1.0)
    """
    return min(1.0, frames / fps / (true_frames / true_fps))


def covered_score(rows: Sequence[ClipRow], statistics: Mapping[str, Any]) -> Score:
    """Return ``covered``, which stands beside numbers that a clip could win by ending early."""
    note = "share of the true clip's duration that the clip covers; the rest is not compared. Read it beside the others"
    return mean_score("covered", rows, "1", lower_is_better=False, note=note, statistics=statistics, within=(0, 1))


def folder(path: str, what: str) -> Path:
    """Return an existing local folder."""
    found = Path(path)
    if not found.is_dir():
        raise InputError(f"no folder {path!r}; give {what}")
    return found
