"""The plan of samples is a pure function of seed, update and position."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visviva.pipelines.posttrain.plan import Plan, key


def update(plan, number):
    parts = [plan.batch(number, p, m) for m in range(plan.accumulation) for p in range(plan.processes)]
    return sorted((s for part in parts for s in part), key=lambda s: s.position)


@given(seed=st.integers(0, 99), number=st.integers(0, 40), clips=st.integers(1, 30))
def test_partition_does_not_matter(seed, number, clips):
    layouts = [(1, 12, 1), (12, 1, 1), (3, 4, 1), (2, 3, 2), (1, 3, 4)]
    plans = [Plan(seed, clips, b, a, p) for b, a, p in layouts]
    assert {p.effective for p in plans} == {12}
    first, *others = [update(p, number) for p in plans]
    assert [s.position for s in first] == list(range(12))
    assert all(o == first for o in others)


@given(seed=st.integers(0, 99), clips=st.integers(1, 23), batch=st.integers(1, 9))
def test_every_epoch_visits_every_clip_once(seed, clips, batch):
    plan = Plan(seed, clips, batch, 1, 1)
    samples = [s for u in range(3 * clips) for s in update(plan, u)]
    for epoch in range(3):
        assert sorted(s.clip for s in samples[epoch * clips : (epoch + 1) * clips]) == list(range(clips))


def test_noise_is_new_for_every_sample_and_seed():
    seeds = [s.noise for seed in (0, 1) for u in range(50) for s in update(Plan(seed, 7, 4, 2, 1), u)]
    assert max(Counter(seeds).values()) == 1
    assert all(0 <= s < 2**63 for s in seeds)


def test_epochs_are_shuffled_differently():
    plan = Plan(0, 20, 20, 1, 1)
    assert [s.clip for s in update(plan, 0)] != [s.clip for s in update(plan, 1)]


@pytest.mark.parametrize("other", [(0, "noise", 2, 1), (0, "order", 1, 2), (1, "noise", 1, 2), (0, "noise", 12)])
def test_keys_depend_on_every_part(other):
    assert key(0, "noise", 1, 2) != key(*other)
