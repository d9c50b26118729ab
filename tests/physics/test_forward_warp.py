"""Mass matrix and forward dynamics as kernels: equal to the readable routines, gradients too, on any number of states."""

import dataclasses

import pytest
import torch
from trees import state, tree

from visviva.errors import InputError
from visviva.physics.bodies import Body
from visviva.physics.bodies.body import SHAPES
from visviva.physics.dynamics import forward_dynamics, inverse_dynamics, launch, mass_matrix, warped_forward
from visviva.physics.dynamics.inverse import check_wrench

ROOTS = ["free", "free", "slide", "ball", "hinge", "weld"]


def relative(found, wanted):
    return float((found - wanted).detach().abs().max() / wanted.detach().abs().max())


def random(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def geared(body):
    return dataclasses.replace(body, armature=random(body.nv).abs())


def stretched(body, count, seed=0):
    """States with quaternions that are not of unit length."""
    q, v, a = state(body, count, seed)
    return 1.7 * q, v, a


@pytest.mark.parametrize("seed", range(len(ROOTS)))
@pytest.mark.parametrize("armature", [False, True])
def test_the_mass_kernel_is_the_readable_routine(seed, armature):
    body = tree(24, seed, root=ROOTS[seed])
    body = geared(body) if armature else body
    q, _, _ = stretched(body, 7, seed)
    q.requires_grad_()
    weight = random(7, body.nv, body.nv)
    wanted, found = (mass_matrix(body, q, method) for method in ("torch", "warp"))
    assert relative(found, wanted) < 1e-12
    assert torch.equal(found, found.mT)
    gradients = [torch.autograd.grad((matrix * weight).sum(), q)[0] for matrix in (found, wanted)]
    assert relative(*gradients) < 1e-12


@pytest.mark.parametrize("seed", range(len(ROOTS)))
@pytest.mark.parametrize("extra", ["nothing", "wrench", "wrench and armature"])
def test_the_forward_kernels_are_the_readable_routine(seed, extra):
    body = tree(24, seed, root=ROOTS[seed])
    body = geared(body) if "armature" in extra else body
    wrench = random(7, len(body), 6) if "wrench" in extra else None
    inputs = [x.requires_grad_() for x in (*stretched(body, 7, seed), wrench) if x is not None]
    weight = random(7, body.nv)
    found = []
    for method in ("torch", "warp"):
        a = forward_dynamics(body, *inputs, method=method)
        found.append((a, *torch.autograd.grad((a * weight).sum(), inputs)))
    for ours, theirs in zip(found[1], found[0], strict=True):
        assert relative(ours, theirs) < 1e-10
    assert relative(inverse_dynamics(body, *inputs[:2], found[1][0], *inputs[3:], method="warp"), inputs[2]) < 1e-10


def test_gradients_are_exact():
    body = geared(tree(5, 5))
    assert set(body.joints) == {"free", "ball", "hinge", "slide"}
    q, v, tau = (x.requires_grad_() for x in stretched(body, 1, 5))
    wrench = random(1, 5, 6).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: mass_matrix(body, x, method="warp"), (q,))
    assert torch.autograd.gradcheck(lambda *x: forward_dynamics(body, *x, method="warp"), (q, v, tau, wrench))


def test_several_roots_share_no_mass():
    """Two free bodies and a welded post with a hinge in one tree."""
    one, other = tree(4, 0), tree(3, 1, root="weld", kinds=("hinge",))
    names = ("parents", "joints", *launch.SHAPES)
    parts = [{name: getattr(body, name) for name in names} for body in (one, one, other)]
    lifted = [tuple(p + 4 * k if p >= 0 else -1 for p in part["parents"]) for k, part in enumerate(parts)]
    whole = Body(
        names=tuple(f"link{k}" for k in range(11)),
        parents=sum(lifted, ()),
        joints=sum((part["joints"] for part in parts), ()),
        **{name: torch.cat([part[name] for part in parts]) for name in launch.SHAPES},
    )
    q, v, tau = (x.requires_grad_() for x in stretched(whole, 3))
    for routine, inputs in ((mass_matrix, (q,)), (forward_dynamics, (q, v, tau))):
        wanted, found = (routine(whole, *inputs, method=method) for method in ("torch", "warp"))
        assert relative(found, wanted) < 1e-12
        gradients = [torch.autograd.grad(result.square().sum(), inputs) for result in (found, wanted)]
        assert all(relative(x, y) < 1e-10 for x, y in zip(*gradients, strict=True))


def test_parts_and_threads_change_nothing(monkeypatch):
    """Memory that is written twice, or by two threads, or not at all, would show."""
    body = geared(tree(6, 2))
    inputs = [x.requires_grad_() for x in (*state(body, 50, 2), random(50, 6, 6))]
    found = []
    for size, threads in ((1024, 1), (7, 1), (7, 3), (1, 2)):
        monkeypatch.setitem(launch.CHUNK, "cpu", size)
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        a, matrix = forward_dynamics(body, *inputs, method="warp"), mass_matrix(body, inputs[0], method="warp")
        found.append((a, matrix, *torch.autograd.grad(a.square().sum() + matrix.square().sum(), inputs)))
    for other in found[1:]:
        assert all(torch.equal(x, y) for x, y in zip(other, found[0], strict=True))


@pytest.mark.parametrize("shape", [(), (0,), (2, 3), (2, 0)])
def test_any_batch(shape):
    body = tree(5, 3)
    count = torch.Size(shape).numel()
    q, v, tau = (x[:count].reshape(*shape, x.shape[-1]).requires_grad_() for x in state(body, max(1, count), 3))
    found, matrix = forward_dynamics(body, q, v, tau, method="warp"), mass_matrix(body, q, method="warp")
    assert found.shape == (*shape, body.nv)
    assert matrix.shape == (*shape, body.nv, body.nv)
    assert torch.allclose(found, forward_dynamics(body, q, v, tau))
    assert torch.allclose(matrix, mass_matrix(body, q))
    assert all(g.shape == x.shape for g, x in zip(torch.autograd.grad(found.sum(), (q, v, tau)), (q, v, tau), strict=True))


def test_states_that_are_shared_or_lie_apart_in_memory():
    """One configuration for all, columns of a wider table, links of a longer list, a gradient that is expanded."""
    body = tree(5, 3)
    q, v, tau = state(body, 8, 3)
    wide = torch.cat([v, tau], -1)
    inputs = [q[0], wide[::2, : body.nv], wide[::2, body.nv :], random(4, 8, 6)[:, :5]]
    assert not any(x.is_contiguous() for x in inputs[1:])
    found = []
    for method in ("torch", "warp"):
        asked = [x.detach().requires_grad_() for x in inputs]
        shared = asked[0].expand(4, -1)
        a, matrix = forward_dynamics(body, shared, *asked[1:], method=method), mass_matrix(body, shared, method=method)
        found.append((a, matrix, *torch.autograd.grad(a.sum() + matrix.sum(), asked)))
    assert all(relative(x, y) < 1e-10 for x, y in zip(*found, strict=True))
    assert relative(warped_forward.forward_dynamics(body, *inputs), found[1][0]) < 1e-10


def test_single_precision():
    for body in (tree(24, 0), geared(tree(24, 0))):
        q, v, tau = state(body, 20)
        small = body.to(torch.float32)
        states = [x.float() for x in (q, v, tau)]
        matrix, a = mass_matrix(small, states[0], method="warp"), forward_dynamics(small, *states, method="warp")
        assert matrix.dtype == a.dtype == torch.float32
        assert relative(matrix, mass_matrix(body, q)) < 1e-6
        assert relative(a, forward_dynamics(body, q, v, tau)) < 1e-5


def grounded(body):
    """The tree beside a link that is welded to the world: its free joint is not the first."""
    double = {name: torch.cat([getattr(body, name)[-1:], getattr(body, name)]) for name in SHAPES}
    parents = (-1, *(p + 1 if p >= 0 else -1 for p in body.parents))
    return dataclasses.replace(body, names=("world", *body.names), joints=("weld", *body.joints), parents=parents, **double)


@pytest.mark.parametrize("around", [lambda body: body, grounded])
def test_far_from_the_origin(around):
    """Nothing depends on where the body is: in float32, too, at 10 km."""
    body = around(tree(8, 0)).to(torch.float32)
    q, v, tau = (x.float() for x in state(body, 3))
    far = q.clone()
    far[:, :3] += 1e4
    for method in ("torch", "warp"):
        assert torch.equal(forward_dynamics(body, far, v, tau, method=method), forward_dynamics(body, q, v, tau, method=method))
    assert torch.equal(mass_matrix(body, far, method="warp"), mass_matrix(body, q, method="warp"))


def test_one_wrench_acts_on_all_states_and_others_must_fit():
    body = tree(4, 1)
    q, v, tau = state(body, 5)
    one = random(4, 6)
    for routine in (forward_dynamics, inverse_dynamics):
        for method in ("torch", "warp"):
            found = routine(body, q, v, tau, one.expand(5, 4, 6), method=method)
            assert torch.equal(found, routine(body, q, v, tau, check_wrench(body, one, q.shape[:-1]), method=method))
    with pytest.raises(InputError, match=r"for states of the batch \(5,\)"):
        check_wrench(body, random(3, 4, 6), q.shape[:-1])


def test_joints_without_inertia_are_named():
    body = tree(4, 0, kinds=("ball",))
    mass, inertia = body.mass.clone(), body.inertia.clone()
    mass[2:], inertia[2:] = 0, 0
    light = dataclasses.replace(body, mass=mass, inertia=inertia)
    q, v, tau = state(light, 300)
    said = []
    for method in ("torch", "warp"):
        with pytest.raises(InputError, match="move no inertia") as error:
            forward_dynamics(light, q, v, tau, method=method)
        said.append(str(error.value))
    assert said[0] == said[1]
    held = geared(light)
    assert relative(forward_dynamics(held, q, v, tau, method="warp"), forward_dynamics(held, q, v, tau)) < 1e-10


@pytest.mark.parametrize("where", [0, 4, 10])
def test_states_that_are_not_finite_are_refused_alike(where):
    """Position and orientation of the root, and a joint far down the tree."""
    body = tree(12, 2)
    q, v, tau = state(body, 5, 2)
    q[3, where] = torch.nan
    said = []
    for method in ("torch", "warp"):
        with pytest.raises(InputError, match="the state is not finite") as error:
            forward_dynamics(body, q, v, tau, method=method)
        said.append(str(error.value))
    assert said[0] == said[1]


def test_what_cannot_move():
    post = dataclasses.replace(tree(2, 0, kinds=("weld",)), joints=("weld", "weld"))
    nothing = torch.zeros(4, 0, dtype=torch.float64)
    assert mass_matrix(post, nothing, method="warp").shape == (4, 0, 0)
    assert forward_dynamics(post, nothing, nothing, nothing, method="warp").shape == (4, 0)
    assert inverse_dynamics(post, nothing, nothing, nothing, method="warp").shape == (4, 0)


def test_what_the_kernels_cannot_is_refused():
    body = tree(3, 0)
    q, v, a = state(body, 1)
    half, low = body.to(torch.bfloat16), [x.bfloat16() for x in (q, v, a)]
    for routine, inputs, wrong in ((mass_matrix, (q,), low[:1]), (forward_dynamics, (q, v, a), low)):
        with pytest.raises(InputError, match="float32 and float64"):
            routine(half, *wrong, method="warp")
        with pytest.raises(InputError, match="unknown method 'cuda'"):
            routine(body, *inputs, method="cuda")
        with pytest.raises(InputError, match="a configuration of"):
            routine(body, q[:, :-1], *inputs[1:], method="warp")
        for name, value in (("mass", body.mass), ("gravity", body.down)):
            asking = dataclasses.replace(body, **{name: value.clone().requires_grad_()})
            with pytest.raises(InputError, match="method='torch'"):
                routine(asking, *inputs, method="warp")
    rotor = torch.ones(body.nv, dtype=torch.float64, requires_grad=True)
    turned = dataclasses.replace(body, armature=rotor)
    with pytest.raises(InputError, match="method='torch'"):
        forward_dynamics(turned, q, v, a, method="warp")
    assert torch.equal(torch.autograd.grad(mass_matrix(turned, q, method="warp").sum(), rotor)[0], torch.ones_like(rotor))
    with pytest.raises(InputError, match="forces of"):
        forward_dynamics(body, q, v[:, :-1], a[:, :-1], method="warp")
    with pytest.raises(InputError, match=r"the force is torch\.float32"):
        forward_dynamics(body, q, v, a.float(), method="warp")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_agrees():
    body = geared(tree(24, 0))
    inputs = [x.requires_grad_() for x in (*state(body, 50), random(50, 24, 6))]
    there = [x.detach().cuda().requires_grad_() for x in inputs]
    for routine, count in ((mass_matrix, 1), (forward_dynamics, 4)):
        wanted, found = routine(body, *inputs[:count]), routine(body.to("cuda"), *there[:count], method="warp")
        assert torch.allclose(found.cpu(), wanted)
        gradients = [torch.autograd.grad(x.sum(), y[:count]) for x, y in ((found, there), (wanted, inputs))]
        assert all(torch.allclose(x.cpu(), y) for x, y in zip(*gradients, strict=True))


@pytest.mark.parametrize("routine", ["inverse", "forward", "mass"])
def test_second_derivatives_and_bodies_changed_meanwhile_are_errors(routine):
    body = tree(5, 0, root="free")
    q, v, a = state(body, 3, 0)
    q = q.requires_grad_()
    routines = {
        "inverse": lambda: inverse_dynamics(body, q, v, a, method="warp"),
        "forward": lambda: forward_dynamics(body, q, v, a, method="warp"),
        "mass": lambda: mass_matrix(body, q, method="warp"),
    }
    (gradient,) = torch.autograd.grad(routines[routine]().square().sum(), q, create_graph=True)
    with pytest.raises(InputError, match="first derivatives only; take method='torch'"):
        torch.autograd.grad(gradient.square().sum() + q.sum(), q)
    found = routines[routine]()
    body.mass.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        found.sum().backward()
