"""What a process of the merging test does; in a file of its own, so that starting one is quick."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import distributed

from visviva.errors import InputError
from visviva.eval.benchmarks.frechet import Moments, frechet, jedi


def golden():
    a, b = torch.meshgrid(torch.arange(64, dtype=torch.float64), torch.arange(16, dtype=torch.float64), indexing="ij")
    first = torch.sin(0.37 * a + 0.11 * a * b / 7 + b)
    return first, first + 0.5 * torch.cos(1.7 * a - 0.6 * b), first + 2.2 * torch.cos(2.1 * a * (b + 1) / 5 - 0.6 * b)


def work(rank: int, folder: Path) -> None:
    """Measure every second row of two sets, merge over both processes, and write what came out."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    first, _, third = golden()
    one, two = (Moments.of(e[rank::2]).across() for e in (first, third))
    some = Moments.of(first[: 64 * rank]).across()  # the first process has no clip
    try:
        Moments.of(torch.zeros(3, 4 + rank)).across()
        refused = ""
    except InputError as error:
        refused = str(error)
    (folder / f"{rank}.json").write_text(
        json.dumps([frechet(one, two), jedi(one, two), one.count, frechet(some, two), refused])
    )
    distributed.destroy_process_group()
