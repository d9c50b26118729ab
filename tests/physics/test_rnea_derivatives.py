"""Derivatives of inverse dynamics, by autograd and by the kernel's own gradient, against Pinocchio's analytic ones."""

import numpy as np
import pytest
import torch
from trees import for_pinocchio, pinocchio_model, state, tree

from visviva.physics.dynamics import integrate, inverse_dynamics, place
from visviva.physics.dynamics.motion import cross, turned


def as_pinocchio(body, q, step, v, a, push, method):
    """Its forces as a function of its own variables: a step of the configuration, velocity and acceleration of the root in the
    root's frame, forces on the links in theirs."""
    free = body.joints[0] == "free"
    moved = step
    if free:
        start = place(body, q).rotation[..., 0, :, :]
        moved = torch.cat([turned(start, step[..., :3]), step[..., 3:]], -1)
    q = integrate(body, q, moved, 1.0)
    rotation = place(body, q).rotation
    wrench = torch.cat([turned(rotation, push[..., :3]), turned(rotation, push[..., 3:])], -1)
    if not free:
        return inverse_dynamics(body, q, v, a, wrench, method)
    root = rotation[..., 0, :, :]
    gain = turned(root, a[..., :3] + cross(v[..., 3:6], v[..., :3]))
    v, a = torch.cat([turned(root, v[..., :3]), v[..., 3:]], -1), torch.cat([gain, a[..., 3:]], -1)
    tau = inverse_dynamics(body, q, v, a, wrench, method)
    return torch.cat([turned(root.mT, tau[..., :3]), tau[..., 3:]], -1)


def derivatives(body, state, push, method):
    """Of the forces by step, velocity and acceleration, (nv, nv) each: as many copies of the state as there are forces."""
    start, *rest = (torch.as_tensor(x).to(push).expand(body.nv, -1) for x in state)
    inputs = [x.clone().requires_grad_() for x in (torch.zeros_like(rest[0]), *rest)]
    tau = as_pinocchio(body, start, *inputs, push.expand(body.nv, -1, -1), method)
    return torch.autograd.grad(tau.diagonal().sum(), inputs)


@pytest.mark.parity
@pytest.mark.parametrize("method", ["torch", "warp"])
@pytest.mark.parametrize(("seed", "root"), [(0, "free"), (1, "free"), (5, "hinge"), (6, "ball")])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_gradients_are_pinocchios(method, seed, root, dtype):
    """Trees of 24 links with balls, hinges and slides, pushed at every link; float32 to its own precision."""
    pin = pytest.importorskip("pinocchio")
    body = tree(24, seed, kinds=("ball", "hinge", "slide"), root=root)
    q, v, a = (x[0] for x in state(body, 1, seed))
    push = torch.randn(len(body), 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    model = pinocchio_model(body)
    data, outside = model.createData(), pin.StdVec_Force()
    for row in (torch.zeros(6), *push):
        outside.append(pin.Force(row.double().numpy()))
    theirs = for_pinocchio(body, q, v, a)
    pin.computeRNEADerivatives(model, data, *theirs, outside)
    matrix = np.triu(data.M) + np.triu(data.M, 1).T
    ours = (q, *(torch.from_numpy(x) for x in theirs[1:]))
    found = derivatives(body.to(dtype), ours, push.to(dtype), method)
    for by, wanted in zip(found, (data.dtau_dq, data.dtau_dv, matrix), strict=True):
        wanted = torch.from_numpy(np.array(wanted))
        error = float((by - wanted).abs().max() / wanted.abs().max())
        assert error < (1e-9 if dtype == torch.float64 else 1e-5)
