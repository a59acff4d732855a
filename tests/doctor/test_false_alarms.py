"""Warnings on healthy curves: exponential falls with white and correlated noise, and the scores that belong to them."""

import collections

import numpy as np
import pytest
from sample_curves import EPOCH, cosine, evaluations, falling, lrs, measured, noise, rising, run
from scipy.stats import beta

from runner.doctor import Severity, diagnose

COUNTS = (900, 1500)
SDS = (0.03, 0.1, 0.3)
MEMORIES = (0.0, 0.5, 0.9)
VAL, TRAIN = 1000, 5000


def _healthy(seed):
    """Return a healthy history: its shape, noise and schedule are drawn with a seed, and it has 30 validations."""
    random = np.random.default_rng(seed)
    count, sd = random.choice(COUNTS), SDS[seed % 3]
    memory = MEMORIES[seed // 3 % 3]
    low, rate = random.uniform(0.02, 1.0), random.uniform(8, 60)
    loss = falling(count, low=low, rate=rate)
    # The noise of a loss falls with it: its scale is that of the loss
    loss = np.maximum(loss * (1 + noise(seed, count, sd, memory)), 1e-4)
    top, evals = random.uniform(0.6, 0.97), count // EPOCH
    level = rising(evals, top=top, rate=rate)
    train = np.minimum(level + random.uniform(0, 0.08), 1.0)
    # The same examples each time, so that most of the sampling error is one number for the whole curve
    val = level + random.normal() * np.sqrt(top * (1 - top) / VAL) + random.normal(size=evals) * 0.004
    scheduler = ("cosine", "constant")[seed % 2]
    return run(
        count=int(count), scheduler=scheduler, val_examples=VAL, train_examples=TRAIN,
        train__loss=loss, train__lr=cosine(count) if scheduler == "cosine" else lrs([0.1, 0.1], count),
        val__accuracy=evaluations(np.clip(val, 0, 1), count),
        train_eval__accuracy=evaluations(train, count),
        train_eval__loss=evaluations(falling(evals, low=low, rate=rate), count),
        val__loss=evaluations(falling(evals, low=low * 1.2 + 0.05, rate=rate) + noise(seed, evals, 0.005), count),
        **{"ratio__l2/_global": measured(np.exp(random.normal(-6, 0.5, 19)), count)},
    )  # fmt: skip


def _warnings(seeds):
    """Return how often each rule warns, and the number of curves with a warning."""
    found, curves = collections.Counter(), 0
    for seed in seeds:
        warned = [each.id for each in diagnose(_healthy(seed)) if each.severity is not Severity.HINT]
        found.update(warned)
        curves += bool(warned)
    return found, curves


def test_few_of_90_healthy_curves_have_a_warning():
    found, curves = _warnings(range(90))
    # At a true rate of 2 % more than 6 of 90 have a probability of 0.3 %
    assert curves <= 6, found


@pytest.mark.slow
def test_at_most_one_in_fifty_healthy_curves_has_a_warning():
    count = 1000
    found, curves = _warnings(range(1000, 1000 + count))
    upper = beta.ppf(0.975, curves + 1, count - curves)
    assert curves <= 0.02 * count, found
    assert upper <= 0.03, found


@pytest.mark.slow
def test_each_kind_of_noise_stays_within_the_limit():
    for kind in range(9):
        found, curves = _warnings(range(10_000 + kind, 10_000 + kind + 9 * 100, 9))
        assert curves <= 6, (SDS[kind % 3], MEMORIES[kind // 3], found)
