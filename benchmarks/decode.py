"""Memory and time of reading and measuring clips, by length: linear in the frames, bounded by refusing what does not fit.

    python benchmarks/decode.py --output benchmarks/results/decode.json

Every row is a fresh process: peak resident memory above that of the imports, processor seconds, of reading a clip alone and of
measuring it (track, motion, verdict; without laws). The last row asks for a film that cannot fit and records the refusal.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

LENGTHS = (50, 100, 200, 400, 800)


def film(path: Path, count: int, height: int, width: int) -> None:
    """Write a clip of a ball that is thrown again every 50 frames."""
    import av
    import numpy as np

    wall = np.random.default_rng(0).integers(60, 110, (height // 8, width // 8, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=50, options={"preset": "ultrafast"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for k in range(count):
            image, t = wall.copy(), k % 50
            x, y = 20 + t * (width - 60) // 50, int(height - 40 - 3.2 * t * height / 50 + 3.2 * (t / 50) ** 2 * height)
            image[max(0, y - 10) : max(0, y + 10), x - 10 : x + 10] = (240, 220, 40)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


def one(path: str, work: str) -> dict[str, Any]:
    """Read or measure one clip in this process."""
    import torch

    from visviva.data.video import read_video
    from visviva.eval.recording import Settings, measure_recording

    torch.set_num_threads(1)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    outcome = "read"
    if work == "read":
        shape = list(read_video(path).frames.shape)
    else:
        result = measure_recording(path, Settings(laws=False))
        shape, outcome = [result.count, 3, *result.size[::-1]], "refused" if result.failed else result.kind or "not measured"
        outcome = f"{outcome}: {result.reason}" if result.failed else outcome
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "work": work,
        "shape": shape,
        "outcome": outcome,
        "peak_mib_above_imports": round((peak - before) / 1024, 1),
        "processor_s": round(time.process_time() - start, 2),
    }


def main() -> None:
    """Measure, print, write."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--output", default="benchmarks/results/decode.json")
    options.add_argument("--side", type=int, nargs=2, default=[360, 640], metavar=("HEIGHT", "WIDTH"))
    options.add_argument("--one", nargs=2, metavar=("PATH", "WORK"), help="internal: measure one clip and print it")
    given = options.parse_args()
    if given.one:
        print(json.dumps(one(*given.one)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for count in LENGTHS:
            path = Path(folder) / f"{count}.mp4"
            film(path, count, *given.side)
            for work in ("read", "measure"):
                command = [sys.executable, __file__, "--one", str(path), work]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                rows.append(json.loads(done.stdout.splitlines()[-1]))
                rows[-1]["mib_per_frame"] = round(rows[-1]["peak_mib_above_imports"] / count, 3)
                print(rows[-1], flush=True)
    frame = 3 * given.side[0] * given.side[1] / 2**20
    result = {
        "what": "peak memory and processor time of reading and of measuring clips, by number of frames",
        "command": "python benchmarks/decode.py",
        "frame_mib": round(frame, 3),
        "bound": "a file that needs more than 90 % of the available memory for three copies of its frames is refused unread",
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "rows": rows,
    }
    Path(given.output).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
