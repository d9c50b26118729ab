"""Accelerations that gravity and a ground can cause, and motions that follow accelerations: closed forms."""

from __future__ import annotations

import pytest
import torch

from visviva.data.motions.amass import OFFSETS, PARENTS
from visviva.data.motions.axes import upright
from visviva.data.motions.motion import forward_kinematics
from visviva.errors import InputError
from visviva.physics.motion_laws import EulerLagrange
from visviva.physics.motion_laws.body import GRAVITY, centre_of_mass, fitted, point_masses, window_of
from visviva.physics.motion_laws.following import TIME, followed

FPS = 20.0
LENGTH = torch.tensor([40])
DOWN = torch.tensor([0.0, 0.0, -GRAVITY], dtype=torch.float64)
LAW = EulerLagrange(steps=400)


def stand(frames=40):
    """A person who stands on the floor, arms to the sides, z up; (1, T, 22, 3)."""
    turns = torch.eye(3, dtype=torch.float64).expand(1, 24, 3, 3)
    joints = forward_kinematics(turns, OFFSETS.double()[None].clone(), PARENTS)[0][0, :22] @ upright("y").T.double()
    joints = joints - joints.new_tensor([0.0, 0.0, 1.0]) * (joints[[10, 11], 2].mean() - 0.02)
    return joints.expand(1, frames, 22, 3).clone()


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def own(joints):
    return fitted(joints, FPS, window_of(FPS))[2]


def mended(joints, weight=1.0, lengths=LENGTH):
    change = LAW.allowed(joints, own(joints), FPS, lengths) - own(joints)
    return joints + followed(change, joints.shape[1], FPS, lengths, weight)


def test_who_stands_or_falls_is_not_moved():
    t = torch.arange(40, dtype=torch.float64)[:, None, None] / FPS
    falling = stand() + torch.tensor([0.3, -0.2, 0.0]) * t + DOWN * (t - 1).square() / 2 + torch.tensor([0.0, 0.0, 8.0])
    assert torch.allclose(LAW.allowed(falling, own(falling), FPS, LENGTH), own(falling), atol=1e-9)
    assert torch.allclose(mended(falling, 100.0), falling, atol=1e-9)
    assert torch.allclose(mended(stand(), 1.0), stand(), atol=2e-4)


def test_a_frozen_body_in_mid_air_must_fall_and_does():
    frozen = stand() + torch.tensor([0.0, 0.0, 6.0])
    wanted = LAW.allowed(frozen, own(frozen), FPS, LENGTH)
    assert torch.allclose(wanted, DOWN.expand_as(wanted), atol=1e-9)
    before, some, much = (float(LAW(x, FPS, LENGTH).value) for x in (frozen, mended(frozen), mended(frozen, 1e9)))
    assert before == pytest.approx(1.0, abs=1e-6)
    assert much < 1e-4 < some < before - 0.01
    fallen = mended(frozen, 1e9)[0, 1:-1, :, 2].diff(n=2, dim=0) * FPS**2
    assert torch.allclose(fallen, DOWN[2].expand_as(fallen), rtol=1e-3)


def test_what_is_allowed_differs_by_the_nearest_rigid_acceleration_and_needs_no_more_than_the_ground_gives():
    joints = stand() + 0.02 * drawn(1, 40, 22, 3).cumsum(1) / 40**0.5
    wild = 5 * drawn(1, 36, 22, 3, seed=1)
    found = LAW.allowed(joints, wild, FPS, LENGTH)
    places = fitted(joints, FPS, 5)[0]
    apart, change = (x[..., :, None, :] - x[..., None, :, :] for x in (places, found - wild))
    assert float((apart * change).sum(-1).abs().max()) < 1e-9
    assert float((found - wild).abs().max()) > 1
    before, after = (LAW.unexplained(joints, point_masses(a)[0], FPS, LENGTH).norm(dim=-1) for a in (wild, found))
    assert float(after.mean()) < 0.1 * float(before.mean())


def test_limbs_keep_moving_against_each_other():
    t = torch.arange(40, dtype=torch.float64) / FPS
    hovering = stand() + torch.tensor([0.0, 0.0, 6.0])
    hovering[:, :, [18, 20, 19, 21], 2] += 0.2 * (9 * t).sin()[:, None]  # both arms: no turning is asked for
    arms = [x[:, :, 20] - x[:, :, 16] for x in (hovering, mended(hovering, 10.0))]
    one, two = (float(x.diff(dim=1).norm(dim=-1).mean()) for x in arms)
    assert two == pytest.approx(one, rel=0.02)


def test_a_violating_motion_violates_less_and_its_living_is_kept():
    t = torch.arange(40, dtype=torch.float64) / FPS
    swinging = stand()
    swinging[..., 0] += 0.1 * (12 * t).sin()[:, None] * stand()[0, 0, :, 2].clamp(min=0.1)
    before, after = (LAW(x, FPS, LENGTH).value for x in (swinging, mended(swinging)))
    assert float(after) < 0.6 * float(before)
    assert float(centre_of_mass(mended(swinging)).diff(dim=1).norm(dim=-1).mean()) > 0.01 / FPS


def test_following_is_the_least_squares_it_says():
    change, weight = 3 * drawn(1, 8, 2, 3), 0.7
    rows = torch.zeros(10, 12, dtype=torch.float64)
    for k in range(10):
        rows[k, k : k + 3] = FPS**2 * torch.tensor([1.0, -2.0, 1.0])
    known = torch.cat((change[:, :1], change, change[:, -1:]), 1)  # the fits' middle frames are 2 to 9
    system = torch.cat((torch.eye(12, dtype=torch.float64), weight**0.5 * TIME**2 * rows))
    aim = torch.cat((torch.zeros(12, 6, dtype=torch.float64), weight**0.5 * TIME**2 * known[0].flatten(1)))
    best = torch.linalg.lstsq(system, aim).solution.unflatten(1, (2, 3))
    assert torch.allclose(followed(change, 12, FPS, torch.tensor([12]), weight)[0], best, atol=1e-10)


def test_what_is_beyond_the_end_changes_nothing():
    change = drawn(2, 26, 4, 3)
    found = followed(change, 30, FPS, torch.tensor([20, 30]))
    alone = followed(change[:1, :16], 20, FPS, torch.tensor([20]))
    assert torch.allclose(found[0, :20], alone[0], atol=1e-12)
    assert not found[0, 20:].any()


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_weights_that_are_none_are_said(weight):
    with pytest.raises(InputError, match="give 0 or more"):
        followed(drawn(1, 8, 2, 3), 12, FPS, torch.tensor([12]), weight)
    assert not followed(drawn(1, 8, 2, 3), 12, FPS, torch.tensor([12]), 0.0).any()
