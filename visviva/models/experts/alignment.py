"""What teaches the experts of a physical branch which physics is where: ProPhy's alignment and balance after a forward pass.

    L = semantic L_coarse + refinement L_fine + balance L_balance        (the notes: 0.1, 0.02, 0.01 beside the denoising loss)

Reconstructed from secondary notes of arXiv 2512.05564. One thing differs on purpose: the notes count phenomenon k at a token
only where k itself is seen. With masks of 0 and 1 the constant answer 1 is then best and nothing is told apart, so here
every phenomenon counts at each token that shows any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from visviva.errors import InputError
from visviva.models.experts.branch import PhysicalBlock
from visviva.models.experts.prophy import coarse_alignment
from visviva.models.experts.sparse import balance

Grid = tuple[int, int, int]
LEAST = 0.05
"""Share of a token's pixels from which on it shows a phenomenon."""


@dataclass(frozen=True)
class Annotation:
    """Which of K phenomena a clip shows, and where.

    Attributes:
        labels: how much of each, (K,); 0 where it is not shown, all 0 where nothing is known.
        seen: maps in [0, 1] of where each is seen, (T, K, H, W) in pixels or coarser (a model's attention); None: not known.
    """

    labels: Float[Tensor, "K"]
    seen: Float[Tensor, "T K H W"] | None = None


def on_tokens(seen: Float[Tensor, "T K H W"], grid: Grid, least: float = LEAST) -> Bool[Tensor, "n K"]:
    """Return which tokens of a grid (frames, rows, columns) show which phenomenon: at least a share of their pixels.

    Latent frame 0 holds the first frame alone, each further one the next (T - 1) / (frames - 1), as in causal video
    autoencoders; maps that have the grid's own number of frames are taken frame by frame.

    Raises:
        InputError: frames that do not divide so.

    Example::

        on_tokens(clip_masks.float(), (9, 4, 4))        # (144, K)
    """
    frames, rows, columns = grid
    small = torch.nn.functional.adaptive_avg_pool2d(seen.float(), (rows, columns))
    if len(seen) != frames:
        if frames < 2 or (len(seen) - 1) % (frames - 1):
            raise InputError(
                f"maps of {len(seen)} frames for {frames} latent frames; give one per latent frame, or a first and equally "
                "many for each further one"
            )
        rest = small[1:].unflatten(0, (frames - 1, -1)).mean(1)
        small = torch.cat([small[:1], rest])
    return (small >= least).movedim(1, -1).flatten(0, 2)


def alignment(
    parts: Sequence[PhysicalBlock],
    labels: Float[Tensor, "B K"],
    seen: Bool[Tensor, "B n K"] | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """Return the losses of a branch's last forward pass: ``semantic``, ``balance`` and, with ``seen``, ``refinement``.

    Args:
        parts: of the branch, in order (`parts_of`).
        labels: of the clips, in the order of that pass; rows of zeros are left out.
        seen: phenomena of their tokens (`on_tokens`); the branch must have been made with ``phenomena``.

    Raises:
        InputError: no forward pass yet, another number of clips or tokens, or a branch that knows no phenomena.
    """
    semantic, refinement, told = parts[0].semantic, parts[-1].refinement, parts[-1].told
    weights = None if semantic is None else semantic.weights
    if weights is None or refinement is None or refinement.logits is None or refinement.chosen is None:
        raise InputError("the experts have routed nothing yet; run the transformer before asking for their alignment")
    if len(weights) != len(labels):
        raise InputError(f"{len(weights)} clips were routed, {len(labels)} are labelled; align each pass before the next")
    logits, chosen = refinement.logits.flatten(0, 1), refinement.chosen.flatten(0, 1)
    losses = {"semantic": coarse_alignment(weights, labels), "balance": balance(logits, chosen)}
    if seen is not None:
        if told is None or told.phenomena != seen.shape[-1] or seen.shape[:2] != refinement.logits.shape[:2]:
            known = "none" if told is None else f"{told.phenomena}"
            raise InputError(
                f"maps of {tuple(seen.shape)} (clips, tokens, phenomena) for routing of {tuple(refinement.logits.shape[:2])} "
                f"and {known} phenomena; make the branch with physics_experts(..., phenomena=names)"
            )
        losses["refinement"] = told(refinement.logits, seen.float())
    return losses
