"""Force prompts: the pictures in closed form, the encoder's shapes, and a branch that changes nothing before it is trained."""

import math

import pytest
import torch
from diffusers import WanTransformer3DModel

from visviva.errors import InputError
from visviva.models.backbones.condition import Condition
from visviva.models.control import (
    Composed,
    ForceEncoder,
    Point,
    Wind,
    control,
    force_control,
    parse_force,
    plain_control,
    table,
)


@pytest.mark.parametrize(("angle", "magnitude"), [(0, 0.0), (90, 1.0), (30, 0.4), (200, 0.7)])
def test_the_blob_goes_where_the_formula_says(angle, magnitude):
    frames, height, width = 9, 480, 360
    picture = control([Point(0.5, 0.4, angle, magnitude)], frames, height, width)
    distance = width / 8 + 3 * width / 8 * magnitude
    for t in (0, 4, 8):
        y, x = divmod(int(picture[t, 0].argmax()), width)
        assert x == pytest.approx(180 + t / 8 * distance * math.cos(math.radians(angle)), abs=0.51)
        assert y == pytest.approx(288 - t / 8 * distance * math.sin(math.radians(angle)), abs=0.51)
        assert torch.equal(picture[t, 0], picture[t, 2])
    assert float(picture.max()) <= 1
    assert float(picture[0, 0].sum()) == pytest.approx(2 * math.pi * 10**2, rel=0.01)  # sigma 20 px at 720


def test_wind_is_three_constant_channels_and_forces_add_up():
    picture = control([Wind(angle=60, speed=0.25)], 5, 8, 8)
    assert picture.shape == (5, 3, 8, 8)
    assert torch.allclose(picture[:, 0], torch.tensor(-0.5))
    assert torch.allclose(picture[:, 1].square() + picture[:, 2].square(), torch.tensor(1.0))
    assert float(picture[0, 2, 0, 0]) == pytest.approx(math.sin(math.pi / 3))
    one, two = Point(0.2, 0.2, 0, 0.5), Point(0.7, 0.7, 90, 0.5)
    assert torch.allclose(control([one, two], 5, 32, 48), control([one], 5, 32, 48) + control([two], 5, 32, 48))


def test_forces_are_read_from_words():
    assert parse_force("point:x=0.4,y=0.6,angle=30,magnitude=0.8") == Point(0.4, 0.6, 30, 0.8)
    assert parse_force("wind:angle=90, speed=0.5") == Wind(90, 0.5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("push:x=1", "no kind 'push'"),
        ("point:x=0.4,y=0.6,angle=30", "magnitude missing"),
        ("point:x=0.4,y=0.6,angle=30,magnitude=0.8,mass=3", "'mass=3' is not understood"),
        ("point:x=0.4,x=0.4,y=0.6,angle=30,magnitude=0.8", "'x' stands twice"),
        ("wind:angle=north,speed=0.5", "'north' is no number"),
        ("point:x=1.4,y=0.6,angle=30,magnitude=0.8", "outside the picture"),
        ("point:x=0.4,y=0.6,angle=30,magnitude=nan", "magnitude = nan"),
        ("point:x=0.4,y=0.6,angle=30,magnitude=8", "magnitude 8"),
        ("wind:angle=90,speed=-1", "speed -1"),
    ],
)
def test_what_is_no_force_is_refused(text, words):
    with pytest.raises(InputError, match=words):
        parse_force(text)


def test_no_force_and_wind_with_points_are_refused():
    with pytest.raises(InputError, match="no force"):
        control([], 5, 8, 8)
    with pytest.raises(InputError, match="wind together"):
        control([Wind(0, 0.5), Point(0.5, 0.5, 0, 0.5)], 5, 8, 8)


class Pushed:
    """A velocity field that saturates, as networks do: the sum of the strengths, at most 1, plus 0.1."""

    evaluations = 0

    def velocity(self, latents, sigma, condition, guidance_scale=1.0):
        self.evaluations += 1
        strength = 0.0 if condition.forces is None else condition.forces[..., 4].sum(1).clamp(max=1).view(-1, 1, 1, 1, 1)
        return torch.zeros_like(latents) + 0.1 + strength

    def hold(self, latents, condition):
        return latents


def test_composed_forces_act_each_by_itself():
    push = [Point(0.2, 0.2, 0, 0.8), Point(0.7, 0.7, 90, 0.6), Point(0.5, 0.5, 10, 0.3)]
    tables = torch.stack([table(push[:n]) for n in range(4)])
    field, latents = Pushed(), torch.zeros(4, 2, 3, 4, 4)
    condition = Condition(torch.zeros(4, 1, 2), torch.zeros(4, 1, 2), forces=tables)
    found = Composed(field).velocity(latents, torch.ones(4), condition)
    assert torch.allclose(found[:, 0, 0, 0, 0], torch.tensor([0.1, 0.9, 1.5, 1.8])), "a joint input would stop at 1.1"
    assert field.evaluations == 4
    alone = Composed(field).velocity(latents[:2], torch.ones(2), condition[[0, 1]])
    assert field.evaluations == 5, "single forces cost what they did"
    assert torch.equal(alone, field.velocity(latents[:2], torch.ones(2), condition[[0, 1]]))
    free = Condition(torch.zeros(4, 1, 2), torch.zeros(4, 1, 2))
    assert torch.equal(Composed(field).velocity(latents, torch.ones(4), free), torch.full_like(latents, 0.1))


def test_the_encoder_has_the_papers_shapes_and_keeps_the_first_frame_apart():
    encoder = ForceEncoder(8, 4)
    assert [layer[0].weight.shape[:2] for layer in encoder.layers] == [(96, 192), (32, 96)]
    pictures = torch.zeros(2, 49, 3, 32, 48)
    assert encoder(pictures).shape == (2, 32, 13, 4, 6)
    later = pictures.clone()
    later[:, 1:] = 1
    assert torch.equal(encoder(pictures)[:, :, 0], encoder(later)[:, :, 0])
    assert ForceEncoder(4, 8)(torch.zeros(1, 17, 3, 16, 16)).shape == (1, 32, 3, 4, 4)
    assert ForceEncoder(8, 1)(torch.zeros(1, 5, 3, 16, 16)).shape == (1, 32, 5, 2, 2)
    with pytest.raises(InputError, match=r"4k \+ 1 frames"):
        encoder(torch.zeros(1, 48, 3, 32, 48))
    with pytest.raises(InputError, match="power of 2"):
        ForceEncoder(8, 6)


def wan():
    torch.manual_seed(0)
    return WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=16,
        freq_dim=256, ffn_dim=32, num_layers=3, cross_attn_norm=True, qk_norm="rms_norm_across_heads", rope_max_seq_len=32,
    ).eval()  # fmt: skip


def given(seed=0, frames=3):
    make = torch.Generator().manual_seed(seed)
    return {
        "hidden_states": torch.randn(2, 4, frames, 8, 8, generator=make),
        "timestep": torch.tensor([500.0, 100.0]),
        "encoder_hidden_states": torch.randn(2, 6, 16, generator=make),
    }


def pushed(inputs, forces):
    return {**inputs, "hidden_states": torch.cat([inputs["hidden_states"], forces], 1)}


def test_at_step_zero_every_force_gives_the_backbone_bit_by_bit_and_gradients_reach_what_they_should():
    model, inputs = wan(), given()
    forces = torch.randn(2, 32, 3, 8, 8)
    with torch.no_grad():
        stock = model(**inputs).sample
    embedding, *blocks = force_control(model, blocks=2)
    with torch.no_grad():
        assert torch.equal(model(**pushed(inputs, forces)).sample, stock)
    model(**pushed(inputs, forces)).sample.square().mean().backward()
    assert all(bool(block.inject.weight.grad.any()) for block in blocks)
    assert not bool(embedding.weight.grad.any())  # behind zeros, so only from the second step on
    with torch.no_grad():
        for block in blocks:
            block.inject.weight.normal_(std=0.1)
    model.zero_grad()
    forces.requires_grad_()
    found = model(**pushed(inputs, forces)).sample
    found.square().mean().backward()
    assert bool(embedding.weight.grad.any())
    with torch.no_grad():
        embedding.weight[:, 4:].normal_(std=0.1)
        assert not torch.allclose(model(**pushed(inputs, forces.detach() + 1)).sample, model(**pushed(inputs, forces)).sample)
        plain_control(model)
        assert torch.equal(model(**inputs).sample, stock)


def test_checkpoints_and_two_shapes_in_flight_do_not_change_gradients():
    model = wan()
    parts = force_control(model, blocks=2)
    with torch.no_grad():
        for part in parts[1:]:
            part.inject.weight.normal_(std=0.1)
    grads = []
    for checkpoints in (False, True):
        if checkpoints:
            model.train().enable_gradient_checkpointing()
        model.zero_grad()
        one, two = pushed(given(0, 3), torch.ones(2, 32, 3, 8, 8)), pushed(given(1, 2), torch.ones(2, 32, 2, 8, 8))
        (model(**one).sample.square().mean() + model(**two).sample.square().mean()).backward()
        grads.append(parts[0].weight.grad.clone())
    assert bool(grads[0].any())
    assert torch.allclose(*grads, rtol=1e-4, atol=1e-8)


@torch.no_grad()
def test_weights_of_two_precisions_and_a_frozen_model():
    model, inputs = wan().bfloat16().requires_grad_(False), given()
    for name, parameter in model.named_parameters():  # as from_pretrained(torch_dtype=bfloat16) leaves it
        if any(part in name for part in model._keep_in_fp32_modules):
            parameter.data = parameter.data.float()
    inputs = {k: v.bfloat16() if v.is_floating_point() and k != "timestep" else v for k, v in inputs.items()}
    wanted = model(**inputs).sample
    parts = force_control(model, blocks=1)
    assert all(parameter.requires_grad for part in parts for parameter in part.parameters())
    forces = torch.zeros(2, 32, *inputs["hidden_states"].shape[2:], dtype=torch.bfloat16)
    assert torch.equal(model(**pushed(inputs, forces)).sample, wanted)


def test_latents_without_forces_and_other_models_are_refused():
    model = wan()
    force_control(model, blocks=1)
    with pytest.raises(InputError, match="latents of 4 channels"):
        model(**given())
    with pytest.raises(InputError, match="already"):
        force_control(model)
    with pytest.raises(InputError, match="Linear"):
        force_control(torch.nn.Linear(2, 2))
    with pytest.raises(InputError, match="4 copied blocks"):
        force_control(wan(), blocks=4)
