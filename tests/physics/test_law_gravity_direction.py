"""Gravity's direction: bodies that fly agree on it, and with the camera's down."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from judged import assert_broken_clips_are_left_out, assert_gradient_leads_down, assert_not_judged, between_frames, measured
from simulated_paths import sliding, stacked, swinging, tracks

from visviva.errors import InputError
from visviva.physics.laws.gravity_direction import GravityDirection

LAW, TILTED = GravityDirection(), GravityDirection(upright=False)
T = np.arange(24)[:, None]


def flying(*angles, speed=(1.0, -1.5), size=0.3):
    """Bodies that accelerate by ``size`` px/frame^2 at angles from down."""
    return np.stack([T * speed + T**2 / 2 * size * np.array([math.sin(a), math.cos(a)]) for a in angles], 1)


@pytest.mark.parametrize("angle", [0.0, 0.5, math.pi / 2, 3.0])
def test_the_value_is_one_minus_the_cosine(angle):
    residual = LAW(measured(tracks(flying(angle))))
    assert bool(residual.valid)
    assert float(residual.value) == pytest.approx(1 - math.cos(angle), abs=1e-3)


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.3])
def test_noise_is_forgiven_and_shaking_is_not(noise):
    true = LAW(measured(stacked([tracks(flying(0.0), noise, seed=k) for k in range(32)])))
    assert bool(true.valid.all())
    assert float(true.value.mean()) < 0.01
    shaken = flying(0.0) + 1.0 * np.random.default_rng(1).standard_normal((24, 1, 2))
    assert float(LAW(measured(tracks(shaken, noise))).value) > 0.02


def test_without_an_upright_camera_the_bodies_must_agree():
    tilted = measured(tracks(flying(0.5, 0.5), 0.05))
    assert float(TILTED(tilted).value) < 0.01
    assert float(LAW(tilted).value) > 0.1
    apart = measured(tracks(flying(0.0, 1.2), 0.05))
    assert float(TILTED(apart).value) == pytest.approx(1 - math.cos(0.6), abs=0.02)


@pytest.mark.parametrize("path", [np.zeros((30, 2)), sliding(30, turn=0.3), swinging(30, amplitude=0.6), np.zeros((5, 2))])
def test_what_does_not_fly_is_not_judged(path):
    assert_not_judged(LAW, path)


def test_a_broken_clip_is_not_judged_and_leaves_the_others_alone():
    seen = tracks(flying(0.5), 0.05)
    assert_broken_clips_are_left_out(LAW, seen)
    with pytest.raises(InputError, match="window"):
        GravityDirection(window=3)


@settings(max_examples=15, deadline=None)
@given(
    angle=st.floats(0, 6.28), x=st.floats(-300, 300), zoom=st.floats(0.5, 4), early=st.integers(0, 4), seed=st.integers(0, 99)
)
def test_without_an_upright_camera_the_picture_may_be_turned_moved_and_scaled(angle, x, zoom, early, seed):
    seen = tracks(flying(0.0, 0.8), noise=0.05, seed=seed)
    turn = zoom * torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)
    moved = seen.with_(positions=seen.positions @ turn.T + x, sigma=zoom * seen.sigma)
    assert torch.allclose(TILTED(measured(moved)).value, TILTED(measured(seen)).value, atol=1e-6)
    exact = tracks(flying(0.5))
    later = between_frames(exact, slice(early, None))
    assert torch.allclose(LAW(measured(later)).value, LAW(measured(exact)).value, atol=1e-4)


def test_the_gradient_leads_to_agreement():
    """The scale is detached on purpose, so no comparison of the whole value with finite differences."""
    assert_gradient_leads_down(LAW, tracks(flying(0.5), 0.02))
