"""What every test runs under: shapes checked on each call, one thread, fixed seeds, no network, a folder of real recordings."""

from __future__ import annotations

import os
import random
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: several test processes share the cores
os.environ["HF_HUB_OFFLINE"] = "1"  # child processes too

import pytest
import typechecker  # noqa: F401 (named below)
from jaxtyping import install_import_hook

CHECKED = [f"visviva.{room}" for room in ("physics", "models", "data", "eval", "configs", "pipelines", "cli", "errors")]
CHECKED += ["visviva.optim.newton_schulz", "visviva.optim.lanczos"]  # the rest of optim has no shapes, and is compiled
install_import_hook(CHECKED, "typechecker.typed")  # before the first import of the package

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Every test starts from the same random numbers, whatever ran before it."""
    random.seed(0)
    for name, seed in (("numpy", lambda m: m.random.seed(0)), ("torch", lambda m: m.manual_seed(0))):
        if name in sys.modules:
            seed(sys.modules[name])


@pytest.fixture(autouse=True, scope="session")
def no_network() -> Iterator[None]:
    """A connection to anywhere but this machine is an error: nothing may be downloaded in a test."""
    with pytest.MonkeyPatch.context() as patch:
        for method in ("connect", "connect_ex"):
            patch.setattr(socket.socket, method, _loopback_only(getattr(socket.socket, method)))
        yield


def _loopback_only(connect: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(self: socket.socket, address: Any) -> Any:
        host = address[0] if isinstance(address, tuple) else ""
        if self.family != socket.AF_UNIX and not (host == "localhost" or host.startswith("127.") or host.endswith("::1")):
            raise RuntimeError(f"a test tried to reach {address!r}; tests run without network")
        return connect(self, address)

    return guarded


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of real recordings ($VISVIVA_REAL, default ../shared/real); skips the test where it is absent."""
    folder = Path(os.environ.get("VISVIVA_REAL", REPOSITORY.parent / "shared" / "real"))
    if not (folder / "video").is_dir():
        pytest.skip(f"no real recordings at {folder}; set VISVIVA_REAL")
    return folder
