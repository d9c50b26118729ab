"""AdamW by torch's own kernel: where it is taken, that it is the chain's arithmetic, and what surrounds a fast step."""

import copy

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from visviva.optim import AdamW, Cautious, fused
from visviva.optim.chain import PORTION
from visviva.optim.fused import LISTS, is_adamw
from visviva.optim.step import Turn

SHAPES = {
    "lists": [(40, 64), (40, 64), (3, LISTS)],
    "short": [(7,), (5, 3), ()],
    "direct": [(300, 300)],
    "mixed": [(300, 300), (64, 40), (9,)],
}


def pair(shapes, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    return [[nn.Parameter(p.to(t)) for p in start] for t in (dtype, torch.float64)]


def give(parameters, step, transposed=False):
    generator = torch.Generator().manual_seed(step)
    for p in parameters:
        g = torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype)
        g = g.T.contiguous().T if transposed and g.ndim == 2 else g
        p.grad = g if p.grad is None or transposed else p.grad.copy_(g)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("adopt", [False, True])
@pytest.mark.parametrize("shapes", SHAPES)
def test_the_kernel_follows_the_chain_in_double_precision(shapes, adopt, transposed):
    narrow, wide = pair(SHAPES[shapes])
    options = dict(lr=0.01, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.2)
    fast, slow = AdamW(narrow, adopt=adopt, **options), AdamW(wide, compile=False, **options)
    for step in range(6):
        give(narrow, step, transposed)
        give(wide, step)
        fast.param_groups[0]["lr"] = slow.param_groups[0]["lr"] = 0.01 / (1 + step)
        fast.step()
        slow.step()
    turns = [[Turn(o, key, segments) for key, segments in o._segments.items()] for o in (fast, slow) if not o._plan()]
    assert all(t.fused for t in turns[0])
    assert not any(t.fused for t in turns[1])
    for p, q in zip(narrow, wide, strict=True):
        assert torch.allclose(p.double(), q, atol=2e-6)
        for name in ("exp_avg", "exp_avg_sq"):
            assert torch.allclose(fast.state[p][name].double(), slow.state[q][name], atol=1e-6)
        assert fast.state[p]["step"] == 6


def test_only_plain_adamw_takes_the_kernel():
    p = [nn.Parameter(torch.zeros(3))]
    chain = lambda **options: AdamW(p, **options).chain(AdamW(p, **options).param_groups[0])  # noqa: E731
    assert is_adamw(chain(betas=(0.5, 0.6), eps=1e-3, weight_decay=0.7))
    assert not is_adamw(chain(extra=[Cautious()]))
    assert not is_adamw(chain(eps_mode="clamp"))


@pytest.mark.parametrize("options", [{"state_dtype": torch.bfloat16}, {"lr": torch.tensor(0.1)}, {"extra": [Cautious()]}])
def test_other_settings_do_not_call_it(options, monkeypatch):
    monkeypatch.setattr(fused, "step", lambda *arguments: pytest.fail("the kernel was called"))
    p = nn.Parameter(torch.ones(4))
    p.grad = torch.ones(4)
    AdamW([p], **options).step()
    assert (p < 1).all()


@pytest.mark.parametrize("shapes", SHAPES)
def test_a_resumed_run_is_exact(shapes):
    ours, _ = pair(SHAPES[shapes])
    optimizer = AdamW(ours, lr=0.01)
    for step in range(3):
        give(ours, step)
        optimizer.step()
    other = [nn.Parameter(p.detach().clone()) for p in ours]
    resumed = AdamW(other, lr=0.5)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for step in range(3, 6):
        for parameters, o in ((ours, optimizer), (other, resumed)):
            give(parameters, step)
            o.step()
    assert all(torch.equal(p, q) for p, q in zip(ours, other, strict=True))


def test_hooks_run_and_may_be_removed():
    p = nn.Parameter(torch.ones(4))
    p.grad = torch.ones(4)
    optimizer, calls = AdamW([p]), []
    handles = [
        optimizer.register_step_pre_hook(lambda *a: calls.append("before")),
        optimizer.register_step_post_hook(lambda *a: calls.append("after")),
        register_optimizer_step_post_hook(lambda *a: calls.append("all")),
    ]
    optimizer.step()
    for handle in handles:
        handle.remove()
    optimizer.step()
    assert calls == ["before", "after", "all"]


def test_the_profiler_sees_steps():
    p = nn.Parameter(torch.ones(4))
    p.grad = torch.ones(4)
    optimizer = AdamW([p])
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
        optimizer.step()
    assert any(event.key == "Optimizer.step#AdamW.step" for event in found.key_averages())


@pytest.mark.parametrize("adopt", [False, True])
@pytest.mark.parametrize("name", ["AdamP", "SGDP", "SGDSaI"])
def test_portions_change_nothing(name, adopt, monkeypatch):
    import visviva.optim as optim

    found = []
    for portion in (1 << 20, 100):
        monkeypatch.setitem(PORTION, "cpu", portion)
        parameters, _ = pair([(6, 8)] * 5 + [(3,)])
        optimizer = getattr(optim, name)(parameters, lr=0.1, compile=False, adopt=adopt)
        for step in range(3):
            give(parameters, step)
            optimizer.step()
        found.append(parameters)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
