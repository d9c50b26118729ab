"""The settings of experts beside the denoiser, and of what teaches them which physics a clip shows."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from visviva.configs.schema import Section
from visviva.errors import InputError


class Align(Section):
    """Weights of ProPhy's alignment losses beside flow matching (the paper's notes: 0.1, 0.02, 0.01); 0 leaves one out."""

    semantic: float = Field(default=0.0, ge=0)
    """Clips of one phenomenon are routed alike, of others apart (compares the clips of a batch; needs ``labels``)."""
    refinement: float = Field(default=0.0, ge=0)
    """Tokens that show an object tell by their routing which phenomenon it is (needs ``labels`` and masks)."""
    balance: float = Field(default=0.0, ge=0)
    """Experts per token are used alike; without it, say the notes, the former hurts."""


class Experts(Section):
    """Experts beside the denoiser: none, or ProPhy's physical branch (arXiv 2512.05564), trained whole beside the adapters."""

    kind: Literal["none", "prophy"] = "none"
    """prophy: tokens with the prompt's physics go through copies of the first blocks and are added through zeros (Wan)."""
    blocks: int = Field(default=2, ge=1)
    """How many of the first blocks are copied."""
    semantic: int = Field(default=5, ge=1)
    """Experts per clip, mixed by what the prompt says."""
    refinement: int = Field(default=5, ge=1)
    """Experts per token; ``active`` of them see one."""
    active: int = Field(default=2, ge=1)
    """How many of the latter see a token."""
    align: Align = Align()
    """What teaches routing, apart from the objective (method sft)."""
    labels: str = "primitive"
    """Field of the data's rows that names what a clip shows: one phenomenon or a list ('visviva simulate' writes primitive)."""

    @property
    def aligned(self) -> bool:
        """Whether anything teaches routing apart from the objective."""
        return any((self.align.semantic, self.align.refinement, self.align.balance))

    def check(self, method: str, batch_size: int) -> None:
        """Raise an `InputError` for alignment that could not happen."""
        if not self.aligned:
            return
        if self.kind == "none":
            raise InputError("experts.align teaches experts, but experts.kind is none; set experts.kind: prophy")
        if method != "sft":
            raise InputError(f"experts.align stands beside flow matching on labelled clips; method is {method!r}, use sft")
        if self.align.semantic and batch_size < 2:
            raise InputError(
                "experts.align.semantic compares the clips of a batch, and batch_size is 1; give 2 or more (and less "
                "gradient_accumulation), or set it to 0"
            )
