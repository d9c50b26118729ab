"""Momentum: real collisions exchange it and part no faster than they met; made-up ones do not."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from judged import assert_broken_clips_are_left_out, assert_gradient_leads_down, assert_not_judged, between_frames, measured
from simulated_paths import bouncing, colliding, stacked, swinging, tracks

from visviva.errors import InputError
from visviva.physics.laws.momentum import Momentum, pairs
from visviva.physics.runs import crossings, runs_of_clips

LAW, RADII, WHEN = Momentum(), np.array([6.0, 8.0]), 19.6
TOUCH = (torch.arange(40) - WHEN).abs()[None] < 1


def collision(restitution=0.8, gain=1.0, noise=0.0, turn=0.7, clips=1, seed=0):
    path = colliding(40, RADII, [(3.0, 0.3), (-0.5, 0.0)], restitution, WHEN, turn=turn, gain=gain)
    return stacked([tracks(path, noise, seed=seed + k, area=np.pi * RADII**2) for k in range(clips)])


@pytest.mark.parametrize("restitution", [0.0, 0.55, 0.9, 1.0])
@pytest.mark.parametrize("noise", [0.0, 0.1, 0.3])
def test_momentum_is_exchanged(restitution, noise):
    """Restitutions of clay (0), wood on wood (0.55), glass (0.9) and the ideal ball."""
    for contact in (None, TOUCH.expand(8, -1)):
        residual = LAW(measured(collision(restitution, noise=noise, clips=8), contact=contact))
        assert bool(residual.valid.all())
        assert float(residual.value.mean()) < 0.02


def test_the_change_of_velocity_is_that_of_the_textbook():
    """Masses 216 and 512, closing speed 3.5, e = 0.8: an impulse of 1.8 * 3.5 * 216 * 512 / 728 per unit."""
    seen = collision(0.8, turn=0.0)
    change = crossings(seen, runs_of_clips(measured(seen, contact=TOUCH), seen)).change[0, 0]
    push = 1.8 * 3.5 * 216 * 512 / 728
    expected = torch.tensor([[-push / 216, 0.0], [push / 512, 0.0]], dtype=torch.float64)
    assert torch.allclose(change, expected, atol=1e-6)


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("changes", [{"gain": 2.2}, {"gain": 0.0}, {"restitution": 1.5}], ids=str)
def test_what_collisions_cannot_do_is_seen(changes, noise):
    residual = LAW(measured(collision(**changes, noise=noise, clips=8), contact=TOUCH.expand(8, -1)))
    assert bool(residual.valid.all())
    assert float(residual.value.min()) > 0.05


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_going_through_is_seen_where_the_contact_is_given(noise):
    residual = LAW(measured(collision(-1.0, noise=noise, clips=8), contact=TOUCH.expand(8, -1)))
    assert float(residual.value.min()) > 0.5


@pytest.mark.parametrize(("restitution", "excess"), [(0.5, 0.0), (1.0, 0.0), (1.3, 0.3)])
def test_a_ball_on_a_floor_parts_no_faster_than_it_met(restitution, excess):
    path, hits = bouncing(40, height=0.5, restitution=restitution, across=0.0)
    path = path[: int(min(hits[1], 40))]
    for noise in (0.0, 0.1):
        residual = LAW(measured(tracks(path, noise)))
        assert bool(residual.valid)
        assert float(residual.value) == pytest.approx(excess, abs=0.06)


@pytest.mark.parametrize("path", [np.zeros((40, 2)), swinging(40), 20 * np.random.default_rng(0).standard_normal((40, 2))])
def test_without_contact_nothing_is_judged(path):
    assert_not_judged(LAW, path)


def test_areas_tell_pairs_and_broken_clips_are_left_out():
    seen = collision(gain=2.2)
    alone = seen.with_(area=None)
    assert not bool(pairs(alone, crossings(alone, runs_of_clips(measured(alone, contact=TOUCH), alone))).any())
    assert_broken_clips_are_left_out(LAW, seen, contact=TOUCH)
    with pytest.raises(InputError, match="significance"):
        Momentum(significance=-1)


@settings(max_examples=15, deadline=None)
@given(
    gain=st.floats(0.3, 2.2), x=st.floats(-300, 300), zoom=st.floats(0.5, 4), angle=st.floats(0, 6.28), seed=st.integers(0, 99)
)
def test_the_value_does_not_depend_on_place_direction_and_the_order_of_objects(gain, x, zoom, angle, seed):
    seen = collision(gain=gain, noise=0.1, seed=seed)
    turn = zoom * torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)
    value = LAW(measured(seen, contact=TOUCH)).value
    moved = seen.with_(positions=seen.positions @ turn.T + x, sigma=zoom * seen.sigma, area=zoom**2 * seen.area)
    assert torch.allclose(LAW(measured(moved, contact=TOUCH)).value, value, atol=1e-6)
    early = between_frames(seen, slice(5, None))
    assert torch.allclose(LAW(measured(early, contact=TOUCH[:, 5:])).value, value, atol=1e-6)


def test_gradients_are_exact_and_lead_to_less_violation():
    """Scales and mass ratios are detached on purpose, so the velocities are compared with finite differences."""
    near = slice(14, 26)
    seen, touch = between_frames(collision(gain=2.2, noise=0.02), near), TOUCH[:, near]
    position = seen.positions.requires_grad_()
    runs = runs_of_clips(measured(seen, contact=touch), seen)
    assert torch.autograd.gradcheck(lambda p: crossings(seen.with_(positions=p), runs).change, position)
    assert_gradient_leads_down(LAW, seen, contact=touch)
