"""Functions of one variable as piecewise polynomials, with their first and second derivatives, many at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from visviva.errors import InputError

Points = Sequence[float] | NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """A function of one variable: polynomials ``sum_d coefficients[p][d] (x - origins[p])^d`` between ``edges``."""

    edges: tuple[float, ...]
    origins: tuple[float, ...]
    coefficients: tuple[tuple[float, ...], ...]

    def scaled(self, by: float) -> Curve:
        """Return the function times a number."""
        return replace(self, coefficients=tuple(tuple(by * c for c in piece) for piece in self.coefficients))


def polynomial(*coefficients: float) -> Curve:
    """Return ``coefficients[0] + coefficients[1] x + ...``.

    Example::

        polynomial(0.0, 1.0)  # the identity
    """
    return Curve((), (0.0,), (tuple(coefficients),))


def lines(x: Points, y: Points) -> Curve:
    """Return the line through points, its first and last piece going on beyond them."""
    x, y = _points(x, y)
    return _pieces(x, y, np.zeros(len(x)), beyond=False)


def spline(x: Points, y: Points) -> Curve:
    """Return the cubic spline through points whose end pieces have the third derivative of the cubic through the last four.

    The end conditions are those of Forsythe, Malcolm and Moler (1977), chapter 4; three points get a parabola, two a line.
    Beyond the points it goes on straight (as OpenSim's SimmSpline does).
    """
    x, y = _points(x, y)
    count = len(x)
    if count < 3:
        return _pieces(x, y, np.zeros(count), beyond=False)
    h, slope = np.diff(x), np.diff(y) / np.diff(x)
    matrix, right = np.zeros((count, count)), np.zeros(count)
    for i in range(1, count - 1):
        matrix[i, i - 1 : i + 2] = h[i - 1], 2 * (h[i - 1] + h[i]), h[i]
        right[i] = 6 * (slope[i] - slope[i - 1])
    matrix[0, :2], matrix[-1, -2:] = (-1, 1), (-1, 1)
    if count > 3:
        right[0], right[-1] = h[0] * _third(x[:4], y[:4]), h[-1] * _third(x[-4:], y[-4:])
    return _pieces(x, y, np.linalg.solve(matrix, right), beyond=True)


def _points(x: Points, y: Points) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    one, other = np.asarray(x, float), np.asarray(y, float)
    if one.shape != other.shape or one.ndim != 1 or len(one) < 2 or not (np.diff(one) > 0).all():
        raise InputError(f"a function through {one.size} and {other.size} numbers; two or more points of growing x are wanted")
    if not np.isfinite(one).all() or not np.isfinite(other).all():
        raise InputError("a function through points that are not finite")
    return one, other


def _third(x: np.ndarray, y: np.ndarray) -> float:
    """Third derivative of the cubic through four points."""
    for order in range(1, 4):
        y = np.diff(y) / (x[order:] - x[:-order])
    return 6 * float(y[0])


def _pieces(x: NDArray[np.float64], y: NDArray[np.float64], bend: NDArray[np.floating], beyond: bool) -> Curve:
    """Cubic pieces from values and second derivatives at knots, with straight ones before and after."""
    h = np.diff(x)
    slope = np.diff(y) / h - h * (2 * bend[:-1] + bend[1:]) / 6
    rows = np.stack([y[:-1], slope, bend[:-1] / 2, np.diff(bend) / (6 * h)], -1)
    if not beyond:
        return Curve(tuple(x[1:-1].tolist()), tuple(x[:-1].tolist()), tuple(map(tuple, rows.tolist())))
    last = slope[-1] + h[-1] * (bend[-2] + bend[-1]) / 2
    before, after = (y[0], slope[0], 0.0, 0.0), (y[-1], last, 0.0, 0.0)
    pieces = [before, *rows.tolist(), after]
    return Curve(tuple(x.tolist()), (float(x[0]), *x.tolist()), tuple(tuple(map(float, p)) for p in pieces))


@dataclass(frozen=True)
class Curves:
    """n functions, each of one of m variables, on one device.

    Attributes:
        source: index of each one's variable, (n,).
        edges: where its pieces meet, (n, p - 1), filled up with infinity; ``origins``: (n, p); ``coefficients``: (n, p, d).
    """

    source: Int[Tensor, " n"]
    edges: Float[Tensor, "n e"]
    origins: Float[Tensor, "n p"]
    coefficients: Float[Tensor, "n p d"]

    def __call__(self, x: Float[Tensor, "*batch m"]) -> tuple[Tensor, Tensor, Tensor]:
        """Return value, slope and second derivative, (*batch, n) each."""
        own = x[..., self.source]
        piece = (own[..., None] >= self.edges).sum(-1)
        row = torch.arange(len(self.source), device=x.device)
        away = own - self.origins[row, piece]
        parts = self.coefficients[row, piece]
        value, slope, bend = (torch.zeros_like(own) for _ in range(3))
        for part in parts.unbind(-1)[::-1]:
            bend = bend * away + 2 * slope
            slope = slope * away + value
            value = value * away + part
        return value, slope, bend

    def to(self, *where: torch.device | torch.dtype | str) -> Curves:
        """Return the functions on a device, or in a dtype."""
        moved = {name: getattr(self, name).to(*where) for name in ("edges", "origins", "coefficients")}
        return replace(self, source=self.source.to(moved["edges"].device), **moved)


def curves(sources: Sequence[int], functions: Sequence[Curve]) -> Curves:
    """Return functions of the variables with these indices, in float64."""
    pieces = max((len(f.origins) for f in functions), default=1)
    degree = max((len(c) for f in functions for c in f.coefficients), default=1)
    edges = torch.full((len(functions), pieces - 1), torch.inf, dtype=torch.float64)
    origins = torch.zeros(len(functions), pieces, dtype=torch.float64)
    coefficients = torch.zeros(len(functions), pieces, degree, dtype=torch.float64)
    for i, f in enumerate(functions):
        edges[i, : len(f.edges)] = torch.tensor(f.edges, dtype=torch.float64)
        origins[i, : len(f.origins)] = torch.tensor(f.origins, dtype=torch.float64)
        for k, piece in enumerate(f.coefficients):
            coefficients[i, k, : len(piece)] = torch.tensor(piece, dtype=torch.float64)
    return Curves(torch.tensor(list(sources), dtype=torch.long), edges, origins, coefficients)
