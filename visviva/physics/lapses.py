"""Lapses: violations of mechanics in a few frames of an otherwise true clip, for learning and testing where they are.

Each takes drawn scenes, the frame where it begins and its strength, per clip, and returns scenes and which frames show what
they should not (B, T), bool. Every object of a clip lapses. Unlike in `visviva.physics.violations` the rest obeys mechanics.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from visviva.physics.sprites import Sprites

Lapsed = tuple[Sprites, Bool[Tensor, "B T"]]


def _time(scene: Sprites, start: Int[Tensor, " B"]) -> Tensor:
    """Frames since the start, shape (B, T)."""
    return torch.arange(scene.trajectory.shape[1], device=start.device)[None] - start[:, None]


def _step(scene: Sprites) -> Tensor:
    """Mean step [px] of each clip, at least half a pixel so that a lapse can be seen, shape (B,)."""
    return (scene.trajectory[:, 1:] - scene.trajectory[:, :-1]).norm(dim=-1).mean((1, 2)).clamp(min=0.5)


def kick(scene: Sprites, start: Int[Tensor, " B"], strength: Float[Tensor, " B"]) -> Lapsed:
    """Turn the objects' velocity aside, by ``strength`` mean steps per frame, for six frames: no force could have done it."""
    since = _time(scene, start)
    ahead = torch.nn.functional.normalize(scene.trajectory[:, -1] - scene.trajectory[:, 0], dim=-1)
    aside = torch.stack([-ahead[..., 1], ahead[..., 0]], dim=-1)
    path = torch.minimum(since, 6 - since).clamp(min=0)[:, :, None, None] * (strength * _step(scene))[:, None, None, None]
    return scene.with_(trajectory=scene.trajectory + path * aside[:, None]), (since > 0) & (since < 6)


def hiccup(scene: Sprites, start: Int[Tensor, " B"], strength: Float[Tensor, " B"]) -> Lapsed:
    """Let time stand still for ``strength`` frames (whole numbers) and then jump on."""
    since = _time(scene, start)
    length = strength.round().clamp(min=1)[:, None]
    back = torch.where((since >= 0) & (since < length), since + 1, 0).long()
    when = (torch.arange(since.shape[1], device=since.device)[None] - back).clamp(min=0)
    place = scene.trajectory.gather(1, when[:, :, None, None].expand_as(scene.trajectory))
    return scene.with_(trajectory=place), (since >= 0) & (since < length)


def shake(scene: Sprites, start: Int[Tensor, " B"], strength: Float[Tensor, " B"]) -> Lapsed:
    """Shake the objects to and fro across their path by ``strength`` mean steps for four frames."""
    since = _time(scene, start)
    during = (since >= 0) & (since < 4)
    sign = torch.where(since % 2 == 0, 1.0, -1.0) * during
    off = (sign * (strength * _step(scene))[:, None])[:, :, None, None] * torch.tensor([0.6, 0.8]).to(scene.trajectory)
    return scene.with_(trajectory=scene.trajectory + off), during


def blink(scene: Sprites, start: Int[Tensor, " B"], strength: Float[Tensor, " B"]) -> Lapsed:
    """Let the objects vanish for ``strength`` frames (whole numbers)."""
    since = _time(scene, start)
    away = (since >= 0) & (since < strength.round().clamp(min=1)[:, None])
    return scene.with_(opacity=scene.opacity * ~away[:, :, None]), away


def swell(scene: Sprites, start: Int[Tensor, " B"], strength: Float[Tensor, " B"]) -> Lapsed:
    """Let the objects grow by the share ``strength`` and shrink back within five frames."""
    since = _time(scene, start)
    bump = torch.where((since >= 0) & (since < 5), torch.sin(torch.pi * (since + 1) / 6), 0.0)
    return scene.with_(scale=scene.scale * (1 + strength[:, None] * bump)[:, :, None]), (since >= 0) & (since < 5)


LAPSES: dict[str, Callable[[Sprites, Tensor, Tensor], Lapsed]] = {
    "kick": kick,
    "hiccup": hiccup,
    "shake": shake,
    "blink": blink,
    "swell": swell,
}
