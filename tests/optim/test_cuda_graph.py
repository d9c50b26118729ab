"""A step captured in a CUDA graph and replayed with new gradients is the step taken eagerly."""

import pytest
import torch

from visviva.optim import BY_NAME

SHAPES = {"w0": (64, 32), "bias": (32,), "w1": (128, 64)}
CAPTURED = sorted(set(BY_NAME) - {"fismo"})  # FISMO refuses capturable=True: tests of errors


def gradients(step):
    rng = torch.Generator("cuda").manual_seed(step)
    return [torch.randn(shape, device="cuda", generator=rng) for shape in SHAPES.values()]


def begun(name):
    """Weights and their optimizer after three eager steps; gradients stay where they are."""
    rng = torch.Generator("cuda").manual_seed(100)
    weights = {k: torch.nn.Parameter(torch.randn(shape, device="cuda", generator=rng)) for k, shape in SHAPES.items()}
    optimizer = BY_NAME[name](list(weights.items()), lr=1e-2, capturable=True)
    for weight in weights.values():
        weight.grad = torch.zeros_like(weight)
    for step in range(3):
        torch._foreach_copy_([w.grad for w in weights.values()], gradients(step))
        optimizer.step()
    return list(weights.values()), optimizer


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", CAPTURED)
def test_a_replayed_step_is_an_eager_one(name):
    eager, optimizer = begun(name)
    for step in range(3, 8):
        torch._foreach_copy_([w.grad for w in eager], gradients(step))
        optimizer.step()
    replayed, optimizer = begun(name)
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        optimizer.step()
    for step in range(3, 8):
        torch._foreach_copy_([w.grad for w in replayed], gradients(step))
        graph.replay()
    torch.cuda.synchronize()
    assert all(torch.equal(x, y) for x, y in zip(eager, replayed, strict=True))
