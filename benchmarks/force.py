"""Force prompting measured: displacement against commanded force and mass, direction, distractors, two forces at once.

    python benchmarks/force.py --lora tiny-force --output benchmarks/results/force.json --images docs/images

Held-out scenes (seed 77; the training set has seed 1), each with its pushed ball in three colours (1, 2, 4 kg) and at five
magnitudes, all from one first frame and one noise per scene. Balls are followed by `TrackedMasks` from their true first masks;
displacement is that of the centroid, first to last frame [px]. The same numbers are given for Newton's true clips, measured in
the same way, as the ceiling. Direction: angle between displacement and command where the truth moves 3 px or more. Order: share
of (scene, magnitude) in which 1 kg goes further than 2 kg further than 4 kg. Two forces: `push_two` scenes, never trained, each
force by itself and what they change added (`Composed`, the default), and both in one input.
Intervals: bootstrap over scenes, 95 %.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from visviva.data.clip import Clip
from visviva.data.scenes import rolling
from visviva.data.scenes.push import FORCE, MASSES, ball_texture, sample_push
from visviva.data.scenes.render import render
from visviva.data.scenes.scene import Scene
from visviva.data.scenes.simulation import Shot, describe
from visviva.models.backbones.lora import load_lora
from visviva.models.backbones.wan import WanBackbone
from visviva.models.control import read_forces, table
from visviva.models.probes import TrackedMasks
from visviva.physics.quiet import quiet

SEED, MAGNITUDES, LEAST = 77, (0.0, 0.25, 0.5, 0.75, 1.0), 3.0


def scenes(count: int) -> list[list[Scene]]:
    """Return per base scene its 15 variants: a light ball with room for the strongest push, in three masses and five forces."""
    found: list[list[Scene]] = []
    index = 0
    while len(found) < count:
        base = sample_push("push", SEED, index)
        index += 1
        if not base.pushes or base.numbers["mass_0"] != 1.0 or base.pushes[0].magnitude < 0.85:
            continue
        found.append([variant(base, index, mass, m) for mass in MASSES for m in MAGNITUDES])
    return found


def variant(base: Scene, index: int, mass: float, magnitude: float) -> Scene:
    """Return a scene with its pushed ball in another colour and with another force; a shorter path meets nothing either."""
    ball = replace(base.bodies[0], texture=ball_texture(np.random.default_rng([SEED, index]), mass))
    push = replace(base.pushes[0], magnitude=magnitude, newtons=FORCE[0] + (FORCE[1] - FORCE[0]) * magnitude)
    return replace(base, bodies=(ball, *base.bodies[1:]), pushes=(push,), numbers={**base.numbers, "mass_0": mass})


def filmed(group: list[Scene]) -> list[Clip]:
    """Simulate and draw scenes of equally many balls."""
    shot = Shot(flow=False)
    with quiet():
        model = rolling.build(group)
        motion = rolling.move(group, shot.frames, shot.fps, model)
        images = render(group, motion, *shot.size, model)
        return [describe(scene, motion, images, i, shot) for i, scene in enumerate(group)]


@torch.no_grad()
def generated(backbone: WanBackbone, clips: list[Clip], seed: int, steps: int, composed: bool = True) -> Tensor:
    """Generate from first frames and forces of clips, all from one noise."""
    first = torch.stack([clip.frames[0] for clip in clips])
    condition = backbone.condition([clip.caption for clip in clips], first)
    tables = torch.stack([table(read_forces(clip.meta["forces"], "clip")) for clip in clips])
    noise = backbone.noise([seed] * len(clips), 17, 64, 64)
    latents = backbone.sample(replace(condition, forces=tables), noise, steps=steps, composed=composed)
    return backbone.decode(latents, clamp="hard")


def displacements(frames: Tensor, clips: list[Clip]) -> np.ndarray:
    """Return how far each object's centroid gets (B, N, 2) [px], x right, y up; NaN where it is lost."""
    first = torch.stack([clip.masks[:1] for clip in clips if clip.masks is not None]).float()
    masks = (TrackedMasks()(frames, first) > 0.5).double()
    area = masks.sum((-1, -2))
    y, x = (torch.arange(n, dtype=torch.float64) for n in masks.shape[-2:])
    centre = torch.stack([(masks * x).sum((-1, -2)), -(masks * y[:, None]).sum((-1, -2))], -1) / area[..., None]
    return (centre[:, -1] - centre[:, 0]).numpy()


def angle_between(moved: np.ndarray, degrees: np.ndarray) -> np.ndarray:
    """Return unsigned angles (...) between displacements and commanded directions [degrees]."""
    found = np.degrees(np.arctan2(moved[..., 1], moved[..., 0]))
    return np.abs((found - degrees + 180) % 360 - 180)


def r_squared(x: np.ndarray, y: np.ndarray) -> float:
    """Return the squared correlation of two samples, NaN left out."""
    known = np.isfinite(x) & np.isfinite(y)
    return float(np.corrcoef(x[known], y[known])[0, 1] ** 2)


def linear(rows: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return what a table of clips, one row each, says: linearity, masses, direction, distractors."""
    out: dict[str, Any] = {}
    along, magnitude, mass = rows["along"], rows["magnitude"], rows["mass"]
    for m in MASSES:
        mine = mass == m
        means = [float(np.nanmean(along[mine & (magnitude == f)])) for f in MAGNITUDES]
        slope = np.polyfit(MAGNITUDES, means, 1)
        out[f"{m:g} kg"] = {
            "mean displacement px": means,
            "R2 of clips": r_squared(magnitude[mine], along[mine]),
            "R2 of means": r_squared(np.array(MAGNITUDES), np.array(means)),
            "slope px": float(slope[0]),
        }
    out["R2 with F/m, clips"] = r_squared(rows["expected"], along)
    cube = along.reshape(-1, len(MASSES), len(MAGNITUDES))
    out["ordered by mass"] = float(np.mean((cube[:, 0] > cube[:, 1]) & (cube[:, 1] > cube[:, 2])))
    far = rows["expected"] >= LEAST
    out["direction error degrees"] = {
        "median": float(np.nanmedian(rows["angle_error"][far])),
        "mean": float(np.nanmean(rows["angle_error"][far])),
        "p90": float(np.nanpercentile(rows["angle_error"][far], 90)),
        "clips": int(far.sum()),
    }
    rest = rows["rest"][np.isfinite(rows["rest"])]
    out["distractors px"] = {"mean": float(rest.mean()) if len(rest) else math.nan}
    out["distractors px"] |= {"largest": float(rest.max()) if len(rest) else math.nan}
    out["lost"] = float(np.mean(~np.isfinite(along)))
    return out


def with_intervals(rows: dict[str, np.ndarray], resamples: int = 300) -> dict[str, Any]:
    """Return the numbers of `linear` and 95 % bootstrap intervals over scenes of the main ones."""
    out, rng = linear(rows), np.random.default_rng(0)
    size = len(MASSES) * len(MAGNITUDES)
    count = len(rows["along"]) // size
    draws = []
    for _ in range(resamples):
        pick = (rng.integers(count, size=count)[:, None] * size + np.arange(size)).ravel()
        draws.append(linear({name: values[pick] for name, values in rows.items()}))
    paths = [*((f"{m:g} kg", "R2 of clips") for m in MASSES), *((f"{m:g} kg", "slope px") for m in MASSES)]
    paths += [("R2 with F/m, clips",), ("ordered by mass",), ("direction error degrees", "median"), ("distractors px", "mean")]
    out["intervals"] = {}
    for path in paths:
        values = [leaf(draw, path) for draw in draws]
        out["intervals"][": ".join(path)] = [float(v) for v in np.nanpercentile(values, [2.5, 97.5])]
    return out


def leaf(tree: Any, path: tuple[str, ...]) -> float:
    """Return a number of a nested mapping."""
    for name in path:
        tree = tree[name]
    return float(tree)


def table_of(moved: list[np.ndarray], truth: list[list[Clip]], variants: list[list[Scene]]) -> dict[str, np.ndarray]:
    """Return one row per clip."""
    rows: dict[str, list[float]] = {n: [] for n in ("along", "angle_error", "rest", "magnitude", "mass", "expected")}
    for shifts, clips, group in zip(moved, truth, variants, strict=True):
        for shift, clip, scene in zip(shifts, clips, group, strict=True):
            push = scene.pushes[0]
            way = np.array([math.cos(math.radians(push.angle)), math.sin(math.radians(push.angle))])
            true = clip.trajectory[-1, 0] - clip.trajectory[0, 0] if clip.trajectory is not None else torch.zeros(2)
            others = np.linalg.norm(shift[1:], axis=-1)
            rows["along"].append(float(shift[0] @ way))
            rows["angle_error"].append(float(angle_between(shift[0], np.array(push.angle))))
            rows["rest"].append(float(np.nanmean(others)) if len(others) else math.nan)
            rows["magnitude"].append(push.magnitude)
            rows["mass"].append(scene.numbers["mass_0"])
            rows["expected"].append(float(true.norm()))
    return {name: np.array(values) for name, values in rows.items()}


def two_forces(backbone: WanBackbone, count: int, steps: int) -> dict[str, Any]:
    """Return how two balls pushed at once go, from scenes of two balls."""
    group = [sample_push("push_two", SEED, i, objects=2) for i in range(count)]
    clips = filmed(group)
    ways = {"composed": lambda c, i: generated(backbone, [c], i, steps), "true clips": lambda c, _: c.frames[None]}
    ways["joint"] = lambda c, i: generated(backbone, [c], i, steps, composed=False)
    true = np.stack([(c.trajectory[-1] - c.trajectory[0]).numpy() * [1, -1] for c in clips if c.trajectory is not None])
    angles = np.array([[p.angle for p in scene.pushes] for scene in group])
    found: dict[str, Any] = {"scenes": count}
    for name, film in ways.items():
        moved = np.concatenate([displacements(film(clip, i), [clip]) for i, clip in enumerate(clips)])
        rng = np.random.default_rng(0)
        draws = [towards(moved[k], true[k], angles[k]) for k in rng.integers(count, size=(300, count))]
        found[name] = towards(moved, true, angles)
        found[name]["intervals"] = {
            key: [float(v) for v in np.nanpercentile([draw[key] for draw in draws], [2.5, 97.5])] for key in draws[0]
        }
    return found


def towards(moved: np.ndarray, true: np.ndarray, angles: np.ndarray) -> dict[str, Any]:
    """Compare displacements (B, N, 2) with the true ones and with the commanded directions (B, N)."""
    length = np.linalg.norm(true, axis=-1)
    along = (moved * true).sum(-1) / length
    error = angle_between(moved, angles)[length >= LEAST]
    return {
        "R2 with the truth, clips": r_squared(length.ravel(), along.ravel()),
        "slope against the truth": float(np.polyfit(length.ravel(), np.nan_to_num(along.ravel()), 1)[0]),
        "direction error degrees": float(np.nanmedian(error)),
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lora", required=True, help="folder of adapters with force control")
    parser.add_argument("--output", default="benchmarks/results/force.json")
    parser.add_argument("--images", default="", help="folder for a picture of clips")
    parser.add_argument("--scenes", type=int, default=6)
    parser.add_argument("--two", type=int, default=24)
    parser.add_argument("--steps", type=int, default=4)
    given = parser.parse_args()
    backbone = WanBackbone.load("tiny")
    load_lora(backbone, given.lora)
    variants = scenes(given.scenes)
    truth = [filmed(group) for group in variants]
    clips = [generated(backbone, group, i, given.steps) for i, group in enumerate(truth)]
    true = [torch.stack([clip.frames for clip in group]) for group in truth]
    result: dict[str, Any] = {"scenes": given.scenes, "sampler steps": given.steps, "seed": SEED}
    for name, frames in (("generated", clips), ("true clips", true)):
        moved = [displacements(f, group) for f, group in zip(frames, truth, strict=True)]
        result[name] = with_intervals(table_of(moved, truth, variants))
    result["two forces"] = two_forces(backbone, given.two, given.steps)
    Path(given.output).write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    if given.images:
        picture(clips, true, Path(given.images) / "forces.png")


def picture(clips: list[Tensor], true: list[Tensor], path: Path) -> None:
    """Write a sheet of three scenes: weak and strong push of the light ball, strong of the heavy; generated over true."""
    import cv2

    rows = []
    for scene in range(min(3, len(clips))):
        for k in (1, 4, 14):
            rows += [torch.cat(list(frames[scene][k, ::4]), 2) for frames in (clips, true)]
    sheet = (torch.cat(rows, 1).permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    cv2.imwrite(str(path), sheet[..., ::-1])


if __name__ == "__main__":
    main()
