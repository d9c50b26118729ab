"""Analytic re-estimation: its terms vanish on what obeys them, its gradient is right, and a body in the air falls."""

from __future__ import annotations

import math

import pytest
import torch

from visviva.errors import InputError
from visviva.models.reestimation.analytic import Ground, Priors, cost, reestimate, unexplained
from visviva.physics.bodies import Body
from visviva.physics.dynamics import Points

FPS = 30.0


def box():
    """A rigid box of 2 kg with a free root and a lid on a ball joint."""
    eye = torch.eye(3, dtype=torch.float64)
    return Body(
        names=("box", "lid"), parents=(-1, 0), joints=("free", "ball"),
        offset=torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 0.3]], dtype=torch.float64), rest=eye.expand(2, 3, 3),
        axis=torch.zeros(2, 3, dtype=torch.float64), mass=torch.tensor([1.5, 0.5], dtype=torch.float64),
        com=torch.tensor([[0.0, 0.0, 0.1], [0.0, 0.0, 0.1]], dtype=torch.float64), inertia=0.01 * eye.expand(2, 3, 3),
    )  # fmt: skip


def flown(frames=24, gravity=-9.81):
    """Configurations of the box thrown without spin, and a ground that it does not touch or stands on."""
    body, t = box(), torch.arange(frames, dtype=torch.float64) / FPS
    q = body.neutral(frames)
    q[:, 0], q[:, 2] = 1.5 * t, 2.0 + 3.0 * t + gravity * t**2 / 2
    corners = torch.tensor([[0.1, 0.1, 0.0], [-0.1, 0.1, 0.0], [0.0, -0.1, 0.0]], dtype=torch.float64)
    standing = torch.zeros(frames, 1, dtype=torch.bool)
    return body, q, Ground(Points((0, 0, 0), corners), standing.expand(-1, 3), (0,), standing, 0.0)


def test_a_throw_needs_nothing_and_hanging_in_the_air_needs_its_weight():
    body, q, ground = flown()
    assert float(unexplained(body, q, FPS, ground).abs().max()) < 1e-9
    body, q, ground = flown(gravity=0.0)
    assert torch.allclose(unexplained(body, q, FPS, ground)[:, :3].norm(dim=-1), torch.ones(22, dtype=torch.float64))


def test_standing_is_explained_by_a_ground_and_only_in_contact():
    body, q, ground = flown()
    q[:, :3] = 0.0
    held = Ground(ground.points, ~ground.contact, ground.feet, ~ground.standing, 0.0)
    assert float(unexplained(body, q, FPS, held).abs().max()) < 0.02
    assert float(unexplained(body, q, FPS, ground).norm(dim=-1).min()) == pytest.approx(1.0, abs=1e-6)


def test_the_gradient_is_that_of_the_optimal_forces():
    torch.manual_seed(0)
    body, q, ground = flown(8)
    contact = torch.rand(8, 3) < 0.6
    ground = Ground(ground.points, contact, (0,), contact[:, :1], 0.05)
    q = q + 0.02 * torch.randn(q.shape, dtype=torch.float64) - 2.0 * torch.eye(11, dtype=torch.float64)[2]
    seen, way = torch.randn(8, 2, 3, dtype=torch.float64), torch.randn(q.shape, dtype=torch.float64)

    def total(x):
        return torch.stack(list(cost(body, x, seen, torch.tensor(0.1), FPS, ground, Priors(jerk=1e4)).values())).sum()

    x = q.clone().requires_grad_()
    (slope,) = torch.autograd.grad(total(x), x)
    step = 1e-6
    numeric = float(total(q + step * way) - total(q - step * way)) / (2 * step)
    assert float((slope * way).sum()) == pytest.approx(numeric, rel=1e-2)


def test_a_shaken_throw_falls_again():
    body, q, ground = flown()
    shaken = q.clone()
    shaken[:, :3] += 0.02 * torch.randn(24, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    body_joints = torch.stack([shaken[:, :3], shaken[:, :3] + body.offset[1]], 1)
    errors = {}
    for name, violation in (("free", math.inf), ("dynamic", 0.02)):
        priors = Priors(jerk=1e6, violation=violation, bone=0.0)
        found = reestimate(body, shaken, body_joints, torch.tensor(0.02), FPS, ground, priors)
        errors[name] = float((found.joints[:, 0] - q[:, :3]).square().mean().sqrt())
        assert sum(found.after.values()) <= sum(found.before.values())
    assert errors["dynamic"] < 0.6 * errors["free"]


def test_bad_input_is_refused():
    body, q, ground = flown()
    with pytest.raises(InputError, match="4 or more"):
        reestimate(body, q[:3], torch.zeros(3, 2, 3), torch.tensor(0.1), FPS, ground)
    q[0, 0] = float("nan")
    with pytest.raises(InputError, match="not finite"):
        reestimate(body, q, torch.zeros(24, 2, 3), torch.tensor(0.1), FPS, ground)
