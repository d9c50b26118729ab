"""Copies and pickles of every optimizer, and of what chain(), eco() and MKOR make, step as the original does."""

import copy
import pickle

import pytest
import torch
from eco_bases import BASES, EmaSGD
from mkor_models import network, train
from torch import nn
from trajectories import parameters, set_gradients

from visviva.optim import BY_NAME, MKOR, MKORH, SGDM, SPAM, Apply, Cautious, Ema, Int, Muon, Nesterov, SpikeClip, chain, eco

SHAPES = ((8, 6), (5,), (4, 3, 3, 3), (8, 6))
WAYS = {"deepcopy": copy.deepcopy, "pickle": lambda x: pickle.loads(pickle.dumps(x))}
either = pytest.mark.parametrize("way", WAYS)
MADE = {
    **{name: lambda p, kind=kind: kind(p, lr=0.01) for name, kind in BY_NAME.items()},
    "chain": lambda p: chain(p, [Ema(0.9), Nesterov(0.9), Apply(weight_decay=0.1)], lr=0.01, extra=[Cautious()]),
    "adopted": lambda p: SPAM(p, lr=0.01, reset_every=4, adopt=True, extra=[Cautious()]),
    "sparse": lambda p: SPAM(p, lr=0.01, reset_every=4, density=0.5),
    "split": lambda p: Muon([("qkv.weight", p[0]), *zip("abc", p[1:], strict=True)], lr=0.01, split={"qkv": 2}),
    "eight bits": lambda p: BY_NAME["adamw"](p, lr=0.01, extra=[SpikeClip()], state_dtype=torch.int8),
    **{f"eco {b.__name__}": lambda p, b=b, o=o: eco(b, p, Int(), stochastic=True, seed=3, **o) for b, o in BASES},
    "eco exact": lambda p: eco(EmaSGD, p, Int(), exact=True, lr=0.01),
}


def steps(optimizer, params, first, last):
    for step in range(first, last):
        optimizer.zero_grad()
        set_gradients(params, step)
        optimizer.step()


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@either
@pytest.mark.parametrize("name", MADE)
def test_a_copy_goes_on_bit_for_bit(name, way):
    params = parameters(SHAPES, torch.float32)
    optimizer = MADE[name](params)
    steps(optimizer, params, 1, 5)
    twins, twin = WAYS[way]((params, optimizer))
    assert type(twin) is type(optimizer)
    assert twin.param_groups[0].keys() - {"differentiable"} == optimizer.param_groups[0].keys() - {"differentiable"}
    before = [p.detach().clone() for p in twins]
    steps(optimizer, params, 5, 9)
    assert same(before, twins)  # a copy shares no memory
    steps(twin, twins, 5, 9)
    assert same(params, twins)
    twin.load_state_dict(optimizer.state_dict())


@either
def test_a_copy_made_before_the_first_step_goes_on_too(way):
    params = parameters(SHAPES)
    twins, twin = WAYS[way]((params, MADE["chain"](params)))
    optimizer = MADE["chain"](params)
    steps(optimizer, params, 1, 4)
    steps(twin, twins, 1, 4)
    assert same(params, twins)


def test_a_pickle_holds_every_state_once():
    """States are views of one buffer, all of which would go along with each."""
    params = [nn.Parameter(torch.randn(16, 16)) for _ in range(50)]
    optimizer = BY_NAME["adamw"](params)
    steps(optimizer, params, 1, 3)
    assert len(pickle.dumps(optimizer)) < 2 * (3 * 50 * 256 * 4)


@either
@pytest.mark.parametrize("backend", [lambda p: SGDM(p, lr=0.1), lambda p: torch.optim.AdamW(p, lr=0.01)])
def test_mkor_is_copied_with_its_model(backend, way):
    model = network()
    optimizer = MKOR(model, backend(model.parameters()), refresh=2)
    train(model, optimizer, 5)
    twins, twin = WAYS[way]((model, optimizer))
    factors = copy.deepcopy(optimizer.factors)
    train(twins, twin, 4, first=5)
    assert all(torch.equal(a, b) for name in factors for a, b in zip(factors[name], optimizer.factors[name], strict=True))
    assert same(train(model, optimizer, 4, first=5), twins.parameters())
    twin.remove()
    assert not twins[0]._forward_hooks
    assert model[0]._forward_hooks


@either
def test_mkor_h_keeps_what_it_has_seen(way):
    model = network()
    optimizer = MKORH(model, SGDM(model.parameters(), lr=0.1), refresh=1)
    for loss in (3.0, 2.0, 1.5):
        optimizer.observe(loss)
        train(model, optimizer, 1)
    _, twin = WAYS[way]((model, optimizer))
    assert twin.switch_off == optimizer.switch_off
    assert twin.count == 3
