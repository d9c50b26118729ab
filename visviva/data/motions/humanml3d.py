"""HumanML3D: 22 joints at 20 frames/s, y up, facing +z, and their 263 features, both ways.

The features of frame t (there are T - 1 of them for T frames), in the heading frame, into which ``q_t`` rotates the world:

| columns | what |
|---|---|
| 0 | half of the yaw from t to t + 1 (``asin`` of the quaternion's y), about y |
| 1, 2 | velocity of the root in x, z, in the heading of t + 1 [m/frame] |
| 3 | height of the root [m] |
| 4..66 | joints 1..21: x, z relative to the root, in the heading of t; y absolute |
| 67..192 | joints 1..21: first two columns of a local rotation of inverse kinematics, one after the other |
| 193..258 | velocities of joints 0..21, in the heading of t [m/frame] |
| 259..262 | contact of 7, 10 (left ankle, toe), 8, 11: squared displacement below 0.002 m^2 |

Positions are recovered from columns 0..66 alone: yaw and place of the root are running sums, which begin at zero. So joints ->
features -> joints gives the motion moved above the origin; only its last frame is lost. The heading is smoothed over a second.
The rotations are smallest swings of template bones to the motion's and hold no twist: they are not SMPL's. (Guo et al., CVPR
2022. Layout, threshold, half angle, heading and rotations are those of the published features: those of the sample clip are met
to 1e-5 but for the heading near its end, where its last frame is missing.)
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from visviva.data.motions.axes import Reading, overruled, upright
from visviva.data.motions.motion import HumanMotion
from visviva.errors import InputError
from visviva.physics.bodies.posing import swing

FPS = 20.0
NAMES = (
    "pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle", "right_ankle", "spine3",
    "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist",
)  # fmt: skip
PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19)
CHAINS = ((0, 2, 5, 8, 11), (0, 1, 4, 7, 10), (0, 3, 6, 9, 12, 15), (9, 14, 17, 19, 21), (9, 13, 16, 18, 20))
FEET = (7, 10, 8, 11)
SMOOTH = 20.0
"""Frames over which the heading is smoothed (standard deviation)."""
CONTACT = 0.002
"""Squared displacement per frame below which a foot counts as standing [m^2]."""
BONES = torch.tensor(
    [[0, 0, 0], [1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, -1, 0], [0, 1, 0], [0, -1, 0], [0, -1, 0], [0, 1, 0],
     [0, 0, 1], [0, 0, 1], [0, 1, 0], [1, 0, 0], [-1, 0, 0], [0, 0, 1], *[[0, -1, 0]] * 6],
    dtype=torch.float32,
)  # fmt: skip
"""Directions of the template's bones from the parent, arms down."""


def heading(joints: Float[Tensor, "*batch T 22 3"], sigma: float = SMOOTH) -> Float[Tensor, "*batch T"]:
    """Return the yaw [rad] about y by which the body faces away from +z: forward = (sin, 0, cos).

    Forward is up x across, smoothed over time by a Gaussian of ``sigma`` frames (ends repeated, cut at 4 sigma); the first
    frame is taken to face +z. ``across`` is (left hip - right hip) + (right shoulder - left shoulder), of length one: the
    published features have the hips the wrong way round (shoulders are wider), as the sample clip shows, and so has this.
    """
    across = joints[..., 1, :] - joints[..., 2, :] + joints[..., 17, :] - joints[..., 16, :]
    across = functional.normalize(across, dim=-1)
    forward = torch.stack((across[..., 2], -across[..., 0]), -2)
    if sigma > 0:
        radius = int(4 * sigma + 0.5)
        grid = torch.arange(-radius, radius + 1, dtype=joints.dtype, device=joints.device)
        weights = (-0.5 * (grid / sigma) ** 2).exp()
        padded = functional.pad(forward.reshape(-1, 1, forward.shape[-1]), (radius, radius), mode="replicate")
        forward = functional.conv1d(padded, (weights / weights.sum())[None, None]).reshape(forward.shape)
    yaw = torch.atan2(forward[..., 0, :], forward[..., 1, :])
    return torch.cat((torch.zeros_like(yaw[..., :1]), yaw[..., 1:]), -1)


def yawed(points: Float[Tensor, "*batch 3"], angle: Float[Tensor, "#*batch"]) -> Float[Tensor, "*batch 3"]:
    """Return points turned about y by an angle [rad]: +z turns towards +x."""
    c, s = angle.cos(), angle.sin()
    x, y, z = points.unbind(-1)
    return torch.stack((c * x + s * z, y, c * z - s * x), -1)


def features(joints: Float[Tensor, "*batch T J C"], fps: float = FPS) -> Float[Tensor, "*batch T-1 263"]:
    """Return the 263 features of joints, y up [m], at 20 frames/s; batched, differentiable where contacts are not looked at.

    At another rate what the format counts per frame (yaw, velocities) is given per 1/20 s, the heading is smoothed over the
    same time, and contact is the same speed: a motion has the same features at every rate (ours; `joints_of` takes it too).

    Raises:
        InputError: other than 22 joints, fewer than 2 frames.
    """
    if joints.shape[-2:] != (22, 3) or joints.shape[-3] < 2:
        raise InputError(
            f"HumanML3D features need (T >= 2, 22, 3) joints, not {tuple(joints.shape)}; give the first 22 of SMPL"
        )
    scale = fps / FPS
    yaw = heading(joints, SMOOTH * scale)
    root = joints[..., 0, :]
    ground = torch.stack((root[..., 0], torch.zeros_like(root[..., 0]), root[..., 2]), -1)
    local = yawed(joints - ground[..., None, :], -yaw[..., None])
    turn = yaw.diff(dim=-1)
    turn = torch.atan2(turn.sin(), turn.cos())  # the short way round
    velocity = yawed(ground.diff(dim=-2) * scale, -yaw[..., 1:])
    moved = joints.diff(dim=-3) * scale
    contact = (moved[..., FEET, :].square().sum(-1) < CONTACT).to(joints.dtype)
    rotations = swings(joints, yaw)[..., 1:, :, :2].mT.flatten(-3)
    parts = (
        -turn[..., None] * scale / 2,
        velocity[..., [0, 2]],
        local[..., :-1, 0, 1:2],
        local[..., :-1, 1:, :].flatten(-2),
        rotations[..., :-1, :],
        yawed(moved, -yaw[..., :-1, None]).flatten(-2),
        contact,
    )
    return torch.cat(parts, -1)


def swings(joints: Float[Tensor, "*batch 22 3"], yaw: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch 22 3 3"]:
    """Return local rotations: ``B_parent^T B_child`` along each chain, B the smallest swing of a template bone to the bone.

    Every chain begins with the turn of the world into the heading frame, also those of the arms.
    """
    columns = [yawed(torch.eye(3).to(joints)[k].expand(*yaw.shape, 3), -yaw) for k in range(3)]
    start = torch.stack(columns, -1)
    turns: list[Tensor] = [start] * 22
    bones = BONES.to(joints)
    for chain in CHAINS:
        before = start
        for parent, child in pairwise(chain):
            wanted = functional.normalize(joints[..., child, :] - joints[..., parent, :], dim=-1)
            turn = swing(bones[child].expand_as(wanted), wanted)
            turns[child], before = before.mT @ turn, turn
    return torch.stack(turns, -3)


def joints_of(vectors: Float[Tensor, "*batch T D"], fps: float = FPS) -> Float[Tensor, "*batch T 22 3"]:
    """Return the joints, y up [m], that features hold: the motion begins above the origin, facing +z.

    The first column is *half* of the yaw, so its running sum, doubled, is the angle. ``fps`` as in `features`.
    """
    if vectors.shape[-1] != 263:
        raise InputError(f"HumanML3D features have 263 columns, not {vectors.shape[-1]}; KIT's 251 are another skeleton")
    before = functional.pad(vectors[..., :3] * (FPS / fps), (0, 0, 1, 0))[..., :-1, :]  # no frames give no joints
    yaw = -2 * before[..., 0].cumsum(-1)
    step = torch.stack((before[..., 1], torch.zeros_like(before[..., 1]), before[..., 2]), -1)
    ground = yawed(step, yaw).cumsum(-2)
    local = vectors[..., 4:67].unflatten(-1, (21, 3))
    places = yawed(local, yaw[..., None]) + ground[..., None, :]
    root = torch.stack((ground[..., 0], vectors[..., 3], ground[..., 2]), -1)
    return torch.cat((root[..., None, :], places), -2)


def from_features(vectors: Float[Tensor, "T D"], source: str = "", reading: Reading | None = None) -> HumanMotion:
    """Return the motion that features hold, with its labelled contacts; the floor is at 0 by the format.

    Raises:
        InputError: fewer than 2 frames, other than 263 columns, features that look normalised (z-scored), values not finite.
    """
    joints = joints_of(vectors)
    _finite(vectors, source)
    height, contact = vectors[:, 3], vectors[:, 259:263]
    if bool((height < 0).any()) or bool(((contact < -0.5) | (contact > 1.5)).any()):
        raise InputError(
            f"{source}: root heights from {float(height.min()):.2f} m and contacts from {float(contact.min()):.2f} to "
            f"{float(contact.max()):.2f} "
            f"are no HumanML3D features but look z-scored; undo that first (times Std.npy, plus Mean.npy)"
        )
    reading = reading or Reading()  # up and hand are the format's, also of a body that lies or is none
    motion = from_joints(joints, source, replace(reading, hand=reading.hand or "right"), sure_up=True)
    told = overruled(reading, FPS, "HumanML3D's features have")
    return motion.noted(*told, "263 features; contacts as labelled", contacts=contact > 0.5, contact_joints=FEET)


def _finite(vectors: Float[Tensor, "T D"], source: str) -> None:
    """Refuse features that are not finite, also where no joint depends on them: velocities, rotations, contacts."""
    bad = ~vectors.isfinite()
    if bool(bad.any()):
        frame, column = bad.nonzero()[0].tolist()
        raise InputError(
            f"{source}: features that are not finite (NaN or infinity): {int(bad.sum())}, the first in frame {frame}, "
            f"column {column} (both from 0); fill or cut these frames"
        )


def from_joints(
    joints: Float[Tensor, "T 22 3"], source: str = "", reading: Reading | None = None, sure_up: bool = False
) -> HumanMotion:
    """Return the motion of 22 joints in metres; the floor is at 0 where y is (``sure_up``) or is found to be up."""
    from visviva.data.motions.world import to_world

    reading = reading or Reading()
    fps = reading.fps or FPS
    notes = [] if reading.fps else [f"frame rate: {FPS:g}, HumanML3D's"]
    motion = to_world(joints.float(), NAMES, PARENTS, fps, source, reading=reading, usual_up="y", sure_up=sure_up, notes=notes)
    if not any(
        note.startswith("up axis: y") and "because" not in note for note in motion.notes
    ):  # not as HumanML3D has it: nor may its floor be
        return motion
    return motion.noted("floor: at height 0, by the format", floor=0.0)


def to_features(motion: HumanMotion) -> Float[Tensor, "F 263"]:
    """Return the features of a motion that has HumanML3D's 22 joints by name and 20 frames/s.

    Raises:
        InputError: a joint is missing, or the frame rate is another one.
    """
    missing = [name for name in NAMES if name not in motion.names]
    if missing:
        raise InputError(
            f"{motion.source or 'the motion'}: lacks HumanML3D's joints {', '.join(missing)}; map its skeleton first"
        )
    if abs(motion.fps - FPS) > 0.01:
        raise InputError(
            f"{motion.source or 'the motion'}: has {motion.fps:g} frames/s, its features need 20; see resampled(motion, 20)"
        )
    order = [motion.names.index(name) for name in NAMES]
    return features(motion.positions[:, order] @ upright("y").to(motion.positions))


def read_statistics(folder: str | Path) -> tuple[Float[Tensor, "263"], Float[Tensor, "263"]]:
    """Return mean and standard deviation of a HumanML3D folder (Mean.npy, Std.npy)."""
    import numpy as np

    found = []
    for name in ("Mean.npy", "Std.npy"):
        path = Path(folder) / name
        if not path.is_file():
            raise InputError(f"{path}: no such file; it comes with the HumanML3D data set")
        values = torch.from_numpy(np.load(path, allow_pickle=False)).float()
        if values.shape != (263,) or not bool(values.isfinite().all()):
            raise InputError(f"{path}: {tuple(values.shape)} numbers where 263 finite ones are wanted")
        found.append(values)
    return found[0], found[1]
