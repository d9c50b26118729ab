"""Sees a run collapse: clips that freeze or lose their object earn every smoothness reward.

The measure is paired: the trained model's clip against the frozen base's clip from the same noise and conditions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from visviva.errors import InputError


class Collapse(InputError):
    """Training was stopped because the clips froze or their object vanished; checkpoints are kept. Exit status 3."""

    exit_status = 3


class Monitor:
    """Counts checks in a row in which a quantity lies below a fraction of the base's.

    Args:
        least: smallest allowed ratio per quantity, for example ``{"motion_energy": 0.3}``.
        patience: checks in a row beyond a limit that mean collapse.
        most: largest allowed ratio per quantity, for example ``{"disagreement": 4.0}``; 0 does not judge it.

    Example::

        monitor = Monitor({"motion_energy": 0.3}, patience=3)
        monitor.check({"motion_energy": 0.02}, {"motion_energy": 1.1})
        monitor.stop(update=10)   # raises Collapse after three such checks in a row
    """

    def __init__(self, least: Mapping[str, float], patience: int, most: Mapping[str, float] | None = None) -> None:
        self.least = dict(least)
        self.most = {name: limit for name, limit in (most or {}).items() if limit > 0}
        self.patience = patience
        self.beyond = dict.fromkeys([*self.least, *self.most], 0)

    def check(self, now: Mapping[str, float], base: Mapping[str, float]) -> dict[str, float]:
        """Return the ratio of each quantity to the base's and count those beyond a limit; `stop` judges the counts.

        A quantity that was not measured, or that the base itself lacks, is not judged.
        """
        ratios: dict[str, float] = {}
        for name in self.beyond:
            value, reference = now.get(name, math.nan), base.get(name, math.nan)
            if not (math.isfinite(value) and math.isfinite(reference) and reference > 0):
                continue
            ratios[name] = value / reference
            low, high = self.least.get(name, -math.inf), self.most.get(name, math.inf)
            self.beyond[name] = 0 if low <= ratios[name] <= high else self.beyond[name] + 1
        return ratios

    def stop(self, update: int) -> None:
        """Raise `Collapse` if a quantity has been beyond its limit in ``patience`` checks in a row."""
        for name, count in self.beyond.items():
            if count < self.patience:
                continue
            low = name in self.least
            limit = f"below {self.least[name]:.0%}" if low else f"above {self.most[name]:.0%}"
            reason = "doing nothing" if low else "fooling the flow probe (another probe does not see what it sees)"
            raise Collapse(
                f"stopped at update {update}: the clips' {name.replace('_', ' ')} was {limit} of the base model's in {count} "
                f"checks in a row (monitor); the reward is won by {reason}: strengthen the anchor (mass_conservation, "
                "motion_floor) or lower optimizer.lr, and start again in another output; the checkpoints of this run are kept"
            )
