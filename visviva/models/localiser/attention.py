"""Attention-based multiple-instance learning (ABMIL, Ilse et al., arXiv 1802.04712): a bag's label from its windows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from visviva.errors import InputError


@dataclass(frozen=True)
class Bag:
    """What the network says of a batch of B bags with at most N windows.

    Attributes:
        logit: that the bag holds a violation, shape (B,).
        attention: weight of each window in the bag, shape (B, N); sums to 1, 0 for windows that are not there.
        feature: the pooled feature, shape (B, D).
        evidence: logit of each window by itself, shape (B, N): ``logit = sum attention evidence``.
    """

    logit: Tensor
    attention: Tensor
    feature: Tensor
    evidence: Tensor


class AttentionMIL(nn.Module):
    """``h_n = dropout(relu(W x_n))``, ``a = softmax_n(w . tanh(V h_n))``, ``z = sum_n a_n h_n``, ``logit = c . z + b``.

    The first layer normalises its inputs by running means (statistics are set by `fit`, saved with the weights).

    Args:
        features: D_in of one window.
        width: of h.
        hidden: of the attention's inner layer.
        dropout: share of h that is dropped in training; the teacher's dropout is live, too.

    Example::

        AttentionMIL(24)(torch.zeros(2, 40, 24)).attention.sum(1)  # tensor([1., 1.])
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, features: int, width: int = 64, hidden: int = 32, dropout: float = 0.25) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        self.embed = nn.Linear(features, width)
        self.dropout = nn.Dropout(dropout)
        self.inner = nn.Linear(width, hidden)
        self.score = nn.Linear(hidden, 1, bias=False)
        self.classify = nn.Linear(width, 1)

    def standardise(self, windows: Float[Tensor, "B N D"], there: Bool[Tensor, "B N"]) -> None:
        """Set the input normalisation to mean and standard deviation over the given windows."""
        given = windows[there]
        self.mean.copy_(given.mean(0))
        self.scale.copy_(given.std(0).clamp(min=1e-6))

    def forward(self, windows: Float[Tensor, "B N D"], there: Bool[Tensor, "B N"] | None = None) -> Bag:
        """Return bag logits, attention, pooled features and per-window evidence.

        ``there``: which windows exist (or are kept); a bag without any window is an error.
        """
        if there is None:
            there = torch.ones(windows.shape[:2], dtype=torch.bool, device=windows.device)
        if not bool(there.any(1).all()):
            raise InputError("a bag without windows has no label; give each clip at least one window")
        x = (windows - self.mean) / self.scale
        h = self.dropout(torch.relu(self.embed(torch.where(there[..., None], x, 0.0))))
        score = self.score(torch.tanh(self.inner(h)))[..., 0]
        attention = torch.softmax(score.masked_fill(~there, -torch.inf), dim=1)
        feature = torch.einsum("bn,bnd->bd", attention, h)
        return Bag(self.classify(feature)[:, 0], attention, feature, self.classify(h)[..., 0])

    def likelihood(self, bag: Bag) -> Tensor:
        """Return the class-aware probability of each window, shape (B, N): MHIM-MIL v2 ranks by it instead of attention.

        ``max_c softmax_c(C(a_n h_n) + b)`` of a two-class head whose logits are (0, l): ``sigmoid(|l|)``, l = the classifier
        on the attention-weighted window.
        """
        bias = self.classify.bias
        return torch.sigmoid((bag.attention * (bag.evidence - bias) + bias).abs())
