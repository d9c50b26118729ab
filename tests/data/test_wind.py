"""Things in the wind: they lean as closed forms say, mirror with the wind, rest without it, and clips say what blows."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from visviva.configs.simulate import SimulateRecipe
from visviva.data.dataset import ClipDataset
from visviva.data.scenes import cloth, simulate, stalks
from visviva.data.scenes.simulation import Shot, plan
from visviva.data.scenes.wind import FULL, RATIO, WINDS, Breeze, Soft, sample_wind
from visviva.errors import InputError
from visviva.models.control import Wind, read_forces
from visviva.physics.quiet import quiet
from visviva.pipelines.simulate import run


def scene(kind: str, thing: Soft, angle: float, speed: float):
    return dataclasses.replace(sample_wind(kind, 0, 0), soft=(thing,), wind=Breeze(angle, speed))


def thing(kind: str, root=(0.0, 0.0, 1.5), size=(0.6, 0.5), turn=0.0, held="") -> Soft:
    return Soft(kind, root, size, turn, held, sample_wind(kind, 0, 0).soft[0].texture)


def test_a_hanging_cloth_and_a_hanging_ball_lean_by_drag_over_weight():
    speed = 0.25
    sheet = thing("flag", size=(0.3, 0.8), turn=math.pi / 2, held="top")  # a banner, edge-on, held along its top
    ball = thing("hanging_ball", size=(0.8, 0.15))
    with quiet():
        scenes = [scene("flag", sheet, 0.0, speed), scene("hanging_ball", ball, 30.0, speed)]
        (banner,), (weight,) = cloth.move(scenes, 9, seconds=4.0)
    low = banner[-1][-4:].mean(0) - [0.0, 0.0, 1.5]
    assert math.atan2(low[0], -low[2]) == pytest.approx(math.atan(RATIO["flag"] * speed), rel=0.03)
    pull, angle = RATIO["hanging_ball"] * speed, math.radians(30)
    place = weight[-1, -1] - [0.0, 0.0, 1.5]
    assert math.atan2(place[0], -place[2]) == pytest.approx(
        math.atan2(pull * math.cos(angle), 1 - pull * math.sin(angle)), rel=0.02
    )
    assert np.linalg.norm(place) == pytest.approx(0.8, rel=0.02)


def test_a_stalk_bends_as_a_cantilever_that_carries_its_blossom(monkeypatch):
    monkeypatch.setattr(stalks, "DAMPING", 0.15)  # it comes to rest sooner, in the same place
    monkeypatch.setattr(stalks, "STEP", 1 / 256)
    stalk, speed = thing("plant", root=(0.0, 0.0, 0.0), size=(1.1, 0.15)), 0.02
    with quiet():
        tip = stalks.move([scene("plant", stalk, 0.0, speed)], 5, seconds=2.0)[0][0][-1, -1]
    length, b = stalk.size[0], stalks.rigidity(stalk)
    share = RATIO["plant"] * 9.81 * speed
    bend = share * (stalks.LINE * length**4 / 8 + stalks.blossom(stalk) * length**3 / 3) / b
    # weight makes it lean further: the beam's buckling load by the blossom and a third of the stalk
    weight = 9.81 * (stalks.blossom(stalk) + 0.3 * stalks.LINE * length)
    assert tip[0] == pytest.approx(bend / (1 - weight / (math.pi**2 * b / (4 * length**2))), rel=0.05)


def test_the_mirrored_wind_gives_the_mirrored_motion_and_none_gives_none():
    stalk = thing("plant", root=(0.0, 0.0, 0.0), size=(1.0, 0.15))
    sheet = thing("flag", size=(0.3, 0.6), turn=math.pi / 2, held="top")
    winds = [(30.0, 0.8), (150.0, 0.8), (0.0, 0.0)]
    with quiet():
        plants = [found[0] for found in stalks.move([scene("plant", stalk, *w) for w in winds], 9)]
        sheets = [found[0] for found in cloth.move([scene("flag", sheet, *w) for w in winds], 9)]
    for right, left, still in (plants, sheets):
        moved = [(x[-1].mean(0) - x[0].mean(0)) for x in (right, left, still)]
        assert moved[0][0] > 0.1
        assert moved[1][0] == pytest.approx(-moved[0][0], rel=0.05)
        assert moved[1][2] == pytest.approx(moved[0][2], rel=0.1, abs=5e-3)
        assert np.abs(moved[2]).max() < 5e-3


@pytest.fixture(scope="module")
def clips():
    return simulate(WINDS, n=4, seed=3, height=48, width=48)


def test_clips_say_what_blows_and_their_truths_agree(clips):
    for clip in clips:
        (wind,) = read_forces(clip.meta["forces"], "clip")
        assert isinstance(wind, Wind)
        assert clip.frames.shape == (17, 3, 48, 48)
        assert clip.caption == "wind blows, view 2.40 m"
        assert bool(clip.visible[0].all())
        moved = (clip.trajectory[-1] - clip.trajectory[0]).mean(0)
        if wind.speed > 0.3 and abs(math.cos(math.radians(wind.angle))) > 0.5:
            assert float(moved[0]) * math.cos(math.radians(wind.angle)) > 0
        assert float(clip.flow_valid[clip.masks[:-1].any(1)].float().mean()) > 0.5


def test_cloth_stays_whole_in_full_wind():
    with quiet():
        scenes = [
            dataclasses.replace(sample_wind(k, 77, i), wind=Breeze(135.0, 1.0)) for k in ("flag", "pennant") for i in (0, 1)
        ]
        for one, paths in zip(scenes, cloth.move(scenes, 5), strict=True):
            for part, path in zip(one.soft, paths, strict=True):
                assert np.linalg.norm(path - np.array(part.root), axis=-1).max() < 1.2 * math.hypot(*part.size)


def test_the_flow_of_a_ball_is_the_way_of_its_centre(clips):
    clip = clips[3]
    way = (clip.trajectory[1:] - clip.trajectory[:-1])[:, 0]
    for t in range(16):
        flow = clip.flow[t][:, clip.masks[t, 0]].mean(1)
        assert flow.tolist() == pytest.approx(way[t].tolist(), abs=0.05)
    assert float(way.norm(dim=-1).max()) > 0.3


def test_a_clip_depends_on_no_other_and_a_longer_one_is_the_same_in_froude_scale(clips):
    alone = simulate("flag", n=1, seed=3, height=48, width=48)[0]
    assert torch.equal(alone.frames, clips[0].frames)
    slow = simulate("flag", n=1, seed=3, height=48, width=48, fps=16.0)[0]
    assert torch.equal(slow.frames, alone.frames)
    assert torch.allclose(slow.states["position"], 4 * alone.states["position"])
    assert torch.allclose(slow.states["velocity"], 2 * alone.states["velocity"])


def test_a_primitive_named_twice_goes_on_counting(tmp_path):
    slots = sorted(s for part in plan(Shot(), ["push", "flag", "push", "plant"], range(8), 4) for s in part)
    assert [k for _, name, k in slots if name == "push"] == [0, 1, 2, 3]
    assert [k for _, name, k in slots if name == "plant"] == [0, 1]
    settings = {"primitives": ["plant"], "height": 32, "width": 32, "arrays": "small", "workers": 1}
    dataset = ClipDataset(run(SimulateRecipe(output=str(tmp_path / "out"), clips=2, **settings)))
    assert dataset.rows[1]["forces"][0].startswith("wind:angle=")
    assert dataset[0].masks is not None


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(InputError, match="kinds are flag, plant, pennant, hanging_ball"):
        sample_wind("kite", 0, 0)
    with pytest.raises(InputError, match="take warp"):
        simulate("flag", n=1, renderer="blender")
    assert np.linalg.norm(Breeze(90.0, 0.5).velocity - [0.0, 0.0, FULL / 2]) < 1e-12
