"""Clips packed for training: frames as one uint8 tensor, captions as a list."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import UInt8
from torch import Tensor
from tqdm import tqdm

from visviva.data.dataset import ClipDataset
from visviva.data.video import read_video
from visviva.errors import InputError


@dataclass(frozen=True)
class Clips:
    """Frames (N, T, 3, H, W) in 0..255 with their captions, and the fingerprint of where they came from."""

    frames: UInt8[Tensor, "N T 3 H W"]
    captions: list[str]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.captions)

    def floats(self, index: Tensor) -> Tensor:
        """Return some clips as float32 in [0, 1]."""
        return self.frames[index].float() / 255


def load_clips(folder: str, limit: int | None = None) -> Clips:
    """Read and pack the clips of a dataset; all must have the same size and length."""
    dataset = ClipDataset(folder, limit=limit)
    first = read_video(dataset.path(0)).frames
    frames = torch.empty(len(dataset), *first.shape, dtype=torch.uint8)
    for i in tqdm(range(len(dataset)), desc=f"reading {folder}", unit="clip", leave=False):
        clip = read_video(dataset.path(i)).frames
        if clip.shape != first.shape:
            raise InputError(
                f"{folder}: clip {i} has shape {tuple(clip.shape)} but the first has {tuple(first.shape)}; "
                "pre-training needs clips of one size and length"
            )
        frames[i] = clip
    return Clips(frames, [str(row["caption"]) for row in dataset.rows], dataset.fingerprint)


def mirrored(caption: str) -> str:
    """Exchange left and right in a caption.

    >>> mirrored("thrown to the left")
    'thrown to the right'
    """
    swap = {"left": "right", "right": "left"}
    return " ".join(
        swap.get(word.strip(","), word.strip(",")) + ("," if word.endswith(",") else "") for word in caption.split(" ")
    )
