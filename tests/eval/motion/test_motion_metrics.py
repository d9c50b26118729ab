"""Metrics of motion: golden numbers of published code, closed forms, invariances, and what a frozen or noisy clip gets."""

from __future__ import annotations

import math

import pytest
import roma
import torch

from visviva.data.motions.amass import NAMES, OFFSETS, PARENTS
from visviva.data.motions.motion import forward_kinematics
from visviva.errors import InputError
from visviva.eval.motion import contact, errors, ground, mass, smoothness, text

DOUBLE = torch.float64
T, N = torch.arange(30, dtype=DOUBLE)[:, None], torch.arange(22, dtype=DOUBLE)[None]


def moved(x, seed=0):
    """Points under a random similarity: (s R x + t, s)."""
    g = torch.Generator().manual_seed(seed)
    return 1.7 * x @ roma.random_rotmat(generator=g, dtype=DOUBLE).T + torch.randn(3, generator=g, dtype=DOUBLE)


def joints():
    """X and Y of the golden numbers [G-8]."""
    t, j, c = torch.meshgrid(torch.arange(30.0), torch.arange(22.0), torch.arange(3.0), indexing="ij")
    t, j, c = t.double(), j.double(), c.double()
    x = 0.3 * torch.sin(0.2 * t + 0.7 * j + 1.3 * c) + 0.1 * j
    return x, x + 0.02 * torch.cos(0.5 * t + 0.3 * j - 0.4 * c)


class TestErrors:
    def test_golden_numbers(self):
        x, y = joints()
        assert float(errors.mpjpe(y, x)) == pytest.approx(23.31664914, rel=1e-8)
        assert float(errors.mpjpe(y, x, root=0)) == pytest.approx(28.31133675, rel=1e-8)
        assert float(errors.pa_mpjpe(y, x)) == pytest.approx(19.93370039, rel=1e-8)
        assert float(errors.velocity_error(y, x)) == pytest.approx(11.52621713, rel=1e-8)
        assert float(errors.acceleration_error(y, x)) == pytest.approx(5.71090962, rel=1e-8)
        assert float(errors.acceleration_error(y, x, fps=20.0)) == pytest.approx(5.71090962 * 0.4, rel=1e-8)

    def test_similar_poses_have_no_aligned_error_and_mirrored_ones_do(self):
        x, _ = joints()
        cloud = x + torch.randn(22, 3, dtype=DOUBLE)
        assert float(errors.pa_mpjpe(moved(cloud), cloud)) < 1e-9
        assert float(errors.pa_mpjpe(cloud * torch.tensor([-1.0, 1, 1]), cloud)) > 10

    def test_batches_are_clips(self):
        x, y = joints()
        both = errors.pa_mpjpe(torch.stack((y, x)), torch.stack((x, x)))
        assert torch.allclose(both, torch.stack((errors.pa_mpjpe(y, x), torch.zeros((), dtype=DOUBLE))), atol=1e-9)

    def test_other_joints_are_refused(self):
        with pytest.raises(InputError, match="same frames and joints"):
            errors.mpjpe(torch.zeros(3, 22, 3), torch.zeros(3, 24, 3))


class TestGround:
    WAVES = torch.stack((0.2 * torch.sin(0.3 * T + N), 0.1 * torch.cos(0.2 * T * N), 0.02 * torch.sin(0.4 * T + 0.5 * N)), -1)

    def test_golden_penetration_and_skate(self):
        assert float(ground.penetration(self.WAVES)) == pytest.approx(13.01183308, rel=1e-8)
        assert float(ground.skate(self.WAVES)) == pytest.approx(100.87672918, rel=1e-8)

    def test_golden_skating_ratio(self):
        t = torch.arange(30, dtype=DOUBLE)
        feet = torch.zeros(30, 2, 3, dtype=DOUBLE)
        feet[:, 0, 2], feet[:, 0, 0] = 0.03 + 0.03 * torch.sin(0.5 * t), 0.03 * t
        feet[:, 1, 2], feet[:, 1, 1] = 0.03 + 0.03 * torch.cos(0.5 * t), 0.2 * torch.sin(0.3 * t)
        assert float(ground.skating_ratio(feet, 20.0)) == pytest.approx(20 / 29)

    def test_golden_pfc(self):
        t, j = torch.arange(30, dtype=DOUBLE)[:, None], torch.arange(24, dtype=DOUBLE)[None]
        z = (0.9 + 0.05 * torch.sin(0.5 * t)).expand(30, 24)
        points = torch.stack((0.02 * torch.sin(0.3 * t + 0.1 * j), 0.03 * torch.cos(0.25 * t + 0.2 * j), z), -1)
        assert float(ground.pfc(points[:, 0], points[:, [7, 10, 8, 11]], 30.0)) == pytest.approx(0.16041015, rel=1e-7)

    def test_depths_and_heights_in_closed_form(self):
        points = torch.zeros(4, 2, 3)
        points[:, 0, 2] = torch.tensor([0.02, 0.004, -0.004, -0.03])
        points[:, 1, 2] = 1.0
        assert float(ground.penetrate(points)) == pytest.approx(30 / 4)
        assert float(ground.float_height(points)) == pytest.approx(20 / 4)
        flying = torch.tensor([True, False, False, False])
        assert float(ground.float_height(points, airborne=flying)) == 0
        assert float(ground.penetrate(points, floor=0.01)) == pytest.approx((6 + 14 + 40) / 4, rel=1e-5)

    def test_phys_err_is_the_sum(self):
        wanted = ground.penetrate(self.WAVES) + ground.float_height(self.WAVES) + ground.skate(self.WAVES, height=0.005)
        assert float(ground.phys_err(self.WAVES)) == pytest.approx(float(wanted))

    def test_a_foot_that_slides_at_a_known_speed(self):
        feet = torch.zeros(2, 21, 1, 3, dtype=DOUBLE)
        feet[0, :, 0, 0] = 0.03 * torch.arange(21)  # 3 cm per frame at 25 frames/s
        feet[1, :, 0, 2] = 0.3  # high up: never in contact
        found = ground.sliding(feet, 25.0)
        assert float(found[0]) == pytest.approx(0.75)
        assert bool(found[1].isnan()), "no contact is no perfect score"

    def test_one_foot_that_stands_is_enough(self):
        t = torch.arange(40, dtype=DOUBLE)[:, None]
        one, other = torch.where(t < 20, 0.0, 0.1 * (t - 20)), torch.where(t < 20, 0.1 * t, 2.0)
        feet = torch.stack((torch.cat((one, other), 1), torch.zeros(40, 2), torch.full((40, 2), 0.01)), -1)
        assert float(ground.support_speed(feet, 25.0)) == pytest.approx(0.0, abs=1e-9)
        glide = feet + torch.stack((0.02 * t, 0 * t, 0 * t), -1)
        assert float(ground.support_speed(glide, 25.0)) == pytest.approx(0.5)
        assert bool(ground.support_speed(glide, 25.0, torch.ones(40, dtype=torch.bool)).isnan())
        flying = torch.zeros(40, dtype=torch.bool)
        flying[10:] = True
        glide[10:, :, 0] *= 7
        assert float(ground.support_speed(glide, 25.0, flying)) == pytest.approx(0.5)

    def test_turned_and_shifted_feet_slide_alike(self):
        turn = roma.rotvec_to_rotmat(torch.tensor([0.0, 0.0, 1.1], dtype=DOUBLE))
        other = self.WAVES @ turn.T + torch.tensor([3.0, -2.0, 0.4])
        for metric in (ground.penetrate, ground.penetration, ground.float_height, ground.skate, ground.phys_err):
            assert torch.allclose(metric(other, torch.tensor(0.4, dtype=DOUBLE)), metric(self.WAVES))

    def test_sliding_does_not_depend_on_the_frame_rate(self):
        t = torch.linspace(0, 2, 241, dtype=DOUBLE)
        feet = torch.stack((0.4 * t, 0 * t, 0 * t), -1)[:, None]
        assert float(ground.sliding(feet, 120.0)) == pytest.approx(float(ground.sliding(feet[::4], 30.0)))

    def test_one_bad_frame_does_not_set_the_floor(self):
        points = torch.rand(100, 4, 3) * torch.tensor([1, 1, 0.001]) + torch.tensor([0, 0, 0.3])
        points[17, 0, 2] = -5
        assert float(ground.floor_height(points)) == pytest.approx(0.3, abs=2e-3)

    def test_a_still_root_has_no_pfc(self):
        assert bool(ground.pfc(torch.zeros(9, 3), torch.rand(9, 4, 3)).isnan())
        with pytest.raises(InputError, match="3 frames"):
            ground.pfc(torch.zeros(2, 3), torch.rand(2, 4, 3))


class TestContact:
    def test_a_step_stands_and_swings(self):
        t = torch.arange(60, dtype=DOUBLE) / 30
        feet = torch.zeros(60, 1, 3, dtype=DOUBLE)
        swing = (t > 0.5) & (t < 1.0)
        feet[:, 0, 0] = (2 * (t - 0.5)).clamp(0, 1)
        feet[:, 0, 2] = 0.08 + torch.where(swing, 0.15 * torch.sin(math.pi * (t - 0.5) / 0.5), 0.0)
        found = contact.contacts(feet, 30.0)[:, 0]
        assert bool(found[:15].all())
        assert bool(found[32:].all())
        assert not bool(found[18:28].any())

    def test_a_jump_falls_with_gravity(self):
        t = torch.arange(90, dtype=DOUBLE) / 60
        height = (2.5 * (t - 0.4) - 4.905 * (t - 0.4) ** 2).clamp(min=0)
        feet = torch.zeros(90, 2, 3, dtype=DOUBLE)
        feet[..., 2] = height[:, None]
        flags = contact.airborne(feet, 60.0)
        assert contact.flight_acceleration(height + 1, 60.0, flags) == pytest.approx(-9.81, rel=1e-6)
        assert contact.flight_acceleration(height, 60.0, torch.zeros(90, dtype=torch.bool)) is None

    def test_short_runs_are_dropped(self):
        flags = torch.tensor([0, 1, 1, 0, 1, 1, 1, 0, 1]).bool()
        assert contact.opened(flags, 3).int().tolist() == [0, 0, 0, 0, 1, 1, 1, 0, 0]
        assert contact.runs(flags) == [(1, 3), (4, 7), (8, 9)]


class TestSmoothness:
    def test_golden_numbers(self):
        x, _ = joints()
        found = [float(smoothness.mean_size(x, 20.0, k)) for k in (1, 2, 3)]
        assert found == pytest.approx([1.46185559, 5.83897901, 23.31016101], rel=1e-6)

    def test_the_smoothest_reach_has_a_log_jerk_of_ln_720(self):
        t = torch.linspace(0, 1, 4001, dtype=DOUBLE)
        reach = (10 * t**3 - 15 * t**4 + 6 * t**5)[:, None, None] * torch.tensor([0.3, 0.1, 0.2], dtype=DOUBLE)
        assert float(smoothness.log_dimensionless_jerk(reach, 4000.0)) == pytest.approx(-math.log(720), abs=1e-2)
        assert torch.allclose(  # size and duration do not matter
            smoothness.log_dimensionless_jerk(7 * reach, 90.0), smoothness.log_dimensionless_jerk(reach, 4000.0)
        )

    def test_the_shortest_clip_is_the_first_whose_smoothest_reach_is_within_5_percent(self):
        def of(frames):
            t = torch.linspace(0, 1, frames, dtype=DOUBLE)
            reach = (10 * t**3 - 15 * t**4 + 6 * t**5)[:, None, None] * torch.tensor([0.3, 0.1, 0.2], dtype=DOUBLE)
            return float(smoothness.log_dimensionless_jerk(reach, 30.0)) / -math.log(720)

        assert of(smoothness.SHORTEST - 1) < 0.95 < of(smoothness.SHORTEST)
        assert of(76) < 0.98 < of(77)

    def test_a_still_joint_is_not_the_smoothest(self):
        assert float(smoothness.log_dimensionless_jerk(torch.zeros(9, 1, 3), 30.0)) == -math.inf

    def test_rigid_bones_do_not_change(self):
        turns = roma.random_rotmat((7, 24), dtype=DOUBLE)
        points, _ = forward_kinematics(turns, OFFSETS.double(), PARENTS)
        bones = [(parent, child) for child, parent in enumerate(PARENTS) if parent >= 0]
        assert float(smoothness.bone_change(points, bones).max()) < 1e-10
        points[::2, 23] *= 1.5
        assert float(smoothness.bone_change(points, bones)[-1]) > 5
        with pytest.raises(InputError, match="no bones"):
            smoothness.bone_change(points, [])


class TestMass:
    def test_a_person_in_t_pose_has_its_mass_in_the_belly(self):
        points, _ = forward_kinematics(torch.eye(3).expand(24, 3, 3)[None], OFFSETS, PARENTS)
        points = points[..., [2, 0, 1]] - points[..., 1].min() * torch.tensor([0.0, 0, 1])  # z up, soles at 0
        com = mass.centre_of_mass(points, NAMES)
        assert abs(float(com[0, 1])) < 0.01
        assert 0.53 < float(com[0, 2] + 0.05) / 1.70 < 0.60, "0.571 of stature, with the sole 5 cm below the toe joint"

    def test_it_moves_with_the_body_and_needs_its_parts(self):
        points = torch.randn(5, 24, 3)
        shifted = mass.centre_of_mass(points + torch.tensor([1.0, 2, 3]), NAMES)
        assert torch.allclose(shifted, mass.centre_of_mass(points, NAMES) + torch.tensor([1.0, 2, 3]), atol=1e-5)
        assert mass.centre_of_mass(points[:, :3], NAMES[:3]) is None


class TestText:
    A, B = (torch.arange(n, dtype=DOUBLE) for n in (64, 16))
    E1 = torch.sin(0.37 * A[:, None] + 0.11 * A[:, None] * B / 7 + B)
    E2 = E1 + 0.5 * torch.cos(1.7 * A[:, None] - 0.6 * B)
    E3 = E1 + 2.2 * torch.cos(2.1 * A[:, None] * (B + 1) / 5 - 0.6 * B)

    def test_golden_numbers(self):
        assert text.fid(self.E2, self.E1) == pytest.approx(1.66200846, rel=1e-7)
        assert text.fid(self.E3, self.E1) == pytest.approx(25.3750803, rel=1e-7)
        assert text.mm_dist(self.E1, self.E2) == pytest.approx(1.41432955, rel=1e-7)
        assert text.mm_dist(self.E1, self.E3) == pytest.approx(6.0434017, rel=1e-7)
        assert text.r_precision(self.E1, self.E3).tolist() == pytest.approx([0.03125, 0.09375, 0.203125])
        assert text.r_precision(self.E1, self.E3, batch=64).tolist() == pytest.approx([0.03125, 0.046875, 0.078125])

    def test_an_incomplete_batch_is_dropped(self):
        longer = [torch.cat((x, x[:10])) for x in (self.E1, self.E3)]
        assert torch.equal(text.r_precision(*longer), text.r_precision(self.E1, self.E3))
        with pytest.raises(InputError, match="batches of 32"):
            text.r_precision(self.E1[:20], self.E2[:20])

    def test_embeddings_that_tell_nothing_score_nothing(self):
        same = torch.ones_like(self.E1)
        assert text.r_precision(self.E1, same).tolist() == [0, 0, 0]
        assert text.diversity(same, 32) == 0
        assert text.fid(same, self.E1) > 1

    def test_diversity_of_a_known_cloud(self):
        cloud = torch.randn(4000, 8, dtype=DOUBLE)
        wanted = math.sqrt(2) * math.exp(math.lgamma(4.5) - math.lgamma(4)) * math.sqrt(2)  # E |x - y|, 8 dimensions
        assert text.diversity(cloud, 3000) == pytest.approx(wanted, rel=0.02)
        value, half = text.replicated(lambda seed: text.diversity(cloud, 300, seed))
        assert abs(value - wanted) < 6 * half < 0.5
        with pytest.raises(InputError, match="draws 300"):
            text.diversity(cloud[:10])

    def test_multimodality_sees_only_within_a_text(self):
        centres = 100 * torch.randn(20, 1, 8, dtype=DOUBLE)
        assert text.multimodality(centres.expand(20, 30, 8)) == 0
        assert 1 < text.multimodality(centres + torch.randn(20, 30, 8, dtype=DOUBLE)) < 5
