"""A sparse mixture of experts: a linear gate sends each token to its k best of E small networks.

Gate and balance loss as in MomentumSMoE's code (arXiv 2410.14574) and Switch (arXiv 2101.03961): softmax over the chosen
logits; ``E sum_i share_i probability_i``, 1 where all experts are used alike.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from visviva.errors import InputError


class SparseExperts(nn.Module):
    """``f(x) = sum over the k best experts of g_i(x) E_i(x)``, E_i one hidden layer.

    Args:
        width: of the tokens.
        experts, active: how many there are, and how many see a token.
        hidden: width inside an expert; None: that of the tokens.

    After a forward pass ``logits`` (tokens, E) and ``chosen`` (tokens, k) tell where the tokens went.

    Raises:
        InputError: more active experts than there are, or none.

    Example::

        layer = SparseExperts(128, experts=16, active=2)
        x = x - layer(x)
        loss = loss + 0.01 * balance(layer.logits, layer.chosen)
    """

    def __init__(self, width: int, experts: int = 16, active: int = 2, hidden: int | None = None) -> None:
        super().__init__()
        if not 1 <= active <= experts:
            raise InputError(f"{active} active of {experts} experts; give 1 to {experts}")
        inner = hidden or width
        self.active = active
        self.gate = nn.Linear(width, experts, bias=False)
        self.into = nn.Parameter(torch.randn(experts, width, inner) * width**-0.5)
        self.out = nn.Parameter(torch.randn(experts, inner, width) * inner**-0.5)
        self.logits: Tensor | None = None
        self.chosen: Tensor | None = None

    def forward(self, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """Return the mixture for tokens of any leading shape."""
        tokens = x.reshape(-1, x.shape[-1])
        self.logits = self.gate(tokens)
        best, self.chosen = self.logits.topk(self.active, dim=-1)
        weight = best.softmax(-1)
        order = self.chosen.flatten().argsort(stable=True)  # tokens of one expert in a row
        counts = torch.bincount(self.chosen.flatten(), minlength=len(self.into)).tolist()
        sorted_tokens = tokens[order // self.active].split(counts)
        mixed = [
            nn.functional.relu(part @ into) @ out for part, into, out in zip(sorted_tokens, self.into, self.out, strict=True)
        ]
        found = torch.zeros_like(tokens)
        weighted = torch.cat(mixed) * weight.flatten()[order, None]
        return found.index_add(0, order // self.active, weighted.to(found.dtype)).view_as(x)


def balance(logits: Float[Tensor, "n E"], chosen: Int[Tensor, "n k"]) -> Float[Tensor, ""]:
    """Return ``E sum_i share_i probability_i``: 1 where experts are used alike, E where one is used for all; with gradient."""
    experts = logits.shape[1]
    share = torch.bincount(chosen.flatten(), minlength=experts).to(logits) / chosen.numel()
    return experts * (share * logits.softmax(-1).mean(0)).sum()
