"""Low-rank restarts: the product stays, factors are balanced, momentum starts again, the rate recovers."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from visviva.errors import InputError
from visviva.optim.adamw import AdamW
from visviva.optim.mkor import MKOR
from visviva.optim.muon import Muon
from visviva.optim.refactorize import (
    LowRankRestart,
    Pair,
    balanced,
    lora_pairs,
    quick_recovery,
    refactorize,
    reset_momentum,
)
from visviva.optim.sgd import SGDM

D = torch.float64


def pair(m=9, r=3, n=7, seed=0, dtype=D):
    generator = torch.Generator().manual_seed(seed)
    b = 30 * torch.randn(m, r, dtype=dtype, generator=generator) * torch.tensor([1.0, 0.1, 10.0], dtype=dtype)[:r]
    a = 0.01 * torch.randn(r, n, dtype=dtype, generator=generator)
    return Pair("pair", nn.Parameter(b), nn.Parameter(a))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 5), st.integers(1, 12), st.integers(0, 1000))
def test_the_product_stays_and_the_factors_are_balanced(m, r, n, seed):
    generator = torch.Generator().manual_seed(seed)
    b, a = (torch.randn(shape, dtype=D, generator=generator) for shape in ((m, r), (r, n)))
    new_b, new_a = balanced(100 * b, a / 10)
    assert (new_b @ new_a - 10 * b @ a).abs().max() < 1e-12 * 10 * max(1.0, float((b @ a).abs().max()))
    assert new_b.shape == b.shape
    assert new_a.shape == a.shape
    used = min(m, r, n)
    gram = new_b.T @ new_b
    assert torch.allclose(gram[:used, :used], (new_a @ new_a.T)[:used, :used], rtol=0, atol=1e-10 * float(gram.abs().max()))
    assert torch.allclose(gram, torch.diag(gram.diag()), rtol=0, atol=1e-10 * float(gram.abs().max()))


def test_conditioning_of_badly_scaled_factors():
    """Gauss-Newton condition of ||B A - W||^2 in (B, A), the r^2 rotations left out; card: 15742 -> 5.3."""

    def condition(b, a):
        def product(b, a):
            return (b @ a).flatten()

        j = torch.cat([x.reshape(b.shape[0] * a.shape[1], -1) for x in torch.autograd.functional.jacobian(product, (b, a))], 1)
        s = torch.linalg.svdvals(j)
        rank = b.numel() + a.numel() - b.shape[1] ** 2
        return (s[0] / s[rank - 1]).item() ** 2

    generator = torch.Generator().manual_seed(0)
    u, v = (torch.linalg.qr(torch.randn(8, 3, dtype=D, generator=generator))[0] for _ in range(2))
    middle = torch.tensor([2.0, 1.5, 1.0], dtype=D)
    scale = torch.tensor([50.0, 1.0, 10.0], dtype=D)
    b, a = u * scale, (middle / scale)[:, None] * v.T
    after = condition(*balanced(b, a))
    assert condition(b, a) > 1000 * after
    assert after < 6


def test_a_fresh_or_rank_deficient_adapter_can_still_learn():
    fresh = Pair("fresh", nn.Parameter(torch.zeros(5, 2)), nn.Parameter(torch.randn(2, 4)))
    before = fresh.a.detach().clone()
    refactorize(fresh)
    assert torch.equal(fresh.a.detach(), before)
    b, a = torch.zeros(5, 2, dtype=D), torch.randn(2, 4, dtype=D)
    b[:, 0] = torch.randn(5, dtype=D)
    new_b, new_a = balanced(b, a)
    assert torch.allclose(new_b @ new_a, b @ a, rtol=0, atol=1e-13)
    assert not new_b[:, 1].any()
    assert torch.linalg.vector_norm(new_a[1]).item() == pytest.approx(torch.linalg.vector_norm(new_a[0]).item())


def test_convolution_adapters_and_half_precision():
    conv = Pair("conv", nn.Parameter(torch.randn(6, 2, 1, 1, dtype=D)), nn.Parameter(torch.randn(2, 3, 3, 3, dtype=D)))
    expected = (conv.b.flatten(1) @ conv.a.flatten(1)).detach()
    refactorize(conv)
    assert torch.allclose(conv.b.flatten(1) @ conv.a.flatten(1), expected, rtol=0, atol=1e-12)
    half = Pair("half", nn.Parameter(torch.randn(64, 4).bfloat16()), nn.Parameter(torch.randn(4, 64).bfloat16()))
    expected = half.b.detach().float() @ half.a.detach().float()
    refactorize(half)
    found = half.b.detach().float() @ half.a.detach().float()
    assert half.b.dtype == torch.bfloat16
    assert torch.linalg.matrix_norm(found - expected) < 0.01 * torch.linalg.matrix_norm(expected)


def test_pairs_of_a_peft_model_are_found_and_its_output_stays():
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)).to(D)
    model = peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules=["0", "2"], init_lora_weights=False)).to(D)
    pairs = lora_pairs(model)
    assert [tuple(x.shape) for p in pairs for x in p[1:]] == [(8, 2), (2, 6), (4, 2), (2, 8)]
    x = torch.randn(5, 6, dtype=D)
    expected = model(x).detach()
    for found in pairs:
        refactorize(found)
    assert (model(x) - expected).abs().max() < 1e-12


@pytest.mark.parametrize("make", [AdamW, torch.optim.AdamW, SGDM, Muon])
@pytest.mark.parametrize("restart_count", [True, False])
def test_reset_starts_the_chosen_parameters_again(make, restart_count):
    def run(optimizer, params, steps, first):
        for step in range(first, first + steps):
            for i, p in enumerate(params):
                p.grad = torch.randn(p.shape, dtype=D, generator=torch.Generator().manual_seed(100 * step + i))
            optimizer.step()

    params = [nn.Parameter(torch.ones(3, 4, dtype=D)), nn.Parameter(torch.ones(3, 4, dtype=D))]
    optimizer = make(params, lr=0.1)
    run(optimizer, params, 4, 0)
    twin_params = [nn.Parameter(p.detach().clone()) for p in params]
    twin = make(twin_params, lr=0.1)
    twin.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    fresh_param = nn.Parameter(params[0].detach().clone())
    fresh = make([fresh_param], lr=0.1)
    reset_momentum(optimizer, params[:1], restart_count)
    run(optimizer, params, 3, 4)
    run(twin, twin_params, 3, 4)
    run(fresh, [fresh_param], 3, 4)
    assert torch.allclose(params[1], twin_params[1], rtol=0, atol=1e-13)  # Muon multiplies one matrix and two in other orders
    same = restart_count or make in (SGDM, Muon)
    assert torch.allclose(params[0], fresh_param, rtol=0, atol=1e-14) == same
    assert not torch.allclose(params[0], twin_params[0])


def test_wrapped_optimizers_are_looked_through():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    inner = AdamW(model.parameters())
    wrapped = MKOR(model, inner, refresh=0)
    model(torch.randn(2, 3)).sum().backward()
    wrapped.step()
    reset_momentum(wrapped, model.parameters())
    assert all(not s["exp_avg"].any() and s["step"] == 0 for s in inner.state.values())


def test_quick_recovery_is_linear_after_each_restart():
    factor = quick_recovery(period=20, steps=5, floor=0.001)
    assert [factor(t) for t in (0, 7, 19)] == [1.0, 1.0, 1.0]
    assert [factor(t) for t in (20, 21, 24, 25, 39, 40)] == pytest.approx([0.001, 0.2008, 0.8002, 1.0, 1.0, 0.001])
    optimizer = SGDM([nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, quick_recovery(2, 1, 0.5))
    rates = []
    for _ in range(5):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == [2.0, 2.0, 1.0, 2.0, 1.0]


@pytest.mark.parametrize("make", [AdamW, torch.optim.AdamW])
def test_restart_fires_on_its_period_and_training_resumes_exactly(make):
    def setup():
        p = pair()
        optimizer = make([p.b, p.a], lr=1e-3, weight_decay=0.0)
        return p, optimizer, LowRankRestart(optimizer, [p], period=4)

    def run(p, optimizer, restart, steps):
        fired = []
        for _ in range(steps):
            optimizer.zero_grad()
            (p.b @ p.a - 1).square().sum().backward()
            optimizer.step()
            fired.append(restart.step())
        return fired

    p, optimizer, restart = setup()
    assert run(p, optimizer, restart, 10) == [False, False, False, True, False, False, False, True, False, False]
    q, other, again = setup()
    run(q, other, again, 5)
    r, third, more = setup()
    with torch.no_grad():
        r.b.copy_(q.b)
        r.a.copy_(q.a)
    third.load_state_dict(copy.deepcopy(other.state_dict()))
    more.load_state_dict(again.state_dict())
    run(r, third, more, 5)
    assert torch.equal(r.b, p.b)
    assert torch.equal(r.a, p.a)


def test_bad_input_is_one_sentence():
    with pytest.raises(InputError, match="no trainable parameters named lora_A"):
        lora_pairs(nn.Linear(2, 2))
    half = nn.Module()
    half.lora_A = nn.Linear(2, 2, bias=False)
    with pytest.raises(InputError, match=r"no partner lora_B\.weight"):
        lora_pairs(half)
    with pytest.raises(InputError, match="B's columns must be A's rows"):
        refactorize(Pair("odd", nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.ones(3, 2))))
    with pytest.raises(InputError, match="floor is 2"):
        quick_recovery(floor=2.0)
    with pytest.raises(InputError, match="period is 0"):
        LowRankRestart(SGDM([nn.Parameter(torch.ones(1))]), [pair()], period=0)
