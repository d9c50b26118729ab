"""What an H200 would move and issue: inverse dynamics' kernels, compiled for it without a GPU, and counted.

    pip install nvidia-cuda-nvdisasm
    python benchmarks/dynamics_sm90.py --out benchmarks/results/dynamics-sm90.json

No GPU runs here: Warp brings the compiler (NVRTC) that makes the machine code an H200 would load, and `nvdisasm` prints it.
Counted is too much on purpose: each link goes through every instruction of the kernel, those of all kinds of joints; every
word that is loaded or stored comes from or goes to device memory, except that the words of one vector or matrix, which are
moved one after the other and lie beside those of neighbouring threads, share their sectors of 32 bytes; those of the rows of
states, which lie far apart, take a sector each. Bytes and instructions against what NVIDIA says of an H200 SXM (4.8 TB/s; 132
processors of four schedulers at 1.98 GHz) give two estimates. Latency is not in them, and counts are too high: they are
neither bounds nor a measurement.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import warp as wp

from visviva.eval.run import provenance
from visviva.physics.bodies import Body
from visviva.physics.dynamics.kernel import kernels

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "physics"))
from trees import tree

BANDWIDTH, ISSUED = 4.8e12, 132 * 4 * 1.98e9
"""Bytes, and instructions of a warp of 32 threads, per second."""
SECTOR, WARP = 32, 32
OPERATION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\d+\s+)?([A-Z][A-Z0-9_.]*)")
WIDE = {"64": 2, "128": 4}


def main() -> None:
    """Compile, count, and say the bounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nvdisasm", default=shutil.which("nvdisasm"), help="the program; default: the one on the path")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if not given.nvdisasm:
        parser.error(
            "nvdisasm is not on the path: pip install nvidia-cuda-nvdisasm, then --nvdisasm .../nvidia/cu13/bin/nvdisasm"
        )
    body = tree(24, 0, kinds=("ball",))
    rows = {
        f"{name}, {real.__name__}": counted(real, name, body, given.nvdisasm)
        for real in (wp.float32, wp.float64)
        for name in ("newton_euler", "gradient")
    }
    result = {
        "what": "inverse dynamics and its gradient, compiled for sm_90: counts that are too high, estimates by them",
        "rows": rows,
    }
    print(json.dumps(result, indent=1))
    if given.out:
        given.out.write_text(json.dumps(result | {"links": len(body), "made_with": provenance()}, indent=1) + "\n")


def counted(real: Any, kernel: str, body: Body, nvdisasm: str) -> dict[str, Any]:
    """Return counts of a kernel in one precision and the states per second that follow."""
    code = disassembled(kernels(real)[0].module, nvdisasm)
    found = [op.split(".") for op in OPERATION.findall(next(code[name] for name in code if kernel in name))]
    words = sum(moved(op) for op in found if op[0] in ("LDG", "STG"))
    rows = (body.nq + 3 * body.nv) * (1 if kernel == "newton_euler" else 2)
    traffic = len(body) * words + SECTOR * rows
    return {
        "instructions": len(found),
        "bytes_per_link": words,
        "of_them_to_local_memory": sum(moved(op) for op in found if op[0] in ("LDL", "STL")),
        "bytes_per_state": traffic,
        "millions_of_states_per_second_by_bytes": round(BANDWIDTH / traffic / 1e6),
        "millions_of_states_per_second_by_instructions": round(ISSUED * WARP / (len(found) * len(body)) / 1e6),
    }


def moved(op: list[str]) -> int:
    """Bytes that an instruction moves for one thread: 4, 8 or 16, as it says."""
    return 4 * max([WIDE[part] for part in op if part in WIDE], default=1)


def disassembled(module: Any, nvdisasm: str) -> dict[str, str]:
    """Return the machine code of a module's kernels for sm_90, by their names."""
    with tempfile.TemporaryDirectory() as folder:
        binary = wp.compile_aot_module(module, arch=90, module_dir=folder, use_ptx=False)[0]
        text = subprocess.run([nvdisasm, "-c", str(binary)], check=True, capture_output=True, text=True).stdout
    sections = re.split(r"\.section\s+\.text\.", text)[1:]
    return {section.split(",")[0]: section for section in sections}


if __name__ == "__main__":
    main()
