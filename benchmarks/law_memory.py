"""Memory of every law, forward and backward, against the number of frames: linear.

    python benchmarks/law_memory.py --output benchmarks/results/law_memory.json

Peak bytes (torch's profiler, CPU) of one clip of ``--side`` x ``--side`` pixels with two bodies where a law takes several, from
masks, flow, 2 tokens of 8 channels a frame and found contacts; the line through them by least squares, and how far the worst
point is from it. Constant acceleration of objects needs less from `visviva.physics.boxes.SMALL` pixels on.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from visviva.physics import LAWS, ConstantAcceleration, Law, Measurement
from visviva.physics.motions import draw

FORMS: list[Law] = [
    *[ConstantAcceleration(form=form) for form in ("object", "material", "eulerian", "centroid")],
    *[LAWS[name]() for name in LAWS if name != "constant_acceleration"],
]


def measured(law: Law, frames: int, side: int) -> Measurement:
    """Everything that a law may read of a clip that it is for; flow, masks, features and surprise ask for a gradient."""
    drawn = draw(getattr(law, "scenes", ("moves",))[0], 1, seed=3, frames=frames, size=side, objects=2).render()
    make = torch.Generator().manual_seed(0)
    leaves = {
        "flow": drawn.flow,
        "masks": drawn.masks.float(),
        "features": torch.rand(1, 2 * frames, 8, generator=make),
        "surprise": torch.rand(1, frames, generator=make),
    }
    seen = Measurement(fps=torch.full((1,), 32.0), scale=torch.full((1,), 0.02), noise=torch.full((1,), 0.01), **leaves)
    return seen.with_(reference=seen, **{name: value.clone().requires_grad_() for name, value in leaves.items()})


def peak(law: Law, frames: int, side: int) -> int:
    """Bytes that the law holds at its peak beyond the measurement."""
    seen = measured(law, frames, side)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        law(seen).value.sum().backward()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]  # type: ignore[union-attr]
    return int(np.cumsum([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]).max())


def main() -> None:
    """Measure, print, write."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--output", default="benchmarks/results/law_memory.json")
    options.add_argument("--frames", type=int, nargs="+", default=[32, 64, 128, 256])
    options.add_argument("--side", type=int, default=32)
    given = options.parse_args()
    rows: list[dict[str, Any]] = []
    for law in FORMS:
        sizes = [peak(law, frames, given.side) for frames in given.frames]
        slope, start = np.polyfit(given.frames, sizes, 1)
        off = np.abs(np.polyval([slope, start], given.frames) / sizes - 1).max()
        pixels = given.side**2
        rows.append(
            {
                "law": law.name + (f" ({law.form})" if isinstance(law, ConstantAcceleration) else ""),
                "peak_kib": [round(size / 1024, 1) for size in sizes],
                "kib_per_frame": round(float(slope) / 1024, 2),
                "bytes_per_pixel_and_frame": round(float(slope) / pixels, 1),
                "worst_off_the_line": round(float(off), 4),
            }
        )
        print(rows[-1], flush=True)
    result = {
        "what": "peak memory of one clip, forward and backward, by number of frames",
        "command": "python benchmarks/law_memory.py",
        "side": given.side,
        "frames": given.frames,
        "versions": {"torch": torch.__version__},
        "rows": rows,
    }
    Path(given.output).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
