"""Two processes give what one gives: FSDP2 shards (uneven and empty ones too) and DDP, for every optimizer."""

import pytest
import torch
from processes import in_two_processes
from torch import nn
from torch.nn import functional

from visviva.optim import BY_NAME

STEPS = 4


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 1)).double()


def batch(step):
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(8, 6, generator=generator, dtype=torch.float64)
    return x, x.sin().sum(1, keepdim=True)


def built(name, model):
    kind = BY_NAME[name]
    options = {"schedule": "svd"} if name in ("muon", "root", "namo", "namo_d", "fismo") else {}
    return kind(model.named_parameters(), lr=1e-2, weight_decay=0.1, **options)


def train(model, optimizer, start, rank=0, world=1):
    for step in range(start, start + STEPS):
        x, y = (part.chunk(world)[rank] for part in batch(step))
        functional.mse_loss(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()


def one_process(name):
    model = network()
    optimizer = built(name, model)
    train(model, optimizer, 0)
    train(model, optimizer, STEPS)
    return {n: p.detach() for n, p in model.named_parameters()}


def full(tensor):
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def sharded_and_replicated(rank):
    import torch.distributed as dist
    from torch.distributed.fsdp import fully_shard
    from torch.nn.parallel import DistributedDataParallel

    found = {}
    for name in BY_NAME:
        sharded = network()
        fully_shard(sharded, mesh=dist.device_mesh.init_device_mesh("cpu", (2,)))
        optimizer = built(name, sharded)
        train(sharded, optimizer, 0, rank, 2)
        saved = optimizer.state_dict()  # a new optimizer takes the shards' state over in the middle
        optimizer = built(name, sharded)
        optimizer.load_state_dict(saved)
        train(sharded, optimizer, STEPS, rank, 2)
        found[name, "fsdp2"] = {n: full(p.detach()).numpy() for n, p in sharded.named_parameters()}
        plain = network()
        wrapped = DistributedDataParallel(plain)
        optimizer = built(name, plain)
        train(wrapped, optimizer, 0, rank, 2)
        train(wrapped, optimizer, STEPS, rank, 2)
        found[name, "ddp"] = {n: p.detach().numpy() for n, p in plain.named_parameters()}
    return found


@pytest.fixture(scope="module")
def two_processes():
    return in_two_processes(sharded_and_replicated)


@pytest.mark.parametrize("wrapper", ["fsdp2", "ddp"])
@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_two_processes_equal_one(two_processes, name, wrapper):
    expected = one_process(name)
    for rank in (0, 1):
        found = two_processes[rank][name, wrapper]
        assert found.keys() == expected.keys()
        for parameter, value in expected.items():
            assert torch.allclose(torch.from_numpy(found[parameter]), value, rtol=0, atol=1e-9), (parameter, rank)
