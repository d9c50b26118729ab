"""SGD-SaI where a tensor's first gradient is zero: its scale is taken from the first gradient that is not."""

import copy

import pytest
import torch
from torch import nn

from visviva.optim import LowRankRestart, SGDSaI, lora_pairs

D = torch.float64


class Adapted(nn.Module):
    """W x + B A x with B = 0 at first, as peft starts: the first gradient of A is exactly zero."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.base = nn.Linear(6, 5).to(D).requires_grad_(False)
        self.lora_A = nn.Linear(6, 2, bias=False).to(D)
        self.lora_B = nn.Linear(2, 5, bias=False).to(D)
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, x):
        return self.base(x) + self.lora_B(self.lora_A(x))


def train(model, optimizer, first, last):
    x = torch.randn(64, 6, dtype=D, generator=torch.Generator().manual_seed(1))
    y = (x @ torch.randn(6, 5, dtype=D, generator=torch.Generator().manual_seed(2))).tanh()
    for _ in range(first, last):
        optimizer.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        optimizer.step()
    return loss.item()


def ratio(g):
    return (torch.linalg.vector_norm(g) / (g.std() + 1e-8)).item()


@pytest.mark.parametrize("options", [{}, {"normalize": True}, {"adopt": True}, {"capturable": True}])
def test_both_factors_of_an_adapter_are_trained(options):
    model = Adapted()
    a, b = model.lora_A.weight, model.lora_B.weight
    optimizer = SGDSaI([a, b], lr=0.5 if options.get("normalize") else 0.05, weight_decay=0.0, **options)
    start, first = a.detach().clone(), train(model, optimizer, 0, 1)
    assert not a.grad.any()
    assert torch.equal(a, start)
    assert optimizer.state[a]["gsnr"] == 0
    scale_b = ratio(b.grad)
    train(model, optimizer, 1, 2)
    assert not torch.equal(a, start)
    divisor = max(scale_b, ratio(a.grad)) if options.get("normalize") else 1.0
    assert optimizer.state[a]["gsnr"].item() == pytest.approx(ratio(a.grad) / divisor)
    assert optimizer.state[b]["gsnr"].item() == pytest.approx(1.0 if options.get("normalize") else scale_b)
    taken = [optimizer.state[p]["gsnr"].item() for p in (a, b)]
    assert train(model, optimizer, 2, 200) < 0.5 * first
    assert [optimizer.state[p]["gsnr"].item() for p in (a, b)] == taken


@pytest.mark.parametrize("normalize", [False, True])
def test_a_run_resumed_before_the_scale_is_taken_goes_on_alike(normalize):
    one, two = Adapted(), Adapted()
    optimizers = [SGDSaI([m.lora_A.weight, m.lora_B.weight], lr=0.01, normalize=normalize) for m in (one, two)]
    train(one, optimizers[0], 0, 1)
    two.load_state_dict(one.state_dict())
    optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
    for model, optimizer in zip((one, two), optimizers, strict=True):
        train(model, optimizer, 1, 6)
    assert all(torch.equal(p, q) for p, q in zip(one.parameters(), two.parameters(), strict=True))


def test_the_others_are_as_if_the_late_tensor_were_not_there():
    ends = []
    for late in (False, True):
        p = [nn.Parameter(torch.ones(4, 3, dtype=D)) for _ in range(2 + late)]
        optimizer = SGDSaI(p, lr=0.1, normalize=True)
        for step in range(4):
            generator = torch.Generator().manual_seed(step)
            for q in p[:2]:
                q.grad = torch.randn(4, 3, dtype=D, generator=generator)
            if late:
                p[2].grad = torch.full((4, 3), float(step > 1), dtype=D)  # its ratio is above all others
            optimizer.step()
        ends.append([q.detach() for q in p[:2]])
    assert all(torch.equal(x, y) for x, y in zip(*ends, strict=True))


def test_a_restart_takes_the_scale_anew():
    model = Adapted()
    optimizer = SGDSaI([model.lora_A.weight, model.lora_B.weight], lr=0.01)
    restart = LowRankRestart(optimizer, lora_pairs(model), period=3)
    train(model, optimizer, 0, 3)
    old = optimizer.state[model.lora_B.weight]["gsnr"].item()
    assert [restart.step() for _ in range(3)] == [False, False, True]
    train(model, optimizer, 3, 4)
    assert optimizer.state[model.lora_B.weight]["gsnr"].item() == pytest.approx(ratio(model.lora_B.weight.grad))
    assert optimizer.state[model.lora_B.weight]["gsnr"].item() != old
