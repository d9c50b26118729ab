"""States in eight bits: how exact they are, what they weigh, and that training, resuming and compiling go on as ever."""

import copy

import pytest
import torch
from torch import nn

from visviva.errors import InputError
from visviva.optim import AMMSGD, SPAM, AdamP, AdamW, Adan, Lion, MomentumReset
from visviva.optim.eight_bit import BLOCK, decode, encode


@pytest.mark.parametrize("power", [2, 4])
@pytest.mark.parametrize("size", [1, BLOCK, BLOCK + 1, 1000])
def test_numbers_come_back_within_half_a_code(power, size):
    values = torch.randn(size) * torch.logspace(-3, 3, size)
    codes, scales = encode(values, power)
    back = decode(codes, scales, power)
    assert codes.dtype == torch.int8
    assert len(scales) == -(-size // BLOCK)
    root = lambda x: x.sign() * (x.abs() / scales.repeat_interleave(BLOCK)[:size]) ** (1 / power)  # noqa: E731
    assert (root(back) - root(values)).abs().max() <= 0.5 / 127 + 1e-5


def test_zeros_stay_and_small_squares_do_not_become_zero():
    codes, scales = encode(torch.zeros(300), 4)
    assert torch.equal(decode(codes, scales, 4), torch.zeros(300))
    values = torch.tensor([1.0, 1e-8])
    assert (decode(*encode(values, 4), 4) > 0).all()


def model(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(12, 40), nn.Tanh(), nn.Linear(40, 3))


def train(network, optimizer, start, stop):
    for step in range(start, stop):
        x = torch.randn(64, 12, generator=torch.Generator().manual_seed(step))
        loss = (network(x) - torch.stack([x.sin().sum(1), x[:, 0] * x[:, 1], x.norm(dim=1)], 1)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


@pytest.mark.parametrize("make", [AdamW, Adan, Lion, SPAM, AMMSGD], ids=lambda m: m.__name__)
def test_training_goes_as_with_whole_states(make):
    rate = {"Lion": 1e-3, "AMMSGD": 5e-2}.get(make.__name__, 3e-3)
    ends = []
    for dtype in (None, torch.int8):
        network = model()
        start = train(network, make(network.parameters(), lr=0.0), 0, 1)
        ends.append(train(network, make(network.parameters(), lr=rate, state_dtype=dtype), 0, 300))
    assert ends[0] < 0.6 * start
    assert ends[1] < 1.1 * ends[0]


def test_a_weight_needs_two_bytes_of_state_instead_of_eight():
    weights = [nn.Parameter(torch.randn(64, 64)) for _ in range(4)]
    sizes = {}
    for dtype in (None, torch.int8):
        optimizer = AdamW(weights, state_dtype=dtype)
        for p in weights:
            p.grad = torch.randn_like(p)
        optimizer.step()
        entries = (v for p in weights for n, v in optimizer.state[p].items() if n != "step")
        sizes[dtype] = sum(v.numel() * v.element_size() for v in entries) / sum(p.numel() for p in weights)
    assert sizes == {None: 8.0, torch.int8: 2 + 8 / BLOCK}


def test_a_resumed_run_is_bit_identical_and_a_foreign_state_is_refused():
    whole = model()
    optimizer = AdamW(whole.parameters(), lr=1e-2, state_dtype=torch.int8, extra=[MomentumReset(7)])
    train(whole, optimizer, 0, 5)
    resumed = copy.deepcopy(whole)
    other = AdamW(resumed.parameters(), lr=1e-2, state_dtype=torch.int8, extra=[MomentumReset(7)])
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(whole, optimizer, 5, 12)
    train(resumed, other, 5, 12)
    assert all(torch.equal(p, q) for p, q in zip(whole.parameters(), resumed.parameters(), strict=True))
    with pytest.raises(InputError, match="exp_avg_scale"):
        AdamW(resumed.parameters(), lr=1e-2).load_state_dict(optimizer.state_dict())


@pytest.mark.slow
def test_compiled_equals_eager():
    ends = []
    for compiled in (False, True):
        network = model()
        train(network, AdamW(network.parameters(), lr=1e-2, state_dtype=torch.int8, compile=compiled), 0, 5)
        ends.append(nn.utils.parameters_to_vector(network.parameters()).detach())
    assert torch.allclose(*ends, rtol=0, atol=2e-4)  # a code may fall on the other side of its half


def test_optimizers_of_whole_tensors_keep_whole_states():
    with pytest.raises(InputError, match="AdamP: ProjectRadial works on whole tensors"):
        AdamP(model().parameters(), state_dtype=torch.int8)
