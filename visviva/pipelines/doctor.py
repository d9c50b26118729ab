"""Look at the machine, one finding per line: what works, what is missing, how to mend it.

Every check does the thing itself (multiplies in bfloat16, encodes and decodes a video, hashes the weights); it does not
only look for a package. An optional thing that is missing is said and does not count against the machine.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType

from visviva.configs.doctor import DoctorRecipe

WEIGHTS = Path(__file__).parents[1] / "models" / "weights"


@dataclass(frozen=True)
class Finding:
    """What one check saw. ``state``: "ok", "missing" (optional, does without) or "broken" (needed; ``remedy`` mends it)."""

    name: str
    state: str
    seen: str
    remedy: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """All findings; ``exit_status`` is 1 if anything needed is broken."""

    findings: tuple[Finding, ...]

    @property
    def exit_status(self) -> int:
        """0 if everything that is needed works, else 1."""
        return int(any(finding.state == "broken" for finding in self.findings))


def run(recipe: DoctorRecipe) -> Diagnosis:
    """Check this machine and print the findings."""
    checks: dict[str, Callable[[], Finding]] = {
        "python": _python,
        "torch": _torch,
        "bfloat16": _bfloat16,
        "video": _video,
        "simulation": _simulation,
        "warp cache": _warp_cache,
        "disk": lambda: _disk(recipe.disk_gib),
        "weights": _weights,
        "datasets": lambda: _extra("datasets", "datasets", "reading data sets with Hugging Face datasets"),
        "blender": lambda: _extra("bpy", "blender", "photoreal rendering"),
        "recordings": _recordings,
    }
    diagnosis = Diagnosis(tuple(_guarded(name, check) for name, check in checks.items()))
    _print(json.dumps(_as_json(diagnosis), indent=2) if recipe.as_json else _as_text(diagnosis))
    return diagnosis


def _guarded(name: str, check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except Exception as error:  # a finding, not an accident: the other checks go on
        return _broken(name, f"{type(error).__name__}: {error}", "pip install -c constraints.txt --force-reinstall visviva")


def _ok(name: str, seen: str) -> Finding:
    return Finding(name, "ok", seen)


def _missing(name: str, seen: str, remedy: str) -> Finding:
    return Finding(name, "missing", seen, remedy)


def _broken(name: str, seen: str, remedy: str) -> Finding:
    return Finding(name, "broken", seen.splitlines()[0] if seen else "", remedy)


def _python() -> Finding:
    seen = f"{platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores"
    return _ok("python", seen) if sys.version_info >= (3, 11) else _broken("python", seen, "use Python 3.11 or newer")


def _torch() -> Finding:
    import torch

    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return _ok("torch", f"{torch.__version__}, on {', '.join(devices) or 'the CPU (no CUDA device)'}")


def _bfloat16() -> Finding:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    x = torch.full((8, 8), 0.5, dtype=torch.bfloat16, device=device)
    if not torch.equal((x @ x).float(), torch.full((8, 8), 2.0, device=device)):
        return _broken("bfloat16", f"wrong result of a matrix product on {device}", "use --model.dtype float32")
    slow = device == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)
    return _ok("bfloat16", f"matrix products on {device}{' (emulated: float32 is faster)' if slow else ''}")


def _video() -> Finding:
    import av
    import numpy as np

    if "libx264" not in av.codecs_available:
        return _broken("video", f"av {av.__version__} has no H.264 encoder (libx264)", "pip install --force-reinstall av")
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "probe.mp4")
        with av.open(path, "w") as container:
            stream = container.add_stream("libx264", rate=24)
            stream.width = stream.height = 16
            stream.pix_fmt = "yuv420p"
            for _ in range(3):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((16, 16, 3), 128, np.uint8))))
            container.mux(stream.encode(None))
        with av.open(path) as container:
            frames = sum(1 for _ in container.decode(video=0))
    if frames != 3:
        return _broken("video", f"wrote 3 frames of H.264 and read back {frames}", "pip install --force-reinstall av")
    return _ok("video", f"av {av.__version__} writes and reads H.264")


def _simulation() -> Finding:
    wp = _warp()
    import newton  # noqa: F401 (it must import)

    return _ok("simulation", f"newton {metadata.version('newton')}, warp {wp.config.version} on {wp.get_preferred_device()}")


def _warp() -> ModuleType:
    import warp

    warp.config.log_level = 40  # errors only: its banner would stand in the middle of the report
    warp.init()
    return warp


def _warp_cache() -> Finding:
    wp = _warp()
    folder = Path(wp.config.kernel_cache_dir)
    if not os.access(folder if folder.is_dir() else folder.parent, os.W_OK):
        return _broken("warp cache", f"{folder} cannot be written", "set WARP_CACHE_PATH to a folder that can")
    kernels = sum(1 for _ in folder.glob("wp_*")) if folder.is_dir() else 0
    return _ok("warp cache", f"{folder}: {kernels} compiled modules" + ("" if kernels else "; the first simulation compiles"))


def _disk(needed: float) -> Finding:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    seen = f"{free:.1f} GiB free in {Path.cwd()}"
    return _ok("disk", seen) if free >= needed else _broken("disk", seen, f"free {needed - free:.1f} GiB, or run elsewhere")


def _weights() -> Finding:
    """Compare the shipped weights with the checksums that were written beside them (``SHA256SUMS``, as sha256sum prints)."""
    lists = sorted(WEIGHTS.glob("*/SHA256SUMS"))
    if not lists:
        return _broken("weights", f"no shipped model in {WEIGHTS}", "reinstall visviva, or train one: visviva pretrain")
    count = 0
    for sums in lists:
        for line in sums.read_text().splitlines():
            digest, name = line.split(maxsplit=1)
            path = sums.parent / name.lstrip("*")
            if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
                return _broken("weights", f"{path} is absent or altered", "reinstall visviva")
            count += 1
    return _ok("weights", f"{', '.join(p.parent.name for p in lists)}: {count} files as shipped")


def _extra(module: str, extra: str, purpose: str) -> Finding:
    if importlib.util.find_spec(module) is None:
        return _missing(extra, f"{purpose} (optional)", f"pip install 'visviva[{extra}]'")
    return _ok(extra, f"{module} {metadata.version(module)}: {purpose}")


def _recordings() -> Finding:
    folder = Path(os.environ.get("VISVIVA_REAL", "../shared/real")) / "video"
    count = len(list(folder.glob("*.mp4"))) if folder.is_dir() else 0
    if not count:
        return _missing("recordings", f"no real recordings in {folder} (only the tests use them)", "set VISVIVA_REAL")
    return _ok("recordings", f"{count} real clips in {folder}")


def _as_text(diagnosis: Diagnosis) -> str:
    marks = {"ok": "ok     ", "missing": "missing", "broken": "BROKEN "}
    lines = [f"{marks[f.state]}  {f.name:<11} {f.seen}" + (f"  -> {f.remedy}" if f.remedy else "") for f in diagnosis.findings]
    broken = [f.name for f in diagnosis.findings if f.state == "broken"]
    verdict = f"not ready: {', '.join(broken)}" if broken else "ready: 'visviva demo' will run here"
    return "\n".join([*lines, "", verdict])


def _as_json(diagnosis: Diagnosis) -> dict[str, object]:
    version = metadata.version("visviva")
    return {"version": version, "ready": not diagnosis.exit_status, "findings": [asdict(f) for f in diagnosis.findings]}


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
