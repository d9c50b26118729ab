"""Analytic torques and ground forces of many people at once, against one body built for each."""

import pytest
import torch

from visviva.data.actions import draw
from visviva.data.motions.skin import POOL, skin
from visviva.errors import InputError
from visviva.eval.motion.labels import STATURE, TOUCHING, configurations, labels, person
from visviva.physics.bodies import human
from visviva.physics.dynamics import differentiate, inverse_dynamics


@pytest.fixture(scope="module")
def batch():
    return draw(["walk", "jump", "squat"], seed=3, fps=60.0, seconds=1.5)


@pytest.fixture(scope="module")
def found(batch):
    return labels(batch.joints, batch.rotations, batch.stature, batch.fps)


def test_a_tall_person_is_the_body_of_that_size(batch):
    """Without ground forces torques follow from a body of the person's own bones; the swing leg of a walk has none."""
    clip = 1  # jumps: in flight no ground acts
    size = batch.stature[clip].double() / STATURE
    small, _ = person()
    rest = torch.zeros(22, 3, dtype=torch.float64)
    for link, parent in list(enumerate(small.parents))[1:]:
        rest[link] = rest[parent] + small.offset[link] * size
    body = human(rest, mass=70.0, stature=STATURE * size, skeleton="humanml3d", welded=(), up="z")
    own = labels(batch.joints[clip : clip + 1], batch.rotations[clip : clip + 1], batch.stature[clip : clip + 1], 60.0)
    flying = own.force[0].norm(dim=-1).sum(-1) == 0
    assert int(flying.sum()) > 5
    q = configurations(batch.joints[clip], batch.rotations[clip], torch.ones(len(batch.joints[clip]), dtype=torch.float64))
    moved = differentiate(body, q, 60.0, 5)
    tau = inverse_dynamics(body, *moved)[flying] / 70
    assert torch.allclose(own.torque[0][flying].flatten(1), tau[:, 6:], atol=1e-6)
    assert torch.allclose(own.left[0][flying], tau[:, :3].norm(dim=-1) / 9.81, atol=1e-6)


def test_forces_carry_the_weight_and_leave_little(batch, found):
    assert found.torque.shape == (3, 86, 21, 3)
    assert found.force.shape == (3, 86, len(TOUCHING), 3)
    vertical = found.force[..., 2].sum(-1)
    assert float(vertical.min()) >= 0
    assert float(vertical[2].mean()) == pytest.approx(1, abs=0.1)
    assert float(found.left[2].max()) < 0.02
    assert float(found.left.mean()) < 0.15


def test_turning_a_person_turns_forces_and_keeps_torques(batch, found):
    turn = torch.tensor([[0.6, -0.8, 0], [0.8, 0.6, 0], [0, 0, 1]])
    rotations = batch.rotations.clone()
    rotations[:, :, 0] = turn @ rotations[:, :, 0]
    other = labels(batch.joints @ turn.T + torch.tensor([3.0, 1, 0]), rotations, batch.stature, batch.fps)
    assert torch.allclose(other.torque, found.torque, atol=0.02)
    assert torch.allclose(other.force, found.force @ turn.double().T, atol=0.02)


def test_markers_are_fixed_to_bones(batch):
    markers = skin(batch.joints[:, :, 0], batch.rotations, batch.rest[:, None])
    assert markers.shape == (*batch.joints.shape[:2], POOL, 3)
    assert torch.allclose(markers[:, :, :22], batch.joints, atol=1e-4)
    apart = (markers[:, :, 22:, None] - batch.joints[:, :, None]).norm(dim=-1)
    assert float(apart.std(1).amin(-1).max()) < 1e-4, "each keeps its distance to some joint"
    assert float(apart.amin(-1).max()) < 0.4


def test_other_skeletons_are_refused(batch):
    with pytest.raises(InputError, match=r"\(B, T, 22, 3\)"):
        labels(batch.joints[:, :, :20], batch.rotations[:, :, :20], batch.stature, 60.0)
    with pytest.raises(InputError, match="22 joints"):
        skin(batch.joints[:, :, 0], batch.rotations[:, :, :20], batch.rest[:, None, :20])
