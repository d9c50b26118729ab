"""The optimizers' claims on problems of seconds: ten seeds, the best rate of every method, 95 % intervals, a verdict each.

    python benchmarks/optim_claims.py --output runs/optim/claims

The comparisons on a small GPT and on the tiny Wan are in optim_gpt.py and optim_wan.py; optim_report.py tabulates all three.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import optim_toys_matrix
import optim_toys_vector
import optim_toys_wrappers
import torch
from optim_sweep import kept
from optim_toys import SEEDS

from visviva.eval.run import provenance, write_json

GROUPS: dict[str, Any] = {
    "spam": optim_toys_vector.spam,
    "adaptive memory": optim_toys_vector.adaptive_memory,
    "radial": optim_toys_vector.radial,
    "lion": optim_toys_vector.lion,
    "root": optim_toys_matrix.root,
    "namo": optim_toys_matrix.namo,
    "fismo": optim_toys_matrix.fismo,
    "eco": optim_toys_wrappers.rounding,
    "mkor": optim_toys_wrappers.mkor,
    "curvature": optim_toys_wrappers.curvature,
}


def main() -> None:
    """Run the groups (those already done are read) and write one JSON."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--output", default="runs/optim/claims")
    options.add_argument("--groups", nargs="+", default=list(GROUPS), choices=list(GROUPS))
    given = options.parse_args()
    torch.set_num_threads(1)
    made_with, folder = provenance(), Path(given.output)
    found = {n: kept(folder, {"group": n}, lambda n=n: {"setup": GROUPS[n].__doc__, **GROUPS[n]()}) for n in given.groups}
    for name, group in found.items():
        for claim in group["claims"]:
            print(f"{name:16} {claim['claim']:70} {claim['verdict']:15} {claim.get('ratio') or claim.get('numbers')}")
    write_json(
        folder / "optim-claims.json",
        {"command": "python benchmarks/optim_claims.py", "seeds": SEEDS, "made_with": made_with, "groups": found},
    )


if __name__ == "__main__":
    main()
