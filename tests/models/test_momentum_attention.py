"""Momentum attention: the shear by its closed forms, and on the real transformer class of every family at a tiny size."""

import copy
import math

import pytest
import torch
from diffusers import (
    CogVideoXTransformer3DModel,
    HunyuanVideoTransformer3DModel,
    LTXVideoTransformer3DModel,
    MochiTransformer3DModel,
    WanTransformer3DModel,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from visviva.errors import InputError
from visviva.models.attention import (
    depth_law,
    gain,
    measured_response,
    momentum_attention,
    plain_attention,
    response,
    shear,
    spectrum,
    unshear,
)


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@settings(max_examples=25, deadline=None)
@given(st.floats(-0.4, 4), st.integers(3, 40))
def test_the_impulse_response_is_the_formula(gamma, steps):
    impulse = torch.zeros(1, 1, steps, 1, dtype=torch.float64)
    impulse[:, :, 1] = 1
    found = torch.fft.fft(shear(impulse, steps, gamma)[0, 0, 1:, 0], n=64)
    omega = 2 * torch.pi * torch.arange(64, dtype=torch.float64) / 64
    assert torch.allclose(found, response(omega, gamma), atol=1e-12)
    assert torch.allclose(found.abs(), gain(omega, gamma), atol=1e-12)


def test_it_is_a_symplectic_map_of_place_and_momentum():
    matrix, form = torch.tensor([[1.0, 0.7], [0.0, 1.0]]), torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    assert float(torch.linalg.det(matrix)) == 1.0
    assert torch.equal(matrix.T @ form @ matrix, form)
    q = random(1, 1, 6, 1)
    p = q.diff(dim=2, prepend=q[:, :, :1])
    assert torch.allclose(
        shear(q, 6, 0.7)[0, 0, :, 0], (torch.stack([q, p], -1) @ matrix.T.double())[0, 0, :, 0, 0], atol=1e-15
    )


def test_it_is_undone_and_zero_is_nothing():
    x = random(2, 3, 24, 5)
    assert torch.allclose(unshear(shear(x, 8, 0.9), 8, 0.9), x, atol=1e-12)
    assert shear(x, 8, 0.0) is x
    assert torch.equal(shear(x, 8, torch.zeros(3)), x)
    half = x.bfloat16()
    assert torch.equal(shear(half, 8, torch.zeros(3)), half)


def test_a_constant_has_momentum_only_where_rope_turns_it():
    theta, z = 0.3, torch.tensor([1.0, 0.5], dtype=torch.float64)
    still = z.expand(1, 1, 10, 2)
    assert torch.equal(shear(still, 10, 1.0), still)
    angle = theta * torch.arange(10, dtype=torch.float64)
    turn = torch.stack([torch.stack([angle.cos(), -angle.sin()], -1), torch.stack([angle.sin(), angle.cos()], -1)], -2)
    turned = (turn @ z)[None, None]
    p = (shear(turned, 10, 1.0) - turned)[0, 0, 1:]
    assert torch.allclose(p.norm(dim=-1), 2 * math.sin(theta / 2) * z.norm(), atol=1e-12)


def test_differences_are_over_frames_at_one_place_and_heads_have_their_own_strength():
    x = random(1, 2, 12, 3)
    video = x.view(1, 2, 4, 3, 3)
    found = shear(x, 4, torch.tensor([0.5, 0.0], dtype=torch.float64)).view_as(video)
    assert torch.allclose(found[:, 0, 1:], 1.5 * video[:, 0, 1:] - 0.5 * video[:, 0, :-1])
    assert torch.equal(found[:, 0, 0], video[:, 0, 0])
    assert torch.equal(found[:, 1], video[:, 1])
    later = shear(x, 4, 0.5, zero_first=2).view_as(video)
    assert torch.equal(later[:, :, :2], video[:, :, :2])
    central = shear(x, 4, 1.0, "central").view_as(video)
    assert torch.allclose(central[:, :, 1:3] - video[:, :, 1:3], (video[:, :, 2:] - video[:, :, :2]) / 2)
    forward = shear(x, 4, 1.0, "forward").view_as(video)
    assert torch.allclose(forward[:, :, :3], video[:, :, 1:])
    assert torch.equal(forward[:, :, 3], video[:, :, 3])


@pytest.mark.parametrize("difference", ["backward", "forward", "central"])
@pytest.mark.parametrize("gamma", [0.3, 2.0, torch.tensor([0.3, 2.0])], ids=str)
def test_half_precision_is_the_shear_in_float32_rounded_once(gamma, difference):
    x = random(1, 2, 12, 3).bfloat16()
    exact = shear(x.float(), 4, gamma, difference)
    found = shear(x, 4, gamma, difference)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, exact.bfloat16())


@pytest.mark.parametrize("difference", ["backward", "forward", "central"])
def test_its_gradients_are_those_of_finite_differences(difference):
    x, gamma = random(1, 2, 8, 2).requires_grad_(), torch.tensor([0.3, 1.5], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *given: shear(given[0], 4, given[1], difference), (x, gamma))


def test_tokens_outside_the_named_ones_stay_and_what_was_given_is_not_changed():
    x = random(1, 2, 3, 17).transpose(2, 3)
    before = x.clone()
    found = shear(x, 4, 0.5, first=3, count=12)
    assert torch.equal(x, before)
    assert torch.equal(found[:, :, 3:15], shear(x[:, :, 3:15], 4, 0.5))
    assert torch.equal(found[:, :, :3], x[:, :, :3])
    assert torch.equal(found[:, :, 15:], x[:, :, 15:])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 5}, "12 tokens are not 5 steps"),
        ({"difference": "sideways"}, "'sideways'"),
        ({"zero_first": 0}, "zero_first 0"),
        ({"zero_first": 4}, "zero_first 4 of 4"),
        ({"first": 1, "count": 12}, "12 tokens from 1 on are not within 12"),
    ],
)
def test_what_makes_no_sense_is_refused(options, words):
    with pytest.raises(InputError, match=words):
        shear(random(1, 1, 12, 2), **{"steps": 4, "gamma": 1.0, **options})


def test_the_depth_law_is_the_papers():
    assert [round(depth_law(n), 2) for n in (1, 2, 4, 12, 40)] == [4.17, 2.50, 1.49, 0.66, 0.27]


def test_the_measured_response_is_the_formula_and_the_plot_ends_at_the_nyquist_gain():
    q = random(2, 2, 64 * 3, 16)
    omega, found = measured_response(q, shear(q, 64, torch.tensor([0.5, 2.0], dtype=torch.float64)), 64)
    for head, gamma in enumerate((0.5, 2.0)):
        assert float((found[head] - response(omega, gamma)).abs().max()) < 0.06 * (1 + 2 * gamma)
    assert float(spectrum(0.5).decibel[-1]) == pytest.approx(20 * math.log10(2))


def wan():
    model = WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=16,
        freq_dim=256, ffn_dim=32, num_layers=2, cross_attn_norm=True, qk_norm="rms_norm_across_heads", rope_max_seq_len=32,
    )  # fmt: skip
    given = {
        "hidden_states": random(1, 4, 3, 8, 8),
        "timestep": torch.tensor([500.0]),
        "encoder_hidden_states": random(1, 6, 16),
    }
    return model, given


def ltx():
    model = LTXVideoTransformer3DModel(
        in_channels=8, out_channels=8, patch_size=1, patch_size_t=1, num_attention_heads=4, attention_head_dim=8,
        cross_attention_dim=32, num_layers=1, caption_channels=32,
    )  # fmt: skip
    given = {
        "hidden_states": random(1, 24, 8), "timestep": torch.tensor([500.0]), "encoder_hidden_states": random(1, 6, 32),
        "encoder_attention_mask": torch.ones(1, 6, dtype=torch.bool), "num_frames": 3, "height": 2, "width": 4,
    }  # fmt: skip
    return model, given


def cogvideox():
    model = CogVideoXTransformer3DModel(
        num_attention_heads=4, attention_head_dim=8, in_channels=4, out_channels=4, time_embed_dim=2, text_embed_dim=32,
        num_layers=1, sample_width=4, sample_height=4, sample_frames=9, patch_size=2, temporal_compression_ratio=4,
        max_text_seq_length=6,
    )  # fmt: skip
    given = {"hidden_states": random(1, 3, 4, 4, 4), "timestep": torch.tensor([500]), "encoder_hidden_states": random(1, 6, 32)}
    return model, given


def hunyuan():
    model = HunyuanVideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=10, num_layers=1, num_single_layers=1,
        num_refiner_layers=1, patch_size=1, patch_size_t=1, guidance_embeds=True, text_embed_dim=16, pooled_projection_dim=8,
        rope_axes_dim=(2, 4, 4),
    )  # fmt: skip
    given = {
        "hidden_states": random(1, 4, 3, 4, 4), "timestep": torch.tensor([500.0]), "encoder_hidden_states": random(1, 6, 16),
        "encoder_attention_mask": torch.ones(1, 6), "pooled_projections": random(1, 8), "guidance": torch.tensor([1000.0]),
    }  # fmt: skip
    return model, given


def mochi():
    model = MochiTransformer3DModel(
        patch_size=2, num_attention_heads=2, attention_head_dim=8, num_layers=2, pooled_projection_dim=16, in_channels=12,
        out_channels=None, qk_norm="rms_norm", text_embed_dim=32, time_embed_dim=4, activation_fn="swiglu",
        max_sequence_length=6,
    )  # fmt: skip
    given = {
        "hidden_states": random(1, 12, 3, 4, 4), "timestep": torch.tensor([500.0]), "encoder_hidden_states": random(1, 6, 32),
        "encoder_attention_mask": torch.ones(1, 6, dtype=torch.bool),
    }  # fmt: skip
    return model, given


every_family = pytest.mark.parametrize("family", [wan, ltx, cogvideox, hunyuan, mochi], ids=lambda f: f.__name__)


def made(family):
    torch.manual_seed(0)
    model, given = family()
    with torch.no_grad():  # what starts at zero would hide the blocks
        for weight in model.parameters():
            if not bool(weight.any()):
                weight.normal_(std=0.1)
    given = {k: v.float() if isinstance(v, torch.Tensor) and v.is_floating_point() else v for k, v in given.items()}
    return model.eval(), given


@every_family
@pytest.mark.parametrize("before_rope", [False, True])
def test_a_strength_of_zero_is_the_stock_model_bit_by_bit_and_others_are_not(family, before_rope):
    model, given = made(family)
    with torch.no_grad():
        stock = model(**given).sample
        for learned in (False, True):
            momentum_attention(model, 0.0, learned=learned, before_rope=before_rope)
            assert torch.equal(model(**given).sample, stock)
            plain_attention(model)
        momentum_attention(model, 0.5, before_rope=before_rope)
        moved = model(**given).sample
        plain_attention(model)
        assert torch.equal(model(**given).sample, stock)
    assert float((moved - stock).abs().max()) > 1e-5


@every_family
def test_only_what_the_sides_name_is_sheared_and_text_stays(family):
    model, given = made(family)
    seen = {}
    for sides in ("q", "k", "qk"):
        momentum_attention(model, 0.5, sides=sides)
        with torch.no_grad():
            seen[sides] = model(**given).sample
        plain_attention(model)
    assert not torch.allclose(seen["q"], seen["k"], atol=1e-6)
    assert not torch.allclose(seen["qk"], seen["k"], atol=1e-6)
    processor = momentum_attention(model, 0.5)[0]
    processor.grid = (3, 2, 2)
    tokens = random(1, processor.heads, 18, 8, dtype=torch.float32)
    found = processor.sheared(tokens)
    text, video = (slice(0, 6), slice(6, 18)) if family is cogvideox else (slice(12, 18), slice(0, 12))
    assert torch.equal(found[:, :, text], tokens[:, :, text])
    assert torch.allclose(found[:, :, video], shear(tokens[:, :, video], 3, 0.5))


@every_family
def test_gradients_of_a_learned_strength_are_the_same_with_checkpoints_and_two_shapes_in_flight(family):
    model, given = made(family)
    processors = momentum_attention(model, 0.1, learned=True)
    assert all(any(p is q for q in model.parameters()) for p in (processor.gamma for processor in processors))
    other = shorter(family, given)
    grads = []
    for checkpoints in (False, True):
        if checkpoints:
            model.train().enable_gradient_checkpointing()
        model.zero_grad()
        (model(**given).sample.square().mean() + model(**other).sample.square().mean()).backward()
        grads.append(torch.stack([processor.gamma.grad for processor in processors]))
    assert bool((grads[0] != 0).any())
    assert torch.allclose(*grads, rtol=1e-4, atol=1e-9)


def shorter(family, given):
    """The same input with two frames."""
    x = given["hidden_states"]
    if family is ltx:
        return {**given, "hidden_states": x[:, :16], "num_frames": 2}
    return {**given, "hidden_states": x[:, :2] if family is cogvideox else x[:, :, :2]}


def test_it_is_an_arrow_of_time():
    model, given = made(wan)
    model.rope.register_forward_hook(lambda module, args, out: (torch.ones_like(out[0]), torch.zeros_like(out[1])))
    for gamma, turns in ((0.0, False), (0.5, True)):
        momentum_attention(model, gamma)
        with torch.no_grad():
            there = model(**given).sample.flip(2)
            back = model(**{**given, "hidden_states": given["hidden_states"].flip(2)}).sample
        plain_attention(model)
        assert (float((there - back).abs().max()) > 1e-3) == turns


@pytest.mark.parametrize(
    ("options", "words"),
    [({"sides": "v"}, "'v'"), ({"difference": "up"}, "'up'"), ({"gamma": math.nan}, "gamma nan"), ({"gamma": math.inf}, "inf")],
)
def test_unknown_options_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        momentum_attention(made(wan)[0], **{"gamma": 0.5, **options})


def test_what_is_no_video_transformer_and_what_has_momentum_already_is_refused():
    with pytest.raises(InputError, match="Linear"):
        momentum_attention(torch.nn.Linear(2, 2), 0.5)
    model = made(wan)[0]
    momentum_attention(model, 0.5)
    with pytest.raises(InputError, match="already"):
        momentum_attention(model, 0.5)


@torch.no_grad()
@pytest.mark.parametrize("before_rope", [False, True])
def test_compiled_it_is_sheared_once(before_rope):
    model, given = made(wan)
    momentum_attention(model, 0.5, before_rope=before_rope)
    wanted = model(**given).sample
    torch._dynamo.reset()
    found = torch.compile(model, backend="eager")(**given).sample
    assert torch.allclose(found, wanted, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("before_rope", [False, True])
def test_a_copy_has_strengths_of_its_own(before_rope):
    model, given = made(wan)
    momentum_attention(model, 0.5, learned=True, before_rope=before_rope)
    wanted = model(**given).sample
    other = copy.deepcopy(model)
    for name, parameter in other.named_parameters():
        if name.endswith("gamma"):
            parameter.fill_(2.0)
    assert float((other(**given).sample - wanted).abs().max()) > 1e-3
    assert torch.equal(model(**given).sample, wanted)
    plain_attention(other)
    plain_attention(model)
    assert torch.equal(other(**given).sample, model(**given).sample)


def test_what_diffusers_would_lose_is_not_saved(tmp_path):
    model, _ = made(wan)
    momentum_attention(model, 0.5)
    with pytest.raises(InputError, match="plain_attention"):
        model.save_pretrained(tmp_path)
    plain_attention(model)
    model.save_pretrained(tmp_path)
    assert (tmp_path / "config.json").is_file()


def test_attention_that_goes_another_way_is_an_error_and_not_plain_attention():
    model, given = made(wan)
    for processor in momentum_attention(model, 0.5):
        processor.inner = lambda attn, hidden, *rest: hidden
    with pytest.raises(InputError, match="scaled_dot_product_attention"):
        model(**given)
