"""The Kalman smoother: exact where it must be, equal to the least squares that it solves recursively."""

from __future__ import annotations

import pytest
import torch

from visviva.errors import InputError
from visviva.models.reestimation.kalman import ACCELERATION, SPEED, smoothed

FPS = 20.0


def flights(frames=30):
    t = torch.arange(frames, dtype=torch.float64)[:, None, None] / FPS
    return torch.tensor([[1.0, 2.0, 3.0], [0.0, 1.0, 2.0]]) + torch.tensor([2.0, -1.0, 4.0]) * t - 4.905 * t**2


def test_constant_acceleration_without_noise_is_kept():
    x = flights()
    assert float((smoothed(x, FPS, 1e-5, 1e-8) - x).abs().max()) < 1e-6


def test_it_is_the_least_squares_of_the_model():
    """The smoother's mean is that of the Gaussian which the model and the measurements define together."""
    torch.manual_seed(0)
    frames, noise, jerk, dt = 8, 0.05, 40.0, 1 / FPS
    seen, sure = torch.randn(frames, 1, 1, dtype=torch.float64), torch.rand(frames, 1, dtype=torch.float64)
    sure[3] = 0.0
    move = torch.tensor([[1, dt, dt**2 / 2], [0, 1, dt], [0, 0, 1]], dtype=torch.float64)
    rows = [[dt**5 / 20, dt**4 / 8, dt**3 / 6], [dt**4 / 8, dt**3 / 3, dt**2 / 2], [dt**3 / 6, dt**2 / 2, dt]]
    information = torch.linalg.inv(jerk * torch.tensor(rows, dtype=torch.float64))
    matrix, right = torch.zeros(3 * frames, 3 * frames, dtype=torch.float64), torch.zeros(3 * frames, dtype=torch.float64)
    first = torch.tensor([noise**2 + 1.0, SPEED**2, ACCELERATION**2], dtype=torch.float64)
    matrix[:3, :3] += torch.diag(1 / first)
    right[0] += seen[0, 0, 0] / first[0]
    for t in range(frames):
        matrix[3 * t, 3 * t] += sure[t, 0] / noise**2
        right[3 * t] += sure[t, 0] * seen[t, 0, 0] / noise**2
        if t:
            step = torch.zeros(3, 3 * frames, dtype=torch.float64)
            step[:, 3 * t - 3 : 3 * t], step[:, 3 * t : 3 * t + 3] = -move, torch.eye(3, dtype=torch.float64)
            matrix += step.T @ information @ step
    wanted = torch.linalg.solve(matrix, right)[::3]
    assert torch.allclose(smoothed(seen, FPS, noise, jerk, sure)[:, 0, 0], wanted, atol=1e-6)


def test_noise_falls_and_a_gate_keeps_outliers_out():
    x = flights(60)
    seen = x + 0.03 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    calm = smoothed(seen, FPS, 0.03, 1.0)
    assert float((calm - x).square().mean().sqrt()) < 0.015
    seen[20, 0] += 1.0
    open_, gated = (float((smoothed(seen, FPS, 0.03, 1.0, gate=g) - x).abs().max()) for g in (None, 4.0))
    assert gated < 0.05 < open_
    hidden = torch.ones(60, 2, dtype=torch.float64)
    hidden[20, 0] = 0
    assert float((smoothed(seen, FPS, 0.03, 1.0, hidden) - x).abs().max()) < 0.05


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="noise of the Kalman smoother is 0"):
        smoothed(flights(), FPS, 0.0, 1.0)
    with pytest.raises(InputError, match="one each, >= 0"):
        smoothed(flights(), FPS, 0.1, 1.0, -torch.ones(30, 2, dtype=torch.float64))
