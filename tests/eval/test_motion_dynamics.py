"""Forces of motions known by their joints: standing, flying and turning people, and recorded ones."""

import os
from pathlib import Path

import pytest
import torch

from visviva.data.motions import read_motion
from visviva.data.motions.axes import Reading, stature
from visviva.data.motions.forces import read_forces
from visviva.data.motions.motion import HumanMotion
from visviva.errors import InputError
from visviva.eval.motion.dynamics import forces, mean_rest, scatter
from visviva.eval.motion.mass import centre_over_pelvis, vertical_reaction
from visviva.physics.bodies import SKELETONS
from visviva.physics.bodies.deleva import adult_mass
from visviva.physics.dynamics import place

REAL = Path(os.environ.get("VISVIVA_REAL", Path(__file__).parents[3] / "shared" / "real")) / "motion"
TREE = SKELETONS["smpl"]


def person(move, frames=60, fps=30.0, noise=0.0):
    """SMPL's mean skeleton, standing, z up; ``move`` adds to it a displacement (T, 1 or 24, 3)."""
    mean = mean_rest("smpl")
    upright = torch.stack([mean[:, 2], mean[:, 0], mean[:, 1] - mean[:, 1].min()], -1)
    times = torch.arange(frames, dtype=torch.float64) / fps
    joints = upright + move(times)
    joints = joints + noise * torch.randn(joints.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return HumanMotion(joints, TREE.names, TREE.parents, fps)


def rise(heights):
    return torch.stack([torch.zeros_like(heights), torch.zeros_like(heights), heights], -1)[:, None]


def test_a_standing_person_is_carried_by_the_ground():
    found = forces(person(lambda t: rise(0 * t)), mass=70.0)
    assert bool(found.standing.all())
    assert float(found.reaction.violation.max()) < 0.02
    assert torch.allclose(found.vertical, torch.ones_like(found.vertical), atol=0.01)
    assert found.body.total_mass == pytest.approx(70)
    assert float(found.torque[:, 6:].abs().max()) < 70 * 3
    assert torch.allclose(found.torque[:, :3], found.reaction.left[:, :3], atol=1e-8), "the root: what is left to explain"


def test_ankles_of_a_standing_person_carry_what_is_above_them():
    """Both together: the weight of all but the feet, times how far ahead of the ankles its centre is (forward is y)."""
    motion = person(lambda t: rise(0 * t))
    found = forces(motion, mass=70.0)
    body, feet = found.body, [TREE.names.index(f"{side}_{part}") for side in ("left", "right") for part in ("ankle", "foot")]
    heavy = torch.tensor([0.0 if link in feet else 1.0 for link in range(len(body))], dtype=torch.float64) * body.mass
    upright = torch.cat([torch.zeros(3), torch.tensor([1.0, 0, 0, 0]).repeat((body.nq - 3) // 4)]).double()
    pose = place(body, upright)
    up, ahead = 1, 2  # axes of SMPL's rest, in which the body stands
    assert float(pose.position[:, up].max()) - float(pose.position[:, up].min()) > 1
    lever = (heavy[:, None] * pose.centres(body)).sum(0) / heavy.sum() - pose.position[feet[::2]].mean(0)
    starts = [6 + 3 * sum(joint == "ball" for joint in body.joints[1:ankle]) for ankle in feet[::2]]
    carried = found.torque[:, starts].sum(-1)  # about the sideways axis, x
    assert float((carried - float(heavy.sum() * 9.81 * lever[ahead])).abs().max()) < 1.0
    assert float(carried.min()) > 10


@pytest.mark.parametrize(("gravity", "violation"), [(9.81, 0.0), (4.905, 0.5), (0.0, 1.0)])
def test_a_flight_obeys_gravity_or_not(gravity, violation):
    """Thrown up at 8 m/s for a second: no foot stands, and what is missing of g is left."""
    found = forces(person(lambda t: rise(8 * t - gravity / 2 * t**2), frames=30))
    flying = ~found.standing.any(-1)
    assert int(flying.sum()) > 8
    assert float(found.reaction.violation[flying].mean()) == pytest.approx(violation, abs=0.01)


def test_turning_and_moving_the_person_changes_nothing():
    move = torch.Generator().manual_seed(1)
    sway = torch.randn(24, 3, generator=move, dtype=torch.float64) * 0.05

    def dance(t):
        return torch.sin(4 * t)[:, None, None] * sway

    one = forces(person(dance))
    turn = torch.tensor([[0.6, -0.8, 0], [0.8, 0.6, 0], [0, 0, 1]], dtype=torch.float64)
    motion = person(dance)
    other = forces(HumanMotion(motion.positions @ turn.T + torch.tensor([3.0, -2, 0]), TREE.names, TREE.parents, 30.0))
    assert torch.allclose(one.reaction.violation, other.reaction.violation, atol=5e-3)
    assert torch.allclose(one.torque[:, 6:], other.torque[:, 6:], atol=0.02 * float(one.torque[:, 6:].abs().max()))


def test_who_is_not_weighed_is_an_adult_of_the_stature_that_the_legs_tell():
    """The stature by which readers scale files, not the sum of other bones."""
    motion = person(lambda t: rise(0 * t))
    body = forces(motion).body
    assert body.total_mass == pytest.approx(float(adult_mass(stature(motion.positions, motion.names)[0])), rel=1e-6)
    assert forces(motion, mass=50.0).body.total_mass == pytest.approx(50)


def test_noise_is_found_and_its_floor_is_what_it_makes():
    found = forces(person(lambda t: rise(0 * t), frames=200, noise=0.003))
    assert found.noise == pytest.approx(0.003, rel=0.05)
    assert float(found.reaction.violation.mean()) == pytest.approx(found.floor, rel=0.35)
    assert found.floor > 0.01
    assert scatter(person(lambda t: rise(4.9 * t**2)).positions) < 1e-6


def test_the_order_of_joints_and_more_of_them_change_nothing():
    """As files order them: an .npz by level, a BVH file limb after limb; fingers are left out."""
    motion = person(lambda t: rise(0.3 * torch.sin(3 * t)))
    order = [0]
    for joint in order:  # limb after limb
        order[order.index(joint) + 1 : order.index(joint) + 1] = [k for k in range(24) if TREE.parents[k] == joint]
    assert order != sorted(order)
    place_of = {joint: k for k, joint in enumerate(order)}
    parents = [place_of[TREE.parents[joint]] if TREE.parents[joint] >= 0 else -1 for joint in order]
    mixed = HumanMotion(
        torch.cat([motion.positions[:, order], motion.positions[:, :1]], 1),
        (*(TREE.names[joint] for joint in order), "left_thumb1"),
        (*parents, place_of[0]),
        motion.fps,
    )
    one, other = forces(motion), forces(mixed)
    assert torch.equal(one.torque, other.torque)
    assert torch.equal(one.reaction.violation, other.reaction.violation)


def test_what_is_no_body_is_refused():
    walker = person(lambda t: rise(0 * t))
    markers = HumanMotion(walker.positions, tuple(f"m{i}" for i in range(24)), (-1,) * 24, 30.0, kind="markers")
    with pytest.raises(InputError, match="dynamics needs the joints of a body"):
        forces(markers)
    with pytest.raises(InputError, match="4 frames; dynamics fits windows of 9"):
        forces(person(lambda t: rise(0 * t), frames=4))


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason="no real recordings; set VISVIVA_REAL")
def test_recorded_people_obey_and_fixed_motions_obey_better_than_raw_ones():
    """Mean vertical reaction is the weight for who starts and ends standing; violations are measured, not tuned."""
    for name in ("humanml3d_012314_joints.npy", "ad_zombie.bvh"):
        found = forces(read_motion(REAL / name))
        assert float(found.vertical.mean()) == pytest.approx(1, abs=0.04), name
        assert float(found.reaction.violation.mean()) < 0.1, name
    for number in (1, 2):
        raw, fixed = (forces(read_motion(REAL / f"dme_demo_3d_{number}_{kind}.bvh")) for kind in ("raw", "fixed"))
        assert float(fixed.reaction.violation.mean()) < 0.6 * float(raw.reaction.violation.mean())


def test_the_vertical_reaction_of_a_hop_is_in_closed_form():
    times = torch.arange(200, dtype=torch.float64) / 100
    centre = torch.stack([times, times, 1 + 0.1 * torch.cos(5 * times)], -1)
    found = vertical_reaction(centre, 100, window=0.1)
    wanted = 1 - 0.1 * 25 * torch.cos(5 * times) / 9.81
    assert torch.allclose(found, wanted[5:-5], atol=0.01)
    whole = person(lambda t: rise(0.1 * t**2))
    legs = centre_over_pelvis(whole.positions, whole.names)
    assert torch.allclose(legs[1:] - legs[:-1], whole.positions[1:, 0] - whole.positions[:-1, 0], atol=1e-9)
    assert centre_over_pelvis(whole.positions[:, :3], whole.names[:3]) is None


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason="no real recordings; set VISVIVA_REAL")
def test_force_plates_measure_what_a_walkers_pelvis_and_legs_say():
    """Vertical force from kinematics alone against plates, in the frames in which the plates carry the walker."""
    walk = read_motion(REAL / "bmc_walk1.trc", Reading(hand="left"))
    plates = read_forces(REAL / "bmc_walk1.forces")
    each = round(plates[0].fps / walk.fps)
    force = sum(plate.force[:, 2] for plate in plates).double().unflatten(0, (-1, each)).mean(1)
    found = vertical_reaction(centre_over_pelvis(walk.positions.double(), walk.names), walk.fps)
    half = (len(walk) - len(found)) // 2
    measured = force[half : half + len(found)]
    on = measured > 300
    assert int(on.sum()) > 250
    weight = measured[on].mean()
    assert float(weight / 9.81) == pytest.approx(74, abs=1.5)
    error = float((found[on] - measured[on] / weight).square().mean().sqrt())
    assert error < 0.15
    assert error < 0.85 * float((1 - measured[on] / weight).square().mean().sqrt()), (
        "a constant of one body weight is the rival"
    )
