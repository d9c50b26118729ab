"""The force law in a recipe: what force prompts command of each object, and what is refused where nothing is commanded."""

import json

import pytest
import torch
from posttrain_clips import dataset, lines, short_recipe

from visviva.data.dataset import write_rows
from visviva.data.scenes import simulate
from visviva.errors import InputError
from visviva.models.control import read_forces
from visviva.physics import Measurement
from visviva.physics.laws import ForceResponse
from visviva.pipelines.posttrain import run
from visviva.pipelines.posttrain.commanded import force_of, forces_of
from visviva.pipelines.posttrain.examples import Example

FORCES = ["point:x=0.3,y=0.8,angle=0,magnitude=0.5"]


def example(clip):
    forces = read_forces(clip.meta["forces"], "clip")
    return Example("", clip.fps, frames=clip.frames, masks=clip.masks, forces=forces, row=clip.meta)


@pytest.fixture(scope="module")
def pushed():
    return [example(clip) for clip in simulate(["push", "push_two"], n=12, seed=3, height=64, width=64, flow=False)]


def test_simulated_pushes_obey_the_law_with_what_their_prompts_command(pushed):
    judged = 0
    for one in pushed:
        seen = Measurement(fps=torch.tensor([one.fps]), masks=one.masks[None].float(), force=force_of(one)[None])
        true = ForceResponse()(seen)
        assert bool(true.valid) == bool(one.forces)
        if one.forces:
            judged += 1
            assert float(true.value) < 0.01
            back = ForceResponse()(seen.with_(force=-seen.force))
            assert float(back.value) > 0.99
    assert judged >= 8


def test_strengths_of_several_pushes_and_masses_count(pushed):
    two = next(one for one in pushed if len(one.forces) == 2)
    force = force_of(two)
    newtons, masses = (torch.tensor(x) for x in (two.row["newtons"], [two.row["mass_0"], two.row["mass_1"]]))
    assert torch.allclose(force.norm(dim=-1)[:2], newtons / masses, rtol=1e-4)
    unknown = Example("", two.fps, masks=two.masks, forces=two.forces)
    assert force_of(unknown) is None
    assert forces_of([two, unknown]) is None


def test_what_is_commanded_of_a_batch_is_padded_to_the_most_objects(pushed):
    found = forces_of(pushed)
    most = max(one.masks.shape[1] for one in pushed)
    assert found.shape == (len(pushed), most, 2)
    few = next(i for i, one in enumerate(pushed) if one.masks.shape[1] < most)
    assert not bool(found[few, pushed[few].masks.shape[1] :].any())
    assert force_of(Example("", 8.0, masks=pushed[0].masks, forces=[])).tolist() == [[0.0, 0.0]] * pushed[0].masks.shape[1]
    assert force_of(Example("", 8.0, forces=pushed[1].forces)) is None


REWARD = {"laws": [{"name": "force_response"}], "mask_source": "track"}


def test_a_recipe_trains_against_it(tiny, tmp_path):
    clips = dataset(tmp_path / "clips", 2)
    rows = [json.loads(line) for line in (clips / "metadata.jsonl").read_text().splitlines()]
    write_rows(clips / "metadata.jsonl", [{**row, "forces": FORCES} for row in rows])
    recipe = short_recipe(tmp_path / "run", tiny, clips, "reward_backprop", reward=REWARD)
    run(recipe)
    assert all(0 <= row["law/force_response"] <= 1 for row in lines(tmp_path / "run"))
    assert all(row["grad_norm"] > 0 for row in lines(tmp_path / "run"))


@pytest.mark.parametrize(
    ("reward", "words"),
    [({}, "has none"), ({"mask_source": "motion"}, "track or truth"), ({"window": {"frames": 5}}, "window.frames")],
)
def test_what_gives_no_commanded_forces_is_refused(reward, words, tiny, tmp_path):
    recipe = short_recipe(
        tmp_path / "run", tiny, dataset(tmp_path / "clips", 2), "reward_backprop", reward={**REWARD, **reward}
    )
    with pytest.raises(InputError, match=words):
        run(recipe)
