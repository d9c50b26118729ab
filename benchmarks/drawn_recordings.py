"""Drawn recordings of laboratory motions, and the same with one thing broken: what `benchmarks/recordings.py` measures on.

A `Scene` is a simulated motion in metres (gravity, drag, restitution, friction, a rod) and a look: size, frame rate, ball,
background, camera noise, exposure, sway, compression. `broken` changes one thing of it. All is reproducible by seed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from visviva.data.video import write_video

Random = np.random.Generator
Pull = Callable[[float], float]
Simulation = Callable[[Pull], NDArray]
Contact = Callable[[NDArray, NDArray], tuple[NDArray, NDArray]]

KINDS = ("fall", "throw", "bounce", "ramp", "slide", "swing", "struck")
G = 9.81
MOST = 90
"""Most frames of a clip."""
FINE = 24
"""Simulated steps per frame."""


@dataclass(frozen=True)
class Look:
    """How a scene is filmed: (height, width), noise [grey values], exposure [frame times], sway [px], x264 quality, seed."""

    size: tuple[int, int]
    radius: float
    colour: NDArray
    noise: float
    exposure: float
    sway: float
    crf: int
    plain: bool
    thread: bool
    seed: int


@dataclass(frozen=True)
class Scene:
    """A motion that can be run again: ``simulate(pull)`` gives its fine path [m] under gravity ``pull(t)`` times 9.81.

    ``span``: frames; ``origin``, ``scale``: of metres in the image [px], [px/m]; ``irreversible``: a film of it that runs
    backwards can be told by mechanics.
    """

    kind: str
    fps: float
    span: int
    scale: float
    origin: NDArray
    simulate: Callable[[Callable[[float], float]], NDArray] = field(repr=False)
    look: Look = field(repr=False)
    irreversible: bool = False
    floor: float | None = None

    def path(self, pull: Callable[[float], float] = lambda t: 1.0) -> Callable[[NDArray], NDArray]:
        """Return the place [px] at fractional frames."""
        fine = self.origin + self.scale * self.simulate(pull)
        at = np.arange(len(fine)) / FINE

        def place(u: NDArray) -> NDArray:
            return np.stack([np.interp(u, at, fine[:, a]) for a in range(2)], axis=-1)

        return place


@dataclass
class Version:
    """What is drawn: places at fractional frames, and per frame the ball's size, opacity, colour change, bulge (share, angle);
    a second ball; a changed background's share."""

    place: Callable[[NDArray], NDArray]
    count: int
    grown: NDArray
    opacity: NDArray
    tint: NDArray
    bulge: NDArray
    second: Callable[[NDArray], NDArray] | None = None
    second_opacity: NDArray | None = None
    other_wall: NDArray | None = None
    then: Version | None = None
    """What is spliced in after this one."""
    then_scene: Scene | None = None

    @classmethod
    def of(cls, place: Callable[[NDArray], NDArray], count: int) -> Version:
        """Return an unbroken version."""
        return cls(place, count, np.ones(count), np.ones(count), np.zeros((count, 3)), np.zeros((count, 2)))


def draw(kind: str, seed: int) -> Scene:
    """Draw a scene of a kind."""
    random = np.random.default_rng([KINDS.index(kind), seed])
    height, width = [(240, 320), (270, 480), (360, 480), (360, 640), (320, 240), (480, 270), (480, 640)][random.integers(7)]
    fps = float(random.choice([24, 25, 30, 30, 50, 60, 60, 120]))
    look = Look(
        (height, width),
        0.0,
        random.uniform(20, 255, 3),
        random.uniform(0.5, 4.0),
        random.uniform(0.05, 0.6),
        float(random.choice([0, 0, 0.5, 1.5])),
        int(random.choice([14, 18, 23, 28])),
        bool(random.random() < 0.3),
        kind in ("swing", "struck") and bool(random.random() < 0.5),
        int(random.integers(1 << 30)),
    )
    scene = {"fall": _fall, "throw": _throw, "bounce": _bounce, "ramp": _ramp, "slide": _slide}.get(kind, _swing)(
        random, fps, look, kind
    )
    away = scene.path()(np.arange(scene.span).astype(float))
    wall_colour = _wall(look).mean((0, 1))
    colour = look.colour
    while np.abs(colour - wall_colour).max() < 70:
        colour = random.uniform(20, 255, 3)
    radius = float(np.clip(random.uniform(0.02, 0.05) * scene.scale, 4.5, 0.09 * min(height, width)))
    inside = (away > -radius).all(1) & (away < np.array([width, height]) + radius).all(1)
    span = scene.span if inside.all() else int(np.argmin(inside)) + 1 if inside[0] else scene.span
    span = max(span, min(scene.span, 14))
    return dataclasses.replace(scene, span=span, look=dataclasses.replace(look, radius=radius, colour=colour))


def _integrated(
    state: NDArray, force: Callable[[NDArray, NDArray, float], NDArray], fps: float, count: int, contact: Contact | None = None
) -> NDArray:
    """Return the fine path (count * FINE, 2) by midpoint steps; ``contact(x, v)`` may change both."""
    x, v, dt = state[:2].astype(float), state[2:].astype(float), 1 / (fps * FINE)
    path = np.empty((count * FINE, 2))
    for i in range(len(path)):
        path[i] = x
        half = v + 0.5 * dt * force(x, v, i * dt)
        a = force(x + 0.5 * dt * v, half, (i + 0.5) * dt)
        x, v = x + dt * half, v + dt * a
        if contact is not None:
            x, v = contact(x, v)
    return path


def _flying(drag: float, pull: Callable[[float], float]) -> Callable[[NDArray, NDArray, float], NDArray]:
    return lambda x, v, t: np.array([0.0, G * pull(t)]) - drag * math.hypot(*v) * v


def _fall(random: Random, fps: float, look: Look, kind: str) -> Scene:
    tall = random.uniform(0.8, 2.5)
    scale, (height, width) = look.size[0] / tall, look.size
    rest, drag = (random.integers(3, 8) if random.random() < 0.5 else 0), random.uniform(0, 0.03)
    start = np.array([random.uniform(0.2, 0.8) * width, random.uniform(0.1, 0.18) * height])
    count = int(rest + fps * math.sqrt(2 * tall / G)) + 2

    def simulate(pull: Pull) -> NDArray:
        still = np.zeros((int(rest) * FINE, 2))
        shifted = lambda t: pull(t + rest / fps)  # noqa: E731
        return np.concatenate([still, _integrated(np.zeros(4), _flying(drag, shifted), fps, count + 60)])

    return Scene(kind, fps, min(count, MOST), scale, start, simulate, look)


def _throw(random: Random, fps: float, look: Look, kind: str) -> Scene:
    (height, width), tall = look.size, random.uniform(1.0, 3.0)
    scale, drag = height / tall, float(random.choice([0, 0.02, 0.1]))
    top = random.uniform(0.4, 0.75) * tall
    up = math.sqrt(2 * G * top)
    flight = 2 * up / G
    right = random.choice([-1, 1])
    across = random.uniform(0.3, 0.75) * width / scale / flight
    start = np.array([(0.12 if right > 0 else 0.88) * width, 0.88 * height])
    count = int(min(flight * fps, MOST))
    state = np.array([0, 0, right * across, -up])
    simulate = lambda pull: _integrated(state, _flying(drag, pull), fps, count + 60)  # noqa: E731
    return Scene(kind, fps, count, scale, start, simulate, look, drag > 0.05)


def _bounce(random: Random, fps: float, look: Look, kind: str) -> Scene:
    (height, width), tall = look.size, random.uniform(0.8, 1.8)
    scale, bouncy = height / tall, random.uniform(0.5, 0.85)
    start = np.array([random.uniform(0.15, 0.3) * width, random.uniform(0.15, 0.3) * height])
    floor = (0.88 * height - start[1]) / scale
    time = math.sqrt(2 * floor / G) * (1 + 2 * bouncy + 1.2 * bouncy**2)
    count = int(min(time * fps, MOST))
    across = random.uniform(0.2, 0.55) * width / scale / (count / fps)

    def contact(x: NDArray, v: NDArray) -> tuple[NDArray, NDArray]:
        if x[1] >= floor and v[1] > 0:
            x, v = np.array([x[0], 2 * floor - x[1]]), np.array([v[0] * 0.97, -bouncy * v[1]])
        return x, v

    state = np.array([0, 0, across, 0])
    simulate = lambda pull: _integrated(state, _flying(0.01, pull), fps, count + 60, contact)  # noqa: E731
    return Scene(kind, fps, count, scale, start, simulate, look, True, floor=0.88 * height)


def _along(random: Random, angle: float, v0: float, share: float, friction: float, fps: float, count: int) -> Simulation:
    """Motion along a line at an angle: ``share`` of g sin, dry friction that stops it for good on a level surface."""
    u = np.array([math.cos(angle), math.sin(angle)])

    def simulate(pull: Pull) -> NDArray:
        s, v, dt, path = 0.0, v0, 1 / (fps * FINE), []
        for i in range((count + 60) * FINE):
            path.append(s * u)
            a = G * pull(i * dt) * (share * math.sin(angle) - friction * math.cos(angle) * np.sign(v))
            new = v + a * dt
            v = 0.0 if friction and v * new <= 0 else new
            s += v * dt
        return np.array(path)

    return simulate


def _ramp(random: Random, fps: float, look: Look, kind: str) -> Scene:
    (height, width) = look.size
    angle, long = math.radians(random.uniform(8, 35)), random.uniform(0.6, 1.5)
    room = min(0.75 * width / math.cos(angle), 0.75 * height / math.sin(angle))
    scale, share = room / long, float(random.choice([5 / 7, 3 / 5, 0.9]))
    start = np.array([0.1 * width, 0.1 * height])
    v0 = float(random.choice([0, 0.2]))
    a = share * G * math.sin(angle)
    count = int(min(fps * (math.sqrt(v0**2 + 2 * a * long) - v0) / a, MOST))
    return Scene(kind, fps, count, scale, start, _along(random, angle, v0, share, 0.0, fps, count), look)


def _slide(random: Random, fps: float, look: Look, kind: str) -> Scene:
    height, width = look.size
    friction, long = random.uniform(0.12, 0.5), random.uniform(0.4, 1.2)
    scale, v0 = 0.7 * width / long, math.sqrt(2 * random.uniform(0.12, 0.5) * G * long)
    v0 = math.sqrt(2 * friction * G * long)
    start = np.array([0.12 * width, random.uniform(0.4, 0.8) * height])
    count = int(min(fps * v0 / (friction * G) * random.uniform(1.0, 1.5), MOST))
    return Scene(kind, fps, count, scale, start, _along(random, 0.0, v0, 0.0, friction, fps, count), look, True)


def _swing(random: Random, fps: float, look: Look, kind: str) -> Scene:
    (height, width), long = look.size, random.uniform(0.25, 0.9)
    theta = random.uniform(0.25, 0.8) * random.choice([-1, 1])
    reach = min(0.75 * height, 0.4 * width / math.sin(abs(theta)))
    scale, damping = reach / long, random.uniform(0.02, 0.35)
    period = 2 * math.pi * math.sqrt(long / G)
    count = int(min(random.uniform(1.2, 3) * period * fps, MOST))
    wall = -math.copysign(random.uniform(0.02, 0.5) * abs(theta), theta) if kind == "struck" else None
    bouncy = random.uniform(0.3, 0.8)

    def simulate(pull: Pull) -> NDArray:
        a, v, dt, path = theta, 0.0, 1 / (fps * FINE), []
        for i in range((count + 60) * FINE):
            path.append((long * math.sin(a), long * math.cos(a)))
            w = G * pull(i * dt) / long
            half = v - 0.5 * dt * (w * math.sin(a) + damping * v)
            v -= dt * (w * math.sin(a + 0.5 * dt * v) + damping * half)
            a += dt * half
            if wall is not None and (a - wall) * theta < 0 and v * theta < 0:
                v = -bouncy * v
        return np.array(path)

    origin = np.array([0.5 * width, 0.08 * height])
    return Scene(kind, fps, count, scale, origin, simulate, look, wall is not None or damping > 0.15)


def _wall(look: Look, seed: int = 0) -> NDArray:
    """Return a background: a plain one with a light gradient, or a texture with edges."""
    random, (height, width) = np.random.default_rng([look.seed, seed]), look.size
    ramp = np.linspace(-15, 15, width)[None, :, None] + np.linspace(-10, 10, height)[:, None, None]
    if look.plain:
        image = random.uniform(60, 200, 3) + ramp
        image[: height // 10] -= 25
        image[:, -width // 12 :] -= 25
        return image.astype(np.float32).clip(0, 255)
    image = np.zeros((height, width, 3), np.float32)
    for blur in (2, 6, 25):
        part = cv2.GaussianBlur(random.normal(0, 1, (height, width, 3)).astype(np.float32), (0, 0), blur)
        image += part / part.std() * random.uniform(4, 16)
    image += random.uniform(70, 180, 3) + ramp
    for _ in range(5):
        x, y = int(random.integers(width)), int(random.integers(height))
        image[y : y + height // 4, x : x + width // 4] += random.uniform(-35, 35)
    return image.astype(np.float32).clip(0, 255)


def film(path: Path, scene: Scene, version: Version) -> None:
    """Draw a version and write it, compressed with H.264; a file that is there is kept."""
    if not path.exists():
        frames = torch.from_numpy(rendered(scene, version)).permute(0, 3, 1, 2)
        write_video(path, frames, scene.fps, crf=scene.look.crf)


def rendered(scene: Scene, version: Version) -> NDArray[np.uint8]:
    """Draw a version (T, H, W, 3)."""
    look, frames = scene.look, []
    random = np.random.default_rng([look.seed, 7])
    still = _wall(look)
    other = _wall(look, 1) if version.other_wall is not None else still
    if scene.floor is not None:
        edge = int(scene.floor + look.radius)
        still[edge:] = still[edge:] * 0.7
    turn = random.uniform(0, 2 * math.pi)
    sway = look.sway * np.stack([np.sin(np.arange(version.count) / 7 + turn), np.cos(np.arange(version.count) / 9)], axis=1)
    for k in range(version.count):
        share = 0.0 if version.other_wall is None else float(version.other_wall[k])
        image = still * (1 - share) + other * share
        colour = np.clip(look.colour + version.tint[k], 0, 255)
        at = version.place(k + look.exposure * np.linspace(-0.5, 0.5, 7))
        if look.thread:
            end = tuple(round(float(x)) for x in version.place(np.array([float(k)]))[0])
            cv2.line(image, tuple(int(x) for x in scene.origin), end, (40.0, 40.0, 40.0), 1, cv2.LINE_AA)
        _ball(image, at, look.radius * float(version.grown[k]), colour, float(version.opacity[k]), version.bulge[k])
        if version.second is not None:
            again = version.second(k + look.exposure * np.linspace(-0.5, 0.5, 7))
            shown = 1.0 if version.second_opacity is None else float(version.second_opacity[k])
            if np.isfinite(again).all() and shown > 0:
                _ball(image, again, look.radius, look.colour, shown, np.zeros(2))
        if look.sway:
            move = np.float32([[1, 0, sway[k, 0]], [0, 1, sway[k, 1]]])
            image = cv2.warpAffine(image, move, look.size[::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
        grain = look.noise * random.standard_normal(image.shape, np.float32)
        frames.append((image + grain).clip(0, 255).round().astype(np.uint8))
    drawn = np.stack(frames)
    if version.then is not None and version.then_scene is not None:
        rest = rendered(version.then_scene, version.then)
        rest = np.stack([cv2.resize(f, look.size[::-1], interpolation=cv2.INTER_AREA) for f in rest])
        drawn = np.concatenate([drawn, rest])
    return drawn


def _ball(image: NDArray, at: NDArray, radius: float, colour: NDArray, opacity: float, bulge: NDArray) -> None:
    """Paint a shaded ball with a stripe, blurred over the places ``at`` (n, 2), into an image."""
    height, width = image.shape[:2]
    low = np.floor(at.min(0) - 2 * radius - 2).astype(int)
    high = np.ceil(at.max(0) + 2 * radius + 3).astype(int)
    x0, y0, x1, y1 = max(low[0], 0), max(low[1], 0), min(high[0], width), min(high[1], height)
    if x1 <= x0 or y1 <= y0 or opacity <= 0:
        return
    ys, xs = np.mgrid[y0:y1, x0:x1].astype(np.float32)
    alpha = np.zeros(xs.shape, np.float32)
    for x, y in at:
        dx, dy = xs - x, ys - y
        edge = radius * (1 + bulge[0] * np.cos(2 * (np.arctan2(dy, dx) - bulge[1])))
        alpha += np.clip(edge - np.hypot(dx, dy) + 0.5, 0, 1) / len(at)
    x, y = at.mean(0)
    shade = 1 - 0.22 * np.clip((ys - y) / radius, -1, 1) - 0.1 * (np.abs(xs - x) < 0.25 * radius)
    alpha = (alpha * opacity)[..., None]
    part = image[y0:y1, x0:x1]
    image[y0:y1, x0:x1] = part * (1 - alpha) + alpha * colour * shade[..., None]


BREAKS: dict[str, set[str]] = {  # and the findings that name it rightly
    "freeze": {"freezes", "stops dead"},
    "skip": {"skips time"},
    "teleport": {"jumps"},
    "slow section": {"changes speed"},
    "speed up": {"changes speed"},
    "backwards": {"runs backwards"},
    "wrong g midway": {"is pushed", "floats"},
    "float": {"floats"},
    "hover": {"floats", "stops dead", "freezes"},
    "vanish": {"vanishes"},
    "blink": {"vanishes"},
    "duplicate": {"duplicates"},
    "pulse": {"changes size"},
    "melt": {"changes look", "changes size"},
    "cross-fade": {"vanishes", "jumps", "duplicates", "changes look"},
    "jitter": {"jitters"},
    "wobble": {"wobbles", "jitters"},
    "cut": {"cuts"},
    "background": {"background changes"},
}


def broken(scene: Scene, kind: str, seed: int = 0) -> Version | None:
    """Return a version of the scene with one thing broken; None where that cannot be told from a sound one."""
    random = np.random.default_rng([scene.look.seed, sorted(BREAKS).index(kind) if kind else 99, seed])
    place, n, radius = scene.path(), scene.span, scene.look.radius
    m = int(n * random.uniform(0.35, 0.6))
    whole = Version.of(place, n)
    if not kind:
        return whole
    far = np.linalg.norm(place(np.array([m + 0.5])) - place(np.array([m - 0.5])))
    moving = np.linalg.norm(np.diff(place(np.arange(n).astype(float)), axis=0), axis=1)
    if far < 0.5 * np.median(moving):  # an event where nothing moves is none
        m = int(np.argmax(moving[n // 4 : 3 * n // 4]) + n // 4)
        far = moving[m]
    k, f = np.arange(n), dataclasses.replace
    later = max(3, round(0.1 * scene.fps))

    def timed(warp: Callable[[NDArray], NDArray], count: int = n) -> Version:
        return Version.of(lambda u: place(np.clip(warp(u), 0, n - 1 + 30)), count)

    if kind == "freeze":
        return timed(lambda u: np.where(u < m, u, np.maximum(m, u - later)))
    if kind == "skip":
        return timed(lambda u: np.where(u < m + 0.5, u, u + later), n - later)
    if kind == "teleport":
        angle, size = random.uniform(0, 2 * math.pi), random.uniform(1.5, 4) * 2 * radius
        shift = size * np.array([math.cos(angle), math.sin(angle)])
        centre = np.array(scene.look.size[::-1]) / 2
        shift = shift * (1 if shift @ (centre - place(np.array([float(m)]))[0]) > 0 else -1)
        return Version.of(lambda u: place(u) + shift * (np.asarray(u) > m + 0.5)[:, None], n)
    if kind in ("slow section", "speed up"):
        rate, end = (random.uniform(0.35, 0.6), m + max(8, n // 4)) if kind == "slow section" else (random.uniform(1.5, 2), 1e9)
        warp = lambda u: np.where(u < m, u, np.where(u < end, m + rate * (u - m), u - (1 - rate) * (end - m)))  # noqa: E731
        count = n if rate < 1 else int(m + (n - 1 - m) / rate) + 1
        return timed(warp, count)
    if kind == "backwards":
        return Version.of(lambda u: place(n - 1 - u), n) if scene.irreversible else None
    if kind == "wrong g midway":
        if scene.kind == "ramp" and n < 20:
            return None
        factor, when = float(random.choice([0.3, 2.2])), m / scene.fps
        return Version.of(scene.path(lambda t: factor if t >= when else 1.0), n)
    if kind == "float":
        if scene.kind in ("ramp", "slide", "swing", "struck"):
            return None
        at, v = place(np.array([float(m)])), place(np.array([m + 0.0])) - place(np.array([m - 1.0]))
        return Version.of(lambda u: np.where((u > m)[:, None], at + (u - m)[:, None] * v, place(u)), n)
    if kind == "hover":
        if scene.kind in ("ramp", "slide"):
            return None
        return timed(lambda u: np.minimum(u, m))
    if kind == "vanish":
        fade = random.integers(1, 4)
        return f(whole, opacity=np.clip((m + fade - k) / fade, 0, 1))
    if kind == "blink":
        return f(whole, opacity=((k < m) | (k >= m + max(4, later))).astype(float))
    if kind == "duplicate":
        angle = random.uniform(0, 2 * math.pi)
        v = random.uniform(0.5, 1.2) * max(far, radius / 3) * np.array([math.cos(angle), math.sin(angle)])
        split = lambda u: np.where((u >= m)[:, None], place(u) + (u - m)[:, None] * v, np.nan)  # noqa: E731
        return f(whole, second=split)
    if kind == "pulse":
        size = random.uniform(0.3, 0.5) * random.choice([-1, 1])
        return f(whole, grown=1 + size * np.exp(-(((k - m) / (0.12 * n + 2)) ** 2)))
    if kind == "melt":
        drift = np.cumsum(random.normal(0, 1, n)) / math.sqrt(n)
        late = np.clip((k - 0.25 * n) / (0.5 * n), 0, 1)
        bulge = np.stack([late * random.uniform(0.25, 0.5) * np.sin(k / 2.5), 1.5 * drift + k / 6], axis=1)
        return f(whole, bulge=bulge, tint=late[:, None] * random.uniform(-110, 110, 3))
    if kind == "cross-fade":
        angle, size = random.uniform(0, 2 * math.pi), random.uniform(2, 4) * 2 * radius
        shift = size * np.array([math.cos(angle), math.sin(angle)])
        share = np.clip((k - m) / max(4, later), 0, 1)
        return f(whole, opacity=1 - share, second=lambda u: place(u) + shift, second_opacity=share)
    if kind in ("jitter", "wobble"):
        size = random.uniform(0.2, 0.45) * radius + 0.5
        noise = random.normal(0, size, (n + 2, 2))
        if kind == "jitter":
            return Version.of(lambda u: place(u) + noise[np.clip(np.round(u).astype(int), 0, n)], n)
        beat = 2 * math.pi * random.uniform(4, 7) / max(scene.fps, 24)
        side = np.array([-1, 1]) * (place(np.array([m + 1.0])) - place(np.array([m - 1.0])))[0, ::-1]
        side = side / max(np.linalg.norm(side), 1e-9)
        return Version.of(lambda u: place(u) + 2 * size * np.sin(beat * u)[:, None] * side, n)
    if kind == "cut":
        other = draw(scene.kind, 100000 + scene.look.seed % 1000)
        on = other.path()
        return f(Version.of(place, m), then=Version.of(lambda u: on(u + 2), max(8, n - m)), then_scene=other)
    # background: its texture drifts into another one
    return f(whole, other_wall=np.clip((k - 0.3 * n) / (0.5 * n), 0, 1) * 0.7)


DECOYS = (
    "constant speed on a parabola",
    "circular arc at constant speed",
    "half a sine at constant pace",
    "eased in and out, down",
    "eased in and out, along a curve",
    "cubic ease-in, down",
    "cubic ease-out, up",
    "lowered by hand",
    "carried along an arch by hand",
    "sine path",
    "exact parabola, wrong pace",
)


def decoy(kind: str, seed: int) -> tuple[Scene, Version]:
    """Return a motion that only looks ballistic; its scene's scale is that of a ball of 6.7 cm."""
    random = np.random.default_rng([DECOYS.index(kind), seed])
    scene = draw("throw", 500000 + seed)
    (height, width), n = scene.look.size, int(random.integers(24, 80))
    look = dataclasses.replace(scene.look, radius=float(np.clip(random.uniform(0.02, 0.05) * height, 5, 30)))
    x0, x1, low, top = 0.15 * width, 0.85 * width, 0.85 * height, random.uniform(0.15, 0.4) * height
    s = np.linspace(0, 1, 2001)
    arch = np.stack([x0 + (x1 - x0) * s, low - (low - top) * 4 * s * (1 - s)], axis=1)

    def paced(curve: NDArray) -> NDArray:
        way = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))])
        even = np.linspace(0, way[-1], len(curve))
        return np.stack([np.interp(even, way, curve[:, a]) for a in range(2)], axis=1)

    def smooth(x: NDArray) -> NDArray:
        return x * x * (3 - 2 * x)

    down = np.array([[0.5 * width, 0.12 * height]]), np.array([[0.0, 0.76 * height]])
    if kind == "constant speed on a parabola":
        curve = paced(arch)
    elif kind == "circular arc at constant speed":
        half = random.uniform(0.7, 1.4)
        a = np.linspace(-half, half, 2001)
        big = min(0.35 * width / math.sin(half), 0.7 * height / (1 - math.cos(half)))
        curve = np.stack([0.5 * width + big * np.sin(a), 0.15 * height + big * (1 - np.cos(a))], axis=1)
    elif kind == "half a sine at constant pace":
        curve = np.stack([arch[:, 0], low - (low - top) * np.sin(np.pi * s)], axis=1)
    elif kind == "eased in and out, down":
        curve = down[0] + smooth(s)[:, None] * down[1]
    elif kind == "eased in and out, along a curve":
        q = smooth(s)
        curve = np.stack([np.interp(q, s, arch[:, a]) for a in range(2)], axis=1)
    elif kind == "cubic ease-in, down":
        curve = down[0] + (s**3)[:, None] * down[1]
    elif kind == "cubic ease-out, up":
        curve = down[0] + (1 - s)[:, None] ** 3 * down[1]
    elif kind == "lowered by hand":
        shake = np.interp(s, np.linspace(0, 1, 12), random.normal(0, 0.006 * height, 12))
        curve = down[0] + s[:, None] * down[1] + shake[:, None] * np.array([[1.0, 0.3]])
    elif kind == "carried along an arch by hand":
        q = np.clip(s + 0.02 * np.sin(7 * s + random.uniform(0, 6)), 0, 1)
        even = paced(arch)
        curve = np.stack([np.interp(q, s, even[:, a]) for a in range(2)], axis=1)
        shake = np.stack([np.interp(s, np.linspace(0, 1, 10), random.normal(0, 0.006 * height, 10)) for _ in range(2)], axis=1)
        curve = curve + shake
    elif kind == "sine path":
        turns = random.uniform(1, 2.5)
        curve = np.stack([arch[:, 0], 0.5 * height + 0.25 * height * np.sin(2 * np.pi * turns * s)], axis=1)
    else:
        curve = arch  # at a pace that is not that of 9.81 m/s^2
        metres = 0.067 / (2 * look.radius)
        true = math.sqrt(8 * (low - top) * metres / G)
        n = int(np.clip(true * random.choice([0.55, 1.7]) * scene.fps, 14, 120))
    at = np.linspace(0, n - 1, 2001)
    place = lambda u: np.stack([np.interp(u, at, curve[:, a]) for a in range(2)], axis=-1)  # noqa: E731
    return dataclasses.replace(scene, look=look, span=n, kind="decoy"), Version.of(place, n)
