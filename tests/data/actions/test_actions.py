"""Simulated actions: what is drawn is rigid, stands on the floor, flies as gravity wants, and does what its caption says."""

import pytest
import torch

from visviva.data.actions import ACTIONS, draw
from visviva.data.actions.figure import masses
from visviva.data.motions.humanml3d import PARENTS, features, joints_of
from visviva.data.motions.motion import forward_kinematics
from visviva.errors import InputError
from visviva.eval.motion.contact import flight_acceleration
from visviva.eval.motion.dynamics import forces
from visviva.eval.motion.ground import support_speed
from visviva.eval.motion.mass import centre_of_mass

WRISTS, TOES, FEET = (20, 21), (10, 11), (7, 10, 8, 11)
ALL = sorted(ACTIONS)


@pytest.fixture(scope="module")
def batch():
    return draw([name for name in ALL for _ in range(3)], seed=5)


def clips(batch, name):
    return [i for i, other in enumerate(batch.names) if other == name]


def test_shapes_kinds_and_ranges(batch):
    count = len(ALL) * 3
    assert len(ALL) >= 10
    assert len(batch) == len(batch.captions) == count
    assert batch.joints.shape == (count, 60, 22, 3)
    assert batch.joints.dtype == torch.float32
    assert batch.rotations.shape == (count, 60, 22, 3, 3)
    assert batch.rest.shape == (count, 22, 3)
    assert bool(((batch.speed >= 0.7) & (batch.speed <= 1.4)).all())
    assert bool(((batch.stature >= 1.5) & (batch.stature <= 1.95)).all())
    assert batch.joints[:, 0, 0, :2].abs().max() < 1e-6
    assert all(len({batch.captions[i] for i in clips(batch, name)}) > 1 for name in ALL)


def test_the_same_seed_gives_the_same_bits_and_another_does_not():
    names = ["walk", "kick", "walk", "jump"]
    one, two, other = draw(names, seed=1), draw(names, seed=1), draw(names, seed=2)
    assert one.captions == two.captions
    assert torch.equal(one.joints, two.joints)
    assert (one.joints - other.joints).abs().max() > 0.05
    assert (one.joints[0] - one.joints[2]).abs().max() > 0.05


def test_joints_are_those_of_rotations_and_rest(batch):
    bones = batch.rest[:, None].expand(-1, 60, -1, -1).clone()
    bones[:, :, 0] = batch.joints[:, :, 0]
    joints, _ = forward_kinematics(batch.rotations, bones, PARENTS)
    assert torch.allclose(joints, batch.joints, atol=1e-5)
    assert torch.allclose(batch.rotations @ batch.rotations.mT, torch.eye(3).expand_as(batch.rotations), atol=1e-5)
    assert torch.linalg.det(batch.rotations).min() > 0.99
    assert batch.motion(0).parents == PARENTS


def test_nothing_is_below_the_floor_and_somebody_stands_on_it(batch):
    low = batch.joints[..., 2].amin((1, 2))
    assert bool((low > 0.012).all())
    assert bool((low < 0.035).all())


@pytest.mark.parametrize("name", ["squat", "wave", "bow", "punch", "throw"])
def test_standing_feet_do_not_move(batch, name):
    feet = batch.joints[clips(batch, name)][:, :, FEET]
    assert (feet - feet[:, :1]).norm(dim=-1).max() < 0.003


@pytest.mark.parametrize("name", ["walk", "march", "side step", "turn", "lunge", "kick"])
def test_one_foot_always_stands(name):
    feet = draw([name] * 4, seed=3, fps=60.0).joints[:, :, FEET]
    assert support_speed(feet, 60.0).max() < 0.02  # a recorded walk has 0.03 m/s


def centre_acceleration(batch):
    """Of the centre of mass by the masses of the figure, (B, T - 2, 3)."""
    mass, com, _ = masses()
    _, world = forward_kinematics(batch.rotations.double(), batch.rest[:, None].double(), PARENTS)
    scale = batch.stature.double()[:, None, None, None] / 1.7
    centre = (mass[:, None] * (batch.joints + (world @ com[..., None])[..., 0] * scale)).sum(2)
    return centre.diff(n=2, dim=1) * batch.fps**2


@pytest.mark.parametrize("name", ["jump", "jump forward", "run", "jumping jack"])
def test_flight_obeys_gravity(name):
    """Free fall for as long as it flies, never faster than that, and straight on."""
    a = centre_acceleration(draw([name] * 3, seed=4, fps=240.0, seconds=2.0))
    assert a[..., 2].min() > -9.81 * 1.02
    flies = (a[..., 2] + 9.81).abs() < 0.02 * 9.81
    assert flies.double().mean(1).min() > 0.1
    assert a[..., :2].norm(dim=-1)[flies].quantile(0.9) < 0.3


def test_the_ground_never_pulls():
    batch = draw([name for name in ALL for _ in range(4)], seed=14, fps=120.0, seconds=2.0)
    least = centre_acceleration(batch)[..., 2].amin(1)
    assert least.min() > -9.81 * 1.05


@pytest.mark.parametrize("name", ["jump", "jump forward"])
def test_flight_obeys_gravity_by_other_tables(name):
    batch = draw([name] * 3, seed=4, fps=240.0, seconds=2.0)
    for i in range(3):
        motion = batch.motion(i)
        centre = centre_of_mass(motion.positions.double(), motion.names)
        found = flight_acceleration(centre[:, 2], 240.0, (motion.positions[:, TOES, 2] > 0.06).all(1), least=0.05)
        assert found == pytest.approx(-9.81, rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_a_ground_can_explain_the_motion(batch, name):
    violation = [float(forces(batch.motion(i)).reaction.violation.mean()) for i in clips(batch, name)]
    assert sum(violation) / len(violation) < (0.13 if name in ("run", "jumping jack") else 0.08)


def test_curves_are_smooth():
    """Third differences of what is twice differentiable halve, or nearly, when frames are twice as dense."""
    for name in ("march", "lunge", "kick", "side step"):
        sizes = []
        for fps in (240.0, 480.0):
            x = draw([name], seed=6, fps=fps, seconds=1.0).joints.double()
            sizes.append(float((x.diff(n=3, dim=1) * fps**2).abs().max()))
        assert sizes[1] < 0.75 * sizes[0]


def test_frame_rates_sample_one_motion():
    one, two = draw(["walk", "jump"], seed=8, fps=20.0), draw(["walk", "jump"], seed=8, fps=60.0)
    assert one.captions == two.captions
    assert (one.joints - two.joints[:, ::3]).abs().max() < 1e-4


def body_left(batch):
    hips = batch.joints[:, :, 1] - batch.joints[:, :, 2]
    return torch.nn.functional.normalize(hips[..., :2], dim=-1)


def test_captions_tell_the_side_of_the_hand():
    batch = draw(["wave"] * 12, seed=9)
    raised = batch.joints[:, :, WRISTS, 2].amax(1)
    for caption, (left, right) in zip(batch.captions, raised.tolist(), strict=True):
        assert ("left" if left > right else "right") in caption
    assert {"left" in c for c in batch.captions} == {True, False}


def test_captions_tell_the_foot_of_a_kick_and_of_a_lunge():
    batch = draw(["kick"] * 8 + ["lunge"] * 8, seed=10)
    left = body_left(batch)
    ahead = torch.stack([left[..., 1], -left[..., 0]], -1)
    reach = torch.einsum("btfc,btc->btf", batch.joints[:, :, TOES, :2] - batch.joints[:, :, :1, :2], ahead).amax(1)
    for caption, (one, two) in zip(batch.captions, reach.tolist(), strict=True):
        assert ("left" if one > two else "right") in caption


def test_captions_tell_the_way():
    batch = draw(["walk"] * 20 + ["side step"] * 10 + ["run"] * 6, seed=11)
    left = body_left(batch)
    ahead = torch.stack([left[..., 1], -left[..., 0]], -1)
    step = batch.joints[:, 1:, 0, :2] - batch.joints[:, :-1, 0, :2]
    forward, sideways = ((step * way[:, 1:]).sum((1, 2)).tolist() for way in (ahead, left))
    for name, caption, one, two in zip(batch.names, batch.captions, forward, sideways, strict=True):
        if name == "side step":
            assert ("left" if two > 0 else "right") in caption
        else:
            assert ("backward" in caption) == (one < 0)
    turned = torch.atan2(left[:, -1, 1], left[:, -1, 0]) - torch.atan2(left[:, 0, 1], left[:, 0, 0])
    for caption, angle in zip(batch.captions[:20], torch.atan2(turned.sin(), turned.cos())[:20].tolist(), strict=True):
        if "curve" in caption:
            assert ("to the left" if angle > 0 else "to the right") in caption


def test_turns_go_the_said_way_and_as_far():
    batch = draw(["turn"] * 10, seed=12, seconds=4.0)
    left = body_left(batch)
    yaw = torch.atan2(left[..., 1], left[..., 0])
    step = torch.atan2(yaw.diff(dim=1).sin(), yaw.diff(dim=1).cos())
    for caption, angle in zip(batch.captions, step.sum(1).tolist(), strict=True):
        half = "around" in caption or "half" in caption
        assert abs(angle) == pytest.approx(torch.pi if half else torch.pi / 2, abs=0.15)
        assert ("left" if angle > 0 else "right") in caption


def test_tempo_is_speed():
    batch = draw(["walk"] * 40, seed=13)
    pace = (batch.joints[:, 1:, 0] - batch.joints[:, :-1, 0]).norm(dim=-1).mean(1)
    fast, slow = batch.speed > 1.18, batch.speed < 0.88
    assert pace[fast].mean() > 1.3 * pace[slow].mean()
    words = ("quick", "fast", "rapid", "high pace")
    for caption, quick in zip(batch.captions, fast.tolist(), strict=True):
        assert any(word in caption for word in words) == quick


def test_features_there_and_back(batch):
    turned = batch.joints[..., [1, 2, 0]]  # y up, and as right-handed
    again = joints_of(features(turned))
    moved = turned - turned[:, :1, :1] * turned.new_tensor([1.0, 0.0, 1.0])
    size = (again - again[:, :, :1]).norm(dim=-1) - (moved - moved[:, :, :1]).norm(dim=-1)[:, :-1]
    assert size.abs().max() < 1e-3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"names": ["wlak"]}, "did you mean.*walk"),
        ({"names": []}, "no actions"),
        ({"fps": 0.0}, "frames/s"),
        ({"seconds": 0.01}, "2 frames or more"),
        ({"seconds": float("nan")}, "frames/s"),
    ],
)
def test_what_cannot_be_drawn_is_refused(change, words):
    given = {"names": ["walk"], "seed": 0, **change}
    with pytest.raises(InputError, match=words):
        draw(**given)
