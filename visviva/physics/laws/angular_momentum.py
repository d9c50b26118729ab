"""Angular momentum: a rigid body that nothing touches keeps its spin.

Gravity acts at the centre of mass and has no torque about it, so that in free flight ``d(I omega)/dt = 0``; the inertia of
a rigid body turning in the image plane is constant. The law is read in its weak form: for a run of m consecutive spins
between contacts and the test functions ``sin(k pi s)``, which vanish at both ends, integration by parts leaves

    c_k = (2 / m) sum_i omega_i cos(k pi (i + 1/2) / m),   k = 1..K,

zero for a constant spin and without a difference of noisy samples. The residual is ``r^2 sum_k c_k^2 / 2``, the variance of
the rim's speed that the slowest K modes hold, [(px/frame)^2]; r is the radius of a disc of the body's second moment.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from visviva.errors import InputError
from visviva.physics.contact import contact_frames
from visviva.physics.laws.law import Residual, finite, require
from visviva.physics.measurement import Measurement
from visviva.physics.runs import runs_between


@dataclass(frozen=True)
class AngularMomentum:
    """Change of spin between contacts, as the squared speed of the rim that it changes, [(px/frame)^2].

    Noise of the spin is subtracted: ``spin_sigma`` where it was measured, else the flow's ``noise`` over ten pixels' worth
    of averaging is taken as the error of the rim's speed. A clip in which nothing turns obeys, as does a frozen one. What
    rolls or hangs on a rod is touched throughout: the law does not hold there, and cannot know it unless ``contact`` says so.
    Where no contacts were measured they are found in the tracks.

    Attributes:
        modes: number K of test functions.
        least_run: spins in a row that a body must be seen for.

    Raises:
        InputError: no tracks and no masks; tracks without spin (masks need flow beside them).

    Example::

        AngularMomentum()(measurement).value  # (B,)
    """

    modes: int = 4
    least_run: int = 4

    name: ClassVar[str] = "angular_momentum"
    needs: ClassVar[frozenset[str]] = frozenset({"tracks"})
    detects: ClassVar[tuple[str, ...]] = ("wrong_spin",)
    scenes: ClassVar[tuple[str, ...]] = ("spins", "falls")
    trivial: ClassVar[bool] = True
    anchor: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuse runs that hold no mode."""
        if self.modes < 1 or self.least_run <= self.modes - 1 or self.least_run < 3:
            raise InputError(
                f"modes {self.modes} and least_run {self.least_run} do not fit; use 1 or more modes and runs of at least as "
                "many spins, 3 or more"
            )

    def __call__(self, measurement: Measurement) -> Residual:
        """Return the residual of each clip; differentiable with respect to spin (or masks and flow that it comes from)."""
        require(measurement, self.name, self.needs)
        tracks = measurement.tracked()
        if tracks.spin is None or tracks.moments is None:
            raise InputError(f"the law {self.name!r} needs spin and moments of the tracks; use a probe that measures flow")
        spin, clean = finite(tracks.spin)
        moments, clean_moments = finite(tracks.moments.detach())
        clean = clean & clean_moments
        seen = tracks.visible[:, 1:] & tracks.visible[:, :-1] & clean[:, None, None]
        contact = contact_frames(measurement)
        seen = seen & ~(contact[:, 1:] | contact[:, :-1])
        size = 2 * (moments[..., 0, 0] + moments[..., 1, 1])[:, :-1]
        noise = _noise(measurement, tracks.spin_sigma, size)
        squared, weight, error = _modes(spin, seen, size, noise, self.modes, self.least_run)
        total = weight.sum((1, 2))
        value = torch.relu((squared * weight).sum((1, 2)) / total.clamp(min=1))
        sigma = (error.square() * weight).sum((1, 2)).sqrt() / total.clamp(min=1)
        valid = total > 0
        return Residual(torch.where(valid, value, 0.0), valid, torch.where(valid, sigma, 0.0).detach())


def _noise(measurement: Measurement, spin_sigma: Tensor | None, size: Tensor) -> Tensor:
    """Variance of the rim's speed from measurement noise [(px/frame)^2], shape (B, T-1, N)."""
    if spin_sigma is not None:
        return torch.nan_to_num(spin_sigma.detach()).square() * size
    if measurement.noise is None:
        return torch.zeros_like(size)
    return 2 * measurement.noise.detach().square()[:, None, None].expand_as(size)


def _modes(spin: Tensor, seen: Tensor, size: Tensor, noise: Tensor, modes: int, least: int) -> tuple[Tensor, Tensor, Tensor]:
    """Squared rim speed of the modes less that of noise, its weight (a run's length) and error, each (B, runs, N)."""
    runs = runs_between(~seen)
    time = torch.arange(spin.shape[1], dtype=spin.dtype, device=spin.device)[None, :, None].expand_as(spin)
    count = runs.total(torch.ones_like(spin))
    safe = count.clamp(min=1)
    first = runs.total(time) / safe - (safe - 1) / 2
    phase = math.pi * (time - runs.spread(first) + 0.5) / runs.spread(safe)
    rim, floor = runs.total(size) / safe, runs.total(noise) / safe
    tones = [runs.total(spin * torch.cos(k * phase)) * 2 / safe for k in range(1, modes + 1)]
    held = torch.stack(tones).square().sum(0)
    variance = modes * floor / safe
    error = (2 * variance.square() / modes + 4 * (rim * held.detach() / 2) * floor / safe).sqrt()
    return rim * held / 2 - variance, (count >= least).to(spin.dtype) * count, error
