"""LogME, the H-score and the linear classifier: against brute force, closed forms and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, stats
from sklearn import linear_model, metrics, pipeline, preprocessing

from runner.tasks.linear_probe import PENALTIES, fit_linear_probe
from runner.tasks.transferability import h_score, logme


def gaussians(count, width, distance, classes=3, seed=0):
    """Return features of Gaussian classes of unit variance, their means at random places, with labels."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    means = random.normal(size=(classes, width))
    return distance * means[labels] + random.normal(size=(count, width)), labels


def brute_force(features, labels):
    """Return LogME by maximizing the density of the targets, N(0, 1/beta + F F^T / alpha), from several starts."""

    def negative(logs, target):
        covariance = np.exp(-logs[1]) * np.eye(len(target)) + np.exp(-logs[0]) * features @ features.T
        return -stats.multivariate_normal(np.zeros(len(target)), covariance).logpdf(target) / len(target)

    found = []
    for each in np.unique(labels):
        target = (labels == each).astype(float)
        starts = [(0.0, 0.0), (3.0, 3.0)]
        options = {"xatol": 1e-6, "fatol": 1e-10, "maxiter": 1000}
        ends = [
            optimize.minimize(negative, start, (target,), method="Nelder-Mead", options=options, bounds=[(-18, 18)] * 2)
            for start in starts
        ]
        found.append(-min(end.fun for end in ends))
    return float(np.mean(found))


@pytest.mark.parametrize(("count", "width", "distance"), [(24, 3, 1.0), (24, 3, 0.0), (12, 20, 0.5)])
def test_logme_is_the_log_evidence_found_by_brute_force(count, width, distance):
    features, labels = gaussians(count, width, distance)
    assert logme(features, labels) == pytest.approx(brute_force(features, labels), abs=2e-6)


def test_the_h_score_of_gaussian_classes_is_that_of_their_distance():
    random = np.random.default_rng(0)
    labels = np.arange(200_000) % 2
    for distance in (0.5, 2.0):
        features = np.stack([distance * (2 * labels - 1), 0 * labels], 1) + random.normal(size=(len(labels), 2))
        assert h_score(features, labels) == pytest.approx(distance**2 / (1 + distance**2), abs=3e-3)


def test_the_h_score_is_the_sum_of_the_squared_canonical_correlations_with_the_classes():
    features, labels = gaussians(60, 7, 0.7, classes=4)
    targets = np.eye(4)[labels][:, 1:]
    first, second = (np.linalg.qr(each - each.mean(0))[0] for each in (features, targets))
    expected = (np.linalg.svd(first.T @ second, compute_uv=False) ** 2).sum()
    assert h_score(features, labels) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("score", [logme, h_score])
def test_separable_features_rank_first_and_noise_ranks_last(score):
    found = [score(*gaussians(300, 8, distance)) for distance in (3.0, 1.0, 0.3, 0.0)]
    assert found == sorted(found, reverse=True)
    assert len({round(each, 3) for each in found}) == 4


@pytest.mark.parametrize("score", [logme, h_score])
def test_scale_rotation_and_constant_features_change_nothing(score):
    features, labels = gaussians(80, 5, 1.0)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))[0]
    assert score(100 * features @ rotation, labels) == pytest.approx(score(features, labels), abs=1e-6)
    padded = np.concatenate([features, np.zeros((80, 2))], 1)
    assert score(padded, labels) == pytest.approx(score(features, labels), abs=1e-6)


@pytest.mark.parametrize("score", [logme, h_score])
def test_features_without_information_have_a_finite_score(score):
    labels = np.arange(9) % 3
    for features in (np.zeros((9, 4)), np.ones((9, 4)), np.eye(3)[labels], np.eye(9)):
        assert np.isfinite(score(features, labels))
    assert h_score(np.zeros((9, 4)), labels) == 0
    assert h_score(np.eye(3)[labels], labels) == pytest.approx(2)


@pytest.mark.parametrize("classes", [2, 4])
def test_the_classifier_is_the_best_of_those_of_scikit_learn(classes):
    train, val = gaussians(120, 6, 0.8, classes, seed=1), gaussians(90, 6, 0.8, classes, seed=1)
    val = (val[0] + np.random.default_rng(3).normal(size=val[0].shape), val[1])
    train = (5 + 3 * train[0], train[1])
    val = (5 + 3 * val[0], val[1])
    found = fit_linear_probe(train, val)
    models = {}
    for penalty in PENALTIES:
        logistic = linear_model.LogisticRegression(C=1 / (penalty * 120), max_iter=10_000, tol=1e-7)
        models[penalty] = pipeline.make_pipeline(preprocessing.StandardScaler(), logistic).fit(*train)
    losses = {penalty: metrics.log_loss(val[1], model.predict_proba(val[0])) for penalty, model in models.items()}
    best = min(losses, key=losses.get)
    assert found.penalty == best and best not in (PENALTIES[0], PENALTIES[-1])
    assert found.nll == pytest.approx(losses[best], abs=2e-3)
    assert found.accuracy == pytest.approx(models[best].score(*val), abs=1.5 / 90)
    assert found.standard_error == pytest.approx((found.accuracy * (1 - found.accuracy) / 90) ** 0.5)


def test_a_class_that_training_lacks_counts_as_an_error():
    features, labels = gaussians(60, 4, 6.0, 3)
    some = labels < 2
    whole = fit_linear_probe((features[some], labels[some]), (features, labels))
    assert whole.accuracy == pytest.approx(2 / 3)
    assert np.isfinite(whole.nll)
