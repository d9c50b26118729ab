"""Draw the README's picture from a finished demo: before, after and truth of a few clips, and their paths in the image.

visviva demo runs/demo && python examples/demo_picture.py runs/demo docs/images/demo.png
"""

import json
import sys
from pathlib import Path

import matplotlib
import torch

from visviva.data.dataset import ClipDataset
from visviva.eval.newtonbench import ClipScore

matplotlib.use("Agg")
from matplotlib import pyplot

PRIMITIVES = ("free_fall", "parabolic_throw", "ramp_down")
SHOWN = (0, 4, 8, 12, 16)


def main(demo: Path, picture: Path) -> None:
    """Take the first clip of three primitives and draw frames on the left, measured paths on the right."""
    truth = ClipDataset(demo / "held-out")
    rows = [next(i for i, row in enumerate(truth.rows) if row["primitive"] == p) for p in PRIMITIVES]
    sets = {"before": ClipDataset(demo / "before"), "after": ClipDataset(demo / "after"), "truth": truth}
    found = json.loads((demo / "metrics.json").read_text())
    scores = {name: [ClipScore.from_json(row) for row in found[name]["clips"]] for name in ("before", "after")}
    figure, axes = pyplot.subplots(len(rows), 2, figsize=(10, 2.6 * len(rows)), width_ratios=(2.4, 1), layout="constrained")
    for (film, path), i in zip(axes, rows, strict=True):
        strips = [clips[i].frames[list(SHOWN)].permute(2, 0, 3, 1).flatten(1, 2) for clips in sets.values()]
        film.imshow(torch.cat(strips).clamp(0, 1))
        film.set_yticks([32 + 64 * k for k in range(3)], list(sets))
        film.set_xticks([])
        film.set_title(truth.rows[i]["caption"], fontsize=8, loc="left")
        for name, colour in (("before", "#d1242f"), ("after", "#1f6feb")):
            draw(path, scores[name][i].track, name, colour, "o-")
        draw(path, scores["before"][i].true_track, "truth", "#57606a", "-")
        path.invert_yaxis()
        path.set_aspect("equal", adjustable="datalim")
    axes[0, 1].legend(fontsize=7)
    axes[0, 1].set_title("path of the object [px]", fontsize=8)
    figure.savefig(picture, dpi=110)
    print(picture)


def draw(axis: pyplot.Axes, track: list, name: str, colour: str, style: str) -> None:
    """Draw the path of the first object, as measured frame by frame."""
    points = [frame[0] for frame in track if frame[0] is not None and frame[0][0] is not None]
    axis.plot([p[0] for p in points], [p[1] for p in points], style, color=colour, label=name, markersize=3, linewidth=1.2)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
