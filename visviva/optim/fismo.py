"""FISMO: Fisher-structured momentum orthogonalization (arXiv 2601.21750, ICML 2026; no official code was found).

The rule follows two independent notes of the paper's Algorithm 1 that agree; its hyper-parameters gamma, mu, beta and how often
the factors are refreshed were not found: the defaults here are this project's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from visviva.optim.moments import NOT_NEGATIVE, Ema
from visviva.optim.muon import MatrixOptimizer, Orthogonalize, known_schedule
from visviva.optim.transform import Kept, Step, Transform
from visviva.optim.weights import Apply


@dataclass(frozen=True)
class Whiten(Transform):
    """Kronecker factors P (rows), Q (columns) of the gradient's second moment, and ``u <- P^-1/2 u Q^-1/2``.

    Every ``refresh`` steps, with n columns and m rows::

        L = G Q^-1 G^T / n + mu tr(P)/m I;  P <- sym(m P' / tr P'), P' = gamma P + (1-gamma) L
        R = G^T P^-1 G / m + mu tr(Q)/n I;  Q <- sym(n Q' / tr Q'), Q' = gamma Q + (1-gamma) R   (with the new P)
    """

    batched: ClassVar = True
    capturable: ClassVar = False
    ranges: ClassVar = {"gamma": (0.0, 1.0 + 1e-12), "mu": NOT_NEGATIVE, "refresh": (1, float("inf"))}
    gamma: float = 0.95
    mu: float = 0.1
    refresh: int = 10

    def states(self) -> Mapping[str, Kept]:
        eye = {name: Kept(kind, "identity", moment=False) for name, kind in (("P_root", "rows"), ("Q_root", "columns"))}  # type: ignore[arg-type]
        return {"P": Kept("rows", "identity", moment=False), "Q": Kept("columns", "identity", moment=False), **eye}

    def scalars(self, t: Any, lr: Any) -> Mapping[str, Any]:
        return {"gamma": self.gamma, "mu": self.mu}

    def __call__(self, x: Step, gamma: Tensor, mu: Tensor) -> None:  # type: ignore[override]
        if (x.t - 1) % self.refresh == 0 and self.gamma < 1:
            m, n = x.g.shape[1:]
            inverse = _power(x.state["Q"], -1.0)
            x.state["P"] = _mixed(x.state["P"], x.g @ inverse @ x.g.mT / n, gamma, mu)
            inverse = _power(x.state["P"], -1.0)
            x.state["Q"] = _mixed(x.state["Q"], x.g.mT @ inverse @ x.g / m, gamma, mu)
            x.state["P_root"], x.state["Q_root"] = _power(x.state["P"], -0.5), _power(x.state["Q"], -0.5)
        x.u = x.state["P_root"] @ x.u @ x.state["Q_root"]


@dataclass(frozen=True)
class Unwhiten(Transform):
    """``u <- P^-1/2 u Q^-1/2`` once more: back from the whitened space."""

    batched: ClassVar = True

    def reads(self) -> tuple[str, ...]:
        return ("P_root", "Q_root")

    def __call__(self, x: Step) -> None:  # type: ignore[override]
        x.u = x.state["P_root"] @ x.u @ x.state["Q_root"]


def _mixed(factor: Tensor, new: Tensor, gamma: Tensor, mu: Tensor) -> Tensor:
    size = factor.shape[-1]
    trace = factor.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None]
    eye = torch.eye(size, dtype=factor.dtype, device=factor.device)
    mixed = gamma * factor + (1 - gamma) * (new + mu * trace / size * eye)
    mixed = mixed * size / mixed.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None]
    return (mixed + mixed.mT) / 2


def _power(factor: Tensor, exponent: float) -> Tensor:
    values, vectors = torch.linalg.eigh(factor)
    floor = 1e-6 * values.mean(-1, keepdim=True)
    return (vectors * torch.maximum(values, floor).pow(exponent)[:, None, :]) @ vectors.mT


class FISMO(MatrixOptimizer):
    """Whiten by the Fisher factors, average, orthogonalize, unwhiten: ``p <- p - lr P^-1/2 polar(M) Q^-1/2``.

    The step minimises ``<G, dW>`` subject to ``|P^1/2 dW Q^1/2|_2 <= lr``. With P = Q = I (``gamma=1``) it is Muon on an
    average without shape scale. On this project's toy problems it did not beat Muon.

    Args:
        params: named parameters, best; parameters or groups.
        lr, momentum, weight_decay: hyper-parameters.
        gamma, mu, refresh: of the factors (`Whiten`; this project's defaults).
        schedule: Newton-Schulz coefficients or ``svd``.
        options: as `visviva.optim.muon.Muon`.

    Example::

        optimizer = FISMO(model.named_parameters(), lr=1e-2)
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        gamma: float = 0.95,
        mu: float = 0.1,
        refresh: int = 10,
        schedule: Any = "standard",
        **options: Any,
    ) -> None:
        defaults = dict(lr=lr, momentum=momentum, weight_decay=weight_decay, gamma=gamma, mu=mu, refresh=refresh)
        super().__init__(params, defaults | dict(schedule=known_schedule(schedule)), **options)

    def matrix_chain(self, group: Mapping[str, Any], blocks: int) -> list[Transform]:
        """Return Whiten, Ema, Orthogonalize, Unwhiten, Apply."""
        whiten = Whiten(group["gamma"], group["mu"], group["refresh"])
        polar = Orthogonalize(group["schedule"], "none", blocks)
        return [whiten, Ema(group["momentum"]), polar, Unwhiten(), Apply(group["weight_decay"])]
