"""Curves, the bounce, and the path of the centre of mass against closed forms."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from visviva.data.actions.balance import path
from visviva.data.actions.curves import keyed, quintic, second
from visviva.data.actions.figure import masses, offsets
from visviva.data.actions.gaits import bounced
from visviva.data.actions.plan import standing


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(-2, 2), min_size=6, max_size=6))
def test_a_quintic_is_met_exactly(c):
    t = torch.linspace(0.2, 1.4, 31, dtype=torch.float64)
    ends = torch.tensor([0.2, 1.4], dtype=torch.float64)

    def poly(x, order):
        return sum(a * math.perm(k, order) * x ** (k - order) for k, a in enumerate(c) if k >= order)

    found = quintic(t, ends, *(poly(ends, order) + 0 * ends for order in range(3)))
    assert torch.allclose(found, poly(t, 0) + 0 * t, atol=1e-9)


def test_between_rests_it_is_the_minimum_jerk_curve_and_holds_outside():
    t = torch.tensor([-1.0, 0.0, 0.25, 0.5, 1.0, 3.0], dtype=torch.float64)
    found = quintic(t, torch.tensor([[0.0, 1.0]]).double(), torch.tensor([[1.0, 3.0]]).double())[0]
    assert torch.allclose(found, torch.tensor([1, 1, 1 + 2 * 0.103515625, 2, 3, 3], dtype=torch.float64))


def test_keyed_curves_come_again():
    t = torch.linspace(0, 10, 1001, dtype=torch.float64)
    found = keyed(t, torch.tensor([0.5]).double(), torch.tensor([3.0]).double(), [(0.0, 0.0), (1.0, 2.0), (2.0, 0.0)])[0]
    assert torch.allclose(found[150:250], found[450:550], atol=1e-9)
    assert found[150] == pytest.approx(2.0)
    assert found[:50].abs().max() == 0


def test_a_bounce_flies_under_gravity_and_weighs_its_weight():
    t = torch.linspace(0, 4, 4001, dtype=torch.float64)
    size = torch.tensor([1.0, 1.1], dtype=torch.float64)
    plan = standing(t, size)
    period, duty = torch.tensor([0.4, 0.5]).double(), torch.tensor([0.6, 0.7]).double()
    height = bounced(plan, period, duty, torch.zeros(2).double())
    force = second(height, 1e-3) + plan.gravity
    flying = torch.remainder(t, period[:, None]) > (duty * period)[:, None] + 0.005
    flying &= torch.remainder(t, period[:, None]) < period[:, None] - 0.005
    assert force[flying].abs().max() < 1e-3
    assert torch.allclose(force[:, 1:-1].mean(1), plan.gravity[:, 0], rtol=0.01)


def test_the_centre_of_mass_is_that_of_an_inverted_pendulum():
    """From p it falls as cosh: x = a cosh(w t), with w^2 = g / h; and it stays where it is pushed from below."""
    dt, h = 1 / 200, 0.9
    t = torch.arange(201, dtype=torch.float64) * dt
    w = math.sqrt(9.81 / h)
    true = 0.01 * torch.cosh(w * t)
    ends = torch.stack([true[[0, -1]], 0 * true[[0, -1]]], -1)[None]
    zero = torch.zeros(1, 201, 3, dtype=torch.float64)
    found = path(torch.full((1, 201), h, dtype=torch.float64), zero[..., :2], zero, ends, dt)
    assert torch.allclose(found[0, :, 0], true, rtol=1e-3)
    assert found[0, :, 1].abs().max() < 1e-12


def test_in_flight_it_goes_straight_on():
    dt = 1 / 100
    t = torch.arange(101, dtype=torch.float64) * dt
    height = (2 - 9.81 / 2 * t**2 / 4 * 4)[None] + 5
    ends = torch.tensor([[[0.0, 0.0], [2.0, 1.0]]], dtype=torch.float64)
    zero = torch.zeros(1, 101, 3, dtype=torch.float64)
    found = path(height, zero[..., :2], zero, ends, dt)
    assert torch.allclose(found[0], t[:, None] * torch.tensor([2.0, 1.0], dtype=torch.float64), atol=1e-6)


def test_the_figure_weighs_one_and_is_symmetric():
    mass, com, _ = masses()
    assert float(mass.sum()) == pytest.approx(1.0)
    assert float((mass[:, None] * com)[[1, 4, 7]].sum(0)[0]) == pytest.approx(
        -float((mass[:, None] * com)[[2, 5, 8]].sum(0)[0])
    )
    assert torch.allclose(offsets()[16] * torch.tensor([-1.0, 1, 1]).double(), offsets()[17])
