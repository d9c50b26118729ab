"""Derivatives of configurations: exact on even motions, second order elsewhere, with the noise that the formula says."""

import math

import pytest
import torch
from trees import state, tree

from visviva.errors import InputError
from visviva.physics.dynamics import forward_dynamics, integrate, inverse_dynamics
from visviva.physics.dynamics.derivatives import differences, differentiate


def flight(body, seconds, step=1e-3, seed=3):
    """Configurations of a passive body thrown with spin, at 1/step frames per second (midpoint rule)."""
    q, v, _ = (x[0] for x in state(body, 1, seed))
    v, path = v / 2, []
    none = torch.zeros_like(v)
    for _ in range(round(seconds / step) + 1):
        path.append(q)
        half = v + step / 2 * forward_dynamics(body, q, v, none)
        a = forward_dynamics(body, integrate(body, q, half, step / 2), half, none)
        q, v = integrate(body, q, v + step / 2 * a, step), v + step * a
    return torch.stack(path)


def test_differences_undo_integration():
    body = tree(12, 0)
    q, v, _ = state(body, 6)
    v = v / v.norm(dim=-1, keepdim=True)
    assert torch.allclose(differences(body, q, integrate(body, q, v, 0.7)), 0.7 * v)


@pytest.mark.parametrize("window", [3, 5, 9])
def test_even_motion_is_exact(window):
    """Constant angular velocity about fixed axes, and parabolas."""
    body = tree(4, 1, kinds=("ball", "hinge", "slide"))
    q, v, _ = (x[0] for x in state(body, 1))
    times = torch.arange(15, dtype=torch.float64) / 30
    path = torch.stack([integrate(body, q, v, float(t)) for t in times])
    path[:, :3] += 4.9 * times[:, None] ** 2
    _, found, a = differentiate(body, path, 30, window)
    wanted = torch.zeros_like(a)
    wanted[:, :3] = 9.8
    assert torch.allclose(a, wanted, atol=1e-8)
    assert torch.allclose(found[:, 3:], v[3:].expand(len(found), -1), atol=1e-9)


def test_the_residual_of_a_flight_falls_with_the_square_of_the_rate():
    """The force that seems to move the root of a falling body, in body weights: a fourth for each doubling of the rate."""
    body = tree(8, 5, kinds=("ball", "hinge"))
    path = flight(body, 0.3)
    errors = []
    for fps in (50, 100, 200):
        q, v, a = differentiate(body, path[:: 1000 // fps], fps)
        tau = inverse_dynamics(body, q, v, a)
        errors.append(float(tau[:, :3].square().sum(-1).mean().sqrt() / (9.81 * body.total_mass)))
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.2)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.2)


@pytest.mark.parametrize("window", [3, 7, 15])
def test_noise_is_what_the_formula_says(window):
    body = tree(1, 0)
    noise = torch.randn(4000, window, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    q = torch.cat([0.005 * noise, torch.tensor([1.0, 0, 0, 0], dtype=torch.float64).expand(4000, window, 4)], -1)
    _, _, a = differentiate(body, q, 30, window)
    wanted = math.sqrt(720 / (window * (window**2 - 1) * (window**2 - 4))) * 0.005 * 900
    assert float(a[..., :3].std()) == pytest.approx(wanted, rel=0.03)


def test_gradients_reach_the_configurations():
    body = tree(3, 2, kinds=("ball", "hinge"))
    q = state(body, 6)[0].requires_grad_()
    assert torch.autograd.gradcheck(lambda x: differentiate(body, x, 30, 5), (q,), rtol=1e-3)


@pytest.mark.parametrize(
    ("window", "fps", "said"),
    [(4, 30, "must be odd"), (1, 30, "must be odd"), (9, 30, "fewer than the window"), (3, 0, "positive")],
)
def test_what_cannot_be_differentiated_is_refused(window, fps, said):
    body = tree(3, 2)
    with pytest.raises(InputError, match=said):
        differentiate(body, state(body, 5)[0], fps, window)
