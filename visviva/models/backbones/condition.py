"""What a backbone is conditioned on: prompts and first frames, already encoded."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Condition:
    """Encoded conditions of a batch; slices, repeats and moves like a tensor.

    Attributes:
        prompt: text embeddings, shape (B, L, D).
        negative: embeddings of the negative prompt for classifier-free guidance, shape (B, L, D).
        first_frame: normalised latents of the first frame, shape (B, C, 1, h, w), for models that keep it as their first latent
            frame (Wan 2.2 TI2V); None for text-to-video.
        channels: extra input channels (mask and encoded first frame), shape (B, C', F, h, w), for Wan 2.1/2.2 image-to-video.
        image: CLIP embeddings of the first frame, shape (B, N, D'), for Wan 2.1 image-to-video.
    """

    prompt: Float[Tensor, "B L D"]
    negative: Float[Tensor, "B L D"]
    first_frame: Float[Tensor, "B C 1 h w"] | None = None
    channels: Float[Tensor, "B C2 F h w"] | None = None
    image: Float[Tensor, "B N D2"] | None = None

    def __len__(self) -> int:
        return len(self.prompt)

    def __getitem__(self, index: slice | Tensor | list[int]) -> Condition:
        """Return the conditions of some clips of the batch (``index`` keeps the batch axis)."""
        return self._map(lambda x: x[index])

    def repeat(self, times: int) -> Condition:
        """Repeat every clip ``times`` times in a row: a b -> a a b b."""
        return self._map(lambda x: x.repeat_interleave(times, dim=0))

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Condition:
        """Move and cast every tensor."""
        return self._map(lambda x: x.to(device=device, dtype=dtype))

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors that are not None, by name (for caches)."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}

    @staticmethod
    def cat(parts: list[Condition]) -> Condition:
        """Concatenate batches."""
        names = parts[0].tensors()
        return Condition(**{name: torch.cat([getattr(p, name) for p in parts]) for name in names})

    def _map(self, function: object) -> Condition:
        return Condition(**{name: function(value) for name, value in self.tensors().items()})  # type: ignore[operator]
