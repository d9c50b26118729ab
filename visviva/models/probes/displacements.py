"""Where each object has moved to in every frame: the displacement of its first mask that explains the frame best.

For a displacement d of an object with first mask m (x: pixels) the merit in frame t is

    sum_x evidence_t(x + d) (m / |m| - ring / 2 |ring|)
        - sum_x m |I_t(x + d) - I_0(x)|^2 / (2 |m| spread^2) - TAIL log(1 + |d - ahead|^2 / (2 TAIL reach^2))

how much the pixels there look like the object and those around it do not, how alike the colours are pixel by pixel, and how
far d lies from where constant velocity would put it. The last is a Gaussian near by; its tail is heavy (Student's), because
a ball that hits the ground changes its velocity by many standard deviations, and is no less itself. All displacements are
tried at once by circular correlation whose period is the image's side plus the largest object's, so that nothing wraps
round onto itself.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

SPREAD = 0.15
"""Difference of colours [of the full range] that is usual between two views of the same object."""

TAIL = 3.0
"""How heavy the tail of the prior of places is: Student's distribution with ``2 TAIL - 2`` degrees of freedom in the plane."""


class Displacements:
    """Search for objects that are known in the first frame; what the colours say is correlated once for all searches.

    Args:
        still: frames (B, T, 3, H, W), without gradient.
        known: masks of the objects in frame 0, shape (B, N, H, W), in [0, 1].

    Example::

        search = Displacements(frames, masks[:, 0])
        search.follow(evidence, reach=4.0)  # (B, T, N, 2) [px], zero in frame 0
    """

    def __init__(self, still: Float[Tensor, "B T 3 H W"], known: Float[Tensor, "B N H W"]) -> None:
        ring = torch.nn.functional.max_pool2d(known, 5, stride=1, padding=2) - known
        inside, around = (x.sum((-2, -1), keepdim=True).clamp(min=1) for x in (known, ring))
        self.first, self.size = _extent(known + ring)
        self.contrast = self._spectrum(known / inside - 0.5 * ring / around).conj()[:, None]
        self.unlike = self._unlike(still, known / inside) / (2 * SPREAD**2)

    def _spectrum(self, images: Tensor) -> Tensor:
        return torch.fft.rfft2(images, s=self.size)

    def _unlike(self, still: Tensor, weight: Tensor) -> Tensor:
        """Spectrum of the mean squared colour difference from what is there, for every displacement, (B, T, N, ...)."""
        energy = self._spectrum(still.square().sum(2))[:, :, None] * self._spectrum(weight).conj()[:, None]
        templates = self._spectrum(weight[:, :, None] * still[:, :1]).conj()
        match = torch.einsum("btchw,bnchw->btnhw", self._spectrum(still), templates)
        own = self._spectrum(torch.ones_like(still[:, 0, :1]))
        own = own * self._spectrum(weight * still[:, 0].square().sum(1, keepdim=True)).conj()
        return energy - 2 * match + own[:, None]

    def follow(self, evidence: Float[Tensor, "B T N H W"], reach: float) -> Float[Tensor, "B T N 2"]:
        """Return the displacement of each object in every frame, (dx, dy) [px], to a fraction of a pixel."""
        score = torch.fft.irfft2(self._spectrum(evidence) * self.contrast - self.unlike, s=self.size)
        dx, dy = (_displacements(low, period).to(score) for low, period in zip(self.first, self.size[::-1], strict=True))
        place = torch.zeros_like(score[:, 0, :, 0, :2])
        velocity, places = torch.zeros_like(place), [place]
        for t in range(1, evidence.shape[1]):
            ahead = place + velocity
            stray = (dy - ahead[..., 1:]).square()[..., :, None] + (dx - ahead[..., :1]).square()[..., None, :]
            merit = score[:, t] - TAIL * torch.log1p(stray / (2 * TAIL * reach**2))
            row, column = _divided(merit.flatten(2).argmax(-1), merit.shape[-1])
            found = torch.stack([_at(dx, column), _at(dy, row)], dim=-1) + _summit(merit, row, column)
            step = found - place
            velocity = step if t == 1 else 0.5 * velocity + 0.5 * step
            place = found
            places.append(place)
        return torch.stack(places, dim=1)


def _extent(pictures: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
    """Least displacements (x, y) at which each picture touches the image, (B, N), and the periods (rows, columns) to try."""
    firsts, periods = [], []
    for axis in (-2, -1):
        there = pictures.amax(axis) > 0
        at = torch.arange(there.shape[-1], device=there.device)
        low, high = torch.where(there, at, there.shape[-1]).amin(-1), torch.where(there, at, -1).amax(-1)
        firsts.append(-torch.where(high >= 0, high, there.shape[-1] - 1))
        periods.append(_smooth(there.shape[-1] + int((high - low).clamp(min=0).max()) + 1))
    return (firsts[0], firsts[1]), (periods[1], periods[0])


def _smooth(least: int) -> int:
    """The next number from ``least`` on with no prime factor above 5, of which transforms are quick."""
    while True:
        rest = least
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return least
        least += 1


def _displacements(first: Tensor, period: int) -> Tensor:
    """The displacements ``first`` ... ``first + period - 1`` in the order in which a circular correlation has them."""
    return (torch.arange(period, device=first.device) - first[..., None]) % period + first[..., None]


def _divided(index: Tensor, width: int) -> tuple[Tensor, Tensor]:
    return torch.div(index, width, rounding_mode="floor"), index % width


def _at(line: Tensor, index: Tensor) -> Tensor:
    return line.gather(-1, index[..., None])[..., 0]


def _summit(merit: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """Where the parabola through the best sample and its neighbours peaks along x and y, within half a pixel."""
    (height, width), flat = merit.shape[-2:], merit.flatten(2)
    best, offsets = _at(flat, row * width + column), []
    for down, across in ((0, 1), (1, 0)):
        low, high = (_at(flat, (row + s * down) % height * width + (column + s * across) % width) for s in (-1, 1))
        offsets.append((0.5 * (low - high) / (low + high - 2 * best).clamp(max=-1e-6)).clamp(-0.5, 0.5))
    return torch.stack(offsets, dim=-1)
