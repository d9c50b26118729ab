"""Rotations from joints: they put the joints where they were seen, and are the truth where joints can tell."""

import pytest
import roma
import torch
from skeletons import smpl_rest

from visviva.errors import InputError
from visviva.physics.bodies import SKELETONS
from visviva.physics.bodies.posing import locals_of, posed

PARENTS = SKELETONS["smpl"].parents
REST = smpl_rest()


def placed(local, root):
    """Joints of the skeleton under local rotations."""
    world, at = [], []
    for link, parent in enumerate(PARENTS):
        if parent < 0:
            world.append(local[..., link, :, :])
            at.append(root)
        else:
            world.append(world[parent] @ local[..., link, :, :])
            at.append(at[parent] + world[parent] @ (REST[link] - REST[parent]))
    return torch.stack(at, -2), torch.stack(world, -3)


def poses(count=20, size=0.6, seed=0):
    rng = torch.Generator().manual_seed(seed)
    turns = size * torch.randn(count, 24, 3, generator=rng, dtype=torch.float64)
    turns[:, 0] *= 3
    return roma.rotvec_to_rotmat(turns), torch.randn(count, 3, generator=rng, dtype=torch.float64)


def test_joints_are_where_they_were_seen():
    joints, _ = placed(*poses())
    world = posed(PARENTS, REST, joints)
    again, found = placed(locals_of(PARENTS, world), joints[:, 0])
    # several rigid links meet in one joint (hips, collars and the spine turn apart): those bones are a best fit
    single = [link for link in range(1, 24) if PARENTS.count(PARENTS[link]) == 1]
    seen = joints - joints[:, [max(p, 0) for p in PARENTS]]
    ours = again - again[:, [max(p, 0) for p in PARENTS]]
    assert torch.allclose(ours[:, single], seen[:, single], atol=1e-9)
    assert torch.allclose(found, world, atol=1e-9)
    assert torch.allclose(torch.linalg.det(world), torch.ones(20, 24, dtype=torch.float64))


def test_root_and_chest_are_known_exactly():
    """Pelvis and chest have three children that one rotation carries: no twist is lost there."""
    local, root = poses()
    joints, wanted = placed(local, root)
    found = posed(PARENTS, REST, joints)
    assert torch.allclose(found[:, [0, 9]], wanted[:, [0, 9]], atol=1e-3)
    assert torch.allclose(found[:, 0], wanted[:, 0], atol=1e-3)


def test_turning_the_person_turns_the_links():
    joints, _ = placed(*poses(5))
    turn = roma.rotvec_to_rotmat(torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64))
    one, other = posed(PARENTS, REST, joints), posed(PARENTS, REST, joints @ turn.T)
    assert torch.allclose(turn @ one, other, atol=1e-3)


def test_rest_is_rest_and_opposite_bones_are_no_nan():
    world = posed(PARENTS, REST, REST[None])
    assert torch.allclose(world, torch.eye(3, dtype=torch.float64).expand(1, 24, 3, 3), atol=1e-9)
    flipped = posed((-1, 0), torch.tensor([[0.0, 0, 0], [0, 1, 0]]), torch.tensor([[0.0, 0, 0], [0, -1, 0]]))
    assert torch.allclose(flipped[0] @ torch.tensor([0.0, 1, 0]), torch.tensor([0.0, -1, 0]), atol=1e-6)


def test_gradients():
    joints, _ = placed(*poses(2))
    joints.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: posed(PARENTS[:6], REST[:6], x[:, :6]), (joints,), rtol=1e-3, atol=1e-5)


def test_counts_must_agree():
    with pytest.raises(InputError, match="24 joints"):
        posed(PARENTS[:22], REST, torch.zeros(1, 24, 3))
