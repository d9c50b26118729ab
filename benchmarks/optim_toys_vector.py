"""Small claims about element-wise optimizers: SPAM, adaptive memory, SGDP and AdamP, Lion."""

from __future__ import annotations

from typing import Any

import torch
from optim_toys import TUNE, best, compare, descend, holds, randoms, summary
from torch import Tensor

from visviva.optim import AMMSGD, SGDM, SGDP, SPAM, AdamP, AdamW, Lion, LionK, SpikeClip


def spam(steps: int = 3000) -> dict[str, Any]:
    """Diagonal quadratic, 50 weights, condition 100, gradient noise 0.05; with spikes a gradient entry is 1000 times itself."""
    curvature = torch.logspace(0, -2, 50, dtype=torch.float64)
    start = [torch.stack(randoms(50, seed=1))]
    arms = {
        "AdamW": lambda p, lr: AdamW(p, lr=lr, weight_decay=0.0),
        "AdamW + SpikeClip": lambda p, lr: AdamW(p, lr=lr, weight_decay=0.0, extra=[SpikeClip(5000.0)]),
        "SPAM": lambda p, lr: SPAM(p, lr=lr),
        "SPAM, theta 50": lambda p, lr: SPAM(p, lr=lr, theta=50.0),
    }
    rates = dict.fromkeys(arms, (3e-4, 1e-3, 3e-3, 1e-2, 3e-2))
    found: dict[str, Any] = {"arms": {}, "claims": []}
    for name, chance in (("spikes", 0.002), ("no spikes", 0.0)):

        def final(build: Any, lr: float, chance: float = chance) -> Tensor:
            rng, last = torch.Generator().manual_seed(7), []

            def gradient(step: int, weights: list[Tensor]) -> list[Tensor]:
                (x,) = weights
                if step >= steps - 100:
                    last.append((curvature * x * x).sum(1) / 2)
                g = curvature * x + 0.05 * torch.randn(x.shape, generator=rng, dtype=x.dtype)
                return [torch.where(torch.rand(x.shape, generator=rng) < chance, 1000 * g, g)]

            descend(build, lr, start, gradient, steps)
            return torch.stack(last).mean(0)

        rows = best(arms, rates, final)
        found["arms"] |= {f"{arm}, {name}": row for arm, row in rows.items()}
        values = {arm: row["values"] for arm, row in rows.items()}
        card = "19-40x lower" if chance else "resets cost a little"
        found["claims"] += [
            compare(f"SPAM below AdamW, {name}", card, values["SPAM"], values["AdamW"]),
            compare(f"SPAM below AdamW + SpikeClip (resets), {name}", "", values["SPAM"], values["AdamW + SpikeClip"]),
            compare(f"theta 50 below theta 5000, {name}", "more at 50", values["SPAM, theta 50"], values["SPAM"]),
        ]
    return found


def adaptive_memory(steps: int = 300) -> dict[str, Any]:
    """Quadratics of 20 weights, eigenvalues from 1/kappa to 1, 300 updates, exact gradients or noise of 0.1 per entry."""
    arms = {
        "0.9, average": lambda p, lr: SGDM(p, lr=lr, momentum=0.9, dampening=0.9),
        "AM-MSGD": lambda p, lr: AMMSGD(p, lr=lr),
    }
    rates = dict.fromkeys(arms, (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 50.0))
    start = randoms(20, seed=2)
    found: dict[str, Any] = {"arms": {}, "claims": []}
    for kappa, noise in ((10, 0.0), (100, 0.0), (1000, 0.0), (100, 0.1)):
        eigen = torch.logspace(0, -torch.log10(torch.tensor(float(kappa))).item(), 20, dtype=torch.float64)

        def final(build: Any, lr: float, eigen: Tensor = eigen, noise: float = noise) -> Tensor:
            losses = []
            for seed, first in enumerate(start):  # one by one: the coefficient is common to all parameters of an optimizer
                rng = torch.Generator().manual_seed(seed)

                def gradient(step: int, w: list[Tensor], rng: torch.Generator = rng) -> list[Tensor]:
                    return [eigen * w[0] + noise * torch.randn(20, generator=rng, dtype=torch.float64)]

                (x,) = descend(build, lr, [first], gradient, steps)
                losses.append((eigen * x * x).sum() / 2)
            return torch.stack(losses).clamp_min(1e-300)

        name = f"kappa {kappa}, noise {noise:g}"
        rows = best(arms, rates, final)
        found["arms"] |= {f"{arm}, {name}": row for arm, row in rows.items()}
        card = "" if noise or kappa == 100 else "lower, never worse"
        found["claims"].append(
            compare(f"AM-MSGD below fixed 0.9, {name}", card, rows["AM-MSGD"]["values"], rows["0.9, average"]["values"])
        )
    return found


def radial(steps: int = 300) -> dict[str, Any]:
    """Cosine distance of 20 weights to a target (scale-invariant), 300 updates at one rate: growth of the norm."""
    targets = [t[None] for t in randoms(20, seed=3)]
    start = [t[None] for t in randoms(20, seed=4)]
    arms = {
        "SGDM": lambda p, lr: SGDM(p, lr=0.1, momentum=0.9),
        "SGDP": lambda p, lr: SGDP(p, lr=0.1, momentum=0.9),
        "AdamW": lambda p, lr: AdamW(p, lr=0.02, weight_decay=0.0),
        "AdamP": lambda p, lr: AdamP(p, lr=0.02),
    }

    def gradient(step: int, weights: list[Tensor]) -> list[Tensor]:
        with torch.enable_grad():
            ws = [w.clone().requires_grad_() for w in weights]
            loss = sum(1 - torch.cosine_similarity(w, t).sum() for w, t in zip(ws, targets, strict=True))
            return list(torch.autograd.grad(loss, ws))

    found: dict[str, Any] = {"arms": {}, "claims": []}
    growth, cosine = {}, {}
    for name, build in arms.items():
        after = descend(build, 0.1, start, gradient, steps)
        growth[name] = [float(a.norm() / s.norm()) for a, s in zip(after, start, strict=True)][TUNE:]
        cosine[name] = [float(torch.cosine_similarity(a, t)) for a, t in zip(after, targets, strict=True)][TUNE:]
        found["arms"][name] = summary(growth[name]) | {"cosine": summary(cosine[name])}
    for projected, plain in (("SGDP", "SGDM"), ("AdamP", "AdamW")):
        card = "norm 4.5 against 8.4" if projected == "SGDP" else ""
        found["claims"].append(compare(f"{projected} grows the norm less than {plain}", card, growth[projected], growth[plain]))
    reached = min(min(cosine["SGDM"]), min(cosine["SGDP"]))
    found["claims"].append(holds("both reach the target's direction", "cosine 1.0", reached > 0.999, {"lowest": reached}))
    return found


def lion() -> dict[str, Any]:
    """Lion on separable quadratics (box and optimum; excess outside the box), and Lion-K's Lyapunov function (Huber K)."""
    claims = []
    optimum = torch.tensor([2.0, 0.3, -0.05], dtype=torch.float64)
    for wd in (1.0, 0.25):
        start = [w[:3] for w in randoms(3, seed=5)]
        after = descend(
            lambda p, lr, wd=wd: Lion(p, lr=lr, weight_decay=wd),
            0.01,
            start,
            lambda _, w: [x - optimum for x in w],
            6000,
            decay=True,
        )
        error = max(float((x - optimum.clamp(-1 / wd, 1 / wd)).abs().max()) for x in after)
        claims.append(holds(f"Lion ends at the optimum within |x| <= 1/{wd:g}", "yes", error < 5e-3, {"largest error": error}))

    x = torch.nn.Parameter(3 + torch.rand(200, generator=torch.Generator().manual_seed(6), dtype=torch.float64))
    far = 10 * torch.ones(200, dtype=torch.float64)
    optimizer, ratios, inside = Lion([x], lr=0.01, weight_decay=1.0), [], 0.0
    for step in range(2000):
        excess = x.detach().abs() - 1
        x.grad = x.detach() - far
        optimizer.step()
        if step < 300:
            ratios.append(((x.detach().abs() - 1) / excess - (1 - 0.01)).abs().max())
        elif step > 1500:
            inside = max(inside, float(x.detach().abs().max()) - 1)
    worst = float(torch.stack(ratios).max())
    claims.append(
        holds("excess outside the box shrinks by 1 - lr wd per step", "exactly", worst < 1e-9, {"largest deviation": worst})
    )
    y = torch.nn.Parameter(2 * torch.rand(200, generator=torch.Generator().manual_seed(8), dtype=torch.float64) - 1)
    optimizer, outside, rng = Lion([y], lr=0.01, weight_decay=1.0), 0.0, torch.Generator().manual_seed(9)
    for _ in range(2000):
        y.grad = 100 * torch.randn(200, generator=rng, dtype=torch.float64)
        optimizer.step()
        outside = max(outside, float(y.detach().abs().max()) - 1)
    claims.append(
        holds("weights inside the box stay inside, any gradients", "yes", outside <= 1e-12, {"largest excess": outside})
    )
    increases, steps = lyapunov()
    claims.append(
        holds(f"Lyapunov function of Lion-K never rises in {steps} steps", "0 rises", increases == 0, {"rises": increases})
    )
    return {"arms": {}, "claims": claims}


def lyapunov(steps: int = 40000, lr: float = 1e-3, wd: float = 0.5, b1: float = 0.9, e: float = 0.1) -> tuple[int, int]:
    """Count rises of H over 10 starts, for f = sum a (x - c)^2 / 2, K the Huber function, gamma = alpha = 1."""
    d, rng = (10, 8), torch.Generator().manual_seed(10)
    a, c = torch.rand(d, generator=rng, dtype=torch.float64) + 0.1, 3 * torch.randn(d, generator=rng, dtype=torch.float64)
    x = torch.nn.Parameter(torch.rand(d, generator=rng, dtype=torch.float64) * 2 - 1)
    optimizer, eps = LionK([x], lr=lr, betas=(b1, 1 - lr), weight_decay=wd, map="clip", e=e), 1 - b1

    def energy() -> Tensor:
        p, m = x.detach(), -optimizer.state[x]["exp_avg"]
        huber = torch.where(m.abs() <= e, m * m / (2 * e), m.abs() - e / 2)
        conjugate = e * (wd * p).square() / 2
        f = a * (p - c).square() / 2
        return (f + conjugate / wd + (1 - eps) / (1 + eps * wd) * (conjugate + huber - wd * m * p)).sum(1)

    rises, before = 0, None
    for _ in range(steps):
        x.grad = a * (x.detach() - c)
        optimizer.step()
        now = energy()
        rises += 0 if before is None else int((now > before + 1e-12).sum())
        before = now
    return rises, steps
