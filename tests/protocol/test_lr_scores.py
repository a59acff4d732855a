"""The choice of a learning rate against cases by hand, and suggestions of a range test against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from runner.protocol.lr_scores import (
    between,
    beyond,
    choose,
    decades,
    noise_of,
    score_of,
    smoothed,
    suggestions,
)

INF = math.inf
CHANCE = 2.303


def pick(scores, **changes):
    values = {"start": 2.3, "noise": 0.05, "chance": CHANCE, "within": 0.05}
    return choose(scores, **(values | changes))


@pytest.mark.parametrize(
    ("scores", "lr", "stable", "edge"),
    [
        # The largest within 5 % of the fall: 1.0 + 0.05 * 1.3 = 1.065
        ({0.001: 2.0, 0.01: 1.0, 0.1: 1.06, 1.0: 1.9}, 0.1, 1.0, 0),
        ({0.001: 2.0, 0.01: 1.0, 0.1: 1.07, 1.0: 1.9}, 0.01, 1.0, 0),
        # One step down from divergence, once
        ({0.01: 1.2, 0.1: 1.0, 1.0: INF}, 0.01, 0.1, 0),
        ({0.01: 1.0, 0.1: 1.9, 1.0: INF}, 0.01, 0.1, -1),
        ({0.1: 1.0, 1.0: INF}, 0.1, 0.1, -1),
        # Edges
        ({0.01: 2.0, 0.1: 1.5, 1.0: 1.0}, 1.0, 1.0, 1),
        ({0.01: 1.0, 0.1: 1.5, 1.0: 1.6}, 0.01, 1.0, -1),
        # A hole: stable is below it
        ({0.01: 1.0, 0.1: INF, 1.0: 1.02}, 1.0, 0.01, 1),
    ],
)
def test_the_choice(scores, lr, stable, edge):
    found = pick(scores)
    assert (found.lr, found.stable, found.edge) == (lr, stable, edge)


def test_nothing_is_handed_on_if_the_loss_does_not_go_down():
    # 2 % of chance is 0.046; three standard errors of the median of 20 are 0.034
    assert pick({0.01: 2.255, 0.1: 2.3}).lr is None and pick({0.01: 2.25, 0.1: 2.3}).lr == 0.01
    assert pick({0.01: 2.2, 0.1: 2.3}, noise=0.2).lr is None
    assert pick({0.01: 2.2, 0.1: 2.3}, noise=0.2).needed == pytest.approx(3 * 0.2 / math.sqrt(20))
    nothing = pick({0.01: INF, 0.1: INF})
    assert nothing.lr is nothing.best is nothing.stable is None and nothing.edge == -1


def test_scores_are_medians_of_the_end_and_infinite_where_a_curve_explodes():
    falling = [2.3 - 0.02 * step for step in range(100)]
    assert score_of(falling, 100, 4.0) == pytest.approx(float(np.median(falling[-20:])))
    assert score_of([*falling[:-1], 50.0], 100, 4.0) == INF
    assert score_of(falling[:-1], 100, 4.0) == INF and score_of([*falling[:-1], math.nan], 100, 4.0) == INF
    # One bad step near the end of a fall does not count, and neither does noise near zero
    assert score_of([*falling[:-1], falling[-1] + 0.5], 100, 4.0) < 1
    assert score_of([2.3, *[0.001] * 50, 0.05, *[0.001] * 48], 100, 4.0) < 0.01


def test_smoothing_of_a_constant_is_the_constant_and_noise_is_its_standard_deviation():
    assert smoothed([3.0] * 10) == pytest.approx(3.0)
    curves = 1 + np.random.default_rng(0).normal(0, 0.2, (200, 40))
    assert np.mean([noise_of(each.tolist()) for each in curves]) == pytest.approx(0.2, rel=0.05)
    assert noise_of([1.0]) == 0


def test_the_learning_rates_that_are_tried():
    assert decades(0.1) == [0.001, 0.01, 0.1, 1.0] and decades(0.005) == [5e-5, 5e-4, 0.005, 0.05]
    assert between(0.1, [0.01, 0.1, 1.0]) == [0.0316, 0.316] and between(0.1, [0.0316, 0.1]) == [0.316]
    assert beyond(1, [0.1, 1.0]) == [3.16, 10.0] and beyond(-1, [0.1, 1.0]) == [0.0316, 0.01]


def test_suggestions_of_a_range_test():
    rates = np.logspace(-6, 1, 100)
    # A fall centered at 1e-2 and an explosion above 1
    logs = np.log10(rates)
    losses = 2.3 - 2 / (1 + np.exp(-3 * (logs + 2))) + np.where(logs > 0, 10 * logs**2, 0)
    found = suggestions(rates.tolist(), losses.tolist())
    assert found["steep"] == pytest.approx(1e-2, rel=0.2)
    assert found["minimum"] == pytest.approx(rates[losses[10:-5].argmin() + 10] / 10)
    assert 1e-3 < found["valley"] < 1
    # On a straight fall the valley is at two thirds of it, as fastai computes: int(n / 3) + int(n / 6)
    straight = suggestions(rates.tolist(), np.linspace(2, 1, 100).tolist())
    assert straight["valley"] == pytest.approx(rates[10 + 28 + 14])
    assert suggestions(rates.tolist(), [math.nan] * 100) == {}
