"""Derivatives of forward dynamics, by autograd and by the kernels' own gradient, against Pinocchio's analytic ones."""

import numpy as np
import pytest
import torch
from trees import for_pinocchio, pinocchio_model, state, tree

from visviva.physics.dynamics import forward_dynamics, integrate, place
from visviva.physics.dynamics.motion import cross, turned


def as_pinocchio(body, q, step, v, tau, push, method):
    """Its accelerations as a function of its own variables: a step of the configuration, velocity and force of a free root in
    the root's frame, forces on the links in theirs."""
    free = body.joints[0] == "free"
    moved, fast, force = step, v, tau
    if free:
        start = place(body, q).rotation[..., 0, :, :]
        moved = torch.cat([turned(start, step[..., :3]), step[..., 3:]], -1)
    q = integrate(body, q, moved, 1.0)
    rotation = place(body, q).rotation
    root = rotation[..., 0, :, :]
    if free:
        fast, force = (torch.cat([turned(root, x[..., :3]), x[..., 3:]], -1) for x in (v, tau))
    wrench = torch.cat([turned(rotation, push[..., :3]), turned(rotation, push[..., 3:])], -1)
    a = forward_dynamics(body, q, fast, force, wrench, method)
    return torch.cat([turned(root.mT, a[..., :3]) - cross(v[..., 3:6], v[..., :3]), a[..., 3:]], -1) if free else a


@pytest.mark.parity
@pytest.mark.parametrize("method", ["torch", "warp"])
@pytest.mark.parametrize(("seed", "root"), [(0, "free"), (1, "free"), (5, "hinge"), (6, "ball")])
def test_gradients_are_pinocchios(method, seed, root):
    """Trees of 24 links with balls, hinges and slides, pushed at every link."""
    pin = pytest.importorskip("pinocchio")
    body = tree(24, seed, kinds=("ball", "hinge", "slide"), root=root)
    q, v, tau = (x[0] for x in state(body, 1, seed))
    push = torch.randn(len(body), 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    model, outside = pinocchio_model(body), pin.StdVec_Force()
    for row in (torch.zeros(6), *push):
        outside.append(pin.Force(row.double().numpy()))
    data, (where, fast, _) = model.createData(), for_pinocchio(body, q, v, tau)
    pin.computeABADerivatives(model, data, where, fast, tau.numpy(), outside)
    inverse = np.triu(data.Minv) + np.triu(data.Minv, 1).T
    start, *rest = (x.expand(body.nv, -1) for x in (q, torch.from_numpy(fast), tau))
    inputs = [x.clone().requires_grad_() for x in (torch.zeros_like(rest[0]), *rest)]
    a = as_pinocchio(body, start, *inputs, push.expand(body.nv, -1, -1), method)
    found = torch.autograd.grad(a.diagonal().sum(), inputs)
    for by, wanted in zip(found, (data.ddq_dq, data.ddq_dv, inverse), strict=True):
        wanted = torch.from_numpy(np.array(wanted))
        assert float((by - wanted).abs().max() / wanted.abs().max()) < 1e-9
