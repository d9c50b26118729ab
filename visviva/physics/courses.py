"""Courses of bodies with known mechanics: falls, bounces, collisions, swings, slides, rolls and pushes.

Every motion is a frozen set of parameters, in pixels and seconds, whose ``course()`` gives the places and angles of the bodies
at the times of the frames, in closed form where there is one. Image y points down; angles grow clockwise as seen. B scenes, N
bodies, T frames. `visviva.physics.motions` draws them at random.

Example::

    ball = Bounces(times, start, velocity, gravity, restitution, floor)
    ball.course().trajectory  # (B, T, 1, 2)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from visviva.physics.sprites import Course

BOUNCES = 12
"""Impacts that are followed; after the last one the body rests."""

PUSH = 0.25
"""Share of a clip during which pushes act."""

SUBSTEPS = 8
"""Runge-Kutta steps of the pendulum per frame."""


@dataclass(frozen=True)
class Falls:
    """Free fall and throws, ``c = start + velocity t + gravity t^2 / 2``; bodies may turn freely.

    times (T,) [s]; start (B, N, 2) [px], velocity (B, N, 2) [px/s], gravity (B,) [px/s^2], spin (B, N) [rad/s].
    """

    times: Tensor
    start: Tensor
    velocity: Tensor
    gravity: Tensor
    spin: Tensor

    kind: ClassVar[str] = "falls"

    def course(self) -> Course:
        """Return a parabola and a steady rotation."""
        t = self.times[None, :, None]
        path = self.start[:, None] + self.velocity[:, None] * t[..., None]
        drop = self.gravity[:, None, None] * t.square() / 2
        path = torch.stack([path[..., 0], path[..., 1] + drop], dim=-1)
        return Course(path, self.spin[:, None] * t, torch.zeros(path.shape[:2], dtype=torch.bool))


@dataclass(frozen=True)
class Spins(Falls):
    """As `Falls`, of long bodies that turn visibly."""

    kind: ClassVar[str] = "spins"


@dataclass(frozen=True)
class Bounces:
    """A ball on a floor: falls under gravity, leaves each impact with ``restitution`` times its vertical speed.

    start, velocity (B, 1, 2); gravity (B,) [px/s^2]; restitution (B,); floor (B,): y of the centre at an impact [px].
    """

    times: Tensor
    start: Tensor
    velocity: Tensor
    gravity: Tensor
    restitution: Tensor
    floor: Tensor

    kind: ClassVar[str] = "bounces"

    def course(self) -> Course:
        """Return the parabolas between impacts, in closed form; after `BOUNCES` impacts the ball lies still."""
        t, g = self.times[None], self.gravity[:, None]
        height, speed = (self.floor - self.start[:, 0, 1])[:, None], -self.velocity[:, 0, 1, None]
        begin = torch.zeros_like(g)
        above = torch.zeros_like(t).expand(len(g), -1)
        contact = torch.zeros_like(above, dtype=torch.bool)
        for _ in range(BOUNCES):
            above = torch.where(t >= begin, height + speed * (t - begin) - g * (t - begin).square() / 2, above)
            lasts = (speed + (speed.square() + 2 * g * height).clamp(min=0).sqrt()) / g
            begin = begin + lasts
            speed, height = self.restitution[:, None] * (g * lasts - speed), torch.zeros_like(height)
            contact = contact | _near(self.times, begin)
        y = self.floor[:, None] - torch.where(t >= begin, 0.0, above.clamp(min=0))
        x = self.start[:, :, 0] + self.velocity[:, :, 0] * t
        path = torch.stack([x, y], dim=-1)[:, :, None]
        return Course(path, torch.zeros_like(path[..., 0]), contact)


@dataclass(frozen=True)
class Collides:
    """Two discs on a level table meet once; momentum is exchanged along the line of centres, masses are as the areas.

    start, velocity (B, 2, 2); radius (B, 2) [px]; restitution (B,), -1 lets them pass through each other; gain (B,): by what
    share the second disc receives more momentum than the first gives, 0 in nature.
    """

    times: Tensor
    start: Tensor
    velocity: Tensor
    radius: Tensor
    restitution: Tensor
    gain: Tensor

    kind: ClassVar[str] = "collides"

    def course(self) -> Course:
        """Return straight lines before and after the contact, in closed form."""
        apart, closing = self.start[:, 1] - self.start[:, 0], self.velocity[:, 1] - self.velocity[:, 0]
        a, b = closing.square().sum(-1), (apart * closing).sum(-1)
        c = apart.square().sum(-1) - self.radius.sum(-1).square()
        meets = (b < 0) & (b.square() > a * c)
        hit = torch.where(meets, (-b - (b.square() - a * c).clamp(min=0).sqrt()) / a.clamp(min=1e-12), float("inf"))
        when = torch.where(meets, hit, 0.0)
        normal = torch.nn.functional.normalize(apart + closing * when[:, None], dim=-1)
        mass = self.radius.square()
        impulse = (1 + self.restitution) * mass.prod(-1) / mass.sum(-1) * (closing * normal).sum(-1) * meets
        given = torch.stack([impulse, -(1 + self.gain) * impulse], dim=-1) / mass
        later = (self.times[None] - when[:, None]).clamp(min=0)
        path = self.start[:, None] + self.velocity[:, None] * self.times[None, :, None, None]
        path = path + (given[:, :, None] * normal[:, None])[:, None] * later[:, :, None, None]
        return Course(path, torch.zeros_like(path[..., 0]), _near(self.times, hit[:, None]))


@dataclass(frozen=True)
class Swings:
    """A rigid pendulum, ``th'' = -(gravity / length) sin th - damping th'``; the bob turns with its rod, which is not drawn.

    pivot (B, 2) [px]; length (B,) [px]; gravity (B,) [px/s^2]; damping (B,) [1/s]; theta (B,) from hanging [rad]; rate (B,).
    """

    times: Tensor
    pivot: Tensor
    length: Tensor
    gravity: Tensor
    damping: Tensor
    theta: Tensor
    rate: Tensor

    kind: ClassVar[str] = "swings"

    def course(self) -> Course:
        """Return the motion by `SUBSTEPS` Runge-Kutta steps per frame."""
        state, states = torch.stack([self.theta, self.rate]), []
        for step in [0.0, *self.times.diff().tolist()]:
            for _ in range(SUBSTEPS if step else 0):
                state = self._stepped(state, step / SUBSTEPS)
            states.append(state[0])
        theta = torch.stack(states, dim=1)
        arm = self.length[:, None, None] * torch.stack([torch.sin(theta), torch.cos(theta)], dim=-1)
        path = (self.pivot[:, None] + arm)[:, :, None]
        return Course(path, -theta[:, :, None], torch.zeros(path.shape[:2], dtype=torch.bool))

    def _stepped(self, state: Tensor, h: float) -> Tensor:
        def slope(s: Tensor) -> Tensor:
            return torch.stack([s[1], -(self.gravity / self.length) * torch.sin(s[0]) - self.damping * s[1]])

        k1 = slope(state)
        k2 = slope(state + h / 2 * k1)
        k3 = slope(state + h / 2 * k2)
        return state + h / 6 * (k1 + 2 * k2 + 2 * k3 + slope(state + h * k3))


@dataclass(frozen=True)
class Slides:
    """A body on a level table slows down by dry friction until it rests; the moment it stops is its contact.

    start, velocity (B, N, 2); deceleration (B,) [px/s^2]; negative: it gains speed from nothing.
    """

    times: Tensor
    start: Tensor
    velocity: Tensor
    deceleration: Tensor

    kind: ClassVar[str] = "slides"

    def course(self) -> Course:
        """Return ``start + direction (v t - mu g t^2 / 2)`` up to the moment of rest."""
        speed = self.velocity.norm(dim=-1)[:, None]
        slowing = self.deceleration[:, None, None]
        stop = torch.where(slowing > 0, speed / slowing, float("inf"))
        t = torch.minimum(self.times[None, :, None], stop)
        way = speed * t - slowing * t.square() / 2
        heading = torch.nn.functional.normalize(self.velocity, dim=-1)
        path = self.start[:, None] + heading[:, None] * way[..., None]
        return Course(path, torch.zeros_like(way), _near(self.times, stop[:, 0]))


@dataclass(frozen=True)
class Rolls:
    """A disc rolls without slipping along a straight line, ``angle = way / radius``.

    start (B, 1, 2); heading (B, 2), unit length; speed (B,) [px/s]; acceleration (B,) [px/s^2]; radius (B,) [px].
    """

    times: Tensor
    start: Tensor
    heading: Tensor
    speed: Tensor
    acceleration: Tensor
    radius: Tensor

    kind: ClassVar[str] = "rolls"

    def course(self) -> Course:
        """Return a uniformly accelerated way and the rotation that belongs to it (ground below: right is clockwise)."""
        way = self.speed[:, None] * self.times + self.acceleration[:, None] * self.times.square() / 2
        path = self.start + self.heading[:, None] * way[..., None]
        turned = torch.sign(self.heading[:, :1]) * way / self.radius[:, None]
        return Course(path[:, :, None], turned[:, :, None], torch.zeros_like(way, dtype=torch.bool))


@dataclass(frozen=True)
class Pushes:
    """Bodies at rest on a level table are pushed during the first `PUSH` of the clip; nothing brakes them after that.

    start (B, N, 2) [px]; force (B, N, 2) [px/s^2 times the unit of mass], zeros for a body that nothing pushes; mass (B, N).
    """

    times: Tensor
    start: Tensor
    force: Tensor
    mass: Tensor

    kind: ClassVar[str] = "pushes"

    @property
    def commanded(self) -> Tensor:
        """The force over the mass of each body, (B, N, 2) [px/s^2]."""
        return self.force / self.mass[..., None]

    def course(self) -> Course:
        """Return ``start + force / mass s(t)``, s being t^2 / 2 during the push and a straight line after it."""
        end = PUSH * self.times[-1]
        s = torch.where(self.times < end, self.times.square() / 2, end * (self.times - end / 2))
        path = self.start[:, None] + self.commanded[:, None] * s[None, :, None, None]
        return Course(path, torch.zeros_like(path[..., 0]), torch.zeros(path.shape[:2], dtype=torch.bool))


def _near(times: Tensor, events: Tensor) -> Tensor:
    """True for the frames within one frame of the events (B, K) [s], shape (B, T)."""
    return ((times[None, :, None] - events[:, None]).abs() < times[1] - times[0]).any(-1)
