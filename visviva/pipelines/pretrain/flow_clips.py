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

    Args:
        folders: of the clips.
        limit: first clips of each folder that are used.
        device: that holds the clips and the pairs.

    Raises:
        InputError: a clip has no flow.

    Example::

        pair = ClipPairs(["runs/train"]).draw(4, 64, torch.Generator().manual_seed(0))
    """

    def __init__(self, folders: Sequence[str], limit: int | None = None, device: str = "cpu") -> None:
        self.device = device
        self.fingerprints: list[str] = []
        alike: dict[torch.Size, tuple[list[Tensor], list[Tensor]]] = {}
        for folder in folders:
            dataset = ClipDataset(folder, limit=limit)
            self.fingerprints.append(dataset.fingerprint)
            for clip in tqdm(dataset, desc=f"reading {folder}", unit="clip", leave=False):
                if clip.flow is None:
                    raise InputError(f"{folder}: a clip has no optical flow; simulate with '--arrays all'")
                frames, flows = alike.setdefault(clip.frames.shape, ([], []))
                frames.append((clip.frames * 255).round().to(torch.uint8))
                flows.append(clip.flow.half())
        self.groups = [(torch.stack(f).to(device), torch.stack(u).to(device)) for f, u in alike.values()]

    def __len__(self) -> int:
        return sum(len(frames) for frames, _ in self.groups)

    def draw(self, count: int, side: int, rng: torch.Generator) -> Pair:
        """Return ``count`` random pairs, cropped to ``side`` pixels; clips smaller than that are left out."""
        fitting = [group for group in self.groups if min(group[0].shape[-2:]) >= side]
        if not fitting:
            raise InputError(f"no clip is {side} pixels large; simulate larger ones, or train on smaller crops")
        sizes = torch.tensor([float(len(frames)) for frames, _ in fitting])
        shares = torch.multinomial(sizes, count, replacement=True, generator=rng).bincount(minlength=len(fitting)).tolist()
        parts = [self._some(group, n, side, rng) for group, n in zip(fitting, shares, strict=True) if n]
        return _mirrored(Pair(*(torch.cat(tensors) for tensors in zip(*parts, strict=True))), rng)

    def _some(self, group: tuple[Tensor, Tensor], count: int, side: int, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Crop ``count`` pairs of clips of one size: frames (M, 3, S, S) in [0, 1] and flow (M, 2, S, S)."""
        frames, flows = group
        sizes = (len(flows), flows.shape[1], *(s - side + 1 for s in frames.shape[-2:]))
        n, t, y, x = (torch.randint(size, (count, 1, 1), generator=rng).to(self.device) for size in sizes)
        at = torch.arange(side, device=self.device)
        rows, columns = y + at[:, None], x + at
        one, two, flow = (
            a[n, s, :, rows, columns].movedim(-1, 1).float() for a, s in ((frames, t), (frames, t + 1), (flows, t))
        )
        return one / 255, two / 255, flow


def _mirrored(pair: Pair, rng: torch.Generator) -> Pair:
    """Mirror and transpose half of the pairs each way."""
    images = torch.stack([pair.first, pair.second], 1)
    flow = pair.flow
    across, down, swapped = (torch.rand(3, len(flow), 1, 1, 1, generator=rng) < 0.5).to(flow.device)
    for axis, wanted, component in ((-1, across, 0), (-2, down, 1)):
        sign = torch.ones(2, 1, 1, device=flow.device)
        sign[component] = -1
        images = torch.where(wanted[:, None], images.flip(axis), images)
        flow = torch.where(wanted, flow.flip(axis) * sign, flow)
    images = torch.where(swapped[:, None], images.mT, images)
    flow = torch.where(swapped, flow.mT.flip(1), flow)
    return Pair(images[:, 0], images[:, 1], flow)
