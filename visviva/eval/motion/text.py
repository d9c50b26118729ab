"""Sets of generated motions against real ones and against their texts, in an evaluator's embeddings.

FID, R-precision, MM-Dist, Diversity and MultiModality of HumanML3D (Guo et al., CVPR 2022; card: evaluation, C1). The formulas
are exact; the numbers belong to the evaluator that made the embeddings: name it with every number. One trained on simulated
actions is shipped (`visviva.models.motion.evaluator`).

    FID            Fréchet distance of the motions' embeddings, unbiased covariances
    R-precision    share of texts whose motion is among the k nearest of 32 (itself and 31 others), Euclidean
    MM-Dist        mean distance of text and motion
    Diversity      mean distance of two random draws without replacement (a pair may be a motion with itself)
    MultiModality  mean distance of random pairs of motions of one text, the same pairs for all texts
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError
from visviva.eval.benchmarks.frechet import Moments, frechet

BATCH = 32


def fid(generated: Float[Tensor, "N D"], real: Float[Tensor, "M D"]) -> float:
    """Return the Fréchet distance of two sets of embeddings; lower is better, 0 for sets of equal mean and covariance."""
    return frechet(Moments.of(real), Moments.of(generated))


def r_precision(
    text: Float[Tensor, "N D"], motion: Float[Tensor, "N D"], top: int = 3, batch: int = BATCH
) -> Float[Tensor, "top"]:
    """Return the R-precision at 1 to ``top``, mean over whole batches of ``batch`` pairs; an incomplete last batch is dropped.

    Any other batch than 32 gives other numbers. Motions as near as the true one count as nearer, so that embeddings which do
    not tell motions apart score 0 (published code takes the order of a sort).

    Raises:
        InputError: sets of different sizes, or smaller than a batch.
    """
    _paired(text, motion)
    count = len(text) // batch
    if not count:
        raise InputError(f"{len(text)} pairs of text and motion; R-precision needs batches of {batch}")
    distance = torch.cdist(*(x[: count * batch].double().unflatten(0, (count, batch)) for x in (text, motion)))
    own = distance.diagonal(dim1=-2, dim2=-1)
    rank = (distance <= own[..., None]).sum(-1) - 1
    return torch.stack([(rank < k).double().mean() for k in range(1, top + 1)]).to(text.dtype)


def mm_dist(text: Float[Tensor, "N D"], motion: Float[Tensor, "N D"]) -> float:
    """Return the mean distance of each text and its motion; lower is better."""
    _paired(text, motion)
    return float((text.double() - motion.double()).norm(dim=-1).mean())


def diversity(motion: Float[Tensor, "N D"], pairs: int = 300, seed: int = 0) -> float:
    """Return the mean distance of ``pairs`` random pairs; near the real set's value is better.

    Raises:
        InputError: fewer than ``pairs`` motions.
    """
    if len(motion) < pairs:
        raise InputError(f"{len(motion)} motions; Diversity draws {pairs} of them twice (give pairs={len(motion)} or fewer)")
    g = torch.Generator().manual_seed(seed)
    one, two = (torch.randperm(len(motion), generator=g)[:pairs].to(motion.device) for _ in range(2))
    return float((motion[one].double() - motion[two].double()).norm(dim=-1).mean())


def multimodality(motion: Float[Tensor, "P S D"], pairs: int = 10, seed: int = 0) -> float:
    """Return the mean distance of ``pairs`` random pairs among the S motions of each of P texts.

    Raises:
        InputError: fewer than ``pairs`` motions of a text.
    """
    if motion.shape[1] < pairs:
        raise InputError(f"{motion.shape[1]} motions per text; MultiModality draws {pairs} of them twice")
    g = torch.Generator().manual_seed(seed)
    one, two = (torch.randperm(motion.shape[1], generator=g)[:pairs].to(motion.device) for _ in range(2))
    return float((motion[:, one].double() - motion[:, two].double()).norm(dim=-1).mean())


def replicated(metric: Callable[[int], float], times: int = 20) -> tuple[float, float]:
    """Return the mean of ``metric(seed)`` over seeds 0, 1, ... and its half interval, 1.96 population std / sqrt(times)."""
    values = torch.tensor([metric(seed) for seed in range(times)], dtype=torch.float64)
    return float(values.mean()), float(1.96 * values.std(correction=0) / times**0.5)


def _paired(text: Tensor, motion: Tensor) -> None:
    if text.shape != motion.shape or not bool(text.isfinite().all() & motion.isfinite().all()):
        raise InputError(
            f"embeddings of texts {tuple(text.shape)} and motions {tuple(motion.shape)}; finite ones of equal shape are wanted"
        )
