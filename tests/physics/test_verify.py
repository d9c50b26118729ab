"""The verifier adds what its laws say, refuses what cannot be verified, and its loss and score are one computation."""

import pytest
import torch

from visviva.errors import InputError
from visviva.models.probes import DIS, Combined, LucasKanade, Oracle, PatchFeatures
from visviva.physics import (
    ConstantAcceleration,
    Gate,
    MassConservation,
    Measurement,
    MotionFloor,
    ReferenceFlow,
    Term,
    Verifier,
)
from visviva.physics.sprites import random_sprites
from visviva.physics.verify import iou
from visviva.physics.violations import VIOLATIONS

FPS = torch.full((3,), 32.0)
KINEMATIC = [Term(ConstantAcceleration(), 0.5), Term(MotionFloor(least=0.4), 2.0)]


@pytest.fixture(scope="module")
def drawn():
    return random_sprites(3, seed=1).render()


def test_the_loss_is_the_weighted_sum_and_its_gradient_reaches_the_frames(drawn):
    frames = VIOLATIONS["jitter"](random_sprites(3, seed=1)).render().frames.requires_grad_()
    verdict = Verifier(LucasKanade(), KINEMATIC)(frames, FPS, drawn.masks)
    parts = verdict.residuals
    assert set(parts) == {"constant_acceleration", "motion_floor"}
    assert torch.allclose(verdict.loss, 0.5 * parts["constant_acceleration"].value + 2.0 * parts["motion_floor"].value)
    verdict.loss.sum().backward()
    assert float(frames.grad.abs().max()) > 0
    assert torch.isfinite(frames.grad).all()
    assert all(not value.requires_grad for value in verdict.diagnostics.values())


def test_a_small_step_along_the_gradient_lowers_the_loss(drawn):
    frames = VIOLATIONS["jitter"](random_sprites(3, seed=1)).render().frames.requires_grad_()
    verifier = Verifier(LucasKanade(), KINEMATIC)
    before = verifier(frames, FPS, drawn.masks).loss
    (gradient,) = torch.autograd.grad(before.sum(), frames)
    step = 0.01 * gradient / gradient.flatten(1).abs().amax(1).view(-1, 1, 1, 1, 1)
    after = verifier.score((frames - step).detach(), FPS, drawn.masks).loss
    assert bool((after < before).all())


def test_score_is_loss_without_gradient(drawn):
    verifier = Verifier(LucasKanade(), KINEMATIC)
    loss, score = verifier(drawn.frames, FPS, drawn.masks), verifier.score(drawn.frames, FPS, drawn.masks)
    assert torch.equal(loss.loss, score.loss)
    assert torch.allclose(score.reward, torch.exp(-score.loss))
    assert bool(score.valid.all())


def test_masks_may_be_boolean_and_a_batch_is_its_clips(drawn):
    verifier = Verifier(LucasKanade(), KINEMATIC)
    whole = verifier.score(drawn.frames, FPS, drawn.masks > 0.5).loss
    parts = [verifier.score(drawn.frames[i : i + 1], FPS[:1], drawn.masks[i : i + 1] > 0.5).loss for i in range(3)]
    assert torch.allclose(whole, torch.cat(parts), atol=1e-5)


def test_trivial_laws_are_refused_without_an_anchor_unless_allowed():
    with pytest.raises(InputError, match=r"a frozen or empty clip satisfies 'constant_acceleration'"):
        Verifier(LucasKanade(), [Term(ConstantAcceleration())])
    with pytest.raises(InputError, match=r"frozen"):
        Verifier(LucasKanade(), [Term(ConstantAcceleration()), Term(MotionFloor(), 0.0)])
    Verifier(LucasKanade(), [Term(ConstantAcceleration())], allow_trivial=True)
    Verifier(LucasKanade(), [Term(ConstantAcceleration()), Term(ReferenceFlow())])


def test_what_a_probe_does_not_measure_is_refused_at_once():
    with pytest.raises(InputError, match=r"needs features, but the probe 'lucas_kanade' measures only"):
        Verifier(LucasKanade(), [Term(MassConservation())])
    Verifier(Combined(LucasKanade(), features=PatchFeatures()), [Term(MassConservation())])


def test_a_law_that_needs_a_reference_is_an_error_where_there_is_none(drawn):
    verifier = Verifier(LucasKanade(), [Term(ReferenceFlow())])
    with pytest.raises(InputError, match=r"'reference_flow' needs 'reference'.*give the paired true clip"):
        verifier.score(drawn.frames, FPS)
    reference = verifier.measure(drawn.frames, FPS)
    assert float(verifier.score(drawn.frames, FPS, reference=reference).loss.max()) == 0


def test_the_reference_carries_no_gradient(drawn):
    verifier = Verifier(LucasKanade(), [Term(ReferenceFlow())])
    true = drawn.frames.clone().requires_grad_()
    reference = verifier.measure(true, FPS)
    verdict = verifier(
        VIOLATIONS["freeze"](random_sprites(3, seed=1)).render().frames.requires_grad_(), FPS, reference=reference
    )
    verdict.loss.sum().backward()
    assert true.grad is None


def test_a_probe_without_gradient_scores_but_gives_no_loss(drawn):
    verifier = Verifier(DIS(), KINEMATIC)
    with pytest.raises(InputError, match=r"use verifier.score"):
        verifier(drawn.frames, FPS)
    assert torch.isfinite(verifier.score(drawn.frames, FPS).loss).all()


def test_misuse_is_refused_in_one_sentence(drawn):
    with pytest.raises(InputError, match=r"without laws"):
        Verifier(LucasKanade(), [])
    with pytest.raises(InputError, match=r"stands twice"):
        Verifier(LucasKanade(), [*KINEMATIC, Term(MotionFloor())])
    with pytest.raises(InputError, match=r"weight -1.0"):
        Term(MotionFloor(), -1.0)
    with pytest.raises(InputError, match=r"finite numbers"):
        Verifier(LucasKanade(), KINEMATIC).score(drawn.frames * float("nan"), FPS)


def test_diagnostics_tell_a_frozen_and_an_emptied_clip_from_a_true_one():
    scene = random_sprites(3, seed=1)
    true = scene.render()

    def seen(name):
        clip = VIOLATIONS[name](scene).render()
        reference = Measurement(fps=FPS, flow=true.flow, masks=true.masks)
        return Verifier.diagnose(Measurement(fps=FPS, flow=clip.flow, masks=clip.masks, reference=reference))

    frozen, emptied = seen("freeze"), seen("empty")
    assert set(frozen) == {"motion_energy", "object_area", "object_area_change", "iou"}
    assert float(frozen["motion_energy"].max()) == 0
    assert float(frozen["object_area_change"].abs().max()) < 0.01
    assert float(emptied["object_area_change"].max()) == -1
    assert float(emptied["iou"].max()) < 0.1
    same = Measurement(fps=FPS, flow=true.flow, masks=true.masks)
    assert float(Verifier.diagnose(same.with_(reference=same))["iou"].min()) == 1


def test_iou_of_two_empty_masks_is_one():
    empty, half = torch.zeros(2, 2, dtype=torch.bool), torch.tensor([[True, True], [False, False]])
    assert float(iou(empty, empty)) == 1
    assert float(iou(empty, half)) == 0
    assert float(iou(half, torch.ones(2, 2, dtype=torch.bool))) == 0.5


def test_a_gate_enters_the_reward_and_not_the_loss(drawn):
    plain = Verifier(LucasKanade(), KINEMATIC).score(drawn.frames, FPS, drawn.masks)
    still = Oracle(flow=torch.zeros_like(drawn.flow))
    gated = Verifier(LucasKanade(), KINEMATIC, gate=Gate(still)).score(drawn.frames, FPS, drawn.masks)
    assert torch.equal(plain.loss, gated.loss)
    assert bool((gated.diagnostics["disagreement"] > 0.5).all())
    assert bool((gated.reward < 0.5 * plain.reward).all())
    assert torch.allclose(gated.log_reward, -gated.loss - gated.doubt)


def test_what_cannot_be_measured_earns_no_reward(drawn):
    verifier = Verifier(Oracle(flow=drawn.flow, masks=drawn.masks), KINEMATIC)
    blinking = drawn.masks.clone()
    blinking[:, 1::2] = 0
    seen = verifier.score(drawn.frames, FPS)
    unseen = Verifier(Oracle(flow=drawn.flow, masks=blinking), KINEMATIC).score(drawn.frames, FPS)
    assert not bool(unseen.residuals["constant_acceleration"].valid.any())
    assert torch.equal(seen.unmeasured, torch.zeros(len(FPS)))
    assert torch.equal(unseen.unmeasured, torch.ones(len(FPS)))
    assert bool((unseen.log_reward < seen.log_reward - 10).all())
