"""One micro-batch: encoded conditions, keyed noise, and what is known of the true clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from visviva.models.backbones.condition import Condition
from visviva.pipelines.posttrain.commanded import forces_of
from visviva.pipelines.posttrain.examples import Example


@dataclass(frozen=True)
class Batch:
    """B samples on the training device; what the data do not have is None.

    Attributes:
        condition: encoded prompts and first frames.
        noise: start latents, (B, C, F', h, w); F' = F but for CogVideoX 1.5, which pads its noise.
        keys: seed of each sample's further random draws.
        fps: frame rates [frames/s], (B,).
        start: first frame of the judged window.
        draw: seed of what is drawn once for a whole update, however its effective batch is split.
        latents: clean latents of the true clips, (B, C, F, h, w).
        frames: true clips, (B, T, 3, H, W).
        masks: true object masks, (B, T, N, H, W); absent objects are empty.
        contact: frames around true contacts, (B, T).
        force: commanded force over mass on each object, (B, N, 2).
        losers: clean latents of generated clips that are worse than the true one, (B, m, C, F, h, w).
        scores: their semantic and physical scores in [0, 1], (B, m, 2).
        labels: how much of each phenomenon the clips show, (B, K).
        seen: which of the denoiser's tokens show it, (B, n, K).
    """

    condition: Condition
    noise: Float[Tensor, "B C F2 h w"]
    keys: list[int]
    fps: Float[Tensor, "B"]
    start: int = 0
    draw: int = 0
    latents: Float[Tensor, "B C F h w"] | None = None
    frames: Float[Tensor, "B T 3 H W"] | None = None
    masks: Bool[Tensor, "B T N H W"] | None = None
    contact: Bool[Tensor, "B T"] | None = None
    force: Float[Tensor, "B N 2"] | None = None
    losers: Float[Tensor, "B m C F h w"] | None = None
    scores: Float[Tensor, "B m 2"] | None = None
    labels: Float[Tensor, "B K"] | None = None
    seen: Bool[Tensor, "B n K"] | None = None

    def __len__(self) -> int:
        return len(self.keys)


def truth(examples: Sequence[Example], device: torch.device) -> dict[str, Tensor | None]:
    """Stack what the examples know: ``frames``, ``contact``, ``masks`` and ``force`` (padded to the most objects).

    An entry that any of them lacks is None, except contacts, which are then taken as none for that clip.
    """
    frames = [e.frames for e in examples if e.frames is not None]
    masks = [e.masks for e in examples if e.masks is not None]
    whole = len(frames) == len(examples)
    stacked = torch.stack(frames).to(device) if whole else None
    contact = None
    if whole and any(e.contact is not None for e in examples):
        contact = torch.stack([_contact(e, len(frames[0])) for e in examples]).to(device)
    return {
        "frames": stacked,
        "masks": _padded(masks).to(device) if len(masks) == len(examples) else None,
        "contact": contact,
        "force": None if (force := forces_of(examples)) is None else force.to(device),
    }


def _contact(example: Example, frames: int) -> Tensor:
    return example.contact if example.contact is not None else torch.zeros(frames, dtype=torch.bool)


def _padded(masks: Sequence[Tensor]) -> Tensor:
    most = max(m.shape[1] for m in masks)
    return torch.stack([torch.cat([m, m.new_zeros(len(m), most - m.shape[1], *m.shape[2:])], dim=1) for m in masks])
