"""What tests of ECO share: bases, tensors, a noisy walk, a quadratic."""

import torch
from torch import nn

from visviva.optim.adamw import AdamW
from visviva.optim.lion import Lion
from visviva.optim.moments import Ema
from visviva.optim.muon import Muon
from visviva.optim.optimizer import ChainOptimizer
from visviva.optim.quantizer import FP8, Int, Lattice
from visviva.optim.sgd import SGDM
from visviva.optim.weights import Apply

D = torch.float64
LATTICE = Lattice(0.05)
SCALED = [
    FP8(),
    FP8(scale="power_of_two"),
    FP8("row"),
    Int(),
    Int(bits=4),
    Int("block", block=16, bits=4),
    Int("tensor", "power_of_two"),
]


class EmaSGD(ChainOptimizer):
    """SGD with momentum as an average: the form in which the paper writes SGDM."""

    def __init__(self, params, lr, beta=0.9, weight_decay=0.0, **options):
        super().__init__(params, dict(lr=lr, beta=beta, weight_decay=weight_decay), **options)

    def transforms(self, group, kind=""):
        return [Ema(group["beta"]), Apply(group["weight_decay"])]


BASES = [
    (EmaSGD, dict(lr=0.1)),
    (SGDM, dict(lr=0.1, nesterov=True)),
    (AdamW, dict(lr=0.01)),
    (Lion, dict(lr=0.01, weight_decay=0.1)),
    (Muon, dict(lr=0.01)),
]


def parameters(dtype=D):
    torch.manual_seed(1)
    return [nn.Parameter(torch.randn(shape, dtype=D).to(dtype)) for shape in [(6, 4), (5,), (4, 6), (3, 2, 2)]]


def walk(optimizer, params, steps, first=0):
    for step in range(first, first + steps):
        generator = torch.Generator().manual_seed(step)
        for p in params:
            p.grad = p.detach() + torch.randn(p.shape, generator=generator).to(p.dtype)
        optimizer.step()


def quadratic(seed, d=20):
    generator = torch.Generator().manual_seed(seed)
    return torch.linspace(0.1, 1, d, dtype=D), torch.randn(d, dtype=D, generator=generator)
