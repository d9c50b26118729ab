"""Wind prompts measured: how far things lean with the speed, whereto, and what they do without wind; seen and unseen things.

    python benchmarks/wind.py --lora tiny-force --output benchmarks/results/wind.json --images docs/images

Per kind of thing (flags and plants as trained; pennants and hanging balls never trained) held-out scenes (seed 77; the
training set has seed 1), each without wind, at four speeds to the right and to the left, and at speed 0.75 in six more
directions, all from one first frame and one noise. Things are followed by `TrackedMasks` from their true first masks;
displacement is that of the centroid, first to last frame, mean over the things [px], less that of the same scene without wind.
Lean: its component along the wind. Sign and angle: against the displacement of the *true* masks, where it is 1.5 px across, or
2 px in all; a hanging thing cannot follow a wind downwards. True clips are measured in the same way, as the ceiling. Intervals:
bootstrap over scenes, 95 %.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from force import SEED, displacements, generated, r_squared
from torch import Tensor

from visviva.data.clip import Clip
from visviva.data.scenes import blown
from visviva.data.scenes.scene import Scene
from visviva.data.scenes.simulation import Shot
from visviva.data.scenes.wind import WINDS, Breeze, sample_wind
from visviva.models.backbones.lora import load_lora
from visviva.models.backbones.wan import WanBackbone
from visviva.physics.quiet import quiet

SPEEDS, FIXED = (0.25, 0.5, 0.75, 1.0), 0.75
BREEZES = [Breeze(0.0, 0.0), *(Breeze(a, s) for a in (0.0, 180.0) for s in SPEEDS)]
BREEZES += [Breeze(a, FIXED) for a in (45.0, 90.0, 135.0, 225.0, 270.0, 315.0)]
"""The winds of a scene; the first is none."""
ACROSS, LEAST = 1.5, 2.0


def filmed(kind: str, count: int) -> list[list[Clip]]:
    """Return the true clips of ``count`` scenes of a kind, one per wind of `BREEZES`."""
    groups = []
    for i in range(count):
        base = sample_wind(kind, SEED, i)
        group: list[Scene] = [replace(base, wind=wind) for wind in BREEZES]
        with quiet():
            groups.append(blown.film(group, Shot(flow=False)))
    return groups


def moved(frames: list[Tensor], clips: list[list[Clip]]) -> np.ndarray:
    """Return displacements (scenes, winds, 2) [px], x right, y up; NaN where a thing is lost."""
    return np.stack([displacements(f, group).mean(1) for f, group in zip(frames, clips, strict=True)])


def real(clips: list[list[Clip]]) -> np.ndarray:
    """Return the displacements of the centroids of the true masks, as `moved`."""
    found = []
    for group in clips:
        masks = torch.stack([clip.masks[[0, -1]] for clip in group if clip.masks is not None]).double()
        y, x = (torch.arange(n, dtype=torch.float64) for n in masks.shape[-2:])
        centre = torch.stack([(masks * x).sum((-1, -2)), -(masks * y[:, None]).sum((-1, -2))], -1)
        centre = centre / masks.sum((-1, -2))[..., None]
        found.append((centre[:, 1] - centre[:, 0]).mean(1).numpy())
    return np.stack(found)


def numbers(found: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Return what displacements (scenes, winds, 2) say, against the true ones."""
    away, true = found[:, 1:] - found[:, :1], truth[:, 1:] - truth[:, :1]
    angles = np.radians([wind.angle for wind in BREEZES[1:]])
    lean = (away * np.stack([np.cos(angles), np.sin(angles)], -1)).sum(-1)
    sides = 2 * len(SPEEDS)
    speed = np.tile([wind.speed for wind in BREEZES[1 : 1 + sides]], (len(found), 1))
    means = [0.0, *(float(np.nanmean(lean[:, :sides][speed == s])) for s in SPEEDS)]
    wide = np.abs(true[..., 0]) >= ACROSS
    far = np.linalg.norm(true, axis=-1) >= LEAST
    turn = np.degrees(np.arctan2(away[..., 1], away[..., 0]) - np.arctan2(true[..., 1], true[..., 0]))
    error = np.abs((turn + 180) % 360 - 180)[far]
    known = np.isfinite(true) & np.isfinite(away)
    return {
        "mean lean px": means,
        "R2 of means": r_squared(np.array([0.0, *SPEEDS]), np.array(means)),
        "R2 of clips": r_squared(speed.ravel(), lean[:, :sides].ravel()),
        "R2 with the truth": r_squared(true.reshape(-1), away.reshape(-1)),
        "slope against the truth": float(np.polyfit(true[known], away[known], 1)[0]),
        "sign": float(np.mean((away[..., 0] * true[..., 0])[wide & known[..., 0]] > 0)),
        "angle error degrees": float(np.nanmedian(error)) if len(error) else None,
        "without wind px": float(np.nanmean(np.linalg.norm(found[:, 0], axis=-1))),
        "lost": float(np.mean(~np.isfinite(found))),
    }


def with_intervals(found: np.ndarray, truth: np.ndarray, resamples: int = 300) -> dict[str, Any]:
    """Return `numbers` and 95 % bootstrap intervals over scenes."""
    out, rng = numbers(found, truth), np.random.default_rng(0)
    picks = [rng.integers(len(found), size=len(found)) for _ in range(resamples)]
    draws = [numbers(found[pick], truth[pick]) for pick in picks]
    names = [name for name, value in out.items() if isinstance(value, float)]
    out["intervals"] = {
        name: [float(v) for v in np.nanpercentile([draw[name] for draw in draws if draw[name] is not None], [2.5, 97.5])]
        for name in names
    }
    return out


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lora", required=True, help="folder of adapters with force control")
    parser.add_argument("--output", default="benchmarks/results/wind.json")
    parser.add_argument("--images", default="", help="folder for a picture of clips")
    parser.add_argument("--scenes", type=int, default=6)
    parser.add_argument("--steps", type=int, default=4)
    given = parser.parse_args()
    backbone = WanBackbone.load("tiny")
    load_lora(backbone, given.lora)
    result: dict[str, Any] = {"scenes": given.scenes, "sampler steps": given.steps, "seed": SEED}
    rows = []
    for kind in WINDS:
        truth = filmed(kind, given.scenes)
        clips = [generated(backbone, group, i, given.steps) for i, group in enumerate(truth)]
        true = [torch.stack([clip.frames for clip in group]) for group in truth]
        way = real(truth)
        result[kind] = {name: with_intervals(moved(f, truth), way) for name, f in (("generated", clips), ("true clips", true))}
        print(kind, json.dumps(result[kind]), flush=True)
        rows += [torch.cat(list(frames[0][4, ::4]), 2) for frames in (clips, true)]
    Path(given.output).write_text(json.dumps(result, indent=1) + "\n")
    if given.images:
        picture(rows, Path(given.images) / "winds.png")


def picture(rows: list[Tensor], path: Path) -> None:
    """Write a sheet: full wind to the right, generated over true; flags over plants, pennants over hanging balls."""
    import cv2

    half = len(rows) // 2
    sheet = torch.cat([torch.cat(rows[:half], 1), torch.cat(rows[half:], 1)], 2)
    cv2.imwrite(str(path), (sheet.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)[..., ::-1])


if __name__ == "__main__":
    main()
