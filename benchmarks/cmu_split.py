"""The CMU motions of motion prediction's split as files: joint angles on one skeleton, for training and for unseen tests.

    git clone https://github.com/jutanke/mocap
    python benchmarks/cmu_split.py mocap --half train --out runs/cmu-train
    visviva pretrain --config pretrain-reestimation --reestimation.recordings runs/cmu-train

That repository holds `mocap/data/cmu_eval/{train,test}/*/*.txt`: 117 numbers a frame at 120 frames/s, the place of the root,
then 38 rotation vectors, rows as vectors. The skeleton is read as numbers from its `fk_cmueval.py`; nothing of it is run. The
motions are those of mocap.cs.cmu.edu (created with funding from NSF EIA-0196217), free to use. The shipped weights saw the
training half without its `washwindow` and `directing_traffic` 2, 3 and 5; the test half was measured without
`basketball_signal` and `directing_traffic`.
"""

from __future__ import annotations

import argparse
import ast
from pathlib import Path

import numpy as np
import roma
import torch

from visviva.data.motions.arrays import write_npz
from visviva.data.motions.motion import HumanMotion

FPS, UNIT = 120.0, 0.056444
"""Frames per second, metres per unit."""
LEG = ("HipJoint", "UpLeg", "Leg", "Foot", "ToeBase", "ToeBase_end")
HAND = ("Hand", "FingerBase", "HandIndex1", "HandIndex1_end")


def main() -> None:
    """Convert one half."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", type=Path)
    parser.add_argument("--half", choices=("train", "test"), required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    parents, offsets = skeleton(given.repository / "mocap" / "math" / "fk_cmueval.py")
    for file in sorted((given.repository / "mocap" / "data" / "cmu_eval" / given.half).glob("*/*.txt")):
        numbers = torch.from_numpy(np.loadtxt(file, delimiter=","))
        joints = placed(numbers, parents, offsets)
        motion = HumanMotion(joints[..., [2, 0, 1]].float(), names(), parents, FPS)  # y up, z ahead: z up, x ahead
        write_npz(given.out / f"{given.half}_{file.stem}.npz", motion)


def names() -> tuple[str, ...]:
    """Return the joints' names in the order of the database's BVH files."""

    def leg(side: str) -> list[str]:
        return [side[0] + LEG[0], *(side + part for part in LEG[1:])]

    def arm(side: str) -> list[str]:
        upper = [side + part for part in ("Shoulder", "Arm", "ForeArm", *HAND)]
        return [*upper, f"{side[0]}Thumb", f"{side[0]}Thumb_end"]

    spine = ["LowerBack", "Spine", "Spine1", "Neck", "Neck1", "Head", "Head_end"]
    return ("Hips", *leg("Left"), *leg("Right"), *spine, *arm("Left"), *arm("Right"))


def skeleton(file: Path) -> tuple[tuple[int, ...], torch.Tensor]:
    """Return parents and bone vectors (38, 3) from the lists of numbers that a file assigns to ``parent`` and ``offset``."""
    lists: dict[str, list[float]] = {}
    for node in ast.walk(ast.parse(file.read_text())):
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and node.targets[0].id in ("parent", "offset")
        ):
            found = next((part for part in ast.walk(node.value) if isinstance(part, ast.List)), None)
            if found is not None:
                lists[node.targets[0].id] = ast.literal_eval(found)
    return tuple(int(k) - 1 for k in lists["parent"]), torch.tensor(lists["offset"], dtype=torch.float64).view(-1, 3)


def placed(numbers: torch.Tensor, parents: tuple[int, ...], offsets: torch.Tensor) -> torch.Tensor:
    """Return the joints [m], (T, 38, 3), y up."""
    local = roma.rotvec_to_rotmat(numbers[:, 3:].unflatten(1, (-1, 3)))
    turned, at = [local[:, 0]], [numbers[:, :3]]
    for k, parent in enumerate(parents[1:], 1):
        turned.append(local[:, k] @ turned[parent])
        at.append((offsets[k] @ turned[parent]) + at[parent])
    return UNIT * torch.stack(at, 1)


if __name__ == "__main__":
    main()
