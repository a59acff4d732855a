"""Best scores of simulated budgets against all draws, and the settings of scientific keys against hand-made tables."""

import csv
import itertools
import math

import numpy as np
import pytest

from runner.engine.monitor import Monitor
from runner.errors import ConfigError
from runner.search.budgets import best_of, best_so_far, write_best_so_far
from runner.search.records import RankedPoint
from runner.search.scientific import check_scientific, report_scientific

ACCURACY, LOSS = Monitor("val/accuracy"), Monitor("val/loss")
SCORES = [0.3, 0.9, 0.5, 0.5, 0.1, 0.7, 0.2, 0.8, 0.4]


@pytest.mark.parametrize("count", [1, 2, 4, 8, 9])
@pytest.mark.parametrize(("monitor", "best"), [(ACCURACY, max), (LOSS, min)])
def test_the_best_of_some_trials_is_that_over_all_draws(count, monitor, best):
    draws = sorted(best(draw) for draw in itertools.combinations(SCORES, count))
    found = best_of(SCORES, count, monitor)
    assert found.mean == pytest.approx(np.mean(draws))
    # The quantiles are taken from the worse end, where the share of draws first reaches them
    worst_first = draws if monitor is ACCURACY else draws[::-1]
    at = {share: worst_first[math.ceil(share * len(draws) - 1e-9) - 1] for share in (0.05, 0.5, 0.95)}
    assert found.median == at[0.5] and (found.low, found.high) == tuple(sorted((at[0.05], at[0.95])))


def test_trials_without_a_score_are_the_worst_and_a_draw_of_them_alone_has_none():
    assert math.isnan(best_of([0.5, math.nan, math.nan], 1, ACCURACY).median)
    assert best_of([0.5, math.nan], 2, ACCURACY).mean == pytest.approx(0.5)
    assert best_of([0.5, math.nan], 2, LOSS).median == 0.5
    for count in (0, 3):
        with pytest.raises(ValueError, match=f"{count} of 2 trials"):
            best_of([0.5, 0.6], count, ACCURACY)


def test_many_trials_keep_their_precision():
    scores = list(range(1000))
    # The expected largest of k of 0 ... n - 1 is k (n + 1) / (k + 1) - 1
    assert best_of(scores, 30, ACCURACY).mean == pytest.approx(30 * 1001 / 31 - 1, rel=1e-9)


def test_the_file_has_the_best_score_after_each_trial(tmp_path):
    scores = [0.4, math.nan, 0.6, 0.5]
    assert best_so_far(scores, ACCURACY)[1:] == [0.4, 0.6, 0.6] and best_so_far(scores, LOSS)[2:] == [0.4, 0.4]
    write_best_so_far(tmp_path, scores, ACCURACY)
    with (tmp_path / "best_so_far.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["best"] for row in rows] == ["0.4", "0.4", "0.6", "0.6"] and rows[1]["val/accuracy"] == ""
    assert float(rows[3]["mean_of_random"]) == pytest.approx(0.6) and rows[0]["mean_of_random"] == ""
    write_best_so_far(tmp_path, [math.nan, *SCORES * 60], ACCURACY)
    with (tmp_path / "best_so_far.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 541 and sum(row["median"] != "" for row in rows) <= 202 and rows[-1]["median"] == "0.9"


def point(number: int, optim: str, lr: str, value: float | None, **more) -> RankedPoint:
    words = [("optim", optim), ("optim.lr", lr)]
    scores = [] if value is None else [value]
    return RankedPoint(number=number, words=words, state="complete", value=value, scores=scores, **more)


def table(folder, rows, monitor=ACCURACY) -> list[dict[str, str]]:
    report_scientific(folder, rows, ["optim"], monitor)
    with (folder / "scientific.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_each_setting_is_shown_at_its_own_best_values(tmp_path, capsys):
    rows = [
        point(0, "adam", "0.001", 0.8),
        point(1, "adam", "0.1", 0.2),
        point(2, "sgd", "0.001", 0.3),
        point(3, "sgd", "0.1", 0.7),
        point(4, "sgd", "1", None),
        point(5, "rmsprop", "1", None),
        point(6, "rmsprop", "0.1", None),
    ]
    found = table(tmp_path, rows)
    expected = [("adam", "0.001", "0.8", "2", "0"), ("sgd", "0.1", "0.7", "3", "1"), ("rmsprop", "", "", "2", "2")]
    keys = ("optim", "optim.lr", "val/accuracy (best)", "trials", "without score")
    assert [tuple(row[key] for key in keys) for row in found] == expected
    # The mean best of two of 0.3, 0.7 and none: 0.7, 0.7, 0.3
    assert float(found[1]["best of 2"]) == pytest.approx((0.7 + 0.7 + 0.3) / 3)
    assert "they had 2 to 3 trials" in capsys.readouterr().out.replace("\n", " ")
    assert [row["optim"] for row in table(tmp_path, rows, LOSS)] == ["adam", "sgd", "rmsprop"]
    assert table(tmp_path, rows, LOSS)[0]["optim.lr"] == "0.1"


def test_fresh_seeds_count_more_than_the_score_that_chose_a_point(tmp_path):
    rows = [
        point(0, "adam", "0.1", 0.9, fresh=[0.7, 0.72]),
        point(1, "adam", "0.2", 0.95),
        point(2, "sgd", "0.1", 0.8),
    ]
    found = table(tmp_path, rows)
    assert [row["optim"] for row in found] == ["sgd", "adam"]
    assert float(found[1]["val/accuracy (best)"]) == pytest.approx(0.71) and found[1]["seeds"] == "2"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["model"], "hydra.sweeper.scientific: unknown key with several values 'model'"),
        (["seed"], "hydra.sweeper.scientific: unknown key with several values 'seed'"),
        ("optim", "hydra.sweeper.scientific: got optim, must be a list of keys"),
    ],
)
def test_a_scientific_key_is_one_that_is_searched(values, message):
    assert check_scientific(["optim"], ["optim", "seed"]) == ("optim",)
    with pytest.raises(ConfigError) as caught:
        check_scientific(values, ["optim", "optim.lr", "seed"])
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)
