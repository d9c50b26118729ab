"""What is each family's own: noise levels, first frames, text, statistics, and what it refuses."""

import re

import diffusers
import pytest
import torch
from diffusers.pipelines.mochi.pipeline_mochi import linear_quadratic_schedule
from diffusers.schedulers import scheduling_dpm_cogvideox
from tiny_backbones import build

from visviva.errors import InputError
from visviva.models.backbones import families, flow_matching
from visviva.models.backbones.lora import load_lora
from visviva.models.backbones.ltx import _pack, _unpack

HALF = torch.tensor([0.5])


# ---------------------------------------------------------------------------------------------------------------- CogVideoX


@pytest.fixture(scope="module")
def cogvideox():
    return build("cogvideox-t2v")


def test_levels_of_cogvideox_are_those_of_its_scheduler_and_lead_back_to_its_times(cogvideox):
    table = cogvideox.table()
    assert bool((table.diff() > 0).all())
    assert table[-1] == 1  # zero signal at the last time
    times = torch.arange(1000)
    assert torch.equal(cogvideox.time(table.float()), times.float())
    between = cogvideox.time(((table[500] + table[501]) / 2).reshape(1).float())
    assert between.item() == pytest.approx(500.5, abs=0.01)
    levels = cogvideox.sigmas(50)
    torch.testing.assert_close(cogvideox.time(levels[:-1]), torch.arange(999, 0, -20).float())


@pytest.mark.parametrize("steps", [1, 7, 10])
def test_sampling_cogvideox_is_ddim(cogvideox, steps):
    """Held against the textbook's DDIM at the scheduler's times; diffusers' own steps differ where steps do not divide 1000."""
    condition, noise = cogvideox.condition(["ball"], frames=9), cogvideox.noise([0], 9, 32, 32)
    ours = cogvideox.sample(condition, noise, steps=steps)
    scheduler = cogvideox.scheduler
    scheduler.set_timesteps(steps)
    x, times = noise, scheduler.timesteps.tolist()
    alphas = [float(scheduler.alphas_cumprod[t]) for t in times] + [1.0]
    with torch.no_grad():
        for i, t in enumerate(times):
            u = cogvideox._run(x, torch.tensor([float(t)]), condition.prompt, condition)
            a, b = alphas[i] ** 0.5, (1 - alphas[i]) ** 0.5
            clean, made = a * x - b * u, b * x + a * u
            x = alphas[i + 1] ** 0.5 * clean + (1 - alphas[i + 1]) ** 0.5 * made
    torch.testing.assert_close(ours, x, atol=1e-4, rtol=1e-4)


def test_loss_of_cogvideox_is_that_of_the_released_training(cogvideox):
    """Error of the clean latents that the scheduler reads off the network's answer, weighted by 1 / (1 - alpha_bar)."""
    condition, noise = cogvideox.condition(["ball"], frames=9), cogvideox.noise([0], 9, 32, 32)
    clean, t, scheduler = torch.randn_like(noise), torch.tensor([600]), cogvideox.scheduler
    mixed = scheduler.add_noise(clean, noise, t)
    u = cogvideox._run(mixed, t.float(), condition.prompt, condition)
    read = scheduler.get_velocity(u, mixed, t)
    released = ((read - clean).square() / (1 - scheduler.alphas_cumprod[t])).mean()
    ours = cogvideox.denoising_loss(clean, noise, cogvideox.table()[t].float(), condition)
    assert ours.item() == pytest.approx(released.item(), rel=1e-4)
    with pytest.raises(InputError, match=r"dpo and phygdpo in velocities, are not defined"):
        cogvideox.flow_matching_loss(clean, noise, HALF, condition)


def with_dpm(variant):
    backbone = build(variant)
    backbone.pipeline.scheduler = diffusers.CogVideoXDPMScheduler.from_config(backbone.scheduler.config)
    return type(backbone)(backbone.pipeline)


@pytest.mark.parametrize("variant", ["cogvideox-t2v", "cogvideox-i2v", "cogvideox-1.5-t2v", "cogvideox-1.5-i2v"])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_cogvideox_with_the_dpm_scheduler_is_its_own_pipeline_with_the_same_noise(variant, steps, monkeypatch):
    backbone = with_dpm(variant)
    picture = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) if backbone.image_to_video else None
    condition, noise = backbone.condition(["ball"], picture, frames=9, negative="cube"), backbone.noise([3], 9, 32, 32)
    ours = backbone.sample(condition, noise, steps=steps, guidance_scale=2.0)
    run, drawn, own = backbone.advance(noise), {}, backbone.scheduler.step

    def step(output, old, time, *rest, **options):
        drawn["now"] = run.draw(noise).transpose(1, 2)
        return own(output, old, time, *rest, **options)

    monkeypatch.setattr(backbone.scheduler, "step", step)
    monkeypatch.setattr(scheduling_dpm_cogvideox, "randn_tensor", lambda shape, **_: drawn["now"])
    monkeypatch.setattr(backbone.pipeline, "prepare_extra_step_kwargs", lambda generator, eta: {})
    given = {} if picture is None else {"image": picture}
    theirs = backbone.pipeline(
        prompt="ball", negative_prompt="cube", height=32, width=32, num_frames=9, num_inference_steps=steps, guidance_scale=2.0,
        output_type="latent", max_sequence_length=backbone.text_length, latents=noise.transpose(1, 2), **given,
    ).frames.transpose(1, 2)[:, :, backbone.padding :]  # fmt: skip
    assert theirs.std() > 0.1
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_the_noise_of_dpm_steps_belongs_to_the_clip_and_gradients_go_through_them():
    backbone = with_dpm("cogvideox-t2v")
    condition, noise = backbone.condition(["ball", "cube"], frames=9), backbone.noise([3, 4], 9, 32, 32)
    both = backbone.sample(condition, noise, steps=4)
    for i in (0, 1):
        alone = backbone.sample(condition[i : i + 1], noise[i : i + 1], steps=4)
        torch.testing.assert_close(both[i : i + 1], alone, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(*(backbone.advance(n).draw(n) for n in noise.split(1)))
    backbone.add_lora(rank=2)
    parameters = [p for _, p in backbone.trainable()]
    with torch.no_grad():
        for p in parameters:
            p += 0.05
    stored, again = (
        torch.autograd.grad(
            backbone.sample(condition, noise, steps=4, grad_steps=2, checkpoint=checkpoint).square().mean(), parameters
        )
        for checkpoint in (False, True)
    )
    assert sum(float(g.abs().max()) for g in stored) > 0
    for one, other in zip(stored, again, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_what_cogvideox_refuses(cogvideox):
    with pytest.raises(InputError, match=r"shift = 3: CogVideoX"):
        cogvideox.sigmas(10, shift=3.0)
    with pytest.raises(InputError, match="1 to 1000"):
        cogvideox.sigmas(0)
    with pytest.raises(InputError, match=r"64 x 32 pixels: .* 32 x 32"):
        build("cogvideox-i2v").noise([0], 9, 64, 32)
    parts = dict(cogvideox.pipeline.components)
    parts["scheduler"] = diffusers.CogVideoXDDIMScheduler(prediction_type="epsilon")
    with pytest.raises(InputError, match="'epsilon'"):
        type(cogvideox)(diffusers.CogVideoXPipeline(**parts))


def test_guidance_by_laws_sees_no_padding_of_cogvideox_15():
    backbone = build("cogvideox-1.5-t2v")
    condition, noise = backbone.condition(["ball"], frames=9), backbone.noise([0], 9, 32, 32)
    shapes = []

    def guide(clean, step, sigma):
        shapes.append(backbone.decode(clean).shape)
        return 0.1 * clean

    assert noise.shape[2] == 4
    guided = backbone.sample(condition, noise, steps=2, guide=guide)
    assert shapes == [(1, 9, 3, 32, 32)] * 2
    assert (guided - backbone.sample(condition, noise, steps=2)).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["cogvideox-1.5-t2v", "mochi"])
def test_the_last_step_is_taken_again_in_a_familys_own_latents(name):
    """As reward backpropagation does: padded, noised to the sampler's last level, cleaned, without padding."""
    backbone = build(name)
    frames = backbone.frame_step + 1
    condition, noise = backbone.condition(["ball"], frames=frames), backbone.noise([0], frames, 32, 32)
    sigma = float(backbone.sigmas(3, None, tuple(noise.shape))[-2])
    with torch.no_grad():
        clean = backbone.sample(condition, noise, steps=3)
        padded = backbone.pad(clean)
        assert padded.shape == noise.shape
        assert torch.equal(clean, backbone.trim(padded))
        x = (1 - sigma) * padded + sigma * noise
        wanted = x - sigma * backbone.velocity(x, torch.full((1,), sigma), condition)
        torch.testing.assert_close(flow_matching.again(backbone, condition, padded, noise, sigma=sigma), wanted)
        assert torch.equal(backbone.sample(condition, noise, steps=3, detach=True), clean)


# ---------------------------------------------------------------------------------------------------------------------- LTX


def test_tokens_of_ltx_lie_as_diffusers_packs_them():
    latents = torch.randn(2, 3, 4, 6, 8)
    for patch in ((1, 1, 1), (2, 2, 2)):
        tokens = _pack(latents, patch)
        assert torch.equal(tokens, diffusers.LTXPipeline._pack_latents(latents, patch[1], patch[0]))
        assert torch.equal(_unpack(tokens, latents.shape, patch), latents)


def test_ltx_is_told_the_frame_rate_of_each_clip():
    backbone = build("ltx-video")
    noise = backbone.noise([0, 0], 9, 32, 32)
    both = backbone.condition(["ball", "ball"], frames=9, fps=[8.0, 25.0])
    slow, fast = backbone.velocity(noise, HALF.expand(2), both)
    home = backbone.velocity(noise[:1], HALF, backbone.condition(["ball"], frames=9))[0]
    assert (slow - fast).abs().max() > 1e-4
    torch.testing.assert_close(fast, home, atol=1e-5, rtol=1e-4)


def test_the_time_shift_of_ltx_depends_on_the_clips_size():
    backbone = build("ltx-video")
    small, large = (backbone.sigmas(10, shape=(1, 8, 3, s, s)) for s in (20, 40))
    assert bool((large[1:-2] > small[1:-2]).all())
    assert small[-2].item() == pytest.approx(0.1)  # stretched to end there
    assert small[-1] == 0
    with pytest.raises(InputError, match=r"set sampler\.shift"):
        backbone.sigmas(10)
    assert backbone.sigmas(10, shift=2.0).shape == (11,)


# ------------------------------------------------------------------------------------------------------ HunyuanVideo, Mochi


def test_hunyuan_is_told_its_guidance_and_reads_the_prompt_twice():
    backbone = build("hunyuan-video")
    condition, noise = backbone.condition(["ball falls"], frames=9, negative="cube"), backbone.noise([0], 9, 32, 32)
    assert condition.prompt_pooled.shape == (1, 8)
    v = backbone.velocity(noise, HALF, condition)
    backbone.embedded_guidance = 1.0
    assert (backbone.velocity(noise, HALF, condition) - v).abs().max() > 1e-6
    backbone.embedded_guidance = 6.0
    for part in ("prompt", "prompt_pooled"):
        changed = {**condition.tensors(), part: getattr(condition, part) + 1}
        assert (backbone.velocity(noise, HALF, type(condition)(**changed)) - v).abs().max() > 1e-6
    backbone.prompt_template = {"template": "{}", "crop_start": 0}
    assert backbone.encode_text(["ball falls"]).mask.sum() == 3  # two words and the end


def test_hunyuan_image_to_video_reads_prompts_with_the_picture_and_refuses_the_older_model():
    backbone = build("hunyuan-video-i2v")
    dark, bright = (torch.full((1, 3, 32, 32), grey) for grey in (0.1, 0.9))
    one, other = (backbone.condition(["ball"], picture, frames=9) for picture in (dark, bright))
    assert one.prompt.shape == one.negative.shape
    assert (one.prompt - other.prompt).abs().max() > 1e-4
    assert torch.equal(one.negative, other.negative)
    dropped = one.without_prompts([True])
    assert torch.equal(dropped.prompt, one.negative)
    parts = dict(backbone.pipeline.components)
    parts["transformer"] = diffusers.HunyuanVideoTransformer3DModel.from_config(
        backbone.transformer.config, image_condition_type="latent_concat"
    )
    with pytest.raises(InputError, match="'latent_concat'"):
        type(backbone)(type(backbone.pipeline)(**parts))


def test_long_clips_of_hunyuan_are_decoded_in_overlapping_pieces_with_gradient():
    backbone = build("hunyuan-video")
    latents = torch.randn(1, 4, 6, 4, 4, requires_grad=True)
    frames = backbone.decode(latents, clamp="none")
    assert frames.shape == (1, 21, 3, 32, 32)
    (gradient,) = torch.autograd.grad(frames[:, -1].square().mean(), latents)
    direction = torch.randn_like(latents)
    with torch.no_grad():
        sides = [backbone.decode(latents + s * 1e-2 * direction, clamp="none")[:, -1].square().mean() for s in (1, -1)]
    assert float((gradient * direction).sum()) == pytest.approx(float(sides[0] - sides[1]) / 2e-2, rel=0.05, abs=1e-6)


def test_levels_of_mochi_are_linear_then_quadratic():
    for steps in (2, 5, 64):
        own = torch.tensor([*linear_quadratic_schedule(steps, 0.025), 0.0])
        torch.testing.assert_close(flow_matching.linear_quadratic(steps), own, atol=1e-6, rtol=0)
    assert flow_matching.linear_quadratic(1).tolist() == [1.0, 0.0]


def test_an_empty_prompt_of_mochi_blanks_itself_alone():
    backbone = build("mochi")
    text = backbone.encode_text(["ball falls", ""])
    assert text.mask.sum(1).tolist() == [3, 0]
    for i, prompt in enumerate(["ball falls", ""]):
        torch.testing.assert_close(text.embeddings[i : i + 1], backbone.encode_text([prompt]).embeddings)


# ---------------------------------------------------------------------------------------------------------------------- all

RELEASED = {  # transformer, autoencoder, pixels per step of a side, adapted layers
    "LTXPipeline": ("LTXVideoTransformer3DModel", "AutoencoderKLLTXVideo", 32, 28 * 10),
    "CogVideoXPipeline": ("CogVideoXTransformer3DModel", "AutoencoderKLCogVideoX", 16, 30 * 6),
    "HunyuanVideoPipeline": ("HunyuanVideoTransformer3DModel", "AutoencoderKLHunyuanVideo", 16, 20 * 12 + 40 * 5),
    "MochiPipeline": ("MochiTransformer3DModel", "AutoencoderKLMochi", 16, 48 * 12 - 3),
}


@pytest.mark.parametrize("name", RELEASED)
def test_released_sizes_have_the_compression_and_layers_that_the_documents_say(name):
    """Constructor defaults are those of the released models; no memory is taken on the meta device."""
    transformer, vae, step, layers = RELEASED[name]
    schedulers = {"CogVideoXPipeline": diffusers.CogVideoXDDIMScheduler(prediction_type="v_prediction")}
    scheduler = schedulers.get(name, diffusers.FlowMatchEulerDiscreteScheduler())
    text = dict.fromkeys(["tokenizer", "text_encoder"])
    text |= dict.fromkeys(["tokenizer_2", "text_encoder_2"] if name == "HunyuanVideoPipeline" else [])
    with torch.device("meta"):
        parts = {"transformer": getattr(diffusers, transformer)(), "vae": getattr(diffusers, vae)()}
    backbone = families.FAMILIES[name](getattr(diffusers, name)(scheduler=scheduler, **parts, **text))
    frames, height, width, _ = backbone.home
    shape = backbone.latent_shape(1, frames, height, width)
    assert shape[1] == backbone.transformer.config.in_channels
    assert backbone.pixel_step == step
    adapted = [n for n, _ in backbone.transformer.named_modules() if re.fullmatch(backbone.lora_targets, n)]
    assert len(adapted) == layers


def test_wan_does_not_drop_frames_in_silence():
    with pytest.raises(InputError, match=r"7 frames: .*4k \+ 1"):
        build("wan2.2-ti2v").encode(torch.rand(1, 7, 3, 32, 32))


def test_adapters_of_another_family_are_refused(tmp_path):
    other = build("ltx-video")
    other.add_lora(rank=2)
    other.save_lora(tmp_path)
    for variant in ("hunyuan-video", "cogvideox-t2v", "wan2.1-t2v"):
        with pytest.raises(InputError, match="fit"):
            load_lora(build(variant), tmp_path)


def test_captions_are_dropped_with_their_masks():
    backbone = build("mochi")
    condition = backbone.condition(["ball falls", "red cube"], frames=7, negative="a")
    mixed = condition.without_prompts([False, True])
    assert torch.equal(mixed.prompt[0], condition.prompt[0])
    assert torch.equal(mixed.prompt[1], condition.negative[1])
    assert mixed.prompt_mask.sum(1).tolist() == [3, 2]
