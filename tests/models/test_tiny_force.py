"""The shipped force control: its files are whole, a ball goes where it is pushed, further when pushed harder, and flags and
things that it never saw lean as the wind blows."""

import hashlib
import json
import math
from dataclasses import replace

import pytest
import torch

from visviva.data.scenes import simulate
from visviva.models.backbones.lora import SHIPPED, load_lora
from visviva.models.backbones.wan import WanBackbone
from visviva.models.control import Point, Wind, read_forces, table
from visviva.models.probes import TrackedMasks
from visviva.physics.kinematics import centroids


def test_the_files_are_the_listed_ones_and_small():
    lines = [line.split("  ") for line in (SHIPPED / "SHA256SUMS").read_text().splitlines()]
    assert {name for _, name in lines} == {file.name for file in SHIPPED.iterdir()} - {"SHA256SUMS"}
    for digest, name in lines:
        assert hashlib.sha256((SHIPPED / name).read_bytes()).hexdigest() == digest
    assert sum(file.stat().st_size for file in SHIPPED.iterdir()) < 3.5e6
    assert json.loads((SHIPPED / "recipe.json").read_text())["control"]["kind"] == "force"


@pytest.mark.slow
@torch.no_grad()
def test_a_ball_goes_where_it_is_pushed_and_further_when_pushed_harder():
    clip = next(c for c in simulate("push", n=12, seed=5, flow=False, objects=1) if c.meta["forces"] and c.meta["mass_0"] == 1)
    (given,) = read_forces(clip.meta["forces"], "clip")
    backbone = WanBackbone.load("tiny")
    load_lora(backbone, "tiny-force")
    pushes = [[Point(given.x, given.y, given.angle, m)] for m in (0.0, 0.5)] + [[]]
    condition = backbone.condition([clip.caption] * 3, clip.frames[:1].expand(3, -1, -1, -1))
    condition = replace(condition, forces=torch.stack([table(forces) for forces in pushes]))
    frames = backbone.decode(backbone.sample(condition, backbone.noise([1] * 3, 17, 64, 64), steps=8), clamp="hard")
    centres, _ = centroids(TrackedMasks()(frames, clip.masks[None, :1].float().expand(3, -1, -1, -1, -1)))
    moved = centres[:, -1, 0] - centres[:, 0, 0]
    way = torch.tensor([math.cos(math.radians(given.angle)), -math.sin(math.radians(given.angle))])
    along, still = moved @ way, float(moved[2].norm())
    assert float(along[1]) > float(along[0]) + 2 > 3
    assert still < 1.5
    assert float(along[1]) > 0.94 * float(moved[1].norm())  # within 20 degrees


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["flag", "hanging_ball"])
@torch.no_grad()
def test_things_in_the_wind_go_where_it_blows_seen_or_not(kind):
    (clip,) = simulate(kind, n=1, seed=77, flow=False, objects=1)
    backbone = WanBackbone.load("tiny")
    load_lora(backbone, "tiny-force")
    winds = [[Wind(0, 0.75)], [Wind(180, 0.75)], []]
    condition = backbone.condition([clip.caption] * 3, clip.frames[:1].expand(3, -1, -1, -1))
    condition = replace(condition, forces=torch.stack([table(forces) for forces in winds]))
    frames = backbone.decode(backbone.sample(condition, backbone.noise([1] * 3, 17, 64, 64), steps=4), clamp="hard")
    centres, _ = centroids(TrackedMasks()(frames, clip.masks[None, :1].float().expand(3, -1, -1, -1, -1)))
    right, left, still = (centres[:, -1, 0] - centres[:, 0, 0])[:, 0].tolist()
    assert right > 2
    assert left < -2
    assert abs(still) < 2
