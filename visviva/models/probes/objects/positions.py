"""Where objects are to a fraction of a pixel, and how sure that is: `Tracks` from masks and frames.

At the rim of an object a pixel is part object, part ground. Its share of object, the opacity ``a``, is solved from

    I = a O + (1 - a) G   =>   a = (I - G) . (O - G) / |O - G|^2

with G the ground behind and O the object's colour continued outward from its core; inside the core a = 1, far outside a = 0.
The position is the centroid of ``a``. The grain s of the frames then moves the centroid by

    sigma^2 = sum(r^2 (s^2 + k v) / |O - G|^2) / 2 A^2 + edge^2 pi R^3 / A^2,     r the distance of a rim pixel from the centre,

with v the variance of the object's colour near the rim (texture makes O uncertain, for k neighbouring pixels alike), and, in
the second term, ``edge`` [px] what shading and soft outlines do to the rim of a disc of the same area, of radius R. Rim pixels
whose ground is not known, or that touch another object, keep the mask's value and count with an error of `DOUBT`. The constants
are calibrated on drawn scenes (coverage of the 95 % interval: docs/measuring.md).

Frames are *cut, never interpolated*: an object is not ``visible`` where it touches the border of the image, where its area
falls below ``least_share`` of its usual one (it is partly hidden, or fades), and where it exceeds it by as much (it is merged).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from visviva.models.probes.objects.ground import Ground, ground
from visviva.models.probes.objects.look import look
from visviva.physics.kinematics import centroids
from visviva.physics.tracks import Tracks, tracks_of_masks

EDGE = 0.1
"""Uncertainty [px] of where the rim is, rim pixel by rim pixel, of a plain object."""

ALIKE = 6.0
"""How many neighbouring rim pixels err alike: texture is wider than a pixel."""

DOUBT = 0.3
"""Standard error of the opacity of a rim pixel whose ground is not known, or that another object touches; a third of it where
two colours contend for the ground."""


def object_tracks(
    frames: Float[Tensor, "B T 3 H W"],
    masks: Float[Tensor, "B T N H W"],
    bare: Ground | None = None,
    flow: Float[Tensor, "B t 2 H W"] | None = None,
    *,
    least_share: float = 0.85,
    least_area: float = 9.0,
    edge: float = EDGE,
) -> Tracks:
    """Return the tracks of objects with sub-pixel positions, calibrated sigma, area, moments, look and, with flow, spin.

    Differentiable with respect to masks and frames (through the opacities); sigma, visible and look are detached.

    Args:
        frames: colours in [0, 1].
        masks: of the objects.
        bare: the ground behind them (`ground`); found in the frames where not given. The camera is static.
        flow: for the spin.
        least_share: of its usual area (median over the clip) that an object must show to be placed.
        least_area: below which nothing is visible [px^2].
        edge: see `EDGE`.

    Example::

        tracks = object_tracks(frames, masks)
        tracks.positions[tracks.visible], tracks.sigma[tracks.visible]
    """
    bare = ground(frames) if bare is None else bare
    opacity, noise = _opacity(frames, masks, bare)
    tracks = tracks_of_masks(opacity, flow)
    positions, area = centroids(opacity)
    sigma = _sigma(noise, positions.detach(), area.detach(), edge)
    seen = visible(masks.detach(), area.detach(), least_share, least_area)
    return tracks.with_(visible=seen, sigma=sigma, look=look(frames, masks))


def _opacity(frames: Tensor, masks: Tensor, bare: Ground) -> tuple[Tensor, Tensor]:
    """Share of each object in each pixel, and the variance that grain gives it; both (B, T, N, H, W)."""
    solid = (masks.detach() > 0.5).to(frames.dtype)
    flat = solid.flatten(0, 1)
    core = (1 - torch.nn.functional.max_pool2d(1 - flat, 3, stride=1, padding=1)).view_as(solid)
    near = torch.nn.functional.max_pool2d(flat, 3, stride=1, padding=1).view_as(solid)
    others = (near.sum(2, keepdim=True) - near).clamp(0, 1)
    colour, texture = _continued(frames.detach(), core, solid, bare)
    apart = colour - bare.colour[:, None, None]
    strength = apart.square().sum(3).clamp(min=0.15**2)
    share = ((frames - bare.colour[:, None])[:, :, None] * apart).sum(3) / strength
    rim = near - core
    trusted = rim * (1 - others) * bare.known[:, None]
    clamped = share.clamp(0, 1) * (apart.square().sum(3) > 0.1**2)
    opacity = core + trusted * clamped + (rim - trusted) * masks
    doubt = DOUBT**2 * (trusted * bare.doubt[:, None] / 9 + rim - trusted)
    noise = trusted * (bare.grain.square().view(-1, 1, 1, 1, 1) + ALIKE * texture) / strength + ALIKE * doubt
    return opacity, noise


def _continued(still: Tensor, core: Tensor, solid: Tensor, bare: Ground) -> tuple[Tensor, Tensor]:
    """Colour of the core (of the mask, where there is no core) within 2 px of every pixel, and its variance without grain.

    Shapes (B, T, N, 3, H, W) and, averaged over the colours, (B, T, N, H, W).
    """
    weight = torch.where(core.sum((-2, -1), keepdim=True) >= 4, core, solid)[:, :, :, None]
    squares = still.square().sum(2, keepdim=True)
    layers = torch.cat([torch.cat([still, squares], dim=2)[:, :, None] * weight, weight], dim=3).flatten(0, 2)
    near = torch.nn.functional.avg_pool2d(layers, 5, stride=1, padding=2)
    near = torch.where(near[:, 4:] > 1e-4, near, layers.mean((-2, -1), keepdim=True))
    mean = (near[:, :4] / near[:, 4:].clamp(min=1e-6)).unflatten(0, core.shape[:3])
    spread = (mean[:, :, :, 3] - mean[:, :, :, :3].square().sum(3)) / 3 - bare.grain.square().view(-1, 1, 1, 1, 1)
    return mean[:, :, :, :3], spread.clamp(min=0)


def _sigma(noise: Tensor, positions: Tensor, area: Tensor, edge: float) -> Tensor:
    """Standard error of one coordinate [px], shape (B, T, N)."""
    height, width = noise.shape[-2:]
    xs = torch.arange(width, dtype=noise.dtype, device=noise.device) - positions[..., 0, None]
    ys = torch.arange(height, dtype=noise.dtype, device=noise.device) - positions[..., 1, None]
    moment = (noise.sum(-2) * xs.square()).sum(-1) + (noise.sum(-1) * ys.square()).sum(-1)
    safe = area.clamp(min=1.0)
    radius = (safe / torch.pi).sqrt()
    return (moment / 2 / safe.square() + edge**2 * torch.pi * radius.pow(3) / safe.square()).sqrt()


def visible(
    masks: Float[Tensor, "B T N H W"], area: Float[Tensor, "B T N"], least_share: float = 0.85, least_area: float = 9.0
) -> Bool[Tensor, "B T N"]:
    """Return where each object is seen whole: away from the border, and with its usual area.

    The usual area is the median over the frames in which the object is away from the border and at least ``least_area`` large.
    """
    solid = masks > 0.5
    edge = torch.cat([solid[..., 0, :], solid[..., -1, :], solid[..., :, 0], solid[..., :, -1]], dim=-1).any(-1)
    free = ~edge & (area >= least_area)
    usual = torch.where(free, area, torch.nan).nanmedian(1, keepdim=True).values.nan_to_num()
    return free & (area >= least_share * usual) & (area <= usual / least_share)
