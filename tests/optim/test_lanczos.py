"""Lanczos against dense Hessians, the density against exact traces, the heavy ball against its iteration matrix."""

import math

import pytest
import torch
from torch import nn

from visviva.errors import InputError
from visviva.optim.lanczos import HessianProduct, LanczosLearner, heavy_ball, lanczos, smoothed, spectral_density, tridiagonal
from visviva.optim.sgd import SGDM

D = torch.float64


def mlp():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).to(D)
    x, y = torch.randn(20, 4, dtype=D), torch.randn(20, 2, dtype=D)
    return (model(x) - y).square().mean(), list(model.parameters())


def dense(product):
    return torch.stack([product(e) for e in torch.eye(product.size, dtype=D)])


def test_product_is_the_hessian():
    loss, parameters = mlp()
    product = HessianProduct(loss, parameters)
    hessian = dense(product)
    assert torch.allclose(hessian, hessian.T, rtol=0, atol=1e-13)
    v, h = product.start(1), 1e-5
    before = [p.detach().clone() for p in parameters]

    def gradient(sign):
        shift = (sign * h * v).split([p.numel() for p in parameters])
        with torch.no_grad():
            for p, b, s in zip(parameters, before, shift, strict=True):
                p.copy_(b + s.reshape(p.shape))
        return torch.cat([g.flatten() for g in torch.autograd.grad(mlp_loss(parameters), parameters)])

    numeric = (gradient(1.0) - gradient(-1.0)) / (2 * h)
    assert torch.allclose(hessian @ v, numeric, rtol=0, atol=1e-8)


def mlp_loss(parameters):
    torch.manual_seed(0)
    nn.Linear(4, 5), nn.Linear(5, 2)  # the numbers that mlp() drew before its data
    x, y = torch.randn(20, 4, dtype=D), torch.randn(20, 2, dtype=D)
    w1, b1, w2, b2 = parameters
    return ((x @ w1.T + b1).tanh() @ w2.T + b2 - y).square().mean()


def test_extreme_eigenvalues_of_a_network():
    product = HessianProduct(*mlp())
    exact = torch.linalg.eigvalsh(dense(product))
    found = lanczos(product, product.start(), 25)
    assert found.values[-1].item() == pytest.approx(exact[-1].item(), rel=1e-10)
    assert found.values[0].item() == pytest.approx(exact[0].item(), rel=1e-6)
    whole = lanczos(product, product.start(), product.size)
    assert whole.weights.sum().item() == pytest.approx(1.0, abs=1e-12)


def test_reorthogonalized_ritz_values_do_not_duplicate():
    values = torch.cat([torch.linspace(0, 1, 299, dtype=D), torch.tensor([10.0], dtype=D)])
    start = torch.randn(300, dtype=D)
    found = lanczos(lambda v: values * v, start, 120).values
    assert (found > 5).sum() == 1
    plain = naive(values, start, 120)
    assert (plain > 5).sum() > 1  # what full reorthogonalization is for
    assert (found.diff() > 1e-8).all()


def naive(values, start, steps):
    q, before, beta, diagonal, beside = start / start.norm(), torch.zeros_like(start), 0.0, [], []
    for _ in range(steps):
        w = values * q - beta * before
        diagonal.append(q @ w)
        w = w - diagonal[-1] * q
        beta = w.norm()
        beside.append(beta)
        before, q = q, w / beta
    off = torch.stack(beside[:-1])
    return torch.linalg.eigvalsh(torch.diag(torch.stack(diagonal)) + torch.diag(off, 1) + torch.diag(off, -1))


def test_an_exhausted_space_ends_early():
    values = torch.tensor([1.0, 1.0, 3.0, 3.0, 3.0], dtype=D)
    small = tridiagonal(lambda v: values * v, torch.ones(5, dtype=D), 5)
    assert small.shape == (2, 2)
    assert torch.allclose(torch.linalg.eigvalsh(small), torch.tensor([1.0, 3.0], dtype=D), rtol=0, atol=1e-13)


@pytest.mark.parametrize("power", [0, 1, 2, 3, 7, 9])
def test_quadrature_is_exact_for_polynomials_of_degree_2k_minus_1(power):
    values = torch.linspace(-1, 2, 40, dtype=D)
    v = torch.randn(40, dtype=D, generator=torch.Generator().manual_seed(0))
    found = lanczos(lambda x: values * x, v, 5)
    expected = (v.square() * values**power).sum() / v.square().sum()
    assert (found.weights * found.values**power).sum().item() == pytest.approx(expected.item(), rel=1e-10)


def test_density_of_a_wigner_matrix_is_the_semicircle():
    generator = torch.Generator().manual_seed(0)
    g = torch.randn(400, 400, dtype=D, generator=generator) / math.sqrt(400)
    matrix = (g + g.T) / math.sqrt(2)
    starts = [torch.randn(400, dtype=D, generator=generator) for _ in range(4)]
    density = spectral_density(lambda v: matrix @ v, starts, 40)
    assert density.weights.sum().item() == pytest.approx(1.0, abs=1e-12)
    x = torch.linspace(-3, 3, 601, dtype=D)
    y = smoothed(density, x, 0.15)
    circle = (4 - x.square()).clamp_min(0).sqrt() / (2 * math.pi)
    assert torch.trapezoid(y, x).item() == pytest.approx(1.0, abs=1e-3)
    assert torch.trapezoid((y - circle).abs(), x) < 0.12


@pytest.mark.parametrize(("kappa", "radius"), [(10.0, 0.5195), (1000.0, 0.9387)])
def test_heavy_ball_radius_is_the_root_of_its_momentum_at_both_ends(kappa, radius):
    alpha, rho = heavy_ball(kappa, 1.0)
    assert math.sqrt(rho) == pytest.approx(radius, abs=5e-5)
    for value in (1.0, math.sqrt(kappa), kappa):
        step = torch.tensor([[1 + rho - alpha * value, -rho], [1.0, 0.0]], dtype=D)
        assert torch.linalg.eigvals(step).abs().max().item() == pytest.approx(math.sqrt(rho), abs=2e-7)


def test_the_learner_solves_a_quadratic_in_its_own_units():
    values = torch.logspace(0, 2, 10, dtype=D)
    p = nn.Parameter(torch.ones(10, dtype=D))
    learner = LanczosLearner(steps=10)
    lr, momentum = learner.probe(HessianProduct(0.5 * (values * p.square()).sum(), [p]))
    assert (lr, momentum) == pytest.approx(heavy_ball(100.0, 1.0), rel=1e-8)
    again = learner.probe(HessianProduct(0.5 * (values * p.square()).sum(), [p]), seed=1)
    assert again == pytest.approx((lr, momentum), rel=1e-8)
    optimizer = SGDM([p], lr=lr, momentum=momentum)
    for _ in range(100):
        p.grad = values * p.detach()
        optimizer.step()
    assert p.detach().abs().max() < 100 * math.sqrt(momentum) ** 100 * 10


def test_negative_curvature_is_left_out_and_unused_parameters_are_zero():
    p, idle = nn.Parameter(torch.ones(3, dtype=D)), nn.Parameter(torch.ones(2, dtype=D))
    product = HessianProduct(0.5 * (torch.tensor([4.0, 1.0, -9.0], dtype=D) * p.square()).sum(), [p, idle])
    assert LanczosLearner(steps=4, beta=0.0).probe(product) == pytest.approx(heavy_ball(4.0, 1.0))
    assert torch.equal(product(torch.ones(5, dtype=D)), torch.tensor([4.0, 1, -9, 0, 0], dtype=D))


def test_the_plot_of_a_density():
    from visviva.eval.optimizer_plots import spectrum
    from visviva.eval.plots import rendered

    density = lanczos(lambda v: torch.linspace(-1, 9, 30, dtype=D) * v, torch.ones(30, dtype=D), 12)
    light, dark = rendered(spectrum(density), 5, 2.5)
    assert light.startswith(b"\x89PNG")
    assert light != dark


def test_bad_input_is_one_sentence():
    p = nn.Parameter(torch.ones(2))
    with pytest.raises(InputError, match="give one number with a graph"):
        HessianProduct(p, [p])
    with pytest.raises(InputError, match="no positive curvature"):
        LanczosLearner().probe(HessianProduct(-p.square().sum(), [p]))
    with pytest.raises(InputError, match="heavy_ball: high is 1"):
        heavy_ball(1.0, 2.0)
    with pytest.raises(InputError, match="steps is 0"):
        lanczos(lambda v: v, torch.ones(3), 0)
