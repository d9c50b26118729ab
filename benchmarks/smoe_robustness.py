"""Is a sparse mixture with momentum over depth more robust than one without, as MomentumSMoE (arXiv 2410.14574) says?

    python benchmarks/smoe_robustness.py --output benchmarks/results/smoe-robustness.json

A small causal transformer whose feed-forward layers are sparse experts learns to predict a source of symbols: a random one of
8, each of which depends on the two before (``pairs``), a hidden Markov source of 32 (``hidden``), or the characters of the
Python manual that every interpreter carries, an eighth of whose topics is held out (``text``). Then symbols of the context are
swapped for random ones, or noise is added to the embedded context, and the loss on true next symbols is measured. Everything
but the dynamics is the same within a seed: data, attention, experts, initial weights, updates.

With ``--tune`` every arm first chooses its own learning rate, and an arm with momentum its own momentum, by the clean loss on
other seeds; no attack is seen in choosing.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import torch
from torch import Tensor, nn

from visviva.eval.run import provenance, write_json
from visviva.eval.statistics import paired_bootstrap
from visviva.models.experts import AdamDynamics, Descent, HeavyBall, RobustMomentum, SparseExperts, balance

HEADS = 4
SWAPPED = (0.0, 0.05, 0.1, 0.2, 0.3)
NOISE = (0.25, 0.5, 1.0)  # of the root mean square of the embedded context
ATTACKS = [f"{share:g}" for share in SWAPPED] + [f"noise {sigma:g}" for sigma in NOISE]
DYNAMICS: dict[str, Any] = {
    "SMoE": lambda layers, mu: [Descent()] * layers,
    "MomentumSMoE": lambda layers, mu: [HeavyBall(mu)] * layers,
    "AdamSMoE": lambda layers, mu: [AdamDynamics(), *[HeavyBall(mu)] * (layers - 1)],  # Adam in the first layer, as released
    "Robust MomentumSMoE": lambda layers, mu: [RobustMomentum()] * layers,
    "SMoE, long steps": lambda layers, mu: [Descent(1 / (1 - mu))] * layers,  # as far as momentum goes in the end, no memory
}


class Pairs:
    """Symbols of which each depends on the two before."""

    symbols = 8

    def __init__(self, seed: int) -> None:
        make = torch.Generator().manual_seed(seed)
        self.table = (2.5 * torch.randn(self.symbols, self.symbols, self.symbols, generator=make)).softmax(-1)

    def drawn(self, count: int, length: int, make: torch.Generator, held: bool = False) -> Tensor:
        """Return sequences, (count, length + 1)."""
        words = [torch.randint(self.symbols, (count,), generator=make) for _ in range(2)]
        for _ in range(length - 1):
            words.append(torch.multinomial(self.table[words[-2], words[-1]], 1, generator=make)[:, 0])
        return torch.stack(words, 1)

    def chances(self, words: Tensor) -> Tensor:
        """Return those of every symbol from the third on."""
        return self.table[words[:, :-2], words[:, 1:-1]]


class Hidden:
    """Symbols that tell of a state which moves unseen: each depends on all before."""

    symbols = 32

    def __init__(self, seed: int) -> None:
        make = torch.Generator().manual_seed(seed)
        self.move = (6 * torch.randn(16, 16, generator=make)).softmax(-1)
        self.show = (4 * torch.randn(16, self.symbols, generator=make)).softmax(-1)

    def drawn(self, count: int, length: int, make: torch.Generator, held: bool = False) -> Tensor:
        """Return sequences, (count, length + 1)."""
        state, words = torch.randint(16, (count,), generator=make), []
        for _ in range(length + 1):
            words.append(torch.multinomial(self.show[state], 1, generator=make)[:, 0])
            state = torch.multinomial(self.move[state], 1, generator=make)[:, 0]
        return torch.stack(words, 1)

    def chances(self, words: Tensor) -> Tensor:
        """Return those of every symbol from the third on, by the forward filter."""
        belief, found = torch.full((len(words), 16), 1 / 16), []
        for word in words.unbind(1):
            found.append(belief @ self.show)
            seen = belief * self.show.T[word]
            belief = seen / seen.sum(-1, keepdim=True) @ self.move
        return torch.stack(found[2:], 1)


class Text:
    """Characters of the Python manual; every eighth topic is held out, rare characters are one symbol."""

    def __init__(self, seed: int) -> None:
        told = [" ".join(topics[name].split()) for name in sorted(topics)]
        parts = ["\n".join(t for i, t in enumerate(told) if (i % 8 == 7) is held) for held in (False, True)]
        known = {c: i + 1 for i, c in enumerate(sorted(c for c in set(parts[0]) if parts[0].count(c) > 50))}
        self.symbols = len(known) + 1
        self.parts = [torch.tensor([known.get(c, 0) for c in part]) for part in parts]

    def drawn(self, count: int, length: int, make: torch.Generator, held: bool = False) -> Tensor:
        """Return pieces from anywhere in the text, (count, length + 1)."""
        part = self.parts[held]
        return part[torch.randint(len(part) - length, (count, 1), generator=make) + torch.arange(length + 1)]


SOURCES = {"pairs": Pairs, "hidden": Hidden, "text": Text}


class Model(nn.Module):
    """Attention as usual; the stream goes through experts by a dynamics per layer."""

    def __init__(self, dynamics: list[Any], symbols: int, given: argparse.Namespace) -> None:
        super().__init__()
        width, layers = given.width, len(dynamics)
        self.dynamics = dynamics
        self.word, self.place = nn.Embedding(symbols, width), nn.Embedding(given.length, width)
        self.into = nn.ModuleList(nn.Linear(width, 3 * width) for _ in dynamics)
        self.out = nn.ModuleList(nn.Linear(width, width) for _ in dynamics)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * layers + 1))
        self.experts = nn.ModuleList(SparseExperts(width, experts=given.experts, active=2) for _ in dynamics)
        self.head = nn.Linear(width, symbols)

    def forward(self, words: Tensor, noise: Tensor | float = 0.0) -> Tensor:
        """Return the logits of every next word, (B, L, symbols); noise is in units of the embedded words."""
        x = self.word(words) + self.place.weight[: words.shape[1]]
        x = x + noise * x.square().mean().sqrt()
        state: Any = None
        for i, dynamics in enumerate(self.dynamics):
            q, k, v = self.into[i](self.norms[2 * i](x)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
            x = x + self.out[i](nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
            if i == 0 or type(dynamics) is not type(self.dynamics[i - 1]):
                state = dynamics.start(x)
            experts, norm = self.experts[i], self.norms[2 * i + 1]
            x, state = dynamics(x, lambda y, f=experts, n=norm: f(n(y)), state)
        return self.head(self.norms[-1](x))


def asked() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="benchmarks/results/smoe-robustness.json")
    parser.add_argument("--source", choices=("pairs", "hidden", "text"), default="pairs")
    parser.add_argument("--arms", nargs="+", choices=DYNAMICS, default=list(DYNAMICS)[:4], help="SMoE first")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--momentum", type=float, default=0.7)
    parser.add_argument("--tune", nargs="*", type=int, default=[], metavar="SEED", help="choose rate and momentum on these")
    parser.add_argument("--rates", nargs="+", type=float, default=[1e-3, 3e-3, 1e-2, 2e-2], help="that --tune tries")
    parser.add_argument("--momenta", nargs="+", type=float, default=[0.3, 0.5, 0.7, 0.9], help="that --tune tries")
    parser.add_argument("--rate", type=float, default=3e-3, help="of learning, at its peak")
    sizes = {"updates": 300, "layers": 3, "experts": 8, "width": 64, "length": 32, "batch": 32}
    for name, size in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=size)
    given = parser.parse_args()
    if set(given.tune) & set(given.seeds):
        parser.error("--tune needs other seeds than --seeds: what is chosen on a seed is not measured on it")
    return given


def main() -> None:
    """Train every dynamics for every seed, attack, compare, write."""
    given = asked()
    torch.set_num_threads(1)
    found: dict[str, list[list[float]]] = {name: [] for name in given.arms}
    floors, began = [], time.process_time()
    chosen, grid = choose(given)
    for seed in given.seeds:
        source = SOURCES[given.source](seed)
        floors.append(entropy(source, seed, given.length))
        for name in given.arms:
            found[name].append(attacked(trained(name, *chosen[name], source, seed, given), source, seed, given.length))
            print(seed, name, [round(v, 4) for v in found[name][-1]], flush=True)
    content = {
        "command": vars(given),
        "made_with": provenance(),
        "cpu_seconds": time.process_time() - began,
        "attacks": ATTACKS,
        "rate and momentum": chosen,
        "clean loss by rate and momentum": grid,
        "entropy": floors,
        "loss": found,
        "against SMoE": {name: against(found["SMoE"], found[name]) for name in given.arms[1:] if len(given.seeds) > 1},
    }
    write_json(Path(given.output), content)


def choose(given: argparse.Namespace) -> tuple[dict[str, tuple[float, float]], dict[str, list[list[float]]]]:
    """Return the rate and momentum of every arm, and what was tried: rows of rate, momentum and clean loss by seed."""
    plain, grid = (given.rate, given.momentum), {name: [] for name in given.arms}
    if not given.tune:
        return dict.fromkeys(given.arms, plain), {}
    for name in given.arms:
        for rate in given.rates:
            for mu in given.momenta if name in ("MomentumSMoE", "AdamSMoE") else [given.momentum]:
                sources = [SOURCES[given.source](seed) for seed in given.tune]
                tried = [trained(name, rate, mu, source, s, given) for source, s in zip(sources, given.tune, strict=True)]
                clean = [attacked(m, o, s, given.length)[0] for m, o, s in zip(tried, sources, given.tune, strict=True)]
                grid[name].append([rate, mu, *clean])
                print("tuning", name, *grid[name][-1], flush=True)
    best = {name: min(rows, key=lambda row: sum(row[2:])) for name, rows in grid.items()}
    return {name: (row[0], row[1]) for name, row in best.items()}, grid


def entropy(source: Any, seed: int, length: int) -> float | None:
    """Return the mean entropy of the next symbol [nats], the least loss on clean contexts; None where nobody knows it."""
    if isinstance(source, Text):
        return None
    chances = source.chances(source.drawn(512, length, torch.Generator().manual_seed(seed + 7000)))
    return float(-torch.special.xlogy(chances, chances).sum(-1).mean())


def trained(name: str, rate: float, mu: float, source: Any, seed: int, given: argparse.Namespace) -> Model:
    """Return a model after its updates on fresh sequences."""
    torch.manual_seed(seed)
    make = torch.Generator().manual_seed(seed + 1000)
    model = Model(DYNAMICS[name](given.layers, mu), source.symbols, given)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, given.updates, pct_start=0.1)
    for _ in range(given.updates):
        words = source.drawn(given.batch, given.length, make)
        loss = nn.functional.cross_entropy(model(words[:, :-1])[:, 1:].flatten(0, 1), words[:, 2:].flatten())
        loss = loss + 0.01 * sum(balance(e.logits, e.chosen) for e in model.experts)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def attacked(model: Model, source: Any, seed: int, length: int) -> list[float]:
    """Return the loss [nats] under each attack, on the same sequences, words and noise."""
    make = torch.Generator().manual_seed(seed + 2000)
    words = source.drawn(512, length, make, held=True)
    context = words[:, :-1]
    chance, other = torch.rand(context.shape, generator=make), torch.randint(source.symbols, context.shape, generator=make)
    noise = torch.randn(*context.shape, model.head.in_features, generator=make)
    logits = [model(torch.where(chance < share, other, context)) for share in SWAPPED]
    logits += [model(context, sigma * noise) for sigma in NOISE]
    return [float(nn.functional.cross_entropy(x[:, 1:].flatten(0, 1), words[:, 2:].flatten())) for x in logits]


def against(plain: list[list[float]], other: list[list[float]]) -> dict[str, Any]:
    """Return loss differences to plain SMoE by attack, of their mean over swaps, and of what attacks add; 95 % over seeds."""
    found: dict[str, Any] = {}
    before, after = torch.tensor(plain, dtype=torch.float64), torch.tensor(other, dtype=torch.float64)
    told = {f"loss at {name}": (before[:, k], after[:, k]) for k, name in enumerate(ATTACKS)}
    told |= {f"added at {n}": (before[:, k] - before[:, 0], after[:, k] - after[:, 0]) for k, n in enumerate(ATTACKS) if k}
    told["loss over swaps"] = (before[:, 1 : len(SWAPPED)].mean(1), after[:, 1 : len(SWAPPED)].mean(1))
    for what, (old, new) in told.items():
        change = paired_bootstrap(old.numpy(), new.numpy()).difference
        found[what] = [change.value, change.low, change.high]
    return found


if __name__ == "__main__":
    main()
