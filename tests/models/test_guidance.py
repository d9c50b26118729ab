"""Physics guidance: closed forms of its step, and that it lowers the residual of a sampled clip."""

from types import SimpleNamespace

import pytest
import torch

from visviva.errors import InputError
from visviva.models.backbones import flow_matching
from visviva.models.backbones.condition import Condition
from visviva.models.backbones.tiny import tiny_wan
from visviva.models.guidance import PhysicsGuidance, norm, polyak, within
from visviva.models.probes import LucasKanade, TrackedMasks
from visviva.physics import ConstantAcceleration, MotionFloor, Term, Verifier
from visviva.physics.sprites import random_sprites
from visviva.physics.verify import iou
from visviva.physics.violations import jitter

FPS = torch.tensor([8.0, 8.0])


def quadratic(frames, fps, masks=None):
    """A stand-in verifier: L = |frames|^2 / 2 per clip."""
    return SimpleNamespace(loss=frames.flatten(1).square().sum(1) / 2)


def guide(**changes):
    given = {"verifier": quadratic, "decode": lambda z: z, "fps": FPS, "steps": 4, "last": 2, "radius": 10.0, **changes}
    return PhysicsGuidance(**given)


def test_polyaks_step_of_a_quadratic_is_half_way_to_its_minimum():
    z = torch.randn(2, 3, 2, 4, 4)
    correction = guide(scale=1.0)(z, 3, 0.1)
    assert torch.allclose(correction, z / 2, atol=1e-6)
    two = guide(scale=1.0, inner=2)(z, 3, 0.1)
    assert torch.allclose(z - two, z / 4, atol=1e-6)
    assert torch.allclose(guide(scale=0.5)(z, 3, 0.1), z / 4, atol=1e-6)


def test_polyaks_step_brings_a_linear_loss_to_zero_in_one():
    g, z = torch.randn(2, 3, 2, 4, 4), torch.randn(2, 3, 2, 4, 4)
    loss = 5 + (g * z).flatten(1).sum(1)
    moved = z - polyak(loss, g)
    assert torch.allclose(5 + (g * moved).flatten(1).sum(1), torch.zeros(2), atol=1e-4)


def test_only_the_last_steps_are_guided():
    z = torch.ones(2, 3, 2, 4, 4)
    assert guide()(z, 1, 0.5) is None
    assert guide()(z, 2, 0.5) is not None
    assert guide(last=9)(z, 0, 1.0) is not None


def test_the_move_stays_within_the_radius():
    z = torch.randn(2, 3, 2, 4, 4)
    correction = guide(radius=0.05)(z, 3, 0.1)
    assert torch.allclose(norm(correction), 0.05 * norm(z), rtol=1e-5)
    short = 0.01 * z
    assert torch.equal(within(short, 0.05 * norm(z)), short)


def test_a_clip_without_gradient_is_left_alone_and_does_not_hurt_the_others():
    z = torch.randn(2, 3, 2, 4, 4)

    def first_only(frames, fps, masks=None):
        loss = frames.flatten(1).square().sum(1) / 2
        return SimpleNamespace(loss=torch.where(torch.tensor([True, False]), loss, 0.0))

    correction = guide(verifier=first_only)(z, 3, 0.1)
    assert torch.allclose(correction[0], z[0] / 2, atol=1e-6)
    assert torch.equal(correction[1], torch.zeros_like(z[1]))


def test_each_clip_is_guided_as_if_it_were_alone():
    z = torch.randn(2, 3, 2, 4, 4) * torch.tensor([1.0, 7.0]).view(2, 1, 1, 1, 1)
    together = guide(radius=0.2)(z, 3, 0.1)
    alone = [guide(radius=0.2, fps=FPS[:1])(z[i : i + 1], 3, 0.1) for i in range(2)]
    assert torch.allclose(together, torch.cat(alone), atol=1e-6)


def test_a_given_first_frame_is_held():
    z = torch.randn(2, 3, 2, 4, 4)
    correction = guide(hold_first=True)(z, 3, 0.1)
    assert torch.equal(correction[:, :, 0], torch.zeros_like(correction[:, :, 0]))
    assert correction[:, :, 1].abs().sum() > 0


def test_a_gradient_that_is_not_finite_says_what_to_do():
    def broken(frames, fps, masks=None):
        return SimpleNamespace(loss=(frames - frames).flatten(1).norm(dim=1) + (frames * 0).flatten(1).sum(1).sqrt())

    with pytest.raises(InputError, match=r"no finite gradient at sampler step 3; .*guidance\.last"):
        guide(verifier=broken)(torch.randn(2, 3, 2, 4, 4), 3, 0.1)


class Moves:
    """A denoiser of trajectories whose clean prediction is always the given one: latents (B, 2, T, 1, 1), (x, y) [px]."""

    def __init__(self, clean):
        self.clean = clean

    def velocity(self, latents, sigma, condition, guidance_scale=1.0):
        return (latents - self.clean) / sigma.view(-1, 1, 1, 1, 1)

    def hold(self, latents, condition):
        return latents


def test_guidance_turns_a_jittered_throw_into_a_parabola_at_no_loss_of_overlap():
    """Latents are trajectories and the decoder is the compositor, so that nothing but motion can be changed."""
    true = random_sprites(4, seed=3)
    broken = jitter(true)

    def decode(latents):
        return true.with_(trajectory=latents.flatten(2).transpose(1, 2).unsqueeze(2)).render().frames

    def segment(frames):
        return TrackedMasks()(frames, true.render().masks[:, :1])

    clean = broken.trajectory.squeeze(2).transpose(1, 2)[..., None, None]
    fps = torch.full((4,), 24.0)
    verifier = Verifier(LucasKanade(), [Term(ConstantAcceleration()), Term(MotionFloor(least=0.3))])
    guidance = PhysicsGuidance(verifier, decode, fps, steps=6, last=6, inner=3, radius=0.05, segment=segment)
    condition = Condition(torch.zeros(4, 1, 1), torch.zeros(4, 1, 1))
    guided = flow_matching.sample(Moves(clean), condition, torch.randn_like(clean), steps=6, guide=guidance)

    truth = true.render().masks > 0.5

    def judged(latents):
        masks = true.with_(trajectory=latents.flatten(2).transpose(1, 2).unsqueeze(2)).render().masks > 0.5
        frames = decode(latents)
        residual = verifier.score(frames, fps, masks=segment(frames)).residuals["constant_acceleration"].value
        return residual, iou(masks, truth).mean((1, 2)), (latents - clean).norm(dim=1).mean()

    (before, overlap, _), (after, kept, moved) = judged(clean), judged(guided)
    assert (after < 0.5 * before).all(), (before, after)
    assert (kept > overlap - 0.02).all(), (overlap, kept)
    assert moved < 1.5, "pixels"


def test_guidance_lowers_the_loss_through_the_real_decoder():
    """Random weights make noise, not motion: here only the chain sampler, decoder, probe, law and back is tested."""
    backbone = tiny_wan("test")
    law = ConstantAcceleration(form="eulerian", subtract_noise=False)
    verifier = Verifier(LucasKanade(), [Term(law), Term(MotionFloor(least=0.05))])
    condition = backbone.condition(["a ball falls", "a box slides"], torch.rand(2, 3, 32, 32), frames=9)
    noise = backbone.noise([1, 2], 9, 32, 32)

    def sampled(guide):
        latents = backbone.sample(condition, noise, steps=4, guide=guide)
        return verifier.score(backbone.decode(latents), FPS).loss, latents

    steered = PhysicsGuidance(verifier, backbone.decode, FPS, steps=4, last=2, inner=4, radius=0.1, hold_first=True)
    with torch.no_grad():
        plain, free = sampled(None)
        guided, moved = sampled(steered)
    assert (guided < plain).all(), (plain, guided)
    assert (norm(moved - free) < 0.3 * norm(free)).all(), "it stays near the clip that the model made"
    assert torch.equal(moved[:, :, 0], free[:, :, 0])
    assert len(steered.losses) == 8
    assert not moved.requires_grad
