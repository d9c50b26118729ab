"""Violations of mechanics with names, made from scenes whose motion is known: what each law declares to detect.

Every function takes true scenes (`visviva.physics.sprites.Sprites`) and returns the same scenes, violated; the size of the
violation scales with the scene's own motion so that it means the same at every resolution. ``VIOLATIONS`` maps names to
`Violation`: the function, and which kinds of scenes can be violated so (a wrong g needs gravity, an exchange of looks two
bodies). Laws name them in ``detects`` and `visviva.eval.calibrate` measures how well each law tells them from the truth.

Example::

    broken = VIOLATIONS["jitter"](random_sprites(8, seed=0))
    frames = broken.render().frames
    [name for name, violation in VIOLATIONS.items() if violation.applies(draw("bounces", 1, seed=0))]
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from visviva.errors import InputError
from visviva.physics.motions import KINDS
from visviva.physics.sprites import Sprites


@dataclass(frozen=True)
class Violation:
    """A way to break mechanics and the scenes in which it can be broken so.

    Attributes:
        breaks: returns the violated scenes.
        kinds: kinds of scenes (`visviva.physics.motions.KINDS`) that have what it changes; None: every kind.
        objects: how many bodies it takes.

    Raises:
        InputError: called with scenes that it does not apply to.
    """

    breaks: Callable[[Sprites], Sprites]
    kinds: frozenset[str] | None = None
    objects: int = 1

    def applies(self, scene: Sprites) -> bool:
        """Say whether the scenes can be violated so."""
        return (self.kinds is None or scene.kind in self.kinds) and scene.trajectory.shape[2] >= self.objects

    def __call__(self, scene: Sprites) -> Sprites:
        """Return the same scenes, violated."""
        if not self.applies(scene):
            kinds = "any kind" if self.kinds is None else " or ".join(sorted(self.kinds))
            raise InputError(
                f"scenes of kind {scene.kind!r} with {scene.trajectory.shape[2]} bodies cannot be violated by "
                f"{self.breaks.__name__.strip('_')!r}; give scenes of {kinds} with {self.objects} or more"
            )
        return self.breaks(scene)


def jitter(scene: Sprites) -> Sprites:
    """Add independent position noise in every frame: 0.5 px, or a quarter of the mean step where that is larger."""
    generator = torch.Generator().manual_seed(scene.seed + 1)
    noise = torch.randn(scene.trajectory.shape, generator=generator).to(scene.trajectory)
    size = (0.25 * _step(scene)).clamp(min=0.5)
    return scene.with_(trajectory=scene.trajectory + size[:, None, :, None] * noise)


def dead_stop(scene: Sprites) -> Sprites:
    """Stop at the middle frame and stay there; in clips with known contacts in the middle of the longest time without one."""
    return _retimed(scene, torch.arange(_frames(scene)).to(scene.trajectory.device).minimum(_middle(scene)[:, None]))


def float_(scene: Sprites) -> Sprites:
    """Switch the acceleration off at the frame of `dead_stop`: the body goes on with the velocity that it has."""
    clip, middle = torch.arange(len(scene.trajectory), device=scene.trajectory.device), _middle(scene)
    here, before = scene.trajectory[clip, middle, None], scene.trajectory[clip, middle - 1, None]
    later = (torch.arange(_frames(scene), device=middle.device) - middle[:, None])[..., None, None]
    return scene.with_(trajectory=torch.where(later > 0, here + (here - before) * later, scene.trajectory))


def speed_up(scene: Sprites) -> Sprites:
    """Run the same path 1.5 times as fast and on from there: a motion with 2.25 times the acceleration."""
    start = scene.trajectory[:, :1]
    velocity = scene.trajectory[:, 1:2] - start
    t = torch.arange(_frames(scene)).to(start)[None, :, None, None]
    change = scene.trajectory[:, 2:3] - 2 * scene.trajectory[:, 1:2] + start
    initial = velocity - change / 2
    return scene.with_(trajectory=start + initial * 1.5 * t + change * (1.5 * t).square() / 2)


def teleport(scene: Sprites) -> Sprites:
    """Jump sideways by twice the mean step (at least 3 px) at the frame of `dead_stop`, towards the middle of the image."""
    clip, middle = torch.arange(len(scene.trajectory), device=scene.trajectory.device), _middle(scene)
    height, width = scene.background.shape[-2:]
    centre = torch.tensor([(width - 1) / 2, (height - 1) / 2]).to(scene.trajectory)
    inwards = torch.sign(centre - scene.trajectory[clip, middle])
    inwards = torch.where(inwards == 0, 1.0, inwards) / 2**0.5
    jump = (2 * _step(scene)).clamp(min=3.0)[..., None] * inwards
    later = (torch.arange(_frames(scene), device=middle.device) >= middle[:, None]).to(jump)[..., None, None]
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


def size_drift(scene: Sprites) -> Sprites:
    """Let the objects grow steadily by 35 %, or shrink to 1 / 1.35 of their size, one or the other for each object."""
    generator = _generator(scene, 2)
    grow = torch.where(torch.rand(scene.scale.shape[::2], generator=generator) < 0.5, 1.35, 1 / 1.35).to(scene.scale)
    share = torch.linspace(0, 1, _frames(scene)).to(scene.scale)[None, :, None]
    return scene.with_(scale=scene.scale * grow[:, None].pow(share))


def swapped_identity(scene: Sprites) -> Sprites:
    """Let the first two objects exchange their looks (colours, outline, size) at the middle frame, each keeping its path."""
    order = torch.arange(scene.trajectory.shape[2])
    order[:2] = order[:2].flip(0)
    middle = _frames(scene) // 2

    def exchanged(x: Tensor) -> Tensor:
        return torch.cat([x[:, :middle], x[:, middle:, order.to(x.device)]], dim=1)

    return scene.with_(texture=exchanged(scene.texture), alpha=exchanged(scene.alpha), scale=exchanged(scene.scale))


def reversed_time(scene: Sprites) -> Sprites:
    """Show the clip backwards: what friction or an impact took comes back from nowhere.

    An impact with a restitution above 0.95, which loses next to nothing, has 0.95 first: its reverse is hardly a violation.
    """
    if hasattr(scene.motion, "restitution"):
        scene = _again(scene, restitution=lambda e: e.clamp(max=0.95))
    return _told(scene, torch.arange(_frames(scene)).flip(0))


def self_start(scene: Sprites) -> Sprites:
    """Let the bodies rest until the middle frame, then set off at once as if pushed by nothing; a push is answered late."""
    return _told(scene, (torch.arange(_frames(scene)) - _frames(scene) // 2).clamp(min=0))


def wrong_spin(scene: Sprites) -> Sprites:
    """Change the rotation at the middle frame without a cause: it reverses, stops, or becomes 2.5 times as fast."""
    angle: Any = scene.angle  # the kinds that it applies to have one
    factor = torch.tensor([-1.0, 0.0, 2.5])[torch.randint(3, angle.shape[::2], generator=_generator(scene, 3))]
    before = angle[:, _frames(scene) // 2, None]
    later = (torch.arange(_frames(scene)) >= _frames(scene) // 2)[None, :, None].to(angle.device)
    return scene.with_(angle=torch.where(later, before + factor.to(before)[:, None] * (angle - before), angle))


def wrong_g(scene: Sprites) -> Sprites:
    """Let gravity be 1.6 to 2.2 or, where a body would leave the view, and in half of the others, 0.4 to 0.6 of what it is."""
    generator = _generator(scene, 4)
    count = scene.trajectory.shape[0]
    weak, strong = (a + b * torch.rand(count, generator=generator) for a, b in ((0.4, 0.2), (1.6, 0.6)))
    heavy = _again(scene, gravity=lambda g: g * strong.to(g))
    size = torch.tensor(scene.background.shape[:-3:-1]).to(heavy.trajectory)
    inside = ((heavy.trajectory > 0) & (heavy.trajectory < size - 1)).flatten(1).all(1)
    strong = torch.where((torch.rand(count, generator=generator).to(inside.device) < 0.5) & inside, strong, weak)
    return _again(scene, gravity=lambda g: g * strong.to(g))


def energy_gain(scene: Sprites) -> Sprites:
    """Let mechanical energy come from nothing.

    An impact returns 1.3 to 1.6 times the speed (``bounces``, ``collides``), a pendulum swings ever wider, a sliding body
    speeds up, by a quarter of what friction would have slowed it.
    """
    gain = 1.3 + 0.3 * torch.rand(scene.trajectory.shape[0], generator=_generator(scene, 5))
    if scene.kind == "swings":
        steps = float(scene.motion.times[-1])  # type: ignore[union-attr]
        return _again(scene, damping=lambda b: torch.full_like(b, -2.0 / steps))
    if scene.kind == "slides":
        return _again(scene, deceleration=lambda a: -0.25 * a)
    return _again(scene, restitution=lambda e: gain.to(e))


def interpenetration(scene: Sprites) -> Sprites:
    """Let two bodies pass through each other."""
    return _again(scene, restitution=lambda e: torch.full_like(e, -1.0))


def momentum_gain(scene: Sprites) -> Sprites:
    """Let the second body of a collision receive 1.6 to 2.2 times the momentum that the first one gives."""
    gain = 0.6 + 0.6 * torch.rand(scene.trajectory.shape[0], generator=_generator(scene, 6))
    return _again(scene, gain=lambda none: gain.to(none))


def wrong_way(scene: Sprites) -> Sprites:
    """Let each push move its body another way, by 60 to 300 degrees off."""
    force: Tensor = scene.motion.force  # type: ignore[union-attr]
    turn = math.pi * (1 / 3 + 4 / 3 * torch.rand(force.shape[:2], generator=_generator(scene, 7))).to(force)
    across = torch.stack([-force[..., 1], force[..., 0]], dim=-1)
    return _again(scene, force=lambda f: torch.cos(turn)[..., None] * f + torch.sin(turn)[..., None] * across)


def wrong_mass(scene: Sprites) -> Sprites:
    """Let the first two bodies answer as if each had the mass of the other; where only one is pushed nothing changes."""
    force: Tensor = scene.motion.force  # type: ignore[union-attr]
    both = (force[:, :2].norm(dim=-1) > 0).all(1, keepdim=True)
    order = torch.arange(force.shape[1])
    order[:2] = order[:2].flip(0)
    return _again(scene, mass=lambda m: torch.where(both, m[:, order], m))


def bystander(scene: Sprites) -> Sprites:
    """Let what nothing pushes move along with the first body, at 0.5 to 1 of its speed; none where all are pushed."""
    motion: Any = scene.motion
    share = (0.5 + 0.5 * torch.rand(motion.mass.shape, generator=_generator(scene, 8))).to(motion.mass)
    along = (share * motion.mass)[..., None] * motion.commanded[:, :1]
    return _again(scene, force=lambda f: torch.where(f.norm(dim=-1, keepdim=True) > 0, f, along))


def _again(scene: Sprites, **changes: Callable[[Tensor], Tensor]) -> Sprites:
    """Return the scene driven by its motion with changed parameters."""
    motion: Any = scene.motion
    return scene.driven(replace(motion, **{name: change(getattr(motion, name)) for name, change in changes.items()}))


def _generator(scene: Sprites, salt: int) -> torch.Generator:
    return torch.Generator().manual_seed(100 * scene.seed + salt)


def _retimed(scene: Sprites, time: Tensor) -> Sprites:
    """Show the scene's frames at other times, (T,) or (B, T) for each clip."""
    clip, time = torch.arange(len(scene.trajectory))[:, None], time.cpu().expand(len(scene.trajectory), -1)
    named = {name: getattr(scene, name) for name in ("trajectory", "texture", "alpha", "scale", "opacity", "angle")}
    return scene.with_(**{name: x[clip.to(x.device), time.to(x.device)] for name, x in named.items() if x is not None})


def _told(scene: Sprites, time: Tensor) -> Sprites:
    """As `_retimed`, the known contacts going with the motion."""
    return _retimed(scene, time).with_(contact=None if scene.contact is None else scene.contact[:, time])


def _frames(scene: Sprites) -> int:
    return scene.trajectory.shape[1]


def _middle(scene: Sprites) -> Tensor:
    """The frame in the middle of each clip, or of its longest run of frames without a known contact, (B,).

    What breaks at a contact may be what the contact did: laws of free motion look between contacts.
    """
    frames, device = _frames(scene), scene.trajectory.device
    if scene.contact is None or not bool(scene.contact.any()):
        return torch.full((len(scene.trajectory),), frames // 2, device=device)
    run = scene.contact.to(device).cumsum(1)
    free = torch.nn.functional.one_hot(run, frames + 1) * ~scene.contact.to(device)[..., None]
    longest = free.sum(1).argmax(1)
    inside = (run == longest[:, None]) & ~scene.contact.to(device)
    first, count = inside.int().argmax(1), inside.sum(1)
    return (first + count // 2).clamp(1, frames - 1)


def _step(scene: Sprites) -> Tensor:
    """Mean distance moved from frame to frame [px], shape (B, N)."""
    return (scene.trajectory[:, 1:] - scene.trajectory[:, :-1]).norm(dim=-1).mean(1)


VIOLATIONS: dict[str, Violation] = {
    "jitter": Violation(jitter),
    "dead_stop": Violation(dead_stop, frozenset(KINDS) - {"slides"}),
    "float": Violation(float_, frozenset(KINDS) - {"collides", "pushes"}),
    "speed_up": Violation(speed_up, frozenset({"moves", "falls", "spins"})),
    "teleport": Violation(teleport),
    "freeze": Violation(freeze),
    "vanish": Violation(vanish),
    "empty": Violation(empty),
    "shrink": Violation(shrink),
    "fade": Violation(fade),
    "noise": Violation(noise),
    "size_drift": Violation(size_drift),
    "swapped_identity": Violation(swapped_identity, objects=2),
    "reversed_time": Violation(reversed_time, frozenset({"bounces", "slides", "collides", "pushes"})),
    "self_start": Violation(self_start, frozenset({"slides", "collides", "pushes"})),
    "wrong_spin": Violation(wrong_spin, frozenset({"spins", "rolls"})),
    "wrong_g": Violation(wrong_g, frozenset({"falls", "spins", "bounces", "swings"})),
    "energy_gain": Violation(energy_gain, frozenset({"bounces", "collides", "swings", "slides"})),
    "interpenetration": Violation(interpenetration, frozenset({"collides"})),
    "momentum_gain": Violation(momentum_gain, frozenset({"collides"})),
    "wrong_way": Violation(wrong_way, frozenset({"pushes"})),
    "wrong_mass": Violation(wrong_mass, frozenset({"pushes"}), objects=2),
    "bystander": Violation(bystander, frozenset({"pushes"}), objects=2),
}
