"""ProPhy's experts: which physics a prompt asks for (per clip) and which each token shows, and what teaches them to tell.

All of it is reconstructed from secondary notes of arXiv 2512.05564 (the paper's equations were not read): numbers of experts,
the sizes and where the branch ends are ours.

- `SemanticExperts` (per clip): basis maps of the shape of the token grid, mixed by what a router reads in the text,
  ``x + sum_e rho_e B_e``. All experts contribute; hard choices collapsed with small batches, say the notes.
- `RefinementExperts` (per token): linear experts, the k best of them mixed.
- `coarse_alignment`: clips whose labels are alike shall be routed alike, ``sum_{i<j} |cos(rho_i, rho_j) - cos(q_i, q_j)|^p``.
- `FineAlignment`: where a phenomenon is seen, the token's routing, widened by a small network, shall say which.
- `balance` (`visviva.models.experts.sparse`): without it fine alignment hurts.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from visviva.errors import InputError


class SemanticExperts(nn.Module):
    """Video-level experts: maps over the token grid, added by the prompt's weights; zero at first, so nothing changes.

    Args:
        width: of the tokens; ``text``: of the text's embeddings; ``experts``: how many maps.
        grid: frames, rows and columns of the maps, which are interpolated to those of the tokens.

    After a forward pass ``weights`` (B, experts) tells the mixture.
    """

    def __init__(self, width: int, text: int, experts: int = 5, grid: tuple[int, int, int] = (5, 8, 8)) -> None:
        super().__init__()
        self.router = nn.Sequential(nn.LayerNorm(text), nn.Linear(text, experts))
        self.maps = nn.Parameter(torch.zeros(experts, width, *grid))
        self.weights: Tensor | None = None

    def forward(
        self, x: Float[Tensor, "B n D"], text: Float[Tensor, "B L E"], grid: tuple[int, int, int]
    ) -> Float[Tensor, "B n D"]:
        """Return the tokens of a grid with the prompt's mixture of maps added."""
        maps: Tensor = self.maps
        self.weights = self.router(text.float().mean(1).to(maps.dtype)).float().softmax(-1)
        if tuple(maps.shape[2:]) != tuple(grid):
            maps = nn.functional.interpolate(maps, size=grid, mode="trilinear", align_corners=False)
        return x + torch.einsum("be,edn->bnd", self.weights.to(maps.dtype), maps.flatten(2)).to(x.dtype)


class RefinementExperts(nn.Module):
    """Token-level experts: each token is sent to its k best linear experts, ``sum_i rho_i e_i(x)``; the identity at first.

    After a forward pass ``logits`` (B, n, experts) and ``chosen`` (B, n, k) tell the routing.

    Raises:
        InputError: more active experts than there are, or none.
    """

    def __init__(self, width: int, experts: int = 5, active: int = 2) -> None:
        super().__init__()
        if not 1 <= active <= experts:
            raise InputError(f"{active} active of {experts} experts; give 1 to {experts}")
        self.active = active
        self.router = nn.Linear(width, experts)
        self.weight = nn.Parameter(torch.eye(width).repeat(experts, 1, 1))
        self.bias = nn.Parameter(torch.zeros(experts, width))
        self.logits: Tensor | None = None
        self.chosen: Tensor | None = None

    def forward(self, x: Float[Tensor, "B n D"]) -> Float[Tensor, "B n D"]:
        """Return the mixture for each token."""
        self.logits = self.router(x.to(self.router.weight.dtype)).float()
        best, self.chosen = self.logits.topk(self.active, dim=-1)
        share = torch.zeros_like(self.logits).scatter(-1, self.chosen, best.softmax(-1)).to(x.dtype)
        return torch.einsum("bne,bnd,edo->bno", share, x, self.weight.to(x.dtype)) + share @ self.bias.to(x.dtype)


def coarse_alignment(routed: Float[Tensor, "B E"], labels: Float[Tensor, "B K"], power: float = 2.0) -> Float[Tensor, ""]:
    """Return ``sum_{i<j} |cos(rho_i, rho_j) - cos(q_i, q_j)|^power`` over the clips of a batch, as a mean over pairs.

    It does not care which expert stands for which label. Clips without labels (all 0) are left out. The notes disagree on the
    power (2, or 1).
    """
    known = (labels.abs().sum(1) > 0).to(routed.dtype)
    alike, wanted = (nn.functional.normalize(x.float(), dim=1) for x in (routed, labels))
    off = (alike @ alike.T - wanted @ wanted.T).abs().pow(power)
    pairs = torch.triu(known[:, None] * known[None], diagonal=1)
    return (off * pairs).sum() / pairs.sum().clamp(min=1)


class FineAlignment(nn.Module):
    """How far the tokens' routing is from what is seen there, through a small network from experts to phenomena.

    Args:
        experts: of the routing; ``phenomena``: how many kinds an annotator tells (masks of a simulator, attention of a
            vision-language model).
    """

    def __init__(self, experts: int, phenomena: int) -> None:
        super().__init__()
        self.phenomena = phenomena
        self.widen = nn.Sequential(nn.Linear(experts, 4 * phenomena), nn.SiLU(), nn.Linear(4 * phenomena, phenomena))

    def forward(
        self,
        logits: Float[Tensor, "B n E"],
        seen: Float[Tensor, "B n K"],
        labelled: Bool[Tensor, "B K"] | None = None,
    ) -> Float[Tensor, ""]:
        """Return the mean squared difference over all phenomena of the tokens that show any (``seen`` > 0).

        With ``labelled`` it is the notes' mask instead: only a phenomenon that is seen at the token and labelled in the clip
        counts. Where ``seen`` is 0 or 1, the constant 1 is then best, whatever is shown.
        """
        anything = (seen > 0).any(-1, keepdim=True).expand_as(seen)
        mask = anything if labelled is None else (seen > 0) & labelled[:, None]
        dtype = next(self.widen.parameters()).dtype
        widened = self.widen(logits.softmax(-1).to(dtype)).float()
        return ((widened - seen).square() * mask).sum() / mask.sum().clamp(min=1)
