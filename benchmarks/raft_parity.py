"""Our RAFT against torchvision's, on the same random weights and images: the largest difference of every update's flow.

    pip install --no-deps torchvision
    python benchmarks/raft_parity.py --output benchmarks/results/raft_parity.json

torchvision's compiled operators, which RAFT does not use, are stood in for, so that any build of it can be imported.
"""

import argparse
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from visviva.models.probes.flow.raft import RAFTNetwork

SIDE, UPDATES = 136, 12


def apart(size: str, theirs: Any) -> list[float]:
    """Return the largest difference of each update's flow, relative to the largest flow."""
    torch.manual_seed(0)
    reference = getattr(theirs, f"raft_{size}")(weights=None).eval()
    ours = RAFTNetwork(size).eval()
    ours.load_state_dict(reference.state_dict())
    first = 2 * torch.rand(2, 3, SIDE, SIDE) - 1
    second = first.roll((1, 2), (2, 3))
    with torch.no_grad():
        pairs = zip(ours(first, second, UPDATES), reference(first, second, num_flow_updates=UPDATES), strict=True)
        return [float((mine - other).abs().max() / other.abs().max()) for mine, other in pairs]


def main() -> None:
    """Compare, print, write."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--output", type=Path, default=Path("benchmarks/results/raft_parity.json"))
    output = options.parse_args().output
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision.models.optical_flow as theirs

    found = {
        "command": "python benchmarks/raft_parity.py",
        "what": "largest relative difference of each update's flow, float32, random weights of seed 0",
        "versions": {name: version(name) for name in ("torch", "torchvision")},
        "apart": {size: apart(size, theirs) for size in ("small", "large")},
    }
    output.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found["apart"]))


if __name__ == "__main__":
    main()
