"""Central-difference updating from both sides: exact on parabolas, and the variances that the card measured."""

from __future__ import annotations

import pytest
import torch

from visviva.errors import InputError
from visviva.models.reestimation.dynamics import PhysNet
from visviva.models.reestimation.update import bidirectional, rollouts, step

DT = 1 / 20


def parabola(frames=32):
    """A flight, its frames and its constant acceleration."""
    t = torch.arange(frames, dtype=torch.float64)[:, None] * DT
    g = torch.tensor([0.0, 0.0, -9.81], dtype=torch.float64)
    start, speed = torch.tensor([[1.0, 2.0, 3.0], [2.0, 0.0, 4.0]], dtype=torch.float64)
    return start + speed * t + g * t**2 / 2, g.expand(frames, 3)


@pytest.mark.parametrize("average", ["equal", "linear"])
def test_a_flight_is_exact_from_two_seeds_on_either_side(average):
    q, a = parabola()
    assert torch.allclose(rollouts(q, a, DT, average), q, atol=1e-12)
    broken = q.clone()
    broken[2:-2] = 99.0  # only the seeds are looked at
    assert torch.allclose(rollouts(broken, a, DT, average), q, atol=1e-12)


def test_one_step_from_both_sides_is_exact_on_a_flight():
    q, a = parabola()
    assert torch.allclose(bidirectional(q, a, q, a, DT), q, atol=1e-12)
    assert torch.allclose(step(q[1], q[0], a[1], DT), q[2])
    assert torch.allclose(step(q[-2], q[-1], a[-2], DT), q[-3])


def test_variances_of_one_step_of_both_and_with_the_observation():
    """5, 2.5 and 0.714 sigma^2: the last is inverse-variance fusion, 1 / (1 + 1 / 2.5)."""
    noise = torch.randn(64, 4000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    zero = torch.zeros_like(noise)
    ahead = step(noise[:, 1:-1], noise[:, :-2], zero[:, 1:-1], DT)
    both = bidirectional(noise, zero, noise, zero, DT)[:, 2:-2]
    fused = (both + 2.5 * noise[:, 2:-2]) / 3.5
    for found, variance in ((ahead, 5.0), (both, 2.5), (fused, 1 / 1.4)):
        assert float(found.var()) == pytest.approx(variance, rel=0.02)


def test_rollouts_drift_and_the_cross_fade_halves_it():
    """Errors of frame k from two noisy seeds: (1 - k)^2 + k^2; the card measured 16.8 and 9.9 sigma, 5 and 8 % less."""
    k = torch.arange(32.0)
    one, share = (1 - k).square() + k.square(), 1 - k / 31
    noise = torch.randn(40000, 32, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for average, weight, card in (("equal", torch.full_like(k, 0.5), 16.8), ("linear", share, 9.9)):
        wanted = float((weight.square() * one + (1 - weight).square() * one.flip(0)).mean().sqrt())
        found = float(rollouts(noise, torch.zeros_like(noise), DT, average).square().mean().sqrt())
        assert found == pytest.approx(wanted, rel=0.01)
        assert found == pytest.approx(card, rel=0.1)


def test_time_reversal_exchanges_the_branches():
    torch.manual_seed(0)
    net = PhysNet(joints=3, frames=8, width=16, depth=2).eval()
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.2)
    poses = torch.randn(2, 8, 3, 3)
    one, other = net(poses), net(poses.flip(1))
    assert torch.allclose(one.forward.acceleration, other.inverse.acceleration.flip(1), atol=1e-4)
    assert torch.allclose(one.inverse.acceleration, other.forward.acceleration.flip(1), atol=1e-4)
    assert torch.allclose(one.pose, other.pose.flip(1), atol=1e-4)
    assert not torch.allclose(one.forward.acceleration, one.inverse.acceleration, atol=1e-2)


def test_bad_input_is_refused():
    q = torch.zeros(4, 3)
    with pytest.raises(InputError, match="5 or more"):
        bidirectional(q, q, q, q, DT)
    with pytest.raises(InputError, match="'equal' or 'linear'"):
        rollouts(q, q, DT, "best")
