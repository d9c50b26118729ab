"""Surface EMG made from joint torques: muscles that are known, for what learns to read them.

Each of nine joints has two muscles, one for each sense of turning about one axis of its link. A muscle's drive is its share of
the torque over the joint's strength, rectified, with some co-contraction; activation follows the drive as calcium does (first
order, faster up than down; time constants 10 and 40 ms, Zajac 1989); the signal is noise of 20 to 450 Hz whose size is the
activation (card: teachers and mining, section 8), seen by electrodes of unlike gain, with a floor of noise. No claim about real
muscles is made: they share torques by geometry, length and speed, which is left out.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError

DRIVEN = ((3, 0), (1, 0), (2, 0), (4, 0), (5, 0), (7, 0), (8, 0), (16, 2), (17, 2))
"""Joint of HumanML3D's skeleton and axis of its link, two muscles each: trunk, hips, knees, ankles, shoulders."""
STRENGTH = (4.0, 3.0, 3.0, 3.0, 3.0, 2.0, 2.0, 1.0, 1.0)
"""Torque at full activation [N m/kg]; ours."""
MUSCLES = 2 * len(DRIVEN)
RATE = 1000.0
"""Samples per second."""
BAND = (20.0, 450.0)
"""Of surface EMG [Hz]."""
RISE, FALL = 0.010, 0.040
"""Time constants of activation and deactivation [s]."""


def drives(torque: Float[Tensor, "*batch J 3"], together: float = 0.1) -> Float[Tensor, "*batch 18"]:
    """Return the drive of each muscle, 0 to 1: the rectified share of its torque, and ``together`` of its antagonist's.

    Args:
        torque: of the 21 joints but the root, in their links' frames [N m/kg].
        together: co-contraction, a share of the antagonist's drive.

    Raises:
        InputError: torques of other joints.
    """
    if torque.shape[-2:] != (21, 3):
        raise InputError(
            f"torques of the shape {tuple(torque.shape)}; (*batch, 21, 3) is wanted: HumanML3D's joints but the root"
        )
    share = torch.stack([torque[..., joint - 1, axis] / most for (joint, axis), most in zip(DRIVEN, STRENGTH, strict=True)], -1)
    both = torch.stack([share.clamp(min=0), (-share).clamp(min=0)], -1)
    return (both + together * both.flip(-1)).flatten(-2).clamp(max=1)


def activations(drive: Float[Tensor, "*batch T M"], fps: float) -> Float[Tensor, "*batch T M"]:
    """Return the muscles' activation, which follows the drive in first order: `RISE` upwards, `FALL` downwards.

    One step per frame, exact for a drive that is constant over it; the loop over frames is the only one.
    """
    up, down = (1 - math.exp(-1 / (fps * constant)) for constant in (RISE, FALL))
    level = drive[..., 0, :]
    found = [level]
    for wanted in drive.unbind(-2)[1:]:
        level = level + torch.where(wanted > level, up, down) * (wanted - level)
        found.append(level)
    return torch.stack(found, -2)


def emg(
    activation: Float[Tensor, "*batch T M"], fps: float, seed: int, floor: float = 0.01, rate: float = RATE
) -> Float[Tensor, "*batch M S"]:
    """Return raw signals of ``S = (T - 1) rate / fps + 1`` samples, electrodes first, from the first to the last frame.

    Args:
        activation: at the frames.
        fps: frames per second.
        seed: of the noise and of the electrodes' gains (log-normal, a factor of 1.3).
        floor: standard deviation of the amplifier's noise; full activation is 1.
        rate: samples per second, over twice the upper end of `BAND`.

    Raises:
        InputError: a rate that does not hold the band.

    Example::

        signal = emg(activations(drives(torque), fps=30.0), fps=30.0, seed=0)  # (*batch, 18, S)
    """
    if rate < 2 * BAND[1]:
        raise InputError(f"{rate:g} samples per second do not hold {BAND[1]:g} Hz; give {2 * BAND[1]:g} or more")
    random = torch.Generator().manual_seed(seed)
    samples = round((activation.shape[-2] - 1) * rate / fps) + 1
    lead = activation.movedim(-1, -2)
    size = torch.nn.functional.interpolate(lead.reshape(1, -1, lead.shape[-1]), size=samples, mode="linear", align_corners=True)
    noise = banded(torch.randn(*lead.shape[:-1], samples, generator=random, dtype=activation.dtype), rate)
    gain = (math.log(1.3) * torch.randn(*lead.shape[:-1], 1, generator=random, dtype=activation.dtype)).exp()
    hiss = floor * torch.randn(noise.shape, generator=random, dtype=activation.dtype)
    return gain * size.reshape(noise.shape) * noise + hiss


def banded(noise: Float[Tensor, "*batch S"], rate: float) -> Float[Tensor, "*batch S"]:
    """Return noise with nothing outside of `BAND`, of unit variance on average."""
    whole = torch.fft.rfft(noise)
    at = torch.fft.rfftfreq(noise.shape[-1], 1 / rate).to(noise)
    inside = (at >= BAND[0]) & (at <= BAND[1])
    return torch.fft.irfft(whole * inside, n=noise.shape[-1]) / inside.to(noise).mean().sqrt()


def envelope(signal: Float[Tensor, "*batch S"], bin_size: int = 10) -> Float[Tensor, "*batch N"]:
    """Return root mean squares over bins of samples; what is left over at the end is dropped."""
    kept = signal[..., : signal.shape[-1] // bin_size * bin_size]
    return (kept.unflatten(-1, (-1, bin_size)).square().mean(-1) + 1e-12).sqrt()
