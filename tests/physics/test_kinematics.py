"""Kinematics against closed forms: fits recover what made the data, and their covariances predict the scatter."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from visviva.errors import InputError
from visviva.physics import kinematics

numbers = st.floats(-3, 3, allow_nan=False)


@settings(max_examples=30, deadline=None)
@given(c0=numbers, v0=numbers, a=numbers, gap=st.floats(0.01, 2.0))
def test_acceleration_fit_recovers_an_uneven_parabola(c0, v0, a, gap):
    times = torch.tensor([[0.0, 1.0, 2.5, 3.0, 4.2, 7.0]], dtype=torch.float64) * gap + 5
    positions = (c0 + v0 * times + a * times**2 / 2)[..., None]
    fit = kinematics.acceleration_fit(positions, times)
    assert torch.allclose(fit.acceleration, torch.full_like(fit.acceleration, a), atol=1e-6, rtol=1e-5)
    assert torch.allclose(fit.at(times), positions, atol=1e-6)
    assert fit.valid.all()
    assert float(fit.residual) < 1e-6


def test_acceleration_fit_ignores_samples_that_are_not_valid():
    times = torch.arange(8.0)[None]
    positions = torch.stack([times**2 / 2, 3 * times], dim=-1)
    positions[:, 3] = float("nan")
    valid = torch.ones(1, 8, dtype=torch.bool)
    valid[:, 3] = False
    fit = kinematics.acceleration_fit(positions, times, valid)
    assert torch.allclose(fit.acceleration, torch.tensor([[1.0, 0.0]]), atol=1e-4)
    assert float(fit.samples) == 7


def test_acceleration_fit_covariance_predicts_the_scatter_of_noisy_fits():
    generator = torch.Generator().manual_seed(0)
    times = (torch.arange(20, dtype=torch.float64) / 10).expand(4000, -1)
    noise = 0.1 * torch.randn(4000, 20, 1, generator=generator, dtype=torch.float64)
    fit = kinematics.acceleration_fit((4.9 * times**2)[..., None] + noise, times)
    scatter = torch.cov(torch.stack([fit.position, fit.velocity, fit.acceleration], dim=-1)[:, 0].T)
    predicted = fit.covariance[:, 0].mean(0)
    assert torch.allclose(predicted.diagonal(), scatter.diagonal(), rtol=0.08)
    assert float(fit.acceleration.mean()) == pytest.approx(9.8, abs=3 * float(scatter[2, 2].sqrt()) / 4000**0.5)


def test_acceleration_fit_says_where_it_cannot_fit():
    times = torch.arange(5.0).expand(2, -1)
    valid = torch.tensor([[True, True, False, False, False], [True] * 5])
    fit = kinematics.acceleration_fit(times[..., None] ** 2, times, valid)
    assert fit.valid.tolist() == [False, True]
    assert torch.isfinite(fit.acceleration).all()
    assert float(fit.acceleration[0, 0]) == 0


@pytest.mark.parametrize(("window", "degree"), [(3, 1), (5, 2), (9, 2), (7, 3)])
def test_window_fit_is_exact_for_polynomials_of_its_degree(window, degree):
    t = torch.arange(15, dtype=torch.float64)
    coefficients = [1.0, 2.0, -0.5, 0.1][: degree + 1]
    x = sum(c * t**k for k, c in enumerate(coefficients))[None, :, None]
    fit = kinematics.window_fit(x, window, degree)
    centre = t[(window - 1) // 2 : (window - 1) // 2 + fit.derivatives.shape[1]]
    slope = sum(k * c * centre ** (k - 1) for k, c in enumerate(coefficients) if k) + 0 * centre
    assert torch.allclose(fit.derivatives[0, :, 1, 0], slope, atol=1e-9)
    assert float(fit.squared.max()) < 1e-16


def test_window_fit_variance_is_what_its_covariance_says_and_falls_with_the_window():
    noise = torch.randn(1, 60000, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    spread = []
    for window in (5, 9):
        fit = kinematics.window_fit(noise, window, 2)
        assert float(fit.derivatives[0, :, 2].var()) == pytest.approx(float(fit.covariance[2, 2]), rel=0.05)
        assert float(fit.squared.mean()) / fit.freedom == pytest.approx(1.0, rel=0.02)
        spread.append(float(fit.covariance[2, 2]))
    assert spread[1] < spread[0] / 10  # window^-5: (9/5)^5 = 19


def test_difference_of_cubic_motion_is_six_k():
    t = torch.arange(10, dtype=torch.float64)
    assert torch.allclose(kinematics.difference(0.2 * t[None, :, None] ** 3, 3), torch.tensor(1.2, dtype=torch.float64))
    with pytest.raises(InputError, match="at least 4 samples"):
        kinematics.difference(torch.zeros(1, 3, 1), 3)


def test_centroids_follow_a_moved_mask_and_pass_gradcheck():
    mask = torch.rand(1, 1, 1, 6, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    wide = torch.nn.functional.pad(mask, (0, 4, 0, 3))
    moved = torch.nn.functional.pad(mask, (4, 0, 3, 0))
    step = kinematics.centroids(moved)[0] - kinematics.centroids(wide)[0]
    assert torch.allclose(step.flatten(), torch.tensor([4.0, 3.0], dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda m: kinematics.centroids(m)[0], (mask.requires_grad_(),))


def test_centroid_of_an_empty_mask_is_the_middle_with_area_zero():
    centre, area = kinematics.centroids(torch.zeros(1, 1, 1, 5, 9))
    assert centre.flatten().tolist() == [4.0, 2.0]
    assert float(area) == 0


def test_object_velocity_does_not_depend_on_the_level_of_confidence():
    generator = torch.Generator().manual_seed(0)
    flow, masks = torch.randn(2, 3, 2, 8, 8, generator=generator), torch.rand(2, 3, 2, 8, 8, generator=generator)
    confidence = torch.rand(2, 3, 1, 8, 8, generator=generator) + 0.1
    high, _ = kinematics.object_velocity(flow, masks, confidence)
    low, _ = kinematics.object_velocity(flow, masks, 0.05 * confidence)
    none, _ = kinematics.object_velocity(flow, masks, torch.zeros_like(confidence))
    plain, _ = kinematics.object_velocity(flow, masks)
    assert torch.allclose(high, low, atol=1e-5)
    assert torch.allclose(none, plain, atol=1e-5)


def test_erode_takes_off_the_given_number_of_pixels():
    mask = torch.zeros(1, 1, 1, 11, 11)
    mask[..., 2:9, 3:8] = 1
    assert float(kinematics.erode(mask, 1).sum()) == 5 * 3
    assert float(kinematics.erode(mask, 2).sum()) == 3 * 1
    assert float(kinematics.erode(torch.ones(1, 1, 1, 5, 5), 2).sum()) == 25


def test_displaced_by_whole_pixels_is_a_shift():
    image = torch.rand(1, 2, 7, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    by = torch.zeros(1, 2, 7, 8, dtype=torch.float64)
    by[:, 0], by[:, 1] = 2, 1
    assert torch.allclose(kinematics.displaced(image, by)[..., :-1, :-2], image[..., 1:, 2:], atol=1e-12)
    assert torch.autograd.gradcheck(kinematics.displaced, (image.requires_grad_(), (by + 0.3).requires_grad_()))
