"""One evaluated run: its clips' scores, where they come from, and metrics.json, which describes itself and reads back."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from torch import Tensor

from visviva import __version__
from visviva.data.files import whole
from visviva.errors import InputError
from visviva.eval.newtonbench import LOWER_IS_BETTER, NOTES, UNITS, ClipScore, Row, table
from visviva.eval.score import finite

FORMAT = 1
PACKAGES = ("torch", "numpy", "scipy", "opencv-python-headless", "av", "matplotlib")


@dataclass(frozen=True)
class Picture:
    """What a report shows of one clip: frames (T, 3, H, W) uint8 and, where known, the true frames; not saved in metrics.json.

    ``maps``: named tensors, such as flow, residual fields and the localiser's evidence (T,). ``laws``: what they say, in words.
    """

    frames: Tensor
    true: Tensor | None = None
    maps: dict[str, Tensor] = field(default_factory=dict)
    laws: str = ""


@dataclass(frozen=True)
class Run:
    """The scores of one set of clips.

    Attributes:
        name: what the run is called in tables and legends.
        clips: one score per clip, failed ones included; their keys differ (those of one training seed, in a merged run).
        about: settings, data set fingerprint and whatever else a reader needs to repeat it.
        pictures: by clip key, for reports.
    """

    name: str
    clips: list[ClipScore]
    about: dict[str, Any] = field(default_factory=dict)
    pictures: dict[str, Picture] = field(default_factory=dict, repr=False)

    @property
    def failed(self) -> list[ClipScore]:
        """The clips that could not be scored; they stay in every mean with their penalty."""
        return [c for c in self.clips if c.failure]

    def table(self, **statistics: Any) -> list[Row]:
        """Return the table per primitive and split (`visviva.eval.newtonbench.table`)."""
        return table(self.clips, **statistics)

    def to_json(self, **statistics: Any) -> dict[str, Any]:
        """Return everything metrics.json holds."""
        return {
            "format": "visviva-metrics",
            "version": FORMAT,
            "name": self.name,
            "about": finite(self.about),
            "made_with": provenance(),
            "counts": {
                "asked": len(self.clips),
                "failed": len(self.failed),
                "scored": len(self.clips) - len(self.failed),
                "scenes": len({c.scene for c in self.clips}),
            },
            "metrics": {m: {"unit": UNITS[m], "lower_is_better": LOWER_IS_BETTER[m], "definition": NOTES[m]} for m in UNITS},
            "table": [row.to_json() for row in self.table(**statistics)] if self.clips else [],
            "failures": {c.key if c.seed is None else f"{c.key}, seed {c.seed}": c.failure for c in self.failed},
            "clips": [c.to_json() for c in self.clips],
        }

    @classmethod
    def read(cls, path: str | Path) -> Run:
        """Read a run from its metrics.json, or from the folder that holds it."""
        path = Path(path)
        path = path / "metrics.json" if path.is_dir() else path
        if not path.is_file():
            raise InputError(f"no metrics at {str(path)!r}; give a metrics.json that 'visviva evaluate' wrote, or its folder")
        try:
            content = json.loads(path.read_text())
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: not readable as JSON ({error}); evaluate the run again") from error
        if not isinstance(content, dict) or content.get("format") != "visviva-metrics":
            raise InputError(f"{path}: not a metrics file of this package; give a metrics.json that 'visviva evaluate' wrote")
        version = content.get("version")
        if not isinstance(version, int):
            raise InputError(f"{path}: says no version of its format; evaluate the run again")
        if version > FORMAT:
            raise InputError(f"{path}: written by a newer visviva (format {version}, known {FORMAT}); update visviva")
        try:
            return cls(content["name"], [ClipScore.from_json(row) for row in content["clips"]], content["about"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"{path}: incomplete or damaged ({type(error).__name__}: {error}); evaluate the run again"
            ) from error


def merged(name: str, runs: Mapping[int, Run]) -> Run:
    """Return several runs of the same recipe under different training seeds as one, each clip labelled with its seed.

    Example::

        after = merged("NewtonRewards", {seed: Run.read(f"runs/newton-{seed}") for seed in (0, 1, 2)})
    """
    clips = [replace(clip, seed=seed) for seed, run in runs.items() for clip in run.clips]
    return Run(name, clips, {"seeds": list(runs), "runs": [run.about for run in runs.values()]})


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON at once, or not at all; numbers that are not finite become null."""
    text = json.dumps(finite(content), indent=1, allow_nan=False)
    with whole(path) as part:
        part.write_text(text)


def provenance() -> dict[str, Any]:
    """Return versions, platform and, in a git checkout, the commit and whether it was changed."""
    versions = {"visviva": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "absent"
    return {"versions": versions, "machine": f"{platform.system()} {platform.machine()}", **_commit()}


def _commit() -> dict[str, Any]:
    here = Path(__file__).parents[2]
    if not (here / ".git").exists():
        return {"commit": None}
    git = ["git", "-C", str(here)]
    head = subprocess.run([*git, "rev-parse", "--verify", "-q", "HEAD"], capture_output=True, text=True, check=False)
    changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=False)
    return {"commit": head.stdout.strip() or None, "changed": bool(changed.stdout.strip())}
