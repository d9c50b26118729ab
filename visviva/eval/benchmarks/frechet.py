"""Distances between two sets of clips by features: Fréchet (FVD, cd-FVD, VFID) and maximum mean discrepancy (JEDi).

    Fréchet = |mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1 S2)^{1/2})
    MMD^2   = mean k(x, x') + mean k(y, y') - 2 mean k(x, y)        (biased: the diagonal is kept)

FVD uses the unbiased covariance, cd-FVD divides by N (``unbiased=False``). JEDi's value is 100 MMD^2 with k = (x.y / D)^2,
for which mean k(x, y) = <E xx', E yy'> / D^2: it needs second moments only. So both distances follow from `Moments`, which
merge exactly over processes. Agrees with published code on golden numbers. Small samples are biased upwards, both; with fewer
clips than features the covariance is singular and a Fréchet distance means little (a note says so).

The formulas are exact; the features are those of whatever encoder is given, which nothing here holds against the published
extractors (I3D, VideoMAE v2 g, V-JEPA with a trained pooler). So the benchmark is *uncalibrated* with any of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from visviva.errors import InputError
from visviva.eval.benchmarks.encoders import called, clip_encoder
from visviva.eval.benchmarks.inputs import Inputs, failed, scene
from visviva.eval.benchmarks.result import UNCALIBRATED, ClipRow, Result, frame_change, motion_score
from visviva.eval.collection import Item, collect
from visviva.eval.score import Score

VERSION = "1"
STANDING = UNCALIBRATED
NEEDS = "--reference: a folder of real clips; --encoder: the folder of a local VideoMAE or V-JEPA 2"


@dataclass(frozen=True)
class Moments:
    """Count, mean (D,) and centred second moment (D, D) of features, float64: all that the distances need of a set."""

    count: int
    mean: Tensor
    scatter: Tensor

    @classmethod
    def of(cls, features: Float[Tensor, "N D"]) -> Moments:
        """Return the moments of a batch of features; those of no clip, (0, D), are a process's that has none.

        Raises:
            InputError: features that are not finite, or of another shape.
        """
        if features.ndim != 2 or features.shape[1] < 1 or not bool(features.isfinite().all()):
            raise InputError(f"features must be finite, (clips, dimensions), not {tuple(features.shape)}")
        x = features.detach().double()
        mean = x.sum(0) / max(1, len(x))
        return cls(len(x), mean, (x - mean).T @ (x - mean))

    def merged(self, other: Moments) -> Moments:
        """Return the moments of both sets together (Chan et al. 1979), without loss."""
        _alike(self, other)
        count = self.count + other.count
        if count == 0:
            return self
        apart = other.mean - self.mean
        mean = self.mean + apart * (other.count / count)
        shift = torch.outer(apart, apart) * (self.count * other.count / count)
        return Moments(count, mean, self.scatter + other.scatter + shift)

    def across(self, group: Any = None) -> Moments:
        """Return the moments of all processes' sets together; the same on every process. Without a process group, itself.

        Raises:
            InputError: on every process, where they hold features of different dimensions.
        """
        from torch import distributed

        if not (distributed.is_available() and distributed.is_initialized()):
            return self
        device = torch.device("cuda") if distributed.get_backend(group) == "nccl" else torch.device("cpu")

        def gathered(x: Tensor) -> list[Tensor]:
            parts = [torch.empty_like(x, device=device) for _ in range(distributed.get_world_size(group))]
            distributed.all_gather(parts, x.to(device), group=group)
            return [part.to(self.mean.device) for part in parts]

        size = len(self.mean)
        sizes = [int(n) for n in gathered(torch.tensor([size]))]
        if len(set(sizes)) > 1:
            raise InputError(f"the processes hold features of {sizes} dimensions; use one encoder on all of them")
        packed = torch.cat([self.mean.new_tensor([float(self.count)]), self.mean, self.scatter.flatten()])
        found = [Moments(int(p[0]), p[1 : 1 + size], p[1 + size :].view(size, size)) for p in gathered(packed)]
        return together(found)

    def covariance(self, unbiased: bool = True) -> Tensor:
        """Return the covariance (D, D)."""
        divisor = self.count - 1 if unbiased else self.count
        if divisor < 1:
            raise InputError(f"{self.count} clip(s) have no covariance; give at least two")
        return self.scatter / divisor

    @property
    def second(self) -> Tensor:
        """Mean of x x' (D, D), not centred."""
        if not self.count:
            raise InputError("no clip has no second moment; give at least one")
        return self.scatter / self.count + torch.outer(self.mean, self.mean)


def _alike(one: Moments, two: Moments) -> None:
    if one.mean.shape != two.mean.shape:
        raise InputError(
            f"features of {len(one.mean)} and {len(two.mean)} dimensions cannot be compared; use one encoder for both"
        )


def together(parts: Sequence[Moments]) -> Moments:
    """Return the moments of several sets together."""
    total = parts[0]
    for part in parts[1:]:
        total = total.merged(part)
    return total


def frechet(one: Moments, two: Moments, *, unbiased: bool = True) -> float:
    """Return the Fréchet distance of the two Gaussians with these moments; lower is better, 0 where they agree.

    Example::

        frechet(Moments.of(real), Moments.of(generated))
    """
    _alike(one, two)
    a, b = one.covariance(unbiased), two.covariance(unbiased)
    cross = torch.linalg.svdvals(_factor(a).T @ _factor(b)).sum()  # tr (A B)^1/2, without the root of a rounding error
    return float((one.mean - two.mean).square().sum() + a.trace() + b.trace() - 2 * cross)


def _factor(covariance: Tensor) -> Tensor:
    """Return F with F F' = covariance."""
    values, vectors = torch.linalg.eigh(covariance)
    return vectors * values.clamp(min=0).sqrt()


def jedi(one: Moments, two: Moments) -> float:
    """Return 100 MMD^2 with the kernel ``(x.y / D)^2``, from second moments; lower is better."""
    _alike(one, two)
    return float(100 * (one.second - two.second).square().sum() / len(one.mean) ** 2)


Kernel = Callable[[Tensor, Tensor], Tensor]


def polynomial(degree: int = 2, coef0: float = 0.0, gamma: float | None = None) -> Kernel:
    """Return the kernel ``(gamma x.y + coef0)^degree``; gamma defaults to 1 / D."""
    return lambda x, y: ((x @ y.T) * (1 / x.shape[1] if gamma is None else gamma) + coef0) ** degree


def radial(scale: float) -> Kernel:
    """Return the kernel ``exp(-|x - y|^2 / (2 scale^2))``."""
    return lambda x, y: torch.exp(-torch.cdist(x, y).square() / (2 * scale**2))


def mmd(x: Float[Tensor, "N D"], y: Float[Tensor, "M D"], kernel: Kernel, *, unbiased: bool = False) -> float:
    """Return MMD^2 of two sets; biased keeps the diagonal (published JEDi), unbiased leaves it out and may be negative."""
    x, y = x.double(), y.double()
    xx, yy, xy = kernel(x, x), kernel(y, y), kernel(x, y)
    if not unbiased:
        return float(xx.mean() + yy.mean() - 2 * xy.mean())
    inner = [(k.sum() - k.diagonal().sum()) / (len(k) * (len(k) - 1)) for k in (xx, yy)]
    return float(inner[0] + inner[1] - 2 * xy.mean())


def jackknife(
    statistic: Callable[[Moments, Moments], float], one: Tensor, two: Tensor, *, groups: int = 20, level: float = 0.95
) -> tuple[float, float] | None:
    """Return an interval of a distance by leaving out tenths or twentieths of each set in turn; None with too few clips.

    A bootstrap would repeat clips, and repeated clips push both distances up.
    """
    from scipy.stats import t

    value, variance, least = statistic(Moments.of(one), Moments.of(two)), 0.0, math.inf
    for sets, keep in (((one, two), 0), ((two, one), 1)):
        parts = [Moments.of(p) for p in sets[0].tensor_split(min(groups, len(sets[0])))]
        if len(parts) < 3:
            return None
        other = Moments.of(sets[1])
        left = [together(parts[:k] + parts[k + 1 :]) for k in range(len(parts))]
        if min(m.count for m in left) < 2:
            return None
        values = torch.tensor([statistic(m, other) if keep == 0 else statistic(other, m) for m in left], dtype=torch.float64)
        variance += float((len(values) - 1) * values.var(correction=0))
        least = min(least, len(values) - 1)
    half = float(t.ppf((1 + level) / 2, least)) * math.sqrt(variance)
    return value - half, value + half


def run(inputs: Inputs) -> Result:
    """Compare the clips with the real clips of ``inputs.reference`` as two sets."""
    reference = inputs.needed("reference", NEEDS)
    encoder = clip_encoder(inputs.encoder)
    real, sources = _encoded(collect([reference]), encoder, "real")
    generated, rows = _encoded(inputs.items(), encoder, "generated")
    if len(real) < 2 or len(generated) < 2:
        raise InputError(f"{len(generated)} clips against {len(real)} real ones that can be read; give at least two of each")
    used, asked, level = len(generated), len(rows), float(inputs.statistics.get("level", 0.95))
    notes, scores = _notes(encoder, len(real), used, real.shape[1]), []
    lost = [f"{r.key}: {r.failure}" for r in sources if r.failure]
    if lost:
        notes.append(f"{len(lost)} of {len(sources)} real clips cannot be read and are left out, {lost[0]}")
    for name, statistic, note in (
        ("frechet", frechet, f"unbiased covariance, features by {called(encoder)}"),
        ("jedi", jedi, f"100 MMD^2, kernel (x.y/D)^2, features by {called(encoder)}"),
    ):
        value = statistic(Moments.of(real), Moments.of(generated))
        low, high = jackknife(statistic, real, generated, level=level) or (None, None)
        if name == "frechet":  # a squared distance; the unbiased MMD may be below zero
            value, low = max(value, 0.0), None if low is None else max(low, 0.0)
        scores.append(Score(name, value, "1", True, used, asked, low=low, high=high, note=note))
    return Result("frechet", VERSION, STANDING, [*scores, motion_score(rows, inputs.statistics)], rows, {}, notes)


def _encoded(items: list[Item], encoder: Any, what: str) -> tuple[Tensor, list[ClipRow]]:
    features, rows = [], []
    for item in tqdm(items, desc=f"encode {what} clips"):
        try:
            frames = item.clip().frames
            features.append(encoder(frames[None])[0].detach().double().cpu())
            rows.append(ClipRow(item.key, scene(item), {}, frame_change(frames)))
        except InputError as error:
            rows.append(failed(item, error))
    return torch.stack(features) if features else torch.zeros(0, 1), rows


def _notes(encoder: Any, real: int, generated: int, size: int) -> list[str]:
    notes = [
        f"{generated} clips against {real} real ones, {size} features by {called(encoder)}; intervals leave out groups of clips"
    ]
    if min(real, generated) <= size:
        notes.append(f"fewer clips than features ({size}): covariances are singular and the Fréchet distance means little")
    if getattr(encoder, "stand_in", False):
        notes.append("the encoder is a stand-in without weights: compare runs only")
    return notes
