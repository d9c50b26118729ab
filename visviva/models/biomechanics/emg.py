"""The EMG encoder: mobile inverted bottlenecks over time on log envelopes (wearable biosignals, arXiv 2312.05409; smaller)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from visviva.errors import InputError

BIN = 10
"""Samples of an envelope's bin: 100 per second at 1 kHz."""


class Bottleneck(nn.Module):
    """A mobile inverted bottleneck in one dimension, with squeeze and excitation; GroupNorm, so that no batch leaks."""

    def __init__(self, width: int, grown: int = 4, kernel: int = 5) -> None:
        super().__init__()
        inner = width * grown
        self.grow = nn.Sequential(nn.Conv1d(width, inner, 1), nn.GroupNorm(8, inner), nn.SiLU())
        self.along = nn.Sequential(
            nn.Conv1d(inner, inner, kernel, padding=kernel // 2, groups=inner), nn.GroupNorm(8, inner), nn.SiLU()
        )
        self.squeeze = nn.Sequential(nn.Linear(inner, width // 4), nn.SiLU(), nn.Linear(width // 4, inner), nn.Sigmoid())
        self.shrink = nn.Sequential(nn.Conv1d(inner, width, 1), nn.GroupNorm(8, width))

    def forward(self, x: Float[Tensor, "B C N"]) -> Float[Tensor, "B C N"]:
        """Return the input with what was found added."""
        found = self.along(self.grow(x))
        found = found * self.squeeze(found.mean(-1))[..., None]
        return x + self.shrink(found)


class EMGEncoder(nn.Module):
    """Windows of raw EMG to one vector each.

    Rectified and averaged over bins of 10 samples (root mean squares, in logarithms: gains become offsets), then convolutions.
    The paper's encoder is an EfficientNet of 16 blocks on raw PPG or ECG with 256 numbers; this has as many as asked for.

    Args:
        channels: electrodes.
        out: numbers of the embedding.
        width, blocks: of the network.

    Example::

        EMGEncoder(18)(torch.randn(4, 18, 200)).shape  # (4, 64)
    """

    def __init__(self, channels: int, out: int = 64, width: int = 32, blocks: int = 3) -> None:
        super().__init__()
        self.channels, self.out = channels, out
        self.enter = nn.Conv1d(channels, width, 3, padding=1)
        self.blocks = nn.Sequential(*[Bottleneck(width) for _ in range(blocks)])
        self.leave = nn.Sequential(nn.SiLU(), nn.Linear(2 * width, out))

    def forward(self, signal: Float[Tensor, "B C S"]) -> Float[Tensor, "B out"]:
        """Return the embeddings: of the mean over the window, and of its end, where what is felt now is.

        Raises:
            InputError: other channels, or less than two bins.
        """
        if signal.shape[1] != self.channels or signal.shape[2] < 2 * BIN:
            raise InputError(
                f"EMG of the shape {tuple(signal.shape)}; (B, {self.channels}, S) is wanted, S of {2 * BIN} samples or more"
            )
        kept = signal[..., signal.shape[-1] % BIN :]
        size = (kept.unflatten(-1, (-1, BIN)).square().mean(-1) + 1e-6).log() / 2 + 2
        found = self.blocks(self.enter(size))
        return self.leave(torch.cat([found.mean(-1), found[..., -1]], -1))
