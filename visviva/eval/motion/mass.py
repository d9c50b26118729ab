"""Masses: of a person on force plates, and the centre of mass from joints alone.

Joints: de Leva's (1996) segments between named joints, mean of both sexes. Plates: over a time T their mean vertical force is
``m g + m (v_end - v_start) / T``, v the speed upwards at the ends, whatever the person does between them, jumps included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.data.motions.anatomy import parts, split
from visviva.errors import InputError
from visviva.physics.kinematics import projection

LIMBS = (  # from, to, share of mass, place of the centre of mass from the first joint
    ("shoulder", "elbow", 0.0263, 0.576),
    ("elbow", "wrist", 0.0150, 0.457),
    ("wrist", "wrist", 0.00585, 0.0),
    ("hip", "knee", 0.1447, 0.385),
    ("knee", "ankle", 0.0457, 0.437),
    ("ankle", "toe", 0.0133, 0.421),
)
TRUNK, TRUNK_CENTRE, HEAD = 0.43015, 0.4046, 0.0681
"""Shares of the trunk (mid-shoulder to mid-hip) and of the head; the trunk's centre from the shoulders."""

G = 9.81
CALIBRATED = 0.02
"""By how much plates and scales may differ [of the mass]."""


@dataclass(frozen=True)
class Carried:
    """What force plates say of a person's mass, and how far it may be off [kg]."""

    mass: float
    error: float

    def differs(self, mass: float) -> str:
        """Say that a model's mass is not what the plates carry, in a sentence; empty where they agree within the errors."""
        within = self.error + CALIBRATED * self.mass
        if abs(mass - self.mass) <= within:
            return ""
        return (
            f"the model has {mass:.1f} kg, the force plates carry {self.mass:.1f} kg (within {within:.1f}): scale "
            "the model, or check the plates"
        )


def carried_mass(force: Float[Tensor, " S"], fps: float, change: float = 0.5, away: float = 1.0) -> Carried:
    """Return the mass of a person who is on force plates all the time (but for flights), about as fast at both ends.

    Cut the record to quiet standing, or to whole strides: who lands at its start is faster there, by metres per second.

    Args:
        force: vertical, of all plates together, on the person [N], at ``fps`` samples per second.
        change: by how much the speed of the centre of mass upwards may differ between the ends [m/s]; the error follows.
        away: the longest flight [s]; who is off the plates for longer has left them.

    Raises:
        InputError: no force upwards, one that is not finite, or a person who leaves the plates or is not on them at an end.

    Example::

        total = sum(plate.force[:, 1] for plate in ground_forces(table))
        carried_mass(total, 1000.0).differs(model.coupled.body.total_mass)  # "" or a sentence
    """
    mean = float(force.double().mean()) if len(force) else 0.0
    if not mean > 0 or not bool(force.isfinite().all()):
        raise InputError(f"a mean vertical force of {mean:.3g} N over {len(force)} samples; the force on a person is upwards")
    loaded = (force > 0.05 * mean).nonzero()[:, 0]
    if len(loaded) < 2 or int(loaded[0]) > 0 or int(loaded[-1]) < len(force) - 1:
        raise InputError("nobody is on the plates at the start or the end of the record; cut it to when somebody is")
    gap = float(loaded.diff().max()) / fps
    if gap > away:
        raise InputError(f"nobody is on the plates for {gap:.2f} s; cut the record to when somebody is (flights: {away:g} s)")
    mass = mean / G
    return Carried(mass, mass * change * fps / (G * len(force)))


def centre_of_mass(positions: Float[Tensor, "*batch T J 3"], names: Sequence[str]) -> Float[Tensor, "*batch T 3"] | None:
    """Return the centre of mass [m], or None where hips, knees, ankles, shoulders, elbows or wrists are not all named.

    The head is a point at the head joint (or the neck, or the shoulders' middle); a hand is at the wrist, a foot without a
    toe at the ankle. These choices move the centre by centimetres, its acceleration by little. For dynamics build a body.
    """
    found = parts(names)
    wanted = [f"{side}_{part}" for side in ("left", "right") for part in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")]
    if any(name not in found for name in wanted):
        return None

    def at(side: str, part: str) -> Tensor:
        joint = found.get(f"{side}_{part}", found[f"{side}_ankle"] if part == "toe" else -1)
        return positions[..., joint, :]

    shoulders, hips = (0.5 * (at("left", part) + at("right", part)) for part in ("shoulder", "hip"))
    top = next((positions[..., found[name], :] for name in ("head", "neck") if name in found), shoulders)
    total = TRUNK * torch.lerp(shoulders, hips, TRUNK_CENTRE) + HEAD * top
    for side in ("left", "right"):
        for first, second, share, place in LIMBS:
            total = total + share * torch.lerp(at(side, first), at(side, second), place)
    return total / (TRUNK + HEAD + 2 * sum(share for _, _, share, _ in LIMBS))


def centre_over_pelvis(positions: Float[Tensor, "*batch T J 3"], names: Sequence[str]) -> Float[Tensor, "*batch T 3"] | None:
    """Return a centre of mass [m] from pelvis and legs alone, the rest of the body carried by the pelvis rigidly.

    Its place is that of the pelvis with the legs' share, not the body's: take its acceleration, not its height. The pelvis is
    the mean of the iliac spines' markers, or of the hips. None where hips, knees and ankles are not all named.
    """
    found = parts(names)
    if any(f"{side}_{part}" not in found for side in ("left", "right") for part in ("hip", "knee", "ankle")):
        return None
    spines = [index for index, name in enumerate(names) if split(name)[1] in ("asis", "psis")]
    pelvis = positions[..., spines or [found["left_hip"], found["right_hip"]], :].mean(-2)
    total, left = torch.zeros_like(pelvis), 1.0
    for side in ("left", "right"):
        for first, second, share, place in LIMBS[3:]:
            start, end = (
                found[f"{side}_{part}"] if f"{side}_{part}" in found else found[f"{side}_ankle"] for part in (first, second)
            )
            total = total + share * torch.lerp(positions[..., start, :], positions[..., end, :], place)
            left -= share
    return total + left * pelvis


def vertical_reaction(centre: Float[Tensor, "*batch T 3"], fps: float, window: float = 0.2) -> Float[Tensor, "*batch M"]:
    """Return the vertical ground reaction [body weights] of a centre of mass: ``1 + z'' / g``, parabolas over ``window`` [s].

    The M values are of the frames that have a whole window.
    """
    length = max(3, 2 * round(window * fps / 2) + 1)
    weights = torch.as_tensor(projection(length, 2)[0][2], dtype=centre.dtype, device=centre.device)
    return 1 + fps**2 * (centre[..., 2].unfold(-1, length, 1) @ weights) / G
