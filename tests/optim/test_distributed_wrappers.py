"""ECO and low-rank restarts on FSDP2's shards (two processes, uneven and empty shards) give what one process gives."""

import pytest
import torch
from processes import in_two_processes
from test_distributed import batch, full, network
from torch import nn
from torch.nn import functional

from visviva.optim import FP8, SGDM, AdamW, Int, Lattice, Lion, LowRankRestart, Muon, eco, lora_pairs

STEPS = 6
BASES = {
    "sgdm": (SGDM, dict(lr=0.02)),
    "adamw": (AdamW, dict(lr=0.01, weight_decay=0.1)),
    "lion": (Lion, dict(lr=0.02)),
    "muon": (Muon, dict(lr=0.02, schedule="svd")),
}
QUANTIZERS = {"lattice": Lattice(0.01), "rows": Int("row"), "tensor": FP8(), "blocks": Int("block", block=16, bits=4)}
CASES = [(b, q, s) for b in BASES for q in QUANTIZERS for s in (False, True)]


class Adapted(nn.Module):
    """``(W + B A) x``: a rank of 3 in two shards leaves one of 2 rows and one of 1."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.base, self.lora_A, self.lora_B = nn.Linear(6, 1), nn.Linear(6, 3, bias=False), nn.Linear(3, 1, bias=False)
        self.double()

    def forward(self, x):
        return self.base(x) + self.lora_B(self.lora_A(x))


def train(model, optimizer, rank=0, world=1, after=lambda: None):
    for step in range(STEPS):
        x, y = (part.chunk(world)[rank] for part in batch(step))
        functional.mse_loss(model(x), y).backward()
        optimizer.step()
        after()
        optimizer.zero_grad()
    return {n: full(p.detach()).numpy() for n, p in model.named_parameters()}


def compensated(model, case, rank=0, world=1):
    base, quantizer, stochastic = case
    kind, options = BASES[base]
    optimizer = eco(kind, model.named_parameters(), QUANTIZERS[quantizer], stochastic=stochastic, seed=3, **options)
    return train(model, optimizer, rank, world)


def restarted(model, rank=0, world=1):
    optimizer = AdamW(model.named_parameters(), lr=0.05)
    restart = LowRankRestart(optimizer, lora_pairs(model), period=2)
    return train(model, optimizer, rank, world, restart.step)


def on_shards(rank):
    import torch.distributed as dist
    from torch.distributed.fsdp import fully_shard

    mesh, found = dist.device_mesh.init_device_mesh("cpu", (2,)), {}
    for case in CASES:
        found[case] = compensated(fully_shard(network(), mesh=mesh), case, rank, 2)
    found["restart"] = restarted(fully_shard(Adapted(), mesh=mesh), rank, 2)
    return found


@pytest.fixture(scope="module")
def two_processes():
    return in_two_processes(on_shards)


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.allclose(torch.from_numpy(found[name]), torch.from_numpy(value), rtol=0, atol=1e-9), name


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c[0]} {c[1]} {'stochastic' if c[2] else 'nearest'}")
def test_eco_on_shards_is_eco(two_processes, case):
    expected = compensated(network(), case)
    for rank in (0, 1):
        assert_equal(two_processes[rank][case], expected)


def test_restarts_on_shards_are_restarts(two_processes):
    expected = restarted(Adapted())
    for rank in (0, 1):
        assert_equal(two_processes[rank]["restart"], expected)
    gram = torch.from_numpy(expected["lora_B.weight"]).norm() / torch.from_numpy(expected["lora_A.weight"]).norm()
    assert gram.item() == pytest.approx(1.0, abs=1e-9)  # balanced, right after a restart (rank one)
