"""Trajectories in float64 against independent implementations: torch.optim, the authors' packages, pytorch_optimizer.

Methods without a package are compared with plain restatements of their published rules (loops, nothing of ours reused).
"""

import contextlib
import io
import math

import pytest
import torch
from trajectories import MATRICES, SHAPES, distance, moved, spike_at, trajectory

import visviva.optim as optim

pytestmark = pytest.mark.parity
EXACT, RESTATED = 1e-12, 1e-10
MATRIX_SHAPES = [(8, 6), (6, 8)]


def peer(module):
    return pytest.importorskip(module, reason=f"the peer package {module} is not installed (extra: test)")


def same(ours, theirs, atol=EXACT, shapes=SHAPES, **options):
    path = trajectory(ours, shapes, **options)
    assert moved(path)
    assert distance(path, trajectory(theirs, shapes, **options)) <= atol


@pytest.mark.parametrize("wd", [0.0, 0.1])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.8, 0.95)])
def test_adamw(wd, betas):
    options = dict(lr=0.01, betas=betas, weight_decay=wd)
    same(lambda p: optim.AdamW(p, **options), lambda p: torch.optim.AdamW(p, **options))
    if not wd:
        same(lambda p: optim.AdamW(p, **options), lambda p: torch.optim.Adam(p, **options))


@pytest.mark.parametrize(
    "options",
    [
        dict(momentum=0.0),
        dict(momentum=0.9),
        dict(momentum=0.9, nesterov=True),
        dict(momentum=0.9, dampening=0.3),
        dict(momentum=0.9, weight_decay=0.05),
        dict(momentum=0.9, nesterov=True, weight_decay=0.05),
        dict(momentum=0.9, dampening=0.5, weight_decay=0.05),
    ],
    ids=str,
)
def test_sgd(options):
    same(lambda p: optim.SGDM(p, lr=0.05, **options), lambda p: torch.optim.SGD(p, lr=0.05, **options))


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize(("scale", "adjust"), [("original", "original"), ("rms", "match_rms_adamw")])
def test_muon(nesterov, scale, adjust, monkeypatch):
    """torch's Muon iterates in bfloat16; with the exact polar factor in its place everything else must agree."""
    polar = lambda grad, *_: torch.linalg.svd(grad, full_matrices=False)  # noqa: E731
    monkeypatch.setattr(torch.optim._muon, "_zeropower_via_newtonschulz", lambda *a: polar(*a)[0] @ polar(*a)[2])
    options = dict(lr=0.02, momentum=0.9, nesterov=nesterov, weight_decay=0.1)
    same(
        lambda p: optim.Muon(p, scale=scale, schedule="svd", **options),
        lambda p: torch.optim.Muon(p, adjust_lr_fn=adjust, **options),
        shapes=MATRIX_SHAPES,
    )


@pytest.mark.parametrize("nesterov", [False, True])
def test_muons_newton_schulz(nesterov, monkeypatch):
    """In float64 too, where torch divides by ``max(|U|, 1e-7)`` and we by ``|U| + 1e-7``."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", lambda self: self.double().clone())
    options = dict(lr=0.02, momentum=0.9, nesterov=nesterov, weight_decay=0.1)
    same(lambda p: optim.Muon(p, **options), lambda p: torch.optim.Muon(p, **options), 1e-5, MATRIX_SHAPES)


def quiet_adabelief(**options):
    module = peer("adabelief_pytorch")

    def build(p):
        with contextlib.redirect_stdout(io.StringIO()):
            return module.AdaBelief(p, print_change_log=False, **options)

    return build


@pytest.mark.parametrize("rectify", [False, True])
@pytest.mark.parametrize("decay", ["decoupled", "fixed", "coupled"])
@pytest.mark.parametrize("eps", [1e-16, 1e-8])
def test_adabelief(rectify, decay, eps):
    wd = 0.003 if decay == "fixed" else 0.1
    theirs = quiet_adabelief(
        lr=0.01,
        eps=eps,
        weight_decay=wd,
        rectify=rectify,
        weight_decouple=decay != "coupled",
        fixed_decay=decay == "fixed",
        betas=(0.9, 0.99),
    )
    options = dict(lr=0.01, eps=eps, weight_decay=wd, betas=(0.9, 0.99), rectify=rectify, decay=decay)
    same(lambda p: optim.AdaBelief(p, **options), theirs)


@pytest.mark.parametrize("beta2", [0.6, 0.65, 0.999])
def test_adabelief_rectified_when_the_average_is_too_short_to_rectify(beta2):
    options = dict(lr=0.01, betas=(0.9, beta2), eps=1e-12)
    if beta2 == 0.6:  # the package divides by zero here
        assert moved(trajectory(lambda p: optim.AdaBelief(p, rectify=True, **options), steps=10))
        return
    same(lambda p: optim.AdaBelief(p, rectify=True, **options), quiet_adabelief(rectify=True, **options))


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("delta", [0.0, 0.1, 0.5, 100.0])
def test_adamp(delta, nesterov):
    options = dict(lr=0.01, weight_decay=0.1, delta=delta, nesterov=nesterov)
    same(lambda p: optim.AdamP(p, **options), lambda p: peer("adamp").AdamP(p, **options))


@pytest.mark.parametrize("delta", [0.0, 0.1, 0.5, 100.0])
@pytest.mark.parametrize(
    "momentum",
    [dict(momentum=0.9), dict(momentum=0.9, nesterov=True), dict(momentum=0.9, dampening=0.4), dict(momentum=0.0)],
    ids=str,
)
def test_sgdp(delta, momentum):
    options = dict(lr=0.01, weight_decay=0.02, delta=delta, **momentum)
    same(lambda p: optim.SGDP(p, **options), lambda p: peer("adamp").SGDP(p, **options))
    theirs = peer("pytorch_optimizer").SGDP
    same(lambda p: optim.SGDP(p, project_momentum=False, **options), lambda p: theirs(p, weight_decouple=True, **options))


def test_sgd_sai():
    theirs = peer("sgd_sai").SGD_sai
    options = dict(lr=2e-3, momentum=0.8, weight_decay=0.1)
    same(lambda p: optim.SGDSaI(p, **options), lambda p: Quiet(theirs(p, **options)))


class Quiet:
    """An optimizer that prints."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    def step(self):
        with contextlib.redirect_stdout(io.StringIO()):
            self.optimizer.step()


def test_lion():
    options = dict(lr=0.01, betas=(0.9, 0.99), weight_decay=0.1)
    same(lambda p: optim.Lion(p, **options), lambda p: peer("lion_pytorch").Lion(p, **options))
    same(lambda p: optim.Lion(p, **options), lambda p: peer("pytorch_optimizer").Lion(p, **options))


class ClippedFirst:
    """An optimizer after ``g min(1, max_norm / (|g| + 1e-8))``."""

    def __init__(self, params, optimizer, max_norm):
        self.params, self.optimizer, self.max_norm = params, optimizer, max_norm

    def step(self):
        norm = math.sqrt(sum((p.grad**2).sum().item() for p in self.params))
        for p in self.params:
            p.grad = p.grad * min(1.0, self.max_norm / (norm + 1e-8))
        self.optimizer.step()


@pytest.mark.parametrize("clip", [0.0, 1.0])
@pytest.mark.parametrize("no_prox", [False, True])
def test_adan(clip, no_prox):
    options = dict(lr=0.02, weight_decay=0.1, max_grad_norm=clip)
    theirs = peer("pytorch_optimizer").Adan
    atol = 1e-7 if clip else EXACT  # its global norm is taken in float32
    ours = lambda p: optim.Adan(p, no_prox=no_prox, **options)  # noqa: E731
    same(ours, lambda p: theirs(p, weight_decouple=no_prox, **options), atol)
    if clip:
        same(ours, lambda p: ClippedFirst(p, optim.Adan(p, no_prox=no_prox, **{**options, "max_grad_norm": 0.0}), clip))


@pytest.mark.parametrize("wd", [0.0, 0.1])
def test_exadam(wd):
    options = dict(lr=1e-3, weight_decay=wd)
    same(lambda p: optim.EXAdam(p, **options), lambda p: peer("pytorch_optimizer").EXAdam(p, **options))


@pytest.mark.parametrize("rectify", [False, True])
def test_adabelief_of_pytorch_optimizer(rectify):
    options = dict(lr=0.01, weight_decay=0.1, betas=(0.9, 0.95), eps=1e-12, rectify=rectify)
    theirs = peer("pytorch_optimizer").AdaBelief
    same(lambda p: optim.AdaBelief(p, **options), lambda p: theirs(p, adam_debias=False, **options))


def test_spam_before_its_first_reset():
    options = dict(lr=0.01, weight_decay=0.1, eps=1e-6)
    theirs = peer("pytorch_optimizer").SPAM
    ours = lambda p: optim.SPAM(p, theta=50.0, reset_every=100, wait=5, **options)  # noqa: E731
    same(
        ours,
        lambda p: theirs(p, threshold=50, update_proj_gap=100, grad_accu_steps=5, **options),
        spike=spike_at,
    )
    unclipped = trajectory(lambda p: optim.SPAM(p, theta=0.0, reset_every=100, **options), spike=spike_at)
    assert distance(trajectory(ours, spike=spike_at), unclipped) > 1e-3  # clipping did something


# Restatements: one class, one rule per method; each gets its tensor's own dictionary of states.


class Restated:
    """An optimizer as a rule ``(p, g, state, t) -> p`` per tensor."""

    def __init__(self, params, rule):
        self.params, self.rule, self.t = params, rule, 0
        self.states = [{} for _ in params]

    def step(self):
        self.t += 1
        with torch.no_grad():
            for p, state in zip(self.params, self.states, strict=True):
                p.copy_(self.rule(p.clone(), p.grad.clone(), state, self.t))


def restated(rule):
    return lambda p: Restated(p, rule)


def spam_rule(p, g, s, t, *, lr, b1, b2, eps, wd, theta, period, warmup, wait):
    """The official code's steps 1 to 8; j counts from the last reset, and starts at warmup + 1."""
    if t == 1:
        s.update(m=torch.zeros_like(p), v=torch.zeros_like(p), j=warmup + 1)
    scale = 1.0 if s["j"] >= warmup else 1 - 0.99 * (1 + math.cos(math.pi * s["j"] / (warmup + 1))) / 2
    if t % period == 0:
        s["m"], s["v"] = torch.zeros_like(p), torch.zeros_like(p)
    if theta and t >= wait and t % period >= wait:
        for i in range(g.numel()):
            bound = theta * s["v"].view(-1)[i].item()
            if g.view(-1)[i].item() ** 2 > bound:
                g.view(-1)[i] = math.copysign(math.sqrt(bound), g.view(-1)[i].item())
    s["m"] = b1 * s["m"] + (1 - b1) * g
    s["v"] = b2 * s["v"] + (1 - b2) * g**2
    p = p - scale * lr * math.sqrt(1 - b2**t) / (1 - b1**t) * s["m"] / (s["v"].sqrt() + eps)
    p = p - lr * wd * p
    s["j"] += 1
    if (t + 1) % period == 0:  # t steps are done; the next one resets
        s["j"] = 0
    return p


@pytest.mark.parametrize("theta", [50.0, 0.0])
def test_spam_through_three_resets(theta):
    def rule(p, g, s, t):
        return spam_rule(p, g, s, t, lr=0.02, b1=0.9, b2=0.999, eps=1e-6, wd=0.1, theta=theta, period=12, warmup=5, wait=3)

    options = dict(theta=theta, reset_every=12, warmup=5, wait=3)
    ours = lambda p: optim.SPAM(p, lr=0.02, weight_decay=0.1, **options)  # noqa: E731
    same(ours, restated(rule), atol=EXACT, steps=40, spike=spike_at)


def polar(x):
    u, _, vh = torch.linalg.svd(x, full_matrices=False)
    return u @ vh


def momentum_and_lookahead(g, s, mu, nesterov):
    s["m"] = mu * s.get("m", torch.zeros_like(g)) + (1 - mu) * g
    return (1 - mu) * g + mu * s["m"] if nesterov else s["m"]


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("lr", [0.01, 0.8])  # 0.8: both guards act
def test_namo(nesterov, lr):
    mu, mu2, eps, wd = 0.95, 0.99, 1e-8, 0.1

    def rule(p, g, s, t):
        shape = p.shape
        p, g = p.flatten(1), g.flatten(1)
        s["v"] = mu2 * s.get("v", 0.0) + (1 - mu2) * (g**2).sum().item()
        look = momentum_and_lookahead(g, s, mu, nesterov)
        ratio = look.norm().item() / (math.sqrt(s["v"]) + eps)
        alpha = lr * math.sqrt(1 - mu2**t) / (1 - mu**t) * ratio
        p = p * (1 - wd * min(alpha, 1.0))
        return (p - min(alpha * 0.2 * math.sqrt(max(p.shape)), 1.0) * polar(look)).view(shape)

    ours = lambda p: optim.NAMO(p, lr=lr, nesterov=nesterov, schedule="svd")  # noqa: E731
    same(ours, restated(rule), RESTATED, MATRICES)


@pytest.mark.parametrize("c", [0.3, 0.75, 1.0])
@pytest.mark.parametrize("axis", ["column", "row"])
def test_namo_d(c, axis):
    mu, mu2, eps, wd, lr = 0.95, 0.99, 1e-8, 0.1, 0.01

    def rule(p, g, s, t):
        shape = p.shape
        p, g = p.flatten(1), g.flatten(1)
        if axis == "row":
            p, g = p.T, g.T
        n = p.shape[1]
        v = s.setdefault("v", [0.0] * n)
        look = momentum_and_lookahead(g, s, mu, True)
        for j in range(n):
            v[j] = mu2 * v[j] + (1 - mu2) * (g[:, j] ** 2).sum().item()
        ratios = [look[:, j].norm().item() / (math.sqrt(v[j]) + eps) for j in range(n)]
        mean = sum(ratios) / n
        orthogonal, out = polar(look), p.clone()
        for j in range(n):
            alpha = min(max(ratios[j], c * mean), mean / c) * lr * math.sqrt(1 - mu2**t) / (1 - mu**t)
            out[:, j] *= 1 - wd * min(alpha, 1.0)
            out[:, j] -= min(alpha * 0.2 * math.sqrt(max(p.shape)), 1.0) * orthogonal[:, j]
        return (out.T if axis == "row" else out).reshape(shape)

    ours = lambda p: optim.NAMOD(p, lr=lr, clamp=c, axis=axis, schedule="svd")  # noqa: E731
    same(ours, restated(rule), RESTATED, MATRICES)


@pytest.mark.parametrize("nesterov", [False, True])
def test_root(nesterov):
    mu, wd, lr, q = 0.95, 0.1, 0.01, 0.9

    def rule(p, g, s, t):
        shape = p.shape
        p, g = p.flatten(1), g.flatten(1)
        s["m"] = mu * s["m"] + g if t > 1 else g
        u = g + mu * s["m"] if nesterov else s["m"]
        ranked = sorted(u.abs().flatten().tolist())
        place = q * (len(ranked) - 1)
        low = int(place)
        edge = ranked[low] + (place - low) * (ranked[min(low + 1, len(ranked) - 1)] - ranked[low]) + 1e-9
        outliers = u.sign() * (u.abs() - edge).clamp_min(0)
        return (p * (1 - lr * wd) - 0.2 * math.sqrt(max(p.shape)) * lr * polar(u - outliers)).view(shape)

    ours = lambda p: optim.ROOT(p, lr=lr, nesterov=nesterov, schedule="svd")  # noqa: E731
    same(ours, restated(rule), RESTATED, MATRICES)


def root_of(x, power):
    values, vectors = torch.linalg.eigh(x)
    return vectors @ torch.diag(values**power) @ vectors.T


@pytest.mark.parametrize("refresh", [1, 10])
def test_fismo(refresh):
    beta, gamma, mu, lr, wd = 0.9, 0.8, 0.2, 0.01, 0.1

    def rule(p, g, s, t):
        shape = p.shape
        p, g = p.flatten(1), g.flatten(1)
        m, n = p.shape
        if t == 1:
            s.update(P=torch.eye(m, dtype=p.dtype), Q=torch.eye(n, dtype=p.dtype), m=torch.zeros_like(p))
        if (t - 1) % refresh == 0:
            left = g @ s["Q"].inverse() @ g.T / n + mu * (s["P"].trace() / m) * torch.eye(m, dtype=p.dtype)
            mixed = gamma * s["P"] + (1 - gamma) * left
            s["P"] = m / mixed.trace() * (mixed + mixed.T) / 2
            right = g.T @ s["P"].inverse() @ g / m + mu * (s["Q"].trace() / n) * torch.eye(n, dtype=p.dtype)
            mixed = gamma * s["Q"] + (1 - gamma) * right
            s["Q"] = n / mixed.trace() * (mixed + mixed.T) / 2
        s["m"] = beta * s["m"] + (1 - beta) * root_of(s["P"], -0.5) @ g @ root_of(s["Q"], -0.5)
        return (p * (1 - lr * wd) - lr * root_of(s["P"], -0.5) @ polar(s["m"]) @ root_of(s["Q"], -0.5)).view(shape)

    options = dict(lr=lr, momentum=beta, gamma=gamma, mu=mu, refresh=refresh, weight_decay=wd, schedule="svd")
    same(lambda p: optim.FISMO(p, **options), restated(rule), RESTATED, MATRICES)


class RestatedAMSGD:
    """One beta per step, inner products over all parameters."""

    def __init__(self, params, lr, lam, beta_max, wd):
        self.params, self.d, self.numbers = params, None, (lr, lam, beta_max, wd)

    @torch.no_grad()
    def step(self):
        lr, lam, beta_max, wd = self.numbers
        flat = torch.cat([(p.grad + wd * p).flatten() for p in self.params])
        if self.d is None:
            self.d = flat
        else:
            d = self.d
            top = flat.dot(flat) + 2 * lam * flat.dot(d) - lam * d.dot(d)
            beta = min(max((top / (flat - d).dot(flat - d)).item(), 0.0), beta_max)
            self.d = ((beta + lam) * d + (1 - beta) * flat) / (1 + lam)
        for p, d in zip(self.params, self.d.split([p.numel() for p in self.params]), strict=True):
            p -= lr * d.view(p.shape)


@pytest.mark.parametrize("groups", [False, True])
@pytest.mark.parametrize("wd", [0.0, 0.1])
def test_am_msgd(wd, groups):
    def ours(p):
        given = [{"params": p[:1], "weight_decay": wd}, {"params": p[1:]}] if groups else p
        return optim.AMMSGD(given, lr=0.1, memory=0.1, beta_max=0.9, weight_decay=wd)

    same(ours, lambda p: RestatedAMSGD(p, 0.1, 0.1, 0.9, wd), RESTATED)


def test_am_msgd_takes_one_beta_over_groups_with_and_without_decay():
    def ours(p):
        return optim.AMMSGD([{"params": p[:1], "weight_decay": 0.0}, {"params": p[1:], "weight_decay": 0.2}], lr=0.1)

    class Peer(RestatedAMSGD):
        def step(self):
            for p in self.params[1:]:
                p.grad = p.grad + 0.2 * p.detach()
            super().step()

    same(ours, lambda p: Peer(p, 0.1, 0.1, 0.9, 0.0), RESTATED)


@pytest.mark.parametrize("wd", [0.0, 0.1])
@pytest.mark.parametrize("lam", [0.0, 0.1])
def test_am_adamw(wd, lam):
    lr, b2, eps, beta_max = 0.01, 0.99, 1e-8, 0.89

    def rule(p, g, s, t):
        if t == 1:
            s.update(v=torch.zeros_like(p), d=torch.zeros_like(p), product=1.0)
        s["v"] = b2 * s["v"] + (1 - b2) * g**2
        metric = (1 - beta_max * s["product"]) * ((s["v"] / (1 - b2**t)).sqrt() + eps)
        weight = 1 / (metric * (1 + lam * metric))
        d = s["d"]
        beta = beta_max
        if t > 1:
            fall = lr * (g * (d / metric + wd * p)).sum()
            top = (1 + wd * lr) * fall / lr - (weight * (d - g) * (g + lam * metric * d)).sum() - wd * (p * (d - g)).sum()
            beta = min(max((top / (weight * (d - g) ** 2).sum()).item(), 0.0), beta_max)
        s["d"] = ((1 - beta) * g + (lam * metric + beta) * d) / (1 + lam * metric)
        s["product"] *= beta
        return (1 - lr * wd) * p - lr * s["d"] / metric

    options = dict(lr=lr, beta2=b2, memory=lam, beta_max=beta_max, weight_decay=wd)
    same(lambda p: optim.AMAdamW(p, **options), restated(rule), RESTATED)


@pytest.mark.parametrize("kind", ["soft", "clip", "identity"])
def test_lion_k(kind):
    lr, b1, b2, wd, e = 0.01, 0.9, 0.99, 0.1, 0.2
    maps = {
        "soft": lambda c: math.copysign(1.0, c) if abs(c) > e else 0.0,
        "clip": lambda c: min(max(c / e, -1.0), 1.0),
        "identity": lambda c: c,
    }

    def rule(p, g, s, t):
        m = s.get("m", torch.zeros_like(g))
        c = b1 * m + (1 - b1) * g
        s["m"] = b2 * m + (1 - b2) * g
        u = torch.tensor([maps[kind](x) for x in c.flatten().tolist()], dtype=p.dtype).view(p.shape)
        return p * (1 - lr * wd) - lr * u

    options = dict(lr=lr, betas=(b1, b2), weight_decay=wd, map=kind, e=e)
    same(lambda p: optim.LionK(p, **options), restated(rule), EXACT)
