"""The training examples: clips with captions, brought to the size of the recipe, or prompts alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from visviva.configs.posttrain import Data
from visviva.data.fit import fit
from visviva.errors import InputError
from visviva.models.control import read_forces, table
from visviva.models.control.force import Force
from visviva.pipelines.posttrain.cache import fingerprint

if TYPE_CHECKING:
    from visviva.data.clip import Clip


@dataclass(frozen=True)
class Example:
    """One training example at the recipe's size; what the data do not have is None.

    Attributes:
        caption: the prompt.
        fps: frame rate [frames/s].
        first_frame: the conditioning frame, (3, H, W).
        frames: the true clip, (T, 3, H, W).
        masks: the true object masks, (T, N, H, W).
        contact: frames around true contacts, (T,).
        losers: generated clips that are worse, (m, T, 3, H, W); ``scores``: semantic and physical, in [0, 1], (m, 2).
        forces: the force prompts of the clip; an empty list where nothing is pushed, None where the data say nothing.
        row: what the data's metadata say of the clip.
    """

    caption: str
    fps: float
    first_frame: Float[Tensor, "3 H W"] | None = None
    frames: Float[Tensor, "T 3 H W"] | None = None
    masks: Bool[Tensor, "T N H W"] | None = None
    contact: Bool[Tensor, "T"] | None = None
    losers: Float[Tensor, "m T 3 H W"] | None = None
    scores: Float[Tensor, "m 2"] | None = None
    forces: list[Force] | None = None
    row: Mapping[str, Any] = field(default_factory=dict)

    def force_table(self) -> Float[Tensor, "8 5"]:
        """Return the forces as numbers; see `visviva.models.control.table`."""
        if self.forces is None:
            raise InputError(
                "control.kind is force, and a clip of the data has no 'forces'; give every row a list, empty for none"
            )
        return table(self.forces)

    @property
    def bytes(self) -> int:
        """Memory taken by the tensors."""
        held = (self.frames, self.masks, self.contact, self.losers)
        return sum(t.numel() * t.element_size() for t in held if t is not None)


KEPT = 2**29
"""Examples are kept in memory up to this size in all [bytes]; further ones are read again each time."""


class Examples:
    """The examples of ``data.path`` (clips) or ``data.prompts``, read when asked for.

    Attributes:
        paired: whether each example has a true clip.
        fingerprint: changes with the data (rows, file sizes) and with the settings that shape them.
        freshness: also changes when a file is written again; what precomputed conditions depend on.
    """

    def __init__(self, data: Data) -> None:
        from visviva.data.dataset import ClipDataset
        from visviva.data.prompts import read_prompts

        self.data = data
        self.paired = bool(data.path)
        where = dict(data.where)
        if self.paired:
            self.clips = ClipDataset(data.path, limit=data.limit, where=where or None)
            source: object = self.clips.fingerprint
            count = len(self.clips)
            files = [self.clips.path(i) for i in range(count)]
        else:
            self.prompts = read_prompts(data.prompts, where, data.limit)
            source = [[p.id, p.caption, p.source.name if p.source else ""] for p in self.prompts]
            count = len(self.prompts)
            files = [p.source for p in self.prompts if p.source is not None]
        if count == 0:
            raise InputError(f"data: no clip under {data.path!r} matches where = {where}; nothing to train on")
        self.count = count
        shape = [data.frames, data.height, data.width, data.fps]
        stats = [_stat(file) for file in files]
        self.fingerprint = fingerprint({"source": source, "shape": shape, "sizes": [s.st_size for s in stats]})
        self.freshness = fingerprint({"of": self.fingerprint, "times": [s.st_mtime_ns for s in stats]})
        self.held: dict[int, Example] = {}
        self.bytes = 0

    def __len__(self) -> int:
        return self.count

    def without_masks(self) -> Path | None:
        """Return the first clip that has no true masks: no file of arrays beside it, or, looking into the first, none in it."""
        paths = [self.clips.path(i) for i in range(self.count)]
        bare = next((path for path in paths if not path.with_suffix(".npz").is_file()), None)
        return paths[0] if bare is None and self[0].masks is None else bare

    def __getitem__(self, index: int) -> Example:
        """Return one example at the recipe's size."""
        if index not in self.held:
            example = self._read(index)
            self.bytes += example.bytes
            if self.bytes > KEPT:
                return example
            self.held[index] = example
        return self.held[index]

    def _read(self, index: int) -> Example:
        if self.paired:
            clip, row = self.clips[index], self.clips.rows[index]
            example = replace(_example(clip, str(row.get("file_name", index)), self.data), row=row)
            example = _with_forces(example, row)
            return _with_losers(example, row, self.clips.root, self.data) if "losers" in row else example
        prompt = self.prompts[index]
        fps = prompt.fps or self.data.fps
        if fps is None:
            raise InputError(f"{self.data.prompts}: {prompt.id!r} has no fps; set data.fps to the model's frame rate (Wan: 16)")
        first = None if prompt.source is None else fit(prompt.first_frame(), self.data.height, self.data.width)
        return _with_forces(Example(prompt.caption, fps, first), {"file_name": prompt.id, **prompt.columns})


def _with_forces(example: Example, row: Mapping[str, Any]) -> Example:
    """Read the force prompts of a row, where it has any."""
    if "forces" not in row:
        return example
    return replace(example, forces=read_forces(row["forces"], f"clip {row.get('file_name')}"))


def _stat(file: Path) -> os.stat_result:
    try:
        return file.stat()
    except OSError as error:
        raise InputError(
            f"the clip {str(file)!r} cannot be read: {error.strerror}; remove its row or restore the file"
        ) from error


def _example(clip: Clip, name: str, data: Data) -> Example:
    kept = _kept_frames(clip, name, data)
    frames = clip.frames[kept]
    if not bool(torch.isfinite(frames).all()):
        raise InputError(f"clip {name}: its frames hold NaN or infinite values; remove it from the data")
    masks = None if clip.masks is None else clip.masks[kept]
    contact = None if clip.contact is None else clip.contact[kept]
    fps = data.fps or float(clip.fps)
    fitted = fit(frames, data.height, data.width)
    if masks is not None and fitted.shape[-2:] != masks.shape[-2:]:
        as_frames = masks.unsqueeze(2).expand(-1, -1, 3, -1, -1).float()
        masks = fit(as_frames, data.height, data.width)[:, :, 0] > 0.5
    return Example(clip.caption, fps, fitted[0], fitted, masks, contact)


def _with_losers(example: Example, row: Mapping[str, Any], folder: Path, data: Data) -> Example:
    """Read the generated clips that a row says are worse than its own, and their scores."""
    from visviva.data.clip import Clip

    names, where = row["losers"], f"clip {row.get('file_name')}"
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise InputError(f"{where}: losers is {names!r}; give a list of video files")
    clips = [Clip.read(folder / name) for name in names]
    frames = [_example(clip, name, data).frames for clip, name in zip(clips, names, strict=True)]
    losers = torch.stack([f for f in frames if f is not None])
    for name, loser in zip(names, losers, strict=True):
        if example.frames is not None and torch.equal(loser, example.frames):
            raise InputError(f"{where}: its loser {name!r} shows the same frames as itself, which teaches nothing; take it out")
    return replace(example, losers=losers, scores=_scores(row["scores"], len(names), where) if "scores" in row else None)


def _scores(given: Any, count: int, where: str) -> Tensor:
    try:
        scores = torch.tensor(given, dtype=torch.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: scores is no list of pairs of numbers ({error})") from error
    if tuple(scores.shape) != (count, 2) or not bool(((scores >= 0) & (scores <= 1)).all()):
        raise InputError(f"{where}: scores {given!r}; give [semantic, physics] in [0, 1] for each of {count} losers")
    return scores


def _kept_frames(clip: Clip, name: str, data: Data) -> Tensor:
    """Return which frames of the clip are used: the first ones, or those nearest to the recipe's frame times."""
    have = len(clip.frames)
    if data.fps is None or abs(data.fps - clip.fps) < 1e-6 * data.fps:
        if have < data.frames:
            raise InputError(
                f"clip {name}: {have} frames, but data.frames is {data.frames}; remove the clip or lower data.frames"
            )
        return torch.arange(data.frames)
    given = clip.timestamps if clip.timestamps is not None else torch.arange(have, dtype=torch.float64) / clip.fps
    wanted = given[0] + torch.arange(data.frames, dtype=torch.float64) / data.fps
    if float(wanted[-1]) > float(given[-1]) + 0.5 / clip.fps:
        raise InputError(
            f"clip {name}: lasts {float(given[-1] - given[0]):.2f} s, but {data.frames} frames at {data.fps:g} per second need "
            f"{(data.frames - 1) / data.fps:.2f} s; remove the clip, lower data.frames, or raise data.fps"
        )
    return (given[None].double() - wanted[:, None]).abs().argmin(1)
