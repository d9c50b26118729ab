"""Force response: zero on Newton's path, one on frozen, lost and contrary clips, and blind to turning, zoom and rate."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_paths import stacked, tracks

from visviva.errors import InputError
from visviva.physics.laws.force import ForceResponse, accelerations, commanded
from visviva.physics.laws.law import Law
from visviva.physics.measurement import Measurement

LAW = ForceResponse()


def pushed(accelerations, frames=17, push=0.25, starts=None):
    """Paths (T, N, 2) of bodies that are accelerated from rest during the first share of the clip, stepped finely."""
    a = np.asarray(accelerations, float)
    x = np.zeros_like(a) if starts is None else np.asarray(starts, float)
    v, path, fine = np.zeros_like(a), [], 400
    for k in range((frames - 1) * fine + 1):
        if k % fine == 0:
            path.append(x.copy())
        on = k < push * (frames - 1) * fine
        x = x + v / fine + on * a / fine**2 / 2
        v = v + on * a / fine
    return np.stack(path)


def measured(seen, *forces):
    count = seen.positions.shape[0]
    force = torch.tensor(forces, dtype=torch.float64).expand(count, -1, 2)
    return Measurement(fps=torch.full((count,), 32.0), tracks=seen, force=force)


def test_it_is_a_law():
    assert isinstance(LAW, Law)
    assert {"tracks", "force"} == LAW.needs
    assert LAW.anchor
    assert not LAW.trivial


def test_the_acceleration_of_a_push_is_measured():
    path = pushed([[0.5, -0.2], [0.0, 0.0]])
    found, variance = accelerations(tracks(path, 1e-3))
    assert torch.allclose(found[0], torch.tensor([[0.5, -0.2], [0.0, 0.0]], dtype=torch.float64), atol=2e-3)
    noisy = torch.cat([accelerations(tracks(path, 0.3, seed=k))[0] for k in range(200)])
    assert float(noisy.std(0).mean()) == pytest.approx(0.3 / 1e-3 * float(variance.mean().sqrt()), rel=0.1)


def test_newtons_path_has_no_residual_and_frozen_contrary_and_lost_clips_have_all():
    path = pushed([[0.5, -0.2], [0.0, 0.0]])
    true = LAW(measured(stacked([tracks(path, 0.1, seed=k) for k in range(8)]), [5.0, -2.0], [0.0, 0.0]))
    assert bool(true.valid.all())
    assert float(true.value.max()) < 0.01
    frozen = LAW(measured(stacked([tracks(0 * path, 0.1, seed=k) for k in range(8)]), [5.0, -2.0], [0.0, 0.0]))
    assert float(frozen.value.min()) > 0.5
    assert float(frozen.value.mean()) > 0.8
    assert float(LAW(measured(tracks(-path, 0.1), [5.0, -2.0], [0.0, 0.0])).value) > 0.99
    assert float(LAW(measured(tracks(path[::-1].copy(), 0.1), [5.0, -2.0], [0.0, 0.0])).value) > 0.99
    lost = tracks(path, 0.1).with_(visible=torch.zeros(1, 17, 2, dtype=torch.bool))
    assert float(LAW(measured(lost, [5.0, -2.0], [0.0, 0.0])).value) > 0.99


def test_the_residual_is_the_squared_sine_of_the_angle():
    for degrees in (10.0, 30.0, 90.0):
        turn = math.radians(degrees)
        path = pushed([[math.cos(turn), math.sin(turn)]])
        value = float(LAW(measured(tracks(path, 0.0), [1.0, 0.0])).value)
        assert value == pytest.approx(math.sin(turn) ** 2, abs=1e-3)


def test_a_distractor_that_moves_and_masses_that_are_ignored_count():
    moved = pushed([[0.5, 0.0], [0.25, 0.0]])
    assert float(LAW(measured(tracks(moved, 0.0), [1.0, 0.0], [0.0, 0.0])).value) == pytest.approx(0.2, abs=1e-3)
    masses = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    seen = tracks(pushed([[0.5, 0.0], [0.25, 0.0]], starts=[[0, 0], [20, 0]]), 0.0)
    points = torch.tensor([[[1.0, 1.0], [19.0, -1.0]]], dtype=torch.float64)
    force = commanded(seen, points, torch.tensor([[[1.0, 0.0], [1.0, 0.0]]], dtype=torch.float64), masses)
    assert force.tolist() == [[[1.0, 0.0], [0.5, 0.0]]]
    assert float(LAW(measured(seen, *force[0].tolist())).value) < 1e-6
    assert float(LAW(measured(seen, [1.0, 0.0], [1.0, 0.0])).value) == pytest.approx(0.1, abs=1e-3)


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 2 * math.pi), st.floats(0.2, 5.0), st.integers(12, 60))
def test_turning_zooming_and_the_rate_change_nothing(angle, zoom, frames):
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    a = np.array([[3.0, 1.0], [0.2, -0.5]])
    wanted = float(LAW(measured(tracks(pushed(a, 17), 0.0), [3.0, 0.0], [0.0, 0.0])).value)
    path = pushed(a @ turn.T * zoom, frames)
    forces = np.array([[3.0, 0.0], [0.0, 0.0]]) @ turn.T
    assert float(LAW(measured(tracks(path, 0.0), *forces.tolist())).value) == pytest.approx(wanted, abs=2e-3)


def test_with_a_response_the_strength_counts():
    law = ForceResponse(response=0.1)
    half = tracks(pushed([[0.25, 0.0]]), 0.0)
    assert float(law(measured(half, [5.0, 0.0])).value) == pytest.approx(0.25, abs=2e-3)
    assert float(law(measured(half, [2.5, 0.0])).value) < 1e-4
    assert float(law(measured(tracks(np.zeros((17, 2)), 0.0), [5.0, 0.0])).value) == pytest.approx(1.0)


def test_saying_to_be_uncertain_is_no_excuse_for_standing_still():
    frozen = tracks(np.zeros((17, 2)), 0.0)
    for sigma in (0.1, 10.0, 1000.0):
        unsure = frozen.with_(sigma=torch.full_like(frozen.sigma, sigma))
        assert float(LAW(measured(unsure, [5.0, 0.0])).value) > 0.85


def test_clips_without_force_or_with_nan_are_not_judged_and_spoil_nobody():
    seen = stacked([tracks(pushed([[0.5, 0.0]]), 0.0)] * 3)
    positions = seen.positions.clone()
    positions[0, 4] = float("nan")
    force = torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]], [[1.0, 0.0]]], dtype=torch.float64)
    both = Measurement(fps=torch.full((3,), 32.0), tracks=seen.with_(positions=positions), force=force)
    residual = LAW(both)
    assert residual.valid.tolist() == [False, False, True]
    assert float(residual.value.abs().max()) < 1e-6
    assert not bool(LAW(both.with_(force=force * float("nan"))).valid.any())


def test_the_gradient_leads_to_the_commanded_direction():
    seen = tracks(pushed([[0.3, 0.3]]), 0.05)
    positions = seen.positions.clone().requires_grad_()
    before = LAW(measured(seen.with_(positions=positions), [1.0, 0.0]))
    (slope,) = torch.autograd.grad(before.value.sum(), positions)
    after = LAW(measured(seen.with_(positions=positions.detach() - 20 * slope), [1.0, 0.0]))
    assert torch.isfinite(slope).all()
    assert float(after.value) < float(before.value.detach())


def test_what_it_cannot_use_is_refused():
    seen = tracks(pushed([[0.3, 0.3]]), 0.05)
    with pytest.raises(InputError, match="force"):
        LAW(Measurement(fps=torch.ones(1), tracks=seen))
    with pytest.raises(InputError, match="one per track"):
        LAW(measured(seen, [1.0, 0.0], [0.0, 0.0]))
    with pytest.raises(InputError, match="push"):
        ForceResponse(push=0.0)
    with pytest.raises(InputError, match="response"):
        ForceResponse(response=-1.0)
