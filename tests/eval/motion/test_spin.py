"""Angular momentum in flight: tumbling people whose angular momentum is known, and what has no number."""

from __future__ import annotations

import math

import pytest
import roma
import torch

from visviva.data.motions.motion import HumanMotion
from visviva.errors import InputError
from visviva.eval.motion.dynamics import mean_rest, rest_of
from visviva.eval.motion.measure import measure
from visviva.eval.motion.spin import flight_spin
from visviva.physics.bodies import SKELETONS, human
from visviva.physics.dynamics import forward_dynamics, integrate, place
from visviva.physics.dynamics.ground import gyration

TREE = SKELETONS["smpl"]
REST = mean_rest("smpl")
BODY = human(rest_of("smpl", REST[None]), skeleton="smpl", up="z")
POSE = place(BODY, BODY.neutral())
CENTRE = POSE.centre_of_mass(BODY)
MOMENT = 9.81 * BODY.total_mass * float(gyration(BODY, POSE, CENTRE))
"""Weight times radius of gyration [N m]."""
UP = torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]], dtype=torch.float64)
"""The body stands along y; the world's z is up."""
STANDS, FLIES = 0.3, 0.8


def inertia():
    arm = POSE.centres(BODY) - CENTRE
    square = arm.square().sum(-1)[:, None, None] * torch.eye(3, dtype=arm.dtype) - arm[:, :, None] * arm[:, None]
    return (POSE.rotation @ BODY.inertia @ POSE.rotation.mT + BODY.mass[:, None, None] * square).sum(0)


def tumbling(fps, torque=(0.0, 0.0, 0.0), spin=(4.0, 1.0, 2.0), noise=0.0, changes=None):
    """Stands, is thrown up with 4 m/s, and tumbles as Euler's equations say, rigid; torques over weight and radius."""
    substeps = 10
    still, own, dt = inertia(), torch.linalg.inv(inertia()), 1 / (fps * substeps)
    turn, times = UP.clone(), torch.arange(round(FLIES * fps), dtype=torch.float64) / fps
    momentum = UP @ still @ torch.tensor(spin, dtype=torch.float64)
    turns = []
    for step in range(len(times) * substeps):
        if step % substeps == 0:
            turns.append(turn)
        momentum = momentum + dt / 2 * MOMENT * torch.tensor(torque, dtype=torch.float64)
        middle = torch.linalg.matrix_exp(dt / 2 * hat(turn @ own @ turn.mT @ momentum)) @ turn
        turn = torch.linalg.matrix_exp(dt * hat(middle @ own @ middle.mT @ momentum)) @ turn
        momentum = momentum + dt / 2 * MOMENT * torch.tensor(torque, dtype=torch.float64)
    path = torch.stack([1.5 * times, 0 * times, 4 * times - 9.81 / 2 * times**2], -1)
    about = REST - REST[0] - (CENTRE - POSE.position[0])
    flying = path[:, None] + about @ torch.stack(turns).mT
    joints = torch.cat([flying[:1].expand(round(STANDS * fps), -1, -1), flying])
    joints = joints + noise * torch.randn(joints.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    joints = joints - joints.new_tensor([0, 0, 1]) * flying[0, :, 2].min()
    return HumanMotion(joints if changes is None else changes(joints), TREE.names, TREE.parents, fps)


def hat(w):
    x, y, z = w
    return torch.stack([torch.stack([0 * x, -z, y]), torch.stack([z, 0 * x, -x]), torch.stack([-y, x, 0 * x])])


@pytest.mark.parametrize(("fps", "said"), [(20.0, 0.002), (30.0, 0.0007), (60.0, 0.0002)])
def test_a_tumbling_figure_keeps_its_angular_momentum(fps, said):
    """The numbers of docs/motion.md: what is left falls with the square of the rate or faster."""
    found = measure(tumbling(fps)).scores
    assert found["flight_gravity"].value == pytest.approx(-9.81, rel=0.01)
    assert found["flight_spin"].value < 1.3 * said
    assert found["flight_spin"].used > 0.5 * FLIES * fps


@pytest.mark.parametrize("torque", [(0.1, 0.0, 0.0), (0.0, -0.05, 0.05), (0.0, 0.0, 0.3)])
def test_an_added_moment_is_measured(torque):
    found = measure(tumbling(60.0, torque)).scores
    assert found["flight_spin"].value == pytest.approx(torch.tensor(torque).norm().item(), rel=0.03)
    assert found["flight_gravity"].value == pytest.approx(-9.81, rel=0.01), "the centre of mass falls as it should"


@pytest.mark.parametrize(("fps", "said"), [(20.0, 0.096), (30.0, 0.098), (60.0, 0.0995)])
def test_an_added_moment_is_measured_at_all_rates(fps, said):
    assert measure(tumbling(fps, (0.1, 0.0, 0.0))).scores["flight_spin"].value == pytest.approx(said, rel=0.01)


def test_who_opens_in_the_air_turns_slower_and_keeps_it():
    """A passive somersault with swinging legs, by forward dynamics: joints move, angular momentum does not."""
    q, v, step = BODY.neutral(), torch.zeros(BODY.nv, dtype=torch.float64), 1 / 300
    q[3:7] = roma.quat_xyzw_to_wxyz(roma.rotmat_to_unitquat(UP))
    v[2], v[3] = 4.0, 3.0
    balls = [name for name, joint in zip(BODY.names, BODY.joints, strict=True) if joint == "ball"]
    for name, speed in (("hip", -4.0), ("knee", 5.0)):
        for side in ("left", "right"):
            v[6 + 3 * balls.index(f"{side}_{name}")] = speed
    path, none = [], torch.zeros_like(v)
    for _ in range(180):
        path.append(q)
        half = v + step / 2 * forward_dynamics(BODY, q, v, none)
        a = forward_dynamics(BODY, integrate(BODY, q, half, step / 2), half, none)
        q, v = integrate(BODY, q, v + step / 2 * a, step), v + step * a
    joints = place(BODY, torch.stack(path[::5])).position
    knees = (joints[:, 1] - joints[:, 4]).cross(joints[:, 4] - joints[:, 7], dim=-1).norm(dim=-1)
    assert float(knees.max() / knees.min()) > 3, "the legs bend"
    motion = HumanMotion(joints, TREE.names, TREE.parents, 60.0)
    assert flight_spin(motion, torch.ones(len(joints), dtype=torch.bool)).moment < 5e-3


def test_noise_stays_near_its_floor_and_hides_no_moment():
    noisy, turned = (measure(tumbling(60.0, torque, noise=0.003)).scores for torque in ((0.0, 0, 0), (0.1, 0, 0)))
    floor = noisy["flight_spin_floor"].value
    assert 0.001 < floor < 0.03
    assert noisy["flight_spin"].value < 3 * floor
    assert turned["flight_spin"].value == pytest.approx(0.1, abs=3 * floor)
    assert measure(tumbling(60.0)).scores["flight_spin_floor"].value < 0.1 * floor


def test_the_score_says_what_it_is():
    score = measure(tumbling(30.0)).scores["flight_spin"]
    assert (score.unit, score.lower_is_better, score.fps) == ("body weights", True, 30.0)
    assert 0 < score.used < score.asked


def test_place_direction_size_and_mass_do_not_matter():
    one = tumbling(60.0, (0.1, 0.0, 0.0))
    turn = torch.tensor([[0.6, -0.8, 0], [0.8, 0.6, 0], [0, 0, 1]], dtype=torch.float64)
    other = one.noted(positions=one.positions @ turn.T + torch.tensor([3.0, -2.0, 0.5], dtype=torch.float64))
    values = [measure(m).scores["flight_spin"].value for m in (one, other)]
    values.append(measure(one, mass=40.0).scores["flight_spin"].value)
    assert values == pytest.approx([values[0]] * 3, rel=0.01)
    slow = measure(one.noted(fps=30.0)).scores["flight_spin"].value
    assert slow == pytest.approx(values[0] / 4, rel=0.01), "a moment goes with the square of the rate"


def test_what_has_no_number_says_why():
    flying = tumbling(30.0)
    markers = flying.noted(kind="markers", parents=(-1,) * 24, names=tuple(f"{name}_m" for name in TREE.names))
    unnamed = flying.noted(names=tuple(f"j{k}" for k in range(24)))
    standing = flying.noted(positions=flying.positions[:1] + 0.02 * torch.sin(torch.arange(33.0))[:, None, None])
    frozen = flying.noted(positions=flying.positions[:1].expand(33, -1, -1))
    for motion, said in ((unnamed, "no named feet"), (standing, "no flight"), (frozen, "hardly moves")):
        score = measure(motion).scores["flight_spin"]
        assert math.isnan(score.value)
        assert score.used == 0
        assert said in score.note
    with pytest.raises(InputError, match="dynamics needs the joints of a body"):
        flight_spin(markers, torch.ones(33, dtype=torch.bool))


def test_who_freezes_in_the_air_does_not_fly():
    def held(joints):
        return torch.cat([joints[:15], joints[15:16].expand(18, -1, -1)])

    assert math.isnan(measure(tumbling(30.0, changes=held)).scores["flight_spin"].value)


def test_parts_of_the_violation_are_force_and_moment():
    """In the air a moment shows in the angular part alone, too little gravity in the linear part alone."""
    turned = measure(tumbling(60.0, (0.05, 0.0, 0.0), spin=(0.5, 0.1, 0.2)), mass=BODY.total_mass)
    linear, angular = parts(turned)
    assert linear < 0.01
    assert angular == pytest.approx(0.05, rel=0.1)
    rising = tumbling(60.0, spin=(0.0, 0.0, 0.0))
    times = (torch.arange(66, dtype=torch.float64) / 60 - STANDS).clamp(min=0)
    lifted = rising.positions + 0.2 * 9.81 / 2 * times.square()[:, None, None] * UP[:, 1]
    light = measure(rising.noted(positions=lifted), mass=BODY.total_mass)
    linear, angular = parts(light)
    assert linear == pytest.approx(0.2, rel=0.05)
    assert angular < 0.01
    for found in (turned, light):
        whole, one, two = (found.scores[f"el_{name}"].value for name in ("violation", "linear", "angular"))
        assert max(one, two) <= whole <= one + two


def parts(found):
    """Mean force and moment left in flight [body weights], away from the throw."""
    air = ~found.forces.standing.any(-1)
    left = found.forces.reaction.left[air][10:]
    return float(left[:, :3].norm(dim=-1).mean()) / (9.81 * BODY.total_mass), float(left[:, 3:].norm(dim=-1).mean()) / MOMENT
