"""Inverse dynamics of an OpenSim model against OpenSim's own answer: largest error per coordinate in per cent of its range.

The answer is the .sto file that OpenSim's inverse dynamics tool writes for the same model, coordinates, cut-off and external
loads (its graphical program, or `opensim.InverseDynamicsTool` of the package `opensim`), with muscles excluded.

    python benchmarks/opensim_parity.py --model subject.osim --coordinates ik.mot --forces grf.mot --answer inverse_dynamics.sto
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from visviva.data.bodies import read_osim
from visviva.data.motions.opensim import coordinates, ground_forces, read_table


def main() -> None:
    """Compare, print and optionally write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "coordinates", "forces", "answer"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--cutoff", type=float, default=6.0, help="Hz; negative: not filtered")
    parser.add_argument(
        "--bodies", nargs="+", default=["calcn_r", "calcn_l"], help="that the forces act on, in the file's order"
    )
    parser.add_argument("--out", type=Path, help="JSON to write")
    given = parser.parse_args()
    errors = compare(given.model, given.coordinates, given.forces, given.answer, given.cutoff, given.bodies)
    for name, (error, size) in sorted(errors.items(), key=lambda item: -item[1][0]):
        print(f"{name:24s} {error:8.4f} % of {size:10.3f}")
    if given.out:
        given.out.write_text(
            json.dumps({"files": [given.model.name, given.answer.name], "percent, range": errors}, indent=1) + "\n"
        )


def compare(
    model: Path, motion: Path, forces: Path, answer: Path, cutoff: float, bodies: list[str]
) -> dict[str, tuple[float, float]]:
    """Return the largest error of each coordinate [% of its range] and the range, at the times that both have."""
    read = read_osim(model, couplers=False)
    coupled, table, wanted = read.coupled, read_table(motion), read_table(answer)
    c, v, a = coordinates(table, read, cutoff if cutoff > 0 else None)
    plates = ground_forces(read_table(forces).at(table.time))
    wrench = sum(coupled.wrench(c, body, p.force, p.point, p.moment) for body, p in zip(bodies, plates, strict=False))
    tau = coupled.inverse_dynamics(c, v, a, wrench).numpy()
    time = wanted.time.numpy()
    near = np.abs(time[:, None] - table.time.numpy()).min(-1) < 1e-5
    found = {}
    for k, name in enumerate(coupled.names):
        column = next((n for n in (f"{name}_moment", f"{name}_force") if n in wanted.names), None)
        if column is None:
            continue
        theirs = wanted.column(column).numpy()
        ours = np.interp(time, table.time.numpy(), tau[:, k])
        size = float(np.ptp(theirs))
        found[name] = (100 * float(np.abs(ours - theirs)[near].max()) / max(size, 1e-9), size)
    return found


if __name__ == "__main__":
    main()
