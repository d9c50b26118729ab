"""The Wan adapter against diffusers' own pipelines, for every member of the family, at tiny sizes of the real classes."""

import json

import diffusers
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from visviva.errors import InputError
from visviva.models.backbones.condition import Condition
from visviva.models.backbones.flow_matching import sample, sigmas
from visviva.models.backbones.tiny import tiny_wan, tokenizer
from visviva.models.backbones.wan import WanBackbone

FRAMES, SIDE = 9, 32


def _transformer(in_channels: int, image_dim: int | None = None, seed: int = 0):
    torch.manual_seed(seed)
    return diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=in_channels, out_channels=16,
        text_dim=32, freq_dim=32, ffn_dim=32, num_layers=2, image_dim=image_dim, added_kv_proj_dim=24 if image_dim else None,
        pos_embed_seq_len=None, rope_max_seq_len=32,
    )  # fmt: skip


def _wan21_vae():
    torch.manual_seed(1)
    return diffusers.AutoencoderKLWan(
        base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
    )


def _build(family: str) -> WanBackbone:
    if family == "wan2.2-ti2v":
        return tiny_wan("test")
    text = tiny_wan("test")
    shared = {
        "tokenizer": text.tokenizer, "text_encoder": text.text_encoder, "vae": _wan21_vae(),
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    }  # fmt: skip
    if family == "wan2.1-t2v":
        return WanBackbone(diffusers.WanPipeline(transformer=_transformer(16), **shared))
    if family == "wan2.2-t2v":
        pair = {"transformer": _transformer(16), "transformer_2": _transformer(16, seed=5)}
        return WanBackbone(diffusers.WanPipeline(**pair, boundary_ratio=0.875, **shared))
    if family == "wan2.2-i2v":
        pair = {"transformer": _transformer(36), "transformer_2": _transformer(36, seed=5)}
        return WanBackbone(diffusers.WanImageToVideoPipeline(**pair, boundary_ratio=0.9, **shared))
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

    torch.manual_seed(2)
    clip = CLIPVisionModel(CLIPVisionConfig(
        hidden_size=8, projection_dim=8, num_hidden_layers=2, num_attention_heads=2, image_size=32,
        intermediate_size=16, patch_size=16,
    )).eval()  # fmt: skip
    processor = CLIPImageProcessor(crop_size=32, size={"shortest_edge": 32})
    return WanBackbone(diffusers.WanImageToVideoPipeline(
        transformer=_transformer(36, image_dim=8), image_encoder=clip, image_processor=processor, **shared
    ))  # fmt: skip


FAMILIES = ["wan2.1-t2v", "wan2.1-i2v", "wan2.2-t2v", "wan2.2-i2v", "wan2.2-ti2v"]


@pytest.fixture(scope="module", params=FAMILIES)
def backbone(request: pytest.FixtureRequest) -> WanBackbone:
    return _build(request.param)


def _condition(backbone: WanBackbone, batch: int = 1) -> tuple[Condition, torch.Tensor | None]:
    image = torch.rand(batch, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) if backbone.image_to_video else None
    image = None if image is None else (image * 255).round() / 255
    return backbone.condition(["ball falls"] * batch, image, frames=FRAMES), image


def _picture(image: torch.Tensor) -> Image.Image:
    """The pipeline rescales pictures by 1/255 before CLIP but would also rescale a float tensor; so give it a picture."""
    return Image.fromarray((image[0].permute(1, 2, 0) * 255).round().byte().numpy())


def test_family_is_recognised(request: pytest.FixtureRequest, backbone: WanBackbone) -> None:
    assert backbone.family == request.node.callspec.params["backbone"]
    assert backbone.image_to_video == (not backbone.family.endswith("t2v") or backbone.family == "wan2.2-ti2v")


def test_same_seed_same_frames_as_the_diffusers_pipeline(backbone: WanBackbone) -> None:
    condition, image = _condition(backbone)
    noise = backbone.noise([3], FRAMES, SIDE, SIDE)
    levels = backbone.sigmas(4)[:-1].tolist()
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0)
    set_timesteps = scheduler.set_timesteps
    scheduler.set_timesteps = lambda steps, device=None: set_timesteps(sigmas=levels, device=device)
    backbone.pipeline.scheduler, kept = scheduler, backbone.pipeline.scheduler
    backbone.pipeline.set_progress_bar_config(disable=True)
    options = {} if image is None else {"image": _picture(image)}
    theirs = backbone.pipeline(
        prompt="ball falls", height=SIDE, width=SIDE, num_frames=FRAMES, num_inference_steps=4, guidance_scale=2.0,
        latents=noise, output_type="pt", max_sequence_length=backbone.text_length, **options,
    ).frames  # fmt: skip
    backbone.pipeline.scheduler = kept
    ours = backbone.decode(backbone.sample(condition, noise, steps=4, guidance_scale=2.0), clamp="hard")
    assert ours.shape == (1, FRAMES, 3, SIDE, SIDE)
    assert theirs.std() > 0.01
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0)


def test_velocity_is_noise_minus_clean(backbone: WanBackbone) -> None:
    """A network that knows the clean latents must be integrated back to them: this fixes the sign of v."""
    condition, _ = _condition(backbone)
    noise = backbone.noise([0], FRAMES, SIDE, SIDE)
    clean = backbone.hold(torch.randn_like(noise), condition)

    class Oracle:
        hold = staticmethod(backbone.hold)

        def velocity(self, x, sigma, condition, guidance_scale=1.0):
            return (x - clean) / sigma.view(-1, 1, 1, 1, 1)

    torch.testing.assert_close(sample(Oracle(), condition, noise, steps=5), clean, atol=1e-5, rtol=1e-5)


def test_only_the_last_steps_carry_gradient_and_checkpointing_changes_nothing(backbone: WanBackbone) -> None:
    condition, _ = _condition(backbone)
    noise = backbone.noise([1], FRAMES, SIDE, SIDE)
    weight = next(p for n, p in backbone.transformer.named_parameters() if n.endswith("ffn.net.2.weight"))
    grads = []
    for k, checkpoint in ((0, False), (1, False), (1, True), (4, False), (4, True)):
        backbone.transformer.requires_grad_(True)
        backbone.transformer.zero_grad()
        if backbone.transformer_2 is not None:
            backbone.transformer_2.requires_grad_(True)
        latents = backbone.sample(condition, noise, steps=4, grad_steps=k, checkpoint=checkpoint)
        assert latents.requires_grad == (k > 0)
        if k:
            latents.square().mean().backward()
            grads.append(None if weight.grad is None else weight.grad.clone())
    if backbone.transformer_2 is None:
        torch.testing.assert_close(grads[0], grads[1])
        torch.testing.assert_close(grads[2], grads[3])
        assert not torch.allclose(grads[0], grads[2])
    else:
        assert grads[0] is None, "the last step belongs to the low-noise expert"
        torch.testing.assert_close(grads[2], grads[3])


def test_two_experts_split_a_mixed_batch_by_noise_level() -> None:
    backbone = _build("wan2.2-t2v")
    condition, _ = _condition(backbone, batch=2)
    x = backbone.noise([0, 1], FRAMES, SIDE, SIDE)
    mixed = backbone.velocity(x, torch.tensor([0.95, 0.2]), condition)
    for row, level in ((0, 0.95), (1, 0.2)):
        alone = backbone.velocity(x[row : row + 1], torch.tensor([level]), condition[row : row + 1])
        torch.testing.assert_close(mixed[row : row + 1], alone, atol=1e-5, rtol=1e-4)


def test_flow_matching_loss_counts_only_what_is_not_given(backbone: WanBackbone) -> None:
    condition, _ = _condition(backbone)
    noise = backbone.noise([0], FRAMES, SIDE, SIDE)
    clean = backbone.hold(torch.randn_like(noise), condition)
    loss = backbone.flow_matching_loss(clean, noise, torch.tensor([0.5]), condition)
    other = clean.clone()
    other[:, :, 0] += 1 if condition.first_frame is not None else 0
    assert loss.shape == (1,)
    assert torch.isfinite(loss).all()
    if condition.first_frame is not None:
        torch.testing.assert_close(loss, backbone.flow_matching_loss(other, noise, torch.tensor([0.5]), condition))


def test_batch_equals_loop(backbone: WanBackbone) -> None:
    condition, _ = _condition(backbone, batch=3)
    noise = backbone.noise([5, 6, 7], FRAMES, SIDE, SIDE)
    together = backbone.sample(condition, noise, steps=3)
    for i in range(3):
        alone = backbone.sample(condition[i : i + 1], noise[i : i + 1], steps=3)
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-4, rtol=1e-4)


def test_lora_loads_in_plain_diffusers(backbone: WanBackbone, tmp_path) -> None:
    backbone = _build(backbone.family)
    backbone.save(tmp_path / "base")
    backbone.add_lora(rank=4)
    names = [n for n, _ in backbone.trainable()]
    layers = 2 * (8 + 2) * len(backbone.networks())
    assert len(names) == 2 * layers
    assert all("lora" in n for n in names)
    for _, p in backbone.trainable():
        torch.nn.init.normal_(p, std=0.2)
    assert backbone.save_lora(tmp_path / "lora") == len(names)
    plain = getattr(diffusers, type(backbone.pipeline).__name__).from_pretrained(tmp_path / "base")
    plain.load_lora_weights(tmp_path / "lora")
    if backbone.transformer_2 is not None:
        plain.load_lora_weights(tmp_path / "lora" / "transformer_2", load_into_transformer_2=True)
    condition, _ = _condition(backbone)
    noise = backbone.noise([0], FRAMES, SIDE, SIDE)
    trained, loaded = (b.sample(condition, noise, steps=3) for b in (backbone, WanBackbone(plain)))
    base = WanBackbone.load(tmp_path / "base").sample(condition, noise, steps=3)
    torch.testing.assert_close(trained, loaded, atol=1e-5, rtol=1e-4)
    assert (trained - base).abs().max() > 1e-3


def test_save_and_load_round_trip_and_cast(tmp_path) -> None:
    backbone = tiny_wan("test")
    backbone.vae.register_to_config(latents_mean=[0.1] * 8, latents_std=[2.0] * 8)
    backbone.save(tmp_path / "model")
    backbone.save(tmp_path / "model")  # over an existing folder
    again = WanBackbone.load(tmp_path / "model")
    condition, _ = _condition(backbone)
    noise = backbone.noise([0], FRAMES, SIDE, SIDE)
    assert torch.equal(backbone.sample(condition, noise, steps=2), again.sample(condition, noise, steps=2))
    assert again.vae.config.latents_std[0] == 2.0
    backbone.save(tmp_path / "half", dtype=torch.bfloat16)
    files = list((tmp_path / "half").rglob("*.safetensors"))
    assert {t.dtype for f in files for t in load_file(f).values()} == {torch.bfloat16}
    assert not list(tmp_path.rglob("*.bin"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["half", "model"]


def test_decode_lets_gradients_through_where_the_decoder_leaves_the_range() -> None:
    backbone = tiny_wan("test")
    latents = (torch.randn(1, 8, 3, 4, 4) * 30).requires_grad_()
    raw = backbone.decode(latents, clamp="none")
    assert raw.min() < 0 or raw.max() > 1
    grads = {}
    for clamp in ("straight_through", "hard"):
        frames = backbone.decode(latents, clamp=clamp)
        assert frames.min() >= 0
        assert frames.max() <= 1
        (grads[clamp],) = torch.autograd.grad(frames.sum(), latents)
    (raw_grad,) = torch.autograd.grad(raw.sum(), latents)
    torch.testing.assert_close(grads["straight_through"], raw_grad)
    assert not torch.allclose(grads["hard"], raw_grad)


@pytest.mark.parametrize(
    ("sizes", "word"), [((10, 32, 32), "frames = 10"), ((9, 30, 32), "height = 30"), ((9, 32, 0), "width = 0")]
)
def test_sizes_the_model_cannot_make_are_named(sizes: tuple[int, int, int], word: str) -> None:
    with pytest.raises(InputError, match=word):
        tiny_wan("test").noise([0], *sizes)


def test_wrong_family_and_missing_folder_are_refused(tmp_path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "CogVideoXPipeline"}))
    with pytest.raises(InputError, match="CogVideoXPipeline"):
        WanBackbone.load(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"model_index\.json"):
        WanBackbone.load(tmp_path / "empty")


def test_conditions_that_do_not_fit_the_family_are_refused() -> None:
    with pytest.raises(InputError, match="first frames"):
        _build("wan2.2-i2v").condition(["x"])
    with pytest.raises(InputError, match="text-to-video"):
        _build("wan2.1-t2v").condition(["x"], torch.rand(1, 3, 32, 32))
    with pytest.raises(InputError, match="2 prompts but 1"):
        tiny_wan("test").condition(["x", "y"], torch.rand(1, 3, 32, 32))


def test_sigmas_match_the_shift_formula_and_the_scheduler() -> None:
    torch.testing.assert_close(sigmas(2, 3.0), torch.tensor([1.0, 0.75, 0.0]))
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=5.0)
    scheduler.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25])
    torch.testing.assert_close(sigmas(4, 5.0), scheduler.sigmas)
    with pytest.raises(InputError, match="grad_steps"):
        tiny_wan("test").sample(_condition(tiny_wan("test"))[0], torch.zeros(1, 8, 5, 4, 4), steps=2, grad_steps=3)


def test_tokenizer_reads_numbers_digit_by_digit() -> None:
    words = tokenizer(40)
    text = "parabolic throw of a ball, speed 1.35 m/s, angle 52 degrees to the right, view 2.41 m"
    tokens = words.tokenize(text)
    assert "<unk>" not in tokens
    assert tokens[7:12] == ["1", ".", "3", "5", "m"]
    assert words(text).input_ids[-1] == words.eos_token_id


def test_condition_slices_repeats_and_concatenates() -> None:
    backbone = tiny_wan("test")
    condition, _ = _condition(backbone, batch=2)
    assert len(condition[1:]) == 1
    assert torch.equal(condition.repeat(2).prompt[1], condition.prompt[0])
    joined = Condition.cat([condition, condition])
    assert len(joined) == 4
    assert joined.image is None
    assert set(condition.tensors()) == {"prompt", "negative", "first_frame"}
