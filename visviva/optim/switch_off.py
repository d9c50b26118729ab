"""When a second-order method has done its part: the criterion of MKOR-H."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from visviva.errors import InputError
from visviva.optim.transform import check


@dataclass
class SwitchOff:
    """Off for good when the loss falls too slowly.

    Per refresh of the factors, ``r = (previous - loss) / |previous|`` with the mean losses between refreshes,
    ``d <- beta d + (1 - beta) r`` (bias-corrected); off once ``d < fraction * max d`` for ``patience`` refreshes in turn.
    Evidence: the paper (arXiv 2306.01685) names the idea; this formula is reconstructed.

    Example::

        off = SwitchOff()
        for mean in (1.0, 0.5, 0.25, 0.2499, 0.2498, 0.2497):
            if off(mean): ...
    """

    beta: float = 0.9
    fraction: float = 0.1
    patience: int = 3
    average: float = 0.0
    count: int = 0
    best: float = 0.0
    slow: int = 0
    previous: float | None = None
    off: bool = False

    def __post_init__(self) -> None:
        check("SwitchOff.beta", self.beta, 0.0, 1.0)
        check("SwitchOff.fraction", self.fraction, 0.0, 1.0)
        if self.patience < 1:
            raise InputError(f"SwitchOff.patience is {self.patience!r}; allowed is a whole number of refreshes from 1 on")

    def __call__(self, loss: float) -> bool:
        """Take in the mean loss since the last refresh (unless it is not finite); return whether to switch off."""
        if self.off or not abs(loss) < float("inf"):
            return self.off
        if self.previous is not None:
            self._fell((self.previous - loss) / max(abs(self.previous), 1e-30))
        self.previous = loss
        return self.off

    def _fell(self, rate: float) -> None:
        self.count += 1
        self.average = self.beta * self.average + (1 - self.beta) * rate
        corrected = self.average / (1 - self.beta**self.count)
        self.best = max(self.best, corrected)
        self.slow = self.slow + 1 if corrected < self.fraction * self.best else 0
        self.off = self.slow >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """Return what the criterion has seen."""
        return {name: getattr(self, name) for name in ("average", "count", "best", "slow", "previous", "off")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        for name in ("average", "count", "best", "slow", "previous", "off"):
            setattr(self, name, state[name])
