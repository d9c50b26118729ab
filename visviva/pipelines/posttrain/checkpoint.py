"""Checkpoints that are complete or absent: a run killed at any moment continues from the last one.

A checkpoint is a folder ``step-00000100`` of safetensors files (weights, optimizer moments, averages), ``state.json`` and
``manifest.json`` with the SHA-256 of each. It is written under another name, flushed to the disk, and renamed in one step;
an older one is renamed away before it is deleted. No pickle is written or read.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from visviva.errors import InputError

FORMAT = 1
"""Version of the layout; a newer one is refused."""

NAME = re.compile(r"step-(\d{8})")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read: the number of finished updates, named groups of tensors, and the JSON state."""

    path: Path
    step: int
    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]


def save(folder: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any], keep: int = 2) -> Path:
    """Write ``step-<step>`` under ``folder`` and delete all but the newest ``keep`` checkpoints.

    Raises:
        InputError: the disk is full (or another limit of the file system is met); earlier checkpoints are untouched.
    """
    target, temporary = folder / f"step-{step:08d}", folder / f".writing-{step:08d}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        for name, group in tensors.items():
            save_file({n: t.detach().cpu().contiguous() for n, t in group.items()}, temporary / f"{name}.safetensors")
        _write(temporary / "state.json", json.dumps({"format": FORMAT, "step": step, **state}, indent=1))
        files = {p.name: _flush(p) for p in sorted(temporary.iterdir())}
        _write(temporary / "manifest.json", json.dumps({"format": FORMAT, "step": step, "sha256": files}, indent=1))
        _flush(temporary / "manifest.json")
        _sync(temporary)
        _discard(target)
        os.replace(temporary, target)
        _sync(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise InputError(
            f"cannot write the checkpoint {str(target)!r}: {error}; free some space and start again, "
            "the run continues from the checkpoint before"
        ) from error
    for path in _found(folder)[:-keep]:
        _discard(path)
    return target


def latest(folder: Path) -> Path | None:
    """Return the newest complete checkpoint under ``folder``, or None."""
    found = _found(folder)
    return found[-1] if found else None


def load(path: Path) -> Checkpoint:
    """Read a checkpoint after checking every file against the manifest.

    Raises:
        InputError: a file is missing or damaged, or the checkpoint was written by a newer version.
    """
    manifest = read_json(path / "manifest.json")
    if manifest.get("format", 0) > FORMAT:
        raise InputError(
            f"the checkpoint {str(path)!r} was written by a newer version of visviva (format {manifest['format']}, "
            f"this one reads up to {FORMAT}); upgrade visviva to continue it"
        )
    for name, digest in manifest["sha256"].items():
        if not (path / name).is_file() or _digest(path / name) != digest:
            raise InputError(
                f"the checkpoint {str(path)!r} is damaged: {name} is missing or changed; "
                "delete this folder to continue from the checkpoint before"
            )
    tensors = {n.removesuffix(".safetensors"): load_file(path / n) for n in manifest["sha256"] if n.endswith(".safetensors")}
    state = read_json(path / "state.json")
    return Checkpoint(path, int(state["step"]), tensors, state)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object, or raise an `InputError` that names the file."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {str(path)!r}: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{str(path)!r} holds no JSON object")
    return content


def gathered(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return whole tensors on the CPU from sharded ones; every process must call it."""
    return {n: (t.full_tensor() if isinstance(t, DTensor) else t).detach().cpu() for n, t in tensors.items()}


@torch.no_grad()
def restore(parameters: Mapping[str, Tensor], saved: Mapping[str, Tensor], what: str) -> None:
    """Copy saved whole tensors into (possibly sharded) parameters, in place, by name.

    Raises:
        InputError: the names or shapes differ, which means that the checkpoint belongs to another model.
    """
    missing, extra = sorted(parameters.keys() - saved.keys()), sorted(saved.keys() - parameters.keys())
    if missing or extra:
        raise InputError(
            f"{what} does not belong to this model: {len(missing)} of {len(parameters)} names are missing {missing[:2]} "
            f"and {len(extra)} are unknown {extra[:2]}"
        )
    for name, parameter in parameters.items():
        if parameter.shape != saved[name].shape:
            raise InputError(
                f"{what} does not belong to this model: {name!r} has shape {tuple(saved[name].shape)}, "
                f"here it is {tuple(parameter.shape)}"
            )
        parameter.copy_(like(saved[name], parameter))


def like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """Return a whole tensor on the parameter's device, sharded as the parameter is."""
    tensor = tensor.to(parameter.device)
    if isinstance(parameter, DTensor):
        return distribute_tensor(tensor, parameter.device_mesh, parameter.placements)
    return tensor


def optimizer_tensors(optimizer: torch.optim.Optimizer, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the optimizer's state as whole tensors named ``<parameter>::<entry>``; every process must call it.

    Raises:
        InputError: an entry of the state is no tensor (such an optimizer could not be resumed exactly).
    """
    entries: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        for entry, value in optimizer.state.get(parameter, {}).items():
            if not isinstance(value, Tensor):
                kind = type(optimizer).__name__
                raise InputError(f"{kind} keeps {entry!r} as {type(value).__name__}; only tensors can be checkpointed")
            entries[f"{name}::{entry}"] = value
    return gathered(entries)


def restore_optimizer(optimizer: torch.optim.Optimizer, parameters: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> None:
    """Give a fresh optimizer the state that `optimizer_tensors` returned."""
    for full, tensor in saved.items():
        name, entry = full.rsplit("::", 1)
        if name not in parameters:
            raise InputError(f"the optimizer state holds {name!r}, which this model does not train")
        parameter = parameters[name]
        shaped = tensor.shape == parameter.shape and tensor.ndim > 0
        optimizer.state[parameter][entry] = like(tensor, parameter).clone() if shaped else tensor.clone()


def _found(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if NAME.fullmatch(p.name) and (p / "manifest.json").is_file())


def _discard(path: Path) -> None:
    """Delete a folder so that it is never seen half deleted."""
    if path.exists():
        doomed = path.with_name(f".deleting-{path.name}")
        shutil.rmtree(doomed, ignore_errors=True)
        os.replace(path, doomed)
        shutil.rmtree(doomed)


def _write(path: Path, text: str) -> None:
    path.write_text(text)


def _flush(path: Path) -> str:
    """Flush a file to the disk and return its SHA-256."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
    return _digest(path)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
