"""A measured number that says what it is: unit, direction, time base, normalising length, and how much of the clip it used."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Score:
    """One metric of one clip, or of many.

    Attributes:
        name: the metric.
        value: the number; NaN where nothing could be scored (never dropped silently: ``used`` is then 0).
        unit: its unit; lengths divided by the image height carry the unit ``H``.
        lower_is_better: the direction.
        used, asked: frames (or clips) the number was taken from, and frames (or clips) there were.
        fps: frames per second the number was taken at; None if it does not depend on it.
        length: the normalising length [px]; None if the number is not normalised.
        low, high: interval of the value (95 % unless a note says otherwise); None where there is none.
        note: what a reader must know: a convention, a reconstruction, a reason.
    """

    name: str
    value: float
    unit: str
    lower_is_better: bool = True
    used: int = 0
    asked: int = 0
    fps: float | None = None
    length: float | None = None
    low: float | None = None
    high: float | None = None
    note: str = ""

    @property
    def share(self) -> float:
        """Share of the asked frames (or clips) that were used; 0 if none was asked."""
        return self.used / self.asked if self.asked else 0.0

    def with_(self, **changes: Any) -> Score:
        """Return a copy with some attributes replaced."""
        return replace(self, **changes)

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary; numbers that are not finite become None (JSON has none)."""
        return {k: finite(v) for k, v in asdict(self).items()} | {"share": self.share}


def finite(value: Any) -> Any:
    """Return the value with every float that is not finite replaced by None, through lists and dictionaries."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return value


def known_mean(values: Iterable[float]) -> float:
    """Return the mean of the values that are finite; NaN where none is."""
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan
