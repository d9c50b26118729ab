"""Inverse dynamics as one kernel: equal to the readable one, gradients too, on any number of states and threads."""

import dataclasses

import pytest
import torch
from trees import state, tree

from visviva.errors import InputError
from visviva.physics.dynamics import inverse_dynamics, launch


def wrenches(body, count):
    return torch.randn(count, len(body), 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("outside", [False, True])
def test_the_kernel_is_the_readable_routine(seed, outside):
    body = tree(24, seed, root="free" if seed < 2 else "slide")
    inputs = [x.requires_grad_() for x in (*state(body, 7, seed), wrenches(body, 7))]
    weight = torch.randn(7, body.nv, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = []
    for method in ("torch", "warp"):
        tau = inverse_dynamics(body, *(inputs if outside else inputs[:3]), method=method)
        found.append((tau, *torch.autograd.grad((tau * weight).sum(), inputs[: 4 if outside else 3])))
    for ours, theirs in zip(found[1], found[0], strict=True):
        assert float((ours - theirs).detach().abs().max() / theirs.abs().max()) < 1e-12


def test_gradients_are_exact():
    body = tree(4, 1, kinds=("ball", "hinge", "slide"))
    inputs = [x.requires_grad_() for x in (*state(body, 2, 1), wrenches(body, 2))]
    assert torch.autograd.gradcheck(lambda *x: inverse_dynamics(body, *x, method="warp"), inputs)


def test_parts_and_threads_change_nothing(monkeypatch):
    """Memory that is written twice, or by two threads, or not at all, would show."""
    body = dataclasses.replace(tree(6, 2), armature=torch.tensor(0.1, dtype=torch.float64))
    inputs = [x.requires_grad_() for x in (*state(body, 50, 2), wrenches(body, 50))]
    found = []
    for size, threads in ((1024, 1), (7, 1), (7, 3), (1, 2)):
        monkeypatch.setitem(launch.CHUNK, "cpu", size)
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        tau = inverse_dynamics(body, *inputs, method="warp")
        found.append((tau, *torch.autograd.grad(tau.square().sum(), inputs)))
    for other in found[1:]:
        assert all(torch.equal(x, y) for x, y in zip(other, found[0], strict=True))


@pytest.mark.parametrize("shape", [(), (0,), (2, 3)])
def test_any_batch(shape):
    body = tree(5, 3)
    count = max(1, torch.Size(shape).numel())
    q, v, a = (x[: torch.Size(shape).numel()].reshape(*shape, x.shape[-1]) for x in state(body, count, 3))
    assert torch.allclose(inverse_dynamics(body, q, v, a, method="warp"), inverse_dynamics(body, q, v, a))


def test_single_precision():
    body = tree(24, 0)
    q, v, a = state(body, 20)
    wanted = inverse_dynamics(body, q, v, a)
    found = inverse_dynamics(body.to(torch.float32), *(x.float() for x in (q, v, a)), method="warp")
    assert found.dtype == torch.float32
    assert float((found - wanted).abs().max() / wanted.abs().max()) < 1e-5


def test_what_the_kernel_cannot_is_refused():
    body = tree(3, 0)
    q, v, a = state(body, 1)
    with pytest.raises(InputError, match="float32 and float64"):
        inverse_dynamics(body.to(torch.bfloat16), *(x.bfloat16() for x in (q, v, a)), method="warp")
    for name, value in (("mass", body.mass), ("gravity", body.down)):
        wanted = dataclasses.replace(body, **{name: value.clone().requires_grad_()})
        with pytest.raises(InputError, match="method='torch'"):
            inverse_dynamics(wanted, q, v, a, method="warp")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_agrees():
    body = tree(24, 0)
    inputs = [x.requires_grad_() for x in (*state(body, 50), wrenches(body, 50))]
    wanted = inverse_dynamics(body, *inputs)
    there = [x.detach().cuda().requires_grad_() for x in inputs]
    found = inverse_dynamics(body.to("cuda"), *there, method="warp")
    assert torch.allclose(found.cpu(), wanted)
    for x, y in zip(torch.autograd.grad(found.sum(), there), torch.autograd.grad(wanted.sum(), inputs), strict=True):
        assert torch.allclose(x.cpu(), y)
