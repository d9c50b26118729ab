"""What the inverse dynamics learns from: simulated actions at 30 frames/s, their markers, torques and ground forces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from visviva.data.actions import ACTIONS, draw
from visviva.data.motions.skin import skin
from visviva.eval.motion.labels import labels
from visviva.models.imdy import AHEAD, FPS, PAST, SPAN

RATE = 2
"""Clips are drawn and labelled at so many times the rate that the network sees."""
TOGETHER = 60


@dataclass(frozen=True)
class Clips:
    """N clips of T frames.

    Attributes:
        names: of the actions.
        markers: the pool of `visviva.data.motions.skin`, (N, T, 96, 3) [m].
        torque: (N, T, 21, 3) [N m/kg]; ``force``: (N, T, 4, 3) [body weights].
        joints: at the rate of drawing, whole clips (N, S, 22, 3) [m], with ``rotations`` and ``stature``: to label again.
    """

    names: tuple[str, ...]
    markers: Tensor
    torque: Tensor
    force: Tensor
    joints: Tensor
    rotations: Tensor
    stature: Tensor

    @property
    def places(self) -> Tensor:
        """Every (clip, frame) that can be the current one of a window, (W, 2)."""
        frames = torch.arange(PAST, self.markers.shape[1] - AHEAD)
        return torch.cartesian_prod(torch.arange(len(self.markers)), frames)

    def window(self, places: Tensor, markers: Tensor) -> Tensor:
        """Return windows of some markers of the pool, (W, 6, K, 3)."""
        frames = places[:, 1:] + torch.arange(-PAST, SPAN - PAST)
        return self.markers[places[:, :1], frames][:, :, markers]

    def truth(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Return torques (W, 21, 3), and ground forces of current and next frame (W, 2, 4, 3)."""
        clip, frame = places.unbind(1)
        force = torch.stack([self.force[clip, frame], self.force[clip, frame + 1]], 1)
        return self.torque[clip, frame], force


def clips(each: int, seed: int, seconds: float = 2.0, actions: Sequence[str] = tuple(ACTIONS)) -> Clips:
    """Return so many clips of each action; the same arguments give the same clips."""
    names = list(actions) * each
    parts = [_labelled(names[k : k + TOGETHER], seed * 1000 + k, seconds) for k in range(0, len(names), TOGETHER)]
    tensors = [torch.cat([part[k] for part in parts]) for k in range(6)]
    return Clips(tuple(names), *tensors)


def _labelled(names: list[str], seed: int, seconds: float) -> tuple[Tensor, ...]:
    batch = draw(names, seed=seed, fps=RATE * FPS, seconds=seconds)
    found = labels(batch.joints, batch.rotations, batch.stature, batch.fps)
    kept = slice(found.frames.start, found.frames.stop, RATE)
    markers = skin(batch.joints[:, kept, 0], batch.rotations[:, kept], batch.rest[:, None])
    return (
        markers,
        found.torque[:, ::RATE].float(),
        found.force[:, ::RATE].float(),
        batch.joints,
        batch.rotations,
        batch.stature,
    )


def turned(window: Tensor, force: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Return windows and ground forces turned about the vertical by angles (W,) [rad]; torques are in the links' frames."""
    c, s, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    turn = torch.stack([c, -s, zero, s, c, zero, zero, zero, zero + 1], -1).view(-1, 3, 3)
    return torch.einsum("wij,wskj->wski", turn, window), torch.einsum("wij,wtgj->wtgi", turn, force)
