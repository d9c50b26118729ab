"""ROOT: robust orthogonalized momentum (arXiv 2511.20626; official example in huawei-noah/noah-research)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from visviva.errors import InputError
from visviva.optim.gradient import SoftClip
from visviva.optim.muon import MatrixOptimizer, Orthogonalize, momentum
from visviva.optim.newton_schulz import STANDARD, Coefficients
from visviva.optim.transform import Transform
from visviva.optim.weights import Apply

COEFFICIENTS: dict[tuple[int, int], Coefficients] = {
    (2048, 2048): (3.4916, -4.8224, 2.1095),
    (2048, 3072): (3.4509, -4.5790, 1.9325),
    (2048, 8192): (2.9794, -3.6674, 1.6207),
    (2048, 16384): (3.1943, -3.8221, 1.5322),
}
"""The authors' coefficients by (shorter, longer) side; other shapes take Muon's."""


@dataclass(frozen=True)
class OrthogonalizeByShape(Orthogonalize):
    """`Orthogonalize` with coefficients of its own for some shapes: ((shorter, longer), (a, b, c)) pairs."""

    by_shape: tuple[tuple[tuple[int, int], Coefficients], ...] = ()

    def schedule_for(self, rows: int, columns: int) -> Any:
        """Return five times the shape's coefficients."""
        found = dict(self.by_shape).get((min(rows, columns), max(rows, columns)))
        return self.schedule if found is None else (found,) * 5


class ROOT(MatrixOptimizer):
    """Muon whose outliers are clipped and whose Newton-Schulz coefficients are fitted to the shape.

    ``M <- mu M + g``; ``U = g + mu M`` (Nesterov) or M; ``B = clamp(U, -e, e)`` with e the 90 % quantile of ``|U|`` at this
    step (the authors' code; the paper's algorithm has a constant); ``p <- p (1 - lr wd) - lr 0.2 sqrt(max(r, c)) polar(B)``.
    With ``quantile=1`` and standard coefficients this is Muon with undamped momentum and ``scale="rms"``.

    Args:
        params: named parameters, best; parameters or groups.
        lr, momentum, nesterov, weight_decay: hyper-parameters.
        quantile: what is kept.
        coefficients: by shape, such as `fit_coefficients` finds; None takes the authors'.
        schedule: for other shapes.
        options: as `visviva.optim.muon.Muon`.

    Example::

        optimizer = ROOT(model.named_parameters(), lr=1e-3)
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.1,
        nesterov: bool = True,
        quantile: float = 0.9,
        coefficients: Mapping[tuple[int, int], Coefficients] | None = None,
        schedule: Any = "standard",
        **options: Any,
    ) -> None:
        defaults = dict(lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov, quantile=quantile)
        if not isinstance(coefficients, Mapping | None):
            raise InputError(f"ROOT: coefficients is {coefficients!r}; allowed is a mapping of (rows, columns) to (a, b, c)")
        by_shape = tuple((COEFFICIENTS if coefficients is None else coefficients).items())
        super().__init__(params, defaults | dict(coefficients=by_shape, schedule=schedule, undamped=True), **options)

    def matrix_chain(self, group: Mapping[str, Any], blocks: int) -> list[Transform]:
        """Return HeavyBall, SoftClip, OrthogonalizeByShape, Apply."""
        polar = OrthogonalizeByShape(group["schedule"], "rms", blocks, group["coefficients"])
        return [*momentum(group), SoftClip(group["quantile"]), polar, Apply(group["weight_decay"])]


def fit_coefficients(
    matrices: torch.Tensor, steps: int = 500, lr: float = 5e-3, start: Coefficients = STANDARD[0]
) -> Coefficients:
    """Return the (a, b, c) that bring singular values of such matrices closest to 1 in five iterations.

    Minimises ``mean((s_5^2 - 1)^2)`` over the singular values s of ``G / |G|_F`` by Adam. How the authors fit theirs is not in
    their release; this recipe is this project's reconstruction.

    Args:
        matrices: (k, rows, columns), random or saved momentum of one shape.

    Example::

        ROOT(model.named_parameters(), coefficients={(64, 256): fit_coefficients(torch.randn(16, 64, 256))})
    """
    values = torch.linalg.svdvals(matrices.double() / torch.linalg.matrix_norm(matrices.double(), keepdim=True)).reshape(-1)
    coefficients = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([coefficients], lr=lr)
    for _ in range(steps):
        a, b, c = coefficients.unbind()
        s = values
        for _ in range(5):
            s = a * s + b * s**3 + c * s**5
        loss = (s.square() - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    a, b, c = coefficients.tolist()
    return a, b, c
