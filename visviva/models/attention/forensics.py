"""Spectral forensics of momentum attention: what the shear does to each frequency, by formula and measured on a real model.

The layer is linear and the same at all times, so the transfer function estimated from queries before and after it must be the
formula's up to the estimator's noise; where it is not, something else than the shear was done to them.

Source: the procedure is ours after the description in arXiv 2602.04902 (reconstructed).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from visviva.errors import InputError
from visviva.models.attention.shear import gain, response


@dataclass(frozen=True)
class Spectrum:
    """A Bode plot in numbers.

    Attributes:
        omega: frequencies (n,) [radians per step], in (0, pi].
        decibel: ``20 log10 |H|``, (n,); phase: of H (n,) [radians].
    """

    omega: Tensor
    decibel: Tensor
    phase: Tensor


def spectrum(gamma: float, points: int = 512) -> Spectrum:
    """Return the shear's response by formula at evenly spread frequencies.

    Example::

        spectrum(0.5).decibel[-1]  # 6.02: a gain of 1 + 2 gamma = 2 at the Nyquist frequency
    """
    omega = torch.linspace(torch.pi / points, torch.pi, points, dtype=torch.float64)
    return Spectrum(omega, 20 * gain(omega, gamma).log10(), response(omega, gamma).angle())


def measured_response(
    before: Float[Tensor, "B H S D"], after: Float[Tensor, "B H S D"], steps: int, segment: int = 16
) -> tuple[Float[Tensor, " n"], Complex[Tensor, "H n"]]:
    """Return frequencies and each head's transfer function: the cross spectrum over the spectrum of what was before.

    Welch's estimate, averaged over channels, places and Hann windows of ``segment`` steps, half overlapping.

    Args:
        before, after: queries or keys before and after the shear, time slowest among the S tokens.
        steps: of the tokens.
        segment: steps of a window, at most ``steps``.

    Raises:
        InputError: fewer steps than a window.
    """
    if not 4 <= segment <= steps:
        raise InputError(f"windows of {segment} steps in {steps}; give 4 or more, and no more than there are")
    window = torch.hann_window(segment, periodic=True, dtype=torch.float64)

    def transformed(x: Tensor) -> Tensor:
        series = x.double().unflatten(2, (steps, -1)).movedim(2, -1)  # B, H, places, D, steps
        return torch.fft.rfft(series.unfold(-1, segment, max(1, segment // 2)) * window, dim=-1)

    one, two = transformed(before), transformed(after)
    over = (0, 2, 3, 4)
    found = (two * one.conj()).mean(over) / one.abs().square().mean(over).clamp(min=1e-30)
    omega = 2 * torch.pi * torch.fft.rfftfreq(segment, dtype=torch.float64)
    return omega, found
