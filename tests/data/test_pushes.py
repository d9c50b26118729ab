"""Pushed balls: they go as far as the closed form says, the others stay, and the clip says what pushed it."""

import math

import numpy as np
import pytest
import torch

from visviva.configs.simulate import SimulateRecipe
from visviva.data.dataset import ClipDataset
from visviva.data.scenes import simulate
from visviva.data.scenes.push import FORCE, MASSES, distance, sample_push
from visviva.errors import InputError
from visviva.models.control import Point, read_forces
from visviva.pipelines.simulate import run


@pytest.fixture(scope="module")
def clips():
    return simulate("push", n=24, seed=3, height=48, width=48, flow=False)


def test_a_pushed_ball_goes_as_far_as_newton_says_and_the_others_stay(clips):
    pushed = [clip for clip in clips if clip.meta["forces"]]
    assert len(pushed) >= 16
    for clip in clips:
        way = (clip.states["position"][-1] - clip.states["position"][0]).double()
        first = 0
        if clip.meta["forces"]:
            (force,) = read_forces(clip.meta["forces"], "clip")
            assert isinstance(force, Point)
            wanted = distance(force.magnitude, clip.meta["mass_0"])
            assert float(way[0].norm()) == pytest.approx(wanted, rel=3e-3)
            assert math.degrees(math.atan2(way[0, 2], way[0, 0])) % 360 == pytest.approx(force.angle, abs=0.1)
            first = 1
        assert float(way[first:].norm()) < 1e-3


def test_the_stated_point_lies_on_the_ball_and_the_ball_stays_in_the_picture(clips):
    for clip in clips:
        assert bool(clip.visible.all())
        assert clip.frames.shape == (17, 3, 48, 48)
        for force in read_forces(clip.meta["forces"], "clip"):
            x, y = int(force.x * 48), int((1 - force.y) * 48)
            assert bool(clip.masks[0, 0, y, x])


def test_no_balls_ever_touch():
    scene = next(s for s in (sample_push("push_two", 1, i) for i in range(50)) if len(s.bodies) == 3)
    a, b = (scene.pushes[k] for k in (0, 1))
    assert a.body == 0
    assert b.body == 1
    moves = [distance(p.magnitude, scene.numbers[f"mass_{p.body}"]) for p in (a, b)]
    ways = [
        m * np.array([math.cos(math.radians(p.angle)), math.sin(math.radians(p.angle))])
        for m, p in zip(moves, (a, b), strict=True)
    ]
    places = [np.array([body.position[0], body.position[2]]) for body in scene.bodies]
    for share in np.linspace(0, 1, 9):
        now = [places[0] + share * ways[0], places[1] + share * ways[1], places[2]]
        gaps = [np.linalg.norm(now[i] - now[j]) for i in range(3) for j in range(i)]
        assert min(gaps) > 2.2 * scene.bodies[0].size[0]


def test_distance_is_affine_in_the_force_and_inverse_to_the_mass():
    steps = np.diff([distance(m, 1.0) for m in (0.0, 0.25, 0.5)])
    assert steps[0] == pytest.approx(steps[1])
    assert distance(0.0, 1.0) / steps[0] == pytest.approx(FORCE[0] / (0.25 * (FORCE[1] - FORCE[0])))
    assert [distance(1.0, m) * m for m in MASSES] == pytest.approx([distance(1.0, 1.0)] * len(MASSES))


def test_a_folder_of_pushes_is_a_data_set_with_forces(tmp_path):
    recipe = SimulateRecipe(
        output=str(tmp_path / "out"), clips=3, primitives=["push"], height=32, width=32, arrays="small", workers=1
    )
    dataset = ClipDataset(run(recipe))
    assert all(isinstance(row["forces"], list) for row in dataset.rows)
    assert torch.isfinite(dataset[0].frames).all()
    assert dataset[0].caption.startswith("force at a point of a ball")


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(InputError, match="two pushes need two balls"):
        sample_push("push_two", 0, 0, objects=1)
    with pytest.raises(InputError, match="kinds are push, push_two"):
        sample_push("shove", 0, 0)
