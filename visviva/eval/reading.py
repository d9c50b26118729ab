"""Readings: what one law gave on true and on violated clips, and what is told from that: quantiles, AUC, the alarm.

The AUC is the probability that a violated clip has the larger residual. The alarm is a threshold set on perfect clips; how
often it rings is counted on others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.physics.laws import Residual

QUIET = 0.98
"""Quantile of a law's values on perfect physics at which its alarm threshold is set: expected to ring in 2 % of true clips."""

DRAWS = 200
"""Resamplings of the clips from which the 95 % interval of an AUC is taken."""


def auc(truth: Float[Tensor, " n"], violated: Float[Tensor, " m"]) -> float:
    """Return the probability that a violated clip has the larger residual than a true one; ties count half."""
    above = (violated[:, None] > truth[None]).double() + 0.5 * (violated[:, None] == truth[None]).double()
    return float(above.mean())


@dataclass(frozen=True)
class Reading:
    """Residuals of one law variant on true clips and on each violation of them, every one of shape (n,).

    A violation that does not apply to a clip, or changes nothing in it, is NaN there. ``kinds``: what kind of scene each clip
    is; ``valid``: to which true clips the law applied; ``judged``: to which violated ones; ``perfect``: residuals of other true
    clips, for the alarm alone, shape (m,). What the law did not judge has residual 0.
    """

    truth: Tensor
    violated: dict[str, Tensor]
    kinds: tuple[str, ...] = ()
    valid: Tensor | None = None
    perfect: Tensor | None = None
    judged: dict[str, Tensor] = field(default_factory=dict)

    def summary(self, declared: Sequence[str]) -> dict[str, Any]:
        """Return quantiles on perfect physics, the noise floor, the AUC table and the alarm, as plain numbers.

        Violations that change no clip are left out.
        """
        quantiles = torch.quantile(self.truth.double(), torch.tensor([0.5, 0.95, 1.0], dtype=torch.float64)).tolist()
        perfect = dict(zip(("median", "p95", "max"), (short(q) for q in quantiles), strict=True))
        changing = [name for name, values in self.violated.items() if not bool(values.isnan().all())]
        table = {name: {**self._told(name), "declared": name in declared} for name in changing}
        found: dict[str, Any] = {
            "perfect": perfect,
            "floor": perfect["p95"],
            "violations": table,
            "alarm": self.alarm(declared),
        }
        if self.valid is not None:
            found["applies"] = round(float(self.valid.double().mean()), 4)
        names = sorted(set(self.kinds))
        if len(names) > 1:
            found["kinds"] = {kind: self._kind(kind, declared) for kind in names}
        return found

    def _told(self, name: str) -> dict[str, Any]:
        there = ~self.violated[name].isnan()
        truth, values = self.truth[there], self.violated[name][there]
        paired = float((values > truth).double().mean())
        return {
            "auc": round(auc(truth, values), 4),
            "interval": interval(truth, values),
            "paired": round(paired, 4),
            "median": short(float(values.median())),
            **self._where_judged(name, there),
        }

    def _where_judged(self, name: str, there: Tensor) -> dict[str, Any]:
        """The AUC of the clips that the law judges, true and violated, and their share; nothing where it judges all."""
        if self.valid is None or name not in self.judged:
            return {}
        both = there & self.valid & self.judged[name]
        if bool(both[there].all()) or not bool(both.any()):
            return {}
        share = float(both.sum() / there.sum())
        return {"judged": round(share, 4), "judged_auc": round(auc(self.truth[both], self.violated[name][both]), 4)}

    def _kind(self, kind: str, declared: Sequence[str]) -> dict[str, Any]:
        mine = torch.tensor([name == kind for name in self.kinds])
        part = Reading(self.truth[mine], {n: v[mine] for n, v in self.violated.items() if not bool(v[mine].isnan().all())})
        areas = {name: part._told(name)["auc"] for name in part.violated if name in declared}
        return {"clips": int(mine.sum()), "p95": short(float(part.truth.double().quantile(0.95))), "auc": areas}

    def alarm(self, declared: Sequence[str]) -> dict[str, Any]:
        """Return a threshold set on perfect clips of their own, how often it rings on true clips, and on violated ones.

        ``threshold``: the `QUIET` quantile of the values of the ``perfect`` clips, ``set_on`` so many. ``false_alarms``: share
        of the true ``clips`` above it, with its 95 % Wilson interval; ``detected``: share of each violation's clips above it.
        Without ``perfect`` clips it is set on the true clips with even number and tried on those with odd number.
        """
        apart = self.perfect is not None and len(self.perfect) > 1
        known = (self.perfect if apart and self.perfect is not None else self.truth[::2]).double()
        held = (self.truth if apart else self.truth[1::2]).double()
        threshold = float(torch.quantile(known, QUIET, interpolation="higher"))
        rings = int((held > threshold).sum())
        found = {}
        for name in declared:
            values = self.violated.get(name, torch.empty(0))[0 if apart else 1 :: 1 if apart else 2].double()
            values = values[~values.isnan()]
            if len(values):
                found[name] = round(float((values > threshold).double().mean()), 4)
        return {
            "threshold": short(threshold),
            "set_on": len(known),
            "clips": len(held),
            "false_alarms": round(rings / max(len(held), 1), 4),
            "interval": [round(x, 4) for x in wilson(rings, len(held))],
            "detected": found,
        }


def interval(truth: Tensor, violated: Tensor) -> list[float]:
    """Return the 95 % interval of the AUC over resampled clips, each with its violated twin; reproducible."""
    above = (violated[:, None] > truth[None]).double() + 0.5 * (violated[:, None] == truth[None]).double()
    count = len(truth)
    picks = torch.randint(count, (DRAWS, count), generator=torch.Generator().manual_seed(0))
    times = torch.zeros(DRAWS, count, dtype=torch.float64).scatter_add(1, picks, torch.ones(DRAWS, count, dtype=torch.float64))
    areas = torch.einsum("dv,vt,dt->d", times, above, times) / count**2
    return [round(x, 4) for x in torch.quantile(areas, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()]


def wilson(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """Return the 95 % interval of Wilson (1927) of a share; (0, 1) without trials."""
    if trials == 0:
        return 0.0, 1.0
    share, spread = successes / trials, z**2 / trials
    middle = (share + spread / 2) / (1 + spread)
    half = (spread * share * (1 - share) + spread**2 / 4) ** 0.5 / (1 + spread)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def short(number: float) -> float:
    """Return a number with four significant digits."""
    return float(f"{number:.4g}")


class Notes:
    """Residuals of one law as they come in, batch by batch: what is not written down for a batch is NaN there."""

    def __init__(self) -> None:
        self.kinds: list[str] = []
        self.values: dict[str, list[Tensor]] = {}
        self.valid: dict[str, list[Tensor]] = {}

    def take(self, name: str, kind: str, residual: Residual, broken: Tensor | None = None) -> None:
        """Write down a batch; the true clips (name "") come first. ``broken``: which clips the violation changed, (B,)."""
        if name == "":
            self.kinds += [kind] * len(residual.value)
        value = residual.value if broken is None else torch.where(broken, residual.value, float("nan"))
        for kept, now in ((self.values, value), (self.valid, residual.valid)):
            written = kept.setdefault(name, [])
            missing = len(self.kinds) - sum(map(len, written)) - len(now)
            kept[name] = [*written, now.new_full((missing,), float("nan") if kept is self.values else False), now]

    def reading(self) -> Reading:
        """Return all of it."""
        values = {name: self._joined(parts, float("nan")) for name, parts in self.values.items()}
        valid = {name: self._joined(parts, False) for name, parts in self.valid.items()}
        return Reading(values.pop(""), values, tuple(self.kinds), valid.pop(""), judged=valid)

    def _joined(self, parts: list[Tensor], filler: float | bool) -> Tensor:
        found = torch.cat(parts)
        return torch.cat([found, found.new_full((len(self.kinds) - len(found),), filler)])
