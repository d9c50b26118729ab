"""GRPO, ReFL, Diffusion-DPO and PhyGDPO on the tiny Wan: what they compute, that they learn, and what they refuse."""

import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from posttrain_clips import FRAMES, SIZE, dataset, falling, short_recipe, trainable

from visviva.configs import posttrain as settings
from visviva.data.dataset import write_rows
from visviva.errors import InputError
from visviva.models.attention import momentum_attention
from visviva.models.backbones.lora import load_lora
from visviva.models.backbones.tiny import tiny_wan
from visviva.models.backbones.wan import WanBackbone
from visviva.pipelines.posttrain import run
from visviva.pipelines.posttrain.batch import Batch, truth
from visviva.pipelines.posttrain.dpo import Preference
from visviva.pipelines.posttrain.examples import Examples
from visviva.pipelines.posttrain.grpo import Grpo, repeated
from visviva.pipelines.posttrain.reference import reference
from visviva.pipelines.posttrain.refl import Predicted, Refl
from visviva.pipelines.posttrain.reward_backprop import RewardBackprop
from visviva.pipelines.posttrain.rollout import Rollout
from visviva.pipelines.posttrain.sft import Sft
from visviva.pipelines.posttrain.verifier import build
from visviva.pipelines.posttrain.video import VideoTrainer


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("clips"), 4)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """True clips beside two that hang in the air: their first frame throughout, and their first frame in noise."""
    folder = tmp_path_factory.mktemp("pairs")
    rows = []
    for i in range(3):
        clip = falling(i)
        row = clip.write(folder, f"true-{i}", arrays="small")
        names = []
        for k in range(2):
            noise = torch.randn(clip.frames.shape, generator=torch.Generator().manual_seed(10 * i + k))
            held = (clip.frames[:1].expand_as(clip.frames) + 0.05 * k * noise).clamp(0, 1)
            type(clip)(held, clip.fps, caption=clip.caption).write(folder / "losers", f"{i}-{k}", arrays="none")
            names.append(f"losers/{i}-{k}.mp4")
        rows.append({**row, "losers": names, "scores": [[0.8, 0.2], [0.4, 0.1]], "scene": i})
    write_rows(folder / "metadata.jsonl", rows)
    return folder


@pytest.fixture
def recipe(clips, tiny, tmp_path):
    def make(method, path=clips, output="run", **sections):
        return short_recipe(tmp_path / output, tiny, path, method, **sections)

    return make


def batch_of(backbone, path, count=2):
    examples = Examples(settings.Data(path=str(path), frames=FRAMES, height=SIZE, width=SIZE))
    chosen = [examples[i] for i in range(count)]
    condition = backbone.condition([e.caption for e in chosen], torch.stack([e.first_frame for e in chosen]), frames=FRAMES)
    noise = backbone.noise(list(range(count)), FRAMES, SIZE, SIZE)
    fps = torch.tensor([e.fps for e in chosen])
    latents = backbone.encode(torch.stack([e.frames for e in chosen]))
    return Batch(condition, noise, list(range(count)), fps, latents=latents, **truth(chosen, torch.device("cpu")))


def judge_of(backbone, rollout=Rollout, steps=4, **options):
    laws = [settings.Law(name="constant_acceleration"), settings.Law(name="mass_conservation", weight=3.0)]
    reward = settings.Reward(laws=laws)
    made = rollout(backbone, settings.Sampler(steps=steps), **options)
    return RewardBackprop(made, build(laws, reward.probe, backbone.vae), reward)


def grpo_of(backbone, **options):
    given = {"group": 3, **options}
    return Grpo(judge_of(backbone), settings.Grpo(**given), lambda: reference(backbone.networks(), None, {}), kept=2)


def test_without_noise_the_explored_path_is_the_samplers():
    backbone = trainable()
    batch = batch_of_cached(backbone)
    objective = grpo_of(backbone, strength=0.0)
    many = repeated(batch, 3)
    with torch.no_grad():
        x = backbone.hold(many.noise, many.condition)
        for i, step in enumerate(objective.steps):
            assert step.std == 0
            x = backbone.hold(objective.mean(i, x, many), many.condition)
        wanted = backbone.sample(many.condition, many.noise, steps=4)
    assert torch.allclose(x, wanted, atol=1e-5)


_BATCH: dict[str, Batch] = {}


def batch_of_cached(backbone):
    return _BATCH["clips"]


@pytest.fixture(scope="module", autouse=True)
def one_batch(clips):
    _BATCH["clips"] = batch_of(tiny_wan("test"), clips)


def test_members_share_the_first_noise_and_differ_afterwards_and_are_reproducible():
    backbone = trainable()
    batch = batch_of_cached(backbone)
    objective = grpo_of(backbone)
    explored = objective.explore(repeated(batch, 3), None)
    first, last = (state.view(2, 3, *state.shape[1:]) for state in (explored.states[0], explored.states[-1]))
    assert torch.equal(first[:, 0], first[:, 1])
    assert not torch.allclose(last[:, 0], last[:, 1])
    again = objective.explore(repeated(batch, 3), None)
    assert torch.equal(again.states[-1], explored.states[-1])
    assert torch.allclose(explored.advantage.mean(1), torch.zeros(2), atol=1e-4)
    best = explored.loss.argmin(1)
    assert torch.equal(explored.advantage.argmax(1), best)


def test_the_gradient_is_the_policy_gradient_and_recomputation_does_not_change_it():
    backbone = trainable()
    batch = batch_of_cached(backbone)
    objective = grpo_of(backbone, trained=1.0)
    loss, logs = objective(batch)
    _, weights = zip(*backbone.trainable(), strict=True)
    found = torch.autograd.grad(loss.sum(), weights)
    many = repeated(batch, 3)
    explored = objective.explore(many, None)
    total = 0.0
    for n, i in enumerate(objective.noisy):  # - A grad log p, at a ratio of one
        level = torch.full((6,), objective.steps[i].sigma)
        v = backbone.velocity(explored.states[i], level, many.condition)
        mean = objective.steps[i].mean(explored.states[i], v)
        now = objective.steps[i].log_probability(mean, explored.states[i + 1], objective.free(many))
        assert torch.allclose(now, explored.before[n], atol=1e-5)
        total = total - (explored.advantage.flatten() * now).view(2, 3).mean(1).sum() / len(objective.noisy)
    wanted = torch.autograd.grad(total, weights)
    for a, b in zip(found, wanted, strict=True):
        assert torch.allclose(a, b, rtol=2e-3, atol=1e-6)
    assert float(logs["ratio_off"].max()) < 1e-5
    assert loss.shape == (2,)


def test_a_held_first_frame_has_no_probability():
    backbone = trainable()
    objective = grpo_of(backbone)
    free = objective.free(repeated(batch_of_cached(backbone), 3))
    assert bool((free[:, :, 1:] == 1).all())


def test_clips_are_used_again_and_the_ratio_leaves_one():
    backbone = trainable()
    batch = batch_of_cached(backbone)
    objective = grpo_of(backbone, reuse=2, trained=1.0)
    loss, _ = objective(batch)
    loss.sum().backward()
    with torch.no_grad():
        for _, weight in backbone.trainable():
            weight -= 0.05 * weight.grad.sign()
    counted = len(objective.memory)
    _, logs = objective(batch)
    assert len(objective.memory) == counted == 1
    assert float(logs["ratio_off"].max()) > 1e-4
    assert float(logs["clipped"].max()) > 0


def test_the_divergence_from_the_base_is_zero_at_the_start_and_positive_later():
    backbone = tiny_wan("test")
    backbone.transformer.requires_grad_(False)
    backbone.add_lora(2, 2)
    batch = batch_of_cached(backbone)
    _, logs = grpo_of(backbone, kl=0.1)(batch)
    assert float(logs["kl"].max()) == 0.0
    _, logs = grpo_of(trainable(), kl=0.1)(batch)
    assert float(logs["kl"].min()) > 0


def test_after_the_reference_what_was_switched_off_or_frozen_is_so_again():
    backbone = trainable()
    network = backbone.transformer
    network.add_adapter(LoraConfig(r=2, target_modules=r"blocks\.0\.attn1\.to_q"), adapter_name="other")
    network.set_adapter("default")
    frozen = [p for name, p in network.named_parameters() if "lora_A.default" in name]
    for parameter in frozen:
        parameter.requires_grad_(False)
    layers = [layer for layer in network.modules() if isinstance(layer, BaseTunerLayer)]
    layers[0].enable_adapters(False)
    gradients = {name: p.requires_grad for name, p in network.named_parameters()}
    with reference(backbone.networks(), None, {}):
        assert all(layer.disable_adapters for layer in layers)
    assert [layer.disable_adapters for layer in layers] == [True] + [False] * (len(layers) - 1)
    assert {name: p.requires_grad for name, p in network.named_parameters()} == gradients
    assert network.active_adapters() == ["default"]


def test_the_switched_off_adapter_is_the_base_bit_by_bit_and_gets_no_gradient():
    backbone, base = trainable(), tiny_wan("test")
    batch = batch_of_cached(backbone)
    level = torch.full((2,), 0.5)
    with torch.no_grad():
        wanted = base.velocity(batch.noise, level, batch.condition)
        moved = backbone.velocity(batch.noise, level, batch.condition)
    with reference(backbone.networks(), None, {}):
        found = backbone.velocity(batch.noise, level, batch.condition)
    assert torch.equal(found, wanted)
    assert not found.requires_grad
    assert not torch.allclose(moved, wanted)
    assert torch.equal(backbone.velocity(batch.noise, level, batch.condition).detach(), moved)


def test_refl_has_gradient_through_one_velocity_at_a_late_step():
    backbone = trainable()
    batch = batch_of_cached(backbone)
    rollout = Predicted(backbone, settings.Sampler(steps=8), late=0.25)
    calls = []
    plain = backbone.velocity
    backbone.velocity = lambda x, level, *rest: (
        calls.append((float(level[0]), torch.is_grad_enabled())),
        plain(x, level, *rest),
    )[1]
    latents = rollout.latents(batch, 1)
    assert latents.requires_grad
    assert [graph for _, graph in calls] == [False] * (len(calls) - 1) + [True]
    assert len(calls) in (7, 8)
    backbone.velocity = plain
    judge = judge_of(backbone, Predicted, late=0.5)
    loss, logs = Refl(judge, settings.Refl(weight=0.5, good=0.0))(batch)
    assert torch.allclose(loss, 0.5 * logs["reward_loss"])
    left_alone, _ = Refl(judge, settings.Refl(good=1e9))(batch)
    assert not bool(left_alone.any())


def test_preferences_start_at_log_two_and_learn_the_order(recipe, pairs):
    for method in ("dpo", "phygdpo"):
        made = recipe(
            method, pairs, output=method, max_steps=30, batch_size=2, optimizer={"lr": 5e-3}, preference={"beta": 200.0}
        )
        run(made)
        rows = [json.loads(line) for line in Path(made.output, "metrics.jsonl").read_text().splitlines()]
        losses = [row["loss"] for row in rows]
        if method == "dpo":
            assert losses[0] == pytest.approx(0.6931472, rel=1e-4)
        else:  # two losers, gamma between those of difficulties 0.5 and 0.75
            assert 2 * 2.65 * 0.6931472 < losses[0] < 2 * 2.81 * 0.6931472
        assert sum(losses[-5:]) / 5 < 0.9 * losses[0]
        assert sum(row["accuracy"] for row in rows[-5:]) / 5 > 0.9


def test_phygdpo_needs_scores_and_dpo_pairs(recipe, pairs, clips):
    backbone = trainable()
    batch = batch_of_cached(backbone)
    objective = Preference(Sft(backbone, settings.Sft()), settings.Preference(), lambda: reference({}, None, {}), guided=True)
    with pytest.raises(InputError, match="'losers'"):
        objective(batch)
    with pytest.raises(InputError, match="'losers'"):
        run(recipe("dpo", clips))


def test_runs_of_every_method_end_and_resume_to_the_same_weights(recipe, pairs, clips):
    for method in ("grpo", "refl", "phygdpo"):
        path = pairs if method == "phygdpo" else clips
        options = {"max_steps": 4, "save_every": 2, "optimizer": {"lr": 1e-2}, "grpo": {"group": 2, "reuse": 2}}
        whole = VideoTrainer(recipe(method, path, output=f"{method}-whole", **options))
        whole.run()
        VideoTrainer(recipe(method, path, output=f"{method}-parts", **{**options, "max_steps": 2})).run()
        parts = VideoTrainer(recipe(method, path, output=f"{method}-parts", **options))
        assert parts.step == 2
        parts.run()
        for name, weight in whole.parameters.items():
            assert torch.equal(weight, parts.parameters[name]), (method, name)


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"method": "grpo", "grpo": {"reuse": 3}, "save_every": 50}, "multiple"),
        ({"method": "grpo", "grpo": {"reuse": 2}, "save_every": 2, "max_steps": 3}, "max_steps is 3 and grpo.reuse 2"),
        ({"method": "grpo", "grpo": {"strength": 0.0}}, "grpo.strength is 0"),
        ({"method": "grpo", "sampler": {"steps": 2}}, "3 or more"),
        ({"method": "dpo", "data": {"prompts": "p.jsonl"}}, "data.path"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(sections, words):
    base = {"data": {"path": "clips"}}
    with pytest.raises(InputError, match=words):
        settings.PosttrainRecipe.model_validate({**base, **sections}).check()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"losers": "one.mp4"}, "a list of video files"),
        ({"losers": []}, "a list of video files"),
        ({"scores": [[0.5, 5.0], [0, 0]]}, r"\[0, 1\]"),
        ({"scores": [[0.5, 0.5]]}, "each of 2 losers"),
        ({"scores": ["good", "bad"]}, "no list of pairs"),
        ({"losers": ["losers/nothing.mp4"]}, "nothing.mp4"),
    ],
)
def test_pairs_that_are_none_are_refused(pairs, change, words, tmp_path):
    rows = [json.loads(line) for line in (pairs / "metadata.jsonl").read_text().splitlines()]
    for name in pairs.iterdir():
        if name.name != "metadata.jsonl":
            (tmp_path / name.name).symlink_to(name)
    write_rows(tmp_path / "metadata.jsonl", [{**row, **change} for row in rows])
    with pytest.raises(InputError, match=words):
        Examples(settings.Data(path=str(tmp_path), frames=FRAMES, height=SIZE, width=SIZE))[0]


@pytest.mark.parametrize("learned", [False, True])
def test_momentum_attention_is_trained_saved_and_put_back(recipe, clips, tiny, learned):
    attention = {"kind": "momentum", "gamma": 0.0 if learned else 0.4, "learned": learned, "sides": "k"}
    made = recipe("sft", clips, max_steps=3, optimizer={"lr": 1e-2}, attention=attention, ema={"schedule": "none"})
    trainer = VideoTrainer(made)
    result = trainer.run()
    strengths = [name for name in trainer.parameters if name.endswith("gamma")]
    assert bool(strengths) == learned
    if learned:
        assert all(bool(trainer.parameters[name].any()) for name in strengths)
    batch, level = batch_of_cached(trainer.backbone), torch.full((2,), 0.5)
    again = WanBackbone.load(str(tiny))
    load_lora(again, result.weights)
    with torch.no_grad():
        wanted = trainer.backbone.velocity(batch.noise, level, batch.condition)
        assert torch.allclose(again.velocity(batch.noise, level, batch.condition), wanted, atol=1e-6)
    plain = WanBackbone.load(str(tiny))
    plain.pipeline.load_lora_weights(str(result.weights))  # diffusers alone knows no momentum
    with torch.no_grad():
        assert not torch.allclose(plain.velocity(batch.noise, level, batch.condition), wanted, atol=1e-6)


def test_preferences_train_all_weights_too(recipe, pairs):
    trainer = VideoTrainer(recipe("dpo", path=pairs, weights="full"))
    before = {name: parameter.detach().clone() for name, parameter in trainer.parameters.items()}
    trainer.run()
    assert any(not torch.equal(parameter, before[name]) for name, parameter in trainer.parameters.items())
    with trainer.reference():
        assert all(torch.equal(parameter, before[name]) for name, parameter in trainer.parameters.items())


@pytest.mark.parametrize(("method", "more"), [("dpo", {}), ("grpo", {"grpo": {"group": 2, "kl": 0.1}})])
def test_the_reference_of_learned_momentum_keeps_its_first_strengths(recipe, pairs, method, more):
    momentum = {"kind": "momentum", "learned": True, "gamma": 0.2}
    trainer = VideoTrainer(recipe(method, path=pairs, attention=momentum, **more))
    names = [name for name in trainer.parameters if name.endswith("gamma")]
    with torch.no_grad():
        for name in names:
            trainer.parameters[name].fill_(0.7)
    with trainer.reference():
        assert all(torch.allclose(trainer.parameters[name], torch.tensor(0.2)) for name in names)
    assert names
    assert all(float(trainer.parameters[name].detach()[0]) == pytest.approx(0.7) for name in names)


def test_losers_that_show_the_winner_are_refused(recipe, pairs, tmp_path):
    clip = falling(0)
    row = clip.write(tmp_path / "tied", "true", arrays="small")
    clip.write(tmp_path / "tied", "again", arrays="none")
    write_rows(tmp_path / "tied" / "metadata.jsonl", [{**row, "losers": ["again.mp4"], "scene": 0}])
    with pytest.raises(InputError, match=r"'again\.mp4' shows the same frames"):
        run(recipe("dpo", path=tmp_path / "tied"))
    with pytest.raises(InputError, match=r"no 'leest'; did you mean 'least'"):
        run(recipe("phygdpo", path=pairs, preference={"weights": {"leest": 1.0}}))


def test_groups_are_asked_for_the_gate_and_pixels_that_are_none_end_the_run(recipe, clips):
    made = recipe("grpo", monitor={"every": 1})
    trainer = VideoTrainer(made)
    trainer.run()
    row = json.loads((Path(made.output) / "metrics.jsonl").read_text().splitlines()[0])
    assert row["disagreement"] > 0
    assert row["ratio/disagreement"] > 0
    with torch.no_grad():
        next(trainer.backbone.vae.decoder.parameters()).fill_(float("nan"))
    with pytest.raises(InputError, match="NaN or infinite pixels"):
        trainer.update(2)


def test_momentum_stands_beside_adapters_that_are_saved_and_loaded_by_hand(tmp_path):
    backbone = tiny_wan("test")
    backbone.add_lora(2)
    for processor in momentum_attention(backbone.transformer, 0.2, learned=True):
        torch.nn.init.constant_(processor.gamma, 0.4)
    keys = backbone.save_lora(tmp_path)
    for path in (tmp_path, tmp_path / "pytorch_lora_weights.safetensors"):
        other = tiny_wan("test")
        adapters = load_lora(other, path)
        strengths = [p for name, p in other.transformer.named_parameters() if name.endswith("gamma")]
        assert adapters + len(strengths) == keys
        assert all(torch.equal(p, torch.full_like(p, 0.4)) for p in strengths)
        assert strengths
    with pytest.raises(InputError, match="plain_attention"):
        load_lora(other, tmp_path)


def test_momentum_in_a_whole_pipeline_is_refused(recipe, clips):
    with pytest.raises(InputError, match=r"attention\.kind momentum"):
        run(recipe("sft", clips, attention={"kind": "momentum", "gamma": 0.2}, weights="full"))


@pytest.mark.parametrize("method", ["grpo", "refl"])
def test_how_the_batch_is_split_does_not_change_the_run(recipe, clips, method):
    """What is drawn per update is drawn by the update, not by whoever is first in a micro-batch."""
    options = {"max_steps": 2, "optimizer": {"lr": 1e-2}, "sampler": {"steps": 4}, "grpo": {"group": 2, "trained": 0.4}}
    found = []
    for size, parts in ((2, 1), (1, 2)):
        trainer = VideoTrainer(
            recipe(method, clips, output=f"{size}", batch_size=size, **{**options, "gradient_accumulation": parts})
        )
        trainer.run()
        found.append({name: weight.detach().clone() for name, weight in trainer.parameters.items()})
    for name, weight in found[0].items():
        assert torch.allclose(weight, found[1][name], rtol=1e-3, atol=1e-5), name
