"""The objects that move in a clip with a static camera, found without weights and without any given mask.

Four steps, batched over clips:

1. `ground`: what the bare ground looks like, also under objects that rest for part of the clip;
2. detections: connected regions of every frame that differ from it;
3. `Identity`: which detection is which object, through occlusion and crossing; the ``objects`` that move most are kept;
4. pixels: soft masks from colour and place, objects and ground competing, as in `visviva.models.probes.masks`. Where an object
   was detected alone its own region is where it may be; where it was merged with another, hidden or missed, the region of its
   best frame is, carried both ways through time to where its other sightings put it. That place is a prior for pixels only:
   an object that is not seen there has an empty mask.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from visviva.errors import InputError
from visviva.models.probes.masks import Background, carried, densities, distance, evidence, histogram, posterior
from visviva.models.probes.objects.components import regions
from visviva.models.probes.objects.ground import STRANGE, Ground, ground
from visviva.models.probes.objects.identity import Identity
from visviva.models.probes.objects.look import look
from visviva.physics.kinematics import centroids


@dataclass(frozen=True)
class Moving:
    """Mask source that finds the ``objects`` things that move most, also those that stop, start late, touch or cross.

    Attributes:
        objects: number of objects N to return; missing ones have empty masks.
        threshold: colour distance (Euclidean, three colours in [0, 1]) from the ground at which a pixel may be an object; three
            standard deviations of the grain are added.
        least_area: smaller regions are dropped [px^2].
        identity: how detections are told apart.

    Example::

        masks = Moving(objects=2)(frames, None)  # (B, T, 2, H, W) in [0, 1], differentiable with respect to the frames
    """

    objects: int = 1
    threshold: float = 0.08
    least_area: int = 9
    identity: Identity = Identity(reach=6.0)  # noqa: RUF009 (frozen)

    def __call__(self, frames: Float[Tensor, "B T 3 H W"], masks: Float[Tensor, "B t N H W"] | None) -> Tensor:
        """Return masks (B, T, N, H, W); masks of all frames that are already known are returned as they are."""
        if masks is not None and masks.shape[1] == frames.shape[1]:
            return masks
        return self.find(frames)[0]

    def find(self, frames: Float[Tensor, "B T 3 H W"]) -> tuple[Float[Tensor, "B T N H W"], Ground]:
        """Return the masks and the ground that they were found on.

        Raises:
            InputError: fewer than three frames, which do not tell the ground.
        """
        if frames.shape[1] < 3:
            raise InputError(f"motion segmentation needs at least 3 frames to tell the background, not {frames.shape[1]}")
        bare = ground(frames)
        found = self._detections(frames.detach(), bare)
        sightings = self._sightings(frames.detach(), found, bare)
        return _pixels(frames, bare, sightings), bare

    def _detections(self, still: Tensor, bare: Ground) -> Tensor:
        """Regions of each frame that differ from the ground, shape (B, T, K, H, W), 0 or 1."""
        apart = (still - bare.colour[:, None]).square().sum(2).sqrt()
        least = torch.where(bare.known > 0, self.threshold, STRANGE) + 3 * bare.grain.view(-1, 1, 1, 1)
        strange = (apart > least).to(still.dtype)
        solid = torch.nn.functional.avg_pool2d(strange, 3, stride=1, padding=1) > 0.5
        return regions(solid.flatten(0, 1), self.objects + 3, self.least_area).unflatten(0, still.shape[:2])

    def _sightings(self, still: Tensor, found: Tensor, bare: Ground) -> Tensor:
        """The detections of the objects that move most, shape (B, T, N, H, W), 0 or 1."""
        present = found.sum((-2, -1)) > 0
        ids = self.identity(look(still, found), present, centroids(found)[0])
        slots = self.identity.slots
        chosen = torch.nn.functional.one_hot(ids + 1, slots + 1)[..., 1:].to(still.dtype)
        moving = (found * bare.moving[:, :, None]).sum((-2, -1))
        weight = torch.einsum("btkm,btk->bm", chosen, moving)
        best = weight.topk(self.objects, dim=1)
        kept = chosen.gather(3, best.indices[:, None, None].expand(*chosen.shape[:3], -1))
        kept = kept * (best.values > 0)[:, None, None]
        return torch.einsum("btkn,btkhw->btnhw", kept, found)


def _pixels(frames: Tensor, bare: Ground, sightings: Tensor) -> Tensor:
    """Soft masks from the evidence of colour and the prior of place, shape (B, T, N, H, W)."""
    still = frames.detach()
    area = sightings.sum((-2, -1))
    usual = _usual(area)
    whole = (area > 0) & (area > 0.6 * usual) & (area < 1.45 * usual)
    alone = (area > 0) & (area < 1.45 * usual)
    places, best = _places(centroids(sightings)[0], whole), (area - usual).abs().masked_fill(~whole, torch.inf).argmin(1)
    at = best[:, None, :, None, None]
    seed = sightings.gather(1, at.expand(-1, 1, -1, *sightings.shape[-2:]))[:, 0]
    moved = places - places.gather(1, best[:, None, :, None].expand(-1, 1, -1, 2))
    elsewhere = carried(distance(seed), moved)
    here = distance(sightings.flatten(0, 1)).unflatten(0, sightings.shape[:2])
    away = torch.where(alone[..., None, None], here, elsewhere)
    away = torch.where(whole.any(1)[:, None, :, None, None], away, 8.0)
    clean = sightings * whole[..., None, None]
    long = still.transpose(1, 2).flatten(2, 3)
    looks = [histogram(long, clean[:, :, n].flatten(1, 2)) for n in range(clean.shape[2])]
    looks.append(histogram(bare.colour, bare.known[:, 0]))
    spread = (2 * bare.grain).clamp(0.04, 0.1)
    ratio = evidence(frames, Background(bare.colour, bare.known, spread), densities(frames, torch.stack(looks, dim=1)))
    return posterior(ratio, away) * whole.any(1)[:, None, :, None, None]


def _usual(area: Float[Tensor, "B T N"]) -> Float[Tensor, "B 1 N"]:
    """Median area over the frames in which the object was detected; 0 if never."""
    return torch.where(area > 0, area, torch.nan).nanmedian(1, keepdim=True).values.nan_to_num()


def _places(centres: Float[Tensor, "B T N 2"], seen: Bool[Tensor, "B T N"]) -> Float[Tensor, "B T N 2"]:
    """Centres where seen; between sightings a straight line, before the first and after the last the last known velocity."""
    steps = centres.shape[1]
    time = torch.arange(steps, device=centres.device).view(1, -1, 1)
    before = torch.where(seen, time, -1).cummax(1).values
    after = torch.where(seen, time, steps).flip(1).cummin(1).values.flip(1)
    inside = (before >= 0) & (after < steps)
    before, after = torch.where(before < 0, after, before), torch.where(after >= steps, before, after)
    rank = torch.where(inside, before, torch.where(time > before, before, after)).clamp(0, steps - 1)
    pair = _neighbours(seen, time, steps)
    low, high = (torch.where(inside, one, two).clamp(0, steps - 1) for one, two in ((before, pair[0]), (after, pair[1])))
    span = (high - low).clamp(min=1)
    start, end = (centres.gather(1, at[..., None].expand_as(centres)) for at in (low, high))
    velocity = (end - start) / span[..., None]
    anchor = centres.gather(1, rank[..., None].expand_as(centres))
    return anchor + velocity * (time - rank)[..., None]


def _neighbours(seen: Tensor, time: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """The two sightings that tell the velocity outside: the first two, or the last two."""
    first = torch.where(seen, time, steps - 1).amin(1, keepdim=True)
    last = torch.where(seen, time, 0).amax(1, keepdim=True)
    second = torch.where(seen & (time > first), time, steps - 1).amin(1, keepdim=True)
    third = torch.where(seen & (time < last), time, 0).amax(1, keepdim=True)
    second, third = torch.minimum(second, last), torch.maximum(third, first)
    early = time < first
    return torch.where(early, first, third), torch.where(early, second, last)
