"""Laws of motion on joints: closed forms, what a frozen, hovering or sliding body gets, gradients, anchors; the projection."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from visviva.configs.motion import MotionPosttrain
from visviva.data.motions.amass import OFFSETS, PARENTS
from visviva.data.motions.axes import upright
from visviva.data.motions.motion import forward_kinematics
from visviva.errors import InputError
from visviva.physics.motion_laws import (
    MOTION_LAWS,
    EulerLagrange,
    FlightGravity,
    Liveliness,
    MotionTerm,
    MotionVerifier,
    Penetration,
    Skating,
)
from visviva.physics.motion_laws.body import centre_of_mass, fitted, flying, point_masses, standing
from visviva.physics.motion_laws.projection import LEGS, settled, stepped

FPS = 30.0


def stand(frames=45, dtype=torch.float64):
    """A person who stands on the floor, arms to the sides, z up; (1, T, 22, 3)."""
    turns = torch.eye(3, dtype=dtype).expand(1, 24, 3, 3)
    places = OFFSETS.to(dtype)[None].clone()
    joints = forward_kinematics(turns, places, PARENTS)[0][0, :22] @ upright("y").T.to(dtype)
    joints = joints - joints.new_tensor([0.0, 0.0, 1.0]) * (joints[[10, 11], 2].mean() - 0.02)
    return joints.expand(1, frames, 22, 3).clone()


def times(frames=45, dtype=torch.float64):
    return torch.arange(frames, dtype=dtype) / FPS


def moved(joints, x=0.0, z=0.0):
    shift = torch.zeros_like(joints[:, :, :1])
    shift[..., 0] += torch.as_tensor(x)[..., None] if torch.is_tensor(x) else x
    shift[..., 2] += torch.as_tensor(z)[..., None] if torch.is_tensor(z) else z
    return joints + shift


def jump(frames=45, gravity=9.81):
    """Standing, then a flight of 0.6 s of the whole body, then standing."""
    t = times(frames) - 0.45
    height = torch.where((t > 0) & (t < 0.6), gravity / 2 * t * (0.6 - t), 0.0)
    return moved(stand(frames), z=height)


LENGTH = torch.tensor([45])


class TestBody:
    def test_masses_sum_to_one_and_the_centre_is_where_people_have_it(self):
        joints = stand(1)
        places, mass = point_masses(joints[0])
        assert float(mass.sum()) == pytest.approx(1.0)
        assert places.shape == (1, len(mass), 3)
        height = float(joints[0, 0, 15, 2]) + 0.12
        assert float(centre_of_mass(joints)[0, 0, 2]) / height == pytest.approx(0.571, abs=0.03)  # card: motion, 12.3

    def test_fits_are_exact_for_parabolas(self):
        t = times()[None, :, None]
        x, v, a = fitted(2.0 - 3.0 * t + 4.9 * t**2, FPS, 7)
        inner = t[:, 3:-3]
        assert torch.allclose(x, 2 - 3 * inner + 4.9 * inner**2, atol=1e-12)
        assert torch.allclose(v, -3 + 9.8 * inner, atol=1e-11)
        assert torch.allclose(a, torch.full_like(a, 9.8), atol=1e-9)
        with pytest.raises(InputError, match="7 frames"):
            fitted(x[:, :3], FPS, 7)

    def test_who_stands_and_who_flies(self):
        assert standing(stand(), FPS).all()
        assert not standing(moved(stand(), x=times() * 1.0), FPS).any()
        assert not standing(moved(stand(), z=0.5), FPS).any()  # a body that hovers does not stand, however still
        air = flying(jump())[0]
        assert air.any()
        assert not air[:13].any()
        assert not air[-10:].any()
        assert flying(moved(stand(), z=0.5)).all()


class TestLaws:
    def test_a_sliding_body_skates_with_its_speed(self):
        law = Skating()
        slid = law(moved(stand(), x=0.4 * times()), FPS, LENGTH)
        assert float(slid.value) == pytest.approx(0.4 - 0.05 * math.log(4), abs=0.01)  # the soft minimum of four equal speeds
        assert float(law(stand(), FPS, LENGTH).value) == 0.0
        fast = law(moved(stand(), x=2.0 * times()), FPS, LENGTH)
        assert float(fast.value) > 4 * float(slid.value)  # sliding faster is no way out
        assert not law(moved(stand(), z=0.5), FPS, LENGTH).valid.any()

    def test_penetration_is_depth(self):
        sunk = Penetration()(moved(stand(), z=-0.05), FPS, LENGTH)
        toes = stand()[0, 0, [10, 11], 2]
        assert float(sunk.value) == pytest.approx(float(torch.relu(0.05 - toes).sum()), abs=1e-9)

    @pytest.mark.parametrize("gravity", [9.81, 6.0])
    def test_flight_tells_gravity(self, gravity):
        found = FlightGravity()(jump(gravity=gravity), FPS, LENGTH)
        assert found.valid.all()
        assert float(found.value) == pytest.approx(abs(9.81 - gravity) / 9.81, abs=1e-6)
        assert float(FlightGravity()(moved(stand(), z=0.5), FPS, LENGTH).value) == pytest.approx(1.0, abs=1e-6)

    def test_euler_lagrange_asks_for_a_ground(self):
        law = EulerLagrange()
        assert float(law(stand(), FPS, LENGTH).value) < 0.02
        assert float(law(moved(stand(), z=0.5), FPS, LENGTH).value) == pytest.approx(1.0, abs=0.02)
        leaned = stand()
        leaned[..., 0] += 0.8 * leaned[..., 2]  # the centre of mass half a metre beside the feet
        assert float(law(leaned, FPS, LENGTH).value) > 0.3
        pushed = moved(stand(), x=times() ** 2 * 9.81)  # twice the acceleration that friction can give, feet slide besides
        assert float(law(pushed, FPS, LENGTH).value) > 0.5

    def test_liveliness_is_what_a_frozen_motion_lacks(self):
        law, swung = Liveliness(), moved(stand(), x=0.3 * torch.sin(6 * times()))
        assert float(law(stand(), FPS, LENGTH).value) == pytest.approx(1.0, abs=1e-3)
        assert float(law(swung, FPS, LENGTH).value) == 0.0
        assert float(law(swung, FPS, LENGTH, reference=swung).value) == 0.0
        slow = moved(stand(), x=0.15 * torch.sin(6 * times()))
        assert float(law(slow, FPS, LENGTH, reference=swung).value) == pytest.approx(1 - 0.5 / 0.9, abs=0.02)

    @pytest.mark.parametrize("law", [Skating(), Penetration(), FlightGravity(), EulerLagrange(), Liveliness(least=5.0)])
    def test_gradients_are_finite_and_descend(self, law):
        g = torch.Generator().manual_seed(0)
        joints = moved(jump(gravity=7.0), x=0.5 * times(), z=-0.03)
        joints = (joints + 0.002 * torch.randn(joints.shape, generator=g, dtype=torch.float64)).requires_grad_(True)
        value = law(joints, FPS, LENGTH).value.sum()
        (gradient,) = torch.autograd.grad(value, joints)
        assert gradient.isfinite().all()
        before = float(value.detach())
        step = before / float(gradient.square().sum())
        assert float(law((joints - 0.05 * step * gradient).detach(), FPS, LENGTH).value) < before

    @pytest.mark.parametrize("law", [Skating(), Penetration(), FlightGravity(), EulerLagrange(), Liveliness()])
    def test_frames_beyond_the_end_count_nothing(self, law):
        joints = moved(jump(60), x=0.2 * times(60))[:, 12:]
        length = torch.tensor([30])  # ends in the air or just landed
        alone = law(joints[:, :30], FPS, length)
        for padding in (
            joints[:, 30:],
            joints[:, 29:30] - 0.7,
            joints[:, 29:30] + 0.5,
            torch.zeros_like(joints[:, :1]),
            torch.nan * joints[:, :1],
        ):
            padded = torch.cat((joints[:, :30], padding.expand_as(joints[:, 30:])), 1)
            found = law(padded, FPS, length)
            assert torch.equal(found.valid, alone.valid)
            assert torch.allclose(found.value, alone.value, atol=1e-9)


class TestVerifier:
    def test_laws_that_a_frozen_motion_satisfies_need_an_anchor(self):
        with pytest.raises(InputError, match="liveliness"):
            MotionVerifier([MotionTerm(Skating())])
        with pytest.raises(InputError, match="twice"):
            MotionVerifier([MotionTerm(Skating()), MotionTerm(Skating())], allow_trivial=True)
        with pytest.raises(InputError, match="at least one"):
            MotionVerifier([])
        with pytest.raises(InputError, match="0 or more"):
            MotionTerm(Skating(), -1.0)

    def test_a_frozen_motion_does_not_win(self):
        verifier = MotionVerifier([MotionTerm(Skating()), MotionTerm(EulerLagrange()), MotionTerm(Liveliness(), 2.0)])
        true = jump()
        found = verifier(torch.cat((true, stand())), FPS, reference=torch.cat((true, true)))
        assert float(found.loss[0]) < float(found.loss[1])
        assert set(found.residuals) == {"skating", "euler_lagrange", "liveliness"}
        with pytest.raises(InputError, match="22"):
            verifier(true[:, :, :21], FPS)

    def test_nothing_wins_against_a_true_motion_under_the_laws_of_post_training(self):
        stage = MotionPosttrain()
        terms = [MotionTerm(MOTION_LAWS[name](), weight) for name, weight in stage.laws.items()]
        verifier, true = MotionVerifier([*terms, MotionTerm(Liveliness(), stage.liveliness)]), jump()
        noise = 0.3 * torch.randn(true.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        waving = moved(stand(), z=1.0)
        waving[..., 20, 0] += torch.sin(9 * times()) * 20
        rivals = {
            "frozen": stand(),
            "frozen in the air": moved(stand(), z=1.0),
            "at one point": torch.zeros_like(true),
            "noise": true + noise,
            "noise in the air": moved(true + noise, z=2.0),
            "hovering and waving": waving,
            "drifting in the air": moved(stand(), x=2 * times(), z=1.0),
            "sliding": moved(stand(), x=2 * times()),
        }
        best = float(verifier(true, FPS, reference=true).loss)
        for name, rival in rivals.items():
            assert not float(verifier(rival, FPS, reference=true).loss) < best + 0.1, name

    def test_lengths_and_references_that_do_not_fit_are_refused(self):
        verifier, two = MotionVerifier([MotionTerm(Skating()), MotionTerm(Liveliness())]), jump().expand(2, -1, -1, -1)
        for lengths in (torch.tensor([45]), torch.tensor([45, 46]), torch.tensor([1, 45])):
            with pytest.raises(InputError, match="one each, of 2 to 45"):
                verifier(two, FPS, lengths)
        with pytest.raises(InputError, match="laws need 2"):
            verifier(two[:, :1], FPS)
        with pytest.raises(InputError, match="a reference of the shape"):
            verifier(two, FPS, reference=two[:1])

    def test_zeros_beyond_the_end_leave_gradients_finite(self):
        terms = [MotionTerm(law) for law in (Skating(), Penetration(), FlightGravity(), EulerLagrange(), Liveliness(least=5.0))]
        joints = torch.cat((jump(), torch.zeros(1, 9, 22, 3, dtype=torch.float64)), 1).requires_grad_(True)
        (gradient,) = torch.autograd.grad(MotionVerifier(terms)(joints, FPS, LENGTH).loss.sum(), joints)
        assert gradient.isfinite().all()
        assert gradient[:, :45].any()
        assert not gradient[:, 45:].any()


class TestProjection:
    def test_frames_beyond_the_end_change_nothing(self):
        joints = moved(jump(gravity=6.5), x=0.02 * torch.sin(5 * times()), z=-0.04)
        alone = settled(joints, FPS, LENGTH)
        for padding in (joints[:, -1:] - 0.7, joints[:, -1:]):
            found = settled(torch.cat((joints, padding.expand(-1, 15, -1, -1)), 1), FPS, LENGTH)
            assert torch.allclose(found[:, :45], alone, atol=1e-9)

    def test_a_motion_that_obeys_stays(self):
        joints = jump()
        assert torch.allclose(settled(joints, FPS, LENGTH), joints, atol=2e-3)

    def test_slides_sinking_and_wrong_flights_are_mended(self):
        joints = moved(jump(gravity=6.5), x=0.02 * torch.sin(5 * times()), z=-0.04)
        found = settled(joints, FPS, LENGTH)
        for law, share in ((Skating(), 0.3), (Penetration(), 0.01), (FlightGravity(), 0.35)):
            before, after = (float(law(x, FPS, LENGTH).value) for x in (joints, found))
            assert after <= share * before, law.name

    def test_bones_keep_their_length(self):
        g = torch.Generator().manual_seed(0)
        joints = moved(stand(), x=0.02 * torch.sin(5 * times()), z=-0.04)
        joints = joints + 0.01 * torch.randn(joints.shape, generator=g, dtype=torch.float64)
        found = settled(joints, FPS, LENGTH)
        for leg in LEGS:
            for a, b in pairwise(leg):
                one, two = ((x[:, :, a] - x[:, :, b]).norm(dim=-1) for x in (joints, found))
                assert torch.allclose(one, two, atol=1e-9)
        assert torch.equal(found[:, :, 12:], joints[:, :, 12:])  # arms and head stay

    def test_a_leg_reaches_what_it_can(self):
        leg = torch.tensor([[0.0, 0.0, 0.9], [0.05, 0.0, 0.5], [0.0, 0.0, 0.1], [0.12, 0.0, 0.02]])
        near = stepped(leg, torch.tensor([0.02, 0.01, 0.03]))
        assert torch.allclose(near[2], leg[2] + torch.tensor([0.02, 0.01, 0.03]), atol=1e-6)
        far = stepped(leg, torch.tensor([0.0, 0.0, -5.0]))
        assert float((far[2] - far[0]).norm()) <= float((leg[1] - leg[0]).norm() + (leg[2] - leg[1]).norm())
        assert torch.allclose(stepped(leg, torch.zeros(3)), leg, atol=1e-7)
