"""Intervals and comparisons that do not flatter: bootstrap over source scenes, paired between runs, seeds explicit.

Samples that share a source scene (several seeds, several models, several crops of one scene) are not independent, so whole
scenes are resampled (clustered bootstrap). Intervals are expanded percentile intervals (Hesterberg, arXiv 1411.5279): the
percentile levels are widened to ``Phi(sqrt(n/(n-1)) t_{n-1}(alpha/2))``, which mends the shortness of percentile intervals for
few scenes. Percentiles cannot leave the range of the data, so below ten scenes a t interval with the bootstrap standard error
stands instead.

With training seeds given, an interval speaks about a new training run, not only about new clips: the variance over scenes and
the variance over seeds (each resampled alone, times n/(n-1)) add up, and a t interval takes their Welch-Satterthwaite degrees
of freedom, so that three seeds that disagree give an honestly wide interval. Sample noise enters both terms: slightly
conservative.

Everything is deterministic given ``seed``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from visviva.errors import InputError

Labels = Sequence[object] | NDArray


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval.

    Attributes:
        value: the estimate on the data as they are.
        low, high: the interval; NaN with fewer than two clusters, or where a relative change of a metric that is zero has none.
        level: its confidence level.
        n: samples; clusters: independent groups (scenes) they come from.
        p: two-sided bootstrap p-value of "the true value is 0"; NaN where it makes no sense.
    """

    value: float
    low: float
    high: float
    level: float
    n: int
    clusters: int
    p: float = math.nan

    @property
    def significant(self) -> bool:
        """Whether the interval excludes 0; False where there is no interval."""
        return bool(self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Comparison:
    """A metric of two runs on the same scenes.

    Attributes:
        metric: name; lower_is_better: direction.
        before, after: intervals of the two means.
        difference: after - before, paired.
        improvement: relative improvement [1], positive is better: ``(before - after) / before`` of the means (sign turned
            for metrics where higher is better).
    """

    metric: str
    lower_is_better: bool
    before: Interval
    after: Interval
    difference: Interval
    improvement: Interval

    @property
    def verdict(self) -> str:
        """Return ``better``, ``worse`` or ``no significant difference``: what the paired interval of the difference allows."""
        if not self.difference.significant:
            return "no significant difference"
        return "better" if (self.difference.value < 0) == self.lower_is_better else "worse"


def bootstrap_mean(
    values: ArrayLike, clusters: Labels | None = None, *, resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Return the mean of the values with its clustered bootstrap interval.

    Args:
        values: one number per sample, shape (n,), finite.
        clusters: the source scene of each sample; None: every sample is its own scene.

    Example::

        bootstrap_mean([0.1, 0.3, 0.2, 0.2], clusters=["a", "a", "b", "c"]).high
    """
    data = _finite(values, "values")
    resampled = _resample(len(data), clusters, None, resamples, seed)
    return _interval(data.mean(), [_means(w, data) for w in resampled.weights], resampled, level)


def bootstrap(
    statistic: Callable[[NDArray], NDArray],
    samples: int,
    clusters: Labels | None = None,
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Return any statistic of the samples with its clustered bootstrap interval, for those that are no plain mean.

    Args:
        statistic: takes how often each sample enters, (resamples, samples), and returns one value per resample.
        samples: how many there are; clusters: the source scene of each.

    Example::

        ratio = bootstrap(lambda w: (w @ a) / (w @ b), len(a))
    """
    if samples < 1:
        raise InputError("there is no sample to take statistics of")
    resampled = _resample(samples, clusters, None, resamples, seed)
    value = np.asarray(statistic(np.ones((1, samples))))[0]
    return _interval(value, [np.asarray(statistic(w)) for w in resampled.weights], resampled, level)


def paired_bootstrap(
    before: ArrayLike,
    after: ArrayLike,
    clusters: Labels | None = None,
    seeds: Labels | None = None,
    *,
    metric: str = "value",
    lower_is_better: bool = True,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Comparison:
    """Compare two runs sample by sample: the same resampled scenes (and training seeds) enter both means.

    Args:
        before, after: the metric of each sample under each run, shape (n,), finite, in the same order.
        clusters: source scene per sample.
        seeds: training seed per sample; given, seeds are resampled too and the interval covers a new training run.
    """
    a, b = _finite(before, "before"), _finite(after, "after")
    if a.shape != b.shape:
        raise InputError(f"a paired comparison needs equally many samples, not {len(a)} and {len(b)}; pair them by scene first")
    resampled = _resample(len(a), clusters, seeds, resamples, seed)
    means = [(_means(w, a), _means(w, b)) for w in resampled.weights]
    change = _relative(a.mean(), b.mean(), lower_is_better)
    return Comparison(
        metric,
        lower_is_better,
        _interval(a.mean(), [x for x, _ in means], resampled, level),
        _interval(b.mean(), [y for _, y in means], resampled, level),
        _interval(b.mean() - a.mean(), [y - x for x, y in means], resampled, level),
        _interval(change, [_relative(x, y, lower_is_better) for x, y in means], resampled, level),
    )


def average_relative_improvement(
    before: Mapping[str, ArrayLike],
    after: Mapping[str, ArrayLike],
    lower_is_better: Mapping[str, bool],
    clusters: Labels | None = None,
    seeds: Labels | None = None,
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Return the mean over metrics of the relative improvement of the metric's mean [1], with its paired interval.

    The number of NewtonRewards' bar chart (arXiv 2512.00425; how the paper averages over clips is not published, so taking
    the ratio of means, not the mean of ratios, is a reconstruction). One resampling of scenes serves all metrics, so their
    correlation is respected.
    """
    if not before or set(before) != set(after):
        raise InputError(f"both runs must hold the same metrics, not {sorted(before)} and {sorted(after)}")
    pairs = {m: (_finite(before[m], m), _finite(after[m], m)) for m in before}
    n = len(next(iter(pairs.values()))[0])
    if any(len(x) != n for pair in pairs.values() for x in pair):
        raise InputError("every metric must have one value per sample, in the same order")
    resampled = _resample(n, clusters, seeds, resamples, seed)
    value = np.mean([_relative(a.mean(), b.mean(), lower_is_better[m]) for m, (a, b) in pairs.items()])
    draws = [
        np.mean([_relative(_means(w, a), _means(w, b), lower_is_better[m]) for m, (a, b) in pairs.items()], axis=0)
        for w in resampled.weights
    ]
    return _interval(value, draws, resampled, level)


def _relative(before: Any, after: Any, lower_is_better: bool) -> Any:
    with np.errstate(divide="ignore", invalid="ignore"):
        change = np.where(before == after, 0.0, np.divide(np.subtract(before, after), np.abs(before)))
    return change if lower_is_better else -change


def _finite(values: ArrayLike, name: str) -> NDArray[np.float64]:
    data = np.asarray(values, dtype=np.float64).reshape(-1)
    if len(data) == 0:
        raise InputError(f"{name}: there is no sample to take statistics of")
    if not np.isfinite(data).all():
        bad = int((~np.isfinite(data)).sum())
        raise InputError(
            f"{name}: {bad} of {len(data)} samples are not finite; score failed clips with their penalty, do not drop them"
        )
    return data


@dataclass(frozen=True)
class _Resampled:
    """How often each sample enters each resample, (resamples, n), per way of resampling (scenes; seeds), and its group
    counts."""

    weights: list[NDArray]
    groups: list[int]
    n: int


def _resample(n: int, clusters: Labels | None, seeds: Labels | None, resamples: int, seed: int) -> _Resampled:
    random = np.random.default_rng(seed)
    ways = [_codes(clusters, n, "clusters")]
    if seeds is not None and len(set(seeds)) > 1:
        ways.append(_codes(seeds, n, "seeds"))
    weights = [random.multinomial(m, np.full(m, 1 / m), size=resamples)[:, codes].astype(np.float64) for codes, m in ways]
    return _Resampled(weights, [m for _, m in ways], n)


def _codes(labels: Labels | None, n: int, name: str) -> tuple[NDArray, int]:
    if labels is None:
        return np.arange(n), n
    if len(labels) != n:
        raise InputError(f"{name}: {len(labels)} labels for {n} samples; give one per sample")
    order: dict[object, int] = {}
    codes = np.array([order.setdefault(label, len(order)) for label in labels])
    return codes, len(order)


def _means(weights: NDArray, data: NDArray) -> NDArray:
    return weights @ data / weights.sum(1)


def _interval(value: Any, draws: list[NDArray], resampled: _Resampled, level: float) -> Interval:
    from scipy.stats import norm, t

    value, n, scenes = float(value), resampled.n, resampled.groups[0]
    if min(resampled.groups) < 2 or not all(np.isfinite(d).all() for d in draws):
        return Interval(value, math.nan, math.nan, level, n, scenes)
    if len(draws) == 1 and scenes >= 10:
        tail = norm.cdf(math.sqrt(scenes / (scenes - 1)) * t.ppf((1 - level) / 2, scenes - 1))
        low, high = np.quantile(draws[0], [tail, 1 - tail])
        beyond = max(1 / (len(draws[0]) + 1), min((draws[0] <= 0).mean(), (draws[0] >= 0).mean()))
        return Interval(value, float(low), float(high), level, n, scenes, float(min(1.0, 2 * beyond)))
    variances = [float(d.var()) * m / (m - 1) for d, m in zip(draws, resampled.groups, strict=True)]
    total = max(sum(variances), 1e-300)
    freedom = total**2 / max(sum(v**2 / (m - 1) for v, m in zip(variances, resampled.groups, strict=True)), 1e-300)
    half = float(t.ppf((1 + level) / 2, max(freedom, 1.0))) * math.sqrt(total) if any(variances) else 0.0
    p = 2 * float(t.sf(abs(value) / math.sqrt(total), max(freedom, 1.0)))
    return Interval(value, value - half, value + half, level, n, scenes, p)
