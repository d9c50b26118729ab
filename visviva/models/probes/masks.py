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

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from visviva.errors import InputError
from visviva.models.probes.displacements import Displacements
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
    away, search = distance(known), Displacements(still, known)
    masks, likely = _first_guess(still, known), densities(still, histograms)
    for last in [False] * (passes - 1) + [True]:
        if last and frames.requires_grad:
            likely = densities(frames, histograms)
        ratio = evidence(frames if last else still, _background(still, masks), likely)
        moved = search.follow(ratio.detach(), reach)
        masks = torch.cat([known[:, None], posterior(ratio, outgrown(ratio, carried(away, moved), known))[:, 1:]], dim=1)
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
    near = _around(_around(taken >= 0.3))
    near[:, 0] = _around(taken[:, 0] >= 0.3)
    free = ~near[:, :, None]
    middle, known = median_over_time(still, free), free.any(1)
    apart = (still - middle).abs()
    keep = free & (apart.amax(2, keepdim=True) < 0.15)
    colour = (still * keep).sum(1) / keep.sum(1).clamp(min=1)
    colour = torch.where(keep.any(1), colour, middle[:, 0])
    few = slice(None, None, 2)  # every fourth pixel is plenty for a median
    static = torch.where(keep[..., few, few], apart[..., few, few], float("nan"))
    spread = 1.5 * static.flatten(1).nanmedian(dim=1).values
    return Background(colour, known.to(still.dtype), torch.nan_to_num(spread).clamp(0.04, 0.1))


def median_over_time(still: Float[Tensor, "B T 3 H W"], free: Bool[Tensor, "B T 1 H W"]) -> Float[Tensor, "B 1 3 H W"]:
    """Return the (lower) median of the frames in which a pixel is free, 0 where it never is.

    Whole frames are sorted by Batcher's network, which on a CPU beats sorting pixel by pixel.
    """
    ranks = list(torch.where(free, still, float("inf")).unbind(1))
    for low, high in _comparisons(len(ranks)):
        ranks[low], ranks[high] = torch.minimum(ranks[low], ranks[high]), torch.maximum(ranks[low], ranks[high])
    count = free.sum(1, keepdim=True)
    middle = (torch.div(count - 1, 2, rounding_mode="floor")).clamp(min=0).expand(-1, -1, still.shape[2], -1, -1)
    return torch.where(count > 0, torch.stack(ranks, dim=1).gather(1, middle), 0.0)


def _comparisons(count: int) -> Iterator[tuple[int, int]]:
    """Pairs to compare in turn, by which odd-even merging sorts ``count`` numbers (Batcher 1968)."""
    block = 1
    while block < count:
        step = block
        while step >= 1:
            for first in range(step % block, count - step, 2 * step):
                for low in range(first, first + min(step, count - first - step)):
                    if low // (2 * block) == (low + step) // (2 * block):
                        yield low, low + step
            step //= 2
        block *= 2


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


def densities(frames: Float[Tensor, "B T 3 H W"], histograms: Float[Tensor, "B M b b b"]) -> Float[Tensor, "B T M H W"]:
    """Return the density of each pixel's colour in each of the histograms."""
    clips, steps, _, height, width = frames.shape
    count = histograms.shape[1]
    place = (frames.permute(0, 1, 3, 4, 2).reshape(clips, 1, steps, height * width, 3) * BINS - 0.5) * (2 / (BINS - 1)) - 1
    place = place.expand(-1, count, -1, -1, -1).flatten(0, 1)[:, None]
    density = torch.nn.functional.grid_sample(
        histograms.flatten(0, 1)[:, None], place, mode="bilinear", padding_mode="border", align_corners=True
    )
    return density.view(clips, count, steps, height, width).transpose(1, 2)


def evidence(
    frames: Float[Tensor, "B T 3 H W"],
    background: Background,
    density: Float[Tensor, "B T M H W"],
    eta: float = 0.1,
    eps: float = 0.1,
) -> Float[Tensor, "B T N H W"]:
    """Return the log likelihood ratio of object against background for each pixel, within [-5, 5].

    ``density``: of the pixel's colour in the N objects and, last, in the ground: M = N + 1 (`densities`).
    """
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


def carried(away: Float[Tensor, "B N H W"], moved: Float[Tensor, "B T N 2"]) -> Float[Tensor, "B T N H W"]:
    """Return a picture of each object, such as the distance to its first mask, moved along with it (bilinear)."""
    steps = moved.shape[1]
    pictures = away[:, None].expand(-1, steps, -1, -1, -1)
    shift = -moved.flatten(0, 2)[:, :, None, None].expand(-1, -1, *away.shape[-2:])
    return displaced(pictures.flatten(0, 2)[:, None], shift).view(pictures.shape)


def posterior(ratio: Float[Tensor, "B T N H W"], away: Float[Tensor, "B T N H W"]) -> Float[Tensor, "B T N H W"]:
    """Return soft masks from the evidence and the distance to where each object is expected, objects and ground competing."""
    logit = smoothed(ratio) + 1.0 - 2.0 * away
    ground = torch.zeros_like(logit[:, :, :1])
    return torch.softmax(torch.cat([ground, logit], dim=2), dim=2)[:, :, 1:]


def smoothed(ratio: Float[Tensor, "B T N H W"]) -> Float[Tensor, "B T N H W"]:
    """Return the evidence with a blur of (1, 2, 1) / 4 along both axes."""
    wide = torch.nn.functional.pad(ratio.flatten(0, 1), (1, 1, 1, 1), mode="replicate")
    rows = 0.25 * (wide[..., :-2] + wide[..., 2:]) + 0.5 * wide[..., 1:-1]
    return (0.25 * (rows[..., :-2, :] + rows[..., 2:, :]) + 0.5 * rows[..., 1:-1, :]).view_as(ratio)


@torch.no_grad()
def outgrown(
    ratio: Float[Tensor, "B T N H W"], away: Float[Tensor, "B T N H W"], known: Float[Tensor, "B N H W"]
) -> Float[Tensor, "B T N H W"]:
    """Return ``away`` for objects that grow or turn: 0 in the pixels that look like the object and touch its moved outline.

    They touch it through pixels that look like it, too, no more than a radius (of a disc of the object's area) away; the next
    pixel is at most 1 away. Without this a mask could never leave the outline of the first frame by more than 2 pixels.
    """
    alike = smoothed(ratio) > 0
    steps = (known.sum((-2, -1)) / torch.pi).sqrt().ceil()[:, None, :, None, None]
    inside = alike & (away < 0.5)
    for step in range(int(steps.max()) if steps.numel() else 0):
        wider = inside | (_widened(inside) & alike & (step < steps))
        if torch.equal(wider, inside):
            break
        inside = wider
    return torch.where(inside, 0.0, torch.where(_widened(inside), away.clamp(max=1.0), away))


def _widened(inside: Bool[Tensor, "*S H W"]) -> Bool[Tensor, "*S H W"]:
    """The pixels and those beside, above and below them."""
    wider = inside.clone()
    wider[..., 1:, :] |= inside[..., :-1, :]
    wider[..., :-1, :] |= inside[..., 1:, :]
    wider[..., 1:] |= inside[..., :-1]
    wider[..., :-1] |= inside[..., 1:]
    return wider


def _around(inside: Bool[Tensor, "*S H W"]) -> Bool[Tensor, "*S H W"]:
    """The pixels and all eight beside them."""
    rows = inside.clone()
    rows[..., 1:, :] |= inside[..., :-1, :]
    rows[..., :-1, :] |= inside[..., 1:, :]
    wider = rows.clone()
    wider[..., 1:] |= rows[..., :-1]
    wider[..., :-1] |= rows[..., 1:]
    return wider
