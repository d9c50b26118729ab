"""Velocity and acceleration errors and the quadratic fit: golden numbers, closed forms, noise, units."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from visviva.errors import InputError
from visviva.eval.kinematics import (
    acceleration_errors,
    accelerations,
    flow_velocity,
    quadratic_fit,
    rmse,
    velocities,
    velocity_errors,
)

TIMES = torch.arange(16, dtype=torch.float64) / 8
TRUE = torch.stack([10 + 40 * TIMES, 20 + 5 * TIMES + 30 * TIMES**2], dim=1)
PREDICTED = TRUE + torch.stack([1.5 * torch.sin(2 * TIMES), 2 * torch.cos(3 * TIMES)], dim=1)


@pytest.mark.parity
def test_golden_numbers():
    assert float((PREDICTED - TRUE).norm(dim=1).mean()) == pytest.approx(1.59320230, abs=5e-9)
    assert rmse(velocity_errors(PREDICTED, TRUE, TIMES)) == pytest.approx(4.93956555, abs=5e-9)
    assert rmse(acceleration_errors(PREDICTED, TRUE, TIMES)) == pytest.approx(12.39381270, abs=5e-9)
    fit = quadratic_fit(PREDICTED, TIMES)
    design = np.stack([np.ones(16), TIMES.numpy(), TIMES.numpy() ** 2], axis=1)
    left = PREDICTED.numpy() - design @ np.linalg.lstsq(design, PREDICTED.numpy(), rcond=None)[0]
    assert fit.residual == pytest.approx(math.sqrt((left**2).sum() / 16), abs=1e-12)
    assert fit.residual == pytest.approx(0.411143, abs=1e-6)
    assert fit.acceleration == pytest.approx((-4.28141450, 68.57936167), abs=5e-8)


def test_a_trajectory_against_itself_and_against_its_own_parabola():
    assert rmse(velocity_errors(TRUE, TRUE, TIMES)) == 0
    assert rmse(acceleration_errors(TRUE, TRUE, TIMES)) == 0
    fit = quadratic_fit(TRUE, TIMES)
    assert fit.ratio < 1e-12
    assert fit.acceleration == pytest.approx((0, 60), abs=1e-9)
    assert float((fit.at(TIMES) - TRUE).abs().max()) < 1e-9


def test_noise_is_amplified_by_the_root_of_six_and_the_fit_is_not():
    torch.manual_seed(1)
    fps, sigma, count = 24.0, 0.3, 4000
    times = torch.arange(count, dtype=torch.float64) / fps
    still = torch.zeros(count, 2, dtype=torch.float64)
    noisy = still + sigma * torch.randn(count, 2, dtype=torch.float64)
    per_axis = float(acceleration_errors(noisy, still, times).square().mean().sqrt()) / math.sqrt(2)
    assert per_axis == pytest.approx(sigma * math.sqrt(6) * fps**2, rel=0.05)
    assert abs(quadratic_fit(noisy, times).acceleration[0]) < 0.01


def test_the_fit_knows_its_standard_error():
    torch.manual_seed(2)
    estimates, sigmas = [], []
    for _ in range(300):
        fit = quadratic_fit(TRUE + 0.2 * torch.randn_like(TRUE), TIMES)
        estimates.append(fit.acceleration[1])
        sigmas.append(fit.sigma[1])
    assert torch.tensor(estimates).std().item() == pytest.approx(torch.tensor(sigmas).mean().item(), rel=0.12)


@settings(max_examples=30, deadline=None)
@given(dx=st.floats(-1e3, 1e3), dy=st.floats(-1e3, 1e3), scale=st.floats(0.1, 10), speed=st.floats(0.25, 4))
def test_units(dx, dy, scale, speed):
    """Translation changes nothing; lengths scale errors; speed scales velocity by its factor, acceleration by its square."""
    move = torch.tensor([dx, dy], dtype=torch.float64)
    p, q, times = scale * PREDICTED + move, scale * TRUE + move, TIMES / speed
    v, a = rmse(velocity_errors(PREDICTED, TRUE, TIMES)), rmse(acceleration_errors(PREDICTED, TRUE, TIMES))
    assert rmse(velocity_errors(p, q, times)) == pytest.approx(v * scale * speed, rel=1e-6)
    assert rmse(acceleration_errors(p, q, times)) == pytest.approx(a * scale * speed**2, rel=1e-6)
    assert quadratic_fit(p, times).ratio == pytest.approx(quadratic_fit(PREDICTED, TIMES).ratio, rel=1e-6)


def test_uneven_timestamps_are_honoured():
    times = torch.tensor([0.0, 0.1, 0.15, 0.3, 0.5, 0.55], dtype=torch.float64)
    path = torch.stack([3 * times, 4 * times**2], dim=1)
    assert quadratic_fit(path, times).acceleration == pytest.approx((0, 8), abs=1e-9)
    assert accelerations(path, times)[:, 1].tolist() == pytest.approx([8.0] * 4)


def test_missing_frames_are_cut_not_bridged():
    path = TRUE.clone()
    path[5] = math.nan
    assert int(velocities(path, TIMES).isnan().any(1).sum()) == 2
    assert int(acceleration_errors(path, TRUE, TIMES).isnan().sum()) == 3
    assert rmse(velocity_errors(path, TRUE, TIMES)) == 0
    assert quadratic_fit(path, TIMES).used == 15


def test_a_frozen_clip_cannot_win_the_reference_free_residual():
    assert math.isnan(quadratic_fit(torch.ones(8, 2, dtype=torch.float64), TIMES[:8]).ratio)


def test_velocity_from_flow_is_the_mean_inside_the_mask():
    flow = torch.zeros(2, 2, 8, 8)
    flow[:, 0, 2:5, 2:5], flow[:, 1, 2:5, 2:5] = 3.0, -1.0
    masks = torch.zeros(3, 8, 8, dtype=torch.bool)
    masks[0, 2:5, 2:5] = True
    found = flow_velocity(flow, masks, torch.tensor([0.0, 0.1, 0.2], dtype=torch.float64))
    assert found[0].tolist() == pytest.approx([30, -10])
    assert bool(found[1].isnan().all())


@pytest.mark.parametrize(
    ("positions", "times", "words"),
    [
        (TRUE[:3], TIMES[:3], "at least 4"),
        (TRUE[:5], TIMES[:4], "5 positions but 4 timestamps"),
        (TRUE[:5], TIMES[:5].flip(0), "must increase"),
        (torch.full((6, 2), math.nan, dtype=torch.float64), TIMES[:6], "at least 4 tracked frames"),
    ],
)
def test_bad_input_gets_one_sentence(positions, times, words):
    with pytest.raises(InputError, match=words):
        quadratic_fit(positions, times)
