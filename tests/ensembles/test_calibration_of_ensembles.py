"""Temperature scaling, halves and greedy selection: inverse problems, scipy, scikit-learn, and plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize, special

from runner.ensembles.calibration import (
    disjoint_halves,
    fit_temperature,
    predicted_classes,
    prediction_scores,
    with_temperature,
)
from runner.ensembles.selection import greedy, uniform
from runner.ensembles.statistics import combine
from runner.errors import ConfigError

HOW = ("probabilities", "logits")


def calibrated(examples=4000, classes=6, seed=0):
    """Return logits whose softmax is the distribution of the labels, and the labels."""
    draw = np.random.default_rng(seed)
    logits = 2 * draw.normal(size=(examples, classes))
    cumulated = special.softmax(logits, axis=1).cumsum(1)
    return logits, (draw.random((examples, 1)) > cumulated).sum(1)


def nll(logits, labels, temperature):
    log_p = special.log_softmax(logits / temperature, axis=1)
    return -log_p[np.arange(len(labels)), labels].mean()


@pytest.mark.parametrize("factor", [0.2, 0.9, 1, 3, 40])
def test_logits_multiplied_by_a_temperature_give_it_back(factor):
    logits, labels = calibrated()
    own = fit_temperature(logits, labels)
    assert own == pytest.approx(1, abs=0.05)
    assert fit_temperature(factor * logits, labels) == pytest.approx(factor * own, rel=1e-9)
    assert fit_temperature(special.log_softmax(factor * logits, axis=1), labels) == pytest.approx(factor * own)


@pytest.mark.parametrize("seed", range(3))
def test_the_temperature_is_the_minimum_that_scipy_finds(seed):
    logits, labels = calibrated(200, seed=seed)
    logits = logits * (seed + 1) + np.random.default_rng(seed).normal(size=logits.shape)
    oracle = optimize.minimize_scalar(lambda at: nll(logits, labels, math.exp(at)), (-2, 2), tol=1e-10)
    assert fit_temperature(logits, labels) == pytest.approx(math.exp(oracle.x), rel=1e-5)


def test_probabilities_at_a_temperature_are_those_of_the_divided_logits():
    logits, _ = calibrated(50)
    log_p = special.log_softmax(logits, axis=1)
    np.testing.assert_allclose(with_temperature(log_p, 2.5), special.log_softmax(logits / 2.5, axis=1), atol=1e-12)
    assert with_temperature(log_p, 1.0) is log_p


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        (np.zeros((0, 3)), []),
        ([[1.0, 0.0]], [0]),  # every label has the largest logit: smaller is better without end
        ([[1.0, 0.0], [0.0, 0.0]], [0, 0]),
        ([[0.0, 1.0], [0.0, 1.0]], [0, 0]),  # worse than chance: larger is better without end
        ([[0.0, 0.0], [0.0, 0.0]], [0, 1]),
        ([[0.0], [0.0]], [0, 0]),
        ([[math.nan, 0.0], [-math.inf, 0.0]], [0, 0]),
    ],
)
def test_without_a_best_temperature_it_is_one(logits, labels):
    assert fit_temperature(np.array(logits), np.array(labels, int)) == 1.0


def test_impossible_labels_and_nan_do_not_count():
    logits, labels = calibrated(500)
    expected = fit_temperature(logits[2:], labels[2:])
    logits[0, labels[0]], logits[1] = -math.inf, math.nan
    assert fit_temperature(logits, labels) == expected
    # An impossible class that is not the label changes nothing
    wide = np.concatenate([logits, np.full((500, 1), -math.inf)], 1)
    assert fit_temperature(wide, labels) == pytest.approx(expected, rel=1e-12)


def test_scores_after_the_fit_are_not_worse_in_likelihood():
    logits, labels = calibrated()
    log_p = special.log_softmax(3 * logits, axis=1)
    before = prediction_scores(log_p, labels)
    after = prediction_scores(with_temperature(log_p, fit_temperature(log_p, labels)), labels)
    assert after.nll < before.nll and after.ece < before.ece and after.brier < before.brier
    assert after.accuracy == before.accuracy


def test_no_examples_have_no_scores():
    found = prediction_scores(np.zeros((0, 4)), np.zeros(0, int))
    assert all(math.isnan(value) for value in (found.accuracy, found.nll, found.ece, found.brier, found.aurc))


def test_ties_go_to_the_first_class_and_nan_to_none():
    assert predicted_classes(np.array([[1.0, 1.0], [math.nan, 2.0], [-math.inf, -math.inf]])).tolist() == [0, -1, 0]


@pytest.mark.parametrize("counts", [[1], [2], [3, 1], [1, 1, 1, 1], [10, 7, 0, 5], [1000, 3]])
def test_halves_are_disjoint_and_stratified(counts):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    first, second = disjoint_halves(labels, 0)
    assert sorted([*first, *second]) == list(range(len(labels)))
    assert 0 <= len(first) - len(second) <= 1
    for k in range(len(counts)):
        assert abs((labels[first] == k).sum() - (labels[second] == k).sum()) <= 1
    assert list(first) == sorted(first) and list(second) == sorted(second)


def test_halves_depend_on_the_seed():
    labels = np.arange(100) % 3
    first, again, other = (disjoint_halves(labels, seed)[0].tolist() for seed in (0, 0, 1))
    assert first == again != other


def members(seed=0, count=6, examples=400, classes=4):
    draw = np.random.default_rng(seed)
    labels = draw.integers(classes, size=examples)
    skill = np.linspace(0, 2, count)[:, None, None]
    logits = 1.5 * draw.normal(size=(count, examples, classes)) + skill * np.eye(classes)[labels]
    return special.log_softmax(logits, axis=-1), labels


def score_of(counts, log_p, labels, how, criterion):
    found = combine(log_p, counts / counts.sum(), how)
    accuracy, likelihood = (found.argmax(1) == labels).mean(), found[np.arange(len(labels)), labels].mean()
    return (accuracy, likelihood) if criterion == "accuracy" else (likelihood, accuracy)


def greedy_by_loops(log_p, labels, how, criterion, rounds=50):
    """Return the weights of Caruana's selection, each candidate combined anew."""
    counts, path = np.zeros(len(log_p)), []
    for _ in range(rounds):
        one = np.eye(len(log_p))
        best = max(range(len(log_p)), key=lambda m: score_of(counts + one[m], log_p, labels, how, criterion))
        counts = counts + one[best]
        path.append((score_of(counts, log_p, labels, how, criterion), counts))
    found = max(path, key=lambda each: each[0])[1]
    return found / found.sum()


@pytest.mark.parametrize("criterion", ["accuracy", "nll"])
@pytest.mark.parametrize("how", HOW)
def test_greedy_selection_is_that_of_plain_loops(how, criterion):
    log_p, labels = members(examples=60)
    found = greedy(log_p, labels, how, criterion)
    np.testing.assert_allclose(found, greedy_by_loops(log_p, labels, how, criterion), atol=1e-12)
    assert found.sum() == pytest.approx(1) and len(set(found[found > 0])) > 1


@pytest.mark.parametrize("criterion", ["accuracy", "nll"])
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("seed", range(3))
def test_greedy_selection_is_never_below_the_best_member(how, criterion, seed):
    log_p, labels = members(seed)
    single = max(score_of(each, log_p, labels, how, criterion) for each in np.eye(len(log_p)))
    assert score_of(greedy(log_p, labels, how, criterion), log_p, labels, how, criterion) >= single


@pytest.mark.parametrize("how", HOW)
def test_of_copies_greedy_selection_takes_the_first(how):
    log_p, labels = members(count=1)
    for criterion in ("accuracy", "nll"):
        assert greedy(log_p.repeat(5, 0), labels, how, criterion).tolist() == [1, 0, 0, 0, 0]
    assert greedy(log_p, labels, how).tolist() == [1]


def test_greedy_selection_leaves_out_members_with_nan():
    log_p, labels = members()
    log_p[-1, 0, 0] = math.nan
    assert greedy(log_p, labels, "probabilities")[-1] == 0
    with pytest.raises(ConfigError, match="members: none"):
        greedy(np.full((2, 3, 2), math.nan), np.zeros(3, int), "probabilities")


@pytest.mark.parametrize("how", HOW)
def test_greedy_selection_prefers_a_member_that_never_excludes_the_label(how):
    impossible = np.array([[-math.inf, 0.0], [-1.0, math.log(1 - math.exp(-1))]])
    log_p = np.stack([impossible, np.log(np.full((2, 2), 0.5))])
    assert greedy(log_p, np.zeros(2, int), how, "nll").tolist() == [0, 1]


def test_greedy_selection_of_no_examples_takes_the_first():
    assert greedy(np.zeros((3, 0, 2)), np.zeros(0, int), "probabilities").tolist() == [1, 0, 0]


def test_uniform_weights():
    assert uniform(4).tolist() == [0.25] * 4
