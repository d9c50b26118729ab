"""Contrastive pre-training of the EMG encoder (wearable biosignals, arXiv 2312.05409), with other positives.

The paper pairs two segments of one *person*, which trains away what changes within a person: for EMG the activation that
motion is made of. Here a pair is the *same window* under two different fates of the electrodes (gain, drift, hum, movement
artefact, rotation of the band, cut-outs, warps; card: teachers and mining, section 8), and a predictive term asks the
embedding for the joint torques.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from visviva.models.biomechanics.emg import EMGEncoder
from visviva.optim.teacher import TeacherEMA

TEMPERATURE, SPREAD, MOMENTUM = 0.04, 0.1, 0.99
"""Of the paper: NCE's temperature, KoLeo's weight, decay of the momentum encoder."""


@dataclass(frozen=True)
class Augmentation:
    """What may happen to electrodes, each with its probability; strengths are ours (the paper does not give them).

    ``cut_out``: 10 to 20 % of the window are lost; ``magnitude``: a smooth factor of 0.5 to 2; ``noise``: 1 to 5 % of the
    size; ``gain``: each electrode's own factor, log-normal 1.5; ``drift``: a gain that changes evenly over the window;
    ``hum``: 50 or 60 Hz; ``artefact``: slower than 20 Hz; ``rotation``: electrodes of a band move on by one (for arm-bands;
    off by default, as electrodes on named muscles do not change places).
    """

    cut_out: float = 0.4
    magnitude: float = 0.25
    noise: float = 0.25
    gain: float = 0.8
    drift: float = 0.4
    hum: float = 0.3
    artefact: float = 0.3
    rotation: float = 0.0

    def __call__(self, signal: Float[Tensor, "B C S"], random: torch.Generator, rate: float = 1000.0) -> Float[Tensor, "B C S"]:
        """Return the signals after a random cascade, drawn for each window."""
        count, channels, samples = signal.shape
        size = signal.square().mean(-1, keepdim=True).sqrt()
        time = torch.linspace(0, 1, samples).to(signal)

        def drawn(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=random).to(signal)

        def if_drawn(chance: float) -> Tensor:
            return drawn(count, 1, 1) < chance

        turns = torch.where(if_drawn(self.rotation)[:, 0, 0], 1, 0)
        order = (torch.arange(channels) - turns[:, None].cpu()) % channels
        signal = signal.gather(1, order.to(signal.device)[..., None].expand_as(signal))
        own = (math.log(1.5) * torch.randn(count, channels, 1, generator=random).to(signal)).exp()
        signal = torch.where(if_drawn(self.gain), signal * own, signal)
        sway = 1 + 0.3 * (2 * drawn(count, channels, 1) - 1) * time
        signal = torch.where(if_drawn(self.drift), signal * sway, signal)
        knots = (math.log(2) * (2 * drawn(count, 1, 5) - 1)).exp()
        warp = functional.interpolate(knots, size=samples, mode="linear", align_corners=True)
        signal = torch.where(if_drawn(self.magnitude), signal * warp, signal)
        hiss = (0.01 + 0.04 * drawn(count, 1, 1)) * size * torch.randn(signal.shape, generator=random).to(signal)
        signal = torch.where(if_drawn(self.noise), signal + hiss, signal)
        line = torch.where(drawn(count, 1, 1) < 0.5, 50.0, 60.0)
        seconds = time * samples / rate
        for chance, rates in ((self.hum, line), (self.artefact, 1 + 18 * drawn(count, 1, 1))):
            wave = (2 * torch.pi * (rates * seconds + drawn(count, channels, 1))).sin()
            signal = torch.where(if_drawn(chance), signal + 0.1 * drawn(count, channels, 1) * size * wave, signal)
        start, length = drawn(count, 1, 1) * 0.8, 0.1 + 0.1 * drawn(count, 1, 1)
        lost = if_drawn(self.cut_out) & (time >= start) & (time < start + length)
        return torch.where(lost, 0.0, signal)


def nce(query: Float[Tensor, "B D"], key: Float[Tensor, "B D"], temperature: float = TEMPERATURE) -> Float[Tensor, ""]:
    """Return the cross-entropy of finding each query's own key among the batch's; both of unit length."""
    return functional.cross_entropy(query @ key.T / temperature, torch.arange(len(query), device=query.device))


def koleo(points: Float[Tensor, "B D"]) -> Float[Tensor, ""]:
    """Return ``-mean log min_j |h_i - h_j|`` of points of unit length (Kozachenko-Leonenko): small where they are spread.

    The nearest neighbour is sought without gradient, in float32, and never the point itself (its similarity is set to -2,
    below an antipode's).
    """
    points = points.float()
    with torch.no_grad():
        near = (points @ points.T).fill_diagonal_(-2.0).argmax(1)
    return -((points - points[near]).norm(dim=1) + 1e-8).log().mean()


def contrast_loss(
    one: Float[Tensor, "B D"], other: Float[Tensor, "B D"], key: Float[Tensor, "B D"], other_key: Float[Tensor, "B D"]
) -> Float[Tensor, ""]:
    """Return ``1/2 [NCE(h1, k2) + NCE(h2, k1)] + lambda/2 [KoLeo(h1) + KoLeo(h2)]`` of normalised projections and keys."""
    found = nce(one, other_key) + nce(other, key)
    return found / 2 + SPREAD / 2 * (koleo(one) + koleo(other))


def effective_rank(embedding: Float[Tensor, "B D"]) -> float:
    """Return ``exp`` of the entropy of the normalised singular values of the centred embeddings: k for k even directions."""
    size = torch.linalg.svdvals((embedding - embedding.mean(0)).double())
    share = size / size.sum().clamp(min=1e-12)
    return float((-(share * share.clamp(min=1e-12).log()).sum()).exp())


class Contrast(nn.Module):
    """Encoder, projection, their momentum copies, and a linear reading of the torques.

    Args:
        encoder: to train.
        predicted: numbers that the predictive term asks for.
        hidden, out: of the projection (the paper's 1024 and 128 after 256 numbers).

    Example::

        contrast = Contrast(EMGEncoder(18), predicted=18)
        loss = contrast(signal, target, Augmentation(), generator)
        loss.backward(); optimizer.step(); contrast.follow()
    """

    def __init__(self, encoder: EMGEncoder, predicted: int, hidden: int = 256, out: int = 64) -> None:
        super().__init__()
        self.encoder = encoder
        self.project = nn.Sequential(nn.Linear(encoder.out, hidden), nn.ReLU(), nn.Linear(hidden, out))
        self.read = nn.Linear(encoder.out, predicted)
        online = nn.ModuleList([self.encoder, self.project])
        self.momentum = copy.deepcopy(online).requires_grad_(False)
        self._teacher = TeacherEMA(online, MOMENTUM, into=self.momentum)

    def forward(
        self,
        signal: Float[Tensor, "B C S"],
        target: Float[Tensor, "B P"],
        change: Augmentation,
        random: torch.Generator,
        weight: float = 1.0,
    ) -> Float[Tensor, ""]:
        """Return the contrastive loss of two fates of each window, and ``weight`` times the error of the predicted numbers."""
        views = [change(signal, random) for _ in range(2)]
        found = [self.encoder(view) for view in views]
        queries = [functional.normalize(self.project(x), dim=-1) for x in found]
        with torch.no_grad():
            keys = [functional.normalize(self.momentum[1](self.momentum[0](view)), dim=-1) for view in views]
        told = torch.stack([functional.mse_loss(self.read(x), target) for x in found]).mean()
        return contrast_loss(*queries, *keys) + weight * told

    def follow(self) -> None:
        """Move the momentum copies towards the trained ones; call after the optimizer's step."""
        self._teacher.update(nn.ModuleList([self.encoder, self.project]))
