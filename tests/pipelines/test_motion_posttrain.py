"""Post-training of the motion model by laws: the residual falls, the anchor is there, every objective runs and goes on."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from tiny_motion import tiny_pipeline

from visviva.cli import main
from visviva.configs.motion import MotionRecipe
from visviva.errors import InputError
from visviva.physics.motion_laws import Liveliness, MotionTerm, MotionVerifier, Skating
from visviva.pipelines.motion.flow import MotionFlow, as_motion
from visviva.pipelines.motion.pipeline import load
from visviva.pipelines.motion.posttrain import captions, laws, posttrain, settings
from visviva.pipelines.motion.trainer import MotionTrainer, Texts


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny_pipeline(["a", "walk"]).save_pretrained(folder)
    return folder


def recipe(model, out, updates=6, lr=3e-3, **changes):
    stage = {
        "updates": updates,
        "texts": 2,
        "frames": 16,
        "sampler_steps": 3,
        "optimizer": {"lr": lr, "schedule": "constant", "warmup": 0},
        **changes,
    }
    return MotionRecipe(
        action="posttrain", files=["a walk", "walk"], model=str(model), output=str(out), posttrain=stage, sampler={"steps": 3}
    )


def test_the_law_that_is_taught_is_obeyed_more(model, tmp_path):
    out = posttrain(recipe(model, tmp_path / "out", 12, laws={"skating": 1.0}, keep=0.01))
    found = json.loads((out / "comparison.json").read_text())
    # not Euler-Lagrange: on two motions its residual jumps with the feet that stand, which carry no gradient
    assert found["skating"]["after"] < 0.7 * found["skating"]["before"]
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["update"] for row in rows] == list(range(1, 13))
    assert {"loss", "moved", "law/skating", "law/liveliness", "motion_energy", "ratio/motion_energy"} <= set(rows[0])
    assert rows[0]["ratio/motion_energy"] == pytest.approx(1.0)  # the first motions are the untouched model's
    assert json.loads((out / "recipe.json").read_text())["posttrain"]["laws"] == {"skating": 1.0}
    assert load(out / "model")(["a walk"], seconds=1.0, steps=2).joints.isfinite().all()


WEIGHTS = "model/transformer/diffusion_pytorch_model.safetensors"
OBJECTIVES = {
    "reward_backprop": {},
    "refl": {},
    "grpo": {"grpo": {"group": 3, "kl": 0.01}, "sampler_steps": 4},
    "dpo": {"candidates": 3},
    "sft": {"drawn": 3},
}


@pytest.mark.parametrize("method", OBJECTIVES)
def test_every_objective_trains_and_a_stopped_run_ends_as_an_unbroken_one(method, model, tmp_path):
    def made(folder, updates=4, **more):
        options = OBJECTIVES[method] | {"laws": {"skating": 1.0}, "save_every": 2, "method": method, **more}
        asked = recipe(model, tmp_path / folder, updates, **options)
        return posttrain(asked if method != "sft" else asked.model_copy(update={"files": []}))

    whole = made("whole")
    made("parts", updates=2)
    parts = made("parts")
    assert (whole / WEIGHTS).read_bytes() == (parts / WEIGHTS).read_bytes()
    untouched = (model / "transformer/diffusion_pytorch_model.safetensors").read_bytes()
    assert (whole / WEIGHTS).read_bytes() != untouched
    last = json.loads((whole / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["grad_norm"] > 0
    if method == "grpo":
        assert last["taught"] == 1
        assert last["reward_spread"] > 0


def test_preferred_motions_obey_the_laws_more_than_the_rejected_ones(model, tmp_path):
    asked = recipe(model, tmp_path, method="dpo", candidates=6, laws={"skating": 1.0})
    flow = MotionFlow(load(model))
    verifier = MotionVerifier([MotionTerm(Skating()), MotionTerm(Liveliness(), 2.0)])
    trainer = MotionTrainer(settings(asked), flow, Texts(["a walk", "walk"]), verifier, candidates=6)
    for entry in trainer.cache:
        better, worse = (flow.decode(x) for x in (entry["latents"], entry["losers"][0]))
        skating = [float(Skating()(x, 20.0, torch.tensor([16])).value) for x in (better, worse)]
        assert skating[0] < skating[1]
        speed = [float(x.diff(dim=1).norm(dim=-1).mean()) for x in (better, worse)]
        assert speed[0] > 0.5 * speed[1]  # not by standing still


def test_the_shipped_model_as_a_flow_is_its_pipeline():
    pipeline = load("tiny")
    flow, texts = MotionFlow(pipeline), ["a person walks forward", ""]
    wanted = pipeline(texts, seconds=1.0, fps=20.0, seeds=[5, 6], steps=5, text_guidance=2.5)
    latents = flow.sample(flow.condition(texts, frames=20), flow.noise([5, 6], 20, 1, 1), steps=5, guidance_scale=2.5)
    assert float((flow.decode(latents) - wanted.joints).abs().max()) < 5e-4  # metres; the last level, .99995, is called 1
    levels = flow.sigmas(5)
    assert levels[[0, -1]].tolist() == [1, 0]
    assert bool((levels.diff() < 0).all())
    assert flow.time(flow.levels[[0, 7, 499, 999]].float()).tolist() == [0, 7, 499, 999]


def test_a_schedule_that_clips_is_no_flow(model):
    pipeline = load(model)
    pipeline.register_modules(scheduler=type(pipeline.scheduler).from_config(pipeline.scheduler.config, clip_sample=True))
    with pytest.raises(InputError, match="clip_sample, which is no flow"):
        MotionFlow(pipeline)


def test_part_of_the_optimizer_changes_nothing_else():
    told = MotionRecipe(action="posttrain", posttrain={"optimizer": {"lr": 5e-5}}).posttrain.optimizer
    assert (told.lr, told.schedule, told.warmup) == (5e-5, "linear", 10)


def test_a_velocity_is_noise_less_the_clean_motion_at_every_level(model):
    flow = MotionFlow(load(model))
    condition = flow.condition(["a walk"], frames=16)
    x = torch.randn(1, 263, 16, 1, 1, generator=torch.Generator().manual_seed(0))
    for sigma in (0.2, 0.5, 0.9):
        v = flow.velocity(x, torch.full((1,), sigma), condition)
        clean = x - sigma * v
        scaled = as_motion(x / (sigma**2 + (1 - sigma) ** 2) ** 0.5)
        time = flow.time(torch.tensor([sigma]))
        tokens, there = condition.positive_text[:2]
        said = flow.transformer(scaled, time, tokens, there, fps=torch.tensor([20.0])).sample
        assert torch.allclose(as_motion(clean), said, atol=1e-5)
    a = flow.scheduler.alphas_cumprod[time]
    assert float(((1 - a) / a).sqrt()) == pytest.approx(0.9 / 0.1, rel=0.2)  # the nearest of 50 times


def test_a_folder_of_other_settings_is_refused(model, tmp_path):
    out = tmp_path / "out"
    posttrain(recipe(model, out, 2, laws={"skating": 1.0}))
    with pytest.raises(InputError, match=r"started with other settings: laws.skating was 1.0, now None, laws.penetration"):
        posttrain(recipe(model, out, 2, laws={"penetration": 1.0}))
    with pytest.raises(InputError, match=r"keep was 1.0, now 2.0"):
        posttrain(recipe(model, out, 2, laws={"skating": 1.0}, keep=2.0))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "sft"}, "learns from motions, not from texts alone"),
        ({"method": "grpo", "sampler_steps": 2}, r"posttrain\.sampler_steps is 2, give 3 or more"),
        ({"method": "grpo", "grpo": {"strength": 0.0}}, r"posttrain\.grpo\.strength is 0: all motions of a group"),
        ({"method": "grpo", "grpo": {"reuse": 3}}, r"posttrain\.save_every is 25 and posttrain\.grpo\.reuse 3"),
        ({"method": "grpo", "grpo": {"mimicry": 1.0}}, r"posttrain\.grpo\.mimicry learns from true clips of videos"),
        ({"grad_steps": 4}, r"posttrain\.grad_steps is 4, but the sampler has only 3 steps \(posttrain\.sampler_steps\)"),
        ({"sampler_steps": 51}, r"posttrain\.sampler_steps is 51; this model's schedule has 50"),
    ],
)
def test_what_cannot_be_trained_is_said(changes, said, model, tmp_path):
    with pytest.raises(InputError, match=said):
        posttrain(recipe(model, tmp_path / "out", **changes))


def test_a_run_that_diverges_is_said_and_writes_no_model(model, tmp_path):
    for updates in (1, 2):  # after the last update, and in the middle
        with pytest.raises(InputError, match=r"lower posttrain\.optimizer\.lr"):
            posttrain(recipe(model, tmp_path / str(updates), updates, lr=1e30, laws={"skating": 1.0}))
        assert not (tmp_path / str(updates) / "model").exists()


def test_laws_without_their_anchor_are_still_anchored_and_unknown_ones_said(model, tmp_path):
    with pytest.raises(InputError, match="liveliness"):
        posttrain(recipe(model, tmp_path / "a", laws={"skating": 1.0}, liveliness=0.0))
    with pytest.raises(InputError, match="no weight above 0"):
        posttrain(recipe(model, tmp_path / "a", laws={"skating": 0.0, "penetration": 0.0}))
    with pytest.raises(InputError, match="no law of motion 'gliding'"):
        posttrain(recipe(model, tmp_path / "b", laws={"gliding": 1.0}))


def test_texts_of_every_action_are_at_hand():
    assert len(set(captions(2))) > 20


@pytest.mark.parametrize("cheat", ["hovering", "frozen", "sliding", "sinking"])
def test_the_shipped_recipe_cannot_be_won_by_a_cheat(cheat):
    from visviva.configs.motion import MotionPosttrain
    from visviva.data.actions import draw

    stage = MotionPosttrain()
    verifier = laws(stage)
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


@pytest.mark.slow
def test_two_processes_train_as_one(model, tmp_path):
    shared = ["a walk", "walk", "--model", str(model), "--posttrain.updates", "2", "--posttrain.frames", "16"]
    shared += ["--posttrain.sampler-steps", "3", "--sampler.steps", "3", "--posttrain.optimizer.warmup", "0"]
    shared += ["--posttrain.optimizer.lr", "1e-3", "--posttrain.optimizer.options", "eps", "1e-3"]
    for count, texts in ((1, 4), (2, 2)):
        command = ["-m", "visviva", "motion", "posttrain", *shared, "--num-processes", str(count)]
        command += ["--posttrain.texts", str(texts), "--output", str(tmp_path / str(count))]
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
    one, two = (load_file(tmp_path / name / WEIGHTS) for name in ("1", "2"))
    assert all(torch.allclose(one[name], two[name], rtol=2e-4, atol=2e-6) for name in one)


def test_other_actions_run_in_one_process(capsys):
    assert main(["motion", "evaluate", "x.bvh", "--num-processes", "2"]) == 2
    assert "several processes are for motion posttrain; visviva motion evaluate runs in one" in capsys.readouterr().err
