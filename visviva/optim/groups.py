"""Parameter groups: names, what is refused, and saved groups matched to those at hand."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from visviva.errors import InputError, closest
from visviva.optim.transform import check

SCHEDULED = ("initial_lr", "max_lr", "min_lr", "swa_lr", "base_momentum", "max_momentum")
"""Keys that torch's schedulers add to groups."""


def shipped(kind: Any) -> dict[str, Any]:
    """Return the hyper-parameters of an optimizer's class with their values by default."""
    found: dict[str, Any] = {}
    for parent in reversed(kind.__mro__):
        if "__init__" in vars(parent):
            found |= {n: p.default for n, p in inspect.signature(parent.__init__).parameters.items()}
        found |= vars(parent).get("OTHERS", {})
    return found


def refuse_unknown(optimizer: torch.optim.Optimizer, unknown: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Raise an `InputError` for options that an optimizer does not have."""
    if unknown:
        name, value = next(iter(unknown.items()))
        options = [n for n, d in shipped(type(optimizer)).items() if d is not inspect.Parameter.empty and n not in defaults]
        allowed = [*defaults, *options]
        raise InputError(
            f"{type(optimizer).__name__} has no option {name!r} (given {value!r}){closest(name, allowed)}; allowed are "
            f"{', '.join(allowed)}"
        )


def check_group(optimizer: torch.optim.Optimizer, group: Mapping[str, Any]) -> None:
    """Raise an `InputError` for a key that a group cannot have, and for a value of another kind than its default.

    Ranges are the transforms' to check. Keys that schedulers add are allowed (groups of an earlier optimizer bring them).
    """
    own, kind = optimizer.defaults, type(optimizer).__name__
    for key, value in group.items():
        if key not in own and key not in ("params", "param_names", "name", "differentiable", *SCHEDULED):
            raise InputError(
                f"{kind}: a parameter group has the key {key!r} (of value {value!r}){closest(key, own)}; allowed are params, "
                f"name, {', '.join(own)}, and what schedulers add ({', '.join(SCHEDULED)})"
            )
    usual = shipped(type(optimizer))
    for key, value in {**own, **group}.items():
        wanted = _wanted(usual.get(key), value)
        if wanted:
            raise InputError(f"{kind}: {key} is {value!r}; allowed is {wanted}")


def _wanted(default: Any, value: Any) -> str:
    """Return in words what a hyper-parameter must be where ``value`` is not, or an empty string."""
    if isinstance(default, bool):
        return "" if isinstance(value, bool) else "True or False"
    if isinstance(default, int):
        return "" if _number(value) and value == value // 1 else "a whole number"
    if isinstance(default, float):
        return "" if _number(value) or isinstance(value, Tensor) else "a number"
    if isinstance(default, tuple) and all(_number(d) for d in default):
        fits = isinstance(value, tuple | list) and len(value) == len(default) and all(_number(v) for v in value)
        return "" if fits else f"{len(default)} numbers, such as {default}"
    return ""


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


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
