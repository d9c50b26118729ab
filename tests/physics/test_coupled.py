"""Bodies that follow coordinates: splines against references, a crank against its closed form, properties, gradients."""

import numpy as np
import pytest
import torch
from scipy.interpolate import CubicSpline

from visviva.errors import InputError
from visviva.physics.bodies import Body, CoupledBody, curves, lines, polynomial, spline


def values(curve, x):
    return [v[:, 0] for v in curves([0], [curve])(torch.as_tensor(x, dtype=torch.float64)[:, None])]


def test_splines_reproduce_cubics_and_have_continuous_bends():
    x = np.array([-1.0, -0.3, 0.2, 0.5, 1.7])
    inside = np.linspace(-1, 1.7, 41)
    value, slope, bend = values(spline(x, x**3 - 2 * x), inside)
    assert np.allclose(value, inside**3 - 2 * inside)
    assert np.allclose(slope, 3 * inside**2 - 2)
    assert np.allclose(bend[:-1], 6 * inside[:-1])
    y = np.sin(3 * x)
    for knot in x[1:-1]:
        left, right = (np.array(values(spline(x, y), [knot + d]))[:, 0] for d in (-1e-9, 1e-9))
        assert np.allclose(left, right, atol=1e-6)


def test_splines_of_many_points_are_those_of_any_end_condition_inside():
    x = np.linspace(0, 2 * np.pi, 60)
    inside = np.linspace(2, 4, 50)
    assert np.allclose(values(spline(x, np.sin(x)), inside)[0], CubicSpline(x, np.sin(x))(inside), atol=1e-9)


def test_splines_go_on_straight():
    x, y = [0.0, 1.0, 2.0, 4.0], [0.0, 1.0, 0.5, 3.0]
    value, slope, bend = values(spline(x, y), [-2.0, -1.0, 5.0, 6.0])
    assert float(value[1] - value[0]) == pytest.approx(float(slope[0]))
    assert float(value[3] - value[2]) == pytest.approx(float(slope[3]))
    assert bend.tolist() == [0] * 4
    assert float(value[1] + slope[1]) == pytest.approx(0)


@pytest.mark.parametrize("count", [2, 3])
def test_few_points_are_a_line_or_a_parabola(count):
    x = np.array([0.0, 1.0, 3.0])[:count]
    y = (x**2 + 1)[:count]
    inside = np.linspace(0, x[-1], 9)[:-1]
    want = inside**2 + 1 if count == 3 else 1 + inside
    assert np.allclose(values(spline(x, y), inside)[0], want)


def test_lines_and_polynomials():
    value, slope, _ = values(lines([0.0, 1.0, 3.0], [0.0, 2.0, 2.0]), [-1.0, 0.5, 2.0, 9.0])
    assert value.tolist() == [-2, 1, 2, 2]
    assert slope.tolist() == [2, 2, 0, 0]
    value, slope, bend = values(polynomial(1.0, 2.0, 3.0).scaled(2.0), [2.0])
    assert (float(value), float(slope), float(bend)) == (34, 28, 12)
    with pytest.raises(InputError, match="growing x"):
        spline([0.0, 0.0, 1.0, 2.0], [0.0, 1.0, 2.0, 3.0])
    with pytest.raises(InputError, match="not finite"):
        lines([0.0, 1.0], [0.0, np.nan])


@pytest.fixture
def rolling():
    """A disc of 2 kg and 0.3 m that rolls along x (slide and hinge of one coordinate); its axis bobs with a spline."""
    eye = torch.eye(3, dtype=torch.float64)
    body = Body(
        names=("along", "up", "disc"),
        parents=(-1, 0, 1),
        joints=("slide", "slide", "hinge"),
        offset=torch.zeros(3, 3, dtype=torch.float64),
        rest=eye.expand(3, 3, 3),
        axis=eye[[0, 2, 1]],
        mass=torch.tensor([0.0, 0, 2], dtype=torch.float64),
        com=torch.zeros(3, 3, dtype=torch.float64),
        inertia=torch.stack([0 * eye, 0 * eye, 0.09 * eye]),
    )
    bob = spline([-3.0, -1.0, 0.0, 1.0, 3.0], [0.0, 0.1, 0.0, -0.1, 0.3])
    layers = (curves([0], [polynomial(0.0, 0.5)]), curves([0, 0, 0], [polynomial(0.0, 0.3), bob, polynomial(0.0, 1.0)]))
    return CoupledBody(body, ("turn",), layers), bob


def test_a_rolling_disc_has_its_closed_form(rolling):
    """``(I + m (r^2 + f'^2)) a + m f' f'' v^2 + m g f'`` about the angle, of which the coordinate is the double."""
    coupled, bob = rolling
    c, v, a = (torch.tensor([[x]], dtype=torch.float64) for x in (1.2, 0.7, -0.4))
    _, f1, f2 = (float(x) for x in values(bob, [0.6]))
    angle = (0.09 + 2 * (0.3**2 + f1**2)) * -0.2 + 2 * f1 * f2 * 0.35**2 + 2 * 9.81 * f1
    assert coupled.inverse_dynamics(c, v, a).item() == pytest.approx(angle / 2)
    assert coupled.mass_matrix(c).item() == pytest.approx((0.09 + 2 * (0.3**2 + f1**2)) / 4)
    tau = coupled.inverse_dynamics(c, v, a)
    assert coupled.forward_dynamics(c, v, tau).item() == pytest.approx(-0.4)


def test_forces_at_points_do_the_work_of_their_power(rolling):
    """A push at a point of the disc: coordinate's force by virtual work."""
    coupled, _ = rolling
    c = torch.tensor([[0.8]], dtype=torch.float64, requires_grad=True)
    force, point = (torch.tensor([x], dtype=torch.float64) for x in ([3.0, 0, -1], [0.2, 0.1, 0.4]))
    zero = torch.zeros_like(c)
    wrench = coupled.wrench(c, "disc", force, point)
    pushed = coupled.inverse_dynamics(c, zero, zero) - coupled.inverse_dynamics(c, zero, zero, wrench)
    q = coupled.expand(c, zero, zero)[0]
    arm = point - torch.stack([q[:, 0], 0 * q[:, 0], q[:, 1]], -1).detach()
    moved = torch.stack([q[:, 0], 0 * q[:, 0], q[:, 1]], -1)
    turned = torch.linalg.cross(torch.tensor([[0.0, 1, 0]], dtype=torch.float64) * q[:, 2:], arm)
    (work,) = torch.autograd.grad((force * (moved + turned)).sum(), c)
    assert pushed.item() == pytest.approx(work.item())


def test_gradients_are_exact(rolling):
    c, v, a = (torch.tensor([[x]], dtype=torch.float64, requires_grad=True) for x in (1.2, 0.7, -0.4))
    assert torch.autograd.gradcheck(rolling[0].inverse_dynamics, (c, v, a))


def test_what_does_not_fit_is_refused(rolling):
    coupled, _ = rolling
    with pytest.raises(InputError, match="do not lead from 1 coordinates to 3 joints"):
        CoupledBody(coupled.body, ("turn",), coupled.layers[:1])
    with pytest.raises(InputError, match="2 coordinates; there are 1"):
        coupled.inverse_dynamics(*(torch.zeros(1, 2, dtype=torch.float64) for _ in range(3)))
    good = torch.zeros(4, 1, dtype=torch.float64)
    with pytest.raises(InputError, match=r"velocities in torch.float32, the body in torch.float64; move one of them with .to"):
        coupled.inverse_dynamics(good, good.float(), good)
    with pytest.raises(InputError, match=r"accelerations of the shape \(3, 1\), coordinates of \(4, 1\)"):
        coupled.expand(good, good, good[1:])
    with pytest.raises(InputError, match="4 coordinates; there are 1 coordinates: turn; transpose them"):
        coupled.inverse_dynamics(good.mT, good.mT, good.mT)
    with pytest.raises(InputError, match="no link 'disk'; did you mean 'disc'"):
        coupled.wrench(good[:1], "disk", torch.zeros(1, 3), torch.zeros(1, 3))
    with pytest.raises(InputError, match="no link 'wheel'"):
        coupled.wrench(*(torch.zeros(1, 1, dtype=torch.float64), "wheel", torch.zeros(1, 3), torch.zeros(1, 3)))
