"""Sparse momentum: compact states, the other weights stand still, exact resume, and SPAM's rule on what is chosen."""

import copy

import pytest
import torch
from torch import nn

from visviva.errors import InputError
from visviva.optim import SPAM, AdamP, AdamW, SparseMomentum

SHAPES = [(8, 6), (5,), (8, 6), (4, 3, 3, 3)]


def parameters():
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(s, generator=generator, dtype=torch.float64)) for s in SHAPES]


def advance(tensors, optimizer, start, stop):
    for step in range(start, stop):
        generator = torch.Generator().manual_seed(100 + step)
        for p in tensors:
            p.grad = p.detach() + torch.randn(p.shape, generator=generator, dtype=p.dtype)
        optimizer.step()


def test_states_are_compact_and_other_weights_stand_still():
    tensors = parameters()
    before = [p.detach().clone() for p in tensors]
    optimizer = SPAM(tensors, lr=1e-2, density=0.25, reset_every=100)
    advance(tensors, optimizer, 0, 5)
    for p, old in zip(tensors, before, strict=True):
        kept = -(-p.numel() // 4)
        state = optimizer.state[p]
        assert state["exp_avg"].shape == state["exp_avg_sq"].shape == state["chosen"].shape == (kept,)
        moved = torch.zeros(p.numel(), dtype=torch.bool)
        moved[state["chosen"].long()] = True
        assert state["chosen"].unique().numel() == kept
        assert torch.equal((p.detach() != old).reshape(-1), moved)


def test_chosen_weights_follow_the_dense_rule():
    dense, sparse = parameters(), parameters()
    options = dict(lr=1e-2, reset_every=100, wait=2, theta=1.5)
    one, two = SPAM(dense, **options), SPAM(sparse, density=0.3, **options)
    gradients = [[torch.randn(p.shape, dtype=p.dtype) for p in dense] for _ in range(6)]
    for step in gradients:
        for tensors, optimizer in ((dense, one), (sparse, two)):
            for p, g in zip(tensors, step, strict=True):
                p.grad = g.clone()
            optimizer.step()
    for p, q in zip(dense, sparse, strict=True):
        chosen = two.state[q]["chosen"].long()
        assert torch.allclose(p.detach().reshape(-1)[chosen], q.detach().reshape(-1)[chosen], rtol=0, atol=1e-14)


def test_the_choice_is_drawn_anew_at_every_reset_and_averages_start_from_zero():
    tensors = parameters()
    optimizer = SPAM(tensors, lr=1e-2, density=0.5, reset_every=4)
    advance(tensors, optimizer, 0, 3)
    first = optimizer.state[tensors[0]]["chosen"].clone()
    advance(tensors, optimizer, 3, 4)
    state = optimizer.state[tensors[0]]
    assert not torch.equal(first, state["chosen"])
    gradient = tensors[0].grad.reshape(-1)[state["chosen"].long()]
    assert torch.allclose(state["exp_avg"], 0.1 * gradient)


def test_a_resumed_run_is_bit_identical():
    whole = parameters()
    optimizer = SPAM(whole, lr=1e-2, density=0.5, reset_every=4, seed=7)
    advance(whole, optimizer, 0, 6)
    resumed = [nn.Parameter(p.detach().clone()) for p in whole]
    other = SPAM(resumed, lr=1e-2, density=0.5, reset_every=4, seed=7)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    advance(whole, optimizer, 6, 11)
    advance(resumed, other, 6, 11)
    assert all(torch.equal(p, q) for p, q in zip(whole, resumed, strict=True))


def test_it_goes_beside_any_elementwise_optimizer():
    tensors = parameters()
    advance(tensors, AdamW(tensors, lr=1e-2, extra=[SparseMomentum(0.5)]), 0, 3)
    with pytest.raises(InputError, match="ProjectRadial needs whole tensors"):
        AdamP(parameters(), extra=[SparseMomentum(0.5)])
    with pytest.raises(InputError, match=r"SparseMomentum.density is 0"):
        SparseMomentum(0.0)
