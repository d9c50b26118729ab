"""Where the objects are in a clip with a static camera, when their masks in the first frame are known.

`track_masks` follows objects through *generated* clips, whose pixels no simulator knows: first-frame masks in (the
condition that the clip was generated from), soft masks of every frame out. Three sources of evidence are combined:

- what the background looks like: the camera is static, so every pixel outside the first masks shows background in frame 0,
  and every pixel shows it in the frames where no object is near;
- what each object looks like: its colour histogram in frame 0;
- where it can be: the first mask moved by the displacement that explains the frame best, near where constant velocity
  would put it; the mask itself follows the pixels, so an object that shrinks, melts or vanishes does so in its mask too.

Per pixel, with I the colour, B the background and h the smoothed histogram,

    logit = log((1-eta) h(I) + eta) - log((1-eps) N(I; B, s^2) + eps) + prior(distance to the moved first mask)

Gradients reach the frames through I; background, histogram and displacement are detached.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError
from visviva.physics.kinematics import displaced

BINS = 16


@dataclass(frozen=True)
class TrackedMasks:
    """Mask source for `Combined`: takes ``masks[:, 0]`` as known and follows it through the frames (see `track_masks`)."""

    reach: float = 4.0

    def __call__(self, frames: Float[Tensor, "B T 3 H W"], masks: Float[Tensor, "B t N H W"] | None) -> Tensor:
        """Return masks (B, T, N, H, W)."""
        if masks is None:
            raise InputError("following objects needs their masks in the first frame; pass masks, or use MotionMasks")
        return track_masks(frames, masks[:, 0], reach=self.reach)


def track_masks(
    frames: Float[Tensor, "B T 3 H W"], first: Float[Tensor, "B N H W"], *, reach: float = 4.0, passes: int = 2
) -> Float[Tensor, "B T N H W"]:
    """Follow objects from their first masks through a clip with a static camera and background.

    Args:
        frames: colours in [0, 1].
        first: masks of the objects in frame 0, in [0, 1]; objects that hide each other there share no pixels.
        reach: how far an object may stray from constant velocity within one frame, one standard deviation [px].
        passes: the first finds the objects roughly, each further one learns the background where they were not.

    Returns:
        Soft masks in [0, 1] whose sum over objects is at most 1; threshold at 0.5 for hard ones. Differentiable with
        respect to the frames. A lost object has an empty mask.

    Example::

        masks = track_masks(generated, clip.masks[None, 0].float())
        centres, areas = centroids(masks)
    """
    known = first.detach().clamp(0, 1)
    still = frames.detach().clamp(0, 1)
    ground = 1 - torch.nn.functional.max_pool2d(known.amax(1, keepdim=True), 3, stride=1, padding=1)
    histograms = torch.stack([histogram(still[:, 0], mask) for mask in (*known.unbind(1), ground[:, 0])], dim=1)
    away, looks = distance(known), _unlike(still, known)
    masks = _first_guess(still, known)
    for last in [False] * (passes - 1) + [True]:
        ratio = evidence(frames if last else still, _background(still, masks), histograms)
        moved = _follow(ratio.detach(), looks, known, reach)
        masks = torch.cat([known[:, None], posterior(ratio, carried(away, moved))[:, 1:]], dim=1)
    return masks


def _first_guess(still: Tensor, known: Tensor) -> Tensor:
    """Rough masks before anything is tracked: frame 0 as known; later, pixels unlike frame 0 or inside the first mask."""
    changed = ((still - still[:, :1]).abs().amax(2) > 0.12).to(still.dtype)
    inside = known.amax(1)
    later = torch.where(inside[:, None] > 0.5, 1 - changed, changed)
    later[:, 0] = inside
    return later[:, :, None]


@dataclass(frozen=True)
class Background:
    """What is there when no object is: colours (B, 3, H, W), whether they are known
    (B, 1, H, W), and the spread of a static pixel (B,)."""

    colour: Tensor
    known: Tensor
    spread: Tensor


def _background(still: Tensor, masks: Tensor) -> Background:
    """Mean colour of each pixel over the frames in which no object is within 2 px, robust against what was missed."""
    taken = masks.detach().amax(2)
    near = torch.nn.functional.max_pool2d(taken, 5, stride=1, padding=2)
    near[:, 0] = torch.nn.functional.max_pool2d(taken[:, 0], 3, stride=1, padding=1)
    free = (near < 0.3)[:, :, None]
    middle = torch.where(free, still, float("nan")).nanmedian(dim=1, keepdim=True).values
    known = ~torch.isnan(middle[:, 0, :1])
    middle = torch.nan_to_num(middle)
    apart = (still - middle).abs()
    keep = free & (apart.amax(2, keepdim=True) < 0.15)
    colour = (still * keep).sum(1) / keep.sum(1).clamp(min=1)
    colour = torch.where(keep.any(1), colour, middle[:, 0])
    static = torch.where(keep, apart, float("nan"))
    spread = 1.5 * static.flatten(1).nanmedian(dim=1).values
    return Background(colour, known.to(still.dtype), torch.nan_to_num(spread).clamp(0.04, 0.1))


def histogram(image: Float[Tensor, "B 3 H W"], mask: Float[Tensor, "B H W"]) -> Tensor:
    """Return the smoothed colour density of the pixels in the mask, (B, BINS, BINS, BINS) over (blue, green, red), mean 1."""
    index = (image * BINS).long().clamp(0, BINS - 1)
    flat = ((index[:, 2] * BINS + index[:, 1]) * BINS + index[:, 0]).flatten(1)
    counts = torch.zeros(image.shape[0], BINS**3, dtype=image.dtype, device=image.device)
    counts.scatter_add_(1, flat, (mask * (mask > 0.5)).flatten(1))
    density = counts.view(-1, BINS, BINS, BINS)
    taps = torch.exp(-0.5 * (torch.arange(-3, 4, dtype=image.dtype, device=image.device) / 1.2).square())
    for axis in (1, 2, 3):
        density = torch.movedim(density, axis, -1)
        shape = density.shape
        density = torch.nn.functional.conv1d(density.reshape(-1, 1, BINS), (taps / taps.sum()).view(1, 1, -1), padding=3)
        density = torch.movedim(density.view(shape), -1, axis)
    return density * BINS**3 / density.flatten(1).sum(1).clamp(min=1e-6).view(-1, 1, 1, 1)


def evidence(
    frames: Float[Tensor, "B T 3 H W"], background: Background, histograms: Tensor, eta: float = 0.1, eps: float = 0.1
) -> Float[Tensor, "B T N H W"]:
    """Return the log likelihood ratio of object against background for each pixel, within [-5, 5].

    ``histograms``: of the N objects and, last, of the ground (B, N + 1, BINS, BINS, BINS).
    """
    clips, steps, _, height, width = frames.shape
    count = histograms.shape[1]
    place = (frames.permute(0, 1, 3, 4, 2).reshape(clips, 1, steps, height * width, 3) * BINS - 0.5) * (2 / (BINS - 1)) - 1
    place = place.expand(-1, count, -1, -1, -1).flatten(0, 1)[:, None]
    density = torch.nn.functional.grid_sample(
        histograms.flatten(0, 1)[:, None], place, mode="bilinear", padding_mode="border", align_corners=True
    )
    density = density.view(clips, count, steps, height, width).transpose(1, 2)
    spread = background.spread.view(-1, 1, 1, 1)
    apart = (frames - background.colour[:, None]).square().sum(2) / spread.square()
    usual = torch.exp(-apart / 2) / (spread * 2.5066).pow(3)
    usual = torch.where(background.known > 0, usual, density[:, :, -1])
    ratio = torch.log((1 - eta) * density[:, :, :-1] + eta) - torch.log((1 - eps) * usual + eps)[:, :, None]
    return 5 * torch.tanh(ratio / 5)


def distance(known: Float[Tensor, "B N H W"], most: int = 8) -> Float[Tensor, "B N H W"]:
    """Return the chessboard-diamond distance to each mask [px], 0 inside, at most ``most``."""
    reached = (known > 0.5).to(known.dtype)
    away = torch.full_like(known, float(most)) * (1 - reached)
    for step in range(1, most):
        size = (3, 3) if step % 2 else (3, 1)
        grown = torch.nn.functional.max_pool2d(reached, size, stride=1, padding=(size[0] // 2, size[1] // 2))
        if not step % 2:
            across = torch.nn.functional.max_pool2d(reached, (1, 3), stride=1, padding=(0, 1))
            grown = torch.maximum(grown, across)
        away = torch.where((grown > 0.5) & (away == most), float(step), away)
        reached = grown
    return away


def _correlate(images: Tensor, template: Tensor) -> Tensor:
    """Sum over x of ``images(x + d) template(x)`` for every displacement d within the image, zero displacement centred."""
    size = (2 * images.shape[-2], 2 * images.shape[-1])
    spectrum = torch.fft.rfft2(images, s=size) * torch.fft.rfft2(template, s=size).conj()
    return torch.fft.fftshift(torch.fft.irfft2(spectrum, s=size), dim=(-2, -1))


def _unlike(still: Tensor, known: Tensor, spread: float = 0.15) -> Tensor:
    """Mean squared colour difference of each object, moved by d, from what is there: (B, T, N, 2H, 2W), in units of spread."""
    weight = known / known.sum((-2, -1), keepdim=True).clamp(min=1)
    energy = _correlate(still.square().sum(2, keepdim=True), weight[:, None])
    match = _correlate(still[:, :, None], (weight[:, :, None] * still[:, :1])[:, None]).sum(3)
    own = _correlate(torch.ones_like(known), weight * still[:, 0].square().sum(1, keepdim=True))
    return (energy - 2 * match + own[:, None]) / (2 * spread**2)


def _follow(evidence: Tensor, unlike: Tensor, known: Tensor, reach: float) -> Tensor:
    """Displacement of each object from its first place in every frame, (dx, dy) [px], shape (B, T, N, 2)."""
    clips, steps, count, height, width = evidence.shape
    ring = torch.nn.functional.max_pool2d(known, 5, stride=1, padding=2) - known
    inside, around = known.sum((-2, -1), keepdim=True).clamp(min=1), ring.sum((-2, -1), keepdim=True).clamp(min=1)
    score = _correlate(evidence, (known / inside - 0.5 * ring / around)[:, None]) - unlike
    size = score.shape[-2:]
    like: dict[str, Any] = {"dtype": evidence.dtype, "device": evidence.device}
    dy = (torch.arange(size[0], **like) - height)[:, None]
    dx = torch.arange(size[1], **like) - width
    place, velocity = torch.zeros(clips, count, 2, **like), torch.zeros(clips, count, 2, **like)
    places = [place]
    for t in range(1, steps):
        ahead = place + velocity
        stray = (dx - ahead[..., 0, None, None]).square() + (dy - ahead[..., 1, None, None]).square()
        merit = score[:, t] - 0.5 * stray / reach**2
        best = merit.flatten(2).max(-1)
        found = torch.stack([best.indices % size[1] - width, best.indices // size[1] - height], dim=-1).to(evidence.dtype)
        found = found + _summit(merit, best.indices)
        step = found - place
        velocity = step if t == 1 else 0.5 * velocity + 0.5 * step
        place = found
        places.append(place)
    return torch.stack(places, dim=1)


def _summit(merit: Tensor, index: Tensor) -> Tensor:
    """Where the parabola through the best sample and its neighbours peaks along x and y, within half a pixel."""
    width, flat = merit.shape[-1], merit.flatten(2)
    offsets = []
    for stride in (1, width):
        low, high = (flat.gather(-1, (index + s).clamp(0, flat.shape[-1] - 1)[..., None])[..., 0] for s in (-stride, stride))
        bend = low + high - 2 * flat.gather(-1, index[..., None])[..., 0]
        offsets.append((0.5 * (low - high) / bend.clamp(max=-1e-6)).clamp(-0.5, 0.5))
    return torch.stack(offsets, dim=-1)


def carried(away: Float[Tensor, "B N H W"], moved: Float[Tensor, "B T N 2"]) -> Float[Tensor, "B T N H W"]:
    """Return a picture of each object, such as the distance to its first mask, moved along with it (bilinear)."""
    steps = moved.shape[1]
    pictures = away[:, None].expand(-1, steps, -1, -1, -1)
    shift = -moved.flatten(0, 2)[:, :, None, None].expand(-1, -1, *away.shape[-2:])
    return displaced(pictures.flatten(0, 2)[:, None], shift).view(pictures.shape)


def posterior(ratio: Float[Tensor, "B T N H W"], away: Float[Tensor, "B T N H W"]) -> Float[Tensor, "B T N H W"]:
    """Return soft masks from the evidence and the distance to where each object is expected, objects and ground competing."""
    taps = ratio.new_tensor([0.25, 0.5, 0.25])
    kernel = (taps[:, None] * taps)[None, None]
    smooth = torch.nn.functional.conv2d(
        torch.nn.functional.pad(ratio.flatten(0, 2)[:, None], (1, 1, 1, 1), mode="replicate"), kernel
    ).view_as(ratio)
    logit = smooth + 1.0 - 2.0 * away
    ground = torch.zeros_like(logit[:, :, :1])
    return torch.softmax(torch.cat([ground, logit], dim=2), dim=2)[:, :, 1:]
