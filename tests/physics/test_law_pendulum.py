"""Pendulum: lengths, periods and damping of simulated swings; what is no pendulum, and what is none of nature's."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from judged import (
    assert_broken_clips_are_left_out,
    assert_clips_without_objects_are_not_judged,
    assert_gradient_leads_down,
    assert_not_judged,
    assert_same_elsewhere,
    between_frames,
    measured,
)
from simulated_paths import bouncing, sliding, stacked, swinging, tracks

from visviva.errors import InputError
from visviva.physics.laws.pendulum import Pendulum, swing
from visviva.physics.tracks import Tracks

LAW = Pendulum()


@pytest.mark.parametrize("period", [16.0, 24.0, 40.0])
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_length_period_and_damping_are_found(period, noise):
    many = stacked([tracks(swinging(60, period, 0.5, 0.01, phase=k), noise, seed=k) for k in range(16)])
    found = swing(many)
    assert bool(found.valid.all())
    assert float(found.radius.mean()) == pytest.approx(60, rel=0.015)
    assert torch.allclose(found.pivot.mean(0), torch.zeros(1, 2, dtype=torch.float64), atol=0.8)
    assert float((2 * math.pi / found.stiffness.sqrt()).mean()) == pytest.approx(period, rel=0.015)
    assert float(found.damping.mean()) == pytest.approx(0.01, rel=0.05)


def test_standard_errors_are_those_of_the_scatter():
    path = swinging(60, 24, 0.5, 0.01)
    found = swing(stacked([tracks(path, 0.3, seed=k) for k in range(200)]))
    assert float(found.sigma_damping.mean()) == pytest.approx(float(found.damping.std()), rel=0.5)
    assert float(found.sigma_stiffness.mean()) == pytest.approx(float(found.stiffness.std()), rel=0.5)
    assert float(found.sigma_radius.mean()) == pytest.approx(float(found.radius.std()), rel=0.7)


def test_a_seconds_pendulum():
    """0.994 m long, half a period in one second: g = 9.81 m/s^2 and a large swing takes longer, 1.0174 times at 30 degrees."""
    seen = tracks(swinging(90, period=60.0, amplitude=math.pi / 6, length=99.4), 0.1)
    found = swing(seen, window=15)
    assert float(found.gravity(torch.tensor([30.0]), torch.tensor([0.01]))) == pytest.approx(9.81, rel=0.03)
    assert float(found.period) == pytest.approx(60 * 1.01741, rel=0.01)


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.3])
def test_true_swings_are_perfect_and_violated_ones_are_not(noise):
    def values(path):
        none = torch.zeros(8, 60, dtype=torch.bool)
        residual = LAW(measured(stacked([tracks(path, noise, seed=k) for k in range(8)]), contact=none))
        assert bool(residual.valid.all())
        return residual.value

    for damping in (0.0, 0.02):
        assert float(values(swinging(60, 24, 0.6, damping)).max()) < 0.01
    assert float(values(swinging(60, 24, 0.3, -0.02)).min()) == pytest.approx(0.6, rel=0.15)
    swinging_on = swinging(60, 24, 0.6)
    slowed = swinging_on[np.minimum(np.arange(60), 20 + (np.arange(60) - 20) // 2)]
    assert float(values(slowed).min()) > 0.05
    assert float(values(swinging_on + 2 * np.random.default_rng(0).standard_normal((60, 2))).min()) > 0.02


NO_SWING = {
    "frozen": np.zeros((40, 2)),
    "throw": np.stack([2.0 * np.arange(40), 0.05 * (np.arange(40) - 20.0) ** 2], 1),
    "bounce": bouncing(60, least=6)[0],
    "slide": sliding(40, turn=0.2),
    "noise": 20 * np.random.default_rng(0).standard_normal((40, 2)),
    "short": swinging(10),
}


@pytest.mark.parametrize("name", NO_SWING)
def test_what_is_no_pendulum_is_not_judged(name):
    assert_not_judged(LAW, NO_SWING[name])


def test_contact_hidden_and_broken_clips():
    seen = tracks(swinging(40), 0.1)
    touched = torch.zeros(1, 40, dtype=torch.bool)
    touched[0, 20] = True
    assert not bool(LAW(measured(seen, contact=touched)).valid)
    hidden = seen.visible.clone()
    hidden[:, 10:14] = False
    assert bool(LAW(measured(seen.with_(visible=hidden))).valid)
    assert float(LAW(measured(seen.with_(visible=hidden))).value) < 0.01
    assert_broken_clips_are_left_out(LAW, seen)
    with pytest.raises(InputError, match="window"):
        Pendulum(window=8)


@settings(max_examples=15, deadline=None)
@given(
    damping=st.sampled_from([-0.02, 0.0, 0.02]),
    x=st.floats(-300, 300),
    zoom=st.floats(0.5, 4),
    mirror=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_value_does_not_depend_on_place_pixels_and_left_or_right(damping, x, zoom, mirror, seed):
    seen = tracks(swinging(50, damping=damping), noise=0.2, seed=seed)
    assert_same_elsewhere(LAW, seen, x, zoom, mirror)


@settings(max_examples=10, deadline=None)
@given(early=st.integers(0, 10), damping=st.sampled_from([-0.02, 0.02]))
def test_stiffness_and_damping_do_not_depend_on_when_the_clip_begins(early, damping):
    seen = tracks(swinging(60, damping=damping, amplitude=0.4))
    later = between_frames(seen, slice(early, None))
    assert torch.allclose(swing(later).stiffness, swing(seen).stiffness, rtol=1e-2)
    assert torch.allclose(swing(later).damping, swing(seen).damping, rtol=5e-2)


@pytest.mark.parametrize(("before", "after"), [(7, 0), (0, 7), (3, 4)])
def test_frames_in_which_the_body_is_not_seen_before_and_after_change_nothing(before, after):
    seen = tracks(swinging(50, damping=-0.02), 0.1)
    pad = (0, 0, 0, 0, before, after)
    longer = Tracks(
        torch.nn.functional.pad(seen.positions, pad),
        torch.nn.functional.pad(seen.visible, pad[2:]),
        torch.nn.functional.pad(seen.sigma, pad[2:], value=1.0),
    )
    padded, own = LAW(measured(longer)), LAW(measured(seen))
    assert float(own.value) > 0.2
    assert torch.allclose(padded.value, own.value, atol=1e-9)
    assert torch.allclose(padded.sigma, own.sigma, atol=1e-9)


def test_gradients_are_exact_and_lead_to_a_better_pendulum():
    """The scale of the residual is detached on purpose, so what it is made of is compared with finite differences."""
    seen = tracks(swinging(24, period=16, damping=-0.03), 0.05)
    position = seen.positions.requires_grad_()

    def fits(p):
        found = swing(seen.with_(positions=p), 7)
        return found.pivot, found.radius, found.stiffness, found.damping

    assert torch.autograd.gradcheck(fits, position)
    assert_gradient_leads_down(LAW, seen)


def test_clips_without_objects_are_not_judged():
    assert_clips_without_objects_are_not_judged(LAW)
