"""What a law is: measured quantities in, a residual per clip out. Lower is better; zero is perfect mechanics."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from visviva.errors import InputError
from visviva.physics.measurement import Measurement


@dataclass(frozen=True)
class Residual:
    """How far each clip of a batch is from obeying a law.

    Attributes:
        value: residual per clip, shape (B,), >= 0, in the unit the law's docstring states; finite where ``valid``.
        valid: whether the law applies to this clip and could be measured, shape (B,), bool. Where False, ``value`` is 0 with
            zero gradient.
        sigma: standard error of ``value`` from measurement noise, shape (B,); NaN where it is not known.
        drawn: the map ``field``, or what draws it.
    """

    value: Tensor
    valid: Tensor
    sigma: Tensor
    drawn: Tensor | Callable[[], Tensor] | None = None

    @cached_property
    def field(self) -> Tensor | None:
        """Where and when the violation sits, for pictures, shape (B, T', H, W), detached; None if the law has no map."""
        return self.drawn if self.drawn is None or isinstance(self.drawn, Tensor) else self.drawn()


@runtime_checkable
class Law(Protocol):
    """A differentiable residual of measured quantities; it knows mechanics and nothing of networks.

    ``needs``: `Measurement` fields it reads (``"reference"`` means a paired clip).
    ``detects``: names of the violations it declares to detect (`visviva.physics.violations`); its calibration proves it.
    ``trivial``: True if doing nothing (a frozen or empty clip) satisfies it, so that it must be paired with an anchor.
    ``anchor``: True if it keeps another law from being satisfied by doing nothing.
    """

    @property
    def name(self) -> str:
        """Name under which the residual is logged."""
        ...

    @property
    def needs(self) -> frozenset[str]:
        """Measurement fields that must be there."""
        ...

    @property
    def detects(self) -> tuple[str, ...]:
        """Violations that it must separate from true clips."""
        ...

    @property
    def trivial(self) -> bool:
        """Whether a frozen or empty clip satisfies it."""
        ...

    @property
    def anchor(self) -> bool:
        """Whether a frozen or empty clip violates it."""
        ...

    def __call__(self, measurement: Measurement) -> Residual:
        """Return the residual of each clip; differentiable with respect to the measured quantities."""
        ...


def require(measurement: Measurement, name: str, needs: Iterable[str]) -> None:
    """Raise an `InputError` naming the quantity that the law ``name`` needs and the measurement lacks."""
    for need in sorted(needs):
        if getattr(measurement, need) is None and not (need == "tracks" and measurement.masks is not None):
            remedy = (
                "give the paired true clip (or the frozen base's clip from the same noise)"
                if need == "reference"
                else f"use a probe that measures {need}, or pass {need} in"
            )
            raise InputError(f"the law {name!r} needs {need!r}, which was not measured; {remedy}")


def finite(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return x with zeros in clips that hold any NaN or infinity, and which clips are clean, shape (B,)."""
    clean = finite_clips(x)
    return torch.where(clean.view(-1, *[1] * (x.ndim - 1)), x, 0.0), clean


def finite_clips(x: Tensor) -> Tensor:
    """Return which clips hold neither NaN nor infinity, shape (B,): those whose sum is finite, in one pass without a copy.

    Clips of finite numbers whose sum overflows count as infinite.
    """
    return torch.isfinite(x.detach().flatten(1).sum(1))


def weighted_mean(x: Tensor, weight: Tensor) -> Tensor:
    """Return the mean of x under weights of the same shape over all but the batch dimension; 0 where all weights are 0."""
    total = weight.flatten(1).sum(1)
    return (x * weight).flatten(1).sum(1) / torch.where(total > 0, total, 1.0)


def unknown(value: Tensor) -> Tensor:
    """Return NaN for each clip: a standard error that is not known."""
    return torch.full_like(value.detach(), float("nan"))
