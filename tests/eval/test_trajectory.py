"""Trajectory metrics: golden numbers of the published code, identities, invariances, bad input."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from visviva.errors import InputError
from visviva.eval.trajectory import aligned, centroids, chamfer, iou, l2_euclid, l2_pisa


def squares(corner, frames=8, size=64, side=12):
    masks = torch.zeros(frames, size, size, dtype=torch.bool)
    for t in range(frames):
        x, y = corner(t)
        masks[t, y : y + side, x : x + side] = True
    return masks


TRUE = squares(lambda t: (10 + 2 * t, 6 + t * t // 2))
PREDICTED = squares(lambda t: (11 + 2 * t, 6 + 4 * t))


@pytest.mark.parity
@pytest.mark.parametrize(
    ("metric", "golden"),
    [(l2_pisa, 0.035907766), (chamfer, 0.040278435), (iou, 0.357716506), (l2_euclid, 0.062974639)],
    ids=["l2_pisa", "chamfer", "iou", "l2_euclid"],
)
def test_golden_numbers_of_the_pisa_code(metric, golden):
    assert float(metric(PREDICTED, TRUE).mean()) == pytest.approx(golden, abs=5e-10)


def test_a_clip_against_itself():
    assert float(l2_pisa(TRUE, TRUE).max()) == 0
    assert float(l2_euclid(TRUE, TRUE).max()) == 0
    assert float(chamfer(TRUE, TRUE).max()) == 0
    assert float(iou(TRUE, TRUE).min()) == 1


def test_the_pisa_l2_is_not_euclidean():
    shifted = squares(lambda t: (13 + 2 * t, 10 + t * t // 2))  # by (3, 4) px
    assert l2_euclid(shifted, TRUE).tolist() == pytest.approx([5 / (math.sqrt(2) * 64)] * 8)
    assert l2_pisa(shifted, TRUE).tolist() == pytest.approx([3.5 / (math.sqrt(2) * 64)] * 8)


def test_chamfer_is_the_sum_of_both_directions_over_all_pixels():
    a, b = torch.zeros(1, 16, 16, dtype=torch.bool), torch.zeros(1, 16, 16, dtype=torch.bool)
    a[0, 2, 2], b[0, 2, 5], b[0, 2, 6] = True, True, True
    assert float(chamfer(a, b)) == pytest.approx((3 + (3 + 4) / 2) / (math.sqrt(2) * 16))


def test_an_empty_mask_has_no_distance_and_two_empty_masks_agree():
    empty = torch.zeros(1, 8, 8, dtype=torch.bool)
    full = torch.ones(1, 8, 8, dtype=torch.bool)
    assert bool(centroids(empty).isnan().all())
    for metric in (chamfer, l2_euclid, l2_pisa):
        assert bool(metric(empty, full).isnan())
        assert bool(metric(full, empty).isnan())
    assert float(iou(empty, empty)) == 1
    assert float(iou(empty, full)) == 0


@settings(max_examples=25, deadline=None)
@given(dx=st.integers(-8, 8), dy=st.integers(-4, 8), factor=st.integers(1, 3))
def test_translation_and_scale_change_nothing(dx, dy, factor):
    true, predicted = (torch.roll(m, (dy, dx), (1, 2)) for m in (TRUE[:4], PREDICTED[:4]))
    true, predicted = (m.repeat_interleave(factor, 1).repeat_interleave(factor, 2) for m in (true, predicted))
    for metric in (l2_pisa, l2_euclid, iou):
        assert metric(predicted, true).tolist() == pytest.approx(metric(PREDICTED[:4], TRUE[:4]).tolist(), abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(shift=st.integers(0, 20))
def test_farther_is_never_better(shift):
    near, far = (squares(lambda t, s=s: (8 + s, 20)) for s in (shift, shift + 1))
    origin = squares(lambda t: (8, 20))
    for metric in (l2_pisa, l2_euclid, chamfer):
        assert float(metric(far, origin).mean()) > float(metric(near, origin).mean())
    assert float(iou(far, origin).mean()) <= float(iou(near, origin).mean())


def test_frames_are_paired_by_time():
    assert aligned(5, 8.0, 100, 16.0) == [0, 2, 4, 6, 8]
    assert aligned(5, 16.0, 100, 16.0) == [0, 1, 2, 3, 4]
    assert aligned(10, 8.0, 5, 16.0) == [0, 2, 4]
    assert aligned(4, 24.0, 9, 120.0) == [0, 5]
    with pytest.raises(InputError, match="positive"):
        aligned(3, 0.0, 3, 8.0)


def test_masks_of_different_shape_are_refused_in_one_sentence():
    with pytest.raises(InputError, match=r"\(8, 64, 64\).*\(8, 32, 32\).*resize"):
        l2_euclid(TRUE, TRUE[:, :32, :32])


@given(st.sampled_from([24.0, 30.0, 16.0, 120.0]), st.integers(2, 200))
def test_rates_from_timestamps_in_milliseconds_pair_equal_frames(fps, count):
    measured = (count - 1) / round((count - 1) / fps, 3)
    assert aligned(count, measured, count, fps) == list(range(count))[: len(aligned(count, measured, count, fps))]
    assert len(aligned(count, measured, count, fps)) >= count - 1
    assert aligned(count, fps, count, measured)[: count - 1] == list(range(count - 1))


@pytest.mark.parametrize(
    ("fps", "true_fps"), [(16.0, 120.0), (24.0, 25.0), (24.0, 30.0), (8.0, 30.0), (16.0, 24.0), (30.0, 16.0)]
)
def test_nominal_rates_pair_as_published(fps, true_fps):
    published = [int(k * true_fps / fps + 1e-9) for k in range(60)]
    assert aligned(60, fps, 10_000, true_fps) == published


@pytest.mark.parametrize("rates", [(0.0, 24.0), (24.0, -1.0), (float("nan"), 24.0), (24.0, float("inf"))])
def test_rates_that_are_none_are_refused(rates):
    with pytest.raises(InputError, match="positive and finite"):
        aligned(4, rates[0], 4, rates[1])
