"""The optimizers that are compared, with first guesses of their rates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from visviva.optim import BY_NAME
from visviva.optim.muon import hidden_matrix


@dataclass(frozen=True)
class Method:
    """One optimizer of the comparison.

    ``rate``: where the search starts (a task may know better); ``options``: everything that is not the optimizer's default;
    ``like``: take the best rate of another method (controls); ``build``: how to make them.
    """

    name: str
    rate: float
    options: Mapping[str, Any] = field(default_factory=dict)
    like: str = ""
    build: Callable[..., list[torch.optim.Optimizer]] | None = None

    def make(self, named: Sequence[tuple[str, torch.Tensor]], lr: float, **more: Any) -> list[torch.optim.Optimizer]:
        """Return the optimizers of a run (two for torch's Muon, which does not take vectors)."""
        if self.build:
            return self.build(named, lr)
        base = self.name.split("-")[0]
        return [BY_NAME[base](list(named), lr=lr, **{**dict(weight_decay=0.0), **self.options, **more})]


def torch_adamw(named: Sequence[tuple[str, torch.Tensor]], lr: float) -> list[torch.optim.Optimizer]:
    """Return torch's own AdamW."""
    return [torch.optim.AdamW([p for _, p in named], lr=lr, weight_decay=0.0)]


def torch_muon(named: Sequence[tuple[str, torch.Tensor]], lr: float) -> list[torch.optim.Optimizer]:
    """Return torch's own Muon for the hidden matrices, torch's AdamW for the rest."""
    hidden = [p for n, p in named if hidden_matrix(n, p) and p.ndim == 2]
    taken = {id(p) for p in hidden}
    rest = [p for _, p in named if id(p) not in taken]
    muon = torch.optim.Muon(hidden, lr=lr, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    return [muon, torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.95), weight_decay=0.0)]


METHODS = {
    m.name: m
    for m in (
        Method("adamw", 2e-3),
        Method("adamw-b95", 2e-3, {"betas": (0.9, 0.95)}),
        Method("sgdm", 0.2, {"nesterov": True}),
        Method("spam", 2e-3, {"reset_every": 60, "warmup": 20}),
        Method("adabelief", 2e-3),
        Method("exadam", 1e-3),
        Method("adan", 5e-3),
        Method("adamp", 2e-3),
        Method("sgdp", 0.2, {"momentum": 0.9, "nesterov": True}),
        Method("lion", 5e-4),
        Method("lion_k", 5e-4, {"map": "clip", "e": 1e-3}),
        Method("sgd_sai", 1e-2),
        Method("am_msgd", 1.0),
        Method("am_adamw", 2e-3),
        Method("muon", 2e-3, {"scale": "rms"}),
        Method("root", 2e-3),
        Method("namo", 1e-2, {"adamw_ratio": 0.25}),
        Method("namo_d", 1e-2, {"adamw_ratio": 0.25}),
        Method("fismo", 2e-2, {"adamw_ratio": 0.1}),
        Method("torch_adamw", 0.0, like="adamw", build=torch_adamw),
        Method("torch_muon", 0.0, like="muon", build=torch_muon),
    )
}
"""Weight decay 0 for all; otherwise defaults and the options given here."""
