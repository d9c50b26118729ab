"""Human bodies: golden values of the method card (motion, section 12.3), invariances, gradients, refusals."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skeletons import h36m_rest, smpl_rest

from visviva.errors import InputError
from visviva.physics.bodies import SEGMENTS, SKELETONS, human, segment, standing_height
from visviva.physics.bodies.deleva import WHOLE
from visviva.physics.bodies.segments import ANKLE
from visviva.physics.dynamics import inverse_dynamics, place


def whole(body):
    """Centre of mass, and inertia about it, of the body at rest."""
    pose = place(body, body.neutral())
    centre = pose.centre_of_mass(body)
    arm = pose.centres(body) - centre
    second = torch.einsum("n,ni,nj->ij", body.mass, arm, arm)
    turned = pose.rotation @ body.inertia @ pose.rotation.mT
    return centre, turned.sum(0) + second.trace() * torch.eye(3, dtype=torch.float64) - second


@pytest.mark.parametrize(
    ("sex", "mass", "inertia", "condition"), [(1.0, 73.0, (11.5, 2.3, 13.5), 2.5e5), (0.0, 61.9, (9.9, 1.8, 11.4), 4.7e5)]
)
def test_golden_values_of_the_card(sex, mass, inertia, condition):
    rest = smpl_rest()
    body = human(rest, mass=mass, stature=1.70, sex=sex)
    assert body.nv == 51
    assert body.total_mass == pytest.approx(mass, rel=1e-6)
    centre, about = whole(body)
    sole = rest[[7, 8], 1].mean() - ANKLE * 1.70
    assert float(centre[1] - sole) / 1.70 == pytest.approx(0.571, rel=0.01)
    assert about.diag().tolist() == pytest.approx(list(inertia), rel=0.05)
    matrix = body.mass_matrix(body.neutral())
    assert float(torch.linalg.cond(matrix)) == pytest.approx(condition, rel=0.05)


def test_armature_calms_the_mass_matrix_and_moving_toes_and_fingers_do_not():
    options = {"mass": 73.0, "stature": 1.70, "sex": 1.0}
    condition = [
        float(torch.linalg.cond(body.mass_matrix(body.neutral())))
        for body in (human(smpl_rest(), armature=0.01, **options), human(smpl_rest(), welded=(), **options))
    ]
    assert condition == pytest.approx([7.3e3, 8.5e5], rel=0.1)


@pytest.mark.parametrize(("rest", "count"), [(smpl_rest(), 24), (smpl_rest(22), 22), (h36m_rest(), 17)])
def test_welding_changes_nothing_about_the_whole(rest, count):
    """Every skeleton has one body whatever moves: the same mass, centre, inertia; every moving link has a mass."""
    held = human(rest, mass=70.0)
    free = human(rest, mass=70.0, welded=())
    assert free.nv == 6 + 3 * (count - 1)
    assert free.mass.min() > 0
    for one, other in zip(whole(held), whole(free), strict=True):
        assert torch.allclose(one, other, atol=1e-9)
    assert torch.allclose(place(held, held.neutral()).position, rest)


def test_masses_lie_where_the_table_puts_them():
    body = human(smpl_rest(), mass=100.0, sex=0.0)
    mass = dict(zip(body.names, body.mass.tolist(), strict=True))
    found = [mass[name] for name in ("left_hip", "right_knee", "left_wrist", "head", "neck", "pelvis")]
    assert found == pytest.approx([14.78, 4.81, 0.56, 0.0, 6.68, 12.47], rel=2e-4)
    thigh = body.com[body.names.index("left_hip")]
    bone = smpl_rest()[4] - smpl_rest()[1]
    assert torch.allclose(thigh, 0.3612 * bone)
    shank = body.inertia[body.names.index("left_knee")]
    bone = smpl_rest()[7] - smpl_rest()[4]
    along = bone / bone.norm()
    assert float(along @ shank @ along) == pytest.approx(4.81 * (float(bone.norm()) * 0.092) ** 2, rel=1e-3)


@pytest.mark.parametrize(("column", "sex"), [(1, 1.0), (0, 0.0)])
def test_the_table_sums_up(column, sex):
    assert sum(count * segment(name, sex).mass for name, count in WHOLE.items()) == pytest.approx(1, abs=1.5e-4)
    thirds = sum(SEGMENTS[name][column][0] for name in ("lower_trunk", "mid_trunk", "upper_trunk"))
    assert thirds == pytest.approx(SEGMENTS["trunk"][column][0], abs=0.2)
    assert segment("thigh", sex).com == pytest.approx(SEGMENTS["thigh"][column][2] / 100)


@settings(deadline=None, max_examples=15)
@given(st.floats(0.5, 1.3), st.floats(0, 1), st.floats(40, 120))
def test_scaling_a_person_scales_the_inertia(scale, sex, mass):
    small, large = (human(k * smpl_rest(), mass=mass, sex=sex) for k in (1.0, scale))
    assert torch.allclose(large.inertia, scale**2 * small.inertia, rtol=1e-6, atol=1e-12)
    assert torch.allclose(large.com, scale * small.com)
    assert float(standing_height(scale * smpl_rest())) == pytest.approx(1.70 * scale, rel=1e-3)


def test_left_and_right_mirror_each_other():
    """A mirrored skeleton with sides swapped has the mirrored body."""
    tree = SKELETONS["smpl"]
    swap = [tree.names.index(n.replace("left", "?").replace("right", "left").replace("?", "right")) for n in tree.names]
    mirror = torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
    body, other = human(smpl_rest()), human((smpl_rest() * mirror)[swap])
    assert torch.allclose(other.com[swap], body.com * mirror)
    assert torch.allclose(other.inertia[swap], mirror[:, None] * body.inertia * mirror)


def test_the_default_person_has_the_tables_body_mass_index():
    body = human(smpl_rest(), sex=1.0, stature=1.741)
    assert body.total_mass == pytest.approx(73.0)
    assert human(smpl_rest(), sex=1.0, stature=1.741 / 2).total_mass == pytest.approx(73.0 / 4)


def test_torques_have_gradients_with_respect_to_the_skeleton():
    rng = torch.Generator().manual_seed(0)
    rest = smpl_rest(22).requires_grad_()
    body = human(smpl_rest(22))
    q, v, a = (torch.randn(1, n, generator=rng, dtype=torch.float64) for n in (body.nq, body.nv, body.nv))

    def torques(joints):
        return inverse_dynamics(human(joints, welded=None, up="z"), q, v, a)

    assert torch.autograd.gradcheck(torques, (rest,), fast_mode=True)

    mass, stature = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (70.0, 1.7))
    slopes = torch.autograd.grad(inverse_dynamics(human(smpl_rest(22), mass, stature), q, v, a).square().sum(), (mass, stature))
    assert all(bool(slope.abs() > 0) for slope in slopes)


def test_gravity_is_that_of_the_world():
    body = human(smpl_rest(), mass=60.0, up="y")
    still = torch.zeros(51, dtype=torch.float64)
    assert body.inverse_dynamics(body.neutral(), still, still)[:3].tolist() == pytest.approx([0, 60 * 9.81, 0], abs=1e-6)
    upright = human(smpl_rest(), mass=60.0, up="z")
    q = upright.neutral()
    q[3:7] = torch.tensor([0.5**0.5, 0.5**0.5, 0, 0])  # y up to z up
    tau = upright.inverse_dynamics(q, still, still)
    assert tau[:3].tolist() == pytest.approx([0, 0, 60 * 9.81], abs=1e-6)
    assert torch.allclose(tau[3:], body.inverse_dynamics(body.neutral(), still, still)[3:], atol=1e-6)


def test_float32_stays_float32():
    body = human(smpl_rest().float())
    assert {body.mass.dtype, body.com.dtype, body.inertia.dtype, body.offset.dtype} == {torch.float32}


@pytest.mark.parametrize(
    ("joints", "options", "said"),
    [
        (smpl_rest(23), {}, r"joints of the shape \(23, 3\)"),
        (smpl_rest() * 1000, {}, "in metres"),
        (smpl_rest()[:, [0, 2, 1]], {}, "x points left, y up"),
        (smpl_rest() * torch.tensor([-1.0, 1, 1]), {}, "swap the sides"),
        (smpl_rest().index_fill(0, torch.tensor([5]), torch.nan), {}, "not finite: right_knee"),
        (smpl_rest(), {"mass": torch.nan}, "a mass of nan"),
        (smpl_rest(), {"mass": -5}, "a mass of -5"),
        (smpl_rest(), {"stature": 170.0}, "a stature of 170"),
        (smpl_rest(), {"sex": 2.0}, "sex is 2"),
        (smpl_rest(), {"skeleton": "h36m"}, "24 joints; the skeleton h36m has 17"),
        (smpl_rest(), {"skeleton": "smplh"}, "no skeleton 'smplh'"),
        (smpl_rest(), {"welded": ["left_toe"]}, "no link 'left_toe' to weld"),
        (smpl_rest(), {"up": "x"}, "up is 'x'"),
        (torch.zeros(24, 3), {"stature": 1.7}, "from the right hip"),
    ],
)
def test_what_is_no_person_is_refused(joints, options, said):
    with pytest.raises(InputError, match=said):
        human(joints, **options)


def test_offsets_from_parents_are_no_places():
    rest, parents = smpl_rest(), SKELETONS["smpl"].parents
    offsets = torch.cat([rest[:1], rest[1:] - rest[list(parents[1:])]])
    with pytest.raises(InputError, match="not their offsets from their parents"):
        human(offsets)


def test_unknown_segments_are_refused():
    with pytest.raises(InputError, match=r"no segment 'thig'.*; did you mean 'thigh'"):
        segment("thig")
