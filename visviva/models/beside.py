"""What stands beside a model's adapters: one safetensors file with options and weights that plain diffusers knows nothing of.

Momentum attention, force control and physical experts are kept so, each in a file of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from visviva.errors import InputError


def write(tensors: Mapping[str, Tensor], path: Path, kind: str, options: Any) -> int:
    """Write named tensors and the options that their modules were made with; return how many tensors there are."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    own = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(own, path, metadata={kind: json.dumps(options)})
    return len(own)


def read(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """Return options and tensors of a file that `write` made; None where there is no file.

    Raises:
        InputError: a file that is none of this kind.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as content:
            options = dict(json.loads((content.metadata() or {})[kind]))
            return options, {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: no {kind.replace('_', ' ')} ({error}); write it with visviva posttrain") from error


def put(
    path: Path, make: Callable[[], Any], network: nn.Module, chosen: Callable[[str], bool], given: Mapping[str, Tensor]
) -> None:
    """Make the modules that the file at ``path`` is of, and copy its tensors into the network's parameters that are ``chosen``.

    Raises:
        InputError: options that make nothing, or tensors of other names or shapes: the file is of another model.
    """
    try:
        make()
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: its options are not understood ({error}); write it with visviva posttrain") from error
    there = {name: parameter for name, parameter in network.named_parameters() if chosen(name)}
    wrong = sorted(set(there) ^ set(given)) or sorted(n for n in there if there[n].shape != given[n].shape)
    if wrong:
        raise InputError(f"{path}: {wrong[0]!r} does not fit this model; the file was trained beside another one")
    for name, value in given.items():
        there[name].data.copy_(value)
