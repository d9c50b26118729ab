"""Experts: depth is an optimizer's time in closed form, sparse mixtures are their dense sums, stability ends where it must."""

import pytest
import torch

from visviva.errors import InputError
from visviva.models.experts import AdamDynamics, Descent, HeavyBall, RobustMomentum, SparseExperts, balance


def quadratic(seed=0, size=5, smallest=0.1, largest=1.0):
    """A layer that is the gradient of x Q x / 2, with its Q."""
    generator = torch.Generator().manual_seed(seed)
    basis, _ = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
    q = basis @ torch.diag(torch.linspace(smallest, largest, size, dtype=torch.float64)) @ basis.T
    return q, lambda x: x @ q


def path(dynamics, layer, x, layers):
    state, found = dynamics.start(x), []
    for _ in range(layers):
        x, state = dynamics(x, layer, state)
        found.append(x)
    return torch.stack(found)


def optimized(make, q, x, steps):
    """Iterates of a torch optimizer on the same quadratic."""
    weight = x.clone().requires_grad_()
    optimizer, found = make([weight]), []
    for _ in range(steps):
        optimizer.zero_grad()
        (0.5 * (weight @ q * weight).sum()).backward()
        optimizer.step()
        found.append(weight.detach().clone())
    return torch.stack(found)


def test_heavy_ball_is_sgd_with_momentum_and_descent_is_sgd():
    q, layer = quadratic()
    x = torch.randn(3, 5, dtype=torch.float64)
    wanted = optimized(lambda w: torch.optim.SGD(w, lr=1.0, momentum=0.7), q, x, 12)
    assert torch.allclose(path(HeavyBall(0.7), layer, x, 12), wanted, atol=1e-12)
    assert torch.allclose(path(Descent(), layer, x, 12), optimized(lambda w: torch.optim.SGD(w, lr=1.0), q, x, 12), atol=1e-12)


def test_adam_is_adam_without_bias_correction():
    _, layer = quadratic()
    x = torch.randn(3, 5, dtype=torch.float64)
    found = path(AdamDynamics(step=0.1, decay=0.0), layer, x, 6)
    p, v, now = torch.zeros_like(x), torch.zeros_like(x), x
    for k in range(6):
        g = layer(now)
        p, v = p.lerp(g, 0.1), v.lerp(g.square(), 0.001)
        now = now - 0.1 * p / (v + 1e-8).sqrt()
        assert torch.allclose(found[k], now, atol=1e-12)
    cancelled = path(AdamDynamics(step=0.1), layer, x, 1)[0]
    assert torch.allclose(cancelled, found[0] - x, atol=1e-12)


@pytest.mark.parametrize(
    ("curvature", "plain", "momentum"), [(1.9, True, True), (2.1, False, True), (3.3, False, True), (3.5, False, False)]
)
def test_momentum_is_stable_where_descent_is_not(curvature, plain, momentum):
    layer = lambda x: curvature * x  # noqa: E731
    x = torch.ones(1, dtype=torch.float64)
    for dynamics, stable in ((Descent(), plain), (HeavyBall(0.7), momentum)):
        assert (float(path(dynamics, layer, x, 400)[-1].abs()) < 1) == stable


@pytest.mark.parametrize("rate", [None, 0.8, 0.9])
def test_robust_momentum_contracts_at_its_rate(rate):
    _, layer = quadratic(smallest=0.1, largest=1.0)
    dynamics = RobustMomentum(0.1, 1.0, rate)
    wanted = 1 - 0.1**0.5 if rate is None else rate
    sizes = path(dynamics, layer, torch.randn(1, 5, dtype=torch.float64), 120).norm(dim=-1)[:, 0]
    found = float((sizes[100] / sizes[60]) ** (1 / 40))
    assert found <= wanted + 0.02


def test_a_sparse_mixture_is_the_dense_sum_of_its_experts():
    torch.manual_seed(0)
    layer = SparseExperts(8, experts=5, active=2, hidden=6).double()
    x = torch.randn(3, 7, 8, dtype=torch.float64)
    found = layer(x)
    tokens = x.flatten(0, 1)
    every = torch.stack([(tokens @ a).relu() @ b for a, b in zip(layer.into, layer.out, strict=True)], 1)
    weight = torch.full((21, 5), float("-inf"), dtype=torch.float64).scatter(
        1, layer.chosen, layer.logits.gather(1, layer.chosen)
    )
    assert torch.allclose(found.flatten(0, 1), (weight.softmax(1)[..., None] * every).sum(1), atol=1e-12)
    whole = SparseExperts(8, experts=3, active=3)
    y = torch.randn(4, 8)
    dense = torch.stack([(y @ a).relu() @ b for a, b in zip(whole.into, whole.out, strict=True)], 1)
    assert torch.allclose(whole(y), (whole.gate(y).softmax(-1)[..., None] * dense).sum(1), atol=1e-5)


def test_gradients_reach_the_gate_and_the_experts_that_were_chosen():
    layer = SparseExperts(4, experts=6, active=1, hidden=32).double()
    with torch.no_grad():
        layer.gate.weight[3:] = 0.0
        layer.gate.weight[:3] = torch.eye(4)[:3]
    layer(torch.eye(4, dtype=torch.float64)[:2].repeat(4, 1) * 2).square().sum().backward()
    used = set(layer.chosen.flatten().tolist())
    assert used == {0, 1}
    for k in range(6):
        assert bool(layer.into.grad[k].any()) == (k in used)
    two = SparseExperts(4, experts=6, active=2)
    two(torch.randn(9, 4)).square().sum().backward()
    assert bool(two.gate.weight.grad.any())


def test_the_balance_is_one_when_all_are_used_alike_and_e_when_one_is():
    even = torch.zeros(12, 4)
    assert float(balance(even, torch.arange(12)[:, None] % 4)) == pytest.approx(1.0)
    one = torch.full((12, 4), -30.0)
    one[:, 0] = 30.0
    assert float(balance(one, torch.zeros(12, 1, dtype=torch.long))) == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SparseExperts(4, experts=2, active=3), "3 active of 2"),
        (lambda: HeavyBall(1.0), "momentum 1.0"),
        (lambda: RobustMomentum(1.0, 0.5), "smallest < largest"),
        (lambda: RobustMomentum(0.1, 1.0, 0.5), "rate 0.5"),
    ],
)
def test_what_makes_no_sense_is_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()
