"""Combined predictions, their gain and its interval, diversity and curve: closed forms, scipy, and enumeration."""

from __future__ import annotations

import itertools
import math
from dataclasses import astuple

import numpy as np
import pytest
import torch
from scipy import special, stats
from sklearn import metrics as reference

from runner.ensembles.gains import RESAMPLES, disagreement, error_correlation, paired_gain
from runner.ensembles.statistics import combine, statistics

HOW = ("probabilities", "logits")


def some(members=4, examples=300, classes=5, seed=0, skill=1.5):
    """Return log-probabilities (M, N, C) of members that are right more often than not, and labels."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(classes, size=examples)
    logits = 2 * draw.normal(size=(members, examples, classes)) + skill * np.eye(classes)[labels]
    return special.log_softmax(logits, axis=-1), labels


def equal(members):
    return np.full(members, 1 / members)


def test_the_mean_probability_is_that_of_scipy():
    log_p, _ = some()
    weights = np.array([0.5, 0.25, 0.25, 0.0])
    expected = special.logsumexp(log_p, axis=0, b=weights[:, None, None])
    np.testing.assert_allclose(combine(log_p, weights, "probabilities"), expected, rtol=1e-13)


def test_the_mean_logit_is_the_softmax_of_mean_logits():
    logits = np.random.default_rng(0).normal(size=(3, 50, 4)) * 5
    weights = np.array([0.2, 0.3, 0.5])
    expected = torch.tensor(np.einsum("m,mnc->nc", weights, logits)).log_softmax(1).numpy()
    found = combine(special.log_softmax(logits, axis=-1), weights, "logits")
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(special.logsumexp(found, axis=1), 0, atol=1e-12)


@pytest.mark.parametrize("how", HOW)
def test_tiny_probabilities_are_not_rounded_to_zero(how):
    log_p = np.array([[[-2000.0, 0.0]], [[-2010.0, 0.0]]])
    found = combine(log_p, equal(2), how)
    expected = {"probabilities": -2000 + math.log((1 + math.exp(-10)) / 2), "logits": -2005}
    assert found[0, 0] == pytest.approx(expected[how], rel=1e-14)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("copies", [1, 2, 3, 7, 11, 49])
def test_copies_of_one_model_are_that_model_bit_for_bit(how, copies):
    log_p, labels = some(1)
    same = log_p.astype(np.float32).astype(np.float64).repeat(copies, 0)
    found = statistics(same, labels, equal(copies), how, best=0, seed=0)
    np.testing.assert_array_equal(combine(same, equal(copies), how), same[0])
    assert found.ensemble == found.mean == found.members[0] == found.members[-1]
    assert {astuple(found.gain_over_mean), astuple(found.gain_over_best)} == {(0.0, 0.0, 0.0)}
    assert all(point.accuracy == found.ensemble.accuracy for point in found.curve)
    assert all(point.lowest == point.highest for point in found.curve)
    if copies > 1:
        assert (found.disagreement, found.error_correlation, found.sd.nll) == (0.0, 1.0, 0.0)


def test_one_member_has_no_pair():
    log_p, labels = some(1)
    found = statistics(log_p, labels, np.ones(1), "probabilities", best=0, seed=0)
    assert math.isnan(found.disagreement) and math.isnan(found.error_correlation) and math.isnan(found.sd.accuracy)
    assert [(point.members, point.subsets, point.has_all) for point in found.curve] == [(1, 1, True)]


def test_the_scores_are_those_of_scikit_learn():
    log_p, labels = some(3)
    found = statistics(log_p, labels, equal(3), "probabilities", best=1, seed=0)
    p = np.exp(log_p).mean(0)
    assert found.ensemble.accuracy == reference.accuracy_score(labels, p.argmax(1))
    assert found.ensemble.nll == pytest.approx(reference.log_loss(labels, p))
    assert found.ensemble.brier == pytest.approx(reference.brier_score_loss(labels, p), rel=1e-6)
    accuracies = [reference.accuracy_score(labels, each.argmax(1)) for each in log_p]
    assert found.mean.accuracy == pytest.approx(np.mean(accuracies))
    assert found.sd.accuracy == pytest.approx(np.std(accuracies, ddof=1))
    assert found.gain_over_mean.value == pytest.approx(found.ensemble.accuracy - np.mean(accuracies))
    assert found.gain_over_best.value == pytest.approx(found.ensemble.accuracy - accuracies[1])


def test_the_interval_of_few_examples_is_that_of_all_resamples():
    differences = np.array([1.0, 0.0, 0.0, -1.0, 1.0])
    means = [np.mean(each) for each in itertools.product(differences, repeat=5)]
    found = paired_gain(differences, 0)
    for q, edge in ((0.025, found.low), (0.975, found.high)):
        # The mean has few values, so that the quantile of the draws is one of them or a neighbor
        assert abs(edge - np.quantile(means, q)) <= 0.2 + 1e-12
        assert np.mean(np.array(means) < edge - 1e-9) <= q + 0.01
        assert np.mean(np.array(means) <= edge + 1e-9) >= q - 0.01


def test_the_interval_is_that_of_scipy():
    differences = np.random.default_rng(1).choice([-1.0, -0.5, 0.0, 0.25, 1.0], size=2000)
    found = paired_gain(differences, 0)
    oracle = stats.bootstrap(
        (differences,), np.mean, method="percentile", n_resamples=RESAMPLES, batch=500, rng=np.random.default_rng(2)
    ).confidence_interval
    width = oracle.high - oracle.low
    assert found.low == pytest.approx(oracle.low, abs=0.05 * width)
    assert found.high == pytest.approx(oracle.high, abs=0.05 * width)
    assert width == pytest.approx(2 * 1.96 * differences.std() / math.sqrt(2000), rel=0.05)


def test_the_interval_contains_the_true_gain_as_often_as_it_says():
    draw, hits = np.random.default_rng(0), 0
    for seed in range(400):
        found = paired_gain(draw.choice([-1.0, 0.0, 1.0], size=200, p=[0.1, 0.7, 0.2]), seed)
        hits += found.low <= 0.1 <= found.high
    # 95 % of 400 is 380; the binomial sd is 4.4
    assert 365 <= hits <= 394


def test_the_interval_depends_on_the_seed_alone():
    differences = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], size=500)
    assert paired_gain(differences, 3) == paired_gain(differences, 3) != paired_gain(differences, 4)
    assert paired_gain(differences, 3) == paired_gain(differences[::-1], 3)


def test_one_example_has_no_interval():
    found = paired_gain(np.array([1.0]), 0)
    assert found.value == 1.0 and math.isnan(found.low) and math.isnan(found.high)
    assert math.isnan(paired_gain(np.zeros(0), 0).value)


def test_disagreement_and_correlation_of_errors_by_hand():
    assert disagreement(np.array([[0, 1, 2, 0], [0, 1, 1, 1], [0, 1, 2, 0]])) == pytest.approx((0.5 + 0 + 0.5) / 3)
    wrong = np.random.default_rng(0).random((3, 200)) < 0.3
    expected = np.corrcoef(wrong.astype(float))[np.triu_indices(3, 1)].mean()
    assert error_correlation(wrong) == pytest.approx(expected)
    # Without an error there is no correlation; the other pair counts
    assert error_correlation(np.array([[0, 1, 0], [0, 1, 0], [0, 0, 0]], bool)) == 1.0
    assert math.isnan(error_correlation(np.zeros((2, 5), bool)))


@pytest.mark.parametrize("how", HOW)
def test_the_curve_is_that_of_all_subsets(how):
    log_p, labels = some(4)
    weights = np.array([0.4, 0.3, 0.2, 0.1])
    found = statistics(log_p, labels, weights, how, best=0, seed=0)
    for point in found.curve:
        subsets = [list(each) for each in itertools.combinations(range(4), point.members)]
        combined = [combine(log_p[each], weights[each], how) for each in subsets]
        accuracies = [float((each.argmax(1) == labels).mean()) for each in combined]
        nll = [-each[np.arange(300), labels].mean() for each in combined]
        assert (point.subsets, point.has_all) == (len(subsets), True)
        assert (point.lowest, point.highest) == (min(accuracies), max(accuracies))
        assert (point.accuracy, point.nll) == (pytest.approx(np.mean(accuracies)), pytest.approx(np.mean(nll)))
        if point.subsets > 1:
            assert point.sd == pytest.approx(np.std(accuracies, ddof=1))
    last = found.curve[-1]
    assert (last.accuracy, last.nll) == (found.ensemble.accuracy, pytest.approx(found.ensemble.nll, rel=1e-14))


def test_of_many_members_subsets_are_sampled_and_each_member_is_a_point():
    log_p, labels = some(20, 50)
    found = statistics(log_p, labels, equal(20), "probabilities", best=0, seed=0).curve
    assert [point.members for point in found] == list(range(1, 21))
    assert found[0].has_all and found[0].subsets == 20 and found[-1].has_all and found[-1].subsets == 1
    assert {(point.subsets, point.has_all) for point in found[2:-3]} == {(64, False)}
    again = statistics(log_p, labels, equal(20), "probabilities", best=0, seed=0).curve
    assert found[:-1] == again[:-1]


def test_a_member_without_weight_is_no_member_but_may_be_the_best():
    log_p, labels = some(3)
    found = statistics(log_p, labels, np.array([0.5, 0.5, 0]), "probabilities", best=2, seed=0)
    two = statistics(log_p[:2], labels, equal(2), "probabilities", best=0, seed=0)
    assert (found.ensemble, found.mean, found.curve[-1].members) == (two.ensemble, two.mean, 2)
    assert found.gain_over_best.value == pytest.approx(found.ensemble.accuracy - found.members[2].accuracy)


@pytest.mark.parametrize("how", HOW)
def test_a_nan_is_a_wrong_prediction_and_infinity_a_likelihood_of_zero(how):
    log_p, labels = some(2, 10)
    with_nan = log_p.copy()
    with_nan[0, 0] = math.nan
    found = statistics(with_nan, labels, equal(2), how, best=0, seed=0)
    rest = (combine(log_p, equal(2), how)[1:].argmax(1) == labels[1:]).sum() / 10
    assert found.ensemble.accuracy == pytest.approx(rest) and math.isnan(found.ensemble.nll)
    sure = log_p.copy()
    sure[:, 0] = np.where(np.arange(5) == (labels[0] + 1) % 5, 0.0, -math.inf)
    found = statistics(sure, labels, equal(2), how, best=0, seed=0)
    assert found.ensemble.nll == math.inf and math.isfinite(found.ensemble.brier)
    assert math.isnan(found.sd.nll)


def test_members_that_exclude_every_class_leave_equal_probabilities():
    log_p = np.array([[[0.0, -math.inf]], [[-math.inf, 0.0]]])
    np.testing.assert_allclose(combine(log_p, equal(2), "logits"), math.log(0.5))
    np.testing.assert_allclose(combine(log_p, equal(2), "probabilities"), math.log(0.5))


@pytest.mark.parametrize("how", HOW)
def test_one_class_and_one_example(how):
    found = statistics(np.zeros((2, 3, 1)), np.zeros(3, int), equal(2), how, best=0, seed=0)
    assert found.ensemble.accuracy == 1.0 and found.ensemble.nll == 0.0
    single = statistics(*(lambda log_p, labels: (log_p[:, :1], labels[:1]))(*some(2)), equal(2), how, best=0, seed=0)
    assert single.examples == 1 and math.isnan(single.gain_over_mean.low)


@pytest.mark.parametrize("how", HOW)
def test_the_curve_ends_at_the_ensemble_also_where_members_exclude_classes(how):
    log_p, labels = some(3, 40)
    for member, row in ((0, 3), (1, 3), (2, 5)):
        log_p[member, row] = np.where(np.arange(5) == member, 0.0, -math.inf)
    labels[3], labels[5] = 1, 2
    found = statistics(log_p, labels, equal(3), how, best=0, seed=0)
    assert found.curve[-1].accuracy == found.ensemble.accuracy
    assert found.curve[-1].nll == pytest.approx(found.ensemble.nll, rel=1e-12)
    assert math.isfinite(found.ensemble.nll) and found.curve[0].nll == math.inf
