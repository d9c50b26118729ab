"""Angular momentum in flight: nothing turns a body that touches nothing, so it is constant about the centre of mass.

The joints are put on a body as `visviva.eval.motion.dynamics` does; its angular momentum L is taken from central differences.
In each flight a straight line is fitted to L: its slope is the moment that must have turned the body. Least squares make sums
over poses of it, not second differences (card: motion, section 13, point 2). Moments are given over weight and radius of
gyration, as in the Euler-Lagrange violation. A moment that changes sign within a flight has a slope of 0: it is not seen here
but by ``el_angular``; and a body that does not turn at all keeps its angular momentum, too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from visviva.data.motions.motion import HumanMotion
from visviva.errors import InputError
from visviva.eval.motion.contact import no_flight, runs
from visviva.eval.motion.dynamics import configuration, rest_of, scatter, skeleton
from visviva.eval.score import Score
from visviva.physics.bodies import Body, human
from visviva.physics.dynamics import differentiate, momentum, move, place
from visviva.physics.dynamics.ground import gyration
from visviva.physics.kinematics import projection

LEAST, FEWEST = 0.15, 5
"""Flights shorter than this [s], or with fewer frames inside, have no number."""
DRAWS = 16
"""Of noise, for the floor."""


@dataclass(frozen=True)
class Spin:
    """What turns a body in flight.

    Attributes:
        moment: size of the rate of change of angular momentum, over weight and radius of gyration [body weights].
        floor: what noise as large as that of the joints makes of it.
        frames: in which it was seen.
        noise: of the joints, one coordinate [m].
    """

    moment: float
    floor: float
    frames: int
    noise: float


def flight_spin(motion: HumanMotion, airborne: Bool[Tensor, " T"], mass: float | None = None) -> Spin | None:
    """Return the moment that turns a body in flight, 0 for one that obeys physics; None without a flight of 0.15 s.

    ``|dL/dt| / (m g r)`` with the least-squares slope of each flight's angular momentum about the centre of mass, without the
    flight's first and last frame; the mean over flights is weighted by their frames to the fifth power (noise of a slope
    falls with N^-2.5), as in `visviva.eval.motion.contact.flight_acceleration`. The noise floor is the mean change when noise
    as large as that of the joints (`scatter`) is added to them.

    Args:
        motion: joints of a body, z up [m].
        airborne: the frames of flight, as `visviva.eval.motion.contact.airborne` tells them.
        mass: of the person [kg]; the number hardly depends on it.

    Raises:
        InputError: flights of markers, or of joints that no known skeleton has.

    Example::

        spin = flight_spin(motion, airborne(feet, motion.fps))
        spin.moment, spin.floor  # body weights
    """
    flights = [(a, b) for a, b in runs(airborne) if b - a >= max(LEAST * motion.fps, FEWEST + 2)]
    if not flights:
        return None
    name, joints = skeleton(motion)
    rest, noise = rest_of(name, joints), scatter(joints)
    body = human(rest, mass=mass, sex=0.5, skeleton=name, up="z")
    rng = torch.Generator().manual_seed(0)
    total, floor, weight = 0.0, 0.0, 0
    for start, end in flights:
        seen = joints[start:end]
        shaken = seen + noise * torch.randn(DRAWS, *seen.shape, generator=rng, dtype=seen.dtype)
        moments = turning(
            body, configuration(body, name, rest, torch.cat([seen[None], shaken]).flatten(0, 1)), motion.fps, end - start
        )
        share = (end - start - 2) ** 5
        total, weight = total + share * float(moments[0].norm()), weight + share
        floor += share * float((moments[1:] - moments[0]).norm(dim=-1).mean())
    return Spin(total / weight, floor / weight, sum(b - a - 2 for a, b in flights), noise)


def turning(body: Body, q: Float[Tensor, "N nq"], fps: float, frames: int) -> Float[Tensor, "B 3"]:
    """Return the slope of angular momentum of ``N / frames`` equally long flights, over weight and radius of gyration."""
    moved = differentiate(body, q.unflatten(0, (-1, frames)), fps, 3)
    spun = momentum(body, move(body, *moved[:2]))[1]
    pose = place(body, moved[0])
    radius = gyration(body, pose, pose.centre_of_mass(body)).mean(-1, keepdim=True)
    slope = torch.as_tensor(projection(frames - 2, 1)[0][1], dtype=q.dtype, device=q.device)
    return torch.einsum("t,btd->bd", slope, spun) * fps / (body.mass.sum() * body.down.norm() * radius)


def scores(motion: HumanMotion, airborne: Bool[Tensor, " T"] | None, mass: float | None = None, why: str = "") -> list[Score]:
    """Return ``flight_spin`` and ``flight_spin_floor``; NaN with the reason where there is no flight or no body."""
    found, note = None, why or ("" if airborne is not None else "no named feet to see flight by")
    if airborne is not None and not why:
        try:
            found = flight_spin(motion, airborne, mass)
            note = no_flight(motion.fps)
        except InputError as error:
            note = str(error).removeprefix(f"{motion.source}: ")
    if found is None:
        return [Score(name, math.nan, "body weights", note=note) for name in ("flight_spin", "flight_spin_floor")]
    said = f"rate of change of angular momentum in flight; 0 is right; below its floor ({found.floor:.2g}) it means nothing"
    noise = f"change of flight_spin by {1e3 * found.noise:.2g} mm of noise in the joints"
    return [
        Score("flight_spin", found.moment, "body weights", used=found.frames, fps=motion.fps, note=said),
        Score("flight_spin_floor", found.floor, "body weights", used=found.frames, fps=motion.fps, note=noise),
    ]
