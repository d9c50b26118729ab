"""Drawn scenes obey the mechanics that they are named after: closed forms, conserved quantities, contacts and rotation."""

import math
from dataclasses import replace

import pytest
import torch

from visviva.errors import InputError
from visviva.physics.kinematics import centroids
from visviva.physics.motions import KINDS, draw
from visviva.physics.tracks import tracks_of_masks
from visviva.physics.violations import VIOLATIONS

FPS = 32.0


@pytest.mark.parametrize("kind", KINDS)
def test_scenes_are_reproducible_stay_in_view_and_look_as_they_move(kind):
    scene = draw(kind, 4, seed=3, size=48)
    assert scene.kind == kind
    assert torch.equal(draw(kind, 4, seed=3, size=48).trajectory, scene.trajectory)
    assert not torch.equal(draw(kind, 4, seed=4, size=48).trajectory, scene.trajectory)
    drawn = scene.render()
    whole = drawn.masks.sum((-2, -1)) > 0.98 * drawn.masks.sum((-2, -1)).amax(1, keepdim=True)
    assert float(whole.double().mean()) > 0.9
    assert float((centroids(drawn.masks)[0] - scene.trajectory)[whole].abs().max()) < 0.2


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("moves", "collides")])
def test_the_same_seed_is_the_same_motion_at_other_sizes_and_rates(kind):
    small, large = draw(kind, 6, seed=1, size=48), draw(kind, 6, seed=1, size=96, frames=33, fps=2 * FPS)
    large, small = large.trajectory[:, ::2], 2 * small.trajectory
    assert torch.allclose(large[:, 0], small[:, 0], atol=4)  # the edge that is kept free is in pixels
    assert torch.allclose(large - large[:, :1], small - small[:, :1], atol=0.02)


def test_falling_bodies_accelerate_by_g_in_metres():
    scene = draw("falls", 5, seed=0, objects=2)
    change = scene.trajectory.diff(n=2, dim=1) * scene.metres.view(-1, 1, 1, 1) * FPS**2
    assert torch.allclose(change[..., 1], torch.full_like(change[..., 1], 9.81), rtol=2e-3)
    assert float(change[..., 0].abs().max()) < 0.05
    wrong = VIOLATIONS["wrong_g"](scene).trajectory.diff(n=2, dim=1) * scene.metres.view(-1, 1, 1, 1) * FPS**2 / 9.81
    ratio = wrong[..., 1].mean((1, 2))
    assert bool((((ratio > 0.39) & (ratio < 0.61)) | ((ratio > 1.59) & (ratio < 2.21))).all())


def test_a_ball_bounces_with_its_restitution_at_the_frames_said():
    scene = draw("bounces", 6, seed=2, frames=33, fps=64.0)
    motion = scene.motion
    fine = replace(motion, times=torch.linspace(0, 0.5, 20001)).course()
    height = motion.floor[:, None] - fine.trajectory[:, :, 0, 1]
    for clip in range(6):
        h = height[clip].double()
        hits = ((h[1:-1] <= h[:-2]) & (h[1:-1] < h[2:])).nonzero()[:, 0] + 1
        first = int(hits[0])
        step = float(fine.trajectory.new_tensor(0.5 / 20000))
        before, after = float(h[first - 20] - h[first - 10]) / 10, float(h[first + 20] - h[first + 10]) / 10
        assert after / before == pytest.approx(float(motion.restitution[clip]), rel=0.05)
        marked = scene.contact[clip].nonzero()[:, 0]
        assert abs(float(marked[0]) + 1 - first * step * 64) <= 1.0
        top = float(h[first:].max())
        assert top <= float(motion.restitution[clip] ** 2 * h[0]) * 1.01 + 0.1
    assert float(height.min()) >= -1e-4


def test_collisions_keep_momentum_and_lose_energy_as_their_restitution_says():
    scene = draw("collides", 8, seed=0)
    motion, mass = scene.motion, scene.motion.radius.square()[:, :, None]
    before, after = (scene.trajectory.diff(dim=1)[:, t] for t in (0, -1))
    momentum = [(mass * v).sum(1) for v in (before, after)]
    assert torch.allclose(momentum[0], momentum[1], atol=1e-3 * float(momentum[0].abs().max()))
    energy = [(mass * v.square()).sum((1, 2)) for v in (before, after)]
    assert bool((energy[1] <= energy[0] * 1.0001).all())
    elastic = replace(motion, restitution=torch.ones(8)).course().trajectory.diff(dim=1)
    assert torch.allclose((mass * elastic[:, -1].square()).sum((1, 2)), energy[0], rtol=1e-3)
    apart = (scene.trajectory[:, :, 0] - scene.trajectory[:, :, 1]).norm(dim=-1)
    assert bool((apart > motion.radius.sum(1, keepdim=True) - 1e-3).all())
    assert bool(scene.contact.any(1).all())
    nearest = apart.argmin(1)
    assert bool(scene.contact.gather(1, nearest[:, None]).all())
    through = VIOLATIONS["interpenetration"](scene).trajectory
    assert torch.allclose(through.diff(n=2, dim=1), torch.zeros_like(through[:, 2:]), atol=1e-3)
    gained = VIOLATIONS["momentum_gain"](scene).trajectory.diff(dim=1)[:, -1]
    assert float(((mass * gained).sum(1) - momentum[0]).norm(dim=-1).min()) > 0.05 * float(momentum[0].norm(dim=-1).min())


def test_a_pendulum_keeps_its_rod_and_without_damping_its_energy():
    scene = draw("swings", 5, seed=0)
    motion = scene.motion
    arm = scene.trajectory[:, :, 0] - motion.pivot[:, None]
    assert torch.allclose(arm.norm(dim=-1), motion.length[:, None].expand(-1, 17), rtol=1e-5)
    free = replace(motion, damping=torch.zeros(5), times=torch.linspace(0, 0.5, 401))
    theta = -free.course().angle[:, :, 0].double()
    rate = (theta[:, 2:] - theta[:, :-2]) / (2 * 0.5 / 400)
    pull = (motion.gravity / motion.length).double()[:, None]
    energy = rate.square() / 2 - pull * torch.cos(theta[:, 1:-1])
    assert float(((energy - energy[:, :1]) / (pull * (1 - torch.cos(theta[:, :1])))).abs().max()) < 2e-2
    assert float(theta.abs().amax(1).sub(motion.theta.abs()).abs().max()) < 1e-3


def test_sliding_ends_at_rest_and_rolling_turns_by_the_way_over_the_radius():
    slide = draw("slides", 6, seed=0)
    speed = slide.trajectory.diff(dim=1).norm(dim=-1)[:, :, 0]
    assert float(speed[:, -1].max()) == 0
    moving = speed[:, 2:] > 0
    slowing = speed.diff(dim=1)[:, :1]
    steady = moving & (speed[:, 2:] > 0.3)
    assert torch.allclose(speed.diff(dim=1)[:, 1:][steady], slowing.expand_as(moving)[steady], atol=0.3)
    roll = draw("rolls", 6, seed=0)
    way = (roll.trajectory[:, -1, 0] - roll.trajectory[:, 0, 0]).norm(dim=-1)
    assert torch.allclose(roll.angle[:, -1, 0].abs(), way / roll.motion.radius, rtol=1e-4)
    rightwards = roll.trajectory[:, -1, 0, 0] > roll.trajectory[:, 0, 0, 0]
    assert torch.equal(roll.angle[:, -1, 0] > 0, rightwards)


def test_rotation_is_drawn_and_its_flow_is_exact():
    scene = draw("spins", 3, seed=1, size=96)
    drawn = scene.render()
    turned = tracks_of_masks((drawn.masks > 0.999).float(), drawn.flow)
    assert torch.allclose(turned.spin, torch.sin(scene.angle.diff(dim=1)), atol=1e-3)
    axis = 0.5 * torch.atan2(2 * turned.moments[..., 0, 1], turned.moments[..., 0, 0] - turned.moments[..., 1, 1])
    wrapped = torch.remainder(axis - scene.angle + math.pi / 2, math.pi) - math.pi / 2
    assert float(wrapped.abs().max()) < 0.06
    changed = VIOLATIONS["wrong_spin"](scene).angle.diff(dim=1)
    assert torch.equal(changed[:, :8], scene.angle.diff(dim=1)[:, :8])
    assert float((changed - scene.angle.diff(dim=1))[:, 9:].abs().min()) > 0.01


def test_what_cannot_be_drawn_is_named():
    with pytest.raises(InputError, match="did you mean 'bounces'"):
        draw("bounce", 1, seed=0)
    with pytest.raises(InputError, match="draw at least 3"):
        draw("falls", 1, seed=0, frames=2)
