"""How often the shipped violation localiser alarms on true simulated clips, with and without contact.

    visviva simulate data/seen --clips 40 --seed 3001
    python benchmarks/localiser_alarms.py data/seen --output benchmarks/results/localiser-alarms.json

Measured from pixels: Lucas-Kanade flow, masks followed from the first frame's. Intervals of the shares are Wilson's, 95 %.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import torch

from visviva.data.dataset import ClipDataset
from visviva.errors import InputError
from visviva.eval.run import provenance, write_json
from visviva.models.localiser.localiser import Localiser
from visviva.models.probes import Combined, LucasKanade, TrackedMasks


def wilson(count: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """Return the interval of a share."""
    middle = (count + z**2 / 2) / (total + z**2)
    half = z / (total + z**2) * math.sqrt(count * (total - count) / total + z**2 / 4)
    return middle - half, middle + half


@torch.no_grad()
def alarms(folder: str) -> dict[bool, list[bool]]:
    """Return which clips alarm, those in which something is touched apart from the others."""
    probe, localiser, data = Combined(LucasKanade(), masks=TrackedMasks()), Localiser.load(), ClipDataset(folder)
    found: dict[bool, list[bool]] = {False: [], True: []}
    for i in range(len(data)):
        clip = data[i]
        if clip.masks is None:
            raise InputError(f"{folder}: clip {i} has no masks; simulate with --arrays small")
        measured = probe(clip.frames[None], torch.tensor([float(clip.fps)]), clip.masks[None, :1].float())
        touched = clip.contact is not None and bool(clip.contact.any())
        found[touched].append(bool(localiser(measured).broken.any()))
    return found


def main() -> None:
    """Count the alarms and write one JSON."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("clips", help="a data set of true clips with masks")
    options.add_argument("--output", default="benchmarks/results/localiser-alarms.json")
    given = options.parse_args()
    report: dict[str, Any] = {
        "command": "visviva simulate DATA --clips 40 --seed 3001; python benchmarks/localiser_alarms.py DATA",
        "made_with": provenance(),
    }
    for touched, found in alarms(given.clips).items():
        if found:
            low, high = wilson(sum(found), len(found))
            row = {"clips": len(found), "alarms": sum(found), "low": round(low, 3), "high": round(high, 3)}
            report["with contact" if touched else "without contact"] = row
    print(report)
    write_json(Path(given.output), report)


if __name__ == "__main__":
    main()
