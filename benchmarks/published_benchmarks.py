"""Our benchmarks beside the published code and files, where those are at hand: Physics-IQ's scripts, PhyGenBench's rows.

    python benchmarks/published_benchmarks.py --physics-iq PATH/TO/physics-IQ-benchmark/code --phygenbench PATH/TO/PhyGenBench

Physics-IQ: three views of two takes and a generation (blocks on a textured wall, closed forms) are written as videos, scored by
the published scripts and by ours, with and without the lossy mask video. PhyGenBench: the published per-prompt file of one
model (result/kelingall.json) is aggregated again. Writes benchmarks/results/published-benchmarks.json.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from visviva.data.video import read_video, write_video
from visviva.eval.benchmarks.phygenbench import CATEGORIES, final, summary
from visviva.eval.benchmarks.physics_iq import METRICS, View, agreement, take, totals
from visviva.eval.benchmarks.result import ClipRow
from visviva.eval.run import provenance

FPS, VIEWS = 8, ("left", "center", "right")


def clip(left: int, rise: float, bend: float) -> Tensor:
    """A 16x16 block on a textured wall, uint8 (40, 3, 96, 128)."""
    y, x = np.mgrid[:96, :128]
    frames = np.repeat(np.repeat((40 + (3 * x + 5 * y) % 64).astype(np.uint8)[None, :, :, None], 3, 3), 40, 0)
    for t in range(40):
        top = 8 + int(np.floor(rise * t + bend * t * t + 0.5))
        frames[t, top : top + 16, left + 2 * t : left + 2 * t + 16] = (180, 200, 220)
    return torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous()


def physics_iq(code: Path) -> dict[str, Any]:
    """Score three views with the published scripts and with ours."""
    real, other, made = clip(8, 0, 0.04), clip(10, 0, 0.04), clip(8, 1.5, 0)
    generated = [made, torch.roll(made, 3, 3), torch.roll(made, -5, 2)]
    with tempfile.TemporaryDirectory() as name:
        folder, views = Path(name), {False: [], True: []}
        for k, (view, frames) in enumerate(zip(VIEWS, generated, strict=True), 1):
            paths = [
                folder / f"real/{k:04d}_testing-videos_{FPS}FPS_perspective-{view}_take-1_ball.mp4",
                folder / f"real/{k + 198:04d}_testing-videos_{FPS}FPS_perspective-{view}_take-2_ball.mp4",
                folder / f"made/{k:04d}_perspective-{view}_ball.mp4",
            ]
            for path, film in zip(paths, (real, other, frames), strict=True):
                write_video(path, film, FPS)
            for codec, found in views.items():
                one, two, three = (take(read_video(p).frames, FPS, codec=codec) for p in paths)
                found.append(View("ball", view, agreement(one, three), agreement(one, two)))
        ours = {codec: totals(found) for codec, found in views.items()}
        published = _published(code, folder)
    told = {
        ("through the codec" if codec else "without a codec"): {
            "score": float(t.score[0]),
            "means": {m: float(t.means[m][0]) for m in METRICS},
            "takes": {m: float(t.variances[m][0]) for m in METRICS},
        }
        for codec, t in ours.items()
    }
    return {"published score": published, "ours": told}


def _published(code: Path, folder: Path) -> float:
    sys.path.insert(0, str(code))
    masks, table, score = (
        importlib.import_module(m)
        for m in ("binary_mask_generator", "calculate_and_write_metrics_to_csv", "calculate_iq_score")
    )
    masks.generate_binary_masks(str(folder / "real"), str(folder / "real masks"), True)
    masks.generate_binary_masks(str(folder / "made"), str(folder / "made masks"), False)
    folders = [str(folder / n) for n in ("real", "made", "real masks", "made masks")]
    table.process_videos(*folders, str(folder / "metrics.csv"), FPS)
    return float(score.calculate_iq_score(str(folder / "metrics.csv"))[0])


def phygenbench(where: Path) -> dict[str, Any]:
    """Aggregate the published per-prompt stages of one model again."""
    prompts = json.loads((where / "result/kelingall.json").read_text())
    rows, agree = [], 0
    for k, p in enumerate(prompts):
        value = final((p["single"], p["multi_gpt"], p["video_gpt"]), (p["single"], p["multi_llava"], p["video_intern"]))
        agree += value == p["kelingall_average"]
        stages = {"phenomenon": p["single"], "order": p["multi_gpt"], "naturalness": p["video_gpt"]}
        rows.append(
            ClipRow(str(k), str(k), {"final": value, **stages}, 0.0, labels={"category": CATEGORIES[p["main_category"]]})
        )
    scores = {s.name: [s.value, s.low, s.high] for s in summary(rows, {"seed": 0}).scores if s.name != "motion"}
    return {"rows": len(prompts), "rows that agree": int(agree), "value, low, high": scores}


def main() -> None:
    """Compare what is at hand and write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--physics-iq", type=Path, help="the folder 'code' of the published repository")
    parser.add_argument("--phygenbench", type=Path, help="the published repository")
    given = parser.parse_args()
    found: dict[str, Any] = {}
    if given.physics_iq:
        found["physics-iq"] = physics_iq(given.physics_iq)
    if given.phygenbench:
        found["phygenbench"] = phygenbench(given.phygenbench)
    print(json.dumps(found, indent=1))
    path = Path(__file__).parent / "results" / "published-benchmarks.json"
    path.write_text(json.dumps({"made_with": provenance(), **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
