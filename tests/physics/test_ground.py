"""Ground reactions against closed forms, a general solver, and what no ground can give."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from trees import state, tree

from visviva.errors import InputError
from visviva.physics.bodies import Body
from visviva.physics.dynamics import inverse_dynamics, place
from visviva.physics.dynamics.ground import Points, ground_reaction, in_cone

UP = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)


def block():
    """10 kg, 0.4 x 0.4 x 0.2 m, its origin in its middle."""
    side = torch.tensor([0.4, 0.4, 0.2], dtype=torch.float64).square()
    return Body(
        names=("block",),
        parents=(-1,),
        joints=("free",),
        offset=torch.zeros(1, 3, dtype=torch.float64),
        rest=torch.eye(3, dtype=torch.float64)[None],
        axis=torch.zeros(1, 3, dtype=torch.float64),
        mass=torch.tensor([10.0], dtype=torch.float64),
        com=torch.zeros(1, 3, dtype=torch.float64),
        inertia=torch.diag(side.sum() - side)[None] * 10 / 12,
    )


CORNERS = Points((0, 0, 0, 0), torch.tensor([[x, y, -0.1] for x in (-0.2, 0.2) for y in (-0.2, 0.2)], dtype=torch.float64))
WEIGHT = 98.1


def reaction(push=(0.0, 0.0, 0.0), contact=True, friction=0.5, points=CORNERS):
    body = block()
    q, v = body.neutral(1), torch.zeros(1, 6, dtype=torch.float64)
    a = torch.cat([torch.tensor([push], dtype=torch.float64) / 10, v[:, 3:]], -1)
    touching = torch.full((1, len(points.links)), contact)
    return ground_reaction(body, q, v, a, points, touching, friction, steps=3000)


def test_a_block_at_rest_stands_on_its_corners():
    found = reaction()
    assert torch.allclose(found.force, torch.tensor([0.0, 0, WEIGHT / 4], dtype=torch.float64).expand(1, 4, 3), atol=1e-3)
    assert float(found.violation) < 1e-5


def test_without_contact_all_of_the_weight_is_left():
    found = reaction(contact=False)
    assert float(found.violation) == pytest.approx(1)
    assert torch.equal(found.force, torch.zeros_like(found.force))


def test_a_free_fall_needs_no_ground():
    assert float(reaction(push=(0, 0, -WEIGHT), contact=False).violation) == pytest.approx(0, abs=1e-12)


def test_the_ground_does_not_pull():
    """Falling faster than free: what is left is the pull."""
    assert float(reaction(push=(0, 0, -1.5 * WEIGHT)).violation) == pytest.approx(0.5, rel=1e-3)


def test_friction_ends_at_its_cone():
    """A force F sideways through the middle of one point below the centre: |F| = mu W at most."""
    under = Points((0,), torch.zeros(1, 3, dtype=torch.float64))
    assert float(reaction(push=(0.4 * WEIGHT, 0, 0), points=under).violation) < 1e-5
    found = reaction(push=(0.9 * WEIGHT, 0, 0), points=under)
    assert float(found.violation) == pytest.approx((0.9 - 0.5) / np.sqrt(1.25), rel=1e-4)  # distance to the cone
    assert float(found.force[0, 0, 0] / found.force[0, 0, 2]) == pytest.approx(0.5, rel=1e-6)


def test_the_nearest_force_of_a_cone():
    force = torch.randn(500, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    near = in_cone(force, UP, 0.6)
    assert bool((near[:, :2].norm(dim=-1) <= 0.6 * near[:, 2] + 1e-9).all())
    assert torch.allclose(in_cone(near, UP, 0.6), near, atol=1e-12)
    other = in_cone(torch.randn(500, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64), UP, 0.6)
    assert bool((((force - near) * (other - near)).sum(-1) <= 1e-9).all())  # what makes it the nearest


def test_a_general_solver_finds_the_same():
    body = tree(6, 1, kinds=("ball",))
    q, v, a = state(body, 3, 1)
    points = Points((2, 4, 5), torch.randn(3, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64))
    contact = torch.ones(3, 3, dtype=torch.bool)
    found = ground_reaction(body, q, v / 4, a / 4, points, contact, 0.7, steps=4000, damping=0)
    rough = ground_reaction(body, q, v / 4, a / 4, points, contact, 0.7, steps=1, damping=0)
    zero, *units = [
        _left(body, q, v / 4, a / 4, points, f.view(3, 3).expand(3, 3, 3)) for f in torch.cat([torch.zeros(1, 9), torch.eye(9)])
    ]
    for i in range(3):
        pull = torch.stack([zero[i] - unit[i] for unit in units], -1).numpy()
        cones = [
            {"type": "ineq", "fun": lambda f, k=k: 0.49 * f[3 * k + 2] ** 2 - f[3 * k] ** 2 - f[3 * k + 1] ** 2}
            for k in range(3)
        ] + [{"type": "ineq", "fun": lambda f, k=k: f[3 * k + 2]} for k in range(3)]
        best = minimize(
            lambda f, i=i, pull=pull: float(np.square(zero[i].numpy() - pull @ f).sum()),
            np.tile([0.0, 0.0, 5.0], 3),
            constraints=cones,
            method="SLSQP",
            options={"maxiter": 1000, "ftol": 1e-14},
        )
        assert float(found.violation[i]) * 9.81 * body.total_mass == pytest.approx(np.sqrt(best.fun), rel=1e-2, abs=1e-2)
    assert bool((rough.violation >= found.violation - 1e-9).all())


def _left(body, q, v, a, points, force):
    """The root's wrench about the centre of mass under forces at the points, moments over the radius of gyration, (B, 6)."""
    pose = place(body, q)
    wrench = torch.zeros(len(q), len(body), 6, dtype=torch.float64)
    at = points.positions(pose)
    for k, link in enumerate(points.links):
        wrench[:, link, :3] += force[:, k]
        wrench[:, link, 3:] += torch.linalg.cross(at[:, k] - pose.position[:, link], force[:, k].double())
    centre = pose.centre_of_mass(body)
    tau = inverse_dynamics(body, q, v, a, wrench)
    moment = (pose.rotation[:, 0] @ tau[:, 3:6, None])[..., 0]
    moment = moment + torch.linalg.cross(pose.position[:, 0] - centre, tau[:, :3])
    arms = pose.position + (pose.rotation @ body.com[..., None])[..., 0] - centre[:, None]
    turning = (pose.rotation @ body.inertia @ pose.rotation.mT).sum(1)
    for arm, mass in zip(arms.unbind(1), body.mass, strict=True):
        turning = turning + mass * (arm.square().sum(-1)[:, None, None] * torch.eye(3) - arm[:, :, None] * arm[:, None])
    radius = (turning.diagonal(dim1=-2, dim2=-1).sum(-1) / 2 / body.total_mass).sqrt()
    return torch.cat([tau[:, :3], moment / radius[:, None]], -1)


def test_gradients_are_those_of_differences():
    body = tree(3, 2, kinds=("ball",))
    q, v, a = (x.requires_grad_() for x in state(body, 2, 2))
    points = Points((1, 2), torch.ones(2, 3, dtype=torch.float64) / 5)
    contact = torch.tensor([[True, True], [True, False]])
    assert torch.autograd.gradcheck(
        lambda *x: ground_reaction(body, *x, points, contact, steps=30).violation, (q, v, a), rtol=1e-3, atol=1e-6
    )


def test_what_has_no_ground_is_refused():
    fixed = tree(2, 0, root="hinge")
    q, v, a = state(fixed, 1)
    points = Points((1,), torch.zeros(1, 3, dtype=torch.float64))
    with pytest.raises(InputError, match="free root"):
        ground_reaction(fixed, q, v, a, points, torch.ones(1, 1, dtype=torch.bool))
    free = tree(2, 0)
    with pytest.raises(InputError, match="friction of -1"):
        ground_reaction(free, *state(free, 1), points, torch.ones(1, 1, dtype=torch.bool), friction=-1)
