"""Human bodies from a skeleton at rest: SMPL's 24 joints, HumanML3D's 22 or Human3.6M's 17, with de Leva's masses and inertias.

The frames of all links are parallel to the axes of the rest pose: x left, y up, z forward. Ball joints then take SMPL's local
rotations as they are, and the root takes SMPL's translation: the zero configuration is the rest skeleton where it was given.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError, closest
from visviva.physics.bodies.body import JOINTS, Body
from visviva.physics.bodies.deleva import STATURE, adult_mass, reference
from visviva.physics.bodies.segments import carried
from visviva.physics.bodies.skeletons import Skeleton, skeleton_of, standing_height

DOWN = {"y": (0.0, -9.81, 0.0), "z": (0.0, 0.0, -9.81)}
"""Gravity of worlds whose vertical axis is y or z [m/s^2]."""


def human(
    joints: Float[Tensor, "n 3"],
    mass: float | Tensor | None = None,
    stature: float | Tensor | None = None,
    sex: float = 0.5,
    skeleton: str | Skeleton | None = None,
    welded: Sequence[str] | None = None,
    up: str = "y",
    armature: float = 0.0,
) -> Body:
    """Return a human body, free to move, with ball joints.

    Masses, centres and inertias are de Leva's (`visviva.physics.bodies.deleva`). The bones of arms and legs are as long as the
    skeleton's; trunk thirds, head, hands and feet are scaled with the stature. Where the heel, the sole and the
    shares of links within one segment are is ours, as is the distribution over spine, collars, toes and fingers that move.

    Args:
        joints: at rest, standing upright in a T- or A-pose, x left, y up, z forward [m]; in the order of the skeleton.
        mass: of the body [kg]; None: de Leva's adult with the body mass index kept at this stature.
        stature: [m]; None: from the lengths of the skeleton's bones.
        sex: 0 female to 1 male.
        skeleton: one of `SKELETONS`, or one of your own; None: the one with so many joints.
        welded: names of links that do not move against their parents; None: the skeleton's own (SMPL: 16 links move, 51
            degrees of freedom); (): all joints move.
        up: axis of the world that points up, y (as SMPL) or z (as AMASS, whose root orientations then turn the body upright).
        armature: added to the diagonal of the mass matrix at all joints but the root [kg m^2]; 0.01 makes float32 safe.

    Returns:
        A body in the dtype and on the device of ``joints``, differentiable with respect to them, mass and stature.

    Raises:
        InputError: a count of joints that no skeleton has, joints that are not finite, axes that are not left, up, forward,
            unknown links, a mass or stature that is no human's (under 0.3 m or over 3 m: millimetres?).

    Example::

        body = human(rest_joints, mass=73.0, sex=1.0)
        tau = body.inverse_dynamics(q, v, a)  # (*batch, 51)
    """
    tree = skeleton_of(joints, skeleton)
    held = tree.welded if welded is None else tuple(welded)
    for name in held:
        if name not in tree.names[1:]:
            raise InputError(f"no link {name!r} to weld{closest(name, tree.names)}; there are {', '.join(tree.names[1:])}")
    if up not in DOWN:
        raise InputError(f"up is {up!r}; y or z")
    at = {name: joints[i] for i, name in enumerate(tree.names)}
    _check_axes(tree, at)
    stature = standing_height(joints, skeleton) if stature is None else stature
    if not 0.3 <= _number(stature) <= 3:
        raise InputError(f"a stature of {_number(stature):g} m is no human's; are the joints in metres?")
    mass = adult_mass(stature, sex) if mass is None else mass
    if not 0 < _number(mass) < 1000:
        raise InputError(f"a mass of {_number(mass):g} kg is no human's")
    shares, centre, inertia = carried(tree, at, held, stature / reference(STATURE, sex), stature, sex)
    kinds = ["free", *("weld" if name in held else "ball" for name in tree.names[1:])]
    count = len(joints)
    above = torch.tensor([0, *tree.parents[1:]], device=joints.device)
    rotor = [0.0] * 6 + [armature] * (sum(JOINTS[kind][1] for kind in kinds) - 6)
    return Body(
        names=tree.names,
        parents=tree.parents,
        joints=tuple(kinds),
        offset=torch.cat([joints[:1], (joints - joints[above])[1:]]),
        rest=torch.eye(3).to(joints).expand(count, 3, 3),
        axis=torch.zeros_like(joints),
        mass=mass * shares,
        com=centre,
        inertia=mass * inertia,
        gravity=joints.new_tensor(DOWN[up]),
        armature=joints.new_tensor(rotor) if armature else None,
    )


def _number(value: float | Tensor) -> float:
    return float(value.detach()) if isinstance(value, Tensor) else value


def _check_axes(tree: Skeleton, at: dict[str, Tensor]) -> None:
    """Refuse skeletons that do not stand along y with their left along x, such as bones' offsets instead of places."""
    left, right = tree.ends
    hips = at[left["hip"]] - at[right["hip"]]
    trunk = at[tree.spine[0]] - (at[left["hip"]] + at[right["hip"]]) / 2
    for way, axis, what in ((hips, 0, "from the right hip to the left"), (trunk, 1, "from the hips to the neck")):
        if not bool(way[axis] > 0.7 * way.norm()):
            found = ", ".join(f"{x:.3g}" for x in way.tolist())
            raise InputError(
                f"the way {what} is ({found}) m; at rest x points left, y up and z forward: turn the joints (or swap the sides)"
            )
    for side in (left, right):
        hip, knee, ankle = (_number(at[side[part]][1]) for part in ("hip", "knee", "ankle"))
        if not hip - 0.02 > knee > ankle + 0.3 * (hip - ankle):
            raise InputError(
                f"hip, knee and ankle are {hip:.3g}, {knee:.3g} and {ankle:.3g} m up; at rest the legs hang straight: give the "
                "places of joints (not their offsets from their parents) of somebody who stands"
            )
