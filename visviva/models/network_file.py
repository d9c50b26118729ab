"""Small networks in one safetensors file each, settings in its metadata: where the shipped ones lie, and reading them."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from visviva.errors import InputError


def located(source: str | Path, shipped: str) -> Path:
    """Return the file of the networks that ship under a name, where ``source`` is that name, else ``source`` itself.

    Raises:
        InputError: no such file.
    """
    own = resources.files("visviva.models") / f"weights/{shipped}/model.safetensors"
    path = Path(str(own)) if source == shipped else Path(source)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give {shipped!r} (shipped) or a file that visviva pretrain wrote")
    return path


def opened(path: Path, key: str, what: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the weights of a file, in float32 by name, and the settings that its metadata hold under ``key``.

    Raises:
        InputError: no safetensors file, or one that holds no such networks (``what`` names them).
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            about = (file.metadata() or {}).get(key)
            state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise InputError(f"{path}: is not a safetensors file ({error})") from error
    if about is None:
        raise InputError(f"{path}: holds no {what}; give a file that visviva pretrain wrote")
    try:
        found = json.loads(about)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: its settings cannot be read ({error}); train it again") from error
    return state, found if isinstance(found, dict) else {}
