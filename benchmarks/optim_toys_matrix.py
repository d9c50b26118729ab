"""Small claims about optimizers of matrices: ROOT, NAMO and NAMO-D, FISMO, all against Muon."""

from __future__ import annotations

from typing import Any

import torch
from optim_toys import SEEDS, TUNE, best, compare, descend, holds, randoms, summary
from torch import Tensor

from visviva.optim import FISMO, NAMO, NAMOD, ROOT, Muon
from visviva.optim.newton_schulz import STANDARD
from visviva.optim.root import fit_coefficients

ARMS = {
    "Muon": lambda p, lr: Muon(p, lr=lr, scale="rms", weight_decay=0.0),
    "NAMO": lambda p, lr: NAMO(p, lr=lr, weight_decay=0.0),
    "NAMO-D": lambda p, lr: NAMOD(p, lr=lr, weight_decay=0.0),
    "FISMO": lambda p, lr: FISMO(p, lr=lr),
    "ROOT": lambda p, lr: ROOT(p, lr=lr, weight_decay=0.0),
}
RATES = (3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)


def regression(
    names: tuple[str, ...], noise: float, outliers: float = 0.0, decay: bool = False, steps: int = 500
) -> dict[str, Any]:
    """Matrices of 16 x 24 towards a target, condition 100 over the columns, Gaussian gradient noise per entry.

    ``outliers``: share of the gradient's entries that are 100 times a Gaussian number instead.
    """
    targets, start = randoms(16, 24, seed=11), [torch.zeros(16, 24, dtype=torch.float64) for _ in range(TUNE + SEEDS)]
    scale = torch.logspace(0, -2, 24, dtype=torch.float64)

    def final(build: Any, lr: float) -> Tensor:
        rng, last = torch.Generator().manual_seed(12), []

        def gradient(step: int, weights: list[Tensor]) -> list[Tensor]:
            rests = torch.stack([w - t for w, t in zip(weights, targets, strict=True)])
            if step >= steps - 20:
                last.append((scale * rests.square()).sum((1, 2)) / 2)
            g = scale * rests + noise * torch.randn(rests.shape, generator=rng, dtype=torch.float64)
            wild = torch.rand(rests.shape, generator=rng) < outliers
            g = torch.where(wild, 100 * torch.randn(rests.shape, generator=rng, dtype=torch.float64), g)
            return list(g.unbind())

        descend(build, lr, start, gradient, steps, decay)
        return torch.stack(last).mean(0)

    return best({n: ARMS[n] for n in names}, dict.fromkeys(names, RATES), final)


def namo() -> dict[str, Any]:
    """NAMO and NAMO-D against Muon under noise 1, constant rate and rate falling to zero; at the best rate and ten times it."""
    found: dict[str, Any] = {"arms": {}, "claims": []}
    for name, decay in (("constant rate", False), ("falling rate", True)):
        rows = regression(("Muon", "NAMO", "NAMO-D"), 1.0, decay=decay)
        found["arms"] |= {f"{arm}, {name}": row for arm, row in rows.items()}
        v = {arm: row["values"] for arm, row in rows.items()}
        rise = {
            arm: [h / b for h, b in zip(row["ten_times"]["values"], row["values"], strict=True)] for arm, row in rows.items()
        }
        found["claims"] += [
            compare(f"NAMO below Muon, {name}", "0.133 against 0.237", v["NAMO"], v["Muon"]),
            compare(f"NAMO-D below NAMO, {name}", "did not reproduce", v["NAMO-D"], v["NAMO"]),
            compare(f"ten times the best rate costs NAMO less than Muon, {name}", "x3 against x12", rise["NAMO"], rise["Muon"]),
        ]
    return found


def fismo() -> dict[str, Any]:
    """FISMO against Muon, noise 1 and 0, rate falling to zero."""
    found: dict[str, Any] = {"arms": {}, "claims": []}
    for noise in (1.0, 0.0):
        rows = regression(("Muon", "FISMO"), noise, decay=True)
        found["arms"] |= {f"{arm}, noise {noise:g}": row for arm, row in rows.items()}
        card = "did not reproduce"
        found["claims"].append(
            compare(f"FISMO below Muon, noise {noise:g}", card, rows["FISMO"]["values"], rows["Muon"]["values"])
        )
    return found


def root() -> dict[str, Any]:
    """ROOT's clipping: direction under outliers (64 x 96, 30 entries), training with outliers; its coefficients per shape."""
    found: dict[str, Any] = {"arms": {}, "claims": []}
    claims = found["claims"]
    clean = randoms(64, 96, seed=13)[TUNE:]
    reference = _directions(Muon, clean)
    for size in (0, 10, 30, 100):
        spoiled = [_spoiled(g, size, seed) for seed, g in enumerate(clean)]
        lost = {}
        for name, kind in (("Muon", Muon), ("ROOT", ROOT)):
            cosine = [
                float(torch.cosine_similarity(a.flatten(), b.flatten(), dim=0))
                for a, b in zip(_directions(kind, spoiled), reference, strict=True)
            ]
            found["arms"][f"{name}, cosine to clean, outliers {size}"] = summary(cosine)
            lost[name] = [max(1 - c, 1e-15) for c in cosine]
        if not size:
            cosine = found["arms"]["ROOT, cosine to clean, outliers 0"]["mean"]
            claims.append(holds("clipping costs direction without outliers", "0.979", cosine < 0.995, {"cosine": cosine}))
            continue
        card = {10: "0.963 against 0.84", 30: "0.965 against 0.74", 100: "0.958 against 0.60"}[size]
        claims.append(compare(f"ROOT's direction loses less, outliers of size {size}", card, lost["ROOT"], lost["Muon"]))
    for share in (0.0, 0.005):
        rows = regression(("Muon", "ROOT"), 0.3, outliers=share, decay=True)
        found["arms"] |= {f"{arm}, training, outliers {share:.1%}": row for arm, row in rows.items()}
        claims.append(
            compare(f"ROOT below Muon in training, outliers {share:.1%}", "", rows["ROOT"]["values"], rows["Muon"]["values"])
        )
    for rows_, columns in ((64, 64), (64, 256), (256, 256), (256, 1024)):
        errors: dict[str, list[float]] = {"standard": [], "fitted": []}
        for seed in range(SEEDS):
            rng = torch.Generator().manual_seed(100 + seed)
            fitted = fit_coefficients(torch.randn(4, rows_, columns, generator=rng), steps=300)
            fresh = torch.linalg.svdvals(torch.randn(2, rows_, columns, generator=rng).double())
            for name, (a, b, c) in (("standard", STANDARD[0]), ("fitted", fitted)):
                s = fresh / fresh.norm(dim=1, keepdim=True)
                for _ in range(5):
                    s = a * s + b * s**3 + c * s**5
                errors[name].append(float((s.square() - 1).square().mean()))
        found["arms"] |= {f"{n} coefficients, {rows_}x{columns}": summary(e) for n, e in errors.items()}
        card = (
            {64: "0.133 to 0.077", 256: "0.142 to 0.055"}[columns]
            if rows_ == 64
            else {256: "0.125 to 0.051", 1024: "0.079 to 0.003"}[columns]
        )
        claims.append(
            compare(f"fitted coefficients orthogonalize better, {rows_}x{columns}", card, errors["fitted"], errors["standard"])
        )
    return found


def _directions(kind: Any, gradients: list[Tensor]) -> list[Tensor]:
    weights = [torch.nn.Parameter(torch.zeros_like(g)) for g in gradients]
    more = {} if kind is ROOT else {"scale": "rms"}
    optimizer = kind(weights, lr=1.0, momentum=0.0, nesterov=False, weight_decay=0.0, **more)
    for w, g in zip(weights, gradients, strict=True):
        w.grad = g
    optimizer.step()
    return [-w.detach() for w in weights]


def _spoiled(g: Tensor, size: float, seed: int) -> Tensor:
    if not size:
        return g
    rng = torch.Generator().manual_seed(200 + seed)
    where = torch.randperm(g.numel(), generator=rng)[:30]
    signs = torch.randint(0, 2, (30,), generator=rng).double() * 2 - 1
    return g.flatten().index_copy(0, where, size * signs).view_as(g)
