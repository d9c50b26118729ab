"""Momentum attention: associative recall in one layer, its cost, and its measured frequency response.

    python benchmarks/momentum_attention.py --output benchmarks/results/momentum-attention.json --images docs/images

Recall: six random pairs (a, b) from 32 symbols, shown once and again in random order; loss and accuracy on the b of the second
showing. Attention alone, one layer (and two without momentum), 64 wide, two heads, RoPE, three seeds (card: layers, section 1).
Cost: time of shearing queries and keys over that of `scaled_dot_product_attention` on the same tokens, runs interleaved.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import torch
from matplotlib import pyplot as plt
from torch import Tensor, nn

from visviva.models.attention import measured_response, response, shear, spectrum

SYMBOLS, PAIRS = 32, 6
CASES: dict[str, dict[str, Any]] = {
    "gamma 0": {"gamma": 0.0},
    "gamma 0, two layers": {"gamma": 0.0, "layers": 2},
    "gamma 0.5": {"gamma": 0.5},
    "gamma 1": {"gamma": 1.0},
    "gamma 4": {"gamma": 4.0},
    "gamma 0.5, keys": {"gamma": 0.5, "sides": "k"},
    "gamma 1, keys": {"gamma": 1.0, "sides": "k"},
    "gamma 1, queries": {"gamma": 1.0, "sides": "q"},
    "gamma 1, before RoPE": {"gamma": 1.0, "before_rope": True},
}


def turned(x: Tensor, theta: float = 1e4) -> Tensor:
    """Rotary embedding of (B, H, S, D)."""
    half = x.shape[-1] // 2
    rate = theta ** (-torch.arange(half) / half)
    angle = torch.arange(x.shape[2])[:, None] * rate
    one, two = x.unflatten(-1, (half, 2)).unbind(-1)
    return torch.stack([one * angle.cos() - two * angle.sin(), one * angle.sin() + two * angle.cos()], -1).flatten(-2)


class Layer(nn.Module):
    """Causal self-attention with momentum, and nothing else."""

    def __init__(self, width: int, heads: int, gamma: float, sides: str, before_rope: bool) -> None:
        super().__init__()
        self.norm, self.into, self.out = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.heads, self.gamma, self.sides, self.before = heads, gamma, sides, before_rope

    def forward(self, x: Tensor) -> Tensor:
        """Residual update of tokens (B, S, width)."""
        q, k, v = self.into(self.norm(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        moved = lambda y, side: shear(y, y.shape[2], self.gamma) if side in self.sides else y  # noqa: E731
        q, k = (turned(moved(y, side)) if self.before else moved(turned(y), side) for y, side in ((q, "q"), (k, "k")))
        found = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return x + self.out(found.transpose(1, 2).flatten(2))


class Recall(nn.Module):
    """Symbols in, symbols out."""

    def __init__(self, gamma: float, layers: int = 1, sides: str = "qk", before_rope: bool = False, width: int = 64) -> None:
        super().__init__()
        self.table = nn.Embedding(SYMBOLS, width)
        self.layers = nn.Sequential(*[Layer(width, 2, gamma, sides, before_rope) for _ in range(layers)])
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, SYMBOLS))

    def forward(self, symbols: Tensor) -> Tensor:
        """Logits of the next symbol, (B, S, SYMBOLS)."""
        return self.head(self.layers(self.table(symbols)))


def sequences(count: int, generator: torch.Generator) -> Tensor:
    """Pairs shown once and again in another order, (B, 4 PAIRS); the keys of one sequence are distinct."""
    keys = torch.rand(count, SYMBOLS, generator=generator).argsort(1)[:, :PAIRS]
    values = torch.randint(SYMBOLS, (count, PAIRS), generator=generator)
    order = torch.rand(count, PAIRS, generator=generator).argsort(1)
    first = torch.stack([keys, values], -1)
    return torch.cat([first, first.gather(1, order[..., None].expand(-1, -1, 2))], 1).flatten(1)


def recall(case: dict[str, Any], seed: int, updates: int = 1200) -> float:
    """Accuracy on 2048 fresh sequences after training."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(1000 + seed)
    model = Recall(**case)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=updates)
    asked = torch.arange(2 * PAIRS, 4 * PAIRS, 2)
    for _ in range(updates):
        batch = sequences(64, generator)
        loss = nn.functional.cross_entropy(model(batch)[:, asked].flatten(0, 1), batch[:, asked + 1].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        batch = sequences(2048, generator)
        return float((model(batch)[:, asked].argmax(-1) == batch[:, asked + 1]).double().mean())


def cost(heads: int, frames: int, places: int, width: int, repeat: int = 7) -> dict[str, Any]:
    """Milliseconds of the shear of queries and keys and of the attention, and the share."""
    q, k, v = torch.randn(3, 1, heads, frames * places, width).unbind(0)
    gamma, times = torch.full((heads,), 0.5), []
    with torch.no_grad():
        for _ in range(repeat + 1):
            start = time.process_time()
            one, two = shear(q, frames, gamma), shear(k, frames, gamma)
            middle = time.process_time()
            nn.functional.scaled_dot_product_attention(one, two, v)
            times.append((middle - start, time.process_time() - middle))
    sheared, attended = (1e3 * statistics.median(x) for x in zip(*times[1:], strict=True))
    shares = [a / b for a, b in times[1:]]
    return {
        "tokens": frames * places,
        "heads": heads,
        "head_dim": width,
        "shear_ms": round(sheared, 2),
        "attention_ms": round(attended, 1),
        "share": round(statistics.median(shares), 4),
        "range": [round(min(shares), 4), round(max(shares), 4)],
    }


def drawn(path: Path) -> float:
    """Draw the Bode plot of formula and measurement; return the largest relative distance between them."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), constrained_layout=True)
    off = 0.0
    for gamma, colour in ((0.15, "#8a909c"), (0.5, "#2456d6"), (2.0, "#d98a00")):
        told = spectrum(gamma)
        q = torch.randn(4, 1, 256 * 2, 32, generator=torch.Generator().manual_seed(0))
        omega, found = measured_response(q, shear(q, 256, gamma), 256, segment=32)
        for axis, line, points in (
            (axes[0], told.decibel, 20 * found[0].abs().log10()),
            (axes[1], told.phase, found[0].angle()),
        ):
            axis.plot(told.omega, line, color=colour, label=f"gamma {gamma:g}")
            axis.plot(omega, points, "o", ms=3, color=colour)
        off = max(off, float(((found[0] - response(omega, gamma)).abs() / response(omega, gamma).abs()).max()))
    axes[0].set(xlabel="frequency [rad/frame]", ylabel="gain [dB]", title="lines: formula, dots: measured")
    axes[1].set(xlabel="frequency [rad/frame]", ylabel="phase [rad]")
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=120)
    return off


def main() -> None:
    """Measure, print, write."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--output", default="benchmarks/results/momentum-attention.json")
    options.add_argument("--images", default="docs/images")
    options.add_argument("--seeds", type=int, default=3)
    given = options.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {"recall": {}}
    for name, case in CASES.items():
        found["recall"][name] = [round(recall(case, seed), 4) for seed in range(given.seeds)]
        print(name, found["recall"][name], flush=True)
    found["cost"] = [cost(2, 5, 256, 24), cost(12, 5, 390, 128), cost(12, 11, 390, 128)]
    found["response_off"] = round(drawn(Path(given.images) / "momentum-attention.png"), 4)
    result = {
        "command": "python benchmarks/momentum_attention.py",
        "machine": platform.processor() or platform.machine(),
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        **found,
    }
    Path(given.output).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
