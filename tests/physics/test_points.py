"""Jacobians of points on links: against Pinocchio, MuJoCo, autograd and the virtual work of wrenches."""

import dataclasses

import numpy as np
import pytest
import roma
import torch
from trees import for_pinocchio, mjcf, pinocchio_model, state, tree

from visviva.errors import InputError
from visviva.physics.dynamics import (
    Points,
    forward_dynamics,
    integrate,
    inverse_dynamics,
    mass_matrix,
    place,
    point_jacobian,
    point_wrenches,
)

LINKS = (0, 3, 11, 11, 23)


def spots(links=LINKS, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return Points(links, torch.randn(len(links), 3, generator=rng, dtype=torch.float64))


def relative(found, wanted):
    return float((found - wanted).abs().max() / wanted.abs().max())


@pytest.fixture(scope="module", params=[0, 1, 2])
def body(request):
    return tree(24, request.param, root="free" if request.param < 2 else "hinge")


@pytest.mark.parity
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_pinocchios_frames_move_alike(seed):
    pin = pytest.importorskip("pinocchio")
    body, points = tree(24, seed, kinds=("ball", "hinge", "slide")), spots()
    q, v, a = state(body, 3, seed)
    model = pinocchio_model(body)
    frames = [
        model.addFrame(pin.Frame(f"p{k}", 1 + link, pin.SE3(np.eye(3), at.numpy()), pin.FrameType.OP_FRAME))
        for k, (link, at) in enumerate(zip(points.links, points.at, strict=True))
    ]
    data = model.createData()
    found = point_jacobian(body, q, points)
    for i in range(len(q)):
        theirs = for_pinocchio(body, q[i], v[i], a[i])[0]
        pin.computeJointJacobians(model, data, theirs)
        pin.updateFramePlacements(model, data)
        rotation = roma.unitquat_to_rotmat(torch.from_numpy(theirs[3:7]))
        for k, frame in enumerate(frames):
            wanted = torch.from_numpy(np.array(pin.getFrameJacobian(model, data, frame, pin.LOCAL_WORLD_ALIGNED)[:3]))
            wanted[:, :3] = wanted[:, :3] @ rotation.T  # its free flyer's velocity is the body's own
            assert relative(found[i, k], wanted) < 1e-12


@pytest.mark.parity
def test_mujocos_points_move_alike():
    """With welded links, too."""
    mujoco = pytest.importorskip("mujoco")
    body, points = tree(24, 0), spots()
    assert "weld" in body.joints
    q, _, _ = state(body, 3)
    model = mujoco.MjModel.from_xml_string(mjcf(body))
    data = mujoco.MjData(model)
    found, where = point_jacobian(body, q, points), points.positions(place(body, q))
    for i in range(len(q)):
        data.qpos[:] = q[i]
        mujoco.mj_forward(model, data)
        for k, link in enumerate(points.links):
            wanted = np.zeros((3, model.nv))
            mujoco.mj_jac(model, data, wanted, None, where[i, k].numpy(), 1 + link)
            assert relative(found[i, k], torch.from_numpy(wanted)) < 1e-12


def test_it_is_the_derivative_of_where_points_are(body):
    q, v, _ = state(body, 2)
    points = spots()

    def at(step):
        return points.positions(place(body, integrate(body, q, step, 1.0)))

    by_autograd = torch.autograd.functional.jacobian(at, torch.zeros_like(v))
    found = point_jacobian(body, q, points)
    assert relative(found, torch.stack([by_autograd[i, :, :, i] for i in range(2)])) < 1e-12
    h = 1e-6
    speed = (at(h * v) - at(-h * v)) / (2 * h)
    assert relative(torch.einsum("bpxj,bj->bpx", found, v), speed) < 1e-8


def test_forces_do_as_much_as_wrenches_and_with_the_same_power(body):
    q, v, a = state(body, 3)
    points = spots()
    force = torch.randn(3, 5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    J = point_jacobian(body, q, points)
    tau = torch.einsum("bpxj,bpx->bj", J, force)
    wrench = point_wrenches(body, place(body, q), points, force)
    assert relative(inverse_dynamics(body, q, v, a) - inverse_dynamics(body, q, v, a, wrench), tau) < 1e-10
    power = (force * torch.einsum("bpxj,bj->bpx", J, v)).sum((-2, -1))
    assert torch.allclose(power, (tau * v).sum(-1), rtol=1e-12)
    pushed, still = (forward_dynamics(body, q, v, torch.zeros_like(v), w) for w in (wrench, None))
    assert relative((mass_matrix(body, q) @ (pushed - still)[..., None])[..., 0], tau) < 1e-8


def test_a_rotating_arm_has_its_textbook_speed():
    """A hinge about y at the origin: the point (0, 0, -2), turned by 0.3, moves at 2 along (-cos, 0, sin)."""
    arm = tree(1, 0, root="hinge").to(torch.float32)
    arm = dataclasses.replace(arm, axis=torch.tensor([[0.0, 1, 0]]), rest=torch.eye(3)[None], offset=torch.zeros(1, 3))
    J = point_jacobian(arm, torch.tensor([0.3]), Points((0,), torch.tensor([[0.0, 0, -2]])))
    assert J.dtype == torch.float32
    assert J[0, :, 0].tolist() == pytest.approx([-2 * np.cos(0.3), 0, 2 * np.sin(0.3)], abs=1e-6)


@pytest.mark.parametrize("shape", [(), (0,), (2, 3)])
def test_any_batch(body, shape):
    count = int(np.prod(shape))
    q, _, _ = state(body, count)
    found = point_jacobian(body, q.reshape(*shape, body.nq), spots())
    assert found.shape == (*shape, 5, 3, body.nv)
    assert torch.equal(found.reshape(count, 5, 3, body.nv), point_jacobian(body, q, spots()))


def test_points_may_wander():
    body = tree(6, 1)
    q, _, _ = state(body, 4)
    at = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    together = point_jacobian(body, q, Points((1, 5), at))
    for i in range(4):
        assert torch.equal(together[i], point_jacobian(body, q[i], Points((1, 5), at[i])))


def test_gradients_are_exact():
    body = tree(5, 4, kinds=("ball", "hinge", "slide"))
    q = state(body, 2, 4)[0].requires_grad_()
    at, force = (torch.randn(2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda q, at: point_jacobian(body, q, Points((2, 4), at)), (q, at))
    assert torch.autograd.gradcheck(
        lambda q, at, force: point_wrenches(body, place(body, q), Points((2, 4), at), force), (q, at, force)
    )


def test_points_that_are_not_the_bodys_are_refused():
    body = tree(3, 0)
    q, _, _ = state(body, 1)
    here = torch.zeros(1, 3, dtype=torch.float64)
    with pytest.raises(InputError, match=r"points on the links \[3\]"):
        point_jacobian(body, q, Points((3,), here))
    with pytest.raises(InputError, match=r"points on the links \[-1\]"):
        point_jacobian(body, q, Points((-1,), here))
    with pytest.raises(InputError, match=r"places of the shape \(1, 3\) for points on 2 links"):
        point_jacobian(body, q, Points((0, 1), here))
    with pytest.raises(InputError, match=r"points' places is torch\.float32"):
        point_jacobian(body, q, Points((0,), here.float()))
    with pytest.raises(InputError, match=r"forces of the shape \(2, 3\) at 1 points"):
        point_wrenches(body, place(body, q), Points((0,), here), torch.zeros(2, 3, dtype=torch.float64))
