"""The refining step by hand: its ranges, its search on a known function, and the winner against the incumbent."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from runner.protocol import refine as refine_step
from runner.protocol.context import Budget
from runner.protocol.outcome import Level
from runner.protocol.refine import Refine
from runner.protocol.refine_space import candidates_of, edges_of, first_ranges, widest_ranges
from runner.protocol.refine_words import Confirmed, criteria_of, sure_of
from runner.protocol.trials import Trial

LR, DECAY = "optim.lr", "optim.weight_decay"
CONFIG = {"optim": {"name": "momentum", "lr": 0.1, "weight_decay": 1e-4}, "seed": 7}


def trial(score, seed=0, **values):
    return Trial(values=values or {LR: 0.1}, seed=seed, score=score, accuracy=0.9, nll=score, folder=f"f/{seed}")


@pytest.mark.parametrize(
    ("candidates", "stable", "ends"),
    [
        ([(0.1, 1e-4)], None, [(0.05, 0.2), (3.33333e-5, 3e-4)]),
        ([(0.1, 1e-4), (0.3, 1e-3)], 0.4, [(0.05, 0.4), (3.33333e-5, 3e-3)]),
        # A candidate above what is stable stays
        ([(0.3, 1e-4)], 0.2, [(0.15, 0.3), (3.33333e-5, 3e-4)]),
        ([(0.1, 0.0), (0.1, 1e-3)], None, [(0.05, 0.2), (0.0, 3e-3)]),
        ([(0.1, 0.0)], None, [(0.05, 0.2)]),
    ],
)
def test_the_ranges_are_around_the_candidates(candidates, stable, ends):
    points = [{LR: lr, DECAY: decay} for lr, decay in candidates]
    start = first_ranges(points, stable)
    assert [(axis.low, axis.high) for axis in start.axes] == [pytest.approx(each) for each in ends]
    assert [axis.log for axis in start.axes] == [low > 0 for low, _ in ends]
    # Nothing is rounded away from a candidate
    for point in points:
        assert all(float(text) == point[key] for key, text in start.words(start.ordered(point)))
    widest = widest_ranges(start, stable).axes[0]
    assert widest.low == pytest.approx(ends[0][0] / 10)
    assert widest.high == pytest.approx(10 * ends[0][1] if stable is None else max(stable, ends[0][1]))


def test_the_candidates_are_those_of_step_4_else_the_config():
    assert candidates_of(CONFIG, {}) == [{LR: 0.1, DECAY: 1e-4}]
    assert candidates_of({"optim": {"lr": 0.5}}, {}) == [{LR: 0.5}]
    assert candidates_of(CONFIG, {"candidates": [{LR: 1, DECAY: 0}]}) == [{LR: 1.0, DECAY: 0.0}]


def test_an_edge_is_a_lowest_or_highest_value_that_could_be_moved():
    tried = [{LR: lr, DECAY: decay} for lr, decay in ((0.1, 0.0), (0.2, 1e-3), (0.4, 1e-4))]
    assert edges_of(tried[0], tried, None) == [f"lowest {LR}"]
    assert edges_of(tried[1], tried, None) == [f"highest {DECAY}"]
    assert edges_of(tried[2], tried, None) == [f"highest {LR}"] and edges_of(tried[2], tried, 0.4) == []


def confirmed(winner, incumbent, sign=-1.0):
    return Confirmed(
        winner=[trial(score, seed) for seed, score in enumerate(winner)],
        incumbent=[trial(score, seed, **{LR: 0.5}) for seed, score in enumerate(incumbent)],
        sign=sign,
        seed_sd=0.1,
    )


@pytest.mark.parametrize(
    ("winner", "incumbent", "sign", "verdict", "kept", "level"),
    [
        ([1.0, 1.1, 1.2], [2.0, 2.15, 2.2], -1.0, "better", "winner", Level.PASS),
        ([2.0, 2.15, 2.2], [1.0, 1.1, 1.2], -1.0, "worse", "incumbent", Level.WARN),
        ([2.0, 2.15, 2.2], [1.0, 1.1, 1.2], 1.0, "better", "winner", Level.PASS),
        ([1.0, 1.5, 1.2], [1.1, 1.3, 1.4], -1.0, "not distinguishable", "winner", Level.PASS),
        ([1.0, 1.5, 1.2], [1.1, 1.3, 1.2], -1.0, "not distinguishable", "incumbent", Level.PASS),
        ([1.0, math.nan, 1.2], [1.1, 1.3, 1.2], -1.0, "not distinguishable", "incumbent", Level.PASS),
        ([1.0, 1.1, 1.2], [1.0, math.nan, 1.2], -1.0, "not distinguishable", "winner", Level.PASS),
    ],
)
def test_the_better_one_on_fresh_seeds_is_handed_on_with_its_interval(winner, incumbent, sign, verdict, kept, level):
    found = confirmed(winner, incumbent, sign)
    assert found.chosen == {LR: 0.1 if kept == "winner" else 0.5}
    criteria = {each.name: each.level for each in criteria_of(found, [], "val/loss")}
    assert criteria["not worse than the incumbent"] is level
    assert criteria["trains with fresh seeds"] is Level.PASS
    text = sure_of(found, "val/loss")
    assert f": {verdict}; the {kept} is handed on" in text
    differences = np.subtract(winner, incumbent)
    if np.isfinite(differences).all():
        test = stats.ttest_rel(winner, incumbent).confidence_interval()
        assert (found.interval.low, found.interval.high) == pytest.approx((test.low, test.high))
        assert f"{test.low:+.3g} to {test.high:+.3g}" in text


def test_a_winner_that_is_the_incumbent_passes_and_one_that_diverges_fails():
    same = confirmed([1.0, 1.1, 1.2], [])
    assert "nothing better than the best candidate" in sure_of(same, "val/loss")
    assert {each.level for each in criteria_of(same, [], "val/loss")} == {Level.PASS}
    lost = criteria_of(confirmed([1.0, math.nan, 1.2], []), [f"lowest {LR}"], "val/loss")
    assert [each.level for each in lost] == [Level.FAIL, Level.WARN, Level.PASS]


@dataclass
class Valley:
    """Trainings whose loss is a parabola in the logarithms, least at lr 0.15 and decay 2e-4, with noise by seed."""

    calls: list[tuple[float, float, int]] = field(default_factory=list)

    def train_all(self, context, base, points, metric):
        context.budget.used += len(points)
        found = []
        for values, seed in points:
            self.calls.append((values[LR], values[DECAY], seed))
            loss = (
                math.log(values[LR] / 0.15) ** 2 + 0.1 * math.log(values[DECAY] / 2e-4) ** 2 + 0.001 * seed * values[LR]
            )
            found.append(trial(loss, seed, **values))
        return found


def search(monkeypatch, tmp_path, budget=math.inf, **knobs):
    valley = Valley()
    monkeypatch.setattr(refine_step, "train_all", valley.train_all)
    folder = tmp_path / "05_refine" / "runs-x"
    folder.mkdir(parents=True)
    facts = {"candidates": [{LR: 0.1, DECAY: 1e-4}], "coarse_epochs": 1, "epoch_seconds": 1.0}
    config = {**CONFIG, "average": {"name": "none"}}
    context = SimpleNamespace(config=config, facts=facts, budget=Budget(trainings=budget), folder=folder,
                              vary=lambda config, changes: config)  # fmt: skip
    given = {"epochs": "auto", "points": 9, "rounds": 1, "seeds": 2, "confirm_seeds": 3, "metric": "val/loss"} | knobs
    step = Refine(**given)
    return step, step.needs(context), step.run(context), valley.calls


def test_the_search_finds_a_valley_and_confirms_it_with_seeds_that_did_not_choose(monkeypatch, tmp_path):
    _, needs, result, calls = search(monkeypatch, tmp_path)
    assert len(calls) == len(result.measurements["trials"]) == 9 + 3 + 3 + 3
    assert calls[0] == (0.1, 1e-4, 7)
    assert abs(math.log(result.handoff[LR] / 0.15)) < abs(math.log(0.1 / 0.15))
    assert {seed for *_, seed in calls[:12]} == {7, 8} and {seed for *_, seed in calls[12:]} == {9, 10, 11}
    assert result.measurements["difference"]["high"] < 0 and result.measurements["epochs"] == 10.0
    assert result.facts["seed_sd"] == pytest.approx(result.measurements["seed_sd"])
    assert (tmp_path / "05_refine" / "trials.csv").read_text().count("\n") == 19
    # 3 points, 2 of them twice, and 6 fresh ones, of 10 epochs
    assert needs == (11, 110.0)


@pytest.mark.parametrize(("budget", "points"), [(11, 3), (13, 5), (18, 9)])
def test_a_small_budget_takes_fewer_points_and_is_not_exceeded(monkeypatch, tmp_path, budget, points):
    _, _, result, calls = search(monkeypatch, tmp_path, budget)
    assert len(calls) <= budget
    assert sum(each["stage"] == "round 1" and each["seed"] == 7 for each in result.measurements["trials"]) == points


def test_a_second_round_is_narrower(monkeypatch, tmp_path):
    _, _, result, calls = search(monkeypatch, tmp_path, rounds=2)
    stages = {each["stage"] for each in result.measurements["trials"]}
    assert stages == {"round 1", "round 2", "winner", "incumbent"} and len(calls) > 18
