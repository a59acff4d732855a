"""The coarse search by hand: its grid, its extension, the order of its points, and its gates."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from runner.protocol.coarse_grid import Grid, grid_around
from runner.protocol.coarse_words import Baseline, criteria_of
from runner.protocol.outcome import Level
from runner.protocol.trials import Trial, averaged, ranked, seed_sd

LR, DECAY = "optim.lr", "optim.weight_decay"
FACTORS = (0.1, 0.333, 1.0, 3.0)
MOMENTUM = {"optim": {"name": "momentum", "lr": 0.1, "weight_decay": 5e-4}}


def trial(score, lr=0.1, decay=0.0, seed=0, accuracy=0.9, nll=None):
    nll = score if nll is None else nll
    return Trial(values={LR: lr, DECAY: decay}, seed=seed, score=score, accuracy=accuracy, nll=nll, folder="f")


@pytest.mark.parametrize(
    ("config", "facts", "lrs", "decays"),
    [
        (MOMENTUM, {}, (0.01, 0.0333, 0.1, 0.3), (0.0, 1e-5, 1e-4, 1e-3)),
        (MOMENTUM, {"lr_max_stable": 0.3}, (0.01, 0.0333, 0.1, 0.3), (0.0, 1e-5, 1e-4, 1e-3)),
        (MOMENTUM, {"lr_max_stable": 0.2}, (0.01, 0.0333, 0.1), (0.0, 1e-5, 1e-4, 1e-3)),
        ({"optim": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.01}}, {}, (1e-4, 3.33e-4, 1e-3, 3e-3),
         (0.0, 0.01, 0.1)),
        ({"optim": {"name": "mine", "lr": 1.0}}, {}, (0.1, 0.333, 1.0, 3.0), ()),
    ],
)  # fmt: skip
def test_the_grid_is_around_the_learning_rate_and_not_above_what_is_stable(config, facts, lrs, decays):
    grid = grid_around(config, FACTORS, None, facts)
    assert grid.lrs == pytest.approx(lrs) and grid.decays == decays
    assert len(grid.points()) == len(lrs) * max(1, len(decays))
    assert grid_around(config, (3.0,), [0.5], {"lr_max_stable": 0.002}).lrs == (config["optim"]["lr"],)


def test_a_grid_is_extended_only_at_ends_that_can_be_moved():
    grid = Grid(lrs=(0.1, 0.3), decays=(0.0, 0.001), highest=0.5)
    assert grid.edges({LR: 0.3, DECAY: 0.0}) == []
    assert replace(grid, highest=1.0).edges({LR: 0.3, DECAY: 0.0}) == [f"highest {LR}"]
    assert grid.edges({LR: 0.1, DECAY: 0.001}) == [f"lowest {LR}", f"highest {DECAY}"]
    wider = grid.extended([f"lowest {LR}", f"highest {DECAY}"])
    assert wider.lrs == (0.0333, 0.1, 0.3) and wider.decays == (0.0, 0.001, 0.01)
    positive = Grid(lrs=(0.1, 0.3), decays=(0.01, 0.1))
    assert positive.edges({LR: 0.3, DECAY: 0.01}) == [f"highest {LR}", f"lowest {DECAY}"]
    assert positive.extended([f"highest {LR}", f"lowest {DECAY}"]) == Grid(
        lrs=(0.1, 0.3, 0.9), decays=(0.001, 0.01, 0.1)
    )


@pytest.mark.parametrize("mode", ["qmc", "random"])
def test_points_between_the_ends_are_repeatable_and_an_outer_one_is_seen(mode):
    grid = Grid(lrs=(0.01, 0.1, 1.0), decays=(0.0, 1e-4, 1e-2))
    points = grid.sampled(mode, 32, 0)
    assert len(points) == 32 and points == grid.sampled(mode, 32, 0) != grid.sampled(mode, 32, 1)
    assert all(0.01 <= each[LR] <= 1.0 and 1e-4 <= each[DECAY] <= 1e-2 for each in points)
    # Half of a logarithmic scale has about half of the points
    assert 8 <= sum(each[LR] < 0.1 for each in points) <= 24
    assert Grid(lrs=(0.1,), decays=(0.0, 1e-4)).sampled(mode, 4, 0) == [{LR: 0.1, DECAY: 0.0}]
    # A tenth of two decades is a factor of 10 ** 0.2 = 1.585
    assert grid.outer({LR: 0.0158, DECAY: 1e-3}) == [f"lowest {LR}"]
    assert grid.outer({LR: 0.0159, DECAY: 9e-3}) == [f"highest {DECAY}"]
    assert replace(grid, highest=2.0).outer({LR: 0.99, DECAY: 1e-3}) == []


def test_the_order_is_by_score_then_likelihood_then_the_smaller_rate():
    points = [trial(0.5, 0.3), trial(math.nan, 1.0), trial(0.5, 0.1), trial(0.4, 0.2), trial(0.5, 0.7, nll=0.45)]
    assert [each.values[LR] for each in ranked(points, "val/loss")] == [0.2, 0.7, 0.1, 0.3, 1.0]
    assert [each.values[LR] for each in ranked(points, "val/accuracy")] == [0.7, 0.1, 0.3, 0.2, 1.0]


def test_scores_are_averaged_over_seeds_and_their_sd_is_pooled():
    points = [trial(1.0, seed=0), trial(2.0, seed=1), trial(5.0, 0.2, seed=0), trial(9.0, 0.2, seed=1)]
    assert [each.score for each in averaged(points)] == [1.5, 7.0]
    pooled = math.sqrt((statistics.variance([1, 2]) + statistics.variance([5, 9])) / 2)
    assert seed_sd(points) == pytest.approx(pooled)
    assert math.isnan(seed_sd(points[::2])) and not averaged([*points, trial(math.nan, 0.2, seed=2)])[1].finite


BASE = Baseline.of(np.array([30.0, 30, 40]), np.array([100.0, 200, 100]))


def levels(best, edges=(), sd=math.nan):
    return {each.name: each.level for each in criteria_of(best, BASE, list(edges), sd, "val/loss")}


def test_a_baseline_is_the_most_frequent_class_of_training():
    assert (BASE.majority, BASE.chance, BASE.count) == (0.3, 1 / 3, 100)
    assert BASE.entropy == pytest.approx(-2 * 0.3 * math.log(0.3) - 0.4 * math.log(0.4))


@pytest.mark.parametrize(
    ("accuracy", "nll", "beats", "below"),
    [
        # 0.3 + 3 * sqrt(a (1 - a) / 100): 0.447 at 0.44, 0.449 at 0.45
        (0.44, 0.5, Level.FAIL, Level.PASS),
        (0.45, 0.5, Level.PASS, Level.PASS),
        # H = 1.0889; 1.3 * 0.837 = 1.0881
        (0.9, 0.837, Level.PASS, Level.PASS),
        (0.9, 0.838, Level.PASS, Level.FAIL),
    ],
)
def test_a_search_must_beat_the_most_frequent_class_and_the_class_shares(accuracy, nll, beats, below):
    found = levels([trial(0.5, accuracy=accuracy, nll=nll), trial(math.nan, 1.0)])
    assert found["beats the most frequent class"] is beats
    assert found["loss below that of the class frequencies"] is below
    assert found["trainings that diverged"] is Level.PASS


def test_edges_divergence_and_points_that_seeds_do_not_separate_are_warnings():
    good = [trial(0.5), trial(0.52, 0.2), trial(0.6, 0.3)]
    assert levels(good)["inside the range"] is Level.PASS
    assert levels(good, [f"lowest {LR}"])["inside the range"] is Level.WARN
    stands_out = "the best point stands out"
    assert [levels(good, sd=sd)[stands_out] for sd in (0.049, 0.051, math.nan)] == [
        Level.PASS, Level.WARN, Level.HINT
    ]  # fmt: skip
    lost = [trial(math.nan, float(lr)) for lr in range(1, 5)]
    assert levels(good + lost[:3])["trainings that diverged"] is Level.PASS
    assert levels(good + lost)["trainings that diverged"] is Level.WARN
    none = levels(lost)
    assert none["beats the most frequent class"] is none["loss below that of the class frequencies"] is Level.FAIL


def test_fewer_quasi_random_points_fit_a_budget_but_not_a_part_of_a_grid():
    from runner.protocol.coarse import Coarse

    knobs = {"epochs": 1.0, "lr_factors": FACTORS, "weight_decays": None, "points": 16, "seeds": 2,
             "metric": "val/loss"}  # fmt: skip
    context = SimpleNamespace(config=MOMENTUM, facts={"epoch_seconds": 2.0})
    assert Coarse(mode="grid", **knobs).needs(context) == (32, 64.0)
    assert Coarse(mode="qmc", **knobs).needs(context) == (8, 16.0)
