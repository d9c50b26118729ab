"""Momentum attention: associative recall in one layer, its cost, and its measured frequency response.

    python benchmarks/momentum_attention.py --output benchmarks/results/momentum-attention.json --images docs/images

Recall: six random pairs (a, b) of twelve different symbols of 32, shown once and again in random order; loss and accuracy on
the b of the second showing, over 2048 fresh sequences. Attention alone, one layer (and two without momentum), 64 wide, two
heads, RoPE, three seeds. Symbols must differ: where a b is also another pair's a, what follows it is not one symbol.
Cost: processor time of shearing queries and keys over that of `scaled_dot_product_attention` on the same tokens, one thread, in
one process, in changing order with a floor (copying queries and keys) and with the same attention again, which shows the noise.
32760 tokens are Wan's of 81 frames at 480 x 832. Heads multiply both alike; few of them fit the time.
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
    """Pairs shown once and again in another order, (B, 4 PAIRS); all symbols of one sequence's pairs are distinct."""
    first = torch.rand(count, SYMBOLS, generator=generator).argsort(1)[:, : 2 * PAIRS].unflatten(1, (PAIRS, 2))
    order = torch.rand(count, PAIRS, generator=generator).argsort(1)
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


SIZES = ((2, 5, 256, 24), (12, 5, 390, 128), (12, 11, 390, 128), (2, 21, 390, 128), (2, 21, 780, 128), (1, 21, 1560, 128))
"""Heads, frames, places, width of a head; the last three are 81 frames at 240 x 416, 336 x 592 (about) and 480 x 832."""


def cost(
    heads: int, frames: int, places: int, width: int, dtype: torch.dtype = torch.float32, repeat: int = 7
) -> dict[str, Any]:
    """Milliseconds of the shear of queries and keys and of the attention, and the shares of shear, copies and noise."""
    q, k, v = torch.randn(3, 1, frames * places, heads, width).to(dtype).transpose(2, 3).unbind(0)  # as diffusers has them
    attention, gamma = nn.functional.scaled_dot_product_attention, torch.full((heads,), 0.5)
    ways: dict[str, Any] = {
        "copy": lambda: (q.clone(), k.clone()),
        "shear": lambda: (shear(q, frames, 0.5), shear(k, frames, 0.5)),
        "learned": lambda: (shear(q, frames, gamma), shear(k, frames, gamma)),
        "attention": lambda: attention(q, k, v),
        "again": lambda: attention(q, k, v),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    with torch.no_grad():
        for turn in range(repeat + 1):
            for name in list(ways)[turn % len(ways) :] + list(ways)[: turn % len(ways)]:
                start = time.process_time()
                ways[name]()
                times[name].append(time.process_time() - start)
    shares = {name: [a / b for a, b in zip(t[1:], times["attention"][1:], strict=True)] for name, t in times.items()}
    middle = {name: statistics.median(x) for name, x in shares.items()}
    return {
        "tokens": frames * places,
        "heads": heads,
        "head_dim": width,
        "dtype": str(dtype).removeprefix("torch."),
        "shear_ms": round(1e3 * statistics.median(times["shear"][1:]), 2),
        "attention_ms": round(1e3 * statistics.median(times["attention"][1:]), 1),
        "share": round(middle["shear"], 5),
        "range": [round(f(shares["shear"]), 5) for f in (min, max)],
        "learned_share": round(middle["learned"], 5),
        "copy_share": round(middle["copy"], 5),
        "noise": [round(f(shares["again"]) - 1, 4) for f in (min, max)],
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
    found["cost"] = [cost(*size) for size in SIZES] + [cost(*size, dtype=torch.bfloat16) for size in SIZES[2:]]
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
