"""Pairs of consecutive frames of simulated clips with their exact flow: random crops, mirrored and transposed at random."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from visviva.data.dataset import ClipDataset
from visviva.errors import InputError
from visviva.pipelines.pretrain.flow_scenes import Pair


class ClipPairs:
    """Frame pairs of datasets that `visviva simulate --arrays all` wrote, held in memory as bytes and half-precision flow.

    Raises:
        InputError: a clip has no flow.

    Example::

        pair = ClipPairs(["runs/train"]).draw(4, 64, torch.Generator().manual_seed(0))
    """

    def __init__(self, folders: Sequence[str], limit: int | None = None) -> None:
        self.frames: list[Tensor] = []
        self.flows: list[Tensor] = []
        self.fingerprints: list[str] = []
        for folder in folders:
            dataset = ClipDataset(folder, limit=limit)
            self.fingerprints.append(dataset.fingerprint)
            for clip in tqdm(dataset, desc=f"reading {folder}", unit="clip", leave=False):
                if clip.flow is None:
                    raise InputError(f"{folder}: a clip has no optical flow; simulate with '--arrays all'")
                self.frames.append((clip.frames * 255).round().to(torch.uint8))
                self.flows.append(clip.flow.half())

    def __len__(self) -> int:
        return len(self.frames)

    def draw(self, count: int, side: int, rng: torch.Generator) -> Pair:
        """Return ``count`` random pairs, cropped to ``side`` pixels; clips smaller than that are left out."""
        fitting = [i for i, clip in enumerate(self.frames) if min(clip.shape[-2:]) >= side]
        if not fitting:
            raise InputError(f"no clip is {side} pixels large; simulate larger ones, or train on smaller crops")
        parts = [self._one(fitting[int(torch.randint(len(fitting), (), generator=rng))], side, rng) for _ in range(count)]
        return Pair(*(torch.stack(tensors) for tensors in zip(*parts, strict=True)))

    def _one(self, index: int, side: int, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        frames, flows = self.frames[index], self.flows[index]
        t, y, x = (int(torch.randint(n, (), generator=rng)) for n in (len(flows), *(s - side + 1 for s in frames.shape[-2:])))
        crop = (..., slice(y, y + side), slice(x, x + side))
        one, two, flow = frames[t][crop].float() / 255, frames[t + 1][crop].float() / 255, flows[t][crop].float()
        across, down, swapped = (torch.rand(3, generator=rng) < 0.5).tolist()
        for axis, wanted in ((-1, across), (-2, down)):
            if wanted:
                one, two, flow = one.flip(axis), two.flip(axis), flow.flip(axis)
                flow = flow * torch.tensor([-1.0, 1.0] if axis == -1 else [1.0, -1.0])[:, None, None]
        if swapped:
            one, two, flow = one.mT, two.mT, flow.mT.flip(0)
        return one, two, flow
