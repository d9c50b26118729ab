"""Dynamics of trees against MuJoCo and Pinocchio, conservation laws, and gradients."""

import numpy as np
import pytest
import roma
import torch
from trees import for_pinocchio, mjcf, pinocchio_model, state, tree

from visviva.errors import InputError
from visviva.physics.bodies import Body
from visviva.physics.dynamics import (
    bias,
    energy,
    forward_dynamics,
    gravity_forces,
    integrate,
    inverse_dynamics,
    mass_matrix,
    momentum,
    move,
    place,
)
from visviva.physics.dynamics.motion import check_batch, check_configuration, check_velocity

SEEDS = [0, 1, 2]


def relative(found, wanted):
    return float((found - wanted).abs().max() / wanted.abs().max())


@pytest.fixture(scope="module", params=SEEDS)
def body(request):
    return tree(24, request.param, root="free" if request.param < 2 else "hinge")


@pytest.mark.parity
@pytest.mark.parametrize("seed", SEEDS)
def test_mujoco_agrees(seed):
    """Inverse dynamics, mass matrix, bias, forward dynamics and places of links, on trees of all kinds of joints."""
    mujoco = pytest.importorskip("mujoco")
    body = tree(24, seed)
    q, v, a = state(body, 4, seed)
    kernels = mass_matrix(body, q, method="warp"), forward_dynamics(body, q, v, a, method="warp")
    model = mujoco.MjModel.from_xml_string(mjcf(body))
    data = mujoco.MjData(model)
    assert (model.nq, model.nv) == (body.nq, body.nv)
    found = (
        inverse_dynamics(body, q, v, a),
        mass_matrix(body, q),
        bias(body, q, v),
        forward_dynamics(body, q, v, a),
        place(body, q),
    )
    for i in range(len(q)):
        data.qpos[:], data.qvel[:], data.qacc[:] = q[i], v[i], a[i]
        mujoco.mj_inverse(model, data)
        full = np.zeros((model.nv, model.nv))
        try:
            mujoco.mj_fullM(model, full, data.qM)
        except (AttributeError, TypeError):  # since MuJoCo 4
            mujoco.mj_fullM(model, data, full)
        assert relative(found[0][i], torch.from_numpy(data.qfrc_inverse.copy())) < 1e-9
        assert relative(found[1][i], torch.from_numpy(full)) < 1e-9
        assert relative(kernels[0][i], torch.from_numpy(full)) < 1e-9
        assert relative(found[2][i], torch.from_numpy(data.qfrc_bias.copy())) < 1e-9
        assert relative(found[4].position[i], torch.from_numpy(data.xpos[1:].copy())) < 1e-9
        data.qfrc_applied[:] = a[i]
        mujoco.mj_forward(model, data)
        assert relative(found[3][i], torch.from_numpy(data.qacc.copy())) < 1e-9
        assert relative(kernels[1][i], torch.from_numpy(data.qacc.copy())) < 1e-9


@pytest.mark.parity
@pytest.mark.parametrize("seed", SEEDS)
def test_pinocchio_agrees(seed):
    pin = pytest.importorskip("pinocchio")
    body = tree(24, seed, kinds=("ball", "hinge", "slide"))
    q, v, a = state(body, 4, seed)
    model = pinocchio_model(body)
    data = model.createData()
    found, matrices = inverse_dynamics(body, q, v, a), [mass_matrix(body, q, method) for method in ("torch", "warp")]
    for i in range(len(q)):
        theirs = for_pinocchio(body, q[i], v[i], a[i])
        wanted = torch.from_numpy(np.array(pin.rnea(model, data, *theirs)))
        rotation = roma.unitquat_to_rotmat(torch.from_numpy(theirs[0][3:7]))
        wanted[:3] = rotation @ wanted[:3]
        assert relative(found[i], wanted) < 1e-9
        whole = torch.from_numpy(np.array(pin.crba(model, data, theirs[0])))
        whole = torch.triu(whole) + torch.triu(whole, 1).T
        whole[:3] = rotation @ whole[:3]
        whole[:, :3] = whole[:, :3] @ rotation.T
        assert all(relative(matrix[i], whole) < 1e-9 for matrix in matrices)


@pytest.mark.parity
@pytest.mark.parametrize("method", ["torch", "warp"])
@pytest.mark.parametrize(("seed", "root"), [(0, "free"), (1, "free"), (2, "hinge"), (3, "ball")])
def test_pinocchios_articulated_bodies_agree(method, seed, root):
    """Pushed at every link; forces and accelerations of a free root turned into its own frame, as Pinocchio has them."""
    pin = pytest.importorskip("pinocchio")
    body = tree(24, seed, kinds=("ball", "hinge", "slide"), root=root)
    q, v, tau = state(body, 4, seed)
    wrench = torch.randn(4, 24, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    model = pinocchio_model(body)
    data, a, frames = model.createData(), forward_dynamics(body, q, v, tau, wrench, method), place(body, q).rotation
    for i in range(len(q)):
        own = torch.cat([(frames[i].mT @ half[..., None])[..., 0] for half in wrench[i].split(3, -1)], -1)
        outside = pin.StdVec_Force()
        for row in (torch.zeros(6), *own):
            outside.append(pin.Force(row.double().numpy()))
        *moving, wanted = for_pinocchio(body, q[i], v[i], a[i])
        force = tau[i].clone()
        if root == "free":
            force[:3] = frames[i, 0].T @ force[:3]
        theirs = torch.from_numpy(np.array(pin.aba(model, data, *moving, force.numpy(), outside)))
        assert relative(torch.from_numpy(wanted), theirs) < 1e-9


def test_forward_undoes_inverse_with_wrenches_and_armature(body):
    import dataclasses

    q, v, a = state(body)
    wrench = torch.randn(len(q), len(body), 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    geared = dataclasses.replace(body, armature=torch.full((body.nv,), 0.1, dtype=torch.float64))
    for one in (body, geared):
        tau = inverse_dynamics(one, q, v, a, wrench)
        assert relative(forward_dynamics(one, q, v, tau, wrench), a) < 1e-8
        solved = torch.linalg.solve(mass_matrix(one, q), (tau - inverse_dynamics(one, q, v, torch.zeros_like(a), wrench)))
        assert relative(solved, a) < 1e-8


def test_the_mass_matrix_is_that_of_unit_accelerations(body):
    q, _, _ = state(body, 2)
    unit = torch.eye(body.nv, dtype=torch.float64).expand(2, -1, -1)
    wide = q[:, None].expand(-1, body.nv, -1)
    columns = inverse_dynamics(body, wide, torch.zeros_like(unit), unit) - gravity_forces(body, wide)
    matrix = mass_matrix(body, q)
    assert relative(matrix, columns.mT) < 1e-10
    assert float(torch.linalg.eigvalsh(matrix).min()) > 0
    if body.joints[0] == "free":
        assert torch.allclose(matrix[:, :3, :3], body.mass.sum() * torch.eye(3, dtype=torch.float64), atol=1e-10)


def test_kinetic_energy_is_that_of_the_mass_matrix(body):
    q, v, _ = state(body)
    kinetic, _ = energy(body, move(body, q, v))
    assert torch.allclose(kinetic, torch.einsum("bi,bij,bj->b", v, mass_matrix(body, q), v) / 2)


def test_power_is_the_rate_of_energy(body):
    """d(T + V)/dt = tau . v along a path, by central differences: they converge with the square of the step."""
    q, v, a = state(body, 3)
    tau = inverse_dynamics(body, q, v, a)

    def total(dt):
        kinetic, potential = energy(body, move(body, integrate(body, q, v + dt / 2 * a, dt), v + dt * a))
        return kinetic + potential

    errors = [float(((total(h) - total(-h)) / (2 * h) - (tau * v).sum(-1)).abs().max()) for h in (1e-3, 5e-4)]
    assert errors[0] < 1e-2 * float((tau * v).sum(-1).abs().max())
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.2)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_root_rows_are_the_rate_of_momentum(seed):
    """Force on the root: m (a_com - g); moment: rate of the angular momentum about the root's origin."""
    body = tree(24, seed)
    q, v, a = state(body, 3, seed)
    tau = inverse_dynamics(body, q, v, a)

    def linear_angular(dt):
        motion = move(body, integrate(body, q, v + dt / 2 * a, dt), v + dt * a)
        return (*momentum(body, motion), motion.pose)

    h = 1e-5
    (p1, l1, pose), (p0, l0, _) = linear_angular(h), linear_angular(-h)
    force = (p1 - p0) / (2 * h) - body.mass.sum() * body.down
    assert relative(tau[:, :3], force) < 1e-6
    pose = place(body, q)
    arm = pose.centre_of_mass(body) - pose.position[:, 0]
    moment = (l1 - l0) / (2 * h) + torch.linalg.cross(arm, force)
    assert relative((pose.rotation[:, 0] @ tau[:, 3:6, None])[..., 0], moment) < 1e-6


def test_nothing_moves_the_root_in_flight():
    """A passive body thrown with spin: momentum follows gravity, spin stays, and the root's rows vanish along the way."""
    body = tree(8, 3, kinds=("ball", "hinge"))
    q, v, _ = state(body, 2, 3)
    v = v / 4
    h, none = 1e-3, torch.zeros_like(v)
    p0, l0 = momentum(body, move(body, q, v))
    for _ in range(100):  # midpoint rule
        half = v + h / 2 * forward_dynamics(body, q, v, none)
        middle = integrate(body, q, half, h / 2)
        a = forward_dynamics(body, middle, half, none)
        q, v = integrate(body, q, v + h / 2 * a, h), v + h * a
    p1, l1 = momentum(body, move(body, q, v))
    assert relative(p1 - p0, (0.1 * body.mass.sum() * body.down).expand(2, 3)) < 1e-3
    assert relative(l1, l0) < 2e-3
    assert float(inverse_dynamics(body, q, v, forward_dynamics(body, q, v, none))[:, :6].abs().max()) < 1e-8


def test_gradients_are_exact():
    body = tree(5, 4, kinds=("ball", "hinge", "slide"))
    q, v, a = (x.requires_grad_() for x in state(body, 2, 4))
    assert torch.autograd.gradcheck(lambda *x: inverse_dynamics(body, *x), (q, v, a))
    assert torch.autograd.gradcheck(lambda x: mass_matrix(body, x), (q,))
    assert torch.autograd.gradcheck(lambda *x: forward_dynamics(body, *x), (q, v, a), rtol=1e-3, atol=1e-4)


def test_a_pendulum_has_its_textbook_torque():
    arm = Body(
        names=("arm",),
        parents=(-1,),
        joints=("hinge",),
        offset=torch.zeros(1, 3),
        rest=torch.eye(3)[None],
        axis=torch.tensor([[0.0, 1.0, 0.0]]),
        mass=torch.tensor([2.0]),
        com=torch.tensor([[0.0, 0.0, -0.5]]),
        inertia=torch.zeros(1, 3, 3),
    )
    angle = torch.tensor([[0.3]])
    tau = arm.inverse_dynamics(angle, torch.tensor([[1.7]]), torch.tensor([[0.4]]))
    assert tau.item() == pytest.approx(2 * 0.25 * 0.4 + 2 * 9.81 * 0.5 * np.sin(0.3), rel=1e-6)
    assert arm.mass_matrix(angle).item() == pytest.approx(0.5)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_any_batch_gives_the_same(body, shape):
    count = int(np.prod(shape))
    q, v, a = state(body, count)
    flat = inverse_dynamics(body, q, v, a)
    shaped = inverse_dynamics(body, *(x.reshape(*shape, -1) for x in (q, v, a)))
    assert torch.allclose(shaped.reshape(count, -1), flat)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"joints": ("free", "screw")}, "unknown joint 'screw'"),
        ({"parents": (-1, 1)}, "parents come before"),
        ({"joints": ("ball", "free")}, "only roots"),
        ({"mass": torch.tensor([1.0, -1.0])}, "negative mass of 'b'"),
        ({"com": torch.zeros(2, 2)}, r"com has the shape \(2, 2\)"),
        ({"inertia": torch.diag_embed(torch.tensor([[1.0, 1, 1], [3, 1, 1]]))}, "the inertia of 'b'"),
        ({"axis": torch.tensor([[0.0, 0, 1], [0, 0, 2]]), "joints": ("free", "hinge")}, "axis of 'b'"),
        ({"offset": torch.tensor([[0.0, 0, 0], [0, 0, torch.nan]])}, "offset is not finite for the links 'b'"),
    ],
)
def test_what_is_no_body_is_refused(change, said):
    good = {
        "names": ("a", "b"),
        "parents": (-1, 0),
        "joints": ("free", "ball"),
        "offset": torch.zeros(2, 3),
        "rest": torch.eye(3).expand(2, 3, 3),
        "axis": torch.zeros(2, 3),
        "mass": torch.ones(2),
        "com": torch.zeros(2, 3),
        "inertia": torch.eye(3).expand(2, 3, 3),
    }
    Body(**good)
    with pytest.raises(InputError, match=said):
        Body(**{**good, **change})


def test_wrong_lengths_are_refused(body):
    q, v, a = state(body, 1)
    with pytest.raises(InputError, match="a configuration of"):
        inverse_dynamics(body, q[:, :-1], v, a)
    with pytest.raises(InputError, match="a velocity of"):
        inverse_dynamics(body, q, v[:, :-1], a[:, :-1])
    for check in (check_configuration, check_velocity):
        with pytest.raises(InputError, match=r"of the shape \(\); \(\*batch, "):
            check(body, torch.tensor(0.0, dtype=torch.float64))
    with pytest.raises(InputError, match=r"the configuration is torch.float32 on cpu, the body torch.float64"):
        inverse_dynamics(body, q.float(), v, a)
    with pytest.raises(InputError, match="wrenches of the shape"):
        inverse_dynamics(body, q, v, a, torch.zeros(1, 2, 6))
    with pytest.raises(InputError, match=r"the wrench is torch\.float32"):
        inverse_dynamics(body, q, v, a, torch.zeros(1, len(body), 6))
    with pytest.raises(InputError, match="unknown method 'cuda'"):
        body.inverse_dynamics(q, v, a, method="cuda")
    with pytest.raises(InputError, match="forces of"):
        forward_dynamics(body, q, v[:, :-1], a[:, :-1])
    with pytest.raises(InputError, match="one batch for all"):
        check_batch(q, v[:0], a)


def test_joints_without_inertia_are_named():
    import dataclasses

    body = tree(3, 0, kinds=("ball",))
    mass, inertia = body.mass.clone(), body.inertia.clone()
    mass[2], inertia[2] = 0, 0
    light = dataclasses.replace(body, mass=mass, inertia=inertia)
    q, v, a = state(light, 2)
    assert bool(inverse_dynamics(light, q, v, a).isfinite().all())
    with pytest.raises(InputError, match="the joints of 'link2' move no inertia"):
        forward_dynamics(light, q, v, a)
    geared = dataclasses.replace(light, armature=torch.full((light.nv,), 0.01, dtype=torch.float64))
    assert relative(forward_dynamics(geared, q, v, inverse_dynamics(geared, q, v, a)), a) < 1e-8


def test_what_cannot_move_has_no_forces():
    import dataclasses

    post = dataclasses.replace(tree(2, 0, kinds=("weld",)), joints=("weld", "weld"))
    nothing = torch.zeros(4, 0, dtype=torch.float64)
    assert inverse_dynamics(post, nothing, nothing, nothing).shape == (4, 0)
    assert mass_matrix(post, nothing).shape == (4, 0, 0)
    assert forward_dynamics(post, nothing, nothing, nothing).shape == (4, 0)
