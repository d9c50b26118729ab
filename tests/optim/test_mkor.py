"""MKOR: inverses against dense ones, mean patches against unfolded ones, the backend with factors I, hooks and resume."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from visviva.errors import InputError
from visviva.optim.adamw import AdamW
from visviva.optim.kronecker import updated
from visviva.optim.layer_means import mean_input
from visviva.optim.mkor import MKOR, MKORH
from visviva.optim.sgd import SGDM
from visviva.optim.switch_off import SwitchOff

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


def spd(n=12, seed=0):
    x = torch.randn(n, 2 * n, dtype=D, generator=torch.Generator().manual_seed(seed))
    return x @ x.T / (2 * n) + 0.1 * torch.eye(n, dtype=D)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.5, 0.999), st.integers(1, 20), st.integers(0, 1000))
def test_exact_update_is_the_dense_inverse(gamma, updates, seed):
    dense = spd(seed=seed)
    inverse = torch.linalg.inv(dense)
    inverse = (inverse + inverse.T) / 2
    vectors = torch.randn(updates, 12, dtype=D, generator=torch.Generator().manual_seed(seed))
    for v in vectors:
        inverse = updated(inverse, v, gamma)
        dense = gamma * dense + (1 - gamma) * torch.outer(v, v)
    expected = torch.linalg.inv(dense)
    assert (inverse - expected).abs().max() < 1e-9 * expected.abs().max()
    assert torch.linalg.eigvalsh((inverse + inverse.T) / 2).min() > 0
    assert torch.equal(inverse, inverse.T)


def test_printed_update_grows_where_the_inverse_shrinks():
    """Card: along the vector 0.46 -> 0.65 (printed) instead of 0.46 -> 0.30; both stay positive definite."""
    dense, v = spd(), torch.randn(12, dtype=D, generator=torch.Generator().manual_seed(1))
    v = v / torch.linalg.vector_norm(v)
    before = torch.linalg.inv(dense)
    exact, printed = updated(before, 2 * v, 0.9), updated(before, 2 * v, 0.9, "printed")
    assert v @ exact @ v < v @ before @ v < v @ printed @ v
    assert torch.linalg.eigvalsh(printed).min() > 0


def test_released_update_inverts_its_own_sum():
    before, v = torch.linalg.inv(spd()), torch.randn(12, dtype=D)
    expected = torch.linalg.inv(torch.linalg.inv(0.95 * before + 0.05 * torch.eye(12, dtype=D)) + torch.outer(v, v))
    assert torch.allclose(updated(before, v, 0.95, "released"), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("update", ["exact", "printed", "released"])
@pytest.mark.parametrize("backend", [lambda p: SGDM(p, lr=0.1), lambda p: torch.optim.AdamW(p, lr=0.01)])
@pytest.mark.parametrize("make", [network, pictures])
def test_with_identity_factors_it_is_the_backend_bit_for_bit(update, backend, make):
    a, b, shape = make(), make(), (10, 6) if make is network else (4, 2, 5, 5)
    plain = train(a, backend(a.parameters()), 12, shape=shape)
    wrapped = train(b, MKOR(b, backend(b.parameters()), refresh=0, update=update), 12, shape=shape)
    assert all(torch.equal(x, y) for x, y in zip(plain, wrapped, strict=True))


def test_one_step_is_the_formula_and_keeps_the_norm():
    model = network()
    optimizer = MKOR(model, torch.optim.SGD(model.parameters(), lr=0.0), gamma=0.9, threshold=1e9, refresh=1)
    seen = {}

    def look(module, inputs, output):
        seen["a"] = inputs[0]
        output.register_hook(lambda g: seen.update(g=g))

    model[0].register_forward_hook(look)
    optimizer.zero_grad()
    backward(model, 0)
    gradient = torch.cat([model[0].weight.grad, model[0].bias.grad[:, None]], 1).clone()
    optimizer.step()
    a, g = torch.cat([seen["a"].mean(0), torch.ones(1, dtype=D)]), 10 * seen["g"].mean(0)
    left = torch.linalg.inv(0.9 * torch.eye(8, dtype=D) + 0.1 * torch.outer(g, g))
    right = torch.linalg.inv(0.9 * torch.eye(7, dtype=D) + 0.1 * torch.outer(a, a))
    expected = left @ gradient @ right
    expected *= torch.linalg.vector_norm(gradient) / torch.linalg.vector_norm(expected)
    found = torch.cat([model[0].weight.grad, model[0].bias.grad[:, None]], 1)
    assert torch.allclose(found, expected, rtol=0, atol=1e-13)
    assert torch.linalg.vector_norm(found).item() == pytest.approx(torch.linalg.vector_norm(gradient).item(), rel=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        dict(kernel_size=3),
        dict(kernel_size=(3, 2), stride=(2, 1), padding=(1, 0)),
        dict(kernel_size=3, dilation=2, padding=2),
        dict(kernel_size=3, padding="same", padding_mode="reflect"),
        dict(kernel_size=(2, 3), padding=1, padding_mode="circular", stride=3),
    ],
)
def test_mean_patch_is_the_mean_of_unfolded_patches(options):
    layer = nn.Conv2d(3, 4, bias=False, **options).to(D)
    x = torch.randn(2, 3, 9, 8, dtype=D)
    ones = torch.ones(2, 4, *layer(x).shape[2:], dtype=D)
    (expected,) = torch.autograd.grad(layer(x), layer.weight, ones)  # sums the patches, for every output channel
    places = 2 * ones[0, 0].numel()
    assert torch.allclose(mean_input(layer, x), expected[0].flatten() / places, rtol=0, atol=1e-13)


def test_mean_patch_of_video_and_means_of_tokens():
    layer = nn.Conv3d(2, 3, (3, 1, 2), stride=(1, 2, 2), padding=(1, 0, 1), bias=False).to(D)
    x = torch.randn(2, 2, 4, 5, 6, dtype=D)
    out = layer(x)
    (expected,) = torch.autograd.grad(out, layer.weight, torch.ones_like(out))
    places = out[:, 0].numel()
    assert torch.allclose(mean_input(layer, x), expected[0].flatten() / places, rtol=0, atol=1e-13)
    tokens = torch.randn(2, 7, 5)
    assert torch.allclose(mean_input(nn.Linear(5, 2), tokens), tokens.mean((0, 1)))


def test_accumulated_and_checkpointed_passes_count_once_each():
    from torch.utils.checkpoint import checkpoint

    model = network()
    optimizer = MKOR(model, SGDM(model.parameters(), lr=0.1), refresh=1)
    x = torch.randn(4, 6, dtype=D, requires_grad=True)
    checkpoint(model, x, use_reentrant=True).sum().backward()
    with torch.no_grad():
        model(x)
    layer = optimizer.layers[0]
    assert layer.sums.count.item() == 1
    model(2 * x).sum().backward()
    assert layer.sums.count.item() == 2
    expected = torch.cat([3 * x.detach().mean(0), torch.full((1,), 2.0, dtype=D)])
    assert torch.allclose(layer.sums.a, expected, rtol=0, atol=1e-14)
    optimizer.zero_grad()
    assert layer.sums is None


def test_refresh_period_takes_means_only_when_due():
    model = network()
    optimizer = MKOR(model, SGDM(model.parameters(), lr=0.01), refresh=3)
    changes = []
    for step in range(7):
        before = optimizer.factors["0"][0].clone()
        train(model, optimizer, 1, step)
        changes.append(not torch.equal(before, optimizer.factors["0"][0]))
    assert changes == [True, False, False, True, False, False, True]


def test_stabiliser_bounds_the_factors_and_clamp_the_means():
    model = network(dtype=torch.float32)
    optimizer = MKOR(model, SGDM(model.parameters(), lr=0.01), refresh=1, gamma=0.8, threshold=2.0)
    train(model, optimizer, 60)
    for pair in optimizer.factors.values():
        for factor in pair:
            assert factor.abs().max() <= 2.0 / 0.8 + 1e-5
            assert torch.linalg.eigvalsh(factor).min() > 0
            assert factor.dtype == torch.float32


@pytest.mark.parametrize("seed", [0, 1])
def test_teacher_and_student(seed):
    """Card: tanh network 20-40-5; the exact update beats its backend, the printed one loses to it (lr 1, the best here)."""

    def final(**options):
        torch.manual_seed(seed)
        teacher, model = (nn.Sequential(nn.Linear(20, 40), nn.Tanh(), nn.Linear(40, 5)) for _ in range(2))
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9)
        optimizer = MKOR(model, optimizer, refresh=1, **options) if options else optimizer
        x = torch.randn(512, 20)
        y = teacher(x).detach()
        for _ in range(500):
            chosen = torch.randint(0, 512, (64,))
            optimizer.zero_grad()
            (model(x[chosen]) - y[chosen]).square().mean().backward()
            optimizer.step()
        for pair in optimizer.factors.values() if options == {"update": "exact"} else ():
            for factor in pair:
                assert torch.linalg.eigvalsh(factor.double()).min() > 0
        return (model(x) - y).square().mean().item()

    plain, exact, printed = final(), final(update="exact"), final(update="printed", threshold=1e9)
    assert exact < 0.95 * plain
    assert printed > 2 * plain


def test_means_that_are_not_finite_leave_the_factors_alone():
    model = network()
    optimizer = MKOR(model, SGDM(model.parameters(), lr=0.0), refresh=1)
    train(model, optimizer, 2)
    before = copy.deepcopy(optimizer.factors)
    optimizer.zero_grad()
    (model(torch.full((2, 6), torch.nan, dtype=D))).sum().backward()
    optimizer.step()
    assert all(torch.equal(a, b) for n in before for a, b in zip(before[n], optimizer.factors[n], strict=True))


def test_loss_scale_is_divided_out():
    ends = []
    for scale in (1.0, 1024.0):
        model = network()
        optimizer = MKOR(model, SGDM(model.parameters(), lr=0.1), refresh=1, loss_scale=lambda s=scale: s)
        for step in range(4):
            optimizer.zero_grad()
            generator = torch.Generator().manual_seed(step)
            ((model(torch.randn(10, 6, generator=generator).to(D)) - 1).square().mean() * scale).backward()
            for p in model.parameters():
                p.grad /= scale
            optimizer.step()
        ends.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.allclose(*ends, rtol=0, atol=1e-12)


def test_warmup_updates_factors_only():
    a, b = network(), network()
    plain = train(a, SGDM(a.parameters(), lr=0.1), 4)
    optimizer = MKOR(b, SGDM(b.parameters(), lr=0.1), refresh=1, warmup=4)
    assert all(torch.equal(x, y) for x, y in zip(plain, train(b, optimizer, 4), strict=True))
    assert not torch.equal(optimizer.factors["0"][0], torch.eye(8, dtype=D))


@pytest.mark.parametrize("backend", [lambda p: AdamW(p, lr=0.01), lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9)])
def test_resume_is_bit_for_bit(backend):
    whole, part = network(), network()
    expected = train(whole, MKOR(whole, backend(whole.parameters()), refresh=2), 9)
    first = MKOR(part, backend(part.parameters()), refresh=2)
    train(part, first, 5)
    other = network(3)
    other.load_state_dict(part.state_dict())
    second = MKOR(other, backend(other.parameters()), refresh=2)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    found = train(other, second, 4, first=5)
    assert all(torch.equal(x, y) for x, y in zip(expected, found, strict=True))


def test_schedulers_closures_and_removal():
    model = network()
    backend = SGDM(model.parameters(), lr=1.0)
    optimizer = MKOR(model, backend, refresh=1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    calls = []
    optimizer.register_step_post_hook(lambda *_: calls.append(1))

    def closure():
        optimizer.zero_grad()
        return backward(model, 0)

    assert optimizer.step(closure).item() > 0
    scheduler.step()
    assert backend.param_groups[0]["lr"] == 0.5
    assert optimizer.state is backend.state
    assert calls == [1]
    optimizer.remove()
    assert not model[0]._forward_hooks
    a, b = copy.deepcopy(model), model
    plain = train(a, SGDM([{"params": a.parameters()}], lr=0.5, momentum=0.0), 1)
    backend.param_groups[0]["momentum"] = 0.0
    assert all(torch.allclose(x, y, rtol=0, atol=1e-14) for x, y in zip(plain, train(b, optimizer, 1), strict=True))


def test_frozen_grouped_and_large_layers_are_left_to_the_backend():
    model = nn.ModuleDict({"frozen": nn.Linear(3, 3), "grouped": nn.Conv2d(4, 4, 3, groups=4), "wide": nn.Linear(3, 99)})
    model["plain"] = nn.Linear(3, 3)
    model["frozen"].requires_grad_(False)
    optimizer = MKOR(model, SGDM([p for p in model.parameters() if p.requires_grad]), max_size=50)
    assert list(optimizer.factors) == ["plain"]
    assert not model["wide"]._forward_hooks


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


def test_bad_input_is_one_sentence():
    model = network()
    with pytest.raises(InputError, match="MKOR: gamma is"):
        MKOR(model, SGDM(model.parameters()), gamma=1.5)
    with pytest.raises(InputError, match="no linear or convolution layer"):
        MKOR(model, SGDM(network().parameters()))
    with pytest.raises(InputError, match="seen no loss"):
        train(model, MKORH(model, SGDM(model.parameters())), 1)
    with pytest.raises(InputError, match="no MKOR state"):
        MKOR(model, SGDM(model.parameters())).load_state_dict(SGDM(model.parameters()).state_dict())
    with pytest.raises(InputError, match="patience is 0"):
        SwitchOff(patience=0)


def gloo(rank, path, results):
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)
    model = network()
    optimizer = MKOR(model, torch.optim.SGD(model.parameters(), lr=0.1), refresh=1)
    for step in range(3):
        x = torch.randn(8, 6, generator=torch.Generator().manual_seed(step)).to(D)
        optimizer.zero_grad()
        (model(x[4 * rank : 4 * rank + 4]) - 1).square().mean().backward()
        for p in model.parameters():
            dist.all_reduce(p.grad)
            p.grad /= 2
        optimizer.step()
    torch.save([p.detach() for p in model.parameters()], f"{results}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_are_one(tmp_path):
    torch.multiprocessing.spawn(gloo, (tmp_path / "store", tmp_path), nprocs=2)
    model = network()
    optimizer = MKOR(model, torch.optim.SGD(model.parameters(), lr=0.1), refresh=1)
    for step in range(3):
        x = torch.randn(8, 6, generator=torch.Generator().manual_seed(step)).to(D)
        optimizer.zero_grad()
        (model(x) - 1).square().mean().backward()
        optimizer.step()
    for rank in range(2):
        for a, b in zip(torch.load(tmp_path / f"{rank}.pt", weights_only=True), model.parameters(), strict=True):
            assert torch.allclose(a, b, rtol=0, atol=1e-12)
