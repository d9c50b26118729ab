"""Trajectory offset: distance from the reference's path, more near its contacts; nothing is won by standing still or hiding."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_paths import bouncing, stacked, tracks

from visviva.errors import InputError
from visviva.physics.laws.trajectory_offset import TrajectoryOffset
from visviva.physics.measurement import Measurement
from visviva.physics.tracks import Tracks

LAW = TrajectoryOffset()
PATH, HITS = bouncing(50, least=6)
FRAMES = len(PATH)


def measured(seen, true, **more):
    fps = torch.full((seen.positions.shape[0],), 30.0)
    return Measurement(fps=fps, tracks=seen, reference=Measurement(fps=fps, tracks=true, **more))


TRUE = tracks(PATH, 0.05)
NEVER = torch.zeros(1, FRAMES, dtype=torch.bool)


def test_the_reference_itself_has_no_offset_and_a_still_clip_has_one():
    still = TRUE.with_(positions=TRUE.positions[:, :1].expand_as(TRUE.positions))
    assert float(LAW(measured(TRUE, TRUE)).value) == 0
    assert float(LAW(measured(still, TRUE)).value) == pytest.approx(1.0, abs=0.01)
    again = stacked([tracks(PATH, 0.3, seed=k) for k in range(8)])
    assert float(LAW(measured(again, stacked([tracks(PATH, 0.3, seed=50 + k) for k in range(8)]))).value.max()) < 0.01


def test_a_constant_offset_is_its_length_over_the_mean_way():
    moved = TRUE.with_(positions=TRUE.positions + torch.tensor([3.0, 4.0]), sigma=TRUE.sigma * 1e-3)
    exact = TRUE.with_(sigma=TRUE.sigma * 1e-3)
    way = (TRUE.positions - TRUE.positions[:, :1]).norm(dim=-1).mean()
    plain = TrajectoryOffset(weights=(1.0, 1.0, 1.0))
    assert float(plain(measured(moved, exact, contact=NEVER)).value) == pytest.approx(5 / float(way), rel=1e-3)


def test_frames_at_contacts_weigh_three_times_as_much():
    at = int(HITS[0])
    touch = NEVER.clone()
    touch[0, at] = True
    values = []
    for frame in (at - 6, at - 1, at):
        off = TRUE.positions.clone()
        off[0, frame] += 20
        values.append(float(LAW(measured(TRUE.with_(positions=off), TRUE, contact=touch)).value))
    assert values[1] / values[0] == pytest.approx(2.0, rel=1e-3)
    assert values[2] / values[0] == pytest.approx(3.0, rel=1e-3)


def test_nothing_is_won_by_hiding():
    for share in (slice(0, None), slice(FRAMES // 2, None)):
        visible = TRUE.visible.clone()
        visible[:, share] = False
        hidden = LAW(measured(TRUE.with_(visible=visible), TRUE))
        assert bool(hidden.valid)
        assert float(hidden.value) > 0.4
    noise = tracks(20 * np.random.default_rng(0).standard_normal((FRAMES, 2)), 0.05)
    assert float(LAW(measured(noise, TRUE)).value) > 0.4
    assert TrajectoryOffset.anchor


def test_saying_to_be_uncertain_is_no_excuse_for_standing_still():
    """The clip's own sigma was taken off without a bound: a frozen clip with a blurred object had offset 0."""
    still = TRUE.positions[:, :1].expand_as(TRUE.positions)
    for sigma in (1.0, 10.0, 1000.0):
        frozen = TRUE.with_(positions=still, sigma=torch.full_like(TRUE.sigma, sigma))
        assert float(LAW(measured(frozen, TRUE)).value) > 0.95
        assert float(LAW(measured(frozen, TRUE)).sigma) > sigma / 1000  # the stated error stays stated
    honest = TRUE.with_(sigma=torch.full_like(TRUE.sigma, 1000.0))
    assert float(LAW(measured(honest, TRUE)).value) == pytest.approx(0, abs=1e-6)


def test_references_that_do_not_move_or_do_not_fit():
    still = TRUE.with_(positions=TRUE.positions[:, :1].expand_as(TRUE.positions))
    assert not bool(LAW(measured(TRUE, still)).valid)
    short = TRUE.with_(positions=TRUE.positions[:, 1:], visible=TRUE.visible[:, 1:], sigma=TRUE.sigma[:, 1:])
    with pytest.raises(InputError, match="do not fit the reference's"):
        LAW(measured(TRUE, short))
    with pytest.raises(InputError, match="reference"):
        LAW(Measurement(fps=torch.ones(1), tracks=TRUE))
    with pytest.raises(InputError, match="weights"):
        TrajectoryOffset(weights=(0.0, 1.0, 1.0))
    both = stacked([TRUE, TRUE])
    both.positions[0, 3] = float("nan")
    assert LAW(measured(both, stacked([TRUE, TRUE]))).valid.tolist() == [False, True]


@settings(max_examples=15, deadline=None)
@given(x=st.floats(-300, 300), zoom=st.floats(0.5, 4), angle=st.floats(0, 6.28), seed=st.integers(0, 99))
def test_the_value_does_not_depend_on_place_direction_and_pixels(x, zoom, angle, seed):
    other = tracks(bouncing(50, height=0.8, least=6)[0][:FRAMES], 0.05, seed=seed)
    frames = other.frames
    true = TRUE.with_(**{key: getattr(TRUE, key)[:, :frames] for key in ("positions", "visible", "sigma")})
    turn = zoom * torch.tensor([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])

    def seen(t):
        return t.with_(positions=t.positions @ turn.T + x, sigma=zoom * t.sigma)

    assert torch.allclose(LAW(measured(seen(other), seen(true))).value, LAW(measured(other, true)).value, atol=1e-4)


def test_the_gradient_is_exact():
    short = {key: getattr(TRUE, key)[:, :8] for key in ("positions", "visible", "sigma")}
    true = TRUE.with_(**short)
    position = (true.positions + torch.tensor([1.0, 2.0])).requires_grad_()

    def value(p):
        return LAW(measured(true.with_(positions=p), true, contact=NEVER[:, :8])).value

    assert torch.autograd.gradcheck(value, position)


def test_clips_without_objects_are_not_judged():
    nothing = Tracks(torch.zeros(2, 24, 0, 2), torch.zeros(2, 24, 0, dtype=torch.bool), torch.zeros(2, 24, 0))
    empty = Measurement(fps=torch.full((2,), 30.0), tracks=nothing)
    residual = LAW(empty.with_(reference=empty))
    assert (residual.value.tolist(), residual.valid.tolist()) == ([0, 0], [False, False])
