"""Accelerations held against forces while sampling, with and without EMG; tiny sizes, real classes."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from tiny_motion import tiny_pipeline

from visviva.cli import main
from visviva.data.actions import draw
from visviva.data.motions.emg import MUSCLES, activations, drives, emg
from visviva.errors import InputError
from visviva.eval.motion.labels import labels
from visviva.models.biomechanics.biodynamics import AFTER, BEFORE, Biodynamics
from visviva.physics.motion_laws import EulerLagrange
from visviva.physics.motion_laws.body import fitted, window_of
from visviva.pipelines.motion.consistency import AccelerationConsistency
from visviva.pipelines.motion.pipeline import MotionPipeline, load
from visviva.pipelines.motion.steering import features_of

TRUTH = draw(["walk", "squat", "kick", "wave"], seed=123, fps=60.0, seconds=2.2)


@pytest.fixture(scope="module")
def pipeline():
    return tiny_pipeline(["jump", "walk"])


@pytest.fixture(scope="module")
def signal():
    """EMG of `TRUTH` from its third frame on, 1 kHz."""
    torque = labels(TRUTH.joints, TRUTH.rotations, TRUTH.stature, TRUTH.fps).torque.float()
    return emg(activations(drives(torque[:, ::2]), 30.0), 30.0, seed=0)


def true_joints(fps):
    return TRUTH.joints[:, 2 : 2 + 120 : round(60 / fps)].float()


def test_weight_zero_is_the_plain_sampler_bit_by_bit(pipeline):
    plain = pipeline(["jump"], seconds=1.0, steps=4)
    none = pipeline(["jump"], seconds=1.0, steps=4, consistency=AccelerationConsistency(pipeline.transformer, 0.0))
    assert torch.equal(plain.features, none.features)
    assert torch.equal(plain.joints, none.joints)


def test_a_motion_that_obeys_hardly_moves_and_one_that_hovers_does(pipeline):
    lengths, fps = torch.tensor([40]), torch.tensor([20.0])
    true = true_joints(20.0)[1:2]
    clean = pipeline.transformer.normalised(features_of(true, 20.0))
    hovering = pipeline.transformer.normalised(features_of(true + torch.tensor([0.0, 0.0, 1.0]), 20.0))
    change = AccelerationConsistency(pipeline.transformer, 10.0)
    assert torch.equal(change(clean, lengths, fps, share=0.0), clean)

    def shift(x):
        one, two = (pipeline.joints(pipeline.transformer.denormalised(f), 20.0) for f in (x, change(x, lengths, fps)))
        return float((two - one).norm(dim=-1).mean())

    assert shift(clean) < 0.01
    assert shift(hovering) > 4 * shift(clean)


def test_generated_motions_violate_less_and_are_not_slower():
    shipped, law = load("tiny"), EulerLagrange()
    options = {"seconds": 2.0, "steps": 8, "seeds": [20, 21, 22, 23]}
    ways = (None, AccelerationConsistency(shipped.transformer, 1.0))
    texts = ["a person runs forward", "a person kicks with the left leg", "a person marches in place", "a person jumps up"]
    one, two = (shipped(texts, **options, consistency=way).joints for way in ways)
    before, after = (float(law(x, 20.0, torch.full((4,), 40)).value.mean()) for x in (one, two))
    assert after < 0.9 * before
    assert float(two.diff(dim=1).norm(dim=-1).mean()) > 0.97 * float(one.diff(dim=1).norm(dim=-1).mean())


def test_motions_of_other_lengths_do_not_disturb_each_other(pipeline):
    options = {"seconds": [2.0, 1.5], "steps": 6}
    held = pipeline(["jump", "walk"], **options, consistency=AccelerationConsistency(pipeline.transformer, 1.0))
    alone = pipeline(["walk"], seconds=1.5, steps=6, seeds=[1], consistency=AccelerationConsistency(pipeline.transformer, 1.0))
    assert torch.allclose(held.joints[1, :30], alone.joints[0], atol=1e-3)


def test_early_estimates_move_by_alpha_bar_and_other_schedulers_will_do(pipeline):
    shares = []

    class Looking(AccelerationConsistency):
        def __call__(self, clean, lengths, fps, share=1.0, told=None):
            shares.append(share)
            return super().__call__(clean, lengths, fps, share, told)

    pipeline(["jump"], seconds=1.0, steps=5, speed=1.3, consistency=Looking(pipeline.transformer))
    wanted = pipeline.scheduler.alphas_cumprod[pipeline.scheduler.timesteps]
    assert shares == pytest.approx(wanted.tolist())
    assert shares == sorted(shares)
    solver = DPMSolverMultistepScheduler(num_train_timesteps=50, beta_schedule="squaredcos_cap_v2", prediction_type="sample")
    other = MotionPipeline(pipeline.transformer, pipeline.text_encoder, solver)
    found = other(["jump"], seconds=1.0, steps=4, consistency=AccelerationConsistency(pipeline.transformer))
    assert found.joints.isfinite().all()


def test_at_30_frames_the_muscles_network_is_asked_what_it_was_trained_on(pipeline, signal):
    change = AccelerationConsistency(pipeline.transformer)
    joints = true_joints(30.0)
    own = torch.full((4, len(joints[0]) - window_of(30.0) + 1, 22, 3), torch.nan)
    told = change.told(signal, len(joints[0]), 30.0)
    with torch.no_grad():
        found = change.driven(joints, own, 30.0, told)
        asked = [
            Biodynamics.load()(joints[:, k], 30 * (joints[:, k] - joints[:, k - 1]), signal[..., at - BEFORE : at + AFTER])
            for k in range(20, 27)
            for at in [round(k * 1000 / 30)]
        ]
    steps = torch.cat((torch.zeros(2, 4, 22, 3), torch.stack(asked).cumsum(0).cumsum(0) / 900))
    wanted = fitted(steps[None], 30.0, 9)[2][0, 0]
    assert torch.allclose(found[:, 19], wanted, atol=1e-3)
    assert bool(found[:, :4].isnan().all())
    assert bool(found[:, 5:40].isfinite().all())


@pytest.mark.parametrize("fps", [20.0, 30.0])
def test_muscles_tell_their_own_motion_from_others(pipeline, signal, fps):
    change = AccelerationConsistency(pipeline.transformer)
    joints = true_joints(fps)
    own = fitted(joints, fps, window_of(fps))[2]
    with torch.no_grad():
        right, wrong = (
            change.driven(joints, own, fps, change.told(s, len(joints[0]), fps)) for s in (signal, signal.roll(1, 0))
        )
    assert float((right - own).abs().mean()) < 0.9 * float((wrong - own).abs().mean())


def test_a_frozen_body_does_not_stay_so_under_emg_and_its_own_is_told_from_others(pipeline, signal):
    change, lengths, fps = AccelerationConsistency(pipeline.transformer), torch.full((4,), 40), torch.tensor([20.0])
    network, true = pipeline.transformer, true_joints(20.0)
    frozen = network.normalised(features_of(true.mean(1, keepdim=True).expand_as(true), 20.0))

    def accelerations(rows):
        return fitted(pipeline.joints(network.denormalised(rows), 20.0), 20.0, 5)[2]

    own = accelerations(network.normalised(features_of(true, 20.0)))
    found = [frozen, *(change(frozen, lengths, fps, told=change.told(s, 40, 20.0)) for s in (signal, signal.roll(1, 0)))]
    none, right, wrong = (float((accelerations(x) - own)[:, 5:30].abs().mean()) for x in found)
    assert right < none
    assert right < wrong


def test_emg_changes_what_is_generated(pipeline, signal):
    options = {"seconds": [1.0, 2.0], "steps": 2, "consistency": AccelerationConsistency(pipeline.transformer)}
    one, two, none = (pipeline(["walk"] * 2, **options, emg=s).joints for s in (signal[:2], signal[2:], None))
    assert float((one - two).abs().mean()) > 1e-3
    assert float((one - none).abs().mean()) > 1e-3


def test_what_is_asked_wrongly_is_said(pipeline, signal):
    change = AccelerationConsistency(pipeline.transformer)
    for options, said in (
        ({"emg": signal[:1]}, "give consistency as well"),
        ({"emg": signal, "consistency": change}, "EMG of 4 motions for 1 prompts"),
        ({"emg": signal[:1, :, :500], "consistency": change}, "951 samples or more for 20 frames"),
        ({"emg": signal[:1, :5], "consistency": change}, rf"\(B, {MUSCLES}, S\) is wanted"),
        ({"emg": signal[:1], "consistency": change, "seconds": 0.25}, "make the motion longer"),
        ({"consistency": AccelerationConsistency(pipeline.transformer, -1.0)}, "give 0 or more"),
    ):
        with pytest.raises(InputError, match=said):
            pipeline(["jump"], **{"seconds": 1.0, "steps": 2, **options})


def test_the_verb_takes_the_option(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path / "model")
    given = ["motion", "generate", "jump", "--seconds", "1", "--sampler.steps", "2", "--model", str(tmp_path / "model")]
    made = []
    for weight in ("0", "1"):
        out = tmp_path / weight
        assert main([*given, "--output", str(out), "--sampler.acceleration-consistency", weight]) == 0
        made.append(json.loads((out / "metadata.jsonl").read_text())["scores"])
    assert made[0] != made[1]
    assert main([*given, "--output", str(out), "--sampler.acceleration-consistency", "-1"]) == 2
