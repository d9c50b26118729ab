"""How a residual stream moves from layer to layer: a layer's output read as a gradient, depth as the time of an optimizer.

Sparse mixtures add their experts' output to the stream, ``x <- x - f(x)``: gradient descent. MomentumSMoE (arXiv 2410.14574)
lets the step remember the layers before, per token and from zero in every forward pass:

- heavy ball: ``m <- mu m + gamma f(x)``, ``x <- x - m`` (paper and released code);
- Adam: ``p <- b1 p + (1 - b1) f``, ``v <- b2 v + (1 - b2) f^2``, ``x <- x - gamma p / sqrt(v + eps) - decay x``, no bias
  correction (the released code has decay 1, so its residual cancels, and uses Adam in the first layer only);
- robust momentum (Cyrus, Hu, Van Scoy, Lessard 2018; named by the paper, absent from its code):
  ``y = x + c (x - x_before)``, ``x <- x + b (x - x_before) - a f(y)``.

Example::

    dynamics = HeavyBall(momentum=0.7)
    state = dynamics.start(x)
    for layer in layers:
        x, state = dynamics(x, layer, state)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from visviva.errors import InputError

State = tuple[Tensor, ...]
Layer = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Descent:
    """No memory: ``x - step f(x)``, what a plain sparse mixture does."""

    step: float = 1.0

    def start(self, x: Tensor) -> State:
        """Return what is remembered before the first layer: nothing."""
        return ()

    def __call__(self, x: Tensor, layer: Layer, state: State) -> tuple[Tensor, State]:
        """Return the stream after a layer, and what is remembered."""
        return x - self.step * layer(x), state


@dataclass(frozen=True)
class HeavyBall:
    """MomentumSMoE: ``m <- momentum m + step f(x)``, ``x <- x - m``.

    Over a quadratic of curvature l it is stable for ``0 < step l < 2 (1 + momentum)``, where plain descent ends at 2.

    Raises:
        InputError: momentum outside [0, 1).
    """

    momentum: float = 0.7
    step: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what never forgets."""
        if not 0 <= self.momentum < 1:
            raise InputError(f"momentum {self.momentum} of experts; give a number in [0, 1)")

    def start(self, x: Tensor) -> State:
        """Return what is remembered before the first layer: rest."""
        return (torch.zeros_like(x),)

    def __call__(self, x: Tensor, layer: Layer, state: State) -> tuple[Tensor, State]:
        """Return the stream after a layer, and its momentum."""
        m = self.momentum * state[0] + self.step * layer(x)
        return x - m, (m,)


@dataclass(frozen=True)
class AdamDynamics:
    """AdamSMoE: steps divided by the root mean square of what the layers gave, without bias correction.

    ``decay`` 1 is the released code, whose residual cancels; 0 keeps the residual.
    """

    step: float = 0.8
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    decay: float = 1.0

    def start(self, x: Tensor) -> State:
        """Return both averages before the first layer: zero."""
        return torch.zeros_like(x), torch.zeros_like(x)

    def __call__(self, x: Tensor, layer: Layer, state: State) -> tuple[Tensor, State]:
        """Return the stream after a layer, and its averages."""
        f, (p, v) = layer(x), state
        p = self.betas[0] * p + (1 - self.betas[0]) * f
        v = self.betas[1] * v + (1 - self.betas[1]) * f.square()
        return x - self.step * p / (v + self.eps).sqrt() - self.decay * x, (p, v)


@dataclass(frozen=True)
class RobustMomentum:
    """The robust momentum method for curvatures between ``smallest`` and ``largest``, contracting by ``rate`` per layer.

    With k = largest / smallest and r = rate in [1 - 1 / sqrt(k), 1 - 1 / k]: ``a = k (1 - r)^2 (1 + r) / largest``,
    ``b = k r^3 / (k - 1)``, ``c = r^3 / ((k - 1) (1 - r)^2 (1 + r))``. The lower end is fastest, the upper gradient descent.

    Raises:
        InputError: curvatures that are not 0 < smallest < largest, or a rate outside its interval.
    """

    smallest: float = 0.1
    largest: float = 1.0
    rate: float | None = None

    def __post_init__(self) -> None:
        """Refuse what does not contract."""
        if not 0 < self.smallest < self.largest:
            raise InputError(f"curvatures {self.smallest} and {self.largest}; give 0 < smallest < largest")
        k = self.largest / self.smallest
        low, high = 1 - k**-0.5, 1 - 1 / k
        if self.rate is not None and not low - 1e-12 <= self.rate <= high + 1e-12:
            raise InputError(f"rate {self.rate} of robust momentum; between {low:.4g} and {high:.4g} at these curvatures")

    @property
    def constants(self) -> tuple[float, float, float]:
        """The step a, the momentum b and how far ahead the layer looks, c."""
        k = self.largest / self.smallest
        r = 1 - k**-0.5 if self.rate is None else self.rate
        return (
            k * (1 - r) ** 2 * (1 + r) / self.largest,
            k * r**3 / (k - 1),
            r**3 / ((k - 1) * (1 - r) ** 2 * (1 + r)),
        )

    def start(self, x: Tensor) -> State:
        """Return the stream one layer earlier: the same."""
        return (x,)

    def __call__(self, x: Tensor, layer: Layer, state: State) -> tuple[Tensor, State]:
        """Return the stream after a layer, and the stream before it."""
        a, b, c = self.constants
        moved = x - state[0]
        return x + b * moved - a * layer(x + c * moved), (x,)
