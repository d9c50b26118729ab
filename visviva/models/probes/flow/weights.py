"""Weights of flow networks from local files, matched by name and shape."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from visviva.errors import InputError

Network = TypeVar("Network", bound=nn.Module)


def read(path: str | Path) -> dict[str, Tensor]:
    """Return the named tensors of a ``.safetensors`` file, or of a ``.pth`` as torchvision publishes it.

    A ``.pth`` is read with ``weights_only=True``: tensors and plain containers, no code.

    Raises:
        InputError: no such file, or one that holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the path of a .safetensors or .pth file of weights")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise InputError(f"{path}: no valid safetensors file ({error}); copy it again") from error
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or a foreign file makes the reader do
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: no file of weights alone ({said}); give the published file, or .safetensors") from error
    if not isinstance(weights, dict) or not all(isinstance(v, Tensor) for v in weights.values()):
        raise InputError(f"{path}: holds {type(weights).__name__} of other things than tensors; give a state dictionary")
    return weights


def filled(network: Network, weights: Mapping[str, Tensor], what: str) -> Network:
    """Return the network with these weights, frozen and in eval mode; names and shapes must agree in every entry.

    Raises:
        InputError: they do not; the first three differences are listed.
    """
    wanted = network.state_dict()
    wrong = [f"{k} is missing" for k in wanted if k not in weights]
    for k, value in weights.items():
        if k not in wanted:
            wrong.append(f"{k} is not known")
        elif wanted[k].shape != value.shape:
            wrong.append(f"{k} has shape {tuple(value.shape)}, not {tuple(wanted[k].shape)}")
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise InputError(f"{what} do not fit: {'; '.join(wrong[:3])}{more}; give the file, and the size, that fit together")
    network.load_state_dict(weights)
    return network.requires_grad_(False).eval()
