"""``visviva optim``: list the optimizers, or time them (`visviva.pipelines.optim_bench`)."""

from __future__ import annotations

import inspect
import sys
from typing import Any

import torch

from visviva.configs.optim import OptimRecipe
from visviva.errors import InputError, closest
from visviva.optim import BY_NAME
from visviva.optim.muon import MatrixOptimizer


def run(recipe: OptimRecipe) -> list[dict[str, Any]]:
    """Print the table of the optimizers, or the table of their times; return its rows."""
    if recipe.action == "bench":
        from visviva.pipelines.optim_bench import bench

        for name in recipe.optimizers:
            known(name)
        return bench(recipe)
    rows = [describe(name) for name in BY_NAME]
    columns = ("name", "states", "bytes", "lr", "parameters", "what")
    _print(table([{**row, "bytes": f"{row['bytes']:.2f}"} for row in rows], columns))
    _print("\nstates: numbers per weight; bytes: of state per weight, measured on four float32 matrices of 96 x 128")
    return rows


def known(name: str) -> type[Any]:
    """Return the class of an optimizer's name."""
    if name not in BY_NAME:
        raise InputError(f"no optimizer {name!r}{closest(name, BY_NAME)}; 'visviva optim list' shows them")
    return BY_NAME[name]


def describe(name: str) -> dict[str, Any]:
    """Return what the class of an optimizer says of itself, and the memory that a step of it takes."""
    kind = known(name)
    parameters = [torch.nn.Parameter(torch.randn(96, 128) / 10) for _ in range(4)]
    optimizer = kind(parameters)
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter) / 100
    optimizer.step()
    entries = optimizer.state[parameters[0]]
    return {
        "name": name,
        "states": sum(value.numel() == parameters[0].numel() for key, value in entries.items() if key != "step"),
        "bytes": state_bytes(optimizer) / sum(p.numel() for p in parameters),
        "lr": inspect.signature(kind).parameters["lr"].default,
        "parameters": "hidden matrices; AdamW for the rest" if issubclass(kind, MatrixOptimizer) else "all",
        "what": (inspect.getmodule(kind).__doc__ or "").splitlines()[0].rstrip(".:"),  # type: ignore[union-attr]
    }


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Return the bytes of memory that an optimizer's state holds, memory that is shared counted once."""
    storages = {}
    for entries in optimizer.state.values():
        for value in entries.values() if isinstance(entries, dict) else [entries]:
            if isinstance(value, torch.Tensor):
                storages[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
    return sum(storages.values())


def table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> str:
    """Return rows as text in columns."""
    cells = [columns, *([str(row.get(c, "")) for c in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    return "\n".join("  ".join(f"{cell:<{w}}" for cell, w in zip(line, widths, strict=True)).rstrip() for line in cells)


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
