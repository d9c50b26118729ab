"""Curvature by Hessian-vector products: Lanczos, the density of eigenvalues, and the rate and momentum they propose.

k products give k Ritz values, whose extremes are close to the Hessian's. Stochastic Lanczos quadrature (Ghorbani et al.,
arXiv 1901.10159; primary) turns them into the density of all eigenvalues. The proposal is Polyak's optimum for a quadratic with
eigenvalues in [low, high] (textbook), in the undamped form ``buf <- rho buf + g; p <- p - alpha buf``::

    alpha = (2 / (sqrt(high) + sqrt(low)))^2,   rho = ((sqrt(high) - sqrt(low)) / (sqrt(high) + sqrt(low)))^2

That the learner of arXiv 2006.09092 uses it with the smallest positive Ritz value as ``low`` is a reconstruction: the paper's
own formula was not found.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError
from visviva.optim.transform import check

Product = Callable[[Tensor], Tensor]
Vector = Float[Tensor, " n"]


class HessianProduct:
    """``v -> H v`` with H the Hessian of a loss in a list of parameters, laid end to end.

    The graph of the gradient is built once and kept until the object goes. Parameters that the loss does not depend on have
    rows of zeros. Attention needs a kernel with second derivatives (``torch.nn.attention.sdpa_kernel(SDPBackend.MATH)``).

    Example::

        product = HessianProduct(loss(data[0]), [p for p in model.parameters() if p.requires_grad])
        ritz = lanczos(product, product.start(seed=0), 20)
    """

    def __init__(self, loss: Tensor, parameters: Sequence[Tensor]) -> None:
        if loss.numel() != 1 or not loss.requires_grad:
            raise InputError(
                f"the loss has shape {tuple(loss.shape)} and grad {loss.requires_grad}; give one number with a graph"
            )
        self.parameters = list(parameters)
        gradients = torch.autograd.grad(loss, self.parameters, create_graph=True, allow_unused=True)
        self.gradients = [g if g is not None else torch.zeros_like(p) for g, p in zip(gradients, self.parameters, strict=True)]

    @property
    def size(self) -> int:
        """Number of weights."""
        return sum(p.numel() for p in self.parameters)

    def start(self, seed: int = 0) -> Vector:
        """Return a random direction of length 1."""
        like = self.parameters[0]
        v = torch.randn(self.size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return (v / torch.linalg.vector_norm(v)).to(like.device, torch.promote_types(like.dtype, torch.float32))

    def __call__(self, v: Vector) -> Vector:
        """Return H v."""
        pieces = v.split([p.numel() for p in self.parameters])
        shaped = [x.reshape(p.shape).to(p.dtype) for x, p in zip(pieces, self.parameters, strict=True)]
        active = [(g, x) for g, x in zip(self.gradients, shaped, strict=True) if g.requires_grad]
        if not active:
            return torch.zeros_like(v)
        graded, directions = zip(*active, strict=True)
        found = torch.autograd.grad(graded, self.parameters, directions, retain_graph=True, allow_unused=True)
        rows = [torch.zeros_like(p) if h is None else h for h, p in zip(found, self.parameters, strict=True)]
        return torch.cat([h.reshape(-1) for h in rows]).to(v.dtype)


@dataclass(frozen=True)
class Ritz:
    """Eigenvalues of the small tridiagonal matrix, ascending; ``weights``: squared first components (they sum to 1)."""

    values: Float[Tensor, " k"]
    weights: Float[Tensor, " k"]


@torch.no_grad()
def tridiagonal(product: Product, start: Vector, steps: int) -> Float[Tensor, "k k"]:
    """Return ``Q^T H Q`` of at most ``steps`` Lanczos steps; every new direction is made orthogonal to all earlier ones, twice.

    Without that, rounding makes Ritz values appear several times. Stops early where the space is exhausted. Memory: k vectors.
    """
    if steps < 1:
        raise InputError(f"lanczos: steps is {steps}; allowed is a whole number from 1 on")
    q = start / torch.linalg.vector_norm(start)
    basis, diagonal, beside = q[None], [], []
    for _ in range(min(steps, len(start))):
        with torch.enable_grad():
            w = product(q).detach()
        diagonal.append(float(q @ w))
        size = float(torch.linalg.vector_norm(w))
        for _ in range(2):
            w = w - basis.mT @ (basis @ w)
        rest = float(torch.linalg.vector_norm(w))
        if rest <= 10 * torch.finfo(w.dtype).eps * max(size, 1e-300):
            break
        beside.append(rest)
        q = w / rest
        basis = torch.cat([basis, q[None]])
    off = torch.tensor(beside[: len(diagonal) - 1], dtype=torch.float64)
    return torch.diag(torch.tensor(diagonal, dtype=torch.float64)) + torch.diag(off, 1) + torch.diag(off, -1)


def lanczos(product: Product, start: Vector, steps: int) -> Ritz:
    """Return the Ritz values of ``steps`` Lanczos steps (one product each) and their weights."""
    values, vectors = torch.linalg.eigh(tridiagonal(product, start, steps))
    return Ritz(values, vectors[0].square())


def spectral_density(product: Product, starts: Sequence[Vector], steps: int) -> Ritz:
    """Return the density of eigenvalues, ``mean over starts of sum_j w_j delta(x - value_j)``, as values and weights.

    Exact for polynomials up to degree ``2 steps - 1`` of each start; the mean over random starts estimates trace(f(H)) / n.
    """
    probes = [lanczos(product, start, steps) for start in starts]
    values, weights = torch.cat([p.values for p in probes]), torch.cat([p.weights for p in probes]) / len(probes)
    order = values.argsort()
    return Ritz(values[order], weights[order])


def smoothed(density: Ritz, x: Float[Tensor, " x"], width: float) -> Float[Tensor, " x"]:
    """Return the density at ``x``, every value drawn as a normal curve of standard deviation ``width``."""
    check("smoothed: width", width, 1e-300, math.inf)
    z = (x.double()[:, None] - density.values) / width
    return (density.weights * torch.exp(-0.5 * z.square())).sum(1) / (width * math.sqrt(2 * math.pi))


def heavy_ball(high: float, low: float) -> tuple[float, float]:
    """Return (rate, momentum), the fastest on a quadratic with eigenvalues in [low, high]; errors shrink by sqrt(momentum).

    >>> heavy_ball(1.0, 1.0)
    (1.0, 0.0)
    """
    check("heavy_ball: low", low, 1e-300, math.inf)
    check("heavy_ball: high", high, low, math.inf)
    total, spread = math.sqrt(high) + math.sqrt(low), math.sqrt(high) - math.sqrt(low)
    return (2 / total) ** 2, (spread / total) ** 2


@dataclass
class LanczosLearner:
    """Proposes rate and momentum from curvature probes, averaged over probes (``beta``, bias-corrected).

    ``floor``: Ritz values below ``floor * largest`` (and negative ones) are no curvature to be fast in.

    Example::

        learner = LanczosLearner()
        lr, momentum = learner.probe(HessianProduct(loss(data[0]), list(model.parameters())), seed=0)
        optimizer.param_groups[0].update(lr=lr, momentum=momentum)  # SGDM, undamped
    """

    steps: int = 20
    floor: float = 1e-3
    beta: float = 0.9
    count: int = 0
    average: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        check("LanczosLearner.beta", self.beta, 0.0, 1.0)
        check("LanczosLearner.floor", self.floor, 1e-12, 1.0 + 1e-12)

    def probe(self, product: HessianProduct, seed: int = 0) -> tuple[float, float]:
        """Take in the curvature of one batch; return the proposal so far."""
        values = lanczos(product, product.start(seed), self.steps).values
        high = float(values.max())
        if not 0 < high < math.inf:
            raise InputError(
                f"the loss has no positive curvature here (largest Ritz value {high:g}); probe on other data or later"
            )
        pair = heavy_ball(high, float(values[values >= self.floor * high].min()))
        self.count += 1
        self.average = tuple(self.beta * a + (1 - self.beta) * x for a, x in zip(self.average, pair, strict=True))  # type: ignore[assignment]
        debias = 1 / (1 - self.beta**self.count)
        return self.average[0] * debias, self.average[1] * debias
