"""Precomputed conditions: prompt embeddings, first-frame latents, clean latents, each clip once and for all runs.

The folder of a cache is named after the fingerprint of everything the entries depend on (weights of the encoders, the clips,
the settings), so a stale entry cannot be found. Entries are safetensors files, written atomically; several processes fill
disjoint parts.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from visviva.errors import InputError

FORMAT = 1


def fingerprint(parts: Mapping[str, object]) -> str:
    """Return the SHA-256 of named JSON values, independent of their order."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def weights_hash(modules: Iterable[torch.nn.Module | None]) -> str:
    """Return a hash of the weights and the configuration of networks (their content, not their path)."""
    digest = hashlib.blake2b(digest_size=16)
    for module in modules:
        if module is None:
            digest.update(b"none")
            continue
        digest.update(str(getattr(module, "config", type(module).__name__)).encode())
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


class Cache:
    """Entries of named tensors by index, on disk.

    Args:
        folder: where caches live; this one takes a sub-folder.
        parts: everything that the entries depend on, as JSON values.

    Example::

        cache = Cache(Path("cache"), {"model": "3fe1", "clips": "a0c9", "frames": 17})
        cache.fill(range(100), lambda i: {"prompt": encode(captions[i])})
        cache[7]["prompt"]
    """

    def __init__(self, folder: Path, parts: Mapping[str, object]) -> None:
        parts = {"format": FORMAT, **parts}
        self.fingerprint = fingerprint(parts)
        self.folder = folder / self.fingerprint[:16]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            _atomic(self.folder / "contents.json", lambda path: path.write_text(json.dumps(parts, indent=1, sort_keys=True)))
        except OSError as error:
            raise InputError(
                f"cannot write the cache {str(self.folder)!r}: {error}; set data.cache to another folder"
            ) from error

    def fill(self, indices: Iterable[int], make: Callable[[int], Mapping[str, Tensor]]) -> int:
        """Make the missing entries among ``indices``; return how many were made."""
        made = 0
        for index in self.missing(indices):
            entry = {n: t.detach().cpu().contiguous() for n, t in make(index).items()}
            try:
                _atomic(self._path(index), partial(save_file, entry, metadata={"fingerprint": self.fingerprint}))
            except (OSError, SafetensorError) as error:
                raise InputError(
                    f"cannot write to the cache {str(self.folder)!r}: {error}; free some space or set data.cache to "
                    "another folder, finished entries are kept"
                ) from error
            made += 1
        return made

    def missing(self, indices: Iterable[int]) -> Iterator[int]:
        """Yield the indices that have no entry yet."""
        return (i for i in indices if not self._path(i).is_file())

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return one entry's tensors."""
        path = self._path(index)
        try:
            with safe_open(path, "pt") as file:
                if (file.metadata() or {}).get("fingerprint") != self.fingerprint:
                    raise InputError(
                        f"the cache entry {str(path)!r} belongs to other data; delete the folder {str(self.folder)!r}"
                    )
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no iteration protocol)
        except (OSError, SafetensorError) as error:
            raise InputError(f"cannot read the cache entry {str(path)!r} ({error}); delete the file to make it anew") from error

    def _path(self, index: int) -> Path:
        return self.folder / f"{index:08d}.safetensors"


def _atomic(path: Path, write: Callable[[Path], object]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
