"""``visviva optim``: list the optimizers, or time them (`visviva.pipelines.optim_bench`)."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

import torch

from visviva.configs.optim import OptimRecipe
from visviva.errors import InputError, closest
from visviva.optim import BY_NAME, ChainOptimizer
from visviva.optim.muon import MatrixOptimizer

LEGEND = """
states: numbers per weight; bytes: of state per weight, measured on four float32 matrices of 96 x 128
compiled: the whole step where there is a compiler, or all of it but the matrix products (partly)
fsdp2: works on each process's shard, or gathers whole tensors for a step; int8: states in eight bits (state_dtype)
capturable: in CUDA graphs; sparse: gradients of Embedding(sparse=True)"""


def run(recipe: OptimRecipe) -> list[dict[str, Any]]:
    """Print the table of the optimizers, or the table of their times; return its rows."""
    if recipe.action == "bench":
        from visviva.pipelines.optim_bench import bench

        for name in recipe.optimizers:
            known(name)
        return bench(recipe)
    rows = [describe(name) for name in BY_NAME]
    columns = ("name", "states", "bytes", "lr", "compiled", "fsdp2", "int8", "capturable", "sparse", "parameters", "what")
    _print(table([{**row, "bytes": f"{row['bytes']:.2f}"} for row in rows], columns))
    _print(LEGEND)
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
    optimizer = kind(_named(parameters))
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter) / 100
    optimizer.step()
    entries = optimizer.state[parameters[0]]
    return {
        "name": name,
        "states": sum(value.numel() == parameters[0].numel() for key, value in entries.items() if key != "step"),
        "bytes": state_bytes(optimizer) / sum(p.numel() for p in parameters),
        "lr": inspect.signature(kind).parameters["lr"].default,
        **capabilities(kind, optimizer),
        "parameters": "hidden matrices; AdamW for the rest" if issubclass(kind, MatrixOptimizer) else "all",
        "what": (inspect.getmodule(kind).__doc__ or "").splitlines()[0].rstrip(".:"),  # type: ignore[union-attr]
    }


def capabilities(kind: type[Any], optimizer: ChainOptimizer) -> dict[str, str]:
    """Return what an optimizer can do, found from its chain and by building it."""
    chains = [optimizer.chain(group, route) for group in optimizer.param_groups for route in _routes(optimizer, group)]
    links = [link for chain in chains for link in chain]
    sparse = torch.nn.Parameter(torch.zeros(3, 2))
    sparse.grad = torch.eye(3, 2).to_sparse()
    return {
        "compiled": "yes" if all(link.compiles(2.0) for link in links) else "partly",
        "fsdp2": "gathers" if any(link.batched for link in links) else "shards",
        "int8": "yes" if _works(lambda: kind(_named([sparse]), state_dtype=torch.int8)) else "no",
        "capturable": "yes" if _works(lambda: kind(_named([sparse]), capturable=True)) else "no",
        "sparse": "taken" if _works(lambda: kind(_named([sparse])).step()) else "refused",
    }


def _routes(optimizer: ChainOptimizer, group: dict[str, Any]) -> set[str]:
    return {optimizer.route(group, name, p) for name, p in zip(group["param_names"], group["params"], strict=True)}


def _named(parameters: list[torch.nn.Parameter]) -> list[tuple[str, torch.nn.Parameter]]:
    return [(f"blocks.{i}.weight", parameter) for i, parameter in enumerate(parameters)]


def _works(attempt: Callable[[], object]) -> bool:
    """Return whether an attempt is not refused with an `InputError`."""
    try:
        attempt()
    except InputError:
        return False
    return True


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
