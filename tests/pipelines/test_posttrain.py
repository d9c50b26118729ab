"""The trainer in one process: gradients, objectives, exports, monitors, and every bad input as one sentence."""

import json
from pathlib import Path

import pytest
import torch
from posttrain_clips import FRAMES, SIZE, dataset, falling

from visviva.configs import posttrain as settings
from visviva.configs.schema import load
from visviva.errors import InputError
from visviva.models.backbones.tiny import tiny_wan
from visviva.pipelines.posttrain import run
from visviva.pipelines.posttrain.batch import Batch, truth
from visviva.pipelines.posttrain.examples import Examples
from visviva.pipelines.posttrain.monitor import Collapse, Monitor
from visviva.pipelines.posttrain.reward_backprop import RewardBackprop, iou
from visviva.pipelines.posttrain.rollout import Rollout
from visviva.pipelines.posttrain.schedule import learning_rate
from visviva.pipelines.posttrain.sft import Sft
from visviva.pipelines.posttrain.verifier import build, object_masks
from visviva.pipelines.posttrain.video import VideoTrainer


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return dataset(tmp_path_factory.mktemp("clips"))


@pytest.fixture
def recipe(clips, tiny, tmp_path):
    """Return a function that builds a small recipe with changes by dotted key."""

    def make(**changes):
        base = {
            "output": str(tmp_path / "run"), "model": {"path": str(tiny), "device": "cpu"}, "trackers": [], "max_steps": 2,
            "data": {"path": str(clips), "frames": FRAMES, "height": SIZE, "width": SIZE}, "sampler": {"steps": 2},
            "lora": {"rank": 2, "alpha": 2}, "validation": {"every": 0}, "gradient_accumulation": 1,
        }  # fmt: skip
        for key, value in changes.items():
            *groups, last = key.split("__")
            inner = base
            for group in groups:
                inner = inner.setdefault(group, {})
            inner[last] = value
        return settings.PosttrainRecipe.model_validate(base)

    return make


def batch_of(backbone, clips, count=2, frames=FRAMES):
    examples = Examples(settings.Data(path=str(clips), frames=frames, height=SIZE, width=SIZE))
    chosen = [examples[i] for i in range(count)]
    condition = backbone.condition([e.caption for e in chosen], torch.stack([e.first_frame for e in chosen]), frames=frames)
    noise = backbone.noise(list(range(count)), frames, SIZE, SIZE)
    fps = torch.tensor([e.fps for e in chosen])
    latents = backbone.encode(torch.stack([e.frames for e in chosen]))
    return Batch(condition, noise, list(range(count)), fps, latents=latents, **truth(chosen, torch.device("cpu")))


def trainable_tiny(seed=0):
    backbone = tiny_wan("test", seed=seed)
    backbone.transformer.requires_grad_(False)
    torch.manual_seed(seed)
    backbone.add_lora(2, 2)
    with torch.no_grad():  # B = 0 would hide the gradient of A
        for name, parameter in backbone.trainable():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    return backbone


def gradient(backbone, loss):
    names, parameters = zip(*backbone.trainable(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True))


def objective(backbone, clips, **changes):
    sampler = settings.Sampler(steps=3, guidance_scale=changes.pop("guidance", 1.0))
    laws = [settings.Law(name="constant_acceleration"), settings.Law(name="mass_conservation")]
    reward = settings.Reward(laws=laws, **changes)
    deep = reward.checkpointing in ("steps", "both")
    if reward.checkpointing in ("blocks", "both"):
        backbone.transformer.enable_gradient_checkpointing()
    rollout = Rollout(backbone, sampler, deep, reward.checkpointing in ("blocks", "both"))
    return RewardBackprop(rollout, build(reward.laws, reward.probe, backbone.vae), reward)


# ------------------------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("checkpointing", ["blocks", "steps", "both"])
def test_recomputation_does_not_change_the_gradient(clips, checkpointing):
    gradients = []
    for kind in ("none", checkpointing):
        backbone = trainable_tiny()
        loss, _ = objective(backbone, clips, checkpointing=kind, grad_steps=2)(batch_of(backbone, clips))
        gradients.append(gradient(backbone, loss.sum()))
    for name, value in gradients[0].items():
        assert value is not None
        assert torch.allclose(value, gradients[1][name], rtol=1e-4, atol=1e-6), name
    assert max(float(g.abs().max()) for g in gradients[0].values()) > 0


def test_gradient_agrees_with_finite_differences(clips):
    """All sampler steps in the graph, a smooth loss of the decoded frames: autograd equals central differences."""
    backbone = trainable_tiny()
    batch = batch_of(backbone, clips, 1)
    rollout = Rollout(backbone, settings.Sampler(steps=3), clamp="none")
    weights = torch.randn(batch.frames.shape, generator=torch.Generator().manual_seed(3))

    def value(grad_steps):
        return (rollout.frames(batch, grad_steps) * weights).mean()

    full = gradient(backbone, value(3))
    name, parameter = max(backbone.trainable(), key=lambda item: float(full[item[0]].norm()))
    direction = full[name] / full[name].norm()
    step = 1e-2
    with torch.no_grad():
        parameter.add_(direction, alpha=step)
        up = value(0)
        parameter.add_(direction, alpha=-2 * step)
        down = value(0)
        parameter.add_(direction, alpha=step)
    assert float((up - down) / (2 * step)) == pytest.approx(float(full[name].norm()), rel=2e-2)


def test_truncation_keeps_only_the_last_steps(clips):
    """The gradient with K steps is the gradient of the last K applications of the weights: K = 1 differs from K = 3."""
    backbone = trainable_tiny()
    batch = batch_of(backbone, clips, 1)
    norms = {}
    for k in (1, 3):
        frames = Rollout(backbone, settings.Sampler(steps=3)).frames(batch, k)
        norms[k] = {n: g.norm().item() for n, g in gradient(backbone, frames.square().mean()).items()}
    with torch.no_grad():
        assert not Rollout(backbone, settings.Sampler(steps=3)).frames(batch, 3).requires_grad
    assert all(v > 0 for v in norms[1].values())
    assert any(abs(norms[1][n] - norms[3][n]) > 1e-3 * norms[3][n] for n in norms[1])


def test_bfloat16_autocast_keeps_the_gradient(clips):
    """Casts cached by the steps without gradient must not be reused in those with gradient."""
    gradients = {}
    for dtype in (None, torch.bfloat16):
        backbone = trainable_tiny()
        frames = Rollout(backbone, settings.Sampler(steps=3), autocast=dtype).frames(batch_of(backbone, clips), 1)
        assert frames.dtype == torch.float32
        gradients[dtype] = torch.cat([g.flatten() for g in gradient(backbone, frames.square().mean()).values()])
    cosine = torch.nn.functional.cosine_similarity(gradients[None], gradients[torch.bfloat16], dim=0)
    assert float(cosine) > 0.98
    assert float(gradients[torch.bfloat16].norm() / gradients[None].norm()) == pytest.approx(1, abs=0.1)


def test_guidance_in_graph_or_not(clips):
    """Leaving the unconditional branch out changes the gradient, not the clip."""
    results = {}
    for inside in (True, False):
        backbone = trainable_tiny()
        backbone.guidance_in_graph = inside
        frames = Rollout(backbone, settings.Sampler(steps=2, guidance_scale=3.0)).frames(batch_of(backbone, clips), 1)
        results[inside] = frames.detach(), gradient(backbone, frames.square().mean())
    assert torch.equal(results[True][0], results[False][0])
    name = max(results[True][1], key=lambda n: float(results[True][1][n].norm()))
    assert not torch.allclose(results[True][1][name], results[False][1][name], rtol=1e-2)


def test_only_the_needed_latents_are_decoded(clips):
    backbone = tiny_wan("test")
    rollout = Rollout(backbone, settings.Sampler(steps=2))
    latents = rollout.latents(batch_of(backbone, clips))
    whole = rollout.decode(latents)
    seen = []
    decode = backbone.decode
    backbone.decode = lambda z, *a, **k: seen.append(z.shape[2]) or decode(z, *a, **k)
    for end, needed in ((4, 3), (5, 3), (6, 4), (9, 5), (None, 5)):
        assert torch.equal(rollout.decode(latents, end), whole[:, :end])
        assert seen.pop() == needed


# ------------------------------------------------------------------------------------------------------------ objectives


def test_window_is_a_stretch_of_the_whole_judgement(clips):
    """Judging frames 3-8 of a clip gives the law the same flow as judging those frames alone."""
    backbone = tiny_wan("test")
    batch = batch_of(backbone, clips)
    late = Batch(**{**batch.__dict__, "start": 3})
    judged = objective(backbone, clips, window=settings.Window(start=3, frames=5), mask_source="truth")
    verdict, measured = judged.judge(batch.frames, late, None)
    assert measured.masks.shape[1] == 5
    alone = judged.verifier(
        batch.frames[:, 3:8], batch.fps, masks=batch.masks[:, 3:8].float(), reference=judged.reference(late, None, slice(3, 8))
    )
    assert torch.allclose(verdict.loss, alone.loss, rtol=1e-5)


def test_true_clips_against_themselves(clips):
    """Mass conservation of the true clip is zero, and tracked masks find the object."""
    backbone = tiny_wan("test")
    batch = batch_of(backbone, clips)
    observed = objective(backbone, clips).observe(batch.frames, batch)
    assert observed["law/mass_conservation"].abs().max() < 1e-10
    assert observed["iou"].min() > 0.6
    frozen = objective(backbone, clips).observe(batch.frames[:, :1].expand_as(batch.frames), batch)
    assert (frozen["motion_energy"] < 0.1 * observed["motion_energy"]).all()
    assert (frozen["law/mass_conservation"] > 1e-3).all()


def test_mask_sources(clips):
    frames, true = falling(0).frames[None], falling(0).masks[None].float()
    assert object_masks("none", frames, true) is None
    assert torch.equal(object_masks("truth", frames, true), true)
    for source in ("track", "motion"):
        assert iou((object_masks(source, frames, true) > 0.5).float(), true).item() > 0.5
    with pytest.raises(InputError, match="true masks"):
        object_masks("track", frames, None)


def test_iou_counts_present_objects_only():
    mask = torch.zeros(1, 2, 2, 4, 4)
    mask[:, :, 0, :2, :2] = 1  # the second object is absent
    shifted = torch.roll(mask, 1, dims=-1)
    assert iou(mask, mask).item() == 1
    assert iou(shifted, mask).item() == pytest.approx(2 / 6)
    assert torch.isnan(iou(mask, torch.zeros_like(mask))).all()


def test_flow_matching_loss_and_keyed_draws(clips):
    backbone = trainable_tiny()
    batch = batch_of(backbone, clips)
    sft = Sft(backbone, settings.Sft(caption_dropout=0.5), shift=3.0)
    sigma = sft.levels(batch.keys)
    assert torch.equal(sigma, sft.levels(batch.keys))
    assert torch.equal(sigma.flip(0), sft.levels(batch.keys[::-1]))
    loss, logs = sft(batch)
    condition = batch.condition
    dropped = torch.tensor(sft.dropped(batch.keys)).view(-1, 1, 1)
    prompt = torch.where(dropped, condition.negative, condition.prompt)
    expected = backbone.flow_matching_loss(
        batch.latents, batch.noise, sigma, type(condition)(prompt, condition.negative, condition.first_frame)
    )
    assert torch.allclose(loss, expected)
    assert torch.equal(logs["flow_matching"], loss.detach())
    shares = [sft.dropped([k])[0] for k in range(400)]
    assert 0.4 < sum(shares) / 400 < 0.6


def test_noise_levels_follow_the_logit_normal():
    sft = Sft(tiny_wan("test"), settings.Sft(mean=0.5, std=0.8), shift=1.0)
    logits = torch.logit(sft.levels(list(range(3000))))
    assert logits.mean().item() == pytest.approx(0.5, abs=0.05)
    assert logits.std().item() == pytest.approx(0.8, abs=0.05)


def test_flow_matching_learns(recipe):
    rows = curve(recipe(method="sft", weights="full", max_steps=25, optimizer__lr=5e-3, gradient_accumulation=2))
    losses = [row["loss"] for row in rows]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_reward_learns(recipe):
    """The mass term falls while it is trained on: the gradient points downhill through sampler, decoder and probe."""
    laws = [{"name": "mass_conservation"}, {"name": "constant_acceleration", "weight": 0}]
    changes = {"reward__laws": laws, "weights": "full", "max_steps": 12, "optimizer__lr": 1e-2, "reward__grad_steps": 2}
    rows = curve(recipe(data__limit=2, batch_size=2, **changes))
    assert rows[-1]["law/mass_conservation"] < 0.9 * rows[0]["law/mass_conservation"]
    assert rows[0]["law/constant_acceleration"] is not None  # weight 0: written down, not trained on
    assert rows[0]["loss"] == pytest.approx(rows[0]["law/mass_conservation"])


def test_mixed_in_flow_matching_adds_up(recipe):
    row = curve(recipe(reward__sft_weight=0.5, max_steps=1))[0]
    assert row["loss"] == pytest.approx(row["reward_loss"] + 0.5 * row["flow_matching"], rel=1e-5)


def curve(made):
    run(made)
    return [json.loads(line) for line in Path(made.output, "metrics.jsonl").read_text().splitlines()]


# ---------------------------------------------------------------------------------------------------- exports, validation


def test_adapters_load_with_plain_diffusers(recipe, tiny):
    from diffusers import WanImageToVideoPipeline
    from safetensors.torch import load_file

    made = recipe(max_steps=3, optimizer__lr=5e-2)
    trainer = VideoTrainer(made)
    result = trainer.run()
    file = load_file(result.weights / "pytorch_lora_weights.safetensors")
    assert len(file) == len(trainer.parameters) > 0
    pipeline = WanImageToVideoPipeline.from_pretrained(tiny)
    plain = pipeline.transformer
    inputs = dict(
        hidden_states=torch.randn(1, 8, 5, 4, 4),
        timestep=torch.full((1, 20), 500.0),
        encoder_hidden_states=torch.randn(1, 32, 32),
    )
    with torch.no_grad():
        before = plain(**inputs, return_dict=False)[0]
        pipeline.load_lora_weights(result.weights)
        after = pipeline.transformer(**inputs, return_dict=False)[0]
        trained = trainer.backbone.transformer(**inputs, return_dict=False)[0]
    found = {n for n, _ in pipeline.transformer.named_parameters() if "lora_" in n}
    assert len(found) == len(file)
    assert torch.allclose(after, trained, atol=1e-5)
    assert not torch.allclose(after, before, atol=1e-4)
    averaged = load_file(result.ema / "pytorch_lora_weights.safetensors")
    assert averaged.keys() == file.keys()
    assert any(not torch.equal(averaged[n], file[n]) for n in file)


def test_full_weights_are_a_pipeline(recipe):
    from visviva.models.backbones.wan import WanBackbone

    trainer = VideoTrainer(recipe(weights="full", optimizer__lr=1e-2, max_steps=2))
    result = trainer.run()
    read = WanBackbone.load(result.weights)
    assert all(torch.equal(p, trainer.parameters[f"transformer.{n}"]) for n, p in read.transformer.named_parameters())
    assert read.encode_prompt(["free fall"]).shape[-1] == 32
    averaged = WanBackbone.load(result.ema)
    assert all(torch.equal(p, trainer.ema.shadow[f"transformer.{n}"]) for n, p in averaged.transformer.named_parameters())


def test_validation_clips_and_separate_metrics(recipe):
    from visviva.data.video import read_video

    metrics = ["constant_acceleration", "motion_floor", "l2", "iou", "acceleration_rmse"]
    made = recipe(max_steps=2, validation={"every": 2, "clips": 2, "metrics": metrics}, trackers=["tensorboard"])
    rows = curve(made)
    validations = [row for row in rows if row["kind"] == "validation"]
    assert [row["update"] for row in validations] == [0, 2]
    for row in validations:
        assert row["law/motion_floor"] >= 0
        assert row["law/constant_acceleration"] >= 0
        assert 0 <= row["iou"] <= 1
        assert row["l2"] > 0
        assert read_video(row["clip/0"]).frames.shape == (FRAMES, 3, SIZE, SIZE)
    assert "law/motion_floor" not in rows[1]  # not among the training laws
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    written = EventAccumulator(f"{made.output}/trackers").Reload()
    assert {"loss", "law/constant_acceleration", "validation/iou"} <= set(written.Tags()["scalars"])
    assert any("clip/0" in tag for tag in written.Tags()["tensors"])


def test_ema_is_the_average_of_the_weights(recipe):
    """With a constant decay m, the average after n updates is m^n w_0 + (1 - m) sum m^(n-k) w_k."""
    trainer = VideoTrainer(recipe(ema={"decay": 0.5, "schedule": "constant"}, max_steps=3, optimizer__lr=1e-2))
    name = next(iter(trainer.parameters))
    history = [trainer.parameters[name].detach().clone()]
    for update in range(3):
        trainer.update(update)
        history.append(trainer.parameters[name].detach().clone())
    expected = 0.125 * history[0] + 0.125 * history[1] + 0.25 * history[2] + 0.5 * history[3]
    assert torch.allclose(trainer.ema.shadow[name], expected, atol=1e-7)


def test_frozen_base_is_the_untrained_model(recipe):
    trainer = VideoTrainer(recipe(max_steps=3, optimizer__lr=5e-2))
    batch = trainer.batch(0, 0)
    before = trainer.base_frames(batch)
    with torch.no_grad():
        assert torch.equal(before, trainer.rollout.frames(batch))
    for update in range(3):
        trainer.update(update)
    with torch.no_grad():
        assert not torch.equal(before, trainer.rollout.frames(batch))
    assert torch.equal(before, trainer.base_frames(batch))


def test_text_encoder_is_dropped_and_conditions_stay(recipe):
    trainer = VideoTrainer(recipe())
    assert trainer.backbone.text_encoder is None
    direct = tiny_wan("test")
    example = trainer.examples[trainer.plan.sample(0, 0).clip]
    condition = direct.condition([example.caption], example.first_frame[None], frames=FRAMES)
    cached = trainer.batch(0, 0).condition
    assert torch.allclose(cached.prompt, condition.prompt, atol=1e-6)
    assert torch.allclose(cached.first_frame, condition.first_frame, atol=1e-6)


# --------------------------------------------------------------------------------------------------------------- monitors


def test_monitor_wants_consecutive_low_checks():
    monitor = Monitor({"motion_energy": 0.3}, patience=3)
    for energy in (0.1, 0.1, 0.5, 0.1, 0.1):
        assert monitor.check({"motion_energy": energy}, {"motion_energy": 1.0}) == {"motion_energy": energy}
        monitor.stop(1)
    monitor.check({"motion_energy": 0.1}, {"motion_energy": 1.0})
    with pytest.raises(Collapse, match=r"stopped at update 7: the clips' motion energy .* 3 checks") as error:
        monitor.stop(7)
    assert error.value.exit_status == 3


def test_monitor_sees_a_fooled_probe():
    monitor = Monitor({}, patience=1, most={"disagreement": 4.0})
    monitor.check({"disagreement": 0.39}, {"disagreement": 0.1})
    monitor.stop(1)
    monitor.check({"disagreement": 0.41}, {"disagreement": 0.1})
    with pytest.raises(Collapse, match=r"disagreement was above 400% .* fooling the flow probe"):
        monitor.stop(2)


def test_monitor_does_not_judge_what_it_cannot():
    monitor = Monitor({"motion_energy": 0.3, "object_area": 0.3}, patience=1)
    assert monitor.check({"motion_energy": float("nan")}, {"motion_energy": 1.0}) == {}
    assert monitor.check({"motion_energy": 0.0}, {"motion_energy": 0.0}) == {}
    monitor.stop(1)


def test_collapse_stops_the_run_and_keeps_checkpoints(recipe):
    """Kinematics alone, without an anchor, on the model's own noise: the clips lose motion and the run is stopped."""
    made = recipe(
        reward={"laws": [{"name": "constant_acceleration"}], "allow_trivial": True, "mask_source": "none", "grad_steps": 2},
        weights="full", optimizer__lr=2e-2, max_steps=60, data__limit=1, save_every=1,
        monitor={"every": 1, "motion": 0.5, "patience": 2},
    )  # fmt: skip
    with pytest.raises(Collapse, match="motion energy was below 50%"):
        run(made)
    rows = [json.loads(line) for line in Path(made.output, "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["ratio/motion_energy"] == pytest.approx(1.0)
    assert rows[-1]["ratio/motion_energy"] < 0.5
    assert rows[-1]["law/constant_acceleration"] < rows[0]["law/constant_acceleration"]  # the reward was being won
    assert len(list(Path(made.output, "checkpoints").glob("step-*"))) == made.keep


# ------------------------------------------------------------------------------------------------- learning rate, recipes


def test_learning_rate_shapes():
    optimizer = settings.Optimizer(lr=1.0, warmup=10)
    assert [learning_rate(optimizer, u, 110) for u in (0, 4, 9, 10, 109)] == [0.1, 0.5, 1.0, 1.0, 1.0]
    cosine, linear = (optimizer.model_copy(update={"schedule": s}) for s in ("cosine", "linear"))
    assert learning_rate(cosine, 60, 110) == pytest.approx(0.5)
    assert learning_rate(linear, 60, 110) == pytest.approx(0.5)
    assert learning_rate(cosine, 109, 110) < 1e-3


@pytest.mark.parametrize(
    "name", ["newton", "sft", "kinematic", "mass", "flow", "eulerian", "material", "wan-1.3b", "wan-i2v", "own-clips"]
)
def test_shipped_recipes_are_valid(name):
    made = load(settings.PosttrainRecipe, f"posttrain-{name}")
    if made.method == "reward_backprop":
        assert build(made.reward.laws, made.reward.probe, tiny_wan("test").vae, allow_trivial=made.reward.allow_trivial).terms


# --------------------------------------------------------------------------------------------------------------- bad input


def refused(made, match):
    with pytest.raises(InputError, match=match) as error:
        run(made)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_unknown_law_option_and_probe(recipe):
    anchored = {"name": "mass_conservation"}
    refused(recipe(reward__laws=[{"name": "constant_accelaration"}, anchored]), "did you mean 'constant_acceleration'")
    options = {"name": "constant_acceleration", "options": {"fom": "object"}}
    refused(recipe(reward__laws=[options, anchored]), "unknown option 'fom'; did you mean 'form'")
    refused(recipe(reward__probe={"flow": "pwc"}), "no flow probe 'pwc'")
    refused(recipe(reward__probe={"flow": "raft"}), "flow probe raft: missing a required argument: 'path'")
    refused(recipe(reward__probe={"flow": "dis"}), "carries no gradient")
    refused(recipe(trackers=["tensorbord"]), "tensorbord")
    refused(recipe(trackers=["wandb"]), "tracker 'wandb' is not installed")
    refused(recipe(validation={"every": 1, "metrics": ["ious"]}), "no metric 'ious'.*did you mean 'iou'")


def test_laws_that_doing_nothing_satisfies(recipe):
    refused(recipe(reward__laws=[{"name": "constant_acceleration"}]), "frozen or empty clip satisfies .* add an anchor")


def test_masks_that_are_not_there(recipe, tmp_path):
    bare = dataset(tmp_path / "bare", 2, masks=False)
    refused(
        recipe(data__path=str(bare)),
        r"mask_source is 'track', which needs the objects' true masks, but the clip '.*bare/.*\.mp4' has no masks",
    )
    run(recipe(data__path=str(bare), reward__mask_source="none", max_steps=1))


def test_own_clips_without_masks_find_objects_by_motion(recipe, tmp_path):
    bare = dataset(tmp_path / "bare", 2, masks=False)
    laws = [{"name": "constant_acceleration"}, {"name": "motion_floor", "options": {"fraction": 0.5}}]
    row = curve(recipe(data__path=str(bare), reward__mask_source="motion", reward__laws=laws, max_steps=1))[0]
    assert row["law/motion_floor"] is not None
    assert row["base/disagreement"] == row["disagreement"] > 0
    assert 0 <= row["iou"] <= 1  # with the reference's masks


def test_prompts_have_no_paired_clip(recipe, tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "free fall", "fps": 16}\n{"prompt": "ball 3", "fps": 16}\n')
    changes = {"data__path": "", "data__prompts": str(prompts), "reward__mask_source": "none"}
    message = refused(recipe(**changes), "'mass_conservation' compares with a paired clip, but the data are prompts")
    assert "reward.reference: base" in message
    run(recipe(**changes, reward__reference="base", max_steps=1))
    floor = [{"name": "constant_acceleration"}, {"name": "motion_floor", "options": {"fraction": 0.8}}]
    run(recipe(**changes, reward__laws=floor, reward__reference="base", output=str(tmp_path / "two"), max_steps=1))


def text_to_video(folder, experts=1):
    """A tiny Wan text-to-video pipeline, with one denoiser (2.1) or two experts (2.2 A14B)."""
    from diffusers import WanPipeline

    parts = tiny_wan("test").pipeline.components
    parts = {name: parts[name] for name in ("tokenizer", "text_encoder", "transformer", "vae", "scheduler")}
    second = {"transformer_2": tiny_wan("test", seed=1).transformer, "boundary_ratio": 0.875} if experts == 2 else {}
    WanPipeline(**parts, **second).save_pretrained(folder)
    return folder


def test_text_to_video_has_no_paired_clip(recipe, tmp_path):
    model = str(text_to_video(tmp_path / "t2v"))
    refused(
        recipe(model__path=model), "text-to-video model's clip does not start from the data's clip; set reward.reference: base"
    )
    laws = [{"name": "constant_acceleration"}, {"name": "motion_floor", "options": {"fraction": 0.8}}]
    refused(recipe(model__path=model, reward__laws=laws, reward__reference="base"), "mask_source is 'track'.*text-to-video")
    made = recipe(model__path=model, reward__laws=laws, reward__reference="base", reward__mask_source="none", max_steps=1)
    assert curve(made)[0]["law/motion_floor"] == 0  # the base against itself
    assert run(recipe(model__path=model, method="sft", max_steps=1, output=str(tmp_path / "sft"))).steps == 1


def test_two_experts_are_exported_apart(recipe, tmp_path):
    """The last sampler steps belong to the second expert; its adapters load with load_into_transformer_2."""
    from diffusers import WanPipeline
    from safetensors.torch import load_file

    model = text_to_video(tmp_path / "a14b", experts=2)
    laws = [{"name": "constant_acceleration"}, {"name": "motion_floor", "options": {"fraction": 0.8}}]
    changes = {"reward__laws": laws, "reward__reference": "base", "reward__mask_source": "none", "optimizer__lr": 1e-2}
    trainer = VideoTrainer(recipe(model__path=str(model), **changes, max_steps=2))
    result = trainer.run()
    first, second = (load_file(result.weights / part / "pytorch_lora_weights.safetensors") for part in ("", "transformer_2"))
    assert len(first) + len(second) == len(trainer.parameters)
    assert not any(bool(v.any()) for n, v in first.items() if "lora_B" in n)  # high noise: no reward gradient
    assert any(bool(v.any()) for n, v in second.items() if "lora_B" in n)
    pipeline = WanPipeline.from_pretrained(model)
    pipeline.load_lora_weights(result.weights / "transformer_2", load_into_transformer_2=True)
    loaded = {n: p for n, p in pipeline.transformer_2.named_parameters() if "lora_" in n}
    assert len(loaded) == len(second)
    own = {n.removeprefix("transformer_2."): p for n, p in trainer.parameters.items() if n.startswith("transformer_2.")}
    assert all(torch.equal(p, own[n.replace("default_0", "default")]) for n, p in loaded.items())


def test_empty_data_and_paths(recipe, tmp_path):
    (tmp_path / "empty").mkdir()
    refused(recipe(data__path=str(tmp_path / "empty")), "neither metadata.jsonl nor videos")
    refused(recipe(data__where={"caption": "nothing like it"}), "no clip matches")
    (tmp_path / "file").write_text("")
    refused(recipe(output=str(tmp_path / "file" / "run")), "file/run' cannot be a folder")
    refused(recipe(data__frames=8), "frames = 8.*use 7 or 9")
    refused(recipe(data__frames=17), "000000.mp4: 9 frames, but data.frames is 17")


def test_wrong_checkpoint_family(recipe, tmp_path):
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    (wrong / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    refused(recipe(model__path=str(wrong)), "StableDiffusionPipeline.*WanImageToVideoPipeline")


def test_a_run_is_not_continued_with_other_settings(recipe, tmp_path):
    run(recipe(max_steps=1))
    refused(recipe(max_steps=1, optimizer__lr=1e-3), "started with other settings: optimizer.lr was 0.0002, now 0.001")
    refused(recipe(max_steps=1, weights="full"), "weights was 'lora', now 'full'")
    refused(recipe(max_steps=1, gradient_accumulation=2), "effective batch was 1, now 2")
    other = tiny_wan("test", seed=5)
    other.save(tmp_path / "other")
    refused(recipe(max_steps=1, model__path=str(tmp_path / "other")), "base model was")
    assert run(recipe(max_steps=2, save_every=7)).steps == 2  # longer is fine at a constant rate


def test_full_weights_in_bfloat16(recipe):
    refused(recipe(weights="full", model__dtype="bfloat16"), "weights: full trains in float32")


def test_recipe_contradictions():
    for change, words in [
        ({}, "either data.path"),
        ({"data": {"path": "a", "prompts": "b"}}, "either data.path"),
        ({"data": {"prompts": "a"}, "method": "sft"}, "train on clips"),
        ({"data": {"path": "a"}, "sampler": {"steps": 1}, "reward": {"grad_steps": 2}}, "grad_steps is 2"),
        (
            {"data": {"path": "a", "frames": 9}, "reward": {"window": {"start": 4, "frames": 8}}},
            "needs 12 frames, but clips have 9",
        ),
    ]:
        with pytest.raises(InputError, match=words):
            run(settings.PosttrainRecipe.model_validate(change))


def test_nan_frames_and_nan_gradients(recipe, monkeypatch):
    trainer = VideoTrainer(recipe())
    with torch.no_grad():
        next(iter(trainer.parameters.values())).fill_(float("nan"))
    with pytest.raises(InputError, match="generates NaN"):
        trainer.update(0)
    clip = falling(0)
    clip.frames[3, 0, 0, 0] = float("nan")
    monkeypatch.setattr(type(trainer.examples.clips), "__getitem__", lambda self, i: clip)
    trainer.examples.held.clear()
    with pytest.raises(InputError, match=r"clip .*mp4: its frames hold NaN"):
        trainer.examples[0]


def test_flow_matching_does_not_read_the_clips_again(recipe, monkeypatch):
    trainer = VideoTrainer(recipe(method="sft"))
    monkeypatch.setattr(type(trainer.examples), "__getitem__", None)
    batch = trainer.batch(0, 0)
    assert batch.latents.shape == batch.noise.shape
    assert batch.fps.tolist() == [16.0]
    assert trainer.update(0)["loss"] > 0


def test_conditions_are_made_anew_for_changed_files(recipe, tmp_path):
    """A clip written again under the same name is not served from the cache, and changes what the run is."""
    folder = dataset(tmp_path / "changing", 2)
    changes = {"data__path": str(folder), "max_steps": 1}
    run(recipe(**changes))
    caches = list((tmp_path / "run" / "cache").iterdir())
    run(recipe(**changes))
    assert list((tmp_path / "run" / "cache").iterdir()) == caches
    falling(7).write(folder / "clips", "000000", arrays="small")
    refused(recipe(**changes), "data was .* now")
    assert len(list((tmp_path / "run" / "cache").iterdir())) == len(caches) + 1


def test_frames_are_resampled_by_their_times(clips):
    half = Examples(settings.Data(path=str(clips), frames=4, height=16, width=16, fps=8.0))[0]
    full = Examples(settings.Data(path=str(clips), frames=9, height=16, width=16))[0]
    assert half.fps == 8.0
    assert torch.equal(half.frames, full.frames[0:8:2])
    assert torch.equal(half.masks, full.masks[0:8:2])
    assert half.frames.shape == (4, 3, 16, 16)
    with pytest.raises(InputError, match=r"lasts 0.50 s, but 9 frames at 8 per second need 1.00 s"):
        Examples(settings.Data(path=str(clips), frames=9, height=16, width=16, fps=8.0))[0]
