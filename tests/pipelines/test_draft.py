"""Reward backpropagation's options on the tiny Wan: drawn truncation, detached inputs, several last steps, and refusals."""

import json
from pathlib import Path

import pytest
import torch
from posttrain_clips import FRAMES, SIZE, short_recipe, trainable

from visviva.configs import posttrain as settings
from visviva.errors import InputError
from visviva.pipelines.posttrain.batch import Batch, truth
from visviva.pipelines.posttrain.examples import Examples
from visviva.pipelines.posttrain.identity import identity
from visviva.pipelines.posttrain.reward_backprop import RewardBackprop
from visviva.pipelines.posttrain.rollout import Rollout
from visviva.pipelines.posttrain.truncation import depth
from visviva.pipelines.posttrain.verifier import build
from visviva.pipelines.posttrain.video import VideoTrainer

LAWS = [{"name": "constant_acceleration"}, {"name": "mass_conservation"}]
OPTIONS = [
    {"grad_steps": 3, "detach": True},
    {"grad_steps": 3, "truncation": "uniform"},
    {"grad_steps": 3, "truncation": "gaussian", "detach": True},
    {"noises": 3},
]


@pytest.fixture
def recipe(clips, tiny, tmp_path):
    def make(output="run", **sections):
        return short_recipe(tmp_path / output, tiny, clips, "reward_backprop", **{"max_steps": 1, **sections})

    return make


@pytest.fixture(scope="module")
def backbone():
    return trainable()


@pytest.fixture(scope="module")
def batch(backbone, clips):
    examples = Examples(settings.Data(path=str(clips), frames=FRAMES, height=SIZE, width=SIZE))
    chosen = [examples[i] for i in range(2)]
    condition = backbone.condition([e.caption for e in chosen], torch.stack([e.first_frame for e in chosen]), frames=FRAMES)
    fps = torch.tensor([e.fps for e in chosen])
    return Batch(condition, backbone.noise([0, 1], FRAMES, SIZE, SIZE), [0, 1], fps, **truth(chosen, torch.device("cpu")))


def objective(backbone, **changes):
    reward = settings.Reward(laws=[settings.Law(**law) for law in LAWS], **changes)
    rollout = Rollout(backbone, settings.Sampler(steps=3), detach=reward.detach)
    return RewardBackprop(rollout, build(reward.laws, reward.probe, backbone.vae), reward)


def gradient(backbone, loss):
    return torch.autograd.grad(loss.sum(), [parameter for _, parameter in backbone.trainable()])


def test_without_options_nothing_is_detached_drawn_or_repeated(backbone, batch):
    """Loss and gradient are, bit by bit, those of frames through the last K steps and their verdict."""
    for k in (1, 2):
        judge = objective(backbone, grad_steps=k, truncation="fixed", detach=False, noises=1)
        found, logs = judge(batch)
        latents = backbone.sample(batch.condition, batch.noise, steps=3, grad_steps=k, checkpoint=False)
        verdict, _ = judge.judge(judge.rollout.decode(latents), batch, None)
        assert torch.equal(found, verdict.loss)
        assert "grad_steps" not in logs
        for ours, plain in zip(gradient(backbone, found), gradient(backbone, verdict.loss), strict=True):
            assert torch.equal(ours, plain)


def test_detached_inputs_give_another_gradient_of_the_same_loss(backbone, batch):
    plain, detached = (objective(backbone, grad_steps=3, detach=d)(batch)[0] for d in (False, True))
    assert torch.equal(plain, detached)
    ours, full = (torch.cat([g.flatten() for g in gradient(backbone, loss)]) for loss in (detached, plain))
    assert float((ours - full).norm() / full.norm()) > 0.01
    assert float(torch.nn.functional.cosine_similarity(ours, full, dim=0)) > 0


def test_several_last_steps_are_averaged_and_their_noise_belongs_to_the_sample(backbone, batch):
    judge = objective(backbone, noises=3)
    loss, logs = judge(batch)
    latents = judge.rollout.latents(batch, 1)
    parts = [latents, *(judge.rollout.again(batch, latents, n) for n in (1, 2))]
    losses = [judge.judged(part, batch, None, False)[0] for part in parts]
    assert len({float(part[0].detach()) for part in losses}) == 3
    assert torch.equal(loss, torch.stack(losses).mean(0))
    torch.testing.assert_close(logs["reward_loss"], loss.detach())
    mean = [torch.stack(g).mean(0) for g in zip(*(gradient(backbone, part) for part in losses), strict=True)]
    for ours, wanted in zip(gradient(backbone, loss), mean, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-3, atol=1e-6)
    swapped = Batch(batch.condition[[1, 0]], batch.noise.flip(0), [1, 0], batch.fps.flip(0))
    torch.testing.assert_close(judge.rollout.again(swapped, latents.flip(0), 1), parts[1].flip(0), rtol=1e-4, atol=1e-5)


def test_the_number_of_steps_is_drawn_as_it_says():
    assert {depth("fixed", 3, 10, seed) for seed in range(20)} == {3}
    uniform = torch.tensor([depth("uniform", 4, 10, seed) for seed in range(2000)])
    for k in range(1, 5):
        assert float((uniform == k).float().mean()) == pytest.approx(0.25, abs=0.04)
    drawn = torch.tensor([depth("gaussian", 50, 50, seed) for seed in range(2000)]).double()
    # steps - int(42 + 5 z) between 1 and 49: 8.5 and 5, cut at 1 from below
    assert drawn.min() == 1
    normal = torch.distributions.Normal(42.0, 5.0)
    cuts = torch.arange(1, 50, dtype=torch.float64)
    chances = normal.cdf(cuts + 1) - normal.cdf(cuts)
    wanted = float((chances * (50 - cuts)).sum() / chances.sum())
    assert float(drawn.mean()) == pytest.approx(wanted, abs=4 * 5 / 2000**0.5)
    assert {depth("gaussian", 2, 50, seed) for seed in range(50)} == {1, 2}


@pytest.mark.parametrize("options", OPTIONS, ids=["detach", "uniform", "gaussian", "noises"])
def test_one_update_changes_the_weights_and_says_how_many_steps_it_took(recipe, options):
    made = recipe(reward={"laws": LAWS, **options}, optimizer={"lr": 1e-2})
    trainer = VideoTrainer(made)
    before = {name: weight.detach().clone() for name, weight in trainer.parameters.items()}
    trainer.run()
    assert any(not torch.equal(weight, before[name]) for name, weight in trainer.parameters.items())
    row = json.loads(Path(made.output, "metrics.jsonl").read_text().splitlines()[0])
    assert row["grad_norm"] > 0
    assert ("grad_steps" in row) == ("truncation" in options)
    if "truncation" in options:
        assert row["grad_steps"] in (1, 2, 3)


@pytest.mark.parametrize("options", [OPTIONS[1], OPTIONS[3]], ids=["uniform", "noises"])
def test_how_the_batch_is_split_does_not_change_the_update(recipe, options):
    found = []
    for size, parts in ((2, 1), (1, 2)):
        sections = {"batch_size": size, "gradient_accumulation": parts, "optimizer": {"lr": 1e-2}}
        trainer = VideoTrainer(recipe(f"{size}", reward={"laws": LAWS, **options}, **sections))
        trainer.run()
        found.append(trainer.parameters)
    for name, weight in found[0].items():
        torch.testing.assert_close(weight, found[1][name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"reward": {"detach": True}}, r"reward\.detach changes nothing"),
        ({"reward": {"truncation": "uniform"}}, r"reward\.truncation changes nothing"),
        ({"reward": {"noises": 2, "grad_steps": 2}}, r"give reward\.grad_steps: 1"),
        ({"reward": {"noises": 2}, "sampler": {"steps": 1}}, r"give sampler\.steps of 2 or more"),
        ({"reward": {"noises": 2}, "method": "refl"}, r"reward\.noises is of method reward_backprop; method is 'refl'"),
        ({"reward": {"detach": True, "grad_steps": 2}, "method": "grpo"}, r"reward\.detach is of method"),
        ({"reward": {"truncation": "gaussian", "grad_steps": 2}, "method": "sft"}, r"reward\.truncation is of method"),
    ],
)
def test_gradients_that_are_not_defined_are_refused(sections, words):
    with pytest.raises(InputError, match=words):
        settings.PosttrainRecipe.model_validate({"data": {"path": "clips"}, **sections}).check()


def test_a_run_from_before_the_options_is_continued_without_them_alone():
    base = {"data": {"path": "clips"}, "method": "reward_backprop"}
    plain = identity(settings.PosttrainRecipe.model_validate(base), 1, "", "")
    assert not any(f"reward.{name}" in plain for name in ("truncation", "detach", "noises"))
    chosen = settings.PosttrainRecipe.model_validate({**base, "reward": {"noises": 2}})
    assert identity(chosen, 1, "", "")["reward.noises"] == 2
