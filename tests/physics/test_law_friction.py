"""Friction: constant deceleration until rest and rest until touched; what else a body may do on a straight path is told."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from judged import (
    assert_broken_clips_are_left_out,
    assert_clips_without_objects_are_not_judged,
    assert_gradient_leads_down,
    assert_not_judged,
    assert_same_elsewhere,
    judged,
    measured,
)
from simulated_paths import bouncing, sliding, swinging, tracks

from visviva.errors import InputError
from visviva.physics.laws.friction import Friction, line
from visviva.physics.runs import fit_runs, runs_between

LAW, OVERHEAD = Friction(), Friction(overhead=True)


def along(way, turn):
    return np.asarray(way)[:, None] * np.array([math.cos(turn), math.sin(turn)])


T = np.arange(50)
HONEST = {
    "slides to rest": sliding(50, 3.0, 0.1),
    "slides on": sliding(50, 3.0, 0.02),
    "without friction": along(2.0 * T, 0.0),
    "down a ramp": along(0.05 * T**2, 0.5),
    "up a ramp": along(4.0 * T - 0.04 * T**2, -0.5),
    "up a ramp and back": along(3.0 * T - 0.06 * T**2, -0.5),
}
DISHONEST = {
    "sets off by itself": sliding(50, 3.0, 0.1)[::-1].copy(),
    "stops dead": along(np.minimum(2.0 * T, 50), 0.0),
    "speeds up on the level": along(T + 0.04 * T**2, 0.0),
    "speeds up uphill": along(T + 0.04 * T**2, -0.5),
    "friction changes": along(np.where(T < 25, 3.0 * T - 0.05 * T**2, 43.75 + 0.5 * (T - 25)), 0.0),
}


@pytest.mark.parametrize("name", HONEST)
@pytest.mark.parametrize("noise", [0.0, 0.1, 0.3])
def test_friction_is_obeyed(name, noise):
    residual = judged(LAW, HONEST[name], noise)
    assert float(residual.value.mean()) < 0.05


@pytest.mark.parametrize("name", DISHONEST)
@pytest.mark.parametrize("noise", [0.0, 0.1, 0.3])
def test_what_friction_cannot_do_is_seen(name, noise):
    residual = judged(LAW, DISHONEST[name], noise)
    assert float(residual.value.min()) > 0.1


def test_from_above_nothing_is_downhill():
    down = measured(tracks(HONEST["down a ramp"], 0.1))
    assert float(LAW(down).value) < 0.05
    assert float(OVERHEAD(down).value) > 0.5
    assert "reversed_time" in OVERHEAD.detects


def test_a_given_contact_may_start_and_stop_a_body():
    started = measured(tracks(DISHONEST["sets off by itself"][15:], 0.1))
    struck = measured(tracks(np.concatenate([np.zeros((15, 2)), sliding(35, 3.0, 0.1)]), 0.1))
    touch = torch.zeros(1, 50, dtype=torch.bool)
    touch[0, 14:16] = True
    assert float(LAW(struck).value) > 0.5
    assert float(LAW(struck.with_(contact=touch)).value) < 0.05
    assert bool(LAW(started).valid)


NOT_JUDGED = {
    "frozen": np.zeros((40, 2)),
    "falls": along(0.05 * T**2, math.pi / 2),
    "bounce": bouncing(60, least=6)[0],
    "swing": swinging(60, amplitude=0.6),
    "noise": 20 * np.random.default_rng(0).standard_normal((40, 2)),
    "short": sliding(5),
}


@pytest.mark.parametrize("name", NOT_JUDGED)
def test_what_does_not_slide_is_not_judged(name):
    assert_not_judged(LAW, NOT_JUDGED[name])


def test_a_broken_clip_is_not_judged_and_leaves_the_others_alone():
    seen = tracks(DISHONEST["speeds up on the level"], 0.05)
    assert_broken_clips_are_left_out(LAW, seen)
    with pytest.raises(InputError, match="slope"):
        Friction(slope=2.0)


@settings(max_examples=10, deadline=None)
@given(
    name=st.sampled_from(sorted({**HONEST, **DISHONEST})),
    x=st.floats(-300, 300),
    zoom=st.floats(0.5, 4),
    mirror=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_value_does_not_depend_on_place_pixels_and_left_or_right(name, x, zoom, mirror, seed):
    seen = tracks({**HONEST, **DISHONEST}[name], noise=0.1, seed=seed)
    assert_same_elsewhere(LAW, seen, x, zoom, mirror)


@settings(max_examples=10, deadline=None)
@given(name=st.sampled_from(sorted({**HONEST, **DISHONEST})), angle=st.floats(0, 6.28), seed=st.integers(0, 99))
def test_from_above_the_direction_does_not_matter(name, angle, seed):
    seen = tracks({**HONEST, **DISHONEST}[name], noise=0.1, seed=seed)
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)
    turned = seen.with_(positions=seen.positions @ turn.T)
    assert torch.allclose(OVERHEAD(measured(turned)).value, OVERHEAD(measured(seen)).value, atol=1e-6)


def test_gradients_are_exact_and_lead_to_less_violation():
    """Direction and scale are detached on purpose, so the fits are compared with finite differences."""
    seen = tracks(along(np.arange(14) + 0.04 * np.arange(14) ** 2, 0.0), 0.02)
    heading = line(seen)[0]

    def fits(p):
        way = torch.einsum("btni,bni->btn", p, heading)
        return fit_runs(way[..., None], seen.sigma, runs_between(~seen.visible), 3).derivatives

    position = seen.positions.requires_grad_()
    assert torch.autograd.gradcheck(fits, position)
    assert_gradient_leads_down(LAW, seen)


def test_clips_without_objects_are_not_judged():
    assert_clips_without_objects_are_not_judged(LAW)
