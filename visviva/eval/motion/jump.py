"""A vertical jump on a force plate: weight, flight, and the take-off speed told in two ways that must agree.

By flight: a body that leaves and lands at the same height flies for ``2 v / g``. By impulse: from standing still, ``m v`` is
the impulse of the force beyond the weight until take-off. They disagree where the plate's zero or scale is off, where the
jumper lands with bent legs, or where the force is no jump's.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError
from visviva.eval.motion.contact import flights, runs
from visviva.eval.motion.mass import Carried, G


@dataclass(frozen=True)
class Jump:
    """What a force plate says of a jump.

    Attributes:
        weight: [N], mean of the quiet standing before it; ``weight_error``: its standard error; ``sigma``: scatter of the
            force there [N].
        takeoff, landing: times [s].
        speed: take-off speed by the impulse [m/s]; ``speed_of_flight``: by the flight's length [m/s].
        speed_sigma: standard error of the former from the weight's error alone [m/s].
        height: rise of the centre of mass by the impulse, ``v^2 / 2 g`` [m].
        peak: largest force before take-off, in weights.
    """

    weight: float
    sigma: float
    weight_error: float
    takeoff: float
    landing: float
    speed: float
    speed_of_flight: float
    speed_sigma: float
    height: float
    peak: float

    @property
    def flight(self) -> float:
        """Length of the flight [s]."""
        return self.landing - self.takeoff

    @property
    def mass(self) -> float:
        """Of the jumper [kg]."""
        return self.weight / G

    @property
    def carried(self) -> Carried:
        """The mass that the plate carries, and its standard error twice: ``jump(...).carried.differs(70.5)``."""
        return Carried(self.mass, 2 * self.weight_error / G)


def jump(force: Float[Tensor, " S"], fps: float, quiet: float = 0.5) -> Jump:
    """Measure the first jump of a vertical force record.

    Args:
        force: of the ground on the jumper [N], at ``fps`` samples per second.
        quiet: least length of standing still before the jump [s].

    Raises:
        InputError: no flight, or no quiet standing before it: then the weight and the start are unknown.

    Example::

        found = jump(plate.force[:, 2], plate.fps)
        found.flight, found.speed, found.speed_of_flight
    """
    force = force.double()
    spans = flights(force, fps)
    if not spans:
        raise InputError("no jump: the plate is never unloaded between two loads; is this the vertical force, upwards?")
    takeoff, landing = spans[0]
    start, end = _quiet(force[: round(takeoff * fps)], fps, quiet)
    still = force[start:end]
    weight, sigma = float(still.mean()), float(still.std())
    pushed = force[end : round(takeoff * fps)]
    speed = float((pushed - weight).sum() / fps) / (weight / G)
    # errors of a standing person's force last for a tenth of a second or so: as many independent ones as tenths
    error = sigma / max(1.0, (end - start) / fps / 0.1) ** 0.5
    return Jump(
        weight=weight,
        sigma=sigma,
        weight_error=error,
        takeoff=takeoff,
        landing=landing,
        speed=speed,
        speed_of_flight=G * (landing - takeoff) / 2,
        speed_sigma=error * len(pushed) / fps / (weight / G),
        height=speed**2 / (2 * G),
        peak=float(pushed.max() / weight),
    )


def _quiet(force: Tensor, fps: float, least: float) -> tuple[int, int]:
    """First and one past the last sample of the last stretch before take-off that stays within 3 % of its mean."""
    size = round(least * fps)
    if len(force) <= size:
        raise InputError(
            f"the record begins {len(force) / fps:.2f} s before take-off; {least:g} s of quiet standing are needed"
        )
    windows = force.unfold(0, size, 1)
    mean = windows.mean(1)
    calm = (mean > 50) & ((windows - mean[:, None]).abs().amax(1) < 0.03 * mean)
    found = runs(calm)
    if not found:
        raise InputError(
            f"nobody stands still for {least:g} s before take-off: the weight and the start of the jump are unknown"
        )
    start, end = found[-1]
    return start, end - 1 + size
