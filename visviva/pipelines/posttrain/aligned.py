"""Flow matching with experts that are told which physics each clip shows: ProPhy's loss, beside the ordinary one.

    L = flow matching + semantic L_coarse + refinement L_fine + balance L_balance      (weights: experts.align)

The alignment of a micro-batch is one number; it is added to the loss of each of its samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from visviva.configs.posttrain import PosttrainRecipe
from visviva.errors import InputError
from visviva.models.experts import alignment, on_tokens, parts_of
from visviva.pipelines.posttrain.annotator import Annotator, FromData
from visviva.pipelines.posttrain.batch import Batch
from visviva.pipelines.posttrain.cache import Cache
from visviva.pipelines.posttrain.examples import Examples
from visviva.pipelines.posttrain.sft import Outcome, Sft


class Aligned:
    """The objective: a batch with `truth` in, the loss of each sample and what to log out.

    Args:
        sft: flow matching; ``recipe``: with ``experts.align``.
        annotator: who tells which physics a clip shows; None: the data's labels and masks.

    Raises:
        InputError: a model of two networks, or clips that the annotator cannot tell about.
    """

    def __init__(
        self, sft: Sft, recipe: PosttrainRecipe, examples: Examples, accelerator: Any, annotator: Annotator | None = None
    ) -> None:
        self.sft, self.align = sft, recipe.experts.align
        if len(sft.backbone.networks()) > 1:
            raise InputError("experts.align knows models of one network; this one splits a batch between two by noise level")
        self.mapped = self.align.refinement > 0
        self.annotator = FromData(examples, recipe.experts.labels, self.mapped) if annotator is None else annotator
        data, transformer = recipe.data, sft.backbone.transformer
        shape = sft.backbone.latent_shape(1, data.frames, data.height, data.width)[2:]
        self.grid = tuple(n // p for n, p in zip(shape, transformer.config.patch_size, strict=True))
        parts = {
            "examples": examples.freshness,
            "annotator": self.annotator.name,
            "phenomena": list(self.annotator.phenomena),
            "grid": list(self.grid) if self.mapped else [],
        }
        self.cache = Cache(Path(recipe.data.cache or Path(recipe.output) / "cache"), parts)
        self.cache.fill(range(accelerator.process_index, len(examples), accelerator.num_processes), self._entry(examples))
        accelerator.wait_for_everyone()

    @property
    def phenomena(self) -> Sequence[str]:
        """What the experts per token are to tell apart; nothing without maps."""
        return self.annotator.phenomena if self.mapped else ()

    def truth(self, clips: Sequence[int], device: torch.device) -> dict[str, Tensor]:
        """Return ``labels`` (B, K) and, where they are used, ``seen`` (B, n, K) of these clips."""
        entries = [self.cache[i] for i in clips]
        return {name: torch.stack([e[name] for e in entries]).to(device) for name in entries[0]}

    def __call__(self, batch: Batch, base: Tensor | None = None, checked: bool = False) -> Outcome:
        """Return the loss per sample (B,) and the logged numbers (B,) by name."""
        if batch.labels is None:
            raise InputError("experts.align needs a batch with labels; see Aligned.truth")
        loss, logs = self.sft(batch)
        silent = torch.tensor(self.sft.dropped(batch.keys), device=batch.labels.device)  # without caption nothing is told
        losses = alignment(list(parts_of(self.sft.backbone.transformer)), batch.labels * ~silent[:, None], batch.seen)
        weighted = [getattr(self.align, name) * value for name, value in losses.items()]
        logs |= {f"experts/{name}": value.detach().expand(len(batch)) for name, value in losses.items()}
        return loss + torch.stack(weighted).sum(), logs

    def _entry(self, examples: Examples) -> Any:
        known = len(self.annotator.phenomena)

        def make(index: int) -> dict[str, Tensor]:
            told = self.annotator(examples[index])
            if told.labels.shape != (known,):
                raise InputError(f"{self.annotator.name}: labels {tuple(told.labels.shape)} of {known} phenomena")
            if not self.mapped:
                return {"labels": told.labels.float()}
            if told.seen is None or told.seen.ndim != 4 or told.seen.shape[1] != known:
                given = None if told.seen is None else tuple(told.seen.shape)
                raise InputError(
                    f"{self.annotator.name}: maps {given} of {known} phenomena; experts.align.refinement needs "
                    f"(T, {known}, H, W): give them, or set it to 0"
                )
            return {"labels": told.labels.float(), "seen": on_tokens(told.seen, self.grid)}  # type: ignore[arg-type]

        return make
