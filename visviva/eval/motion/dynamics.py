"""Forces of a motion known by its joints: torques, ground reaction, and the Euler-Lagrange violation with its noise floor.

The joints are put on a human body of the measured bone lengths (`visviva.physics.bodies.human`), whose links turn as the
joints say (`posed`; twist about a single bone is not seen). Accelerations are fits over windows of a quarter of a second. Of
what inverse dynamics then wants from outside, forces at heel, ball and toe of the feet that stand give what friction cones
allow. Torques are those of inverse dynamics with these forces on the feet. What is left over body weight is the violation: 0
for what a body on a ground can do, 1 for one that floats. Its floor is what noise as large as that of the joints makes of a
standing person: below it a violation means nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from visviva.data.motions.amass import OFFSETS
from visviva.data.motions.anatomy import parts
from visviva.data.motions.axes import stature
from visviva.data.motions.motion import HumanMotion
from visviva.errors import InputError
from visviva.eval.motion.contact import contacts
from visviva.eval.motion.mass import G
from visviva.eval.score import Score
from visviva.physics.bodies import SKELETONS, Body, human
from visviva.physics.bodies.deleva import adult_mass
from visviva.physics.bodies.posing import locals_of, posed
from visviva.physics.dynamics import (
    Points,
    Reaction,
    differentiate,
    ground_reaction,
    inverse_dynamics,
    place,
    point_wrenches,
)

WINDOW = 0.25
"""Length of the fits [s]."""
SOLE = 0.047
"""How far the sole is below the ankle, of the stature."""
UNITS = {
    "el_violation": "body weights",
    "el_floor": "body weights",
    "el_linear": "body weights",
    "el_angular": "body weights",
    "ground_peak": "body weights",
    "torque_peak": "N m/kg",
}
"""Scores of forces and their units."""


@dataclass(frozen=True)
class Forces:
    """What moves the body.

    Attributes:
        body: with the masses that were assumed.
        frames: of the motion that these are, a range; the first and last half windows have none.
        torque: generalised forces with the ground's on the feet, (M, nv): force and moment of the root (what the ground does
            not explain), then joints [N m].
        reaction: the ground's; between two feet that stand it is divided evenly, which motion alone does not tell.
        standing: which feet stand, left and right, (M, 2).
        floor: violation that noise alone makes [body weights].
        noise: of the joints, one coordinate [m].
    """

    body: Body
    frames: range
    torque: Tensor
    reaction: Reaction
    standing: Tensor
    floor: float
    noise: float

    @property
    def vertical(self) -> Float[Tensor, " M"]:
        """Vertical ground reaction [body weights]."""
        return self.reaction.total[:, 2] / (self.body.total_mass * G)


def forces(motion: HumanMotion, mass: float | None = None, sex: float = 0.5, window: float = WINDOW) -> Forces:
    """Return the forces of a motion of SMPL's 24, HumanML3D's 22 or Human3.6M's 17 joints, or of joints named so.

    Args:
        motion: its joints, z up [m].
        mass: of the person [kg]; None: of de Leva's adults at the stature that the legs tell (as readers of files do).
        sex: 0 female to 1 male.
        window: of the fits [s].

    Raises:
        InputError: markers or joints that no known skeleton has, or a motion shorter than a window.

    Example::

        found = forces(read_motion("walk.npz"), mass=70)
        found.reaction.violation.mean(), found.floor  # body weights
    """
    name, joints = skeleton(motion)
    length = max(5, 2 * round(window * motion.fps / 2) + 1)
    if len(motion) < length:
        raise InputError(f"{motion.source}: {len(motion)} frames; dynamics fits windows of {length} ({window:g} s): give more")
    rest = rest_of(name, joints)
    mass = float(adult_mass(tall(motion), sex)) if mass is None else mass
    body = human(rest, mass=mass, sex=sex, skeleton=name, up="z")
    moved = differentiate(body, configuration(body, name, rest, joints), motion.fps, length)
    half = length // 2
    feet = _feet(name, joints)
    standing = contacts(feet, motion.fps).unflatten(-1, (2, 2)).any(-1)[half : len(motion) - half]
    points = _soles(body, rest, name)
    reaction = ground_reaction(body, *moved, points, standing.repeat_interleave(len(points.links) // 2, -1))
    wrench = point_wrenches(body, place(body, moved[0]), points, reaction.force)
    torque = inverse_dynamics(body, *moved, wrench)
    noise = scatter(joints)
    floor = _floor(body, name, rest, points, noise, motion.fps, length)
    return Forces(body, range(half, len(motion) - half), torque, reaction, standing, floor, noise)


def tall(motion: HumanMotion) -> float:
    """Return the stature [m] that the motion's legs tell, by which files are scaled."""
    return stature(motion.positions, motion.names)[0]


def skeleton(motion: HumanMotion) -> tuple[str, Float[Tensor, "T n 3"]]:
    """Return the name of the skeleton whose joints are all there by name, in any order, and these joints (float64).

    Joints of other trees are named by their part of the body, and make a Human3.6M skeleton.
    """
    joints = motion.positions.double()
    for name, tree in SKELETONS.items():
        if set(tree.names) <= set(motion.names):
            return name, joints[:, [motion.names.index(joint) for joint in tree.names]]
    found = parts(motion.names)
    wanted = [f"{side}_{part}" for side in ("right", "left") for part in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")]
    missing = [part for part in (*wanted, "head") if part not in found]
    if motion.kind != "joints" or missing:
        said = f"there is no {', '.join(missing)}" if missing else "these are markers on the skin"
        raise InputError(f"{motion.source}: dynamics needs the joints of a body; {said}")

    def at(part: str) -> Tensor:
        return joints[:, found[part]]

    hips, chest = ((at(f"left_{part}") + at(f"right_{part}")) / 2 for part in ("hip", "shoulder"))
    neck = torch.lerp(chest, at("head"), 0.4)
    legs = [at(f"{side}_{part}") for side in ("right", "left") for part in ("hip", "knee", "ankle")]
    arms = [at(f"{side}_{part}") for side in ("left", "right") for part in ("shoulder", "elbow", "wrist")]
    return "h36m", torch.stack([hips, *legs, (hips + chest) / 2, chest, neck, at("head"), *arms], 1)


def mean_rest(name: str) -> Tensor:
    """SMPL's mean joints at rest in the order of the skeleton, the root at 0."""
    tree = SKELETONS["smpl"]
    places: list[Tensor] = []
    for offset, parent in zip(OFFSETS.double(), tree.parents, strict=True):
        places.append(offset + (places[parent] if parent >= 0 else 0))
    smpl = torch.stack(places)
    if name != "h36m":
        return smpl[: len(SKELETONS[name].names)]
    rest = smpl[[0, 2, 5, 8, 1, 4, 7, 6, 12, 15, 15, 16, 18, 20, 17, 19, 21]]
    hips, chest = (smpl[1] + smpl[2]) / 2, (smpl[16] + smpl[17]) / 2
    fixed = {0: hips, 7: (hips + chest) / 2, 8: chest, 9: torch.lerp(chest, smpl[15], 0.4)}
    return torch.stack([fixed.get(i, joint) for i, joint in enumerate(rest)])


def rest_of(name: str, joints: Tensor) -> Tensor:
    """Rest joints with the mean directions and the measured lengths (medians over time), standing on the ground y = 0."""
    parents, mean = SKELETONS[name].parents, mean_rest(name)
    places = [torch.zeros(3, dtype=joints.dtype)]
    for link, parent in list(enumerate(parents))[1:]:
        bone = mean[link] - mean[parent]
        length = (joints[:, link] - joints[:, parent]).norm(dim=-1).median()
        places.append(places[parent] + bone * (length / bone.norm()))
    rest = torch.stack(places)
    return rest - torch.stack([rest.new_zeros(()), rest[:, 1].min(), rest.new_zeros(())])


def configuration(body: Body, name: str, rest: Tensor, joints: Tensor) -> Float[Tensor, "T nq"]:
    """Return the body's configuration for joints: the root's place, and the turns of the links that move."""
    local = locals_of(SKELETONS[name].parents, posed(SKELETONS[name].parents, rest, joints))
    turns = roma.quat_xyzw_to_wxyz(roma.rotmat_to_unitquat(local))
    moving = [i for i, joint in enumerate(body.joints) if joint != "weld"]
    return torch.cat([joints[:, 0] - body.offset[0], turns[:, moving].flatten(1)], -1)


def _feet(name: str, joints: Tensor) -> Tensor:
    """Ankle and toe of the left, then of the right foot (T, 4, 3); the ankle twice where the skeleton has no toe."""
    names = SKELETONS[name].names
    ends = SKELETONS[name].ends
    found = [names.index(end.get(part, end["ankle"])) for end in ends for part in ("ankle", "toe")]
    return joints[:, found]


def _soles(body: Body, rest: Tensor, name: str) -> Points:
    """Heel, ball at both sides and toe of each foot, on the links of the ankles, y up and z forward at rest."""
    names = SKELETONS[name].names
    height = SOLE * (rest[:, 1].max() - rest[:, 1].min())
    places = torch.tensor([[0, 0, -0.05], [-0.04, 0, 0.13], [0.04, 0, 0.13], [0, 0, 0.19]], dtype=rest.dtype)
    places = places - torch.tensor([0.0, 1.0, 0.0], dtype=rest.dtype) * height
    ankles = [names.index(end["ankle"]) for end in SKELETONS[name].ends]
    return Points(tuple(ankle for ankle in ankles for _ in places), places.repeat(2, 1))


def scatter(joints: Float[Tensor, "T n 3"]) -> float:
    """Return the noise of one coordinate [m]: the joints' median scatter of fourth differences, over what white noise has.

    Smoothed motions hide their errors from it; noise that is alike over frames is not seen.
    """
    if len(joints) < 6:
        return 0.0
    fourth = joints.diff(n=4, dim=0).abs().flatten().median()
    return float(fourth) / (0.6745 * math.sqrt(70))


def _floor(body: Body, name: str, rest: Tensor, points: Points, noise: float, fps: float, window: int) -> float:
    """Mean violation of a person who stands still and is seen with this noise."""
    if noise == 0:
        return 0.0
    upright = torch.stack([rest[:, 2], rest[:, 0], rest[:, 1]], -1)
    shaken = upright + noise * torch.randn(
        4 * window, *rest.shape, generator=torch.Generator().manual_seed(0), dtype=rest.dtype
    )
    moved = differentiate(body, configuration(body, name, rest, shaken), fps, window)
    standing = torch.ones(len(moved[0]), len(points.links), dtype=torch.bool)
    return float(ground_reaction(body, *moved, points, standing).violation.mean())


def scores(found: Forces | None, why: str = "") -> list[Score]:
    """Return the Euler-Lagrange violation, its floor and parts, and the peaks of ground reaction and torque; NaN with a reason.

    ``el_linear`` is the force's part, the violation of the centre of mass: ``|m (a - g) - sum f| / (m g)`` with the ground's
    forces f. ``el_angular`` is the moment's, that of angular momentum, over weight and radius of gyration. Their squares add up
    to that of the violation, frame by frame.
    """
    if found is None or why:
        return [Score(name, math.nan, unit, note=why) for name, unit in UNITS.items()]
    body, frames = found.body, len(found.frames)
    violation = found.reaction.violation
    linear = found.reaction.left[:, :3].norm(dim=-1) / (body.total_mass * float(body.down.norm()))
    angular = (violation.square() - linear.square()).clamp(min=0).sqrt()
    torque = float(found.torque[:, 6:].abs().max()) / body.total_mass
    note = f"body of {body.total_mass:.1f} kg; 1: nothing carries it; below el_floor ({found.floor:.2g}) it means nothing"
    values = {
        "el_violation": (float(violation.mean()), True, note),
        "el_floor": (
            found.floor,
            True,
            f"violation of a standing person with {1e3 * found.noise:.2g} mm of noise in the joints",
        ),
        "el_linear": (float(linear.mean()), True, "force that nothing gives: of the centre of mass; el_floor bounds its noise"),
        "el_angular": (
            float(angular.mean()),
            True,
            "moment that nothing gives: of angular momentum; el_floor bounds its noise",
        ),
        "ground_peak": (float(found.vertical.max()), False, "no aim in itself"),
        "torque_peak": (torque, False, "largest component of any joint, the ground's forces on the feet; no aim in itself"),
    }
    return [Score(k, value, UNITS[k], low, used=frames, note=said) for k, (value, low, said) in values.items()]
