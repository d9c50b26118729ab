"""How long one picture of a person takes on one core: skeleton, segments and skin, by size, and by backend where there are two.

    python benchmarks/pictures.py --out benchmarks/results/pictures.json

Milliseconds of processor time per frame (what others do on the machine counts little), mean over repetitions of a
simulated walk of 1 s with its 95 % interval; the first call, which compiles the kernel, is not timed. The skin is that of
the test model, of SMPL's number of vertices.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

from visviva.data.actions import draw
from visviva.data.bodies import body_of, configurations, read_smpl, write_test_model
from visviva.data.render import Camera, Figure, render, segments, skeleton, skinned, view
from visviva.eval.run import provenance

STUDENT = 2.776
"""97.5 % quantile of Student's t with 4 degrees of freedom."""
REPETITIONS = 5


def main() -> None:
    """Time every figure at every size and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--backend", default="warp")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    motion = draw(["walk"], seed=given.seed, fps=20.0, seconds=1.0).motion(0)
    body = body_of(motion, mass=70.0)
    with tempfile.TemporaryDirectory() as folder:
        write_test_model(Path(folder) / "smpl.npz")
        model = read_smpl(Path(folder) / "smpl.npz")
    figures = {
        "skeleton": skeleton(motion),
        "segments": segments(body, configurations(motion, body)),
        "skin": skinned(model, motion),
    }
    rows = []
    for name, figure in figures.items():
        for size in given.sizes:
            camera = view(motion, "follow", (size, size), figure)
            mean, half = timed(figure, camera, size, given.backend)
            rows.append({"figure": name, "faces": len(figure.faces), "size": size, "ms": mean, "half_interval": half})
            print(f"{name:9s} {len(figure.faces):6d} faces {size:4d} px: {mean:.1f} +- {half:.1f} ms per frame")
    result = {"backend": given.backend, "seed": given.seed, "frames": len(motion), "rows": rows, "made_with": provenance()}
    if given.out:
        given.out.write_text(json.dumps(result, indent=1) + "\n")


def timed(figure: Figure, camera: Camera, size: int, backend: str) -> tuple[float, float]:
    """Return milliseconds per frame, and half of their interval."""
    times = []
    for _ in range(REPETITIONS + 1):
        begun = time.process_time()
        render(figure, camera, (size, size), backend=backend)
        times.append(1e3 * (time.process_time() - begun) / len(figure))
    return statistics.mean(times[1:]), STUDENT * statistics.stdev(times[1:]) / REPETITIONS**0.5


if __name__ == "__main__":
    main()
