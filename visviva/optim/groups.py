"""Parameter groups: names, what is refused, and saved groups matched to those at hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from visviva.errors import InputError
from visviva.optim.transform import check


def check_rate(optimizer: torch.optim.Optimizer, lr: Any) -> None:
    """Raise an `InputError` for a learning rate that is negative or not finite (a tensor is not looked at)."""
    if not isinstance(lr, Tensor):
        check(f"{type(optimizer).__name__}: lr", lr, 0.0, torch.inf)


def named(group: Mapping[str, Any]) -> list[tuple[str, Tensor]]:
    """Return (name, parameter) of a group; parameters without names are numbered."""
    names = group.get("param_names") or [str(i) for i in range(len(group["params"]))]
    return list(zip(names, group["params"], strict=True))


def refuse_sparse(name: str, gradient: Tensor) -> None:
    """Raise an `InputError` for a sparse gradient."""
    if gradient.layout is not torch.strided:
        raise InputError(
            f"the gradient of parameter {name} is sparse ({gradient.layout}); use a dense one (Embedding(sparse=False))"
        )


def refuse_twice(given: Sequence[Any], groups: Iterable[Mapping[str, Any]]) -> None:
    """Raise an `InputError` where a parameter of a new group is already in one."""
    given = [p[1] if isinstance(p, tuple) else p for p in given]
    known = {id(p) for g in groups for p in g["params"]}
    for i, parameter in enumerate(given):
        if id(parameter) in known:
            raise InputError(f"parameter {i} of the group is given twice (shape {tuple(parameter.shape)}); list each once")
        known.add(id(parameter))


def by_name(state: dict[str, Any], groups: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return a saved state in the order of ``groups``, matched by parameter names where both sides have them."""
    saved = state["param_groups"]
    if not all("param_names" in g for g in (*saved, *groups)):
        return state
    place = {name: i for g in saved for name, i in zip(g["param_names"], g["params"], strict=True)}
    settings = {name: g for g in saved for name in g["param_names"]}
    missing = [n for g in groups for n in g["param_names"] if n not in place]
    if missing:
        raise InputError(f"the saved state does not hold parameter {missing[0]!r}; load the state of the same model")
    ordered = []
    for group in groups:
        names = group["param_names"]
        source = settings[names[0]] if names else group
        ordered.append({**source, "param_names": list(names), "params": [place[n] for n in names]})
    return {**state, "param_groups": ordered}
