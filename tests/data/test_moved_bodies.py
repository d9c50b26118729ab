"""Bodies of motions with rotations: the same as of the skeleton, in any frames; positions come out again."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import roma
import torch

from visviva.data.bodies import body_of, configurations
from visviva.data.motions import HumanMotion, read_motion
from visviva.data.motions.motion import forward_kinematics
from visviva.errors import InputError
from visviva.physics.bodies import SKELETONS, human
from visviva.physics.dynamics import place

OFFSETS = [
    (0, 0, 0), (0.07, -0.09, 0), (-0.07, -0.09, 0), (0, 0.11, -0.03), (0.03, -0.38, 0), (-0.03, -0.38, 0), (0, 0.14, 0),
    (-0.01, -0.4, -0.04), (0.01, -0.4, -0.04), (0, 0.05, 0.03), (0.03, -0.06, 0.12), (-0.03, -0.06, 0.12), (0, 0.21, -0.04),
    (0.08, 0.12, -0.03), (-0.08, 0.12, -0.03), (0, 0.07, 0.05), (0.09, 0.03, 0), (-0.09, 0.03, 0), (0.26, -0.01, -0.03),
    (-0.26, -0.01, -0.03), (0.25, 0, 0), (-0.25, 0, 0), (0.08, -0.01, -0.01), (-0.08, -0.01, -0.01),
]  # fmt: skip


def moving(turn=None, frames=4, still=()):
    """Random rotations of SMPL's skeleton; ``turn`` gives all link frames other axes."""
    tree = SKELETONS["smpl"]
    turn = torch.eye(3, dtype=torch.float64) if turn is None else turn
    vectors = torch.randn(frames, 24, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.4
    vectors[:, list(still)] = 0
    rotations = turn @ roma.rotvec_to_rotmat(vectors) @ turn.T
    rotations[:, 0] = turn.T @ rotations[:, 0]
    rest = torch.tensor(OFFSETS, dtype=torch.float64) @ turn.T
    offsets = rest.expand(frames, -1, -1).clone()
    offsets[:, 0] = torch.tensor([0.3, -0.2, 0.95])
    positions, _ = forward_kinematics(rotations, offsets, tree.parents)
    return HumanMotion(positions, tree.names, tree.parents, 30.0, rotations=rotations, rest=rest)


def skeleton():
    still = torch.eye(3, dtype=torch.float64).expand(24, 3, 3)
    return forward_kinematics(still, torch.tensor(OFFSETS, dtype=torch.float64), SKELETONS["smpl"].parents)[0]


def test_it_is_the_body_of_its_skeleton():
    welded = SKELETONS["smpl"].welded
    body, wanted = body_of(moving(), mass=70.0, welded=welded), human(skeleton(), mass=70.0, welded=welded)
    for name in ("mass", "com", "inertia"):
        found, other = getattr(body, name), getattr(wanted, name)
        if name == "com":
            found, other = (x[wanted.mass > 0] for x in (found, other))
        assert torch.allclose(found, other, atol=0.02)  # hands and hips: another fore-aft axis, by a degree
    assert body.total_mass == pytest.approx(70)
    assert torch.allclose(body.mass, wanted.mass)


def test_frames_do_not_matter():
    """The same motion in other link frames has the same positions, root force and turned torques."""
    turn = roma.rotvec_to_rotmat(torch.tensor([0.4, 1.9, -0.7], dtype=torch.float64))
    one, other = moving(), moving(turn)
    torques = []
    for motion in (one, other):
        body = body_of(motion, mass=70.0)
        q = configurations(motion, body)
        assert torch.allclose(place(body, q).position, motion.positions, atol=1e-9)
        still = torch.zeros(len(q), body.nv, dtype=torch.float64)
        torques.append(body.inverse_dynamics(q, still, still))
    assert torques[0][:, 2].tolist() == pytest.approx([70 * 9.81] * 4)
    assert float(torques[0][:, 6:].abs().max()) > 5
    assert torch.allclose(torques[1][:, 3:].reshape(4, -1, 3), torques[0][:, 3:].reshape(4, -1, 3) @ turn.T, atol=1e-6)


def test_joints_that_never_turn_are_welded():
    body = body_of(moving(still=(6, 13, 22)))
    assert [n for n, kind in zip(body.names, body.joints, strict=True) if kind == "weld"] == [
        "spine2",
        "left_collar",
        "left_hand",
    ]


def test_motions_without_a_body_are_refused():
    motion = moving()
    with pytest.raises(InputError, match="no rotations"):
        body_of(replace(motion, rotations=None))
    with pytest.raises(InputError, match="no joint is named like left_hip"):
        body_of(replace(motion, names=tuple(f"j{i}" for i in range(24))))
    with pytest.raises(InputError, match="2 roots"):
        body_of(replace(motion, parents=(-1, -1, *motion.parents[2:])))
    with pytest.raises(InputError, match="hips and neck lie at one place"):
        body_of(replace(motion, rest=torch.zeros_like(motion.rest)))
    with pytest.raises(InputError, match="other joints than the body"):
        configurations(replace(motion, names=tuple(reversed(motion.names))), body_of(motion))


REAL = Path(os.environ.get("VISVIVA_REAL", Path(__file__).parents[3] / "shared" / "real")) / "motion"


@pytest.mark.real
@pytest.mark.skipif(not (REAL / "ad_jumping.bvh").is_file(), reason="no real recordings (VISVIVA_REAL)")
@pytest.mark.parametrize("name", ["ad_jumping", "ad_zombie", "dme_demo_3d_1_fixed", "dme_demo_3d_2_raw"])
def test_real_files_come_out_as_they_are(name):
    motion = read_motion(REAL / f"{name}.bvh")
    body = body_of(motion, mass=70.0)
    pose = place(body, configurations(motion, body))
    assert float((pose.position - motion.positions).abs().max()) < 1e-5
    centre = pose.centre_of_mass(body)
    inside = (centre > pose.position.amin(-2)) & (centre < pose.position.amax(-2))
    assert bool(inside.all())
    left = {n: m for n, m in zip(body.names, body.mass.tolist(), strict=True) if "Left" in n}
    right = dict(zip(body.names, body.mass.tolist(), strict=True))
    assert all(right[n.replace("Left", "Right")] == pytest.approx(m, rel=0.02) for n, m in left.items())
