"""Statistics of curves, against scipy and numbers computed by hand."""

import math

import numpy as np
import pytest
from scipy.stats import kendalltau, norm, theilslopes

from runner.doctor.measures import (
    autocorrelation,
    binomial_se,
    block_means,
    gap_se,
    mann_kendall,
    median_so_far,
    noise_sd,
    running_mean,
    running_median,
    theil_sen,
)


def _random(seed, n, ties=False):
    found = np.random.default_rng(seed).normal(size=n) + 0.03 * np.arange(n)
    return found.round(0) if ties else found


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_the_trend_test_is_kendalls_with_a_continuity_correction(seed, ties):
    values = _random(seed, 20, ties)
    found = kendalltau(np.arange(20), values, method="asymptotic")
    # scipy's z has no correction: with the score S it is S / sd, here (S - 1) / sd
    score = sum(np.sign(b - a) for i, a in enumerate(values) for b in values[i + 1 :])
    z = math.copysign(norm.isf(found.pvalue / 2), score)
    assert mann_kendall(values) == pytest.approx(z * (abs(score) - 1) / abs(score), rel=1e-9)


def test_the_trend_test_of_a_line_is_the_number_computed_by_hand():
    # S = 190, variance 20 * 19 * 45 / 18 = 950
    assert mann_kendall(np.arange(20.0)) == pytest.approx(189 / math.sqrt(950))
    assert mann_kendall(-np.arange(20.0)) == pytest.approx(-189 / math.sqrt(950))


@pytest.mark.parametrize("values", [np.full(20, 1.5), np.zeros(0), np.array([1.0, 2.0])])
def test_no_trend_in_constant_or_too_few_values(values):
    assert mann_kendall(values) == 0.0


@pytest.mark.parametrize("seed", range(5))
def test_the_slope_and_its_interval_are_those_of_scipy(seed):
    values = _random(seed, 20)
    expected = theilslopes(values, np.arange(20), alpha=0.9)
    found = theil_sen(values)
    assert (found.value, found.low, found.high) == pytest.approx((expected[0], expected[2], expected[3]))


def test_the_noise_is_that_of_normal_numbers_around_a_trend():
    random = np.random.default_rng(0)
    values = 0.3 * random.normal(size=20_000) + np.linspace(5, 0, 20_000)
    values[::100] += 50.0
    assert noise_sd(values) == pytest.approx(0.3, rel=0.03)


def test_the_noise_of_four_values_is_the_number_computed_by_hand():
    # Differences 1, 2, 6: median 2, absolute deviations 1, 0, 4: median 1
    assert noise_sd(np.array([0.0, 1, 3, 9])) == pytest.approx(1.4826 / math.sqrt(2))
    assert noise_sd(np.array([1.0, 2.0])) == 0.0


def test_blocks_leave_out_the_first_values():
    assert block_means(np.arange(7.0), 3, 2).tolist() == [1.5, 3.5, 5.5]
    assert block_means(np.arange(199.0)) is None
    assert len(block_means(np.arange(200.0))) == 20


def test_the_autocorrelation_is_that_of_a_wave_and_of_noise():
    wave = np.sin(2 * np.pi * np.arange(400) / 20)
    assert autocorrelation(wave, 20) == pytest.approx(1 - 20 / 400, abs=1e-9)
    assert autocorrelation(wave, 10) == pytest.approx(-(1 - 10 / 400), abs=1e-9)
    assert abs(autocorrelation(np.random.default_rng(0).normal(size=10_000), 20)) < 0.03
    assert autocorrelation(np.full(50, 2.0), 5) == 0.0
    assert autocorrelation(wave, 201) == 0.0


def test_the_running_median_takes_what_is_there_at_the_ends():
    assert running_median(np.array([1.0, 9, 2, 8, 3]), 3).tolist() == [5.0, 2.0, 8.0, 3.0, 5.5]


@pytest.mark.parametrize("count", [0, 1, 2, 51])
def test_the_median_so_far_is_that_of_each_prefix(count):
    values = np.random.default_rng(0).integers(0, 20, count).astype(float)
    assert median_so_far(values).tolist() == [np.median(values[: i + 1]) for i in range(count)]


def test_the_running_mean_takes_what_is_there_at_the_ends():
    assert running_mean(np.array([1.0, 9, 2, 8, 3]), 3).tolist() == pytest.approx([5.0, 4.0, 19 / 3, 13 / 3, 5.5])


def test_standard_errors_are_those_of_shares():
    assert binomial_se(0.95, 10_000) == pytest.approx(0.0021794494717703367)
    assert binomial_se(1.0, 100) == pytest.approx(math.sqrt(0.005 * 0.995 / 100))
    assert binomial_se(0.5, 0) == math.inf
    assert gap_se(0.9, 100, 0.8, 400) == pytest.approx(math.sqrt(0.09 / 100 + 0.16 / 400))
