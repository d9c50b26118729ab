"""Energy: lost is allowed, won is not; at contacts and between them."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from judged import (
    assert_broken_clips_are_left_out,
    assert_clips_without_objects_are_not_judged,
    assert_gradient_leads_down,
    assert_same_elsewhere,
    between_frames,
    judged,
    measured,
)
from simulated_paths import bouncing, colliding, sliding, stacked, swinging, tracks

from visviva.errors import InputError
from visviva.physics.laws.energy import Energy, between
from visviva.physics.measurement import Measurement
from visviva.physics.motions import draw
from visviva.physics.runs import crossings, runs_of_clips
from visviva.physics.tracks import Tracks
from visviva.physics.violations import VIOLATIONS

LAW = Energy()


def near(hits, frames):
    return (torch.tensor([hits])[:, None] - torch.arange(frames)[None, :, None]).abs().amin(-1) < 1


HONEST = {
    "bounces": bouncing(60, restitution=0.7, least=6)[0],
    "elastic bounces": bouncing(60, restitution=1.0, least=6)[0],
    "swing": swinging(60, period=30, amplitude=0.6),
    "damped swing": swinging(60, period=30, amplitude=0.6, damping=0.02),
    "slide": sliding(50, turn=-0.4),
    "roll up": (3.0 * np.arange(40) - 0.05 * np.arange(40) ** 2)[:, None] * [0.8, -0.6],
    "throw": np.stack([2.0 * np.arange(30), 0.1 * np.arange(30) ** 2 - 3 * np.arange(30)], 1),
    "constant": np.arange(30)[:, None] * [2.0, 1.0],
    "lands": np.stack([0 * np.arange(40), 0.05 * np.minimum(np.arange(40), 20.3) ** 2], 1),
}
DISHONEST = {
    "bounces higher": bouncing(60, height=0.3, restitution=1.3, least=6)[0],
    "swings wider": swinging(60, period=30, amplitude=0.3, damping=-0.02),
    "bounces backwards": bouncing(60, restitution=0.6, least=8)[0][::-1].copy(),
    "sets off": sliding(60, 3.0, 0.1)[::-1].copy(),
    "speeds up on the level": (0.05 * np.arange(40) ** 2)[:, None] * [1.0, 0.0],
}


@pytest.mark.parametrize("name", HONEST)
@pytest.mark.parametrize("noise", [0.0, 0.1, 0.3])
def test_mechanics_gains_nothing(name, noise):
    residual = judged(LAW, HONEST[name], noise)
    assert float(residual.value.mean()) < 0.01


@pytest.mark.parametrize("name", DISHONEST)
@pytest.mark.parametrize("noise", [0.0, 0.1, 0.3])
def test_energy_from_nothing_is_seen(name, noise):
    residual = judged(LAW, DISHONEST[name], noise)
    assert float(residual.value.min()) > 0.1


def test_the_gain_at_a_bounce_is_its_share_of_the_kinetic_energy():
    """A drop of 0.5 m onto a floor that gives 1.2 times the speed: the gain is 1 - 1/1.44 of the largest."""
    path, hits = bouncing(40, height=0.5, restitution=1.2, fps=30.0, across=0.0)
    cut = near(hits[:1], 40)[:, : int(hits[1])]
    residual = LAW(measured(tracks(path[: int(hits[1])]), contact=cut))
    assert float(residual.value) == pytest.approx(1 - 1 / 1.44, abs=0.01)


@pytest.mark.parametrize(
    ("restitution", "gain", "wrong"), [(0.9, 1.0, False), (0.5, 1.0, False), (1.5, 1.0, True), (0.9, 2.0, True)]
)
def test_two_balls_share_the_energy_of_one(restitution, gain, wrong):
    radii = np.array([6.0, 8.0])
    path = colliding(40, radii, [(3.0, 0.3), (-0.5, 0.0)], restitution, 19.6, turn=0.7, gain=gain)
    values = LAW(measured(stacked([tracks(path, 0.1, seed=k, area=np.pi * radii**2) for k in range(8)]))).value
    assert (float(values.min()) > 0.05) if wrong else (float(values.max()) < 0.01)


def test_a_known_scale_bounds_what_gravity_can_explain():
    fall = np.stack([0 * np.arange(20), 2 * 9.81 / 2 * (np.arange(20) / 30) ** 2 / 0.01], 1)
    seen = tracks(fall, 0.05)
    assert float(LAW(measured(seen)).value) == pytest.approx(0, abs=1e-3)
    assert float(LAW(measured(seen, scale=torch.tensor([0.01]))).value) == pytest.approx(0.5, abs=0.1)
    assert float(LAW(measured(seen, scale=torch.tensor([float("nan")]))).value) == pytest.approx(0, abs=1e-3)


def test_what_does_not_move_is_not_judged():
    still = tracks(np.zeros((30, 2)), 0.1)
    hidden = tracks(HONEST["throw"]).with_(visible=torch.zeros(1, 30, 1, dtype=torch.bool))
    for seen in (still, hidden):
        assert not bool(LAW(measured(seen)).valid)
    assert Energy.trivial, "a frozen clip, and one of noise, gains nothing, so the law wants an anchor"
    with pytest.raises(InputError, match="significance"):
        Energy(significance=-1)


def test_a_broken_clip_is_not_judged_and_leaves_the_others_alone():
    seen = tracks(DISHONEST["swings wider"], 0.05)
    assert_broken_clips_are_left_out(LAW, seen)


def test_clips_without_objects_are_not_judged():
    assert_clips_without_objects_are_not_judged(LAW)


@settings(max_examples=10, deadline=None)
@given(
    name=st.sampled_from(sorted({**HONEST, **DISHONEST})),
    x=st.floats(-300, 300),
    zoom=st.floats(0.5, 4),
    mirror=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_value_does_not_depend_on_place_pixels_and_left_or_right(name, x, zoom, mirror, seed):
    seen = tracks({**HONEST, **DISHONEST}[name], noise=0.1, seed=seed)
    assert_same_elsewhere(LAW, seen, x, zoom, mirror)


@settings(max_examples=10, deadline=None)
@given(angle=st.floats(0, 2 * math.pi), early=st.integers(0, 5))
def test_impacts_may_be_seen_from_any_side_and_at_any_time(angle, early):
    path, hits = bouncing(40, height=0.5, restitution=1.2, fps=30.0)
    frames = int(hits[1])
    seen, cut = tracks(path[:frames], 0.05), near(hits[:1], frames)
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)
    known = torch.tensor([1e9])  # so large a scale that gravity explains nothing between contacts
    free = Energy(significance=1e6)  # and nothing between contacts counts
    value = LAW(measured(seen, contact=cut, scale=None)).value
    turned = seen.with_(positions=seen.positions @ turn.T)
    assert torch.allclose(free(measured(turned, contact=cut, scale=known)).value, torch.zeros(1, dtype=torch.float64))
    later = between_frames(seen, slice(early, None))
    assert torch.allclose(LAW(measured(later, contact=cut[:, early:])).value, value, atol=0.05)


def test_gradients_are_exact_and_lead_to_less_gain():
    """The scale of the value is detached on purpose, so what it divides is compared with finite differences."""
    path, hits = bouncing(22, height=0.4, restitution=1.3, fps=30.0)
    seen, cut = tracks(path, 0.02), near(hits, 22)
    most = torch.full((1, 1), math.inf, dtype=torch.float64)

    def gains(position):
        moved = seen.with_(positions=position)
        runs = runs_of_clips(measured(moved, contact=cut), moved)
        return between(moved, runs, most)[0].sum(), crossings(moved, runs).after, crossings(moved, runs).before

    position = seen.positions.requires_grad_()
    assert torch.autograd.gradcheck(gains, position)
    assert_gradient_leads_down(LAW, seen, contact=cut)


def test_hops_that_are_too_short_to_be_fitted_belong_to_the_contact():
    """A ball comes to rest in ever smaller hops: backwards, it leaves the ground by itself."""
    scene = draw("bounces", 48, seed=5000, size=128)
    low = scene.driven(replace(scene.motion, restitution=torch.linspace(0.3, 0.45, 48)))
    for shown, gains in ((low, False), (VIOLATIONS["reversed_time"](low), True)):
        residual = LAW(known(shown))
        assert float(((residual.value > 0.05) == gains).double().mean()) > (0.9 if gains else 0.999)


def known(scene):
    """The exact paths of scenes and their contacts."""
    sigma = torch.full_like(scene.trajectory[..., 0], 0.01)
    seen = Tracks(scene.trajectory, torch.ones_like(sigma, dtype=torch.bool), sigma)
    return Measurement(fps=torch.full((len(sigma),), 32.0), tracks=seen, contact=scene.contact)
