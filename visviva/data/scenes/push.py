"""Scenes of balls on a table seen from above: some are pushed for a moment at a point, the others stay.

A solid ball of mass m that rolls without slipping under a force F at its centre has the acceleration 5/7 F/m. The force acts
during the first quarter of a clip of duration T, nothing brakes it after that, so it ends

    d = 5/7 F/m T/4 (T - T/8)

from where it lay: affine in the force, inverse to the mass. Masses are seen by colour: 1 kg yellow, 2 kg red, 4 kg blue. As in
the rolling balls of Force Prompting (arXiv 2505.19386, section 4): a mover, distractors that stay, a force that is relative to
the weakest and the strongest of the set. Gravity points into the picture; paths meet nothing. Sizes, masses, forces are ours.
"""

from __future__ import annotations

import colorsys
import math
import zlib
from dataclasses import dataclass, replace

import numpy as np

from visviva.data.scenes.appearance import Texture, sample_light, sample_texture
from visviva.data.scenes.scene import Body, Camera, Push, Scene
from visviva.errors import InputError

PUSHES = {"push": 1, "push_two": 2}
"""Kinds of scene, and how many balls are pushed in each; the second is for tests of what was never trained."""
MASSES = {1.0: 0.15, 2.0: 0.0, 4.0: 0.64}
"""Masses [kg] and their hues."""
FORCE = (6.0, 32.0)
"""Weakest and strongest force [N], magnitudes 0 and 1. Stronger ones would make the light ball slip."""
ROLLING = 5.0 / 7.0
"""Acceleration of a rolling solid ball over that of one that slides without friction."""
RADIUS, VIEW, MARGIN = 0.21, 2.4, 0.03
REST = 0.06
"""Share of scenes in which nothing is pushed."""
OFF = 0.4
"""Largest distance of the stated point from the ball's centre, in radii: users do not hit the centre."""
TRIES = 1000


@dataclass(frozen=True)
class _Ball:
    place: np.ndarray
    mass: float
    move: np.ndarray
    magnitude: float = 0.0


def sample_push(kind: str, seed: int, index: int, *, duration: float = 0.5, aspect: float = 1.0, objects: int = 3) -> Scene:
    """Draw scene ``index`` of a kind of `PUSHES`; it depends on its arguments only.

    Args:
        kind: ``"push"``, one ball pushed (in 6 % of the scenes none), or ``"push_two"``.
        seed: the seed of the whole set; ``index``: which scene of it.
        duration: length of the clip [s]; lengths grow with its square, forces do not.
        aspect: image width over height.
        objects: largest number of balls.

    Raises:
        InputError: no such kind, or fewer balls than are to be pushed.
    """
    if kind not in PUSHES or objects < PUSHES[kind]:
        raise InputError(f"{kind!r} of at most {objects} balls; kinds are {', '.join(PUSHES)}, and two pushes need two balls")
    rng = np.random.default_rng([seed, zlib.crc32(kind.encode()), index])
    s = (duration / 0.5) ** 2
    pushed = 0 if kind == "push" and rng.random() < REST else PUSHES[kind]
    count = max(1, int(rng.integers(PUSHES[kind], objects + 1)))
    balls = _balls(rng, pushed, count, aspect)
    camera = Camera(VIEW * s, (0.0, 4 * VIEW * s))  # so high that the floor of the other scenes would not be seen
    bodies = tuple(
        Body("ball", (RADIUS * s, 0, 0), (float(b.place[0]) * s, 0.0, float(b.place[1]) * s + camera.centre[1]), (1, 0, 0, 0),
             (0, 0, 0), ball_texture(rng, b.mass, s)) for b in balls
    )  # fmt: skip
    return Scene(
        primitive=kind,
        split="id",
        name=f"{kind}-{seed}-{index}",
        bodies=bodies,
        camera=camera,
        light=sample_light(rng),
        wall=sample_texture(rng, "wall", s),
        floor=sample_texture(rng, "floor", s),
        numbers={"view": VIEW * s, **{f"mass_{i}": b.mass for i, b in enumerate(balls)}},
        pushes=tuple(_push(rng, i, b, aspect) for i, b in enumerate(balls[:pushed])),
    )


def ball_texture(rng: np.random.Generator, mass: float, scale: float = 1.0) -> Texture:
    """Draw a pattern in two shades of the colour of a mass."""
    hue = MASSES[mass] + rng.uniform(-0.02, 0.02)
    dark = colorsys.hsv_to_rgb(hue % 1, rng.uniform(0.85, 1.0), rng.uniform(0.35, 0.5))
    bright = colorsys.hsv_to_rgb(hue % 1, rng.uniform(0.5, 0.8), rng.uniform(0.9, 1.0))
    return replace(sample_texture(rng, "object", scale), dark=dark, bright=bright)


def distance(magnitude: float, mass: float) -> float:
    """Return how far a ball gets in a clip of 0.5 s [m]."""
    return ROLLING * (FORCE[0] + (FORCE[1] - FORCE[0]) * magnitude) / mass * 0.5**2 / 4 * (1 - 1 / 8)


def _balls(rng: np.random.Generator, pushed: int, count: int, aspect: float) -> list[_Ball]:
    """Draw balls whose paths stay in the picture and apart; the pushed ones come first."""
    half = np.array([aspect, 1.0]) * VIEW / 2 - RADIUS - MARGIN * VIEW
    for _ in range(TRIES):
        balls: list[_Ball] = []
        for i in range(count):
            mass = float(rng.choice(list(MASSES)))
            magnitude, angle = (float(rng.uniform()), rng.uniform(0, 2 * math.pi)) if i < pushed else (0.0, 0.0)
            length = distance(magnitude, mass) if i < pushed else 0.0
            move = length * np.array([math.cos(angle), math.sin(angle)])
            low, high = np.maximum(-half, -half - move), np.minimum(half, half - move)
            if (low >= high).any():
                break
            balls.append(_Ball(rng.uniform(low, high), mass, move, magnitude))
        if len(balls) == count and _apart(balls):
            return balls
    raise InputError(f"no place for {count} balls in a picture of aspect {aspect:.2f}; ask for fewer objects")


def _apart(balls: list[_Ball]) -> bool:
    """Whether no two balls come nearer than 2.3 radii at any time; each moves on a straight line in the same rhythm."""
    share = np.linspace(0, 1, 33)[:, None]
    for i, a in enumerate(balls):
        for b in balls[:i]:
            gap = (a.place + share * a.move) - (b.place + share * b.move)
            if np.linalg.norm(gap, axis=1).min() < 2.3 * RADIUS:
                return False
    return True


def _push(rng: np.random.Generator, index: int, ball: _Ball, aspect: float) -> Push:
    angle = math.degrees(math.atan2(ball.move[1], ball.move[0])) % 360
    turn, off = rng.uniform(0, 2 * math.pi), OFF * RADIUS * math.sqrt(rng.uniform())
    x, y = (ball.place + off * np.array([math.cos(turn), math.sin(turn)])) / (VIEW * np.array([aspect, 1.0])) + 0.5
    return Push(
        body=index,
        x=round(float(x), 4),
        y=round(float(y), 4),
        angle=round(angle, 2),
        magnitude=round(ball.magnitude, 4),
        newtons=FORCE[0] + (FORCE[1] - FORCE[0]) * ball.magnitude,
    )
