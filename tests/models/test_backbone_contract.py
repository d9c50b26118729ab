"""One contract for the backbones of every family: the real classes at tiny sizes, held against their diffusers pipelines."""

import copy
import json
import re

import diffusers
import pytest
import torch
from diffusers.pipelines.ltx import pipeline_ltx_condition
from PIL import Image
from tiny_backbones import VARIANTS, build

from visviva.errors import InputError
from visviva.models.backbones import families, flow_matching
from visviva.models.backbones.lora import load_lora

FRAMES, SIDE, FPS, STEPS, SCALE = 9, 32, 16.0, 4, 2.0
PROMPT, NEGATIVE = "ball falls 2.40 m", "red cube"
MASKED = ("ltx-video", "ltx-video-0.9.5", "hunyuan-video", "hunyuan-video-i2v", "mochi")


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request):
    return request.param


@pytest.fixture(scope="module")
def backbone(variant):
    return build(variant)


def frames_of(backbone):
    """A short clip of several latent frames."""
    return 7 if backbone.family == "mochi" else 9


def first_frames(count=1, seed=0):
    picture = torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    return (picture * 255).round() / 255


def family_of(backbone):
    return next(name for name in RUN if backbone.family.startswith(name))


def conditions(backbone, image=None, count=1, **options):
    """Conditions of clips, with a first frame where the family needs one."""
    if image is None and backbone.first_frames == "required":
        image = first_frames(count)
    options = {"negative": NEGATIVE, "fps": FPS, "frames": frames_of(backbone), **options}
    return backbone.condition([PROMPT, "cube", "red ball"][:count], image, **options)


def noise_of(backbone, seeds=(3,)):
    return backbone.noise(list(seeds), frames_of(backbone), SIDE, SIDE)


def clean_of(backbone):
    """Latents of a clip; noise of CogVideoX 1.5 has one frame more, its padding."""
    shape = backbone.latent_shape(1, frames_of(backbone), SIDE, SIDE)
    return torch.randn(shape, generator=torch.Generator().manual_seed(9))


# ------------------------------------------------------------------------------------------------- the family's own pipeline


def theirs(backbone, condition, noise, image, output="latent", negative=NEGATIVE):
    """What the family's own diffusers pipeline makes of the same noise."""
    options = {
        "prompt": PROMPT, "negative_prompt": negative, "height": SIDE, "width": SIDE, "num_frames": frames_of(backbone),
        "num_inference_steps": STEPS, "guidance_scale": SCALE, "output_type": output,
        "max_sequence_length": backbone.text_length,
    }  # fmt: skip
    return RUN[family_of(backbone)](backbone, condition, noise, image, options).frames


def picture(image):
    """Some pipelines rescale pictures by 1/255 before CLIP but would also rescale a float tensor; so give them a picture."""
    return Image.fromarray((image[0].permute(1, 2, 0) * 255).round().byte().numpy())


def run_wan(backbone, condition, noise, image, options):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0)
    set_timesteps, levels = scheduler.set_timesteps, backbone.sigmas(STEPS)[:-1].tolist()
    scheduler.set_timesteps = lambda steps, device=None: set_timesteps(sigmas=levels, device=device)
    parts, config = {**backbone.pipeline.components, "scheduler": scheduler}, backbone.pipeline.config
    kind = diffusers.WanPipeline if image is None else diffusers.WanImageToVideoPipeline
    parts = {n: p for n, p in parts.items() if image is not None or n not in ("image_encoder", "image_processor")}
    pipeline = kind(**parts, boundary_ratio=config.boundary_ratio, expand_timesteps=config.expand_timesteps)
    pipeline.set_progress_bar_config(disable=True)
    given = {} if image is None else {"image": picture(image)}
    return pipeline(latents=noise, **given, **options)


def run_ltx(backbone, condition, noise, image, options):
    pipeline, options = backbone.pipeline, {**options, "frame_rate": FPS}
    if backbone.pixel_positions:
        with pytest.MonkeyPatch.context() as patch:  # this pipeline takes no noise
            patch.setattr(pipeline_ltx_condition, "randn_tensor", lambda shape, **_: noise.clone())
            given = {} if image is None else {"image": [picture(image)], "image_cond_noise_scale": 0.0}
            return pipeline(**given, **options)
    given = {} if image is None else {"image": image}
    if image is not None:
        pipeline = diffusers.LTXImageToVideoPipeline(**pipeline.components)
        pipeline.set_progress_bar_config(disable=True)
    made = pipeline(latents=pipeline._pack_latents(backbone.hold(noise, condition)), **given, **options)
    if options["output_type"] == "latent":
        made.frames = pipeline._unpack_latents(made.frames, *noise.shape[2:])
    return made


def run_cogvideox(backbone, condition, noise, image, options):
    given = {} if image is None else {"image": image}
    made = backbone.pipeline(latents=noise.transpose(1, 2), **given, **options)
    if options["output_type"] == "latent":
        made.frames = made.frames.transpose(1, 2)[:, :, backbone.padding :]
    return made


def run_hunyuan(backbone, condition, noise, image, options):
    scale = options.pop("guidance_scale")
    given = {} if image is None else {"image": picture(image)}
    return backbone.pipeline(latents=noise, true_cfg_scale=scale, guidance_scale=backbone.embedded_guidance, **given, **options)


def run_mochi(backbone, condition, noise, image, options):
    return backbone.pipeline(latents=noise, **options)


RUN = {"wan": run_wan, "ltx": run_ltx, "cogvideox": run_cogvideox, "hunyuan": run_hunyuan, "mochi": run_mochi}


def given_images(backbone):
    return {"none": [None], "optional": [None, first_frames()], "required": [first_frames()]}[backbone.first_frames]


def test_same_noise_same_latents_and_frames_as_the_familys_pipeline(backbone):
    for image in given_images(backbone):
        condition, noise = conditions(backbone, image), noise_of(backbone)
        ours = backbone.sample(condition, noise, steps=STEPS, guidance_scale=SCALE)
        latents = theirs(backbone, condition, noise, image)
        assert latents.std() > 0.1
        torch.testing.assert_close(ours, latents, atol=1e-4, rtol=0)
        frames = theirs(backbone, condition, noise, image, "pt")
        assert frames.std() > 0.003
        assert frames.shape == (1, frames_of(backbone), 3, SIDE, SIDE)
        torch.testing.assert_close(backbone.decode(ours, clamp="hard"), frames, atol=1e-4, rtol=0)


# ------------------------------------------------------------------------------------------------------- sign and scaling


def shown(latents, backbone):
    """Latents in the layout of the family's network."""
    if backbone.family.startswith("ltx"):
        return diffusers.LTXPipeline._pack_latents(latents)
    return latents.transpose(1, 2) if backbone.family.startswith("cogvideox") else latents


def scheduled(backbone, clean, noise, place):
    """(sigma, time, input, answer): what the family's own scheduler has the network see at a sampler step, and what it must
    answer for the scheduler to come out at the clean latents' place on the next level. Its step is affine in the answer.
    """
    levels = backbone.sigmas(STEPS, shape=tuple(noise.shape))
    scheduler = copy.deepcopy(backbone.scheduler)
    if isinstance(scheduler, diffusers.FlowMatchEulerDiscreteScheduler):
        inverted = scheduler.config.invert_sigmas
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=inverted)
        scheduler.set_timesteps(sigmas=levels[:-1].tolist())
        time = scheduler.timesteps[place]
        mixed = [levels[i] * noise + (1 - levels[i]) * clean for i in (place, place + 1)]
    else:
        scheduler.set_timesteps(STEPS)
        time = scheduler.timesteps[place]
        at = [scheduler.add_noise(clean, noise, t) for t in scheduler.timesteps] + [clean]
        mixed = at[place : place + 2]

    def step(answer):
        scheduler._step_index = None
        return scheduler.step(answer, time, mixed[0], return_dict=False)[0]

    zero = step(torch.zeros_like(clean))
    slope = (step(torch.ones_like(clean)) - zero).mean()
    return levels[place], time, mixed[0], (mixed[1] - zero) / slope


@pytest.mark.parametrize("place", [0, 2])
def test_the_network_sees_what_its_scheduler_shows_it_and_its_answer_becomes_noise_minus_clean(backbone, monkeypatch, place):
    condition, noise = conditions(backbone), noise_of(backbone)
    clean = torch.randn_like(noise)
    sigma, time, mixed, answer = scheduled(backbone, clean, noise, place)
    seen = {}

    def network(hidden_states, timestep, **_):
        seen.update(hidden=hidden_states, time=timestep)
        return (shown(answer, backbone),)

    for part in backbone.networks().values():
        monkeypatch.setattr(part, "forward", network)
    level = sigma.expand(1)
    v = backbone.velocity(sigma * noise + (1 - sigma) * clean, level, condition)
    free = slice(0 if condition.first_frame is None else 1, None)  # a first frame that is kept does not move
    torch.testing.assert_close(v[:, :, free], (noise - clean)[:, :, free], atol=1e-4, rtol=1e-4)
    own = shown(mixed, backbone)  # first frames may follow it as further channels
    torch.testing.assert_close(seen["hidden"][tuple(map(slice, own.shape))], own, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(seen["time"].flatten()[-1].float(), time.float(), atol=1e-3, rtol=1e-5)


def test_a_network_that_knows_the_clip_is_sampled_back_to_it(backbone):
    condition, noise = conditions(backbone), noise_of(backbone)
    clean = backbone.hold(torch.randn_like(noise), condition)

    class Oracle:
        hold = staticmethod(backbone.hold)

        def velocity(self, x, sigma, condition, guidance_scale=1.0):
            return (x - clean) / sigma.view(-1, 1, 1, 1, 1)

    levels = backbone.sigmas(5, shape=tuple(noise.shape))
    assert bool((levels.diff() < 0).all())
    assert levels[-1] == 0
    made = flow_matching.sample(Oracle(), condition, noise, steps=5, levels=levels)
    torch.testing.assert_close(made, clean, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_sampling_begins_with_start(backbone):
    """Objectives that take their own steps begin where the family's sampler does."""
    if backbone.kind != "flow":
        pytest.skip("its sampler scales the noise, and the objectives that take their own steps refuse it")
    for image in given_images(backbone):
        condition, noise = conditions(backbone, image), noise_of(backbone)
        x, level = backbone.start(noise, condition), backbone.sigmas(1, shape=tuple(noise.shape))
        v = backbone.velocity(x, level[:1], condition)
        wanted = backbone.trim(backbone.hold(x + (level[1] - level[0]) * v, condition))
        torch.testing.assert_close(backbone.sample(condition, noise, steps=1), wanted)
        if image is not None and backbone.family.startswith("hunyuan"):
            assert not torch.equal(x[:, :, 1:], noise[:, :, 1:]), "a thousandth of the first frame is in every frame"


def test_an_empty_negative_prompt_is_what_the_familys_pipeline_makes_of_it(backbone):
    image = given_images(backbone)[-1]
    condition, noise = conditions(backbone, image, negative=""), noise_of(backbone)
    ours = backbone.sample(condition, noise, steps=STEPS, guidance_scale=SCALE)
    torch.testing.assert_close(ours, theirs(backbone, condition, noise, image, negative=""), atol=1e-4, rtol=0)


def test_latents_are_normalised_on_the_way_in_and_back_on_the_way_out(backbone):
    frames = torch.rand(1, frames_of(backbone), 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    raw = backbone.vae.encode((frames * 2 - 1).transpose(1, 2)).latent_dist.mode()
    latents = backbone.encode(frames)
    mean, std = backbone.statistics()
    assert latents.shape == backbone.latent_shape(1, frames_of(backbone), SIDE, SIDE)
    torch.testing.assert_close(latents * std + mean, raw, atol=1e-5, rtol=1e-5)
    decoded = backbone.decode(latents, clamp="none")
    assert decoded.shape == frames.shape
    if not backbone.family.startswith("wan"):  # Wan's own decode clamps; its parity is checked above
        time = {"temb": torch.zeros(1)} if backbone.vae.config.get("timestep_conditioning") else {}
        own = backbone.vae.decode(raw, **time).sample.transpose(1, 2) * 0.5 + 0.5
        torch.testing.assert_close(decoded, own, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(std, torch.ones_like(std))


def test_decoding_again_in_the_backward_pass_changes_no_gradient(backbone):
    latents = clean_of(backbone).requires_grad_()
    weight = torch.randn(1, frames_of(backbone), 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    grads = [
        torch.autograd.grad((backbone.decode(latents, checkpoint=again) * weight).sum(), latents)[0] for again in (False, True)
    ]
    assert grads[0].abs().max() > 0
    torch.testing.assert_close(grads[0], grads[1], atol=1e-5, rtol=1e-4)


# ----------------------------------------------------------------------------------------------------- text and first frames


def test_guidance_goes_from_the_negative_prompt_through_the_prompt(backbone):
    condition, noise = conditions(backbone), noise_of(backbone)
    sigma = torch.tensor([0.6])
    v0, v1, v3 = (backbone.velocity(noise, sigma, condition, scale) for scale in (0.0, 1.0, 3.0))
    assert (v1 - v0).abs().max() > 1e-4
    torch.testing.assert_close(v3, v0 + 3 * (v1 - v0), atol=1e-5, rtol=1e-4)
    swapped = condition.without_prompts([True])
    torch.testing.assert_close(backbone.velocity(noise, sigma, swapped), v0, atol=1e-6, rtol=1e-5)


def test_text_is_padded_to_one_length_and_cut_beyond_it(backbone):
    short, long = backbone.encode_text(["ball"]), backbone.encode_text(["ball falls " * backbone.text_length])
    assert short.embeddings.shape == long.embeddings.shape
    image = 576 // 4 - 4 if backbone.family == "hunyuan-video-i2v" else 0  # tokens of the picture, less the assistant's header
    assert short.embeddings.shape[1] == backbone.text_length + image
    if short.mask is not None:
        assert 0 < short.mask.sum() < long.mask.sum() == backbone.text_length + image


def test_padding_changes_nothing_where_the_family_leaves_it_out_of_attention(backbone):
    condition, noise = conditions(backbone), noise_of(backbone)
    assert (condition.prompt_mask is not None) == (backbone.family in MASKED)
    if condition.prompt_mask is None:
        pytest.skip("this family attends to padding")
    other = copy.copy(condition)
    noisy = condition.prompt + 3 * torch.randn_like(condition.prompt)
    object.__setattr__(other, "prompt", torch.where(condition.prompt_mask.bool().unsqueeze(-1), condition.prompt, noisy))
    assert not torch.equal(other.prompt, condition.prompt)
    v, w = (backbone.velocity(noise, torch.tensor([0.6]), c) for c in (condition, other))
    torch.testing.assert_close(v, w, atol=1e-5, rtol=1e-4)


def test_first_frames_are_kept_or_steer_the_clip(backbone):
    if backbone.first_frames == "none":
        with pytest.raises(InputError, match="text-to-video"):
            conditions(backbone, first_frames())
        return
    noise = noise_of(backbone)
    one, other = (conditions(backbone, first_frames(seed=seed)) for seed in (0, 1))
    sampled = [backbone.sample(c, noise, steps=2) for c in (one, other)]
    assert (sampled[0] - sampled[1])[:, :, 1:].abs().max() > 1e-4
    if one.first_frame is not None:
        assert torch.equal(sampled[0][:, :, :1], one.first_frame)
        torch.testing.assert_close(one.first_frame, backbone.encode(first_frames()[:, None]))
        assert not backbone.velocity(sampled[0], torch.tensor([0.6]), one)[:, :, 0].any()
    if backbone.first_frames == "required":
        with pytest.raises(InputError, match="first frames"):
            backbone.condition(["x"])
    with pytest.raises(InputError, match="2 prompts but 1"):
        backbone.condition(["x", "y"], first_frames())


def test_batch_equals_loop(backbone):
    condition = conditions(backbone, first_frames(3) if backbone.image_to_video else None, count=3)
    noise = noise_of(backbone, (5, 6, 7))
    together = backbone.sample(condition, noise, steps=2, guidance_scale=SCALE)
    for i in range(3):
        alone = backbone.sample(condition[i : i + 1], noise[i : i + 1], steps=2, guidance_scale=SCALE)
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-4, rtol=1e-4)


def test_sizes_the_model_cannot_make_are_named(backbone):
    with pytest.raises(InputError, match=rf"frames = {frames_of(backbone) + 1}"):
        backbone.noise([0], frames_of(backbone) + 1, SIDE, SIDE)
    with pytest.raises(InputError, match="width = 3"):
        backbone.noise([0], frames_of(backbone), SIDE, 3)


# --------------------------------------------------------------------------------------------------------------------- LoRA

BLOCKS = {
    "wan": r"blocks\.\d+\.(attn[12]|ffn)\..*",
    "ltx": r"transformer_blocks\.\d+\.(attn[12]|ff)\..*",
    "cogvideox": r"transformer_blocks\.\d+\.(attn1|ff)\..*",
    "hunyuan": r"transformer_blocks\.\d+\.(attn|ff|ff_context)\..*"
    r"|single_transformer_blocks\.\d+\.(attn\..*|proj_mlp|proj_out)",
    "mochi": r"transformer_blocks\.\d+\.(attn1|ff|ff_context)\..*",
}
LAYERS = {"wan": 20, "ltx": 20, "cogvideox": 12, "hunyuan": 17, "mochi": 21}


def trainable(variant, dtype=torch.float32):
    backbone = build(variant, dtype)
    torch.manual_seed(0)
    backbone.add_lora(rank=2)
    for name, parameter in backbone.trainable():
        parameter.data = parameter.data.to(dtype)
        if "lora_B" in name:  # zero would hide the gradient of A
            torch.nn.init.normal_(parameter, std=0.1)
    return backbone


def test_lora_sits_in_the_blocks_alone_a_step_moves_it_alone_and_plain_diffusers_loads_it(variant, tmp_path):
    backbone = trainable(variant)
    adapted = {n.split(".lora_")[0] for n, m in backbone.transformer.named_modules() if ".lora_A.default" in f"{n}."}
    outside = [name for name in adapted if not re.fullmatch(BLOCKS[family_of(backbone)], name)]
    assert not outside
    assert len(adapted) == LAYERS[family_of(backbone)]
    names = [name for name, _ in backbone.trainable()]
    assert len(names) == 2 * len(adapted) * len(backbone.networks())
    before = {n: p.detach().clone() for network in backbone.networks().values() for n, p in network.named_parameters()}
    condition, noise = conditions(backbone), noise_of(backbone)
    optimizer = torch.optim.SGD([p for _, p in backbone.trainable()], lr=0.1)
    sigma = torch.tensor([0.5])
    backbone.denoising_loss(clean_of(backbone), noise, sigma, condition).sum().backward()
    optimizer.step()
    network = list(backbone.networks().values())[-1]  # the one that this noise level belongs to
    moved = {n for n, p in network.named_parameters() if not torch.equal(p, before[n])}
    assert moved
    assert all("lora_" in name for name in moved)
    assert backbone.save_lora(tmp_path / "lora") == len(names)
    plain = build(variant)
    base = plain.velocity(noise, sigma, condition)
    plain.pipeline.load_lora_weights(tmp_path / "lora")
    if plain.transformer_2 is not None:
        plain.pipeline.load_lora_weights(tmp_path / "lora" / "transformer_2", load_into_transformer_2=True)
    trained, loaded = (b.velocity(noise, sigma, condition).detach() for b in (backbone, plain))
    assert (trained - base).abs().max() > 1e-4
    torch.testing.assert_close(loaded, trained, atol=1e-5, rtol=1e-4)
    assert load_lora(build(variant), tmp_path / "lora") == len(names)


def test_gradient_through_the_last_steps_agrees_with_finite_differences(variant):
    backbone = trainable(variant, torch.float64)
    condition = conditions(backbone).to(dtype=torch.float64)
    noise = noise_of(backbone).double()
    parameters = [p for _, p in backbone.trainable()]
    weight = clean_of(backbone).double()

    def loss(grad_steps=2, checkpoint=False):
        made = backbone.sample(condition, noise, steps=2, guidance_scale=1.5, grad_steps=grad_steps, checkpoint=checkpoint)
        assert made.dtype == torch.float64
        return (made * weight).mean()

    assert not loss(0).requires_grad
    last = torch.autograd.grad(loss(1), parameters, allow_unused=True)
    both = torch.autograd.grad(loss(2, checkpoint=True), parameters, allow_unused=True)
    used = [g for g in last if g is not None]
    assert len(used) == len(parameters) // len(backbone.networks())  # the last step belongs to one expert
    assert sum(bool(g.abs().max() > 0) for g in used) >= 0.8 * len(used)
    assert any(
        (g is None) != (h is None) or (g is not None and not torch.allclose(g, h)) for g, h in zip(last, both, strict=True)
    )
    directions = [torch.randn_like(p) for p in parameters]
    step, values = 1e-3, []
    for side in (1, -1):
        with torch.no_grad():
            for p, d in zip(parameters, directions, strict=True):
                p += side * step * d
            values.append(float(loss(0)))
            for p, d in zip(parameters, directions, strict=True):
                p -= side * step * d
    slope = sum(float((g * d).sum()) for g, d in zip(both, directions, strict=True) if g is not None)
    assert slope == pytest.approx((values[0] - values[1]) / (2 * step), rel=2e-3)


# ------------------------------------------------------------------------------------------------------------------- loading


def test_saved_models_are_recognised_and_sample_the_same(backbone, tmp_path):
    backbone.save(tmp_path / "model")
    again = families.load(tmp_path / "model")
    assert type(again) is type(backbone)
    assert (again.family, again.kind, again.first_frames) == (backbone.family, backbone.kind, backbone.first_frames)
    assert not list((tmp_path / "model").rglob("*.bin"))
    noise = noise_of(backbone)
    one, other = (b.sample(conditions(b), noise, steps=2) for b in (backbone, again))
    torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
    half = families.load(tmp_path / "model", dtype=torch.bfloat16)
    assert (half.transformer.dtype, half.vae.dtype) == (torch.bfloat16, torch.float32)
    rough = half.sample(conditions(half), noise, steps=2, guidance_scale=SCALE)
    exact = backbone.sample(conditions(backbone), noise, steps=2, guidance_scale=SCALE)
    assert rough.dtype == torch.float32
    assert (rough - exact).norm() < 0.1 * exact.norm()
    assert half.decode(rough).dtype == torch.float32


def test_a_family_without_adapter_is_refused_naming_those_that_have_one(tmp_path):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "AllegroPipeline"}))
    with pytest.raises(InputError, match=r"AllegroPipeline.*no adapter.*WanPipeline.*LTXPipeline"):
        families.load(tmp_path)
    with pytest.raises(InputError, match="this adapter loads LTXPipeline"):
        families.LTXBackbone.load("tiny")
    for name, adapter in families.FAMILIES.items():
        assert hasattr(diffusers, name)
        assert name in adapter.pipelines
