"""Joint torques of the legs from markers without names and measured ground forces: a body fitted to the markers.

Segments are groups of markers that move together (`visviva.physics.bodies.markers`); which group is what follows from
geometry alone: the two lowest groups are feet, a foot's shank is the group that shares the best joint with it, the shank's
thigh likewise, the pelvis is the group nearest to both thighs. Knees and ankles are functional (centre and axis from the
motion; the middle of the markers beside the axis, along it). The hip's centre is Harrington's regression (2007, J. Biomech.
40(3)) from the four iliac spines, the outermost high markers of the pelvis: a stride turns hips too little, and skin slides
too much, for a functional one. Forward is where feet point to from the ankles.
"""

from __future__ import annotations

from dataclasses import dataclass

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from visviva.errors import InputError
from visviva.physics.bodies import Body, segment
from visviva.physics.bodies.deleva import STATURE, reference
from visviva.physics.bodies.markers import Rigid, Shared, follow, rigid_groups, shared_joint
from visviva.physics.bodies.posing import locals_of
from visviva.physics.bodies.segments import ANKLE, HEEL
from visviva.physics.dynamics import differentiate, inverse_dynamics, place

PARENTS = (-1, 0, 1, 2, 0, 4, 5)
NAMES = ("pelvis", "left_thigh", "left_shank", "left_foot", "right_thigh", "right_shank", "right_foot")
FEET = [NAMES.index("left_foot"), NAMES.index("right_foot")]
BESIDE = 0.05
"""How near to its axis markers are beside a hinge [m]."""
HIGH = 0.08
"""How far below the highest marker of the pelvis the iliac spines may be [m]."""


@dataclass(frozen=True)
class Legs:
    """A pelvis with two legs that was fitted to markers.

    Attributes:
        body: seven links with de Leva's masses; the pelvis carries the rest of the person.
        q: its configurations, (T, nq).
        groups: indices of the markers of each link, by its name.
        joints: centres of hip, knee and ankle of the left, then of the right leg, (T, 6, 3) [m].
    """

    body: Body
    q: Tensor
    groups: dict[str, list[int]]
    joints: Tensor

    def torques(
        self,
        fps: float,
        force: Float[Tensor, "T 2 3"],
        centre: Float[Tensor, "T 2 3"],
        moment: Float[Tensor, "T 2 3"] | None = None,
        window: float = 0.11,
    ) -> tuple[Float[Tensor, "M 2 3"], range]:
        """Return the sagittal torques of hip, knee and ankle of the left and right leg [N m], and their frames.

        Positive bends the hip, stretches the knee and lifts the toes: all turn the distal segment about the right-hand side,
        about the axis of the proximal one. What is beyond the legs does not enter.

        Args:
            fps: frames per second.
            force: of the ground on the left and right foot [N].
            centre: of pressure [m]; ``moment``: about it [N m].
            window: of the fits of velocities and accelerations [s].

        Raises:
            InputError: frames that are not the markers'.
        """
        if force.shape[:2] != (len(self.q), 2) or centre.shape != force.shape:
            raise InputError(f"forces of the shape {tuple(force.shape)} for {len(self.q)} frames; (T, 2, 3), left then right")
        length = max(5, 2 * round(window * fps / 2) + 1)
        q, v, a = differentiate(self.body, self.q, fps, length)
        kept = range(length // 2, len(self.q) - length // 2)
        pose = place(self.body, q)
        wrench = q.new_zeros(len(q), len(NAMES), 6)
        for side, foot in enumerate(FEET):
            here = force[kept.start : kept.stop, side].to(q)
            arm = centre[kept.start : kept.stop, side].to(q) - pose.position[:, foot]
            turning = torch.linalg.cross(arm, here)
            wrench[:, foot] = torch.cat(
                [here, turning if moment is None else turning + moment[kept.start : kept.stop, side]], -1
            )
        tau = inverse_dynamics(self.body, q, v, a, wrench)[:, 6:].unflatten(-1, (6, 3))
        world = (pose.rotation[:, 1:] @ tau[..., None])[..., 0]
        axis = pose.rotation[:, list(PARENTS[1:]), :, 1]
        return -(world * axis).sum(-1).unflatten(-1, (2, 3)), kept


def legs(markers: Float[Tensor, "T n 3"], mass: float, sex: float = 0.5, apart: float = 0.006) -> Legs:
    """Return pelvis and legs of a walking person, fitted to markers that have no names.

    Args:
        markers: on the whole body or its lower half, z up [m]; three or more per segment, among them four iliac spines.
        mass: of the person [kg].
        sex: 0 female to 1 male.
        apart: how much distances within a segment may vary, see `rigid_groups` [m].

    Raises:
        InputError: markers in which no pelvis with two legs is found.

    Example::

        found = legs(markers, mass=64.6)
        torque, frames = found.torques(100.0, force, centre)
    """
    markers = markers.double()
    groups = [group for group in rigid_groups(markers, apart) if len(group) > 2]
    parts = [follow(markers[:, group]) for group in groups]
    chains, hips = _chains(parts)
    limbs = [Limb.of(*(parts[k] for k in chain)) for chain in chains]
    ahead = torch.stack([limb.foot.origin - limb.ankles for limb in limbs]).mean(0)
    pelvis, turn, sockets = _pelvis(markers[:, groups[hips]], parts[hips], ahead)
    frame = turn[:, :, 1]
    order = sorted((0, 1), key=lambda k: -float(((limbs[k].thigh.origin - pelvis.origin) * frame).sum(-1).mean()))
    found, turns, places = {"pelvis": groups[hips]}, [turn], []
    for side, number in enumerate(order):
        names = NAMES[1 + 3 * side : 4 + 3 * side]
        found |= {name: groups[k] for name, k in zip(names, chains[number], strict=True)}
        hip = pelvis.carried(sockets[side])
        places += [hip, limbs[number].knees, limbs[number].ankles]
        turns += limbs[number].turns(hip, frame)
    joints, world = torch.stack(places, 1), torch.stack(turns, 1)
    offset = (turn.mT @ (joints[:, [0, 3]] - pelvis.origin[:, None]).mT).mT.mean(0)
    turned = roma.quat_xyzw_to_wxyz(roma.rotmat_to_unitquat(locals_of(PARENTS, world)))
    return Legs(_body(joints, offset, mass, sex), torch.cat([pelvis.origin, turned.flatten(1)], -1), found, joints)


@dataclass(frozen=True)
class Limb:
    """One leg: its segments, the joints between them, and where these are over time [m]."""

    thigh: Rigid
    shank: Rigid
    foot: Rigid
    knee: Shared
    ankle: Shared
    knees: Tensor
    ankles: Tensor

    @classmethod
    def of(cls, thigh: Rigid, shank: Rigid, foot: Rigid) -> Limb:
        """Return the leg of three segments."""
        knee, ankle = shared_joint(thigh, shank), shared_joint(shank, foot)
        return cls(thigh, shank, foot, knee, ankle, _middle(thigh, shank, knee), _middle(shank, foot, ankle))

    def turns(self, hip: Tensor, left: Tensor) -> list[Tensor]:
        """Return the links' rotations (T, 3, 3): z along the bone, y along the knee's axis to the left, x ahead."""
        found = []
        for rigid, axis, bone in (
            (self.thigh, self.knee.axis[0], hip - self.knees),
            (self.shank, self.knee.axis[1], self.knees - self.ankles),
        ):
            across = (rigid.rotation @ axis) * torch.sign((rigid.rotation @ axis * left).sum(-1).mean())
            found.append(_axes(bone, across))
        lowest = self.foot.origin[:, 2] <= self.foot.origin[:, 2].quantile(0.25)
        up = self.foot.rotation.mT[:, :, 2][lowest].mean(0)
        ahead = self.foot.within(self.ankles).mean(0)
        own = _axes(up, torch.linalg.cross(up, -ahead))
        return [*found, self.foot.rotation @ own]


def _chains(parts: list[Rigid]) -> tuple[list[tuple[int, int, int]], int]:
    """Indices of thigh, shank and foot of both legs, and of the pelvis."""
    if len(parts) < 7:
        raise InputError(
            f"{len(parts)} groups of three markers that move together; pelvis and legs are seven: more markers are wanted, or "
            "another apart"
        )
    height = [float(part.origin[:, 2].mean()) for part in parts]
    used: list[int] = sorted(range(len(parts)), key=lambda k: height[k])[:2]
    steps = [list(used)]
    for _ in range(2):
        steps.append([_nearest(parts, below, used) for below in steps[-1]])
        used += steps[-1]
    if len(set(used)) < 6:
        raise InputError("no two legs of foot, shank and thigh are found in these markers; legs must bend while they are seen")
    rest = [k for k in range(len(parts)) if k not in used]
    apart = [max(float((parts[k].origin - parts[thigh].origin).norm(dim=-1).mean()) for thigh in steps[-1]) for k in rest]
    return [(steps[2][k], steps[1][k], steps[0][k]) for k in (0, 1)], rest[apart.index(min(apart))]


def _nearest(parts: list[Rigid], below: int, used: list[int]) -> int:
    """The segment that shares the best joint with one, but for those in use."""
    error = {k: shared_joint(parts[k], parts[below]).error for k in range(len(parts)) if k not in used}
    return min(error, key=lambda k: error[k])


def _middle(one: Rigid, other: Rigid, joint: Shared) -> Tensor:
    """The centre of a hinge over time: half-way between its segments' estimates, along the axis amid the markers beside it."""
    along, away = [], []
    for rigid, centre, axis in zip((one, other), joint.centre, joint.axis, strict=True):
        arm = rigid.shape - centre
        along.append(arm @ axis)
        away.append((arm - along[-1][:, None] * axis).norm(dim=-1))
    beside = torch.cat(along)[torch.cat(away) < BESIDE]
    shift = (beside.min() + beside.max()) / 2 if len(beside) > 1 else torch.cat(along).mean()
    centres = [
        rigid.carried(centre + shift * axis) for rigid, centre, axis in zip((one, other), joint.centre, joint.axis, strict=True)
    ]
    return (centres[0] + centres[1]) / 2


def _pelvis(markers: Tensor, whole: Rigid, ahead: Tensor) -> tuple[Rigid, Tensor, Tensor]:
    """The pelvis by its iliac spines, its link's rotation (T, 3, 3), and the hips in its frame, left and right."""
    up = whole.rotation.mT[:, :, 2].mean(0)
    front = (whole.rotation.mT @ ahead[..., None])[..., 0].mean(0)
    axes = _axes(up, torch.linalg.cross(up, front))
    place = whole.shape @ axes
    high = place[:, 2] > place[:, 2].max() - HIGH
    spines = []
    for away in (1, -1):
        for side in (1, -1):
            mine = (high & (side * (place[:, 1] - place[high, 1].mean()) > 0)).nonzero()[:, 0].tolist()
            spines.append(max(mine, key=lambda k: away * float(place[k, 0])) if mine else -1)
    if len(set(spines)) < 4 or -1 in spines:
        raise InputError("the pelvis shows no four iliac spines, two in front and two behind; give their markers")
    pelvis = follow(markers[:, spines])
    left, right, behind = pelvis.shape[0], pelvis.shape[1], (pelvis.shape[2] + pelvis.shape[3]) / 2
    depth, width = ((left + right) / 2 - behind).norm(), (left - right).norm()
    across = (left - right) / width
    own = _axes(torch.linalg.cross((left + right) / 2 - behind, across), across)
    away = left.new_tensor([0.0, 1.0, 0.0])[None] * left.new_tensor([[1.0], [-1.0]]) * (0.33 * width + 0.0073)
    inside = torch.stack([-0.24 * depth - 0.0099, depth * 0, -0.30 * width - 0.0109]) + away
    return pelvis, pelvis.rotation @ own, (left + right) / 2 + inside @ own.mT


def _axes(up: Tensor, left: Tensor) -> Tensor:
    """Rotations with z along the one and y as near as can be to the other: columns ahead, left and up."""
    z = up / up.norm(dim=-1, keepdim=True)
    y = left - (left * z).sum(-1, keepdim=True) * z
    y = y / y.norm(dim=-1, keepdim=True)
    return torch.stack([torch.linalg.cross(y, z), y, z], -1)


def _body(joints: Tensor, sockets: Tensor, mass: float, sex: float) -> Body:
    """Seven links with de Leva's masses, as long as the joints are apart; the pelvis carries what is above it, coarsely."""
    bones = [[(joints[:, k + 1] - joints[:, k]).norm(dim=-1).mean() for k in (at, at + 1)] for at in (0, 3)]
    rows = [segment(name, sex) for name in ("thigh", "shank", "foot")]
    scale = torch.stack([bone for pair in bones for bone in pair]).sum() / 2 / (rows[0].length + rows[1].length)
    size, sole = scale * rows[2].length, scale * ANKLE / 2 * reference(STATURE, sex)
    zero = joints.new_zeros(())
    offset, centre, inertia = [zero.expand(3)], [joints.new_tensor([0.0, 0.0, 0.3])], [joints.new_tensor([0.06, 0.06, 0.02])]
    share = [1 - 2 * sum(row.mass for row in rows)]
    for socket, (thigh, shank) in zip(sockets, bones, strict=True):
        offset += [socket, torch.stack([zero, zero, -thigh]), torch.stack([zero, zero, -shank])]
        centre += [torch.stack([zero, zero, -row.com * bone]) for row, bone in zip(rows, (thigh, shank), strict=False)]
        centre.append(torch.stack([(rows[2].com - HEEL) * size, zero, -sole]))
        for row, bone in zip(rows, (thigh, shank, size), strict=True):
            radii = row.radii if row is not rows[2] else row.radii[::-1]  # the foot's long axis is x
            inertia.append(joints.new_tensor(radii).square() * bone**2 * row.mass)
            share.append(row.mass)
    return Body(
        names=NAMES,
        parents=PARENTS,
        joints=("free", *["ball"] * 6),
        offset=torch.stack(offset),
        rest=torch.eye(3).to(joints).expand(7, 3, 3),
        axis=joints.new_zeros(7, 3),
        mass=mass * joints.new_tensor(share),
        com=torch.stack(centre),
        inertia=mass * torch.diag_embed(torch.stack(inertia)),
    )
