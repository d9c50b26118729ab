"""Violations of mechanics with names, made from scenes whose motion is known: what each law declares to detect.

Every function takes true scenes (`visviva.physics.sprites.Sprites`) and returns the same scenes, violated; the size of the
violation scales with the scene's own motion so that it means the same at every resolution. ``VIOLATIONS`` maps names to
functions; laws name them in ``detects`` and `visviva.eval.calibrate` measures how well each law tells them from the truth.

Example::

    broken = VIOLATIONS["jitter"](random_sprites(8, seed=0))
    frames = broken.render().frames
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from visviva.physics.sprites import Sprites


def jitter(scene: Sprites) -> Sprites:
    """Add independent position noise in every frame: 0.5 px, or a quarter of the mean step where that is larger."""
    generator = torch.Generator().manual_seed(scene.seed + 1)
    noise = torch.randn(scene.trajectory.shape, generator=generator).to(scene.trajectory)
    size = (0.25 * _step(scene)).clamp(min=0.5)
    return scene.with_(trajectory=scene.trajectory + size[:, None, :, None] * noise)


def dead_stop(scene: Sprites) -> Sprites:
    """Stop at the middle frame and stay there."""
    return _retimed(scene, torch.arange(_frames(scene)).clamp(max=_frames(scene) // 2))


def float_(scene: Sprites) -> Sprites:
    """Switch the acceleration off at the middle frame: the body goes on with the velocity that it has."""
    middle = _frames(scene) // 2
    velocity = scene.trajectory[:, middle] - scene.trajectory[:, middle - 1]
    later = torch.arange(_frames(scene), device=velocity.device) - middle
    onward = scene.trajectory[:, middle, None] + velocity[:, None] * later[None, :, None, None]
    return scene.with_(trajectory=torch.where((later > 0)[None, :, None, None], onward, scene.trajectory))


def speed_up(scene: Sprites) -> Sprites:
    """Run the same path 1.5 times as fast and on from there: a motion with 2.25 times the acceleration."""
    start = scene.trajectory[:, :1]
    velocity = scene.trajectory[:, 1:2] - start
    t = torch.arange(_frames(scene)).to(start)[None, :, None, None]
    change = scene.trajectory[:, 2:3] - 2 * scene.trajectory[:, 1:2] + start
    initial = velocity - change / 2
    return scene.with_(trajectory=start + initial * 1.5 * t + change * (1.5 * t).square() / 2)


def teleport(scene: Sprites) -> Sprites:
    """Jump sideways by twice the mean step (at least 3 px) at the middle frame, towards the middle of the image."""
    middle = _frames(scene) // 2
    height, width = scene.background.shape[-2:]
    centre = torch.tensor([(width - 1) / 2, (height - 1) / 2]).to(scene.trajectory)
    inwards = torch.sign(centre - scene.trajectory[:, middle])
    inwards = torch.where(inwards == 0, 1.0, inwards) / 2**0.5
    jump = (2 * _step(scene)).clamp(min=3.0)[..., None] * inwards
    later = (torch.arange(_frames(scene)) >= middle).to(jump)[None, :, None, None]
    return scene.with_(trajectory=scene.trajectory + later * jump[:, None])


def freeze(scene: Sprites) -> Sprites:
    """Show the first frame throughout."""
    return _retimed(scene, torch.zeros(_frames(scene), dtype=torch.long))


def vanish(scene: Sprites) -> Sprites:
    """Take the objects away from the middle frame on."""
    later = torch.arange(_frames(scene), device=scene.opacity.device) >= _frames(scene) // 2
    return scene.with_(opacity=scene.opacity * ~later[None, :, None])


def empty(scene: Sprites) -> Sprites:
    """Show the background alone, from the second frame on."""
    later = torch.arange(_frames(scene), device=scene.opacity.device) >= 1
    return scene.with_(opacity=scene.opacity * ~later[None, :, None])


def shrink(scene: Sprites) -> Sprites:
    """Let the objects shrink steadily to half their size."""
    factor = torch.linspace(1.0, 0.5, _frames(scene)).to(scene.scale)
    return scene.with_(scale=scene.scale * factor[None, :, None])


def fade(scene: Sprites) -> Sprites:
    """Let the objects fade steadily to a quarter of their opacity."""
    factor = torch.linspace(1.0, 0.25, _frames(scene)).to(scene.opacity)
    return scene.with_(opacity=scene.opacity * factor[None, :, None])


def noise(scene: Sprites) -> Sprites:
    """Show white noise and nothing else."""
    return scene.with_(noise=torch.ones_like(scene.noise))


def _retimed(scene: Sprites, time: Tensor) -> Sprites:
    return scene.with_(
        trajectory=scene.trajectory[:, time], texture=scene.texture[:, time], alpha=scene.alpha[:, time],
        scale=scene.scale[:, time], opacity=scene.opacity[:, time],
    )  # fmt: skip


def _frames(scene: Sprites) -> int:
    return scene.trajectory.shape[1]


def _step(scene: Sprites) -> Tensor:
    """Mean distance moved from frame to frame [px], shape (B, N)."""
    return (scene.trajectory[:, 1:] - scene.trajectory[:, :-1]).norm(dim=-1).mean(1)


VIOLATIONS: dict[str, Callable[[Sprites], Sprites]] = {
    "jitter": jitter,
    "dead_stop": dead_stop,
    "float": float_,
    "speed_up": speed_up,
    "teleport": teleport,
    "freeze": freeze,
    "vanish": vanish,
    "empty": empty,
    "shrink": shrink,
    "fade": fade,
    "noise": noise,
}
