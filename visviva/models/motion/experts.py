"""A small mixture of experts: each token goes through the few feed-forward networks that a cosine gate chooses for it.

``y = sum_{e in top} g_e FFN_e(x)``, ``g = softmax_top(cos(W x, c_e) / temperature)``. LMM uses Tutel's experts (16, of which 4;
arXiv 2404.01284); this is plain torch without capacities, so no token is dropped, and without gate noise. One expert is a plain
feed-forward network.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from visviva.errors import InputError


class Experts(nn.Module):
    """Feed-forward networks behind a cosine gate.

    Args:
        width, out: of the tokens in and out.
        hidden: of each expert.
        count, top: experts in all, and for each token.

    Raises:
        InputError: more experts per token than there are.
    """

    def __init__(self, width: int, out: int, hidden: int, count: int = 1, top: int = 1) -> None:
        super().__init__()
        if not 1 <= top <= count:
            raise InputError(f"{top} experts per token of {count}; give 1 to {count}")
        self.count, self.top = count, top
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, out)) for _ in range(count)
        )
        if count > 1:
            self.gate = nn.Linear(width, width, bias=False)
            self.centres = nn.Parameter(torch.randn(count, width))
            self.temperature = nn.Parameter(torch.tensor(0.1))

    def forward(self, x: Float[Tensor, "*batch C"]) -> tuple[Float[Tensor, "*batch D"], Float[Tensor, ""]]:
        """Return the mixture, and the load's imbalance: ``E sum_e share_e mean_gate_e`` (Switch), 1 where even, E at most."""
        if self.count == 1:
            return self.experts[0](x), x.new_ones(())
        flat = x.flatten(0, -2)
        cosine = functional.normalize(self.gate(flat), dim=-1) @ functional.normalize(self.centres, dim=-1).mT
        probability = (cosine.float() / self.temperature.clamp(min=0.01)).softmax(-1)
        weight, chosen = probability.topk(self.top, dim=-1)
        weight = weight / weight.sum(-1, keepdim=True)
        parts, places = [], []
        for e, expert in enumerate(self.experts):
            rows, slot = (chosen == e).nonzero(as_tuple=True)
            made = expert(flat[rows])
            parts.append(made * weight[rows, slot, None].to(made))
            places.append(rows)
        found = parts[0].new_zeros(len(flat), parts[0].shape[-1]).index_add(0, torch.cat(places), torch.cat(parts))
        share = functional.one_hot(chosen, self.count).to(probability).sum(1).mean(0) / self.top
        return found.unflatten(0, x.shape[:-1]), self.count * (share * probability.mean(0)).sum()
