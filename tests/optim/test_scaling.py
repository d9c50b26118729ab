"""Learning rates and batch sizes: the two rules, and the edge of a batch's Hessian against random matrices."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from visviva.errors import InputError
from visviva.optim.scaling import batch_edge, effective_batch, largest_rate, scale_lr

rates, sizes = st.floats(1e-6, 10), st.integers(1, 1 << 20)


def test_rules():
    assert scale_lr(0.1, 256, 1024) == pytest.approx(0.4)
    assert scale_lr(0.1, 256, 1024, "sqrt") == pytest.approx(0.2)
    assert scale_lr(0.1, 256, 64, "linear") == pytest.approx(0.025)


@given(rates, sizes, sizes, sizes, st.sampled_from(["linear", "sqrt"]))
def test_rules_compose(lr, a, b, c, kind):
    assert scale_lr(scale_lr(lr, a, b, kind), b, c, kind) == pytest.approx(scale_lr(lr, a, c, kind), rel=1e-12)
    assert scale_lr(lr, a, a, kind) == lr


@pytest.mark.parametrize(("batch", "expected", "measured"), [(16, 1.586, 1.601), (64, 1.146, 1.155), (256, 1.037, 1.039)])
def test_numbers_of_the_card(batch, expected, measured):
    assert batch_edge(1.0, 1 / 8, 600, batch) == pytest.approx(expected, abs=6e-4)
    assert batch_edge(1.0, 1 / 8, 600, batch) == pytest.approx(measured, rel=0.012)


@pytest.mark.parametrize(("spike", "batch"), [(1.0, 16), (1.0, 64), (0.2, 16)])
def test_monte_carlo(spike, batch):
    """Spiked Wigner matrices of 600 dimensions: above and below the threshold (sigma sqrt(P / b) = 0.77 at B = 16)."""
    generator = torch.Generator().manual_seed(batch)
    found = []
    for _ in range(3):
        g = torch.randn(600, 600, generator=generator) / 8 / math.sqrt(batch)
        noise = torch.triu(g) + torch.triu(g, 1).T
        noise[0, 0] += spike
        found.append(torch.linalg.eigvalsh(noise)[-1].item())
    assert sum(found) / 3 == pytest.approx(batch_edge(spike, 1 / 8, 600, batch), rel=0.03)


@given(st.floats(1e-3, 10), st.floats(0, 1), st.integers(1, 10**6), st.integers(1, 4096))
def test_rate_grows_with_the_batch_and_saturates(top, sigma, parameters, batch):
    small, large = (largest_rate(top, sigma, parameters, b) for b in (batch, 2 * batch))
    assert small <= large * (1 + 1e-12)
    assert large <= 2 / top * (1 + 1e-12)
    assert large <= 2 * small * (1 + 1e-9)  # never faster than linear


def test_linear_below_saturation_and_the_whole_data_at_once():
    assert largest_rate(1.0, 1.0, 10**6, 16) / largest_rate(1.0, 1.0, 10**6, 4) == pytest.approx(2.0)  # the edge: sqrt(B)
    assert largest_rate(1.0, 1.0, 100, 800) < 2.0
    assert batch_edge(1.0, 1.0, 10**6, 100, samples=100) == 1.0
    assert effective_batch(50, 100) == 100.0


def test_gradient_descent_at_the_rate_is_the_edge_of_stability():
    rate = largest_rate(3.0, 0.0, 10, 8)
    for factor, stable in ((0.99, True), (1.01, False)):
        x = 1.0
        for _ in range(300):
            x -= factor * rate * 3.0 * x
        assert (abs(x) < 1) == stable


def test_bad_input_is_one_sentence():
    with pytest.raises(InputError, match="batch 0"):
        scale_lr(0.1, 4, 0)
    with pytest.raises(InputError, match="base_lr is nan"):
        scale_lr(math.nan, 4, 4)
    with pytest.raises(InputError, match="100 of 50 samples"):
        effective_batch(100, 50)
