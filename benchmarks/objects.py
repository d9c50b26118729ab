"""Objects measured: overlap of found masks, wrong identities, coverage of the positions' intervals; by scene, with intervals.

    python benchmarks/objects.py --output benchmarks/results/objects.json
    python benchmarks/objects.py --only identity --scenes 400

Three parts, on scenes drawn with seeds, 8 bits with grain:

- masks: mean intersection over union of found and true masks of each object under the best permutation of the objects of a
  clip (`Moving`, and `MotionMasks` beside it), on drawn and, with ``--simulated``, on simulated clips;
- identity: four objects in two lookalike pairs cross, hide each other, leave and come back; the detections are their visible
  masks, ragged by a pixel, a twentieth missing, in random order. A detection is wrong if its identity was born with another
  object or if its object was born with another identity. Paired bootstrap over scenes;
- positions: error of visible objects against the drawn path, and how often ``|error| < 1.96 sigma``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import visviva
from visviva.models.probes import Identity, LucasKanade, MotionMasks, Moving, object_tracks, track_points
from visviva.models.probes.objects import look
from visviva.physics.sprites import Sprites, _shapes, random_sprites, random_texture, sprites
from visviva.physics.verify import iou

GRAIN = 0.02
RULES: dict[str, Identity] = {
    "last embedding": Identity(memory="last"),
    "guided memory": Identity(),
    "guided memory, scale 1 (as published)": Identity(scale=1.0),
    "fixed momentum, weight 0.25": Identity(memory=0.25),
    "last embedding and place": Identity(memory="last", reach=6.0),
    "guided memory and place": Identity(reach=6.0),
}


def photographed(frames: Tensor, seed: int, grain: float = GRAIN) -> Tensor:
    """Frames with grain, rounded to 8 bits."""
    noise = grain * torch.randn(frames.shape, generator=torch.Generator().manual_seed(seed))
    return ((frames + noise).clamp(0, 1) * 255).round() / 255


def stopped(scene: Sprites, at: int) -> Sprites:
    """The objects stop at a frame."""
    path = scene.trajectory.clone()
    path[:, at:] = path[:, at : at + 1]
    return scene.with_(trajectory=path)


def held(scene: Sprites, until: int) -> Sprites:
    """The objects rest until a frame."""
    path = scene.trajectory.clone()
    path[:, :until] = path[:, until : until + 1]
    return scene.with_(trajectory=path)


def drawn_scenes(clips: int, seed: int) -> dict[str, Sprites]:
    """Scenes by kind."""
    return {
        "one, textured": random_sprites(clips, seed),
        "one, plain": random_sprites(clips, seed + 1, textured=False),
        "two, textured": random_sprites(clips, seed + 2, objects=2),
        "two, plain": random_sprites(clips, seed + 3, objects=2, textured=False),
        "three, textured, 80 px": random_sprites(clips, seed + 4, objects=3, radius=(4.0, 6.0), height=80, width=80),
        "stops half way, textured": stopped(random_sprites(clips, seed + 5), 8),
        "stops half way, plain": stopped(random_sprites(clips, seed + 6, textured=False), 8),
        "starts half way, textured": held(random_sprites(clips, seed + 7), 8),
    }


def order(cost: Tensor) -> Tensor:
    """The permutation of the found objects with the least cost (B, N found, N true), shape (B, N)."""
    count = cost.shape[1]
    ways = torch.tensor(list(itertools.permutations(range(count))))
    total = torch.stack([cost[:, way, torch.arange(count)].sum(1) for way in ways])
    return ways[total.argmin(0)]


def matched(found: Tensor, true: Tensor) -> Tensor:
    """Found masks in the order of the true ones."""
    cost = torch.stack(
        [
            torch.stack([-iou(found[:, :, i], true[:, :, j]).mean(1) for j in range(true.shape[2])], 1)
            for i in range(true.shape[2])
        ],
        1,
    )
    return order(cost)


def masks_and_positions(clips: int, seed: int) -> dict[str, Any]:
    """Overlap and position errors per kind of scene."""
    result: dict[str, Any] = {}
    for kind, scene in drawn_scenes(clips, seed).items():
        drawn = scene.render()
        frames, true = photographed(drawn.frames, seed), drawn.masks > 0.5
        moving = Moving(objects=true.shape[2])
        found, bare = moving.find(frames)
        way = matched(found > 0.5, true)
        pick = way[:, None].expand(-1, true.shape[1], -1)
        overlap = iou(found.gather(2, pick[..., None, None].expand_as(found)) > 0.5, true)
        baseline = MotionMasks(objects=true.shape[2])(frames, None)
        before = matched(baseline > 0.5, true)[:, None].expand(-1, true.shape[1], -1)
        older = iou(baseline.gather(2, before[..., None, None].expand_as(found)) > 0.5, true)
        tracks = object_tracks(frames, found, bare)
        error = tracks.positions.gather(2, pick[..., None].expand_as(tracks.positions)) - scene.trajectory
        seen, sigma = tracks.visible.gather(2, pick), tracks.sigma.gather(2, pick)
        inside = (error.abs() < 1.96 * sigma[..., None])[seen].double()
        result[kind] = {
            "mean IoU": summary(overlap.mean((1, 2))),
            "MotionMasks, mean IoU": summary(older.mean((1, 2))),
            "visible": round(float(seen.double().mean()), 3),
            "position error rms [px]": round(float(error[seen].square().mean().sqrt()), 3),
            "position error median [px]": round(float(error[seen].abs().median()), 3),
            "sigma median [px]": round(float(sigma[seen].median()), 3),
            "coverage of the 95 % interval": round(float(inside.mean()), 3),
        }
        print(kind, json.dumps(result[kind]), flush=True)
    return result


def summary(values: Tensor) -> dict[str, Any]:
    """Mean with its 95 % bootstrap interval over clips, and the worst clip."""
    data = values.double().numpy()
    draws = np.random.default_rng(0).integers(0, len(data), (2000, len(data)))
    low, high = np.quantile(data[draws].mean(1), (0.025, 0.975))
    return {
        "mean": round(float(data.mean()), 3),
        "interval": [round(float(low), 3), round(float(high), 3)],
        "worst": round(float(data.min()), 3),
    }


def simulated(clips: int, seed: int) -> dict[str, Any]:
    """Overlap on the simulator's own clips and masks, by primitive; the largest object only where there are several."""
    from visviva.data.scenes import PRIMITIVES, simulate

    result: dict[str, Any] = {}
    for primitive in PRIMITIVES:
        made = simulate(primitive, n=clips, seed=seed, flow=False)
        values, older = [], []
        for clip in made:
            true = clip.masks[None] > 0.5
            frames = clip.frames[None]
            for store, source in ((values, Moving(objects=true.shape[2])), (older, MotionMasks(objects=true.shape[2]))):
                found = source(frames, None)
                way = matched(found > 0.5, true)[:, None, :, None, None].expand_as(found)
                store.append(iou(found.gather(2, way) > 0.5, true).mean())
        result[primitive] = {"mean IoU": summary(torch.stack(values)), "MotionMasks, mean IoU": summary(torch.stack(older))}
        print(primitive, json.dumps(result[primitive]), flush=True)
    return result


def crossing(
    clips: int, seed: int, frames: int = 40, side: int = 96, objects: int = 4, alike: float = 0.12
) -> dict[str, Tensor]:
    """Scenes of lookalike objects that cross, hide each other and leave, as detections in random order."""
    generator = torch.Generator().manual_seed(seed)
    patch = 2 * math.ceil(10 * 1.5) + 1

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    ground = 0.2 + 0.6 * uniform(clips, 3, 1, 1)
    background = (ground + 0.3 * (random_texture(clips, side, side, 8.0, generator) - 0.5)).clamp(0, 1)
    paint = (0.15 + 0.7 * uniform(clips, objects // 2, 3, 1, 1)).repeat_interleave(2, 1)
    apart = torch.nn.functional.normalize(torch.randn(clips, objects, 3, 1, 1, generator=generator), dim=2)
    fabric = random_texture(clips * objects, patch, patch, 4.0, generator).unflatten(0, (clips, objects))
    texture = (paint + alike / 2 * apart + 0.35 * (fabric - 0.5)).clamp(0, 1)
    alpha = _shapes(clips * objects, patch, (7.0, 10.0), generator).unflatten(0, (clips, objects))
    time = torch.linspace(0, 1, frames).view(1, -1, 1, 1)
    phase, rate, reach = (uniform(clips, 1, objects, 2) for _ in range(3))
    path = side / 2 + side * (0.25 + 0.35 * reach) * torch.cos(2 * math.pi * ((0.6 + 0.8 * rate) * time + phase))
    drawn = sprites(background, texture, alpha, path).render()
    share = drawn.masks.sum((-2, -1)) / alpha.sum((-2, -1))[:, None]
    ragged, kind = drawn.masks, uniform(*share.shape)[..., None, None]
    flat = ragged.flatten(0, 1)
    grown = torch.nn.functional.max_pool2d(flat, 3, 1, 1).view_as(ragged)
    eaten = -torch.nn.functional.max_pool2d(-flat, 3, 1, 1).view_as(ragged)
    masks = (torch.where(kind < 1 / 3, grown, torch.where(kind < 2 / 3, eaten, ragged)) > 0.5).float()
    present = (share > 0.25) & (uniform(*share.shape) > 0.05) & (masks.sum((-2, -1)) >= 9)
    which = uniform(*share.shape).argsort(-1)
    masks = masks.gather(2, which[..., None, None].expand_as(masks))
    area = masks.sum((-2, -1)).clamp(min=1)
    axis = torch.arange(side, dtype=torch.float32)
    places = torch.stack([masks.sum(-2) @ axis, masks.sum(-1) @ axis], -1) / area[..., None]
    looks = look(photographed(drawn.frames, seed), masks)
    return {"looks": looks, "present": present.gather(2, which), "which": which, "places": places, "share": share}


def wrong(ids: Tensor, scenes: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Share of wrong detections and number of switches, per scene."""
    errors, switches = [], []
    for clip, which, present in zip(ids.numpy(), scenes["which"].numpy(), scenes["present"].numpy(), strict=True):
        owner: dict[int, int] = {}
        first: dict[int, int] = {}
        last: dict[int, int] = {}
        bad = total = changed = 0
        for row, objects, here in zip(clip, which, present, strict=True):
            for number, thing in zip(row[here].tolist(), objects[here].tolist(), strict=True):
                total += 1
                if number < 0:
                    bad += 1
                    continue
                owner.setdefault(number, thing)
                first.setdefault(thing, number)
                bad += owner[number] != thing or first[thing] != number
                changed += last.get(thing, number) != number
                last[thing] = number
        errors.append(bad / max(total, 1))
        switches.append(changed)
    return torch.tensor(errors), torch.tensor(switches, dtype=torch.float64)


def identity(clips: int, seed: int, batch: int = 20) -> dict[str, Any]:
    """Wrong identities of every rule on the same scenes, and the paired reduction against the last embedding."""
    errors: dict[str, list[Tensor]] = {name: [] for name in RULES}
    switches: dict[str, list[Tensor]] = {name: [] for name in RULES}
    hidden = []
    for part in range(-(-clips // batch)):
        scenes = crossing(batch, seed + part)
        hidden.append((scenes["share"] < 0.9).double().mean())
        for name, rule in RULES.items():
            one, two = wrong(rule(scenes["looks"], scenes["present"], scenes["places"]), scenes)
            errors[name].append(one)
            switches[name].append(two)
        print(part, {name: round(float(torch.cat(e).mean()), 4) for name, e in errors.items()}, flush=True)
    table = {name: torch.cat(e).double().numpy() for name, e in errors.items()}
    count = len(table["last embedding"])
    draws = np.random.default_rng(0).integers(0, count, (4000, count))
    result: dict[str, Any] = {
        "scenes": count,
        "share of views hidden by more than a tenth": round(float(torch.stack(hidden).mean()), 3),
    }
    for name, values in table.items():
        base = table["last embedding and place" if "place" in name else "last embedding"]
        cuts = 1 - values[draws].mean(1) / np.maximum(base[draws].mean(1), 1e-9)
        result[name] = {
            "wrong identities": {k: v for k, v in summary(torch.from_numpy(values)).items() if k != "worst"},
            "switches per scene": round(float(torch.cat(switches[name]).mean()), 2),
            "fewer wrong than last embedding (paired)": {
                "share": round(float(1 - values.mean() / max(base.mean(), 1e-9)), 3),
                "interval": [round(float(q), 3) for q in np.quantile(cuts, (0.025, 0.975))],
            },
        }
    return result


def points(clips: int, seed: int) -> dict[str, Any]:
    """Error of points on textured objects carried by Lucas-Kanade, and coverage of their interval."""
    scene = random_sprites(clips, seed)
    frames, fps = photographed(scene.render().frames, seed), torch.full((clips,), 30.0)
    there, back = LucasKanade()(frames, fps).flow, LucasKanade()(frames.flip(1), fps).flow.flip(1)
    offsets = torch.tensor([[0.0, 0.0], [2.0, 0.0], [-2.0, 0.0], [0.0, 2.0], [0.0, -2.0]])
    path = scene.trajectory + offsets
    tracks = track_points(there, back, torch.cat([torch.zeros(clips, 5, 1), path[:, 0]], -1))
    error, seen = (tracks.positions - path)[:, 1:], tracks.visible[:, 1:]
    inside = (error.abs() < 1.96 * tracks.sigma[:, 1:, :, None])[seen].double().mean()
    return {
        "visible": round(float(seen.double().mean()), 3),
        "error rms of visible [px]": round(float(error[seen].square().mean().sqrt()), 3),
        "error median of visible [px]": round(float(error[seen].abs().median()), 3),
        "error median of hidden [px]": None if seen.all() else round(float(error[~seen].abs().median()), 3),
        "coverage of the 95 % interval": round(float(inside), 3),
    }


def main() -> None:
    """Measure, print, write."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--output", default="benchmarks/results/objects.json")
    options.add_argument("--only", nargs="+", default=["masks", "identity", "points", "simulated"])
    options.add_argument("--scenes", type=int, default=240, help="of the identity part")
    options.add_argument("--clips", type=int, default=24, help="per kind of scene")
    options.add_argument("--seed", type=int, default=100)
    given = options.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    output = Path(given.output)
    result: dict[str, Any] = json.loads(output.read_text()) if output.is_file() else {}
    result |= {
        "what": "objects: masks, identities, positions and points on drawn and simulated scenes",
        "command": "python benchmarks/objects.py",
        "seed": given.seed,
        "grain": GRAIN,
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "versions": {"visviva": visviva.__version__, "torch": torch.__version__},
    }
    parts = {
        "identity": lambda: identity(given.scenes, given.seed),
        "masks": lambda: masks_and_positions(given.clips, given.seed),
        "points": lambda: points(given.clips, given.seed),
        "simulated": lambda: simulated(max(4, given.clips // 4), given.seed),
    }
    for name in given.only:
        result[name] = parts[name]()
        print(name, json.dumps(result[name], indent=1), flush=True)
        output.parent.mkdir(parents=True, exist_ok=True)
        partial = output.with_name(output.name + ".tmp")
        partial.write_text(json.dumps(result, indent=1) + "\n")
        os.replace(partial, output)


if __name__ == "__main__":
    main()
