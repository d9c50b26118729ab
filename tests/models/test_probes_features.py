"""Appearance features: gradients to the frames, honest errors, and a surprise score that cannot see the future."""

from itertools import pairwise

import pytest
import torch
from test_probes_contract import folder, tiny_vae  # noqa: F401 (a fixture and a builder shared with the contract)

from visviva.errors import InputError
from visviva.models.probes import PatchFeatures, VAEFeatures, VJEPA2Features
from visviva.physics import MassConservation
from visviva.physics.sprites import random_sprites
from visviva.physics.violations import VIOLATIONS

FPS = torch.full((2,), 30.0)


@pytest.fixture(scope="module")
def scene():
    return random_sprites(2, seed=1, frames=9, height=32, width=32, radius=(4.0, 6.0))


def test_vae_tokens_are_the_normalised_latents(scene):
    vae = tiny_vae()
    frames = scene.render().frames
    latents = vae.encode(frames.transpose(1, 2) * 2 - 1).latent_dist.mode()
    tokens = VAEFeatures(vae)(frames, FPS).features
    assert tokens.shape == (2, latents.shape[2] * latents.shape[3] * latents.shape[4], 4)
    assert torch.allclose(tokens[0, 0], latents[0, :, 0, 0, 0], atol=1e-5)
    assert not any(p.requires_grad for p in vae.parameters())


@pytest.mark.parametrize("count", [8, 7])
def test_a_clip_length_that_the_autoencoder_cannot_take_is_refused(scene, count):
    """Its ratio is 2, but it reads frames by fours after the first and would drop the last two of seven."""
    with pytest.raises(InputError, match=f"takes 4k \\+ 1 frames, not {count}"):
        VAEFeatures(tiny_vae())(scene.render().frames[:, :count], FPS)


@pytest.mark.parametrize("distance", ["mse", "cosine"])
@pytest.mark.parametrize("build", [PatchFeatures, lambda: VAEFeatures(tiny_vae())], ids=["patches", "vae"])
def test_mass_is_conserved_by_the_clip_itself_and_lost_with_the_object(build, distance, scene):
    probe, law = build(), MassConservation(distance=distance)
    true = probe(scene.render().frames, FPS)
    values = [law(true.with_(reference=true)).value]
    for opacity in (0.7, 0.3, 0.0):
        fading = scene.with_(opacity=scene.opacity * opacity)
        values.append(law(probe(fading.render().frames, FPS).with_(reference=true)).value)
    assert float(values[0].max()) < 1e-6
    assert all(bool((later > earlier).all()) for earlier, later in pairwise(values))


def test_surprise_does_not_see_the_future(folder):  # noqa: F811
    probe = VJEPA2Features(folder)
    frames = torch.rand(2, 8, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    other = frames.clone()
    other[:, 4:] = torch.rand(2, 4, 3, 40, 40, generator=torch.Generator().manual_seed(1))

    def predicted(clip):
        seen = []
        hook = probe.model.predictor.register_forward_hook(lambda _m, _i, out: seen.append(out.last_hidden_state))
        surprise = probe.surprise(clip, context=4)
        hook.remove()
        return seen[0], surprise

    (one, surprise), (two, _) = predicted(frames), predicted(other)
    assert torch.equal(one, two)  # what is predicted from frames 1-4 does not change with frames 5-8
    assert surprise.shape == (2,)
    assert bool((surprise > 0).all())
    leaking = [
        probe.model(
            pixel_values_videos=probe.prepare(clip),
            context_mask=[torch.arange(32).expand(2, -1)],
            target_mask=[torch.arange(32, 64).expand(2, -1)],
        ).predictor_output.last_hidden_state
        for clip in (frames, other)
    ]
    assert float((leaking[0] - leaking[1]).abs().max()) > 1e-4  # the whole-model call does


def test_vjepa2_tokens_are_time_major_and_odd_clips_are_completed(folder):  # noqa: F811
    probe = VJEPA2Features(folder)
    frames = torch.rand(2, 6, 3, 40, 48, generator=torch.Generator().manual_seed(0))
    assert probe(frames, FPS).features.shape == (2, 3 * 4 * 4, 24)
    assert probe(frames[:, :5], FPS).features.shape == (2, 3 * 4 * 4, 24)
    prepared = probe.prepare(frames)
    assert prepared.shape == (2, 6, 3, 32, 32)
    assert float((prepared * torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)).mean()) == pytest.approx(0.5 - 0.449, abs=0.02)


def test_vjepa2_recomputes_activations_with_the_same_gradient(folder):  # noqa: F811
    frames = torch.rand(1, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    gradients = []
    for checkpoint in (False, True):
        leaf = frames.clone().requires_grad_()
        VJEPA2Features(folder, checkpoint=checkpoint).encode(leaf).square().sum().backward()
        gradients.append(leaf.grad)
    assert torch.allclose(gradients[0], gradients[1], atol=1e-6)
    assert float(gradients[0].abs().max()) > 0


def test_models_that_are_not_there_or_not_v_jepa_are_refused(tmp_path, folder):  # noqa: F811
    with pytest.raises(InputError, match="no V-JEPA 2 model in"):
        VJEPA2Features(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(InputError, match="of type 'bert'"):
        VJEPA2Features(tmp_path)
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(InputError, match="no safetensors weights"):
        VJEPA2Features(tmp_path)
    with pytest.raises(InputError, match="context of 3 frames does not fit 8 frames"):
        VJEPA2Features(folder).surprise(torch.rand(1, 8, 3, 32, 32), context=3)


def test_erasing_the_object_is_seen_by_every_violation_of_appearance(scene):
    probe, law = PatchFeatures(), MassConservation()
    true = probe(scene.render().frames, FPS)
    for name in ("vanish", "shrink", "fade", "empty", "noise"):
        broken = probe(VIOLATIONS[name](scene).render().frames, FPS)
        assert bool((law(broken.with_(reference=true)).value > 1e-4).all()), name
