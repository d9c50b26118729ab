"""Post-training of the motion model by laws: the residual falls, the anchor is there, a finished run is left alone."""

from __future__ import annotations

import json

import pytest
import torch
from tiny_motion import tiny_pipeline

from visviva.configs.motion import MotionRecipe
from visviva.errors import InputError
from visviva.physics.motion_laws import Liveliness, MotionTerm, MotionVerifier
from visviva.pipelines.motion.pipeline import load
from visviva.pipelines.motion.posttrain import captions, posttrain
from visviva.pipelines.motion.steering import verifier_of


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny_pipeline(["a", "walk"]).save_pretrained(folder)
    return folder


def recipe(model, out, updates=6, **changes):
    stage = {"updates": updates, "texts": 2, "frames": 16, "sampler_steps": 3, "lr": 3e-3, **changes}
    return MotionRecipe(
        action="posttrain", files=["a walk", "walk"], model=str(model), output=str(out), posttrain=stage, sampler={"steps": 3}
    )


def test_the_law_that_is_taught_is_obeyed_more(model, tmp_path):
    out = posttrain(recipe(model, tmp_path / "out", 12, laws={"skating": 1.0}, keep=0.01))
    found = json.loads((out / "comparison.json").read_text())
    # not Euler-Lagrange: on two motions its residual jumps with the feet that stand, which carry no gradient
    assert found["skating"]["after"] < 0.7 * found["skating"]["before"]
    rows = [json.loads(line) for line in (out / "posttrain.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert set(rows[0]) == {"step", "loss", "moved", "skating", "liveliness"}
    assert load(out / "model")(["a walk"], seconds=1.0, steps=2).joints.isfinite().all()


def test_the_same_seed_gives_the_same_model_and_a_finished_run_is_not_trained_anew(model, tmp_path):
    whole = posttrain(recipe(model, tmp_path / "whole", 4, laws={"skating": 1.0}))
    half = recipe(model, tmp_path / "half", 4, laws={"skating": 1.0})
    posttrain(half)
    weights = "model/transformer/diffusion_pytorch_model.safetensors"
    again = posttrain(half)  # finished: nothing is trained anew
    assert (whole / weights).read_bytes() == (again / weights).read_bytes()


def test_a_folder_of_other_settings_is_refused(model, tmp_path):
    out = tmp_path / "out"
    posttrain(recipe(model, out, 2, laws={"skating": 1.0}))
    with pytest.raises(InputError, match=r"begun with other settings \(laws: .*skating.* there, .*penetration.* now\)"):
        posttrain(recipe(model, out, 2, laws={"penetration": 1.0}))
    with pytest.raises(InputError, match="updates: 2 there, 3 now"):
        posttrain(recipe(model, out, 3, laws={"skating": 1.0}))


def test_a_run_that_diverges_is_said_and_writes_no_model(model, tmp_path):
    with pytest.raises(InputError, match=r"lower posttrain.lr"):
        posttrain(recipe(model, tmp_path / "out", 1, laws={"skating": 1.0}, lr=1e30))
    assert not (tmp_path / "out" / "model").exists()


def test_laws_without_their_anchor_are_still_anchored_and_unknown_ones_said(model, tmp_path):
    with pytest.raises(InputError, match="liveliness"):
        posttrain(recipe(model, tmp_path / "a", laws={"skating": 1.0}, liveliness=0.0))
    with pytest.raises(InputError, match="no law of motion 'gliding'"):
        posttrain(recipe(model, tmp_path / "b", laws={"gliding": 1.0}))


def test_texts_of_every_action_are_at_hand():
    assert len(set(captions(2))) > 20


@pytest.mark.parametrize("cheat", ["hovering", "frozen", "sliding", "sinking"])
def test_the_shipped_recipe_cannot_be_won_by_a_cheat(cheat):
    from visviva.configs.motion import MotionPosttrain
    from visviva.data.actions import draw

    stage = MotionPosttrain()
    verifier = MotionVerifier([*verifier_of(stage.laws).terms, MotionTerm(Liveliness(), stage.liveliness)])
    walk = draw(["walk"] * 4, seed=3, fps=20.0, seconds=2.0).joints
    time = torch.arange(walk.shape[1])[:, None, None] / 20.0
    cheats = {
        "hovering": walk + torch.tensor([0.0, 0.0, 0.4]),
        "frozen": walk[:, :1].expand_as(walk),
        "sliding": walk + time * torch.tensor([1.0, 0.0, 0.0]),
        "sinking": walk - torch.tensor([0.0, 0.0, 0.1]),
    }
    honest, found = (verifier(x, 20.0, reference=walk).loss for x in (walk, cheats[cheat]))
    assert bool((found > honest + 0.2).all()), (honest, found)
