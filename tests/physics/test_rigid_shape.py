"""Rigid shape: invariances in closed form, drift, borders and neighbours; noise."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from visviva.errors import InputError
from visviva.physics import Measurement
from visviva.physics.laws.rigid_shape import RigidShape, at_another, at_border
from visviva.physics.tracks import Tracks

LAW, STEPS = RigidShape(), 12


def ellipses(long, short, angle, place=None):
    """Tracks of ellipses with half axes (B, T) [px] turned by angle (B, T)."""
    c, s = torch.cos(angle), torch.sin(angle)
    turn = torch.stack([torch.stack([c, -s], -1), torch.stack([s, c], -1)], -2)
    axes = torch.diag_embed(torch.stack([long, short], -1).square() / 4)
    moments = (turn @ axes @ turn.mT)[:, :, None]
    place = torch.full((*long.shape, 1, 2), 32.0, dtype=long.dtype) if place is None else place
    seen = torch.ones(*long.shape, 1, dtype=torch.bool)
    return Tracks(place, seen, torch.full((*long.shape, 1), 0.1), area=(math.pi * long * short)[..., None], moments=moments)


def judged(tracks, side=64):
    clips = tracks.positions.shape[0]
    return LAW(Measurement(fps=torch.full((clips,), 30.0), masks=torch.zeros(clips, STEPS, 1, side, side), tracks=tracks))


def constant(value):
    return torch.full((1, STEPS), value, dtype=torch.float64)


@settings(max_examples=20, deadline=None)
@given(st.floats(3, 12), st.floats(0.3, 1.0), st.floats(-1, 1), st.floats(-3, 3))
def test_rotation_and_place_change_nothing(size, ratio, rate, start):
    angle = start + rate * torch.arange(STEPS, dtype=torch.float64)[None]
    residual = judged(ellipses(constant(size), constant(size * ratio), angle))
    assert float(residual.value) < 1e-12
    assert bool(residual.valid)


def test_a_slow_approach_is_forgiven_and_a_drift_costs_its_excess_squared():
    t = torch.linspace(0, 1, STEPS, dtype=torch.float64)[None]
    slow = judged(ellipses(8 * 1.04**t, 6 * 1.04**t, 0 * t))
    assert float(slow.value) < 1e-20
    fast = judged(ellipses(8 * 1.35**t, 6 * 1.35**t, 0 * t))
    assert float(fast.value) == pytest.approx((2 * math.log(1.35) - 0.1) ** 2, rel=1e-6)
    assert float(judged(ellipses(8 / 1.35**t, 6 / 1.35**t, 0 * t)).value) == pytest.approx(float(fast.value), rel=1e-6)


def test_a_squashed_body_is_seen_at_constant_area():
    squash = torch.exp(0.3 * torch.sin(torch.arange(STEPS, dtype=torch.float64)))[None]
    assert float(judged(ellipses(8 * squash, 6 / squash, constant(0.4))).value) > 0.02


def test_the_border_and_a_neighbour_excuse():
    shrinking = torch.where(torch.arange(STEPS) < 6, 8.0, 4.0)[None].double()
    assert float(judged(ellipses(shrinking, shrinking, constant(0.0))).value) > 0.1
    place = torch.full((1, STEPS, 1, 2), 32.0, dtype=torch.float64)
    place[0, 6:] = 2.0
    tracks = ellipses(shrinking, shrinking, constant(0.0), place)
    assert at_border(tracks, (64, 64))[0, :, 0].tolist() == [False] * 6 + [True] * 6
    assert not bool(at_border(tracks, (None, None)).any())
    assert float(judged(tracks).value) == 0.0
    two = Tracks(
        torch.tensor([[[[20.0, 20.0], [35.0, 20.0]]]]).expand(1, STEPS, 2, 2), torch.ones(1, STEPS, 2, dtype=torch.bool),
        torch.ones(1, STEPS, 2), moments=16 * torch.eye(2).expand(1, STEPS, 2, 2, 2),
    )  # fmt: skip
    assert bool(at_another(two).all())  # radii of 8 px, 15 px apart
    hidden = two.visible.clone()
    hidden[..., 1] = False
    assert not bool(at_another(two.with_(visible=hidden))[..., 0].any())


def test_noise_of_the_edge_stays_near_zero_and_bad_tolerances_are_refused():
    generator = torch.Generator().manual_seed(0)
    noise = 0.3 * (2 * math.pi * 8) ** 0.5 / (math.pi * 64)
    tracks = ellipses(torch.full((200, STEPS), 8.0), torch.full((200, STEPS), 8.0), torch.zeros(200, STEPS))
    noisy = tracks.with_(area=tracks.area * (1 + noise * torch.randn(tracks.area.shape, generator=generator)))
    assert float(judged(noisy).value.mean()) < 0.5 * noise**2
    with pytest.raises(InputError, match="must not be negative"):
        RigidShape(slow=-1)
    with pytest.raises(InputError, match="needs area and moments"):
        LAW(Measurement(fps=torch.ones(1), tracks=Tracks(torch.zeros(1, 5, 1, 2), noisy.visible[:1, :5], torch.ones(1, 5, 1))))
