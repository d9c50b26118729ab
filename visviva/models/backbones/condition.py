"""What a backbone is conditioned on: prompts and first frames, already encoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class Text(NamedTuple):
    """Encoded prompts: embeddings (B, L, D), which tokens are not padding (B, L), and one vector for the whole (B, P)."""

    embeddings: Float[Tensor, "B L D"]
    mask: Bool[Tensor, "B L"] | None = None
    pooled: Float[Tensor, "B P"] | None = None


@dataclass(frozen=True)
class Condition:
    """Encoded conditions of a batch; slices, repeats and moves like a tensor.

    Attributes:
        prompt: text embeddings, shape (B, L, D).
        negative: embeddings of the negative prompt for classifier-free guidance, shape (B, L, D).
        first_frame: normalised latents of the first frame, shape (B, C, 1, h, w), for models that keep it as their first latent
            frame (Wan 2.2 TI2V, LTX-Video); None for text-to-video.
        channels: extra input channels, shape (B, C', F, h, w): mask and encoded first frame (Wan 2.1/2.2 image-to-video), or
            the encoded first frame alone (CogVideoX image-to-video).
        image: CLIP embeddings of the first frame, shape (B, N, D'), for Wan 2.1 image-to-video.
        prompt_mask, negative_mask: which tokens are not padding, shape (B, L), for families that do not attend to padding.
        prompt_pooled, negative_pooled: CLIP's vector of the whole prompt, shape (B, P), for HunyuanVideo.
        frame_rate: [frames/s], shape (B,), for families that are told it (LTX-Video).
        forces: force prompts as `visviva.models.control.table` writes them, shape (B, 8, 5), for models with force control.
    """

    prompt: Float[Tensor, "B L D"]
    negative: Float[Tensor, "B L D"]
    first_frame: Float[Tensor, "B C 1 h w"] | None = None
    channels: Float[Tensor, "B C2 F h w"] | None = None
    image: Float[Tensor, "B N D2"] | None = None
    prompt_mask: Bool[Tensor, "B L"] | None = None
    negative_mask: Bool[Tensor, "B L"] | None = None
    prompt_pooled: Float[Tensor, "B P"] | None = None
    negative_pooled: Float[Tensor, "B P"] | None = None
    frame_rate: Float[Tensor, "B"] | None = None
    forces: Float[Tensor, "B 8 5"] | None = None

    def __len__(self) -> int:
        return len(self.prompt)

    def __getitem__(self, index: slice | Tensor | list[int]) -> Condition:
        """Return the conditions of some clips of the batch (``index`` keeps the batch axis)."""
        return self._map(lambda x: x[index])

    @property
    def positive_text(self) -> Text:
        """The prompts."""
        return Text(self.prompt, self.prompt_mask, self.prompt_pooled)

    @property
    def negative_text(self) -> Text:
        """The negative prompts."""
        return Text(self.negative, self.negative_mask, self.negative_pooled)

    def repeat(self, times: int) -> Condition:
        """Repeat every clip ``times`` times in a row: a b -> a a b b."""
        return self._map(lambda x: x.repeat_interleave(times, dim=0))

    def without_prompts(self, rows: list[bool]) -> Condition:
        """Return the conditions with the negative prompt in place of the prompt where ``rows`` says so (caption dropout)."""
        dropped = torch.tensor(rows, device=self.prompt.device)
        mixed = {
            f"prompt{part}": torch.where(dropped.view(-1, *[1] * (negative.ndim - 1)), negative, getattr(self, f"prompt{part}"))
            for part, negative in zip(("", "_mask", "_pooled"), self.negative_text, strict=True)
            if negative is not None
        }
        return replace(self, **mixed)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Condition:
        """Move every tensor, and cast those that are not masks."""
        return self._map(lambda x: x.to(device=device, dtype=dtype if x.is_floating_point() else None))

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors that are not None, by name (for caches)."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}

    @staticmethod
    def cat(parts: list[Condition]) -> Condition:
        """Concatenate batches."""
        names = parts[0].tensors()
        return Condition(**{name: torch.cat([getattr(p, name) for p in parts]) for name in names})

    def _map(self, function: Callable[[Tensor], Tensor]) -> Condition:
        return Condition(**{name: function(value) for name, value in self.tensors().items()})
