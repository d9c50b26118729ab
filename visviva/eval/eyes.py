"""Eyes: what looks at drawn scenes for a calibration, exactly or through the probes and a camera's grain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.models.probes import Combined, Oracle, PatchFeatures, TrackedMasks
from visviva.models.probes.objects.look import look
from visviva.physics.measurement import Measurement, Probe
from visviva.physics.sprites import Rendered, Sprites
from visviva.physics.tracks import Tracks, tracks_of_masks

Shown = Callable[[Tensor, int], Tensor]
"""What happens to frames (B, T, 3, H, W) on their way to the probe; the number makes two takes of one scene two clips."""

GRAIN = 0.01
"""Standard deviation of the grain of estimated clips, in units of the full range: 2.5 grey values of 255."""


def photographed(frames: Float[Tensor, "B T 3 H W"], take: int = 0) -> Float[Tensor, "B T 3 H W"]:
    """Return frames as a camera would store them: with white grain, in 8 bits."""
    return ((frames + GRAIN * _grain(tuple(frames.shape), take)).clamp(0, 1) * 255).round() / 255


@lru_cache(maxsize=2)
def _grain(shape: tuple[int, ...], take: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(take))


@dataclass(frozen=True)
class Eyes:
    """What looks at the clips: flow (where wanted), appearance features, surprise, and what happens to the frames before."""

    flow: Probe | None
    features: Probe
    surprise: Probe | None = None
    shown: Shown = photographed

    def true(self, scene: Sprites, drawn: Rendered, fps: Tensor) -> Measurement:
        """Return the exact measurement of a scene."""
        frames = drawn.frames.clamp(0, 1)
        known = Combined(Oracle(flow=drawn.flow, masks=drawn.masks), features=PatchFeatures())(frames, fps)
        tracks = tracks_of_masks(drawn.masks, drawn.flow)
        spin = tracks.spin if scene.angle is None else scene.angle.diff(dim=1)
        exact = tracks.with_(positions=scene.trajectory, sigma=torch.full_like(tracks.sigma, 0.01), spin=spin)
        return self._completed(known, scene, frames, exact).with_(contact=scene.contact)

    def estimate(self, scene: Sprites, drawn: Rendered, fps: Tensor, first: Tensor, take: int) -> Measurement:
        """Return what the probes see; they are told the first masks, scale, forces and, of taken-apart clips, contacts."""
        frames = self.shown(drawn.frames, take)
        seen = Combined(self.flow, masks=TrackedMasks(), features=self.features)(frames, fps, first)
        seen = self._completed(seen, scene, frames, None)
        return seen if scene.motion is not None else seen.with_(contact=scene.contact)

    def _completed(self, seen: Measurement, scene: Sprites, frames: Tensor, tracks: Tracks | None) -> Measurement:
        """Add tracks, with their looks where there are several bodies, surprise, scale and what was commanded."""
        masks = seen.masks
        tracks = tracks or (None if masks is None else seen.tracked())
        if tracks is not None and masks is not None and masks.shape[2] > 1:
            halves = frames[..., ::2, ::2], masks[..., ::2, ::2]
            looks = torch.cat([look(frame[None], mask[None]) for frame, mask in zip(*halves, strict=True)])
            tracks = tracks.with_(look=looks)
        if self.surprise is not None:
            seen = seen.with_(surprise=self.surprise(frames, seen.fps).surprise)
        return seen.with_(tracks=tracks, scale=scene.metres, force=scene.force)
