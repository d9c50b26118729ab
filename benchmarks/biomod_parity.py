"""Forces and markers of biorbd's models against the package `biorbd` (pip install biorbd), model by model, in a random state.

    python benchmarks/biomod_parity.py MODELS/*.bioMod --out benchmarks/results/biomod_parity.json

Meshes are left out of what biorbd reads: they are other files. Soft contacts and damping in joints act in biorbd's inverse
dynamics and are not read here (``ignored`` counts them); inertias of no rigid body are repaired here.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import biorbd
import numpy as np
import torch

from visviva.data.bodies import BiomodModel, read_biomod
from visviva.errors import InputError
from visviva.eval.run import provenance

MESHES = re.compile(r"^[ \t]*(mesh\w*|patch)\b[^\n]*", re.IGNORECASE | re.MULTILINE)


def main() -> None:
    """Compare every model given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found = {path.name: outcome(path) for path in given.models}
    for name, row in found.items():
        print(f"{name:90s} {row}")
    kinds = ("same", "other", "refused", "refused by biorbd", "refused by both", "nothing to compare")
    total = {kind: sum(row["kind"] == kind for row in found.values()) for kind in kinds}
    print(total)
    if given.out:
        total = total | {"biorbd": biorbd.BIORBD_VERSION, "models": found, "made_with": provenance()}
        given.out.write_text(json.dumps(total, indent=1) + "\n")


def outcome(path: Path) -> dict[str, Any]:
    """Read a model both ways and compare, or say why not."""
    theirs: Any = None
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / "model.bioMod"
        bare.write_text(MESHES.sub("", path.read_text(encoding="utf-8")))
        try:
            theirs = biorbd.Model(str(bare))
        except RuntimeError as error:
            why = str(error).strip().splitlines()[-1]
    try:
        ours = read_biomod(path)
    except InputError as error:
        return {"kind": "refused" if theirs else "refused by both", "why": str(error).replace(f"{path}: ", "")}
    return compared(ours, theirs) if theirs else {"kind": "refused by biorbd", "why": why}


def compared(ours: BiomodModel, theirs: Any) -> dict[str, Any]:
    """Return the largest differences of forces (over the largest) and of markers [m]."""
    names = [name.to_string() for name in theirs.nameDof()]
    if list(ours.coupled.names) != names:
        return {"kind": "other", "coordinates": names}
    if not names and not ours.markers:
        return {"kind": "nothing to compare"}
    q, v, a = np.random.default_rng(0).normal(size=(3, len(names)))
    coordinates = biorbd.GeneralizedCoordinates(0.5 * q)
    there = theirs.InverseDynamics(coordinates, biorbd.GeneralizedVelocity(v), biorbd.GeneralizedAcceleration(a)).to_array()
    here = ours.coupled.inverse_dynamics(*(torch.tensor(x) for x in (0.5 * q, v, a))).numpy()
    force = float(np.abs(here - there).max(initial=0) / max(np.abs(there).max(initial=0), 1e-9))
    kept = theirs.markers(coordinates)
    places = np.array([marker.to_array() for marker in kept]).reshape(-1, 3)
    marker = float(np.abs(ours.place_markers(torch.tensor(0.5 * q)).numpy() - places).max(initial=0))
    row = {"force": force, "marker": marker, "repaired": len(ours.repaired), "ignored": ours.ignored}
    return {"kind": "same" if force < 1e-5 and marker < 1e-5 else "other"} | row


if __name__ == "__main__":
    main()
