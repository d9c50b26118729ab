"""Impulse and momentum: closed forms, convergence, what noise does to the weak and to the strong form."""

import itertools
import math

import pytest
import torch
from skeletons import smpl_rest
from test_ground import block
from trees import state, tree

from visviva.errors import InputError
from visviva.physics.bodies import human
from visviva.physics.dynamics import (
    Points,
    differentiate,
    forward_dynamics,
    gravity_forces,
    impulse_residual,
    integrate,
    inverse_dynamics,
    place,
    point_wrenches,
)
from visviva.physics.kinematics import window_fit

TIMES = torch.arange(41, dtype=torch.float64) / 50
WEIGHT = torch.tensor([0.0, 0, -98.1], dtype=torch.float64)
BOTH = pytest.mark.parametrize("weight", ["bump", "box"])


def path(place_at, angle):
    """The block at these places (T, 3), turned about its x axis by these angles (T,)."""
    half = angle / 2
    none = torch.zeros_like(half)
    return torch.cat([place_at, torch.stack([half.cos(), half.sin(), none, none], -1)], -1)


def held(force, moment=None):
    """A force, and a moment, at the block's only link, (T, 1, 6)."""
    return torch.cat([force, torch.zeros_like(force) if moment is None else moment], -1)[:, None]


def rms(x):
    return float(x.square().sum(-1).mean().sqrt())


@BOTH
def test_a_thrown_spinning_block_needs_nothing(weight):
    t = TIMES[:, None]
    q = path(torch.tensor([1.0, 2, 3]) * t + WEIGHT / 10 * t.square() / 2, 3 * TIMES)
    left = impulse_residual(block(), q, 50, 11, weight=weight)
    assert left.shape == (31, 6)
    assert float(left.abs().max()) < 1e-10


@BOTH
def test_a_constant_push_and_twist_are_found_and_explained(weight):
    """x = F t^2 / 2 m and angle = N t^2 / 2 I: both forms find F and N exactly, and nothing once they are told."""
    t = TIMES[:, None]
    push, twist = torch.tensor([5.0, -2, 7], dtype=torch.float64), 0.4
    q = path((WEIGHT + push) / 10 * t.square() / 2, twist / float(block().inertia[0, 0, 0]) * TIMES.square() / 2)
    found = impulse_residual(block(), q, 50, 11, weight=weight) / (9 / 50)
    wanted = torch.cat([push, torch.tensor([twist, 0, 0], dtype=torch.float64)])
    assert torch.allclose(found, wanted.expand_as(found), atol=1e-9)
    told = held(push.expand(41, 3), wanted[3:].expand(41, 3))
    assert float(impulse_residual(block(), q, 50, 11, told, weight).abs().max()) < 1e-10


@BOTH
def test_a_body_frozen_in_the_air_owes_its_weight(weight):
    still = block().neutral(9)
    found = impulse_residual(block(), still, 50, 9, weight=weight) / (7 / 50)
    assert torch.allclose(found, torch.cat([-WEIGHT, torch.zeros(3)])[None], atol=1e-9)
    force = (-WEIGHT / 2).expand(9, 2, 3)
    feet = Points((0, 0), torch.tensor([[-0.2, 0, -0.1], [0.2, 0, -0.1]], dtype=torch.float64))
    stands = point_wrenches(block(), place(block(), still), feet, force)
    assert float(impulse_residual(block(), still, 50, 9, stands, weight).abs().max()) < 1e-12
    aside = Points((0, 0), feet.at + torch.tensor([0.1, 0, 0]))  # 98.1 N, 0.1 m off: it would tip over
    tips = point_wrenches(block(), place(block(), still), aside, force)
    left = impulse_residual(block(), still, 50, 9, tips, weight) / (7 / 50)
    assert torch.allclose(left, torch.tensor([[0.0, 0, 0, 0, 9.81, 0]], dtype=torch.float64), atol=1e-9)


def test_an_impact_gives_its_impulse():
    """A ball that falls and bounces at frame 20 with the impulse 30 N s: a box across it finds that, wherever it begins."""
    t = TIMES - TIMES[20]
    height = torch.where(t < 0, -2.0, 1.0) * t - 9.81 * t.square() / 2
    q = path(torch.stack([0 * t, 0 * t, height], -1), 0 * t)
    left = impulse_residual(block(), q, 50, 9, weight="box")
    across = (torch.arange(33) <= 19) & (torch.arange(33) >= 13)
    assert torch.allclose(left[:, 2], 30.0 * across.double(), atol=1e-9)
    force = torch.zeros(41, 3, dtype=torch.float64)
    force[20, 2] = 30 * 50
    for weight in ("box", "bump"):
        assert float(impulse_residual(block(), q, 50, 9, held(force), weight).abs().max()) < 1e-9


@BOTH
def test_the_error_falls_with_the_square_of_the_rate(weight):
    """x'' = F sin(w t) / m - g, over windows of the same 0.24 s."""

    def error(fps):
        t = torch.arange(fps + 1, dtype=torch.float64) / fps
        along = torch.tensor([1.0, 0.5, -1], dtype=torch.float64)
        force = 20 * torch.sin(9 * t)[:, None] * along
        moved = -20 * torch.sin(9 * t)[:, None] * along / 81 + WEIGHT * t.square()[:, None] / 2
        twist, own = 0.3 * torch.sin(9 * t), float(block().inertia[0, 0, 0])
        moment = torch.stack([twist, 0 * t, 0 * t], -1)
        q = path(moved / 10, -twist / 81 / own)
        inner = round(0.24 * fps) + 1
        left = impulse_residual(block(), q, fps, inner, held(force, moment), weight)
        return left[..., :3].norm(dim=-1).max(), left[..., 3:].norm(dim=-1).max()

    errors = [error(fps) for fps in (50, 100, 200)]
    for part in (0, 1):
        for coarse, fine in itertools.pairwise(errors):
            assert float(coarse[part] / fine[part]) == pytest.approx(4, rel=0.15)


LIMBS = tree(6, 3, kinds=("ball", "hinge"))
TIPS = Points((0, 5), torch.tensor([[0.1, 0.2, 0.0], [0.0, 0.1, 0.2]], dtype=torch.float64))


@pytest.fixture(scope="module")
def thrown():
    """A tumbling tree whose joints work and whose ends are pushed, 0.4 s at 400 frames per second, with the pushes."""
    q, v, _ = (x[0] for x in state(LIMBS, 1, 3))
    h, v, found, forces = 1 / 400, v / 4, [], []

    def acts(q, v, t):
        tau = 0.1 * torch.cat([torch.zeros(6), torch.cos(5 * t + torch.arange(LIMBS.nv - 6))]).double()
        force = torch.stack([torch.sin(7 * t + torch.arange(3)), torch.cos(6 * t + torch.arange(3))]).double()
        return forward_dynamics(LIMBS, q, v, tau, point_wrenches(LIMBS, place(LIMBS, q), TIPS, force)), force

    for step in range(161):
        t = torch.tensor(step * h, dtype=torch.float64)
        a, force = acts(q, v, t)
        found.append(q)
        forces.append(force)
        half = v + h / 2 * a
        a, _ = acts(integrate(LIMBS, q, v, h / 2), half, t + h / 2)
        q, v = integrate(LIMBS, q, half, h), v + h * a
    return torch.stack(found), torch.stack(forces)


@BOTH
def test_a_pushed_tumbling_tree_is_explained_to_second_order(thrown, weight):
    def errors(fps):
        every = 400 // fps
        q, force = thrown[0][::every], thrown[1][::every]
        wrench = point_wrenches(LIMBS, place(LIMBS, q), TIPS, force)
        inner = round(0.16 * fps) + 1
        told, untold = (impulse_residual(LIMBS, q, fps, inner, w, weight)[:: fps // 50] for w in (wrench, None))
        return [(rms(told[:, k]), rms(untold[:, k])) for k in (slice(0, 3), slice(3, 6))]

    coarse, fine = errors(50), errors(100)
    for (left, whole), (better, _) in zip(coarse, fine, strict=True):
        assert left < 0.03 * whole
        assert left / better == pytest.approx(4, rel=0.2)


def test_impulses_of_boxes_add_up(thrown):
    q = thrown[0][:81:2]
    parts = impulse_residual(LIMBS, q, 200, 15, weight="box")[::13]
    whole = impulse_residual(LIMBS, q, 200, 41, weight="box")
    assert torch.allclose(parts.sum(0), whole[0], atol=1e-10)


@pytest.mark.parametrize("window", [3, 9])
def test_the_bumps_force_is_that_of_fitted_parabolas(thrown, window):
    q = thrown[0][:80:4]
    found = impulse_residual(LIMBS, q, 100, window)[..., :3] * 100 / (window - 2)
    centre = place(LIMBS, q).centre_of_mass(LIMBS)
    gain = window_fit(centre[None], window, 2).derivatives[0, :, 2] * 100**2
    assert torch.allclose(found, LIMBS.mass.sum() * (gain - LIMBS.down), atol=1e-8)


MAN = human(smpl_rest(), mass=73.0, sex=1.0)


def test_noise_that_hides_the_strong_form_leaves_the_weak_one_readable():
    """A man held still, 5 mm and 0.6 degrees, 30 frames per second, half a second: what remains where the truth is 0."""
    rng = torch.Generator().manual_seed(0)
    still = MAN.neutral(400)
    error = torch.randn(400, MAN.nv, generator=rng, dtype=torch.float64) * math.radians(0.6)
    error[:, :3] = 0.005 * torch.randn(400, 3, generator=rng, dtype=torch.float64)
    q = integrate(MAN, still, error, 1.0)
    hold = torch.zeros(400, len(MAN), 6, dtype=torch.float64)
    hold[:, 0] = gravity_forces(MAN, MAN.neutral())[:6]
    strong = inverse_dynamics(MAN, *differentiate(MAN, q, 30, 3), hold[1:-1])[:, :6]
    left = {w: impulse_residual(MAN, q, 30, 15, hold, w) * 30 / 13 for w in ("bump", "box")}
    said = {"bump": math.sqrt(720 / (15 * 224 * 221)) / math.sqrt(6), "box": 2 / 13 / math.sqrt(6)}
    for weight, ratio in said.items():
        assert rms(left[weight][:, :3]) / rms(strong[:, :3]) == pytest.approx(ratio, rel=0.25)
    assert rms(strong[:, :3]) > 1.5 * 9.81 * 73
    assert rms(left["bump"][:, :3]) < 0.04 * 9.81 * 73
    assert rms(left["bump"][:, 3:]) < 0.03 * rms(strong[:, 3:])


def test_gradients_are_exact_and_batches_are_alike():
    body = tree(2, 4, kinds=("hinge",))
    q = torch.stack([state(body, 6, seed)[0] for seed in (0, 1)])
    wrench = torch.randn(2, 6, 2, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    together = impulse_residual(body, q, 10, 5, wrench)
    assert torch.allclose(together[1], impulse_residual(body, q[1], 10, 5, wrench[1]))
    assert torch.allclose(impulse_residual(body, q, 10, 5, wrench[0])[1], impulse_residual(body, q[1], 10, 5, wrench[0]))
    steady = impulse_residual(body, q, 10, 5, wrench[0, 0])
    assert torch.equal(steady, impulse_residual(body, q, 10, 5, wrench[0, 0].expand(2, 6, 2, 6)))
    inputs = q[0].requires_grad_(), wrench[0].requires_grad_()
    assert torch.autograd.gradcheck(lambda q, w: impulse_residual(body, q, 10, 5, w), inputs)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"window": 4}, "a window of 4 frames; it must be odd"),
        ({"window": 11}, "9 frames are fewer than the window of 11"),
        ({"fps": 0.0}, "the rate must be positive"),
        ({"weight": "sine"}, "no test function 'sine'; there are bump, box"),
        ({"wrench": torch.zeros(9, 2, 6, dtype=torch.float64)}, "wrenches of the shape"),
        ({"wrench": torch.zeros(8, 1, 6, dtype=torch.float64)}, r"shape \(8, 1, 6\) for states of the batch \(9,\)"),
    ],
)
def test_what_does_not_fit_is_refused(change, said):
    with pytest.raises(InputError, match=said):
        impulse_residual(**{"body": block(), "q": block().neutral(9), "fps": 50, "window": 5} | change)
