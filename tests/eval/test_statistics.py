"""Bootstrap statistics: coverage on simulated data, clusters, seeds, pairing, bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest

from visviva.errors import InputError
from visviva.eval.statistics import average_relative_improvement, bootstrap_mean, paired_bootstrap


def coverage(draw, truth, trials=300):
    """Share of simulated data sets whose interval contains the truth."""
    hits = 0
    for trial in range(trials):
        interval = draw(np.random.default_rng(trial))
        hits += interval.low <= truth <= interval.high
    return hits / trials


@pytest.mark.parametrize("scenes", [5, 12, 60])
def test_the_interval_of_a_clustered_mean_contains_the_truth_about_19_times_in_20(scenes):
    def draw(random):
        scene = np.repeat(np.arange(scenes), 3)
        values = 2 + random.normal(size=scenes)[scene] + 0.5 * random.normal(size=3 * scenes)
        return bootstrap_mean(values, scene, resamples=400)

    assert 0.91 <= coverage(draw, 2.0) <= 0.985


def test_ignoring_the_clusters_would_promise_too_much():
    random = np.random.default_rng(0)
    scene = np.repeat(np.arange(20), 10)
    values = random.normal(size=20)[scene] + 0.1 * random.normal(size=200)
    clustered, naive = bootstrap_mean(values, scene), bootstrap_mean(values)
    assert clustered.high - clustered.low > 2 * (naive.high - naive.low)
    assert (clustered.clusters, naive.clusters, clustered.n) == (20, 200, 200)


def test_pairing_sees_what_separate_intervals_hide():
    random = np.random.default_rng(0)
    before = 5 + random.normal(size=80)
    after = before - 0.1 + 0.05 * random.normal(size=80)
    found = paired_bootstrap(before, after)
    assert found.difference.significant
    assert found.verdict == "better"
    assert found.before.low < found.after.value < found.before.high
    assert found.improvement.value == pytest.approx(1 - after.mean() / before.mean())
    assert paired_bootstrap(before, after, lower_is_better=False).verdict == "worse"


def test_no_effect_is_called_not_significant_about_19_times_in_20():
    calls = 0
    for trial in range(300):
        random = np.random.default_rng(trial)
        before, after = random.normal(10, 1, 40), random.normal(10, 1, 40)
        calls += paired_bootstrap(before, after, resamples=300).verdict == "no significant difference"
    assert 0.91 <= calls / 300 <= 0.985


def test_seeds_that_disagree_widen_the_interval_to_their_coverage():
    seeds, scenes, effect = 3, 40, 0.2

    def draw(random):
        shift = effect + 0.3 * random.normal(size=(seeds, 1)) + 0.5 * random.normal(size=(seeds, scenes))
        before = np.zeros((seeds, scenes)) + 5 + random.normal(size=scenes)
        labels = [list(np.tile(np.arange(scenes), seeds)), list(np.repeat(np.arange(seeds), scenes))]
        return paired_bootstrap(before.ravel(), (before + shift).ravel(), *labels, resamples=300).difference

    assert 0.90 <= coverage(draw, effect, 250) <= 0.99


def test_average_relative_improvement_is_the_mean_over_metrics_with_the_right_signs():
    before = {"error": np.full(12, 2.0), "iou": np.full(12, 0.5)}
    after = {"error": np.full(12, 1.5), "iou": np.full(12, 0.6)}
    found = average_relative_improvement(before, after, {"error": True, "iou": False})
    assert found.value == pytest.approx((0.25 + 0.2) / 2)
    assert found.low == pytest.approx(found.high)


def test_the_same_seed_gives_the_same_interval_and_another_seed_a_close_one():
    values = np.random.default_rng(3).normal(size=50)
    first, again, other = (bootstrap_mean(values, seed=s) for s in (0, 0, 1))
    assert first == again
    assert first.low != other.low
    assert first.low == pytest.approx(other.low, abs=0.05)


def test_one_scene_gives_no_interval_and_nothing_significant():
    found = bootstrap_mean([1.0, 2.0], ["a", "a"])
    assert found.value == 1.5
    assert math.isnan(found.low)
    assert not found.significant


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: bootstrap_mean([]), "no sample"),
        (lambda: bootstrap_mean([1.0, math.nan]), "1 of 2 samples are not finite"),
        (lambda: bootstrap_mean([1.0, 2.0], ["a"]), "1 labels for 2 samples"),
        (lambda: paired_bootstrap([1.0], [1.0, 2.0]), "equally many"),
        (lambda: average_relative_improvement({"a": [1.0]}, {"b": [1.0]}, {"a": True}), "the same metrics"),
    ],
)
def test_bad_input_gets_one_sentence(call, words):
    with pytest.raises(InputError, match=words):
        call()


def test_a_relative_change_from_zero_has_no_interval_but_the_difference_has():
    found = paired_bootstrap(np.zeros(12), np.linspace(0.1, 0.2, 12))
    assert math.isnan(found.improvement.low)
    assert not found.improvement.significant
    assert found.difference.significant
    assert found.verdict == "worse"


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_values_that_are_all_alike_have_an_interval_without_width(value):
    interval = bootstrap_mean([value] * 4, ["a", "b", "c", "c"], resamples=50)
    assert (interval.low, interval.value, interval.high) == (value, value, value)  # was 0 +- 1e-149
    assert interval.significant == (value > 0)
