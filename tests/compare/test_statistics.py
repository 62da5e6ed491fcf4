"""Intervals, tests, correction and power: against scipy, published tables, and simulated studies of known truth."""

import math
import random
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from moslora.compare.statistics import compare_pairs, holm, mean_interval, power, seeds_needed

STUDIES = 3000
ARMS = 4
SEEDS = 5


def _seeds(values):
    return dict(enumerate(values))


def _four_sigma(share: float) -> float:
    """Four standard deviations of a share estimated from STUDIES."""
    return 4 * math.sqrt(share * (1 - share) / STUDIES)


@pytest.mark.parametrize("count", [2, 3, 7, 40])
def test_interval_and_p_value_are_those_of_scipy(count):
    draw = np.random.default_rng(count)
    ours, theirs = draw.normal(0.71, 0.01, count), draw.normal(0.7, 0.01, count)
    found = compare_pairs(_seeds(ours), _seeds(theirs))
    expected = stats.ttest_rel(ours, theirs)
    assert found.difference == pytest.approx((ours - theirs).mean())
    assert found.p == pytest.approx(expected.pvalue)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert found.pairs == count
    mean, interval = mean_interval(list(ours))
    assert mean == pytest.approx(ours.mean())
    assert interval == pytest.approx(stats.t.interval(0.95, count - 1, ours.mean(), stats.sem(ours)))


def test_a_case_by_hand():
    # differences 1, 2, 3: mean 2, deviation 1, t = 2 sqrt 3 = 3.464, t(0.975, 2) = 4.303
    found = compare_pairs({0: 2, 1: 4, 2: 6}, {0: 1, 1: 2, 2: 3})
    assert found.difference == pytest.approx(2)
    assert found.interval == pytest.approx((2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3)))
    assert found.p == pytest.approx(0.0741799)


def test_one_seed_has_neither_interval_nor_p():
    assert mean_interval([0.4]) == (0.4, None)
    found = compare_pairs({3: 0.5}, {3: 0.4})
    assert found.difference == pytest.approx(0.1)
    assert (found.interval, found.p, found.seeds_needed, found.pairs) == (None, None, None, 1)


def test_only_seeds_that_both_arms_have_are_pairs():
    ours = {0: 0.5, 1: 0.6, 2: 0.7, 9: 0.0}
    theirs = {1: 0.5, 2: 0.65, 0: 0.49, 7: 1.0}
    assert compare_pairs(ours, theirs) == compare_pairs({0: 0.5, 1: 0.6, 2: 0.7}, {0: 0.49, 1: 0.5, 2: 0.65})
    assert compare_pairs({0: 0.5}, {1: 0.5}) is None


def test_equal_arms_have_no_difference_and_constant_differences_no_p():
    same = {0: 0.1 + 0.2, 1: 0.5}
    found = compare_pairs(same, {0: 0.3, 1: 0.5})  # 0.1 + 0.2 is not 0.3
    assert found.p == 1.0
    assert found.seeds_needed is None
    found = compare_pairs({0: 0.31, 1: 0.61}, {0: 0.30, 1: 0.60})
    assert found.difference == pytest.approx(0.01)
    assert found.p is None


def test_holm_follows_its_definition():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, None, 0.8]) == [1.0, None, 1.0]
    assert holm([0.02, 0.02]) == [0.04, 0.04]
    assert holm([]) == []


# G*Power 3.1, "Means: difference between two dependent means", two-sided, 5 %, 80 %.
@pytest.mark.parametrize(("effect", "expected"), [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10)])
def test_seeds_needed_agree_with_published_values(effect, expected):
    assert seeds_needed(effect, 1.0) == expected
    assert seeds_needed(-0.01 * effect, 0.01) == expected


def test_seeds_needed_at_the_ends():
    assert seeds_needed(0.0, 0.1) is None
    assert seeds_needed(0.1, 0.0) is None
    assert seeds_needed(1.0, 1e-3) == 2
    assert power(30.0, 2) > 0.8
    small, large = seeds_needed(0.063, 1.0), seeds_needed(0.0626, 1.0)  # exact up to 2000, the normal formula above
    assert 1970 < small <= 2002 < large + 5
    assert seeds_needed(1e-6, 1.0) == pytest.approx(7.848879e12, rel=1e-5)


def test_power_is_the_share_of_simulated_studies_that_find_the_effect():
    draws = np.random.default_rng(1).normal(1.0, 1.0, (STUDIES, 8))
    found = (stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05).mean()
    assert power(1.0, 8) == pytest.approx(found, abs=_four_sigma(found))


def _studies(effect: float):
    """Simulated arms against a baseline: seeds have an effect in common, so that pairs are correlated."""
    draw = np.random.default_rng(7)
    for _ in range(STUDIES):
        shared = draw.normal(0.7, 0.02, SEEDS)
        baseline = _seeds(shared + draw.normal(0, 0.008, SEEDS))
        arms = [_seeds(shared + effect + draw.normal(0, 0.008, SEEDS)) for _ in range(ARMS)]
        yield [compare_pairs(arm, baseline) for arm in arms]


def test_intervals_hold_the_truth_in_95_percent_of_simulated_studies():
    effect = 0.004
    inside = [low <= effect <= high for first, *_ in _studies(effect) for low, high in [first.interval]]
    assert np.mean(inside) == pytest.approx(0.95, abs=_four_sigma(0.95))


def test_without_an_effect_5_percent_of_studies_are_false_alarms_and_after_holm_no_more_over_all_arms():
    single, family = [], []
    for compared in _studies(0.0):
        values = [each.p for each in compared]
        single.append(values[0] < 0.05)
        family.append(min(holm(values)) < 0.05)
    assert np.mean(single) == pytest.approx(0.05, abs=_four_sigma(0.05))
    assert np.mean(family) < 0.05 + _four_sigma(0.05)
    assert np.mean(family) > 0.01  # a test that never rejects would pass the line above


def test_the_order_of_seeds_does_not_matter():
    values = {seed: random.Random(seed).random() for seed in range(6)}
    other = {seed: random.Random(seed + 50).random() for seed in reversed(range(6))}
    assert compare_pairs(values, other) == compare_pairs(dict(reversed(values.items())), other)


def test_statistics_need_no_torch():
    code = "import sys; import moslora.compare.results; print({'torch', 'transformers', 'peft'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
