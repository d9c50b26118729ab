"""A pipeline in diffusers format, whole or not at all: weights that do not fit their config are refused.

diffusers and transformers fill weights that a checkpoint lacks with random numbers and drop those that the config has no place
for. Here every network's loading report is read, and anything missing, unexpected or of another shape is an `InputError`.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from visviva.errors import InputError

TINY = Path(__file__).parents[1] / "weights" / "tiny-wan"
NETWORKS = ("vae", "transformer", "transformer_2", "text_encoder", "text_encoder_2", "image_encoder")
LIBRARIES = ("diffusers", "transformers")


def read_pipeline(path: str | Path, dtype: torch.dtype, classes: Collection[str]) -> Any:
    """Return the pipeline of ``"tiny"`` (shipped), a local folder, or a hub id; the VAE in float32, the rest in ``dtype``.

    ``classes`` are the pipeline classes that the caller can use.

    Raises:
        InputError: no such checkpoint, another class, files that cannot be read, or weights that do not fit their config.
    """
    given = str(path)
    folder = TINY if given == "tiny" else Path(path)
    source = str(folder) if folder.is_dir() else given
    with quiet():
        import diffusers

        index = read_index(path)
        if index.get("_class_name") not in classes:
            name = index.get("_class_name") or "checkpoint without a class"
            raise InputError(f"{given}: a {name}; this adapter loads {' or '.join(classes)}")
        networks = {name: _network(name, index[name], source, given, dtype) for name in NETWORKS if _stands(index.get(name))}
        return _read(getattr(diffusers, index["_class_name"]), source, given, dtype=dtype, **networks)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the libraries' loading bars, and without their remarks on optional packages that no part of this family uses."""
    from diffusers.utils import logging as theirs
    from transformers.utils import logging as others

    levels = [(lib, lib.get_verbosity(), lib.is_progress_bar_enabled()) for lib in (theirs, others)]
    try:
        for lib, _, _ in levels:
            lib.set_verbosity_error()
            lib.disable_progress_bar()
        yield
    finally:
        for lib, level, bar in levels:
            lib.set_verbosity(level)
            if bar:
                lib.enable_progress_bar()


def read_index(path: str | Path) -> dict[str, Any]:
    """Return the model_index.json of ``"tiny"``, a local folder or a hub id: which class the pipeline is, and its parts."""
    given = str(path)
    folder = TINY if given == "tiny" else Path(path)
    return _local_index(folder, given) if folder.is_dir() else _hub_index(given)


def _local_index(folder: Path, given: str) -> dict[str, Any]:
    file = folder / "model_index.json"
    if not file.is_file():
        raise InputError(f"{given}: no model_index.json; expected a diffusers pipeline folder")
    try:
        index = json.loads(file.read_text())
    except ValueError as error:  # bytes that are no text, text that is no JSON
        raise InputError(f"{file}: not readable as JSON ({error}); copy the model again") from error
    if not isinstance(index, dict):
        raise InputError(f"{file}: holds a {type(index).__name__}, not an object that names the pipeline; copy the model again")
    return index


def _hub_index(given: str) -> dict[str, Any]:
    import diffusers

    try:
        return dict(diffusers.DiffusionPipeline.load_config(given))
    except (OSError, ValueError) as error:
        raise InputError(f"model {given!r} is neither a local folder nor reachable on the hub ({error})") from error


def _stands(entry: Any) -> bool:
    """Whether model_index.json names a network of a library that is read here (others are left to the pipeline)."""
    return isinstance(entry, list | tuple) and len(entry) == 2 and entry[0] in LIBRARIES and isinstance(entry[1], str)


def _network(name: str, entry: list[str], source: str, given: str, dtype: torch.dtype) -> Any:
    part = getattr(importlib.import_module(entry[0]), entry[1], None)
    if part is None:
        raise InputError(
            f"{given}: its {name} is a {entry[1]}, which this version of {entry[0]} does not have; update {entry[0]}"
        )
    options: dict[str, Any] = {"subfolder": name, "dtype": torch.float32 if name == "vae" else dtype}
    if entry[0] == "transformers":
        options["ignore_mismatched_sizes"] = True  # reported instead of raised without their names
    network, report = _read(part, source, given, output_loading_info=True, **options)
    _refuse_what_does_not_fit(f"{given}: the {name}", report)
    return network


def _refuse_what_does_not_fit(what: str, report: dict[str, Any]) -> None:
    kinds = {"missing_keys": "missing", "unexpected_keys": "unknown to the config", "mismatched_keys": "of another shape"}
    wrong = {
        said: sorted(k if isinstance(k, str) else str(k[0]) for k in report.get(kind) or ()) for kind, said in kinds.items()
    }
    told = [
        f"{len(keys)} weights are {said} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
        for said, keys in wrong.items()
        if keys
    ]
    if told:
        raise InputError(f"{what} does not fit its config.json: {'; '.join(told)}; take weights and config of one model")


def _read(part: Any, source: str, given: str, **options: Any) -> Any:
    from safetensors import SafetensorError

    try:
        return part.from_pretrained(source, use_safetensors=True, **options)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        where = f"{given}: its {options['subfolder']}" if "subfolder" in options else given
        said = " ".join(str(error).split(". If you want to instead")[0].split())
        raise InputError(f"{where} could not be loaded as {part.__name__} ({said}); copy the model again") from error
