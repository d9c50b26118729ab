"""The transforms one by one: closed forms of the cards, extra transforms against restatements, Newton-Schulz, routing."""

import math

import pytest
import torch
from torch import nn
from trajectories import MATRICES, SHAPES, distance, moved, parameters, set_gradients, spike_at, trajectory

import visviva.optim as optim
from visviva.errors import InputError
from visviva.optim import Apply, Ema, Kept, SoftClip, SpikeClip, Step, Transform, WarmupAfterReset, chain
from visviva.optim.adaptive_memory import two_plane_beta
from visviva.optim.fismo import _power
from visviva.optim.muon import Muon, hidden_matrix, shape_scale
from visviva.optim.newton_schulz import SCHEDULES, orthogonalize
from visviva.optim.root import COEFFICIENTS, fit_coefficients


def constant_gradient_steps(optimizer_of, count, gradient=0.7):
    """The step over the rate at each step, for a gradient that does not change (or changes sign, given a list)."""
    p = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer, sizes = optimizer_of([p]), []
    for t in range(count):
        before = p.item()
        p.grad = torch.full_like(p, gradient[t % len(gradient)] if isinstance(gradient, list) else gradient)
        optimizer.step()
        sizes.append((before - p.item()) / optimizer.param_groups[0]["lr"])
    return sizes


def test_chain_composes_an_optimizer_in_three_lines():
    class Sign(Transform):
        def structure(self):
            return ("sign",)

        def __call__(self, x):
            x.u = x.u.sign()

    def plain(params):
        return Manual(params, lambda p, g, s, t: p * (1 - 0.01 * 0.1) - 0.01 * averaged(s, g, 0.9).sign())

    path = trajectory(lambda p: chain(p, [Ema(0.9), Sign(), Apply(weight_decay=0.1)], lr=0.01))
    assert moved(path)
    assert distance(path, trajectory(plain)) <= 1e-12


class Manual:
    """An optimizer as a rule ``(p, g, state, t) -> p`` per tensor."""

    def __init__(self, params, rule, before=lambda params, t: None):
        self.params, self.rule, self.before, self.t = params, rule, before, 0
        self.states = [{} for _ in params]

    @torch.no_grad()
    def step(self):
        self.t += 1
        self.before(self.params, self.t)
        for p, state in zip(self.params, self.states, strict=True):
            p.copy_(self.rule(p.clone(), p.grad.clone(), state, self.t))


def averaged(s, g, beta, name="m"):
    s[name] = beta * s.get(name, torch.zeros_like(g)) + (1 - beta) * g
    return s[name]


def adam(s, g, t, b1=0.9, b2=0.999, eps=1e-8):
    m, v = averaged(s, g, b1), averaged(s, g * g, b2, "v")
    return m / (1 - b1**t) / ((v / (1 - b2**t)).sqrt() + eps)


def adamw_with(extra, rule, before=lambda params, t: None, **options):
    ours = trajectory(lambda p: optim.AdamW(p, lr=0.01, weight_decay=0.1, extra=extra), **options)
    assert moved(ours)
    assert distance(ours, trajectory(lambda p: Manual(p, rule, before), **options)) <= 1e-12
    plain = trajectory(lambda p: optim.AdamW(p, lr=0.01, weight_decay=0.1), **options)
    assert distance(ours, plain) > 1e-3


def test_extra_spike_clip():
    def rule(p, g, s, t):
        if t >= 5:
            edge = (40.0 * s["v"]).sqrt()
            g = torch.where(g.abs() > edge, g.sign() * edge, g)
        return p * (1 - 0.01 * 0.1) - 0.01 * adam(s, g, t)

    adamw_with([SpikeClip(40.0, wait=5)], rule, spike=spike_at)


def test_spike_clip_bounds_what_exceeds_and_leaves_the_rest():
    g = torch.tensor([3.0, -50.0, 0.5, -0.1, 20.0])
    x = Step(torch.zeros(5), g, g, {"exp_avg_sq": torch.ones(5)}, torch.tensor(0.1))
    clip = SpikeClip(25.0, wait=3, period=10)
    for t, on in [(2, 0.0), (3, 1.0), (11, 0.0), (13, 1.0)]:
        assert clip.scalars(t, 0.1)["on"] == on
    clip(x, theta=torch.tensor(25.0), on=torch.tensor(1.0))
    assert x.g.tolist() == [3.0, -5.0, 0.5, pytest.approx(-0.1), 5.0]
    assert x.u is x.g


@pytest.mark.parametrize("restart", [False, True])
def test_extra_momentum_reset(restart):
    def rule(p, g, s, t):
        if t % 7 == 0:
            s.clear()
        since = t % 7 + 1 if restart and t >= 7 else t
        return p * (1 - 0.01 * 0.1) - 0.01 * adam(s, g, since)

    adamw_with([optim.MomentumReset(7, restart)], rule)


def test_momentum_reset_clears_what_is_kept_per_tensor_too():
    params = parameters(MATRICES)
    optimizer = optim.NAMO(params, lr=0.01, extra=[optim.MomentumReset(3)])
    for step in range(1, 4):
        set_gradients(params, step)
        norms = [(1 - 0.99) * p.grad.square().sum() for p in params]
        optimizer.step()
    for p, expected in zip(params, norms, strict=True):
        assert torch.allclose(optimizer.state[p]["norm_sq"], expected)


@pytest.mark.parametrize("name", ["NAMO", "AdamP", "SGDP", "SGDSaI"])
def test_an_extra_transform_that_does_nothing_changes_nothing(name):
    """Batched stages see the gradient also where the first stage left it alone."""
    cls = getattr(optim, name)
    plain = trajectory(lambda p: cls(p, lr=0.01))
    assert distance(trajectory(lambda p: cls(p, lr=0.01, extra=[optim.MomentumReset(1000)])), plain) == 0.0


def test_extra_clip_global_norm():
    def before(params, t):
        norm = math.sqrt(sum(p.grad.square().sum().item() for p in params))
        for p in params:
            p.grad = p.grad * min(1.0, 2.0 / (norm + 1e-8))

    adamw_with(
        [optim.ClipGlobalNorm(2.0)], lambda p, g, s, t: p * (1 - 0.01 * 0.1) - 0.01 * adam(s, g, t), before, spike=spike_at
    )


def test_global_norm_is_over_all_groups_and_chains():
    params = parameters(SHAPES)
    optimizer = optim.Muon(
        [{"params": params[:1]}, {"params": params[1:]}], lr=0.01, extra=[optim.ClipGlobalNorm(1.0)], nesterov=False
    )
    set_gradients(params, 1)
    norm = math.sqrt(sum(p.grad.square().sum().item() for p in params))
    expected = [0.05 * p.grad / norm for p in (params[0], params[2])]
    optimizer.step()
    assert norm > 2
    for p, m in zip((params[0], params[2]), expected, strict=True):
        assert torch.allclose(optimizer.state[p]["exp_avg"], m, rtol=1e-6)


def test_extra_cautious():
    def rule(p, g, s, t):
        u = adam(s, g, t)
        agree = (u * g > 0).double()
        return p * (1 - 0.01 * 0.1) - 0.01 * u * agree / agree.mean().clamp_min(1e-3)

    adamw_with([optim.Cautious()], rule)


def test_extra_transforms_keep_their_order_and_needs_are_checked():
    three = [optim.ClipGlobalNorm(), optim.Cautious(), SpikeClip()]
    links = optim.AdamW(parameters([(2,)]), extra=three).chain(
        dict(betas=(0.9, 0.99), eps=1e-8, eps_mode="clamp", weight_decay=0.0)
    )
    names = [type(link).__name__ for link in links]
    assert names == ["ClipGlobalNorm", "SpikeClip", "Ema", "SecondMoment", "RmsDivide", "Cautious", "Apply"]
    with pytest.raises(InputError, match="SpikeClip reads the state 'exp_avg_sq'"):
        optim.Lion(parameters([(2,)]), extra=[SpikeClip()])
    with pytest.raises(InputError, match="two transforms of the chain keep a state 'exp_avg'"):
        optim.AdamW(parameters([(2,)]), extra=[Ema(0.5)])


def test_state_dtype_narrows_the_states():
    params = parameters(dtype=torch.float32)
    optimizer = optim.AdamW(params, lr=0.01, state_dtype=torch.bfloat16)
    for step in range(1, 4):
        set_gradients(params, step)
        optimizer.step()
    assert {optimizer.state[p]["exp_avg"].dtype for p in params} == {torch.bfloat16}
    wide = trajectory(lambda p: optim.AdamW(p, lr=0.01), steps=3)
    assert max((p - w).abs().max() for p, w in zip(params, wide[-1], strict=True)) < 2e-3


# closed forms


def test_warmup_after_a_reset():
    warm = WarmupAfterReset(period=20, warmup=10)
    scale = lambda t: warm.scalars(t, 0.1)["scale"]  # noqa: E731
    assert [scale(t) for t in (1, 5, 19)] == [1.0, 1.0, 1.0]  # before the first reset
    assert scale(20) == pytest.approx(0.01)
    for j in range(10):
        for reset in (20, 40):
            assert scale(reset + j) == pytest.approx(1 - 0.99 * (1 + math.cos(math.pi * j / 11)) / 2)
    assert [scale(20 + j) for j in (10, 15, 19)] == [1.0, 1.0, 1.0]
    tensor = warm.scalars(torch.tensor(23.0, dtype=torch.float64), 0.1)["scale"]
    assert float(tensor) == pytest.approx(scale(23))


def test_exadams_step_for_a_constant_gradient():
    sizes = constant_gradient_steps(lambda p: optim.EXAdam(p, lr=1e-3), 1000)
    assert [round(sizes[t - 1], 2) for t in (1,)] == [15.95]
    assert [round(sizes[t - 1], 1) for t in (2, 10, 1000)] == [9.3, 4.3, 2.7]


def test_exadams_first_version_grows():
    new = constant_gradient_steps(lambda p: optim.EXAdam(p, lr=1e-3), 20)
    old = constant_gradient_steps(lambda p: optim.EXAdam(p, lr=1e-3, growing_lr=True), 20)
    assert [a / b for a, b in zip(old, new, strict=True)] == pytest.approx([math.log(2 * (t + 1)) / 2 for t in range(1, 21)])


def test_adabelief_grows_for_a_constant_gradient_and_not_for_an_alternating_one():
    build = lambda p: optim.AdaBelief(p, lr=1e-3)  # noqa: E731
    sizes = constant_gradient_steps(build, 1000)
    assert [round(sizes[t - 1], n) for t, n in ((1, 2), (10, 2), (100, 2), (1000, 1))] == [1.11, 1.64, 4.96, 20.0]
    swings = constant_gradient_steps(build, 1000, [1.0, -1.0])
    assert abs(swings[-1]) == pytest.approx(0.056, abs=1e-3)


def test_adabeliefs_eps_accumulates_to_eps_over_one_minus_beta():
    def floor(mode):
        p = nn.Parameter(torch.zeros(3, dtype=torch.float64))
        optimizer = optim.AdaBelief([p], lr=1e-3, betas=(0.0, 0.9), eps=1e-8, eps_mode=mode)
        for _ in range(200):
            p.grad = torch.ones_like(p)
            optimizer.step()
        return optimizer.state[p]["exp_avg_sq"][0].item()

    assert floor("accumulate") == pytest.approx(1e-7, rel=1e-6)
    assert floor("add_once") == 0.0


@pytest.mark.parametrize(("d", "beta"), [((1.1, 0.0), 0.9), ((0.0, 1.0), 0.45), ((-1.0, 0.0), 0.175), ((-5.0, 0.0), 0.0)])
def test_two_plane_beta(d, beta):
    g, d, lam, most = (torch.tensor(x, dtype=torch.float64) for x in ((1.0, 0.0), d, 0.1, 0.9))
    assert two_plane_beta(g @ g, g @ d, d @ d, lam, most).item() == pytest.approx(beta, abs=1e-12)
    simple = min(0.9, (g @ g / (g - d).square().sum()).item())
    assert two_plane_beta(g @ g, g @ d, d @ d, 0 * lam, most).item() == pytest.approx(simple, abs=1e-12)
    assert two_plane_beta(g @ g, g @ g, g @ g, lam, most).item() == 0.0


@pytest.mark.parametrize(("kappa", "lr", "gain"), [(10, 10.0, 1e-20), (1000, 30.0, 0.5)])
def test_am_msgd_beats_fixed_momentum_on_quadratics(kappa, lr, gain):
    """300 full-batch steps at rates that a fixed average of 0.9 also takes."""

    def final(build):
        p = nn.Parameter(torch.ones(20, dtype=torch.float64))
        curvature = torch.logspace(0, -math.log10(kappa), 20, dtype=torch.float64)
        optimizer = build([p])
        for _ in range(300):
            p.grad = curvature * p.detach()
            optimizer.step()
        return (curvature * p.detach().square()).sum().item() / 2

    assert final(lambda p: optim.AMMSGD(p, lr=lr)) < gain * final(lambda p: chain(p, [Ema(0.9), Apply()], lr=lr))


def test_namos_ratio_is_bounded():
    """``|M| / sqrt(v) <= (1-mu) / sqrt((1-mu2)(1-mu^2/mu2))``, by Cauchy-Schwarz; constant gradients come close."""
    mu, mu2 = 0.95, 0.99
    bound = (1 - mu) / math.sqrt((1 - mu2) * (1 - mu**2 / mu2))
    assert bound == pytest.approx(1.68, abs=5e-3)
    p = parameters([(6, 4)])[0]
    optimizer, most = optim.NAMO([p], lr=1e-3, nesterov=False), 0.0
    for step in range(300):
        size = (mu / mu2) ** (40 - step) if step <= 40 else 1e-3  # growing as the bound's worst case, then small
        p.grad = size * torch.eye(6, 4, dtype=torch.float64)
        optimizer.step()
        most = max(most, optimizer.state[p]["ratio"].item())
    assert 0.8 * bound < most <= bound


def test_namos_first_alpha():
    def first(nesterov):
        p = parameters([(6, 4)])[0]
        optimizer = optim.NAMO([p], lr=1e-3, nesterov=nesterov, guards=False, weight_decay=0.0, schedule="svd")
        before = p.detach().clone()
        set_gradients([p], 1)
        optimizer.step()
        return torch.linalg.matrix_norm(before - p.detach(), 2).item() / 1e-3

    assert first(False) == pytest.approx(1.0, abs=1e-6)
    assert first(True) == pytest.approx((1 - 0.95**2) / (1 - 0.95), abs=1e-6)


@pytest.mark.parametrize("wd", [1.0, 0.25])
def test_lion_solves_within_its_box(wd):
    optimum = torch.tensor([2.0, 0.3, -0.05])
    p = nn.Parameter(torch.zeros(3))
    optimizer = optim.Lion([p], lr=1e-3, weight_decay=wd)
    for _ in range(6000):
        p.grad = p.detach() - optimum
        optimizer.step()
        assert p.detach().abs().max() <= 1 / wd + 1e-6
    assert torch.allclose(p, optimum.clamp(-1 / wd, 1 / wd), atol=5e-3)


def test_lion_returns_to_its_box_by_one_factor():
    """From outside, with the gradient pushing out, the excess shrinks by ``1 - lr wd`` per step."""
    lr, wd = 0.01, 0.5
    p = nn.Parameter(torch.full((4,), 5.0, dtype=torch.float64))
    optimizer = optim.Lion([p], lr=lr, weight_decay=wd)
    for _ in range(50):
        excess = p.detach() - 1 / wd
        p.grad = -torch.ones_like(p)
        optimizer.step()
        assert torch.allclose((p.detach() - 1 / wd) / excess, torch.tensor(1 - lr * wd).double(), atol=1e-12)


def test_lion_decays_weights_without_gradient():
    p = nn.Parameter(torch.ones(3, dtype=torch.float64))
    optimizer = optim.Lion([p], lr=0.1, weight_decay=0.5)
    p.grad = torch.tensor([0.0, 1.0, -1.0], dtype=torch.float64)
    optimizer.step()
    assert p.tolist() == pytest.approx([0.95, 0.85, 1.05])


def test_sais_ratio_is_a_function_of_mean_and_variance():
    """``G^2 = (n-1) + n mean^2 / var``, and scaling the loss leaves it."""
    ratios = []
    for scale in (1.0, 250.0):
        params = parameters(SHAPES)
        optimizer = optim.SGDSaI(params, eps=1e-12)
        for step in (1, 2):  # the second gradient does not count
            set_gradients(params, step, scale)
            if step == 1:
                expected = [(p.numel() - 1) + p.numel() * p.grad.mean() ** 2 / p.grad.var() for p in params]
            optimizer.step()
        ratios.append([optimizer.state[p]["gsnr"].item() for p in params])
        assert [r**2 for r in ratios[-1]] == pytest.approx([e.item() for e in expected], rel=1e-9)
        assert sum(s.numel() for s in optimizer.state[params[0]].values()) == params[0].numel() + 2
    assert ratios[0] == pytest.approx(ratios[1], rel=1e-9)


@pytest.mark.parametrize("quantile", [0.5, 0.9, 1.0])
def test_soft_clip_is_the_clamp_at_the_quantile(quantile):
    u = torch.randn(3, 10, 20, generator=torch.Generator().manual_seed(0)).double()
    x = Step(u, u, u, {}, torch.tensor(0.1))
    SoftClip(quantile)(x, q=torch.tensor(quantile))
    for before, after in zip(u, x.u, strict=True):
        edge = before.abs().flatten().sort().values[math.ceil(quantile * 199)]
        assert torch.equal(after.sign(), before.sign())
        assert (after.abs() <= edge + 2e-9).all()
        kept = before.abs() <= before.abs().flatten().sort().values[math.floor(quantile * 199)]
        assert torch.equal(after[kept], before[kept])
        assert kept.double().mean() == pytest.approx(quantile, abs=0.006)


def test_soft_clip_of_a_large_tensor_takes_a_sample():
    u = torch.randn(1, 300, 400, generator=torch.Generator().manual_seed(0))
    x = Step(u, u, u, {}, torch.tensor(0.1))
    SoftClip(0.9, sample=1 << 12)(x, q=torch.tensor(0.9))
    assert (x.u == u).float().mean() == pytest.approx(0.9, abs=0.01)


@pytest.mark.parametrize(("size", "raw"), [(10, 0.84), (30, 0.74), (100, 0.60)])
def test_root_keeps_the_direction_under_outliers(size, raw):
    generator = torch.Generator().manual_seed(1)
    clean = torch.randn(64, 96, generator=generator, dtype=torch.float64)
    dirty = clean.clone()
    places = torch.randperm(64 * 96, generator=generator)[:30]
    dirty.view(-1)[places] = size * torch.randn(30, generator=generator, dtype=torch.float64).sign()
    cosine = lambda m: torch.cosine_similarity(orthogonalize(m, "svd").flatten(), exact.flatten(), dim=0).item()  # noqa: E731
    exact = orthogonalize(clean, "svd")
    x = Step(dirty[None], dirty[None], dirty[None], {}, torch.tensor(0.1))
    SoftClip(0.9)(x, q=torch.tensor(0.9))
    assert cosine(dirty) < raw + 0.02
    assert cosine(x.u[0]) > 0.95


def test_fitted_coefficients_help_their_own_shape():
    generator = torch.Generator().manual_seed(0)
    fitted = fit_coefficients(torch.randn(4, 32, 128, generator=generator), steps=200)
    fresh = torch.randn(8, 32, 128, generator=generator, dtype=torch.float64)

    def error(schedule):
        return (torch.linalg.svdvals(orthogonalize(fresh, schedule)).square() - 1).square().mean().item()

    assert error((fitted,) * 5) < 0.5 * error("standard")
    params = [nn.Parameter(0.1 * torch.randn(32, 128, generator=generator, dtype=torch.float64))]
    results = []
    for coefficients in ({}, {(32, 128): fitted}):
        p = nn.Parameter(params[0].detach().clone())
        p.grad = fresh[0]
        optim.ROOT([p], coefficients=coefficients).step()
        results.append(p.detach())
    assert (results[0] - results[1]).abs().max() > 1e-6
    assert set(COEFFICIENTS) == {(2048, n) for n in (2048, 3072, 8192, 16384)}


@pytest.mark.parametrize("shape", [(30, 20), (6, 5, 2, 2)])
def test_a_projected_step_grows_the_norm_by_pythagoras(shape):
    """``|p_new|^2 = |p|^2 + lr^2 |u|^2`` per row without decay, when the test for scale invariance passes."""
    p = parameters([shape])[0]
    optimizer = optim.AdamP([p], lr=0.1, delta=100.0)
    for step in range(1, 4):
        before = p.detach().clone().flatten(1)
        set_gradients([p], step)
        optimizer.step()
        move = p.detach().flatten(1) - before
        assert (move * before).sum(1).abs().max() < 1e-7
        assert torch.allclose(p.detach().flatten(1).square().sum(1), before.square().sum(1) + move.square().sum(1), rtol=1e-7)


def test_projection_holds_norms_down():
    """Cosine loss in 20 dimensions: both find the direction, the projected weights stay half as long."""

    def final(cls, **options):
        torch.manual_seed(0)
        p = nn.Parameter(torch.randn(1, 20).double())
        goal = torch.randn(20).double()
        optimizer = cls([p], lr=0.1, momentum=0.9, **options)
        for _ in range(300):
            optimizer.zero_grad()
            (-torch.cosine_similarity(p[0], goal, dim=0)).backward()
            optimizer.step()
        return p.norm().item(), torch.cosine_similarity(p[0], goal, dim=0).item()

    plain, projected = final(optim.SGDM), final(optim.SGDP)
    assert min(plain[1], projected[1]) > 0.999
    assert projected[0] < 0.9 * plain[0]


def test_spam_survives_spikes_that_throw_adam_off():
    def final(build, seed):
        generator = torch.Generator().manual_seed(seed)
        curvature = torch.logspace(0, -2, 50, dtype=torch.float64)
        p = nn.Parameter(torch.ones(50, dtype=torch.float64))
        optimizer = build([p])
        for _ in range(1500):
            g = curvature * p.detach() + 0.05 * torch.randn(50, generator=generator, dtype=torch.float64)
            p.grad = torch.where(torch.rand(50, generator=generator) < 0.002, 1000 * g, g)
            optimizer.step()
        return (curvature * p.detach().square()).sum().item() / 2

    for seed in (0, 1):
        spam = final(lambda p: optim.SPAM(p, lr=3e-3, theta=50.0), seed)
        assert spam < 0.5 * final(lambda p: optim.AdamW(p, lr=3e-3, weight_decay=0.0), seed)


# orthogonalization


@pytest.mark.parametrize(
    ("schedule", "low", "high", "error"),
    [("standard", 0.66, 1.15, 5e-4), ("quintic", 0.97, 1.04, 2e-5), ("polar_express", 0.84, 1.16, 3e-4)],
)
def test_newton_schulz_accuracy_on_gaussian_matrices(schedule, low, high, error):
    x = orthogonalize(torch.randn(2, 256, 512, generator=torch.Generator().manual_seed(0)), schedule)
    values = torch.linalg.svdvals(x)
    assert values.min() > low
    assert values.max() < high
    assert (x @ x.mT - torch.eye(256)).square().mean() < error
    assert len(SCHEDULES[schedule]) == 5


@pytest.mark.parametrize("schedule", [*SCHEDULES, "svd"])
@pytest.mark.parametrize("shape", [(4, 7), (7, 4), (5, 5)])
def test_every_schedule_is_batched_transposable_scale_free_and_zero_at_zero(schedule, shape):
    u = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = orthogonalize(u, schedule)
    assert torch.allclose(x, torch.stack([orthogonalize(m, schedule) for m in u]), atol=1e-12)
    assert torch.allclose(x.mT, orthogonalize(u.mT, schedule), atol=1e-9)
    scaled = orthogonalize(1e4 * u * torch.tensor([1.0, 10.0, 0.1]).double()[:, None, None], schedule)
    assert torch.allclose(x, scaled, atol=1e-5)
    assert not orthogonalize(torch.zeros(2, *shape), schedule).any()


def test_exact_polar_factor():
    u = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = orthogonalize(u, "svd")
    assert torch.allclose(x @ x.mT, torch.eye(5).double().expand(3, 5, 5), atol=1e-12)
    assert torch.allclose(orthogonalize(x, "svd"), x, atol=1e-12)  # a fixed point
    rest = x.mT @ u  # the symmetric factor
    assert torch.allclose(rest, rest.mT, atol=1e-12)
    assert torch.linalg.eigvalsh(rest).min() > -1e-12
    low = torch.ones(1, 4, 6, dtype=torch.float64)  # rank 1
    assert torch.linalg.svdvals(orthogonalize(low, "svd"))[0].tolist() == pytest.approx([1, 0, 0, 0], abs=1e-12)


@pytest.mark.parametrize("name", ["Muon", "NAMO", "ROOT", "NAMOD"])
def test_matrix_steps_do_not_depend_on_the_scale_of_the_loss(name):
    paths = [
        trajectory(lambda p: getattr(optim, name)(p, lr=0.01), MATRICES, steps=6, spike=lambda t, s=s: s) for s in (1, 100)
    ]
    assert moved(paths[0])
    assert distance(*paths) < 1e-5


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("none", 1.0), ("original", 2.0), ("rms", 0.2 * math.sqrt(64)), ("spectral", 2.0)],
)
def test_shape_scales(kind, expected):
    assert shape_scale(kind, 64, 16) == pytest.approx(expected)
    assert shape_scale("original", 16, 64) == 1.0
    assert shape_scale("spectral", 16, 64) == 0.5
    p = nn.Parameter(torch.zeros(64, 16, dtype=torch.float64))
    p.grad = torch.randn(64, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    Muon([p], lr=1.0, weight_decay=0.0, schedule="svd", scale=kind).step()
    assert torch.linalg.matrix_norm(p.detach(), 2).item() == pytest.approx(expected)


def test_split_orthogonalizes_blocks_of_rows_apart():
    p = nn.Parameter(torch.zeros(12, 5, dtype=torch.float64))
    p.grad = torch.randn(12, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    Muon([("attn.qkv.weight", p)], lr=1.0, weight_decay=0.0, schedule="svd", scale="none", split={"qkv": 3}).step()
    for block, g in zip(p.detach().split(4), p.grad.split(4), strict=True):
        assert torch.allclose(block, -orthogonalize(g, "svd"), atol=1e-12)
    with pytest.raises(InputError, match="12 rows cannot be cut into 5 blocks"):
        Muon([("qkv", p)], split={"qkv": 5}).step()


def test_split_leaves_the_size_of_namos_step_alone():
    torch.manual_seed(0)
    g, sizes = torch.randn(48, 16), []
    for split in ({}, {"qkv": 3}):
        p = torch.nn.Parameter(torch.zeros(48, 16))
        p.grad = g.clone()
        optim.NAMO([("qkv", p)], lr=1e-3, weight_decay=0.0, nesterov=False, schedule="svd", split=split).step()
        sizes.append(float(p.detach().square().mean().sqrt()))
    assert sizes == pytest.approx([2e-4, 2e-4], rel=1e-3)


def test_fismos_factors_stay_positive_and_normalised():
    params = parameters(MATRICES)
    optimizer = optim.FISMO(params, lr=0.01, refresh=2)
    for step in range(1, 12):
        set_gradients(params, step)
        optimizer.step()
    for p in params:
        for name in ("P", "Q"):
            factor = optimizer.state[p][name]
            assert torch.equal(factor, factor.mT)
            assert factor.trace().item() == pytest.approx(len(factor), rel=1e-12)
            assert torch.linalg.eigvalsh(factor).min() > 0


def test_fismos_step_is_the_best_within_its_ball():
    """No direction with ``|P^1/2 dW Q^1/2|_2 <= 1`` has a smaller ``<G, dW>``; the optimum is minus a nuclear norm."""
    generator = torch.Generator().manual_seed(0)
    draw = lambda *s: torch.randn(*s, generator=generator, dtype=torch.float64)  # noqa: E731
    g, a, b = draw(5, 7), draw(5, 9), draw(7, 9)
    p, q = (a @ a.mT)[None], (b @ b.mT)[None]
    left, right = _power(p, -0.5)[0], _power(q, -0.5)[0]
    best = -(g * (left @ orthogonalize(left @ g @ right, "svd") @ right)).sum().item()
    assert best == pytest.approx(-torch.linalg.matrix_norm(left @ g @ right, "nuc").item())
    for _ in range(1000):
        d = draw(5, 7)
        d = left @ (d / torch.linalg.matrix_norm(d, 2)) @ right
        assert (g * d).sum().item() >= best


# routing


@pytest.fixture(scope="module")
def transformer():
    import diffusers

    return diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=16, out_channels=16,
        text_dim=32, freq_dim=32, ffn_dim=32, num_layers=2, image_dim=8, added_kv_proj_dim=24,
        pos_embed_seq_len=None, rope_max_seq_len=32,
    )  # fmt: skip


def test_hidden_matrices_of_a_real_diffusion_transformer(transformer):
    hidden = {n for n, p in transformer.named_parameters() if hidden_matrix(n, p)}
    attention = [f"attn1.{x}" for x in ("to_q", "to_k", "to_v", "to_out.0")]
    attention += [f"attn2.{x}" for x in ("to_q", "to_k", "to_v", "to_out.0", "add_k_proj", "add_v_proj")]
    expected = {f"blocks.{i}.{n}.weight" for i in range(2) for n in [*attention, "ffn.net.0.proj", "ffn.net.2"]}
    assert hidden == expected
    others = {n for n, p in transformer.named_parameters() if p.ndim >= 2} - hidden
    assert {"patch_embedding.weight", "proj_out.weight", "scale_shift_table", "condition_embedder.time_proj.weight"} <= others


def test_lora_factors_count_as_hidden(transformer):
    import peft

    config = peft.LoraConfig(r=4, target_modules=["to_q", "proj_out", "time_proj"])
    adapted = peft.get_peft_model(transformer, config)
    trained = [(n, p) for n, p in adapted.named_parameters() if p.requires_grad]
    assert len(trained) == 2 * (4 + 1 + 1)
    assert all(hidden_matrix(n, p) for n, p in trained)
    optimizer = Muon(trained, lr=0.01)
    for _, p in trained:
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert all(set(optimizer.state[p]) == {"step", "exp_avg"} for _, p in trained)


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("blocks.0.attn1.to_q.weight", (8, 8), True),
        ("module.blocks.0.ffn.net.2.weight", (8, 32), True),
        ("layers.3.self_attn.q_proj.weight", (8, 8), True),
        ("down_blocks.0.resnets.1.conv2.weight", (8, 8, 3, 3), True),
        ("blocks.0.adapter.down.weight", (4, 8), True),
        ("blocks.0.attn1.to_q.bias", (8,), False),
        ("patch_embedding.weight", (8, 4, 1, 2, 2), False),
        ("pos_embed", (16, 8), False),
        ("model.embed_tokens.weight", (100, 8), False),
        ("transformer.wte.weight", (100, 8), False),
        ("lm_head.weight", (100, 8), False),
        ("transformer_blocks.0.norm1.linear.weight", (48, 8), False),
        ("adaln_single.linear.weight", (48, 8), False),
        ("blocks.0.scale_shift_table", (6, 8), False),
        ("blocks.0.gate.weight", (1, 8), False),
        ("blocks.0.empty.weight", (0, 8), False),
    ],
)
def test_hidden_by_name(name, shape, expected):
    assert hidden_matrix(name, torch.zeros(shape)) is expected


def test_what_is_not_hidden_takes_adamw(transformer):
    named = list(transformer.named_parameters())
    optimizer = Muon(named, lr=1e-2, adamw_ratio=0.5, adamw_betas=(0.8, 0.9), adamw_weight_decay=0.3)
    twins = {n: nn.Parameter(p.detach().clone()) for n, p in named if not hidden_matrix(n, p)}
    reference = torch.optim.AdamW(twins.values(), lr=5e-3, betas=(0.8, 0.9), weight_decay=0.3)
    for step in range(3):
        torch.manual_seed(step)
        for n, p in named:
            p.grad = torch.randn_like(p)
            if n in twins:
                twins[n].grad = p.grad.clone()
        optimizer.step()
        reference.step()
    found = dict(named)
    assert all(torch.allclose(found[n], twin, atol=1e-6) for n, twin in twins.items())
    forced = Muon([{"params": [("head.weight", parameters([(4, 4)])[0])], "algorithm": "matrix"}])
    assert forced.route(forced.param_groups[0], "head.weight", forced.param_groups[0]["params"][0]) == "matrix 1"
    with pytest.raises(InputError, match="algorithm is 'sgd'; allowed are auto, matrix, adamw"):
        Muon([{"params": parameters([(4, 4)]), "algorithm": "sgd"}])


def test_muonrec_is_muon_with_the_rms_scale():
    named = list(zip(["item_embedding.weight", "blocks.0.w.weight"], parameters([(9, 4), (4, 4)]), strict=True))
    optimizer = Muon.rec(named)
    assert (optimizer.defaults["scale"], optimizer.defaults["lr"]) == ("rms", 1e-3)
    assert [optimizer.route(optimizer.param_groups[0], n, p) for n, p in named] == ["adamw", "matrix 1"]


def test_small_states_have_their_shapes():
    p = parameters([(8, 6)])[0]
    set_gradients([p], 1)
    shapes = {}
    for name in ("NAMO", "NAMOD", "FISMO", "SGDSaI", "AMAdamW"):
        optimizer = getattr(optim, name)([p], lr=0.0)
        optimizer.step()
        shapes[name] = {n: tuple(s.shape) for n, s in optimizer.state[p].items() if s.shape != p.shape and n != "step"}
    assert shapes == {
        "NAMO": {"norm_sq": (), "ratio": ()},
        "NAMOD": {"norm_sq": (6,), "ratio": (6,)},
        "FISMO": {"P": (8, 8), "Q": (6, 6), "P_root": (8, 8), "Q_root": (6, 6)},
        "SGDSaI": {"gsnr": ()},
        "AMAdamW": {"beta_product": (), "last_lr": ()},
    }
    assert Kept().kind == "weight"
