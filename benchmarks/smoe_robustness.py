"""Is a sparse mixture with momentum over depth more robust than one without, as MomentumSMoE (arXiv 2410.14574) says?

    python benchmarks/smoe_robustness.py --output benchmarks/results/smoe-robustness.json

A small causal transformer whose feed-forward layers are sparse experts learns to predict a random source of 8 symbols, each
of which depends on the two before. Then words of the context are swapped for random ones, as in the paper's attacked WikiText,
and the loss on true next symbols is measured. Everything but the dynamics is the same within a seed: data, attention, experts,
initial weights, updates. The source's own entropy is the least loss on clean contexts.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from visviva.eval.run import provenance, write_json
from visviva.eval.statistics import paired_bootstrap
from visviva.models.experts import AdamDynamics, Descent, HeavyBall, RobustMomentum, SparseExperts, balance

SYMBOLS, LENGTH, WIDTH, HEADS = 8, 32, 64, 4
RATES = (0.0, 0.05, 0.1, 0.2, 0.3)
DYNAMICS: dict[str, Any] = {
    "SMoE": lambda layers: [Descent()] * layers,
    "MomentumSMoE": lambda layers: [HeavyBall(0.7)] * layers,
    "AdamSMoE": lambda layers: [AdamDynamics(), *[HeavyBall(0.7)] * (layers - 1)],  # Adam in the first layer, as released
    "Robust MomentumSMoE": lambda layers: [RobustMomentum()] * layers,
}


class Model(nn.Module):
    """Attention as usual; the stream goes through experts by a dynamics per layer."""

    def __init__(self, dynamics: list[Any]) -> None:
        super().__init__()
        self.dynamics = dynamics
        self.word, self.place = nn.Embedding(SYMBOLS, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.into = nn.ModuleList(nn.Linear(WIDTH, 3 * WIDTH) for _ in dynamics)
        self.out = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in dynamics)
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2 * len(dynamics) + 1))
        self.experts = nn.ModuleList(SparseExperts(WIDTH, experts=8, active=2) for _ in dynamics)
        self.head = nn.Linear(WIDTH, SYMBOLS)

    def forward(self, words: Tensor) -> Tensor:
        """Return the logits of every next word, (B, L, symbols)."""
        x = self.word(words) + self.place.weight[: words.shape[1]]
        state: Any = None
        for i, dynamics in enumerate(self.dynamics):
            q, k, v = self.into[i](self.norms[2 * i](x)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
            x = x + self.out[i](nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
            if i == 0 or type(dynamics) is not type(self.dynamics[i - 1]):
                state = dynamics.start(x)
            experts, norm = self.experts[i], self.norms[2 * i + 1]
            x, state = dynamics(x, lambda y, f=experts, n=norm: f(n(y)), state)
        return self.head(self.norms[-1](x))


def main() -> None:
    """Train every dynamics for every seed, attack, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="benchmarks/results/smoe-robustness.json")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--updates", type=int, default=300)
    parser.add_argument("--layers", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, list[list[float]]] = {name: [] for name in DYNAMICS}
    floors, began = [], time.process_time()
    for seed in given.seeds:
        table = source(seed)
        floors.append(entropy(table, seed))
        for name, make in DYNAMICS.items():
            found[name].append(attacked(trained(make(given.layers), table, seed, given.updates), table, seed))
            print(seed, name, [round(v, 4) for v in found[name][-1]], flush=True)
    content = {
        "command": vars(given),
        "made_with": provenance(),
        "cpu_seconds": time.process_time() - began,
        "rates": RATES,
        "entropy": floors,
        "loss": found,
        "against SMoE": {name: against(found["SMoE"], losses) for name, losses in found.items() if name != "SMoE"},
    }
    write_json(Path(given.output), content)


def source(seed: int) -> Tensor:
    """Return the chances of each symbol after two, (symbols, symbols, symbols)."""
    make = torch.Generator().manual_seed(seed)
    return (2.5 * torch.randn(SYMBOLS, SYMBOLS, SYMBOLS, generator=make)).softmax(-1)


def drawn(table: Tensor, count: int, make: torch.Generator) -> Tensor:
    """Return sequences of the source, (count, LENGTH + 1)."""
    words = [torch.randint(SYMBOLS, (count,), generator=make) for _ in range(2)]
    for _ in range(LENGTH - 1):
        words.append(torch.multinomial(table[words[-2], words[-1]], 1, generator=make)[:, 0])
    return torch.stack(words, 1)


def entropy(table: Tensor, seed: int) -> float:
    """Return the mean entropy of the next symbol [nats]."""
    words = drawn(table, 512, torch.Generator().manual_seed(seed + 7000))
    chances = table[words[:, :-2], words[:, 1:-1]]
    return float(-torch.special.xlogy(chances, chances).sum(-1).mean())


def trained(dynamics: list[Any], table: Tensor, seed: int, updates: int) -> Model:
    """Return a model after its updates on fresh sequences."""
    torch.manual_seed(seed)
    model, make = Model(dynamics), torch.Generator().manual_seed(seed + 1000)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, updates, pct_start=0.1)
    for _ in range(updates):
        words = drawn(table, 32, make)
        loss = nn.functional.cross_entropy(model(words[:, :-1])[:, 1:].flatten(0, 1), words[:, 2:].flatten())
        loss = loss + 0.01 * sum(balance(e.logits, e.chosen) for e in model.experts)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def attacked(model: Model, table: Tensor, seed: int) -> list[float]:
    """Return the loss [nats] with each share of the context's words swapped, on the same sequences and words."""
    make = torch.Generator().manual_seed(seed + 2000)
    words = drawn(table, 512, make)
    chance, other = torch.rand(words[:, :-1].shape, generator=make), torch.randint(SYMBOLS, words[:, :-1].shape, generator=make)
    losses = []
    for rate in RATES:
        logits = model(torch.where(chance < rate, other, words[:, :-1]))[:, 1:]
        losses.append(float(nn.functional.cross_entropy(logits.flatten(0, 1), words[:, 2:].flatten())))
    return losses


def against(plain: list[list[float]], other: list[list[float]]) -> dict[str, Any]:
    """Return loss differences to plain SMoE by rate, and of what the attack adds, with 95 % intervals over seeds."""
    found: dict[str, Any] = {}
    for k, rate in enumerate(RATES):
        told = {"loss": ([x[k] for x in plain], [x[k] for x in other])}
        if k:
            told["added"] = ([x[k] - x[0] for x in plain], [x[k] - x[0] for x in other])
        for what, (before, after) in told.items():
            change = paired_bootstrap(before, after).difference
            found[f"{what} at {rate:g}"] = [change.value, change.low, change.high]
    return found


if __name__ == "__main__":
    main()
