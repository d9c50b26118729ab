"""What no body does: moving in another unit than it is long in, being lost far from the origin, leaping between two frames."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError

RUN = 40.0
"""Speed that no one reaches [m/s]."""
LEAP = 1.0
"""Way of the whole body within one frame, faster than that, from which on it is said [m]: less may be a tracker's noise."""
FAR = 1e4
"""Distance from the origin beyond which numbers of single precision are a millimetre apart [m]."""


def mixed(positions: Float[Tensor, "T J 3"], fps: float, where: str) -> None:
    """Refuse a body in metres that is moved about in another unit: no one runs at 40 m/s for half of a recording."""
    centre = positions.mean(1)
    speed = float(centre.diff(dim=0).norm(dim=-1).median()) * fps
    if speed > RUN:
        raise InputError(
            f"{where}: the body, of human size, moves at {speed:.4g} m/s in half of the frames; its translation is in another "
            "unit (mm beside m?), or the frame rate is wrong: write the file in one unit, or give --fps"
        )


def near(positions: Float[Tensor, "T J 3"], where: str) -> None:
    """Refuse a body in metres so far from the origin that single precision, which files and motions have, loses it.

    Raises:
        InputError: farther than 10 km, where numbers are a millimetre apart.
    """
    far = float(positions.abs().max())
    if far > FAR:
        raise InputError(
            f"{where}: the body is {far:.4g} m from the origin; beyond {FAR:g} m single precision is coarser than 1 mm: "
            "subtract where it starts from all positions, in double precision"
        )


def jumps(positions: Float[Tensor, "T J 3"], fps: float) -> list[str]:
    """Return the note that a body in metres is elsewhere from one frame to the next: cut, spliced or lost by its tracker."""
    step = positions.mean(1).diff(dim=0).norm(dim=-1)
    if len(step) > 1 and float(step[0]) > 3 * float(step[1:].max()):
        step[0] = 0  # from a rest pose, as many BVH files have: who measures leaves it out, and says so
    far = ((step > LEAP) & (step * fps > RUN)).nonzero()[:, 0].tolist()
    if not far:
        return []
    also = f" and {len(far) - 1} time{'s' * (len(far) > 2)} more" if len(far) > 1 else ""
    return [
        f"jumps: the whole body moves {float(step[far[0]]):.3g} m from frame {far[0]} to {far[0] + 1}{also}, faster than "
        f"{RUN:g} m/s; cut or mend the motion there"
    ]
