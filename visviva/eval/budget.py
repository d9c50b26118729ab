"""Budgets of uncertainty: parts that do not depend on each other, as standard errors, and the interval that they make."""

from __future__ import annotations

import math
from collections.abc import Iterable


def half_width(parts: Iterable[float], level: float) -> float:
    """Return half the width of the interval at ``level``: the parts in quadrature, times the normal quantile.

    Example::

        half_width([0.03, 0.04], 0.95)  # 0.098
    """
    from scipy.stats import norm

    return float(norm.ppf((1 + level) / 2)) * math.sqrt(sum(part**2 for part in parts))
