"""Learning rates as a function of batch size (Granziol, Zohren & Roberts, arXiv 2006.09092, JMLR 2022).

With the batch the largest stable rate grows: linearly for SGD, as the square root for adaptive methods (primary: the paper's
abstract). The mechanism here is a reconstruction (spiked random matrices) that agrees with simulation: a batch's Hessian is
that of the data plus noise, P parameters, variance ``sigma^2 / b`` per entry, and its largest eigenvalue is

    ``lam + P sigma^2 / (b lam)``   where ``lam > sigma sqrt(P / b)``,   else the edge of the noise ``2 sigma sqrt(P / b)``,

with ``b = B``, or ``B / (1 - B/N)`` for batches of B drawn without replacement from N. SGD is stable up to 2 over that.
"""

from __future__ import annotations

import math
from typing import Literal

from visviva.errors import InputError
from visviva.optim.transform import check

Kind = Literal["linear", "sqrt"]


def scale_lr(base_lr: float, base_batch: int, batch: int, kind: Kind = "linear") -> float:
    """Return the rate for another batch size: ``base_lr (batch / base_batch)``, or its square root.

    Args:
        base_lr, base_batch: rate and batch size that are known to work.
        batch: the new batch size (all processes and accumulated passes together).
        kind: ``linear`` for SGD with or without momentum, ``sqrt`` for adaptive methods (Adam and its kin).

    >>> scale_lr(1e-3, 64, 256), scale_lr(1e-3, 64, 256, "sqrt")
    (0.004, 0.002)
    """
    check("scale_lr: base_lr", base_lr, 0.0, math.inf)
    if base_batch < 1 or batch < 1:
        raise InputError(f"scale_lr: base_batch is {base_batch}, batch {batch}; allowed are whole numbers from 1 on")
    if kind not in ("linear", "sqrt"):
        raise InputError(f"scale_lr: kind is {kind!r}; allowed are linear (SGD) and sqrt (adaptive methods)")
    return base_lr * (batch / base_batch) ** (1.0 if kind == "linear" else 0.5)


def effective_batch(batch: int, samples: int | None = None) -> float:
    """Return b: the batch size, or ``B / (1 - B/N)`` for batches without replacement from N samples (infinite for all of them).

    >>> effective_batch(50, 100)
    100.0
    """
    if batch < 1 or (samples is not None and samples < batch):
        raise InputError(f"a batch of {batch} of {samples} samples; allowed is 1 up to the number of samples")
    if samples is None:
        return float(batch)
    return math.inf if batch == samples else batch / (1 - batch / samples)


def batch_edge(top: float, sigma: float, parameters: int, batch: int, samples: int | None = None) -> float:
    """Return the largest eigenvalue of a batch's Hessian.

    Args:
        top: largest eigenvalue of the whole data's Hessian.
        sigma: standard deviation of an entry of one sample's Hessian.
        parameters: P.
        batch, samples: B, and N where batches are drawn without replacement.

    >>> round(batch_edge(1.0, 1 / 8, 600, 16), 3)
    1.586
    """
    check("batch_edge: top", top, 0.0, math.inf)
    check("batch_edge: sigma", sigma, 0.0, math.inf)
    if parameters < 1:
        raise InputError(f"batch_edge: parameters is {parameters}; allowed is a whole number from 1 on")
    noise = sigma**2 * parameters / effective_batch(batch, samples)
    return top + noise / top if top > math.sqrt(noise) else 2 * math.sqrt(noise)


def largest_rate(top: float, sigma: float, parameters: int, batch: int, samples: int | None = None) -> float:
    """Return the rate up to which plain SGD is stable on batches, ``2 / batch_edge``.

    Linear in the batch while the noise term dominates, saturating at ``2 / top``; infinite without any curvature.

    >>> round(largest_rate(1.0, 0.0, 600, 16), 3)
    2.0
    """
    edge = batch_edge(top, sigma, parameters, batch, samples)
    return 2 / edge if edge > 0 else math.inf
