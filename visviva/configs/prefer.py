"""The settings of ``visviva prefer``: generated clips and their true clips in, pairs for preference tuning out."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from tyro.conf import Positional

from visviva.configs.posttrain import Law, Probe
from visviva.configs.schema import Recipe


class PreferRecipe(Recipe):
    """Make preference data without people: true clips before what a model generated from their first frames, scored by laws."""

    verb: Literal["prefer"] = "prefer"
    """Which verb this recipe is for."""
    generated: Positional[str] = ""
    """Folder of clips from 'visviva generate DATA --samples 3', where DATA are true clips."""
    output: str = "runs/pairs"
    """Folder to write: metadata.jsonl with losers and scores, for 'visviva posttrain --method dpo'. Clips stay in place."""
    laws: list[Law] = Field(
        default_factory=lambda: [
            Law(name="constant_acceleration"),
            Law(name="motion_floor", weight=2.0, options={"fraction": 0.5}),
        ],
        min_length=1,
    )
    """The laws that score clips: exp(-weighted sum), in [0, 1]."""
    probe: Probe = Probe(flow="dis")
    """How clips are measured; no gradient is needed."""
    losers: int = Field(default=3, ge=1)
    """How many losers a true clip has; true clips with fewer are left out, and said."""
    semantic: str = ""
    """A JSON object of semantic scores in [0, 1] by generated clip's id, such as a vision-language model's; empty: all 1."""
    margin: float = Field(default=0.0, ge=0)
    """A generated clip whose score comes this near to the true clip's, or above it, is no loser."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to measure."""
