"""OpenSim models: answers of OpenSim 4.6, couplers, the older format, what is refused; and a real subject's drop jump."""

import os
import re
from pathlib import Path

import numpy as np
import osim_files as files
import pytest
import torch

from visviva.data.bodies import read_osim
from visviva.data.motions.opensim import coordinates, ground_forces, read_table
from visviva.errors import InputError
from visviva.physics.dynamics import place

MOVING = [
    -39.041559608, -69.120819541, -0.359589895, -71.430324428, 556.908283595, -47.435436585, 38.23274, 32.097737015,
    12.89628335, 8.349451133, 0.144987531, 0.525428808, -81.596391621, 11.304788648, -0.203326385, -0.222119459, -5.053550321,
    28.898295256, -0.142815647, 20.73977322, -1.153639971,
]  # fmt: skip
STILL = [
    -42.624081122, -78.770032138, -1.830941671, -73.17825206, 562.917903069, -46.283566122, 35.550526129, 28.24027911,
    11.591061413, 7.156700964, 0.055572424, 0.347887246, -86.844703836, 10.367783355, -0.871338232, -1.659609561, -5.532620756,
    28.410814354, -0.108470805, 21.424500504, 1.115437409,
]  # fmt: skip
"""What OpenSim 4.6 answers for `files.model`, without its constraint, in `state`: generalised forces of `files.COORDINATES`."""


def state(names):
    """Coordinates, velocities and accelerations for which the answers above hold."""
    k = np.arange(len(files.COORDINATES))
    order = [files.COORDINATES.index(name) for name in names]
    return [torch.tensor(x[order]) for x in (0.6 * np.sin(1 + k), np.cos(2 * k), 2 * np.sin(3 * k + 1))]


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "model.osim"
        path.write_text(text)
        return path

    return write


@pytest.mark.parity
@pytest.mark.parametrize(("wanted", "speed"), [(MOVING, 1.0), (STILL, 0.0)])
def test_opensim_gives_the_same_forces(written, wanted, speed):
    """Pins, welds, sliders, universal, gimbal, planar and custom joints, offset frames, splines, multipliers, polynomials."""
    coupled = read_osim(written(files.model()), couplers=False).coupled
    c, v, a = state(coupled.names)
    tau = dict(zip(coupled.names, coupled.inverse_dynamics(c, speed * v, a).tolist(), strict=True))
    assert [tau[name] for name in files.COORDINATES] == pytest.approx(wanted, abs=2e-9)


def test_the_model_says_what_it_is(written):
    contact = "<HuntCrossleyForce name='c'><HuntCrossleyForce::Set name='s'></HuntCrossleyForce::Set></HuntCrossleyForce>"
    forces = f"<Thelen2003Muscle name='m'/><Thelen2003Muscle name='n'/>{contact}"
    model = read_osim(written(files.model(forces=forces)))
    assert model.name == "small"
    assert set(model.coupled.names) == set(files.COORDINATES) - {"beta"}
    assert model.coupled.body.total_mass == pytest.approx(51.7)
    assert set(model.rotational) == set(files.COORDINATES) - {"tx", "ty", "tz", "reach", "p2", "p3"}
    assert model.ignored == {"Thelen2003Muscle": 2, "HuntCrossleyForce": 1}
    assert model.ranges["knee"] == (-2, 2)
    assert model.repaired == ()


def test_links_keep_the_frames_of_the_bodies(written):
    """The foot's frame: from the pin's frame in the tibia, turned about its z, back by the frame in the foot."""
    coupled = read_osim(written(files.model())).coupled
    c, v, _ = state(coupled.names)
    pose = place(coupled.body, coupled.expand(c, v, v)[0])
    tibia, foot = (coupled.body.names.index(name) for name in ("tibia", "foot"))

    def frame(angles, at):
        found = torch.eye(4, dtype=torch.float64)
        for axis, angle in enumerate(angles):
            turn, (i, j) = torch.eye(4, dtype=torch.float64), ((1, 2), (2, 0), (0, 1))[axis]
            turn[i, i] = turn[j, j] = np.cos(angle)
            turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
            found = found @ turn
        found[:3, 3] = torch.tensor(at)
        return found

    ankle = frame((0, 0, float(c[coupled.names.index("ankle")])), (0.0, 0.0, 0.0))
    before, after = frame((0.2, -0.1, 0.3), (0.0, -0.4, 0.01)), frame((0.1, 0.3, 0), (0.01, 0.02, 0.0))
    step = before @ ankle @ torch.linalg.inv(after)
    assert torch.allclose(pose.rotation[foot], pose.rotation[tibia] @ step[:3, :3])
    assert torch.allclose(pose.position[foot], pose.position[tibia] + pose.rotation[tibia] @ step[:3, 3])


def test_followers_add_their_forces_to_their_leaders(written):
    """tau_knee = tau_knee + 1.2 tau_beta, in the state where beta = 1.5 (0.8 knee + 0.1)."""
    free, tied = (read_osim(written(files.model()), couplers=c).coupled for c in (False, True))
    c, v, a = (dict(zip(tied.names, x.tolist(), strict=True)) for x in state(tied.names))
    for values, shift in ((c, 0.15), (v, 0.0), (a, 0.0)):
        values["beta"] = 1.2 * values["knee"] + shift
    tau = [
        body.inverse_dynamics(*(torch.tensor([x[n] for n in body.names], dtype=torch.float64) for x in (c, v, a)))
        for body in (free, tied)
    ]
    apart, together = (dict(zip(b.names, t.tolist(), strict=True)) for b, t in zip((free, tied), tau, strict=True))
    assert together["knee"] == pytest.approx(apart["knee"] + 1.2 * apart["beta"])
    assert together["flexion"] == pytest.approx(apart["flexion"])


def test_power_is_the_rate_of_energy(written):
    """d(T + V)/dt = tau . v with splines and couplers, by central differences."""
    from visviva.physics.dynamics import energy, move

    coupled = read_osim(written(files.model())).coupled
    c, v, a = state(coupled.names)

    def total(t):
        q, speed, _ = coupled.expand(c + t * v + t**2 / 2 * a, v + t * a, a)
        return sum(energy(coupled.body, move(coupled.body, q, speed)))

    h = 1e-5
    power = (coupled.inverse_dynamics(c, v, a) * v).sum()
    assert float((total(h) - total(-h)) / (2 * h)) == pytest.approx(float(power), rel=1e-6)


def test_models_of_version_3_are_read(written):
    """The same pelvis and foot, their joints inside the bodies and the inertia in six elements."""
    custom = "".join(files.axis(n, d, f"<function>{files.ONE}</function>", c) for n, d, c in files.ROOT)

    def old(name, mass, joint):
        moments = "".join(f"<inertia_{k}>{v}</inertia_{k}>" for k, v in (("xx", 0.2), ("yy", 0.3), ("zz", 0.4), ("xy", 0.01)))
        return (
            f"<Body name='{name}'><mass>{mass}</mass><mass_center>0.1 0.2 0</mass_center>{moments}<Joint>{joint}</Joint></Body>"
        )

    def inside(kind, parent, coordinates, rest):
        values = "".join(files.coordinate(c) for c in coordinates)
        return (
            f"<{kind} name='j'><parent_body>{parent}</parent_body><location_in_parent>0 -0.4 0</location_in_parent>"
            f"<orientation_in_parent>0.2 0.1 0.3</orientation_in_parent><location>0.01 0 0</location><orientation>0.1 0 0"
            f"</orientation><CoordinateSet><objects>{values}</objects></CoordinateSet>{rest}</{kind}>"
        )

    six = [c for _, _, c in files.ROOT]
    bodies = "<Body name='ground'><mass>0</mass></Body>" + old(
        "pelvis", 9, inside("CustomJoint", "ground", six, f"<SpatialTransform>{custom}</SpatialTransform>")
    )
    bodies += old("foot", 2, inside("PinJoint", "pelvis", ["ankle"], ""))
    text = f"<BodySet><objects>{bodies}</objects></BodySet>"
    text = f"<OpenSimDocument Version='30000'><Model name='old'>{text}</Model></OpenSimDocument>"
    frames = (("0 -0.4 0", "0.2 0.1 0.3"), ("0.01 0 0", "0.1 0 0"))
    inertia = "0.2 0.3 0.4 0.01 0 0"
    new = files.model(
        [files.body("pelvis", 9, "0.1 0.2 0", inertia), files.body("foot", 2, "0.1 0.2 0", inertia)],
        [
            files.joint(
                "CustomJoint", "j", "ground", "pelvis", [files.coordinate(c) for c in six], *frames, files.followed(files.ROOT)
            ),
            files.joint("PinJoint", "j", "pelvis", "foot", [files.coordinate("ankle")], *frames),
        ],
        constraints="",
    ).replace("0.2 -9.80665 0", "0 -9.80665 0")
    one, other = (read_osim(written(x)).coupled for x in (text, new))
    x = state(one.names)
    assert torch.allclose(one.inverse_dynamics(*x), other.inverse_dynamics(*x), atol=1e-12)


def test_impossible_inertias_become_a_balls(written):
    toes = files.body("toes", 0.2, "0 0 0", "0.0001 0.0002 0.001 0 0 0")
    model = read_osim(written(files.model([toes if "'toes'" in b else b for b in files.BODIES])))
    assert model.repaired == ("toes",)
    found = model.coupled.body.inertia[model.coupled.body.names.index("toes")]
    assert torch.allclose(found, np.sqrt(1.05e-6 / 3) * torch.eye(3, dtype=torch.float64))


def changed(old, new):
    text = files.model()
    assert old in text
    return text.replace(old, new, 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<OpenSimDocument/>", "no <Model>"),
        ("<Model name='m'/>", "has no bodies"),
        (changed("<mass>9</mass>", "<mass>nan</mass>"), "<mass> of Body pelvis is 'nan'; finite"),
        (changed("<mass>9</mass>", "<mass>-9</mass>"), "pelvis has a mass of -9"),
        (changed("<mass>9</mass>", "<mass>nine</mass>"), "'nine'; numbers are wanted"),
        (changed("-0.07 0.01 0<", "-0.07 0.01<"), "has 2 numbers; 3 are wanted"),
        (changed("<axis>0 0 1</axis>", "<axis>0 0 0</axis>"), "axis of no length"),
        (files.model().replace("SliderJoint", "EllipsoidJoint"), "EllipsoidJoint elbow is not"),
        (files.model().replace("SimmSpline", "GCVSpline"), "follows a GCVSpline, which is not covered"),
        (changed("-2.1 -1.7", "-2.1 -2.7"), "growing x"),
        (files.model().replace("CoordinateCoupler", "Point"), "PointConstraint follow is not covered"),
        (changed("<dependent_coordinate_name>beta", "<dependent_coordinate_name>gamma"), "couples 'gamma'"),
        (changed("<length_units>meters", "<length_units>millimeters"), "its lengths are in millimeters"),
        (
            changed("/bodyset/femur</socket_parent>", "/bodyset/thigh</socket_parent>"),
            "no joint holds femur|that the model has not",
        ),
        (
            changed("<coordinates>knee</coordinates>", "<coordinates>knee ankle</coordinates>"),
            "knee and ankle; functions of one",
        ),
        (
            changed("<coordinates>knee</coordinates>", "<coordinates>elbow_angle</coordinates>"),
            "that no joint has: elbow_angle",
        ),
        (
            changed("/bodyset/pelvis</socket_parent><translation>-0", "pelvis_offset</socket_parent><translation>-0"),
            "on itself",
        ),
        (files.model(files.BODIES, files.JOINTS[1:]), "no joint holds foot"),
        (files.model(joints=[*files.JOINTS, files.joint("WeldJoint", "l", "torso", "foot", [])]), "foot hang on more"),
        (files.model([*files.BODIES, files.BODIES[3]]), "11 bodies with 10 names"),
        (files.model(files.BODIES[:9]), "that the model has not: grip"),
    ],
)
def test_what_is_not_covered_is_refused_by_name(written, text, said):
    with pytest.raises(InputError, match=said):
        read_osim(written(text))


REAL = Path(os.environ.get("VISVIVA_REAL", Path(__file__).parents[3] / "shared" / "real")) / "motion"
real = pytest.mark.skipif(not (REAL / "s4_optimized.osim").is_file(), reason="no real recordings (VISVIVA_REAL)")


@pytest.fixture(scope="module")
def jump():
    """Model, table, ground force, and forces of inverse dynamics with and without it, coordinates filtered at 6 Hz."""
    model = read_osim(REAL / "s4_optimized.osim")
    body = model.coupled
    table = read_table(REAL / "s4_DJ1_ik.mot")
    c, v, a = coordinates(table, model, cutoff=6.0)
    plates = {plate.name: plate for plate in ground_forces(read_table(REAL / "s4_DJ1_grf.mot").at(table.time))}
    right, left = plates["ground_force_1"], plates["ground_force_2"]  # the third is empty
    wrench = sum(
        body.wrench(c, link, plate.force, plate.point, plate.moment) for link, plate in (("calcn_r", right), ("calcn_l", left))
    )
    return model, table, right.force + left.force, body.inverse_dynamics(c, v, a, wrench), body.inverse_dynamics(c, v, a)


@pytest.mark.real
@real
def test_the_subjects_model(jump):
    model = jump[0]
    assert model.coupled.body.total_mass == pytest.approx(62.6, abs=0.01)
    assert len(model.coupled.names) == 33
    assert model.ignored == {"Millard2012EquilibriumMuscle": 80, "CoordinateActuator": 13}
    mass = dict(zip(model.coupled.body.names, model.coupled.body.mass.tolist(), strict=True))
    for name in mass:
        if name.endswith("_r"):
            assert mass[name] == mass[name[:-1] + "l"]


@pytest.mark.real
@real
def test_measured_ground_forces_carry_the_subject(jump):
    """Before the drop the box carries all of the weight; after landing the plates leave little over."""
    model, table, ground, tau, alone = jump
    weight = model.coupled.body.total_mass * 9.80665
    up = model.coupled.names.index("pelvis_ty")
    assert float(tau[:20, up].mean()) / weight == pytest.approx(1, abs=0.01)
    landed = (table.time > 1.2) & (table.time < 2.5)  # from one flight to the next
    left = tau[landed, up] / weight
    assert abs(float(left.mean())) < 0.03  # impulse: the plates carried the weight, all in all
    assert float(left.square().mean().sqrt()) < 0.25
    assert float((alone[landed, up] / weight).square().mean().sqrt()) > 1
    pushed = landed & (ground[:, 1] > 300)
    correlation = np.corrcoef(alone[pushed, up], ground[pushed, 1])[0, 1]
    assert correlation > 0.5


@pytest.mark.real
@real
def test_both_legs_work_alike_and_the_ankles_hold(jump):
    model, table, ground, tau, _ = jump
    loaded = (table.time > 1.2) & (ground[:, 1] > 300)
    for joint in ("knee_angle", "ankle_angle", "hip_flexion"):
        right, left = (tau[loaded, model.coupled.names.index(f"{joint}_{side}")] for side in "rl")
        assert float((right.mean() - left.mean()).abs()) < 0.5 * float((right.abs() + left.abs()).mean())
    ankle = tau[loaded, model.coupled.names.index("ankle_angle_r")]
    assert float(ankle.mean()) < -20  # the calf pushes the toes down


@pytest.mark.real
@real
def test_the_documented_way_from_files_to_torques_runs_on_three_sets_of_columns(jump):
    page = (Path(__file__).parents[2] / "docs" / "bodies.md").read_text()
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "ground_forces" in block]
    for shown, name in (("subject.osim", "s4_optimized.osim"), ("ik.mot", "s4_DJ1_ik.mot"), ("grf.mot", "s4_DJ1_grf.mot")):
        code = code.replace(f'"{shown}"', repr(str(REAL / name)))
    names: dict = {}
    exec(code, names)
    assert torch.equal(names["tau"], jump[3])
