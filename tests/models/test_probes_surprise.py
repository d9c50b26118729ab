"""Surprise: V-JEPA 2 predicts without seeing the future, extrapolation predicts steady motion, the law is a norm.

The V-JEPA 2 model here is transformers' class with tiny random weights. It shows that the computation is right and
differentiable; random weights prove nothing about plausibility.
"""

import pytest
import torch
from tiny_vjepa2 import saved_vjepa2

from visviva.errors import InputError
from visviva.models.probes import Combined, Extrapolation, LucasKanade, Oracle, VJEPA2Features, VJEPA2Surprise
from visviva.physics import Measurement, MotionFloor, Term, Verifier
from visviva.physics.laws.surprise import Surprise
from visviva.physics.measurement import Probe
from visviva.physics.sprites import random_sprites, sprites
from visviva.physics.violations import VIOLATIONS

FPS = torch.tensor([30.0, 30.0])


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    return VJEPA2Features(saved_vjepa2(tmp_path_factory.mktemp("vjepa2"), crop_size=16))


def clip(seed, frames=8, side=20):
    return torch.rand(2, frames, 3, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("distance", ["cosine", "l1"])
def test_one_number_per_window_and_gradients_to_the_frames(features, distance):
    probe = VJEPA2Surprise(features, context=4, future=2, stride=2, distance=distance)
    assert isinstance(probe, Probe)
    frames = clip(0, frames=10).requires_grad_()
    measured = probe(frames, FPS)
    assert measured.surprise.shape == (2, 3)
    assert bool((measured.surprise > 0).all())
    Surprise()(measured).value.sum().backward()
    assert torch.isfinite(frames.grad).all()
    assert float(frames.grad.abs().max()) > 0
    one = probe(frames[:, 2:8].detach(), FPS).surprise[:, 0]
    assert torch.allclose(one, measured.surprise[:, 1], atol=1e-5)


def test_the_prediction_does_not_change_with_the_future_that_it_predicts(features):
    probe = VJEPA2Surprise(features, context=4, future=4)
    seen, other = clip(0), clip(0)
    other[:, 4:] = clip(1)[:, 4:]
    one, two = (probe.predict(features.encode(x[:, :4]), 16) for x in (seen, other))
    assert torch.equal(one, two)
    assert one.shape == (2, 8, 24)
    assert not torch.allclose(probe(seen, FPS).surprise, probe(other, FPS).surprise)
    assert torch.allclose(probe(seen, FPS).surprise * 0, torch.zeros(2, 1))


def test_l1_agrees_with_the_surprise_of_the_features(features):
    probe = VJEPA2Surprise(features, context=4, future=4, distance="l1")
    assert torch.allclose(probe(clip(3), FPS).surprise[:, 0], features.surprise(clip(3), context=4), atol=1e-6)


def test_windows_that_do_not_fit_are_refused(features):
    with pytest.raises(InputError, match="context of 3 frames"):
        VJEPA2Surprise(features, context=3)
    with pytest.raises(InputError, match="distance 'l2'"):
        VJEPA2Surprise(features, distance="l2")
    with pytest.raises(InputError, match="fewer than a window of 16"):
        VJEPA2Surprise(features)(clip(0), FPS)


def test_extrapolation_predicts_steady_motion_over_a_known_ground():
    """A square that moves by whole pixels, its flow known: nothing is unexpected but what it uncovers for the first time."""
    texture, alpha = torch.full((1, 1, 3, 9, 9), 0.9), torch.ones(1, 1, 9, 9)
    path = torch.stack([10.0 + 3 * torch.arange(6), torch.full((6,), 16.0)], dim=-1)[None, :, None]
    scene = sprites(torch.full((1, 3, 32, 32), 0.3), texture, alpha, path)
    drawn = scene.render()
    back = torch.zeros(1, 4, 2, 32, 32) - 3 * torch.tensor([1.0, 0.0]).view(1, 1, 2, 1, 1) * drawn.masks[:, 1:5, 0, None]
    probe = Extrapolation(Oracle(flow=back.flip(1)))
    surprise = probe(drawn.frames, FPS[:1]).surprise
    assert surprise.shape == (1, 4)
    strip = 0.6 * (27 / 1024) ** 0.5  # uncovered for the first time: what lay there is remembered instead
    assert float(surprise[0, 0]) == pytest.approx(strip, rel=0.02)
    still = Extrapolation(Oracle(flow=torch.zeros_like(back)))(drawn.frames, FPS[:1]).surprise
    assert torch.allclose(still, torch.full_like(still, 2**0.5 * strip), rtol=0.02)
    assert float(surprise[0, -1]) < 0.65 * strip


def test_extrapolation_is_surprised_by_a_teleport_when_it_happens_and_carries_gradient():
    scene = random_sprites(2, seed=1, frames=9, height=48, width=48)
    probe = Extrapolation(LucasKanade(levels=2, iterations=2))
    true = probe(scene.render().frames, FPS).surprise
    frames = VIOLATIONS["teleport"](scene).render().frames.requires_grad_()
    jump = probe(frames, FPS).surprise
    assert torch.equal((jump / true).argmax(1), torch.tensor([2, 2]))  # frame 4 is the third that is predicted
    jump.sum().backward()
    assert float(frames.grad.abs().max()) > 0
    frozen = probe(frames[:, :1].detach().expand(-1, 9, -1, -1, -1), FPS).surprise
    assert float(frozen.max()) < 1e-4


def test_it_joins_the_other_probes_and_a_verifier_reads_it():
    scene = random_sprites(2, seed=1, frames=8, height=32, width=32, radius=(4.0, 6.0))
    drawn, flow = scene.render(), LucasKanade(levels=2, iterations=2)
    probe = Combined(flow, surprise=Extrapolation(flow))
    assert probe.measures >= {"flow", "surprise"}
    assert probe.differentiable
    verifier = Verifier(probe, [Term(Surprise()), Term(MotionFloor(least=0.1))])
    alone = Extrapolation(flow)(drawn.frames, FPS)
    assert torch.allclose(verifier.score(drawn.frames, FPS).residuals["surprise"].value, Surprise()(alone).value)


def test_the_law_is_a_power_mean():
    measured = Measurement(fps=torch.ones(2), surprise=torch.tensor([[0.3, 0.5], [0.0, 0.0]]))
    assert torch.allclose(Surprise(power=1.0)(measured).value, torch.tensor([0.4, 0.0]))
    assert torch.allclose(Surprise(power=2.0)(measured).value, torch.tensor([0.17**0.5, 0.0]))
    assert torch.allclose(Surprise(power=float("inf"))(measured).value, torch.tensor([0.5, 0.0]))
    assert 0.4 < float(Surprise()(measured).value[0]) < 0.5
    with pytest.raises(InputError, match="gives no norm"):
        Surprise(power=0.5)
    with pytest.raises(InputError, match="no stretch"):
        Surprise()(Measurement(fps=torch.ones(1), surprise=torch.zeros(1, 0)))
