"""Intervals, tests and power against scipy, tables and closed forms, and their error rates in simulations."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from runner.comparing.statistics import (
    correlation,
    detectable_difference,
    expected_lead_of_best,
    holm_adjusted,
    is_equivalent,
    moments,
    paired_interval,
    pairs_needed,
    power,
    sample_sd,
    sign_flip_p,
    welch_interval,
)

FIRST = [0.91, 0.93, 0.90, 0.95, 0.92]
SECOND = [0.90, 0.91, 0.90, 0.92, 0.93]


def close(value):
    return pytest.approx(value, rel=1e-9)


def test_paired_differences_have_the_interval_and_p_of_the_t_test():
    found = paired_interval([a - b for a, b in zip(FIRST, SECOND, strict=True)])
    known = stats.ttest_rel(FIRST, SECOND)
    low, high = known.confidence_interval(0.95)
    assert (found.mean, found.low, found.high, found.p) == close(
        (np.subtract(FIRST, SECOND).mean(), low, high, known.pvalue)
    )


def test_three_pairs_take_4_303_standard_errors_by_the_table():
    found = paired_interval([1.0, 2.0, 3.0])
    assert found.mean == 2
    assert found.high - 2 == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)


@pytest.mark.parametrize("second", [SECOND, SECOND[:3]])
def test_welch_is_scipys(second):
    found, known = welch_interval(moments(FIRST), moments(second)), stats.ttest_ind(FIRST, second, equal_var=False)
    low, high = known.confidence_interval(0.95)
    assert (found.low, found.high, found.p) == close((low, high, known.pvalue))


@pytest.mark.parametrize("differences", [[], [0.1], [0.1, 0.1, 0.1]])
def test_nothing_is_said_without_spread(differences):
    found = paired_interval(differences)
    assert math.isnan(found.p) and math.isnan(found.low) and math.isnan(found.high)
    assert math.isnan(detectable_difference(sample_sd(differences), len(differences)))


def test_welch_of_single_numbers_says_nothing():
    assert (
        math.isnan(welch_interval(moments([1.0]), moments([2.0])).p)
        and welch_interval(moments([1.0]), moments([2.0])).mean == -1
    )
    assert math.isnan(welch_interval(moments([]), moments([2.0, 3.0])).mean)


def test_holm_by_hand():
    """Holm 1979: the smallest of four times 4, the next times 3, ..., never below the one before, never above 1."""
    assert holm_adjusted([0.01, 0.04, 0.03, 0.005]) == close([0.03, 0.06, 0.06, 0.02])
    assert holm_adjusted([0.6, 0.5]) == [1.0, 1.0]
    assert holm_adjusted([0.02]) == [0.02]


def test_a_comparison_that_was_not_made_does_not_count_for_holm():
    found = holm_adjusted([0.01, math.nan, 0.02])
    assert found[0] == close(0.02) and math.isnan(found[1]) and found[2] == close(0.02)


@pytest.mark.parametrize("count", [3, 5, 8])
def test_sign_flips_are_scipys_permutations(count):
    differences = np.random.default_rng(count).normal(0.5, 1, count)
    known = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip_p(list(differences)) == close(known.pvalue)


@pytest.mark.parametrize("unit", [1 / 300, 0.1, 1e-9])
def test_sign_flips_with_many_equal_sums_are_counted_exactly(unit):
    """Accuracies are multiples of one over the number of examples, so most sums occur several times."""
    whole = [5, -3, 2, 2, 0, -1, 4, 1, -2, 3, 3]
    signs = itertools.product((1, -1), repeat=len(whole))
    found = sum(abs(sum(s * d for s, d in zip(each, whole, strict=True))) >= abs(sum(whole)) for each in signs)
    assert sign_flip_p([unit * each for each in whole]) == found / 2 ** len(whole)


def test_sign_flips_cannot_go_below_two_in_two_to_the_n():
    assert sign_flip_p([1.0, 1.1, 1.2, 1.3, 1.4]) == close(2 / 2**5)
    assert math.isnan(sign_flip_p([])) and math.isnan(sign_flip_p([1.0] * 15))


def test_power_is_how_often_the_test_sees_it():
    random = np.random.default_rng(0)
    for effect, count in ((1.0, 5), (2.0, 4), (0.0, 6)):
        p = stats.ttest_1samp(random.normal(effect, 1, (20000, count)), 0, axis=1).pvalue
        assert power(effect, count) == pytest.approx(np.mean(p < 0.05), abs=0.012)


def test_five_pairs_see_1_68_standard_deviations():
    assert detectable_difference(1.0, 5) == pytest.approx(1.68, abs=0.01)
    assert detectable_difference(0.2, 5) == pytest.approx(0.2 * 1.68, abs=0.003)
    assert detectable_difference(1.0, 1000) == pytest.approx((1.96 + 0.8416) / math.sqrt(1000), rel=0.01)
    assert detectable_difference(1.0, 2) > detectable_difference(1.0, 3) > 3


def test_pairs_needed_is_where_the_detectable_difference_falls_below():
    found = pairs_needed(0.5, 1.0)
    assert detectable_difference(1.0, found) <= 0.5 < detectable_difference(1.0, found - 1)
    assert pairs_needed(1e-6, 1.0) is None and pairs_needed(0.0, 1.0) is None and pairs_needed(1.0, 0.0) is None


def test_equivalence_is_the_90_percent_interval_within_the_margin():
    differences = [0.001, -0.001, 0.002, 0.0, -0.002]
    half = stats.t.ppf(0.95, 4) * np.std(differences, ddof=1) / math.sqrt(5)
    assert is_equivalent(differences, half * 1.001) and not is_equivalent(differences, half * 0.999)
    assert not is_equivalent([0.0, 0.0, 0.0], 1.0) and not is_equivalent([], 1.0)


def test_correlation_is_numpys():
    assert correlation(FIRST, SECOND) == close(np.corrcoef(FIRST, SECOND)[0, 1])
    assert math.isnan(correlation([1.0, 2.0], [1.0, 2.0])) and math.isnan(correlation([1.0] * 3, FIRST[:3]))


@pytest.mark.parametrize(("count", "known"), [(2, 1 / math.sqrt(math.pi)), (3, 1.5 / math.sqrt(math.pi)), (1, 0.0)])
def test_the_best_of_equals_leads_by_the_known_order_statistics(count, known):
    assert expected_lead_of_best(count) == pytest.approx(known, rel=1e-6, abs=1e-12)


def simulated(effects, pairs, times, seed):
    """Return p of paired tests for arms with true effects, seeds shared with the baseline: (times, arms)."""
    random = np.random.default_rng(seed)
    shared = random.normal(0, 2, (times, 1, pairs))
    base = shared + random.normal(0, 1, (times, 1, pairs))
    arms = shared + random.normal(0, 1, (times, len(effects), pairs)) + np.array(effects)[None, :, None]
    return [[paired_interval(list(differences)) for differences in trial] for trial in arms - base]


def test_intervals_cover_the_truth_in_95_of_100():
    for pairs in (3, 5):
        found = [trial[0] for trial in simulated([0.7], pairs, 2000, seed=pairs)]
        assert np.mean([each.low <= 0.7 <= each.high for each in found]) == pytest.approx(0.95, abs=0.015)


def test_holm_keeps_false_alarms_of_a_whole_table_at_5_percent():
    """Arms that all share one baseline are correlated; Holm holds for that too. Raw p are wrong far more often."""
    trials = simulated([0.0] * 6, 5, 1500, seed=1)
    adjusted = np.mean([min(holm_adjusted([each.p for each in trial])) < 0.05 for trial in trials])
    raw = np.mean([min(each.p for each in trial) < 0.05 for trial in trials])
    assert adjusted <= 0.05 + 0.015
    assert raw > 0.12


def test_holm_keeps_them_where_some_differences_are_real():
    trials = simulated([0.0, 0.0, 0.0, 6.0], 5, 1500, seed=2)
    found = [holm_adjusted([each.p for each in trial]) for trial in trials]
    assert np.mean([min(each[:3]) < 0.05 for each in found]) <= 0.05 + 0.015
    assert np.mean([each[3] < 0.05 for each in found]) > 0.8


def test_all_sign_patterns_are_tried_once():
    differences = [1.0, 2.0, 4.0]
    sums = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in itertools.product((1, -1), repeat=3)
    ]
    assert sign_flip_p(differences) == sum(total >= 7 for total in sums) / 8 == 0.25
