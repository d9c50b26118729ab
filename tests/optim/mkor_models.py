"""What tests of MKOR share: two networks and their training."""

import torch
from torch import nn

D = torch.float64


def network(seed=0, dtype=D):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3, bias=False)).to(dtype)


def pictures(seed=0):
    torch.manual_seed(seed)
    layers = [nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(36, 3), nn.LayerNorm(3)]
    return nn.Sequential(*layers).to(D)


def backward(model, step, shape=(10, 6)):
    generator = torch.Generator().manual_seed(step)
    dtype = next(model.parameters()).dtype
    loss = (model(torch.randn(shape, generator=generator).to(dtype)) - 1).square().mean()
    loss.backward()
    return loss


def train(model, optimizer, steps, first=0, shape=(10, 6)):
    for step in range(first, first + steps):
        optimizer.zero_grad()
        backward(model, step, shape)
        optimizer.step()
    return [p.detach().clone() for p in model.parameters()]
