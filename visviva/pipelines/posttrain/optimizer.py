"""The optimizer of a recipe: its class by name, its options checked, its groups by name patterns."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from visviva.configs.posttrain import Optimizer, ParameterGroup
from visviva.errors import InputError, closest
from visviva.optim import BY_NAME, ChainOptimizer


def build(parameters: Mapping[str, Tensor], settings: Optimizer) -> ChainOptimizer:
    """Return the optimizer of the named parameters.

    Raises:
        InputError: an option that the optimizer does not have, or a group that matches no parameter.
    """
    kind = BY_NAME[settings.name]
    known = _options(kind)
    _check(f"optimizer.options ({settings.name})", settings.options, {*known, "compile", "adopt", "state_dtype"})
    for i, group in enumerate(settings.groups):
        _check(f"optimizer.groups[{i}].options ({settings.name})", group.options, known)
    common = {"weight_decay": settings.weight_decay, **_tuples(settings.options)}
    if "state_dtype" in common:
        common["state_dtype"] = _dtype(common["state_dtype"])
    return kind(_groups(parameters, settings), **{"lr": settings.lr, **common})  # type: ignore[arg-type]


def _dtype(name: Any) -> torch.dtype:
    if name not in ("float32", "bfloat16", "int8"):
        raise InputError(f"optimizer.options.state_dtype is {name!r}; allowed are float32, bfloat16, int8")
    return getattr(torch, name)


def _groups(parameters: Mapping[str, Tensor], settings: Optimizer) -> list[dict[str, Any]]:
    patterns = [_pattern(i, group) for i, group in enumerate(settings.groups)]
    members: list[list[tuple[str, Tensor]]] = [[] for _ in range(len(patterns) + 1)]
    for name, parameter in parameters.items():
        members[next((i for i, p in enumerate(patterns) if p.search(name)), -1)].append((name, parameter))
    found = []
    for i, group in enumerate(settings.groups):
        if not members[i]:
            raise InputError(
                f"optimizer.groups[{i}].pattern {group.pattern!r} matches none of the {len(parameters)} trained parameters (or "
                f"earlier groups took them), such as {next(iter(parameters))!r}; correct or remove it"
            )
        own = {"lr": settings.lr if group.lr is None else group.lr, **_tuples(group.options)}
        found.append({"params": members[i], **own})
    return [*found, {"params": members[-1]}] if members[-1] else found


def _pattern(i: int, group: ParameterGroup) -> re.Pattern[str]:
    try:
        return re.compile(group.pattern)
    except re.error as error:
        raise InputError(f"optimizer.groups[{i}].pattern {group.pattern!r} is no regular expression: {error}") from error


def _options(kind: type[ChainOptimizer]) -> set[str]:
    """Return the hyper-parameters that a class takes, those of its parents included."""
    names: set[str] = set()
    for parent in kind.__mro__:
        if issubclass(parent, ChainOptimizer) and parent is not ChainOptimizer and "__init__" in vars(parent):
            names |= set(inspect.signature(parent.__init__).parameters)
            names |= set(getattr(parent, "OTHERS", {}))
    return names - {"self", "params", "lr", "options", "defaults"}


def _check(where: str, given: Iterable[str], known: set[str]) -> None:
    for name in given:
        if name not in known:
            raise InputError(f"{where} has no {name!r}{closest(name, known)}; it takes {', '.join(sorted(known))}")


def _tuples(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with lists as tuples; on the command line a list is written ``[0.9, 0.99]``."""
    values = {n: json.loads(v) if isinstance(v, str) and v.startswith("[") else v for n, v in options.items()}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
