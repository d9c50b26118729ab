"""MKOR-H: when it switches off, and what it is afterwards."""

import copy

import torch
from mkor_models import backward, network, train

from visviva.optim.mkor import MKORH
from visviva.optim.sgd import SGDM
from visviva.optim.switch_off import SwitchOff


def test_mkor_h_switches_off_when_the_loss_stands_and_only_then():
    """Reconstructed criterion: geometric fall keeps it on; then a constant loss switches off after the average has sunk."""
    criterion = SwitchOff(beta=0.5, fraction=0.1, patience=3)
    losses = [0.9**k for k in range(20)]
    assert not any(criterion(loss) for loss in losses)
    flat = [criterion(losses[-1]) for _ in range(10)]
    assert flat.index(True) == 3 + 2  # 0.5^k < 0.1 at the fourth, then two more
    assert criterion(0.0)


def test_mkor_h_goes_on_as_its_backend():
    model = network()
    optimizer = MKORH(model, SGDM(model.parameters(), lr=0.05, momentum=0.0), refresh=1, switch_off=SwitchOff(beta=0.0))
    for step in range(4):
        train_with_loss(model, optimizer, step, constant=step > 1)
    assert optimizer.on
    for step in range(4, 8):
        train_with_loss(model, optimizer, step, constant=True)
    assert not optimizer.on
    twin = copy.deepcopy(model)
    plain = train(twin, SGDM(twin.parameters(), lr=0.05, momentum=0.0), 1, first=9)
    assert all(torch.equal(x, y) for x, y in zip(plain, train(model, optimizer, 1, first=9), strict=True))


def train_with_loss(model, optimizer, step, constant):
    optimizer.zero_grad()
    backward(model, step)
    optimizer.observe(1.0 if constant else 5.0 - step)
    optimizer.step()
