"""Training motions: drawn from the simulated actions or read from a HumanML3D folder; windows of them at any rate."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from visviva.data.files import whole
from visviva.data.motions.axes import upright
from visviva.data.motions.folder import HumanML3DFolder, facing, statistics_of
from visviva.data.motions.humanml3d import FPS, features, joints_of
from visviva.errors import InputError

RATE = 40.0
"""Frames per second at which simulated actions are drawn; windows are interpolated from them."""
CHUNK = 64
SHORTEST = 20
"""Clips of a folder with so many frames or fewer are left out."""


@dataclass(frozen=True)
class Motions:
    """Clips of 22 joints, y up.

    Attributes:
        joints: of all clips one after the other, (sum of lengths, 22, 3) [m].
        starts, lengths: of the clips, (N,).
        fps: of all.
        captions: of each clip, one or more.
    """

    joints: Tensor
    starts: Tensor
    lengths: Tensor
    fps: float
    captions: list[list[str]]

    def __len__(self) -> int:
        return len(self.captions)

    @property
    def fingerprint(self) -> str:
        """A hash of joints and captions."""
        digest = hashlib.sha256(json.dumps(self.captions).encode())
        digest.update(self.joints.numpy().tobytes())
        return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Windows:
    """A batch: features (B, T, 263) not normalised, ``lengths`` and ``fps`` (B,), and texts."""

    features: Tensor
    lengths: Tensor
    fps: Tensor
    texts: list[str]


def simulated(names: Sequence[str], clips: int, seed: int, seconds: float, folder: Path) -> Motions:
    """Draw simulated actions, as many of each name, and keep them in a file for the next time."""
    from visviva.data.actions import ACTIONS, draw

    names = list(names) or list(ACTIONS)
    key = hashlib.sha256(json.dumps([names, clips, seed, seconds, RATE]).encode()).hexdigest()[:12]
    file = folder / f"motions-{key}.safetensors"
    if not file.is_file():
        drawn, said = [], []
        wanted = [names[k % len(names)] for k in range(clips)]
        for k in tqdm(range(0, clips, CHUNK), desc="drawing actions", unit="batch", leave=False):
            some = draw(wanted[k : k + CHUNK], seed=seed * 100_003 + k, fps=RATE, seconds=seconds)
            drawn.append(some.joints @ upright("y"))  # z up to y up
            said += [[caption] for caption in some.captions]
        folder.mkdir(parents=True, exist_ok=True)
        with whole(file.with_suffix(".json")) as part:
            part.write_text(json.dumps(said))
        with whole(file) as part:  # the last, so that a file that is there is whole and has its captions
            save_file({"joints": torch.cat(drawn).contiguous()}, part)
    joints = load_file(file)["joints"]
    captions = json.loads(file.with_suffix(".json").read_text())
    return packed(list(joints), RATE, captions)


def humanml3d(folder: str | Path, split: str, limit: int | None = None) -> Motions:
    """Read the clips of a split, the first ``limit`` of them, with the captions that are about all of a clip.

    Clips without such a caption, or of 20 frames or fewer, are left out.

    Raises:
        InputError: what `HumanML3DFolder` refuses (damaged files, features that are not finite), or no clip that is left.
    """
    source = HumanML3DFolder(folder, split)
    clips, captions = [], []
    for index in range(len(source.names[:limit])):
        clip = source[index]
        said = [caption.text for caption in clip.captions if caption.stop is None]
        if said and len(clip.features) > SHORTEST:
            clips.append(joints_of(clip.features))
            captions.append(said)
    if not clips:
        raise InputError(f"{folder}: no clip of {split}.txt has more than {SHORTEST} frames and a text about all of it")
    return packed(clips, FPS, captions)


def packed(clips: Sequence[Tensor], fps: float, captions: list[list[str]]) -> Motions:
    """Join clips of any length."""
    lengths = torch.tensor([len(clip) for clip in clips])
    return Motions(torch.cat(list(clips)), lengths.cumsum(0) - lengths, lengths, fps, captions)


def windows(motions: Motions, index: Tensor, frames: int, fps: float, rng: torch.Generator) -> Windows:
    """Return a window of up to ``frames`` frames at ``fps`` of each clip, beginning at random.

    Windows longer than their clip end with it.
    """
    step = motions.fps / fps  # of the clip's frames per frame of the window
    lengths = torch.minimum(((motions.lengths[index] - 1) / step + 1e-4).long(), torch.tensor(frames))
    slack = (motions.lengths[index] - 1 - lengths * step).clamp(min=0)
    begin = torch.rand(len(index), generator=rng) * slack
    at = begin[:, None] + torch.arange(frames + 1) * step
    joints = between(motions, index, at)
    found = features(facing(joints), fps)
    texts = [_one(motions.captions[int(i)], rng) for i in index]
    return Windows(found, lengths, torch.full((len(index),), fps), texts)


def _one(captions: list[str], rng: torch.Generator) -> str:
    return captions[int(torch.randint(len(captions), (1,), generator=rng))]


def between(motions: Motions, index: Tensor, at: Float[Tensor, "B T"]) -> Float[Tensor, "B T 22 3"]:
    """Return the joints at times counted in frames of each clip, by the cubic through the four nearest frames (Lagrange).

    Times beyond the end stay at the last frame.
    """
    last = motions.lengths[index, None] - 1
    at = torch.minimum(at, last.to(at))
    base = torch.minimum(at.long().clamp(min=1), last - 2).clamp(min=0)
    u = (at - base).to(motions.joints)[..., None, None]
    points = [motions.joints[motions.starts[index, None] + torch.minimum((base + k).clamp(min=0), last)] for k in (-1, 0, 1, 2)]
    weights = (
        -u * (u - 1) * (u - 2) / 6,
        (u + 1) * (u - 1) * (u - 2) / 2,
        -(u + 1) * u * (u - 2) / 2,
        (u + 1) * u * (u - 1) / 6,
    )
    return sum((w * p for w, p in zip(weights, points, strict=True)), torch.zeros_like(points[0]))


def statistics(motions: Motions, frames: int, rates: Sequence[float], seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of the features of windows at all rates, deviations averaged in each block of the
    format (card: motion, 10.3)."""
    rng = torch.Generator().manual_seed(seed)
    rows = []
    for rate in dict.fromkeys(rates):
        index = torch.randint(len(motions), (128,), generator=rng)
        found = windows(motions, index, frames, rate, rng)
        rows.append(found.features[torch.arange(frames) < found.lengths[:, None]])
    mean, std = statistics_of(torch.cat(rows))
    return mean, std.clamp(min=1e-3)
