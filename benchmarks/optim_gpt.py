"""All optimizers on a small character-level GPT and a bundled public-domain text: same steps, and same seconds.

    python benchmarks/optim_gpt.py --output runs/optim/gpt

Per optimizer: the best rate on seed 0 (downhill on 1, 2, 5 x powers of ten until both neighbours are worse), then fresh seeds
at that rate. A second set of runs gives every optimizer the seconds that AdamW took, with its schedule stretched or squeezed to
the updates that fit; seconds per update (fastest of 25) are measured in one process, the optimizers taking turns. Each finished
run is a small JSON; a benchmark that was stopped goes on.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import torch
from optim_methods import METHODS
from optim_sweep import measure
from torch import Tensor, nn
from torch.nn import functional as F

from visviva.eval.run import provenance, write_json

TEXT = Path(__file__).parent / "data" / "public-domain.txt"


class Block(nn.Module):
    """Pre-norm attention and feed-forward."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, t, width) to the same."""
        y = self.norm1(x)
        q, k, v = (f(y).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class GPT(nn.Module):
    """A decoder of ``layers`` blocks over characters."""

    def __init__(self, vocabulary: int, layers: int, width: int, context: int, heads: int = 4) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        for name, p in self.named_parameters():
            if p.ndim == 2:
                nn.init.normal_(p, std=0.02 / (math.sqrt(2 * layers) if name.endswith(("out.weight", "down.weight")) else 1))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits (b, t, vocabulary)."""
        x = self.wte(tokens) + self.wpe.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class Task:
    """The text; every tenth block of 1000 characters is for validation."""

    clip = None

    def __init__(self, layers: int = 4, width: int = 128, context: int = 64, batch: int = 8) -> None:
        text = TEXT.read_text()
        letters = sorted(set(text))
        blocks = torch.tensor([letters.index(c) for c in text]).split(1000)
        self.text = torch.cat([b for i, b in enumerate(blocks) if i % 10 != 5])
        held = torch.cat([b for i, b in enumerate(blocks) if i % 10 == 5])
        self.held, seen = (t[: len(t) // (context + 1) * (context + 1)].view(-1, context + 1) for t in (held, self.text))
        self.seen = seen[:: len(seen) // len(self.held)]
        self.size = dict(vocabulary=len(letters), layers=layers, width=width, context=context)
        self.context, self.batch, self.failure = context, batch, 2 * math.log(len(letters))

    def start(self, seed: int) -> tuple[list[tuple[str, Tensor]], Callable[[int], Tensor]]:
        """Return a fresh model's parameters and its loss on the batch of a step (nats per character)."""
        torch.manual_seed(seed)
        model = self.model = GPT(**self.size)
        rng = torch.Generator().manual_seed(1000 + seed)

        def batch_loss(step: int) -> Tensor:
            first = torch.randint(len(self.text) - self.context - 1, (self.batch,), generator=rng)
            return loss(model, self.text[first[:, None] + torch.arange(self.context + 1)])

        return list(model.named_parameters()), batch_loss

    @torch.no_grad()
    def check(self) -> dict[str, float]:
        """Return the loss on fixed windows of the training text and on the held-out text."""
        return {"training": float(loss(self.model, self.seen)), "validation": float(loss(self.model, self.held))}


def loss(model: GPT, windows: Tensor) -> Tensor:
    """Return nats per character of windows (b, context + 1)."""
    return F.cross_entropy(model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())


def main() -> None:
    """Run everything and write one JSON."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--output", default="runs/optim/gpt")
    options.add_argument("--steps", type=int, default=300)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--methods", nargs="+", default=list(METHODS))
    options.add_argument("--most", type=int, default=6, help="rates tried per method")
    options.add_argument("--minutes", type=float, default=float("inf"), help="begin no run after so many")
    given = options.parse_args()
    torch.set_num_threads(1)
    task = Task()
    methods = {n: METHODS[n] for n in given.methods}
    made_with = provenance()
    found = measure(task, methods, Path(given.output), given.steps, given.seeds, given.most, given.minutes)
    report = {
        "command": f"python benchmarks/optim_gpt.py --steps {given.steps} --seeds {given.seeds}",
        "task": {**task.size, "batch": task.batch, "characters": len(task.text), "unit": "nats per character"},
        "made_with": made_with,
        "methods": found,
    }
    write_json(Path(given.output) / "optim-gpt.json", report)


if __name__ == "__main__":
    main()
