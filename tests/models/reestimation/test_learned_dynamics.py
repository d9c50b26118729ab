"""The learned Euler-Lagrange step: symmetry, positive masses, and that it learns a double pendulum."""

from __future__ import annotations

import pytest
import torch

from visviva.errors import InputError
from visviva.models.reestimation.dynamics import MASSES, Estimator, PhysNet
from visviva.models.reestimation.update import step
from visviva.physics.bodies import Body
from visviva.physics.dynamics import forward_dynamics

STEPS = 400


def shaken(module):
    """The module with weights far from where they begin."""
    for p in module.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return module


def test_the_inverse_mass_without_its_noise_is_symmetric_and_the_noise_is_what_breaks_it():
    torch.manual_seed(0)
    net = shaken(PhysNet(joints=3, frames=8, width=16, depth=1))
    found = net.train()(torch.randn(2, 8, 3, 3))
    for side in (found.forward, found.inverse):
        symmetric = side.inverse - side.noise
        assert torch.allclose(symmetric, symmetric.mT, atol=1e-6 * float(side.inverse.detach().abs().max()))
        assert float((side.inverse - side.inverse.mT).abs().max().detach()) > 1e-2
        assert torch.allclose(side.acceleration, (side.inverse @ side.push[..., None])[..., 0], atol=1e-5)
    assert float(found.noise.detach()) > 1e-2
    still = net.eval()(torch.randn(2, 8, 3, 3))
    assert float(still.noise) < 1e-6
    assert torch.equal(still.forward.inverse, still.forward.inverse.mT)


def test_cholesky_masses_are_positive_definite():
    torch.manual_seed(0)
    found = shaken(Estimator(6, 16, "cholesky")).double()(*torch.randn(2, 50, 6, dtype=torch.float64))
    assert float(torch.linalg.eigvalsh(found.inverse.detach()).min()) > 0
    assert float((found.inverse - found.inverse.mT).abs().max()) < 1e-9 * float(found.inverse.abs().max())
    assert float(found.noise.abs().max()) == 0
    indefinite = shaken(Estimator(6, 16)).eval()(*torch.randn(2, 50, 6))
    assert float(torch.linalg.eigvalsh(indefinite.inverse.detach()).min()) < 0  # as published: nothing keeps it positive


def test_an_untrained_module_extrapolates_what_it_is_given():
    t = torch.arange(32.0)[:, None, None] / 20
    line = (torch.randn(17, 3, generator=torch.Generator().manual_seed(0)) * t + 1)[None]
    found = PhysNet().eval()(line)
    assert float((found.fused - line).abs().max()) < 0.05


def pendulums(count, frames, seed):
    """Angles of double pendulums, 1 m and 1 kg each, at 20 frames/s; simulated with 8 steps of RK4 in between."""
    body = Body(
        names=("upper", "lower"),
        parents=(-1, 0),
        joints=("hinge", "hinge"),
        offset=torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, -1.0]], dtype=torch.float64),
        rest=torch.eye(3, dtype=torch.float64).expand(2, 3, 3),
        axis=torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64).expand(2, 3),
        mass=torch.ones(2, dtype=torch.float64),
        com=torch.tensor([[0.0, 0.0, -1.0]], dtype=torch.float64).expand(2, 3),
        inertia=1e-3 * torch.eye(3, dtype=torch.float64).expand(2, 3, 3),
    )
    rng = torch.Generator().manual_seed(seed)
    q, v = 0.7 * torch.randn(2, count, 2, generator=rng, dtype=torch.float64)
    found, dt = [q], 1 / 160

    def rate(q, v):
        return v, forward_dynamics(body, q, v, torch.zeros_like(v))

    for number in range(1, 8 * (frames - 1) + 1):
        k = [rate(q, v)]
        for share in (0.5, 0.5, 1.0):
            k.append(rate(q + share * dt * k[-1][0], v + share * dt * k[-1][1]))
        q, v = (x + dt / 6 * (k[0][i] + 2 * k[1][i] + 2 * k[2][i] + k[3][i]) for i, x in enumerate((q, v)))
        if number % 8 == 0:
            found.append(q)
    return torch.stack(found, 1).float()


@pytest.mark.slow
@pytest.mark.parametrize("mass", MASSES)
def test_it_learns_a_double_pendulum(mass):
    train, test = pendulums(600, 8, 0), pendulums(100, 8, 1)
    torch.manual_seed(0)
    net = Estimator(2, 64, mass)
    rule = torch.optim.Adam(net.parameters(), 1e-2)

    def error(paths):
        found = net(paths[:, 1:-1], paths[:, :-2])
        return step(paths[:, 1:-1], paths[:, :-2], found.acceleration, 1 / 20) - paths[:, 2:], found

    for number in range(STEPS):
        rule.param_groups[0]["lr"] = 5e-3 * (1 - number / STEPS)
        wrong, found = error(train[torch.randint(len(train), (96,))])
        loss = wrong.square().mean() * 1e4 + 1e-3 * found.noise.square().sum((-2, -1)).mean()
        rule.zero_grad()
        loss.backward()
        rule.step()
    with torch.no_grad():
        learned = float(error(test)[0].square().mean().sqrt()) if net.eval() else 0.0
    velocity = float(test.diff(n=2, dim=1).square().mean().sqrt())
    acceleration = float(test.diff(n=3, dim=1).square().mean().sqrt())
    assert learned < 0.4 * min(velocity, acceleration), (learned, velocity, acceleration)


def test_bad_input_is_refused():
    with pytest.raises(InputError, match=r"symmetric\+noise or cholesky"):
        Estimator(3, 8, "diagonal")
    with pytest.raises(InputError, match=r"\(32, 17, 3\) is wanted"):
        PhysNet()(torch.zeros(1, 30, 17, 3))
